"""A browser without a window for tests: which one, its flags, and one page that is driven by the
DevTools protocol over two pipes, so that no package and no port is needed.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)
ANSWER_S = 60.0


def installed() -> str:
    """The path of a browser; the test is skipped with the reason where there is none."""
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip(f"no browser to draw in: none of {', '.join(BROWSERS)} is installed")
    return found


class Page:
    """The page of a browser, by ``opened``; ``requested`` are the addresses that it asked for."""

    def __init__(self, reading: int, writing: int):
        self._reading, self._writing = reading, writing
        self._pending, self._number, self._session = b"", 0, {}
        self.requested: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **words: Any) -> Any:
        """The result of a method of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": words, **self._session}
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != self._number:
            if answer["method"] == "Network.requestWillBeSent":
                self.requested.append(answer["params"]["request"]["url"])
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _message(self) -> Any:
        """The next message of the browser; each ends with a zero byte."""
        while b"\0" not in self._pending:
            assert select.select([self._reading], [], [], ANSWER_S)[0], "the browser hangs"
            more = os.read(self._reading, 1 << 20)
            assert more, "the browser has ended"
            self._pending += more
        message, self._pending = self._pending.split(b"\0", 1)
        return json.loads(message)

    def value(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, f"{script}: {done['exceptionDetails']}"
        return done["result"].get("value")

    def until(self, script: str, limit_s: float = 90.0) -> Any:
        """The value of an expression once it is true."""
        end = time.monotonic() + limit_s
        while not (value := self.value(script)):
            assert time.monotonic() < end, f"not within {limit_s:g} s: {script}"
            time.sleep(0.2)
        return value

    def picture(self) -> np.ndarray:
        """(rows, columns, 3) of what the page shows."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))

    def settled(self, unlike: np.ndarray | None = None) -> np.ndarray:
        """The picture once it stays the same for a second, and is not ``unlike``."""
        last = unlike
        for _ in range(60):
            time.sleep(1)
            now = self.picture()
            if np.array_equal(now, last) and not np.array_equal(now, unlike):
                return now
            last = now
        raise AssertionError("the page does not come to rest")


@contextlib.contextmanager
def opened(folder: Path, width: int, height: int) -> Iterator[Page]:
    """An empty page in a browser whose profile is in ``folder``."""
    line = [installed(), *FLAGS, f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe"]
    (asked, asking), (answered, answering) = os.pipe(), os.pipe()
    # The browser reads from 3 and writes to 4.
    actions = [
        (os.POSIX_SPAWN_DUP2, asked, 3),
        (os.POSIX_SPAWN_DUP2, answering, 4),
        (os.POSIX_SPAWN_OPEN, 2, folder / "browser.log", os.O_WRONLY | os.O_CREAT, 0o600),
    ]
    environment = {**os.environ, "HOME": str(folder)}
    child = os.posix_spawn(line[0], [*line, "about:blank"], environment, file_actions=actions)
    os.close(asked), os.close(answering)
    try:
        page = Page(answered, asking)
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        yield page
    finally:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        os.close(answered), os.close(asking)
