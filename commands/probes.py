"""The conversations with which an exported folder is compared with its run."""

from datamodules.layouts.conversation import Message
from datamodules.text.segments import Template, ask
from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.export.check import Probe

SYSTEM = "Answer in one short sentence."
QUESTIONS = (
    "Solve x + 5 = 12",
    "A train travels 180 km in 2.5 hours.\nWhat is its average speed in km/h?\n\nGive one decimal.",
    "  Löse x² − 3x = 0 nach x auf. 计算 17 × 24。  ",
    "What does it print?\n```python\nfor n in range(3):\n    print(n * (n + 1) // 2)\n```",
)


def probes(template: Template, tokenizer: ThinkTokenizer) -> list[Probe]:
    """Return single questions, one after a system message, and one after earlier turns; the last two if the template
    has a place for them. A system message without a place stands before the question in an exported folder."""
    asked: list[tuple[list[Message], list[Message]]] = []  # as a client sends it, and as training renders it
    for text in QUESTIONS:
        asked.append(([Message("user", text)], [Message("user", text)]))
    system, question = Message("system", SYSTEM), Message("user", QUESTIONS[0])
    if template.no_system:
        asked.append(([system, question], [Message("user", f"{SYSTEM}\n\n{QUESTIONS[0]}")]))
    else:
        asked.append(([system, question], [system, question]))
    if not template.no_history:
        opening, closing = template.tags.open, template.tags.close
        thoughts = f"{opening}Subtract 5.{closing}{opening}12 - 5 = 7.{closing}"
        turns = [question, Message("assistant", f"{thoughts}\n\nx = 7"), Message("user", "And x + 5 = 20?")]
        asked.append((turns, turns))
    ids = tokenizer.encode_prompts([ask(rendered, template) for _, rendered in asked])
    return [
        Probe([{"role": one.role, "content": str(one.text)} for one in sent], prompt)
        for (sent, _), prompt in zip(asked, ids, strict=True)
    ]
