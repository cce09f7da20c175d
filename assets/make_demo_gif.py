"""Draw docs/demo.gif, the moving picture of the front page, from a run of the demo.

    python cli.py fit --config configs/demo.yaml --run.root /tmp/demo
    python assets/make_demo_gif.py /tmp/demo/demo/*

The picture shows one held-out problem: the model's answer before training, the loss during training, and the answer
after training, token by token. Every text and figure comes from the run's samples.md, metrics.csv and summary.json.
Two things differ from the run: each think block starts on a line of its own, and time is shortened.
"""

import argparse
import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import log
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
FONTS = Path("/usr/share/fonts/truetype/dejavu")  # Debian's fonts-dejavu-core
COMMAND = "python cli.py fit --config configs/demo.yaml"

WIDTH, HEIGHT, MARGIN, LINE, BAR = 880, 524, 28, 25, 38  # pixels; BAR is the height of the title bar
LABELS = 104  # pixels from the margin to the text beside "before", "training" and "after"
COLOURS = {
    "ground": "#11151f", "bar": "#1c2230", "frame": "#2b3346", "text": "#c6d0e2", "label": "#6f7d99",
    "thought": "#7f8ba5", "tag": "#5b6fb5", "answer": "#ffffff", "right": "#5fd38d", "wrong": "#f0717b",
    "prompt": "#e7b75f", "curve": "#5aa9f0",
}  # fmt: skip
TYPING, CURVE, TOKEN, PAUSE, END = 40, 50, 50, 900, 5000  # milliseconds: a frame of each kind, and the waits

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Run:
    """What the picture shows of a run."""

    question: str
    before: str  # the first answer, at step 0
    thoughts: list[str]  # of the last answer
    answer: str
    reference: str
    losses: list[tuple[int, float]]  # (optimizer step, loss per token)
    figures: list[tuple[str, str, str]]  # (name, before, after)


@dataclass
class Screen:
    """How much of each part of the picture is shown; drawn by draw()."""

    command: int = 0  # characters
    before: bool = False
    verdict_before: bool = False
    curve: float = 0.0  # part of the optimizer steps
    after: bool = False
    tokens: int = 0
    verdict_after: bool = False
    figures: int = 0


def read_run(folder: Path) -> Run:
    """Read a run of configs/demo.yaml; raise SystemExit if the folder holds no finished run."""
    try:
        samples = (folder / "samples.md").read_text(encoding="utf-8")
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        with (folder / "metrics.csv").open(encoding="utf-8") as file:
            metrics = list(csv.DictReader(file))
        before, after = summary["before"], summary["after"]
    except (OSError, KeyError) as error:
        raise SystemExit(f"{folder}: not a finished run of configs/demo.yaml ({error})") from error
    validations = samples.split("## Step ")[1:]
    first, last = sample(validations[0]), sample(validations[-1])
    *thoughts, answer = re.split(r"(?<=</think>)\s*", last["Written"].strip())
    _, reference = last["Reference"].rsplit("</think>", 1)
    question = re.search(r"### Instruction: (.*)", first["Given"])
    assert question is not None, "configs/demo.yaml uses the template `instruction`"
    losses = [(0, float(before["loss"]))]
    losses += [(int(line["step"]), float(line["train/loss"])) for line in metrics if line.get("train/loss")]
    names = (("loss per token", "loss"), ("well-formed thinking", "think_format"), ("right answers", "answer_match"))
    return Run(
        question=question[1], before=first["Written"].strip(), thoughts=thoughts, answer=answer.strip(),
        reference=reference.strip(), losses=losses,
        figures=[(name, figure(key, before[key]), figure(key, after[key])) for name, key in names],
    )  # fmt: skip


def sample(validation: str) -> dict[str, str]:
    """Return the first row that samples.md shows of a validation: its texts under Given, Written and Reference."""
    row = validation.split("### Row ")[1]
    parts = re.split(r"^(Given|Written|Reference|Why):$", row, flags=re.MULTILINE)[1:]
    return {name: re.sub(r"^ {4}", "", text, flags=re.MULTILINE) for name, text in zip(*[iter(parts)] * 2, strict=True)}


def figure(key: str, value: float) -> str:
    return f"{value:.2f}" if key == "loss" else f"{100 * value:.1f} %"


def font(size: int, bold: bool = False) -> Font:
    """Return DejaVu Sans Mono, or Pillow's own font if DejaVu is not installed."""
    try:
        return ImageFont.truetype(
            FONTS / f"DejaVuSansMono{'-Bold' if bold else ''}.ttf", size, layout_engine=ImageFont.Layout.BASIC
        )
    except OSError:
        return ImageFont.load_default(size)


TEXT, BOLD, SMALL = font(16), font(16, bold=True), font(13)


def pieces(run: Run) -> list[list[str]]:
    """Return the tokens of each line of the last answer: one line for each think block, then the answer."""
    tokenizer = Tokenizer.from_file(str(ROOT / "assets" / "tiny-qwen" / "tokenizer.json"))
    lines = []
    for thought in run.thoughts:
        inner = thought.removeprefix("<think>").removesuffix("</think>")
        lines.append(["<think>", *spans(tokenizer, inner), "</think>"])
    return [*lines, spans(tokenizer, run.answer)]


def spans(tokenizer: Tokenizer, text: str) -> list[str]:
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    return [text[start:end] for start, end in offsets if end > start]


def draw(run: Run, lines: list[list[str]], screen: Screen) -> Image.Image:
    """Return one frame of the picture."""
    image = Image.new("RGB", (WIDTH, HEIGHT), COLOURS["ground"])
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, WIDTH, BAR), fill=COLOURS["bar"])
    for x, colour in zip((24, 46, 68), ("#f0616a", "#e7b75f", "#5fd38d"), strict=True):
        pen.ellipse((x - 6, BAR // 2 - 6, x + 6, BAR // 2 + 6), fill=colour)
    pen.text((WIDTH / 2, BAR / 2), "thinkwright", COLOURS["label"], SMALL, anchor="mm")
    pen.rectangle((0, 0, WIDTH - 1, HEIGHT - 1), outline=COLOURS["frame"])

    y = BAR + 22
    typed = COMMAND[: screen.command]
    write(pen, MARGIN, y, [("$ ", "prompt", BOLD), (typed, "text", TEXT)], cursor=screen.command < len(COMMAND))
    y += 2 * LINE - 8
    if screen.before:
        part(pen, y, "before", run.question)
        verdict = mark(run.before == run.reference, run.reference) if screen.verdict_before else []
        write(pen, MARGIN + LABELS, y + LINE, [(run.before, "answer", BOLD), *verdict])
    y += 3 * LINE - 8
    if screen.curve:
        draw_curve(pen, run, y, screen.curve)
    y += 4 * LINE - 2
    if screen.after:
        part(pen, y, "after", run.question)
    left = screen.tokens
    for number, line in enumerate(lines):
        y += LINE
        shown, left = line[:left], max(0, left - len(line))
        if not shown:
            continue
        last = number == len(lines) - 1
        verdict = mark(run.answer == run.reference, run.reference) if last and screen.verdict_after else []
        runs = [(token, "answer" if last else colour_of(token), BOLD if last else TEXT) for token in shown]
        write(pen, MARGIN + LABELS, y, [*runs, *verdict], cursor=not left and not screen.verdict_after)
    y += LINE + 16
    if screen.figures:
        pen.line((MARGIN, y, WIDTH - MARGIN, y), fill=COLOURS["frame"])
    for column, (name, before, after) in enumerate(run.figures[: screen.figures]):
        x = MARGIN + column * (WIDTH - 2 * MARGIN + 30) // 3
        write(pen, x, y + 12, [(name, "label", SMALL)])
        write(pen, x, y + 32, [(before, "thought", TEXT), (" → ", "label", TEXT), (after, "right", BOLD)])
    return image


def colour_of(token: str) -> str:
    return "tag" if token in ("<think>", "</think>") else "thought"


def mark(right: bool, reference: str) -> list[tuple[str, str, Font]]:
    return [("  ✓", "right", BOLD)] if right else [("  ✗", "wrong", BOLD), (f"  right: {reference}", "label", TEXT)]


def part(pen: ImageDraw.ImageDraw, y: int, label: str, text: str) -> None:
    write(pen, MARGIN, y, [(label, "label", TEXT)])
    write(pen, MARGIN + LABELS, y, [(text, "text", TEXT)])


def write(
    pen: ImageDraw.ImageDraw, x: float, y: float, runs: list[tuple[str, str, Font]], *, cursor: bool = False
) -> None:
    """Write texts one after another on a line, each with its colour and font; then a cursor."""
    for text, colour, face in runs:
        pen.text((x, y), text, COLOURS[colour], face)
        x += face.getlength(text)
    if cursor:
        pen.rectangle((x + 2, y + 1, x + 10, y + 18), fill=COLOURS["text"])


def draw_curve(pen: ImageDraw.ImageDraw, run: Run, y: int, part_shown: float) -> None:
    """Draw the loss over the optimizer steps, up to a part of them; the axis of the loss is logarithmic."""
    steps, highest, lowest = run.losses[-1][0], run.losses[0][1], min(loss for _, loss in run.losses) / 1.5
    left, right, top, bottom = MARGIN + LABELS, WIDTH - 250, y + 4, y + 72
    write(pen, MARGIN, y, [("training", "label", TEXT)])
    pen.line((left, bottom, right, bottom), fill=COLOURS["frame"])
    now = part_shown * steps
    points = [(float(step), loss) for step, loss in run.losses if step <= now]
    points.append((now, loss_at(run.losses, now)))
    xy = [
        (left + step / steps * (right - left), bottom - log(loss / lowest) / log(highest / lowest) * (bottom - top))
        for step, loss in points
    ]
    if len(xy) > 1:
        pen.polygon([(left, bottom), *xy, (xy[-1][0], bottom)], fill="#182a44")
        pen.line(xy, fill=COLOURS["curve"], width=2, joint="curve")
    x, height = xy[-1]
    pen.ellipse((x - 4, height - 4, x + 4, height + 4), fill=COLOURS["curve"])
    write(pen, right + 28, y + 8, [("step  ", "label", TEXT), (f"{now:.0f} of {steps}", "text", TEXT)])
    write(
        pen,
        right + 28,
        y + 8 + LINE,
        [("loss  ", "label", TEXT), (f"{points[-1][1]:.2f}", "curve", BOLD), ("  (log axis)", "label", SMALL)],
    )


def loss_at(losses: list[tuple[int, float]], step: float) -> float:
    """Return the loss between two logged steps, by linear interpolation of its logarithm."""
    for (start, before), (end, after) in pairwise(losses):
        if start <= step <= end:
            return float(before * (after / before) ** ((step - start) / (end - start)))
    return losses[-1][1]


def frames(run: Run, lines: list[list[str]]) -> Iterator[tuple[Image.Image, int]]:
    """Yield each frame with its time in milliseconds."""
    screen = Screen()
    for screen.command in range(0, len(COMMAND) + 1, 2):
        yield draw(run, lines, screen), TYPING
    screen.command = len(COMMAND)
    yield draw(run, lines, screen), PAUSE // 2
    screen.before = True
    yield draw(run, lines, screen), PAUSE
    screen.verdict_before = True
    yield draw(run, lines, screen), 2 * PAUSE
    for count in range(1, 51):
        screen.curve = count / 50
        yield draw(run, lines, screen), CURVE
    yield draw(run, lines, screen), PAUSE
    screen.after = True
    yield draw(run, lines, screen), PAUSE
    for screen.tokens in range(1, sum(map(len, lines)) + 1):
        yield draw(run, lines, screen), TOKEN
    yield draw(run, lines, screen), PAUSE // 2
    screen.verdict_after = True
    yield draw(run, lines, screen), PAUSE
    for screen.figures in range(1, len(run.figures) + 1):
        yield draw(run, lines, screen), PAUSE // 2
    yield draw(run, lines, screen), END


def save(run: Run, path: Path) -> None:
    """Write the GIF, with one palette for all frames, taken from the fullest."""
    drawn = list(frames(run, pieces(run)))
    palette = drawn[-1][0].quantize(256, dither=Image.Dither.NONE)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image, _ in drawn]
    times = [milliseconds for _, milliseconds in drawn]
    images[0].save(path, save_all=True, append_images=images[1:], duration=times, loop=0, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw docs/demo.gif from a run of configs/demo.yaml.")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "demo.gif", help="file to write (default: %(default)s)"
    )
    given = parser.parse_args()
    save(read_run(given.run), given.out)
    print(f"{given.out}: {given.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
