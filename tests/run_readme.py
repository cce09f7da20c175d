"""Runs the README's commands word for word, in a fresh clone of this checkout.

The fenced blocks with the info string `sh demo` are one shell script, in their order. A line that begins with `git
clone` clones this checkout instead; without such a line the script runs inside a clone. The first error ends it.
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
    """Return the commands of a README, which begin by cloning `source`."""
    commands = "".join(BLOCK.findall(readme))
    if not CLONE.search(commands):
        return f"git clone {source} thinkwright && cd thinkwright\n{commands}"
    return CLONE.sub(f"git clone {source}", commands)


def main() -> int:
    commands = script((ROOT / "README.md").read_text(encoding="utf-8"), str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(["bash", "-euxo", "pipefail", "-c", commands], cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
