"""The tokenizer of an exported folder."""

import json
from pathlib import Path

from datamodules.text.segments import Template
from lightning_modules.think_tuner import ThinkTuner

# Settings of a saved tokenizer that say where it was read on this machine
OF_THIS_MACHINE = ("is_local", "local_files_only", "name_or_path", "tokenizer_file", "vocab_file", "merges_file")


def write_tokenizer(tuner: ThinkTuner, template: Template, folder: Path) -> None:
    """Write the tokenizer with the chat template. It pads on the left, as generation needs it."""
    full = tuner.tokenizer.full
    own = full.chat_template
    full.chat_template = template.exported
    try:
        full.save_pretrained(folder)
    finally:
        full.chat_template = own
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    kept = {name: value for name, value in settings.items() if name not in OF_THIS_MACHINE}
    kept["padding_side"] = "left"  # save_pretrained omits a side that was set after loading
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
