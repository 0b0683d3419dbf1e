"""A real browser to look at pages with: headless Chromium, spoken to over its debugging pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["CONTRAST", "NAMELESS", "Browser"]

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--remote-debugging-pipe",
)
_MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}
_CODES = {"Enter": 13, "Escape": 27, "Home": 36, "End": 35, "ArrowUp": 38, "ArrowDown": 40, "/": 191, " ": 32}

# What stands out less than WCAG 2.2 asks for (1.4.3), and controls that have no name; both as lists of HTML.
CONTRAST = """
(() => {
  const light = (c) => {
    const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = c.match(/[0-9.]+/g).map((v) => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = (e) => {
    const c = getComputedStyle(e).backgroundColor;
    return c === 'rgba(0, 0, 0, 0)' && e.parentElement ? ground(e.parentElement) : c;
  };
  const low = [];
  for (const e of document.querySelectorAll('h1, p, a, button:enabled, th a, td, label, output, bdi, time')) {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) low.push(e.outerHTML.slice(0, 80));
  }
  return low;
})()
"""
NAMELESS = """
[...document.querySelectorAll('input:not([type=hidden]), button, a')].filter((e) => {
  const labels = [...(e.labels ?? [])].map((l) => l.textContent.trim()).join('');
  return !(e.getAttribute('aria-label') || e.textContent.trim() || labels);
}).map((e) => e.outerHTML)
"""


class Browser:
    """One browser with one page. Every wait ends after 20 seconds.

    :param folder: its profile; downloads go to ``folder / "downloads"``.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        into, self._out = os.pipe()
        self._in, out = os.pipe()
        # The browser talks on descriptors 3 and 4, whatever they are called here.
        wrapped = ["bash", "-c", f'exec "$@" 3<&{into} 4>&{out}', "bash"]
        self._process = subprocess.Popen(
            [*wrapped, program, *_FLAGS, f"--user-data-dir={folder}/profile"],
            pass_fds=(into, out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(into)
        os.close(out)
        self._number = 0
        self._buffer = b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
                self.call(f"{domain}.enable")
            self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._out)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        os.close(self._in)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, and its result."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(20)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.until(lambda: any(e["method"] == "Page.loadEventFired" for e in self.events))

    def until(self, true: Callable[[], object], seconds: float = 20) -> None:
        """Wait until something is true, taking events as they come."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "the browser did not get there in time"
            if select.select([self._in], [], [], 0.05)[0] or b"\0" in self._buffer:
                self._next(20)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        got = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def press(self, key: str, *held: str) -> None:
        """Press and release a key, with modifiers held."""
        code = _CODES.get(key, ord(key.upper()[0]))
        common = {"key": key, "windowsVirtualKeyCode": code, "modifiers": sum(_MODIFIERS[h] for h in held)}
        text = "\r" if key == "Enter" else key if len(key) == 1 and not set(held) - {"Shift"} else ""
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, selector: str, *held: str) -> None:
        """A real click of the mouse in the middle of an element."""
        # By the debugger's own view of the document, which it has with scripts switched off too.
        document = self.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.call("DOM.scrollIntoViewIfNeeded", nodeId=node)
        corners = self.call("DOM.getBoxModel", nodeId=node)["model"]["border"]
        x, y = sum(corners[0::2]) / 4, sum(corners[1::2]) / 4
        at = {"x": x, "y": y, "button": "left", "clickCount": 1, "modifiers": sum(_MODIFIERS[h] for h in held)}
        self.call("Input.dispatchMouseEvent", type="mousePressed", **at)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **at)

    def choose(self, selector: str, *paths: Path) -> None:
        """Give files to an input, as its dialog would."""
        document = self.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def drop(self, x: int, y: int, *paths: Path, stop: str = "drop") -> None:
        """Drag files from outside over a place of the page, and let them go there; ``stop`` "dragOver" holds them."""
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for step in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=step, x=x, y=y, data=data)
            if step == stop:
                break

    def network(self, *, up: float = -1, online: bool = True) -> None:
        """How fast the page sends, in bytes a second (-1: as it can), or that it cannot send at all."""
        self.call(
            "Network.emulateNetworkConditions",
            offline=not online,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=up,
        )

    def asked(self, method: str) -> list[dict[str, Any]]:
        """The requests with a method since the page was opened, each with "url" and "headers"."""
        sent = (e["params"]["request"] for e in self.events if e["method"] == "Network.requestWillBeSent")
        return [request for request in sent if request["method"] == method]

    def screen(self, width: int, height: int, *, dark: bool = False, mobile: bool = False) -> None:
        """Set what the page is shown on."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def scripts(self, *, on: bool) -> None:
        self.call("Emulation.setScriptExecutionDisabled", value=not on)

    def picture(self, path: Path | None = None) -> bytes:
        """The page as a PNG."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(data)
        return data

    def complaints(self) -> list[str]:
        """What the browser found wrong: refused by policy, failed to load, thrown by scripts."""
        found = []
        for event in self.events:
            params: Mapping[str, Any] = event.get("params", {})
            if event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"]["text"])
            elif event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"])[:500])
        return found

    def downloaded(self, name: str) -> Path:
        """A finished download."""
        path = self.downloads / name
        self.until(lambda: path.exists() and not list(self.downloads.glob("*.crdownload")))
        return path

    def _next(self, seconds: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._in], [], [], seconds)[0], "the browser says nothing"
            data = os.read(self._in, 1 << 20)
            assert data, "the browser ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message
