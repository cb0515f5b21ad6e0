"""Headless Chromium by its DevTools protocol, over a pipe: no driver, no port."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


class Browser:
    """A page in a browser that reaches no host; ``problems`` are its errors, ``requests`` what it asked for."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        command = [
            CHROMIUM or "chromium", "--headless", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={self.folder.name}",
            "--remote-debugging-pipe", "about:blank",
        ]  # fmt: skip

        def connect() -> None:
            """Make the pipes files 3 and 4, where the protocol is; either may be the other's place."""
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_read, to_write)]
            os.dup2(ends[0], 3), os.dup2(ends[1], 4)

        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        # Python's other files do not reach a child.
        self.process = subprocess.Popen(command, close_fds=False, preexec_fn=connect, **quiet)
        os.close(to_read), os.close(to_write)
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._number, self._session = 0, None
        self._rest, self._messages = b"", deque()
        (page,) = [t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _next(self, seconds: float = 60.0) -> dict[str, Any]:
        while not self._messages:
            if not select.select([self._read], [], [], seconds)[0]:
                raise TimeoutError("The browser does not answer.")
            read = os.read(self._read, 1 << 20)
            if not read:
                raise RuntimeError("The browser ended.")
            *whole, self._rest = (self._rest + read).split(b"\0")
            self._messages.extend(map(json.loads, whole))
        message = self._messages.popleft()
        params, method = message.get("params", {}), message.get("method")
        if method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in (
            "error",
            "warning",
            "assert",
        ):
            self.problems.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(str(params["entry"]))
        elif method == "Network.requestWillBeSent":
            self.requests += [url for url in [params["request"]["url"]] if url[:5] != "data:"]
        return message

    def open(self, path: Path, width: int = 1280, height: int = 900, touch: bool = False) -> None:
        """Show a report, on a screen of this size in CSS pixels, and wait until it is drawn."""
        self.problems.clear(), self.requests.clear()
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=touch,
        )  # fmt: skip
        self("Emulation.setTouchEmulationEnabled", enabled=touch)
        self("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + 60
        while self.run("document.documentElement?.dataset.ready") != "yes":
            if self.problems or time.monotonic() > deadline:
                raise AssertionError(f"The page is not drawn: {self.problems}")
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression, once it is there."""
        result = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key and let it go."""
        same = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self("Input.dispatchKeyEvent", type="keyDown", text=text, **same)
        self("Input.dispatchKeyEvent", type="keyUp", **same)

    def click(self, x: float, y: float) -> None:
        """Click on a place of the screen."""
        self("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Keep what is shown, or the whole page, as a PNG."""
        params: dict[str, Any] = {}
        if whole:
            size = self("Page.getLayoutMetrics")["cssContentSize"]
            params = {"captureBeyondViewport": True, "clip": {**size, "scale": 1}}
        path.write_bytes(base64.b64decode(self("Page.captureScreenshot", **params)["data"]))

    def close(self) -> None:
        """End it."""
        try:
            self._session = None
            self("Browser.close")
        except (RuntimeError, TimeoutError, OSError):
            self.process.kill()
        self.process.wait(10)
        os.close(self._write), os.close(self._read)
        self.folder.cleanup()
