"""Chromium without a window, driven through its DevTools protocol over two pipes: no port and no further package."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# The proxy is not there: the browser, which has questions of its own, has no network but this machine
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-component-update", "--disable-background-networking", "--disable-sync", "--hide-scrollbars",
    "--proxy-server=http://127.0.0.1:9", "--proxy-bypass-list=127.0.0.1", "--remote-debugging-pipe",
)  # fmt: skip
# Chromium reads commands from descriptor 3 and writes to 4. The copies are above them, so that neither is overwritten
START = """import fcntl, os, sys
taken, given = (fcntl.fcntl(int(one), fcntl.F_DUPFD_CLOEXEC, 10) for one in sys.argv[1:3])
os.dup2(taken, 3), os.dup2(given, 4)
os.execv(sys.argv[3], sys.argv[3:])"""
KEYS = {"Enter": ("\r", 13), "Escape": ("", 27), "Tab": ("", 9), " ": (" ", 32)}  # the text and the code of a key
SHIFT = 8


class Tab:
    """A tab. `events` has all that the browser told of it; `wait` takes seconds."""

    def __init__(self, to_browser: int, from_browser: int, wait: float) -> None:
        self.events: list[dict[str, Any]] = []
        self._to, self._from, self._wait = to_browser, from_browser, wait
        self._number, self._session, self._rest = 0, "", b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result. Raises RuntimeError for an error."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + self._wait
        while True:
            reply = self._read(until)
            if reply.get("id") == self._number:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']}")
                result: dict[str, Any] = reply["result"]
                return result
            self.events.append(reply)

    def _read(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._from], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._from, 2**20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        read: dict[str, Any] = json.loads(message)
        return read

    def value(self, script: str) -> Any:
        """Return the value of an expression of JavaScript. Raises RuntimeError if it throws."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def until(self, script: str) -> Any:
        """Return the value of an expression as soon as it is true. Raises TimeoutError if it does not become so."""
        until = time.monotonic() + self._wait
        while not (value := self.value(script)):
            if time.monotonic() > until:
                raise TimeoutError(f"{script}: {self.value('document.body.innerText')}")
            time.sleep(0.05)
        return value

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key and let it go."""
        text, code = KEYS[key]
        how = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **how)
        self.call("Input.dispatchKeyEvent", type="keyUp", **how)

    def type(self, text: str) -> None:
        """Write a text where the focus is."""
        self.call("Input.insertText", text=text)

    def photograph(self, picture: Path, width: int, height: int) -> None:
        """Write a picture of the page, `width` and `height` in pixels."""
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        data = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        picture.write_bytes(base64.b64decode(data))


@contextmanager
def open_tab(profile: Path, width: int = 1200, height: int = 900, wait: float = 60) -> Iterator[Tab]:
    """Start Chromium with an empty profile, and give its tab. Needs CHROMIUM."""
    assert CHROMIUM is not None
    (taken, to_browser), (from_browser, given) = os.pipe(), os.pipe()
    flags = (*FLAGS, f"--window-size={width},{height}", f"--user-data-dir={profile}")
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", START, str(taken), str(given), CHROMIUM, *flags],
        pass_fds=(taken, given), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(taken)
    os.close(given)
    try:
        yield Tab(to_browser, from_browser, wait)
    finally:
        os.close(to_browser)  # the browser ends with its pipe
        os.close(from_browser)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
