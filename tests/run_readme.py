"""Runs the README's commands word for word, in a fresh clone of this checkout.

A fenced block with the info string `sh demo` is run; all such blocks are one shell script, in their order. The line
that begins with `git clone` clones this checkout in the place of its address. The first command that fails ends it.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```sh demo\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CLONE = re.compile(r"^git clone \S+", re.MULTILINE)


def script(readme: str, source: str) -> str:
    """Return the commands of a README, with `source` in the place of the address that it clones."""
    return CLONE.sub(f"git clone {source}", "".join(BLOCK.findall(readme)))


def main() -> int:
    commands = script((ROOT / "README.md").read_text(encoding="utf-8"), str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(["bash", "-euxo", "pipefail", "-c", commands], cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
