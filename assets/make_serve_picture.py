"""Draw docs/serve-page.png: a question to the demo's run and to its base, on the page of `serve`.

    python -m assets.make_serve_picture [RUN]

Needs Chromium, and a run of configs/demo.yaml: the newest one, unless RUN names another.
"""

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from assets.browser import CHROMIUM, open_tab

ROOT = Path(__file__).resolve().parents[1]
PICTURE, WIDTH, HEIGHT, MARGIN = ROOT / "docs" / "serve-page.png", 1160, 900, 24
QUESTION = "Solve x + 5 = 12"


def main() -> None:
    if CHROMIUM is None:
        raise SystemExit("Chromium is not installed")
    run = ["--run", sys.argv[1]] if len(sys.argv) > 1 else []
    command = [sys.executable, "cli.py", "serve", "--base", "--port", "0", "--device", "cpu", *run]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        found = None
        while found is None:
            line = server.stderr.readline()
            if not line:
                raise SystemExit("serve ended")
            print(line, end="", file=sys.stderr)
            found = re.search(r"at (http://\S+)/v1", line)
        draw(found[1])
    finally:
        server.terminate()
        server.wait()


def draw(url: str) -> None:
    """Ask as a user does, open the last thought of the tuned model, and write the picture."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        profile, shot = Path(folder) / "profile", Path(folder) / "page.png"
        with open_tab(profile, WIDTH, HEIGHT) as tab:
            tab.call("Page.navigate", url=url)
            tab.until("document.activeElement?.id === 'question' && !document.getElementById('beside').hidden")
            tab.type(QUESTION)
            tab.press("Enter")
            tab.until("document.querySelectorAll('.copy:not([hidden])').length === 2")
            tab.value("document.querySelector('.reply details:last-child summary').click()")
            bottom = tab.value("document.getElementById('replies').getBoundingClientRect().bottom")
            tab.photograph(shot, WIDTH, int(bottom) + MARGIN)
        written = io.BytesIO()
        Image.open(shot).convert("RGB").quantize(64).save(written, "PNG", optimize=True)
        PICTURE.write_bytes(written.getvalue())
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
