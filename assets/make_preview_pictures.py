"""Draw docs/preview.png and docs/preview-page.png: `preview` of the demo's rows in a terminal and as a page.

    python assets/make_preview_pictures.py

Needs Chromium. Some rows are overlong here (data.max_length 112), so that the pictures show dropped rows.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = 108
COMMAND = "cli.py preview --config configs/demo.yaml --data.max_length 112 --rows 2"
NORMAL = [(27, 33, 46), (240, 97, 106), (95, 211, 141), (231, 183, 95), (90, 169, 240), (196, 137, 232), (98, 200, 214)]
BRIGHT = [
    (127, 139, 165),
    (255, 130, 138),
    (130, 230, 165),
    (245, 205, 120),
    (125, 190, 250),
    (210, 160, 245),
    (110, 200, 250),
]
THEME = TerminalTheme((17, 21, 31), (214, 222, 236), [*NORMAL, (198, 208, 226)], [*BRIGHT, (255, 255, 255)])


def run(*more: str) -> str:
    """Return what the command prints on a terminal with colours."""
    colours = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    done = subprocess.run(
        [sys.executable, *COMMAND.split(), *more], cwd=ROOT, env=colours, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def photograph(page: Path, picture: Path, width: int, height: int) -> None:
    """Write a picture of a page, without the empty part below it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("Chromium is not installed")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},{height}")
    subprocess.run([browser, *flags, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)
    image = Image.open(picture).convert("RGB")
    corner = image.getpixel((width - 1, height - 1))
    ground = Image.new("RGB", image.size, corner if isinstance(corner, tuple) else 0)
    box = ImageChops.difference(image, ground).getbbox()
    assert box is not None, "the page is empty"
    image.crop((0, 0, width, min(height, box[3] + max(box[1], 12)))).save(picture, optimize=True)
    print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        run("--html", str(page))
        photograph(page, ROOT / "docs" / "preview-page.png", 1160, 3000)
        console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        console.print(Text.from_ansi(run()))
        terminal = Path(folder) / "terminal.html"
        svg = console.export_svg(title=f"python {COMMAND}", theme=THEME)
        terminal.write_text(f"<style>body{{margin:0}}svg{{display:block}}</style>{svg}", encoding="utf-8")
        photograph(terminal, ROOT / "docs" / "preview.png", 1336, 3000)


if __name__ == "__main__":
    main()
