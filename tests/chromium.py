"""Headless Chromium over the DevTools protocol, for tests of pages: load, run JavaScript, touch,
print, take pictures.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--no-first-run",
)


class Page:
    """One page; `problems` are the messages and errors of its console, `requests` what it asked
    for.
    """

    def __init__(self, address: str) -> None:
        from websocket import create_connection

        self.socket = create_connection(address, timeout=60, suppress_origin=True)
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result, keeping what is told in between."""
        self._number += 1
        self.socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv())
        told, method = message.get("params", {}), message.get("method")
        if method == "Runtime.exceptionThrown":
            self.problems.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" or (
            method == "Log.entryAdded" and told["entry"]["level"] != "verbose"
        ):
            self.problems.append(json.dumps(told))
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        return message

    def open(
        self,
        place: Path | str,
        width: int = 1280,
        height: int = 900,
        *,
        mobile: bool = False,
        dark: bool = False,
    ) -> None:
        """Load a file or an address and wait until it is there."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        self.send("Emulation.setTouchEmulationEnabled", enabled=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.problems, self.requests = [], []
        self.send(
            "Page.navigate", url=place.resolve().as_uri() if isinstance(place, Path) else place
        )
        while self._receive().get("method") != "Page.loadEventFired":
            pass
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def run(self, code: str, timeout_s: float = 60) -> Any:
        """Return the value of an expression in the page, waiting for a promise."""
        self.socket.settimeout(timeout_s)
        answer = self.send(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str, timeout_s: float = 60) -> None:
        """Wait until an expression in the page is true."""
        end = time.monotonic() + timeout_s
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, f"not true within {timeout_s:g} s: {condition}"
            time.sleep(0.2)

    def picture(self, path: Path, *, whole: bool = True) -> Path:
        """Save what is seen, or the whole page, as PNG."""
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def print(self, path: Path) -> Path:
        """Save as PDF, on A4."""
        answer = self.send(
            "Page.printToPDF",
            paperWidth=8.27,
            paperHeight=11.69,
            printBackground=False,
            preferCSSPageSize=False,
        )
        path.write_bytes(base64.b64decode(answer["data"]))
        return path


@contextmanager
def start_chromium(profile: Path) -> Iterator[Page]:
    """Start the browser with a fresh profile and yield its page."""
    from urllib.request import urlopen

    assert CHROMIUM
    command = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _wait_for_port(profile / "DevToolsActivePort")
        with urlopen(f"http://127.0.0.1:{port}/json") as answer:
            address = next(
                item["webSocketDebuggerUrl"] for item in json.load(answer) if item["type"] == "page"
            )
        page = Page(address)
        try:
            yield page
        finally:
            page.socket.close()
    finally:
        process.terminate()
        process.wait(30)


def _wait_for_port(path: Path) -> int:
    for _ in range(600):
        if path.is_file() and (text := path.read_text().split()):
            return int(text[0])
        time.sleep(0.1)
    raise TimeoutError(f"{path}: Chromium did not start within a minute")
