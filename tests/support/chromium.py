"""Control a headless Chromium through its remote debugging port."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
_TIMEOUT = 120.0
DEAD_LINKS = "[...document.querySelectorAll('a[href^=\"#\"]')].filter((a) => !document.getElementById(a.hash.slice(1)))"
"""JavaScript: the links inside a page that lead nowhere."""


def find_chromium() -> str:
    """Return the path of the browser; skip the test if there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    return path


class Page:
    """One tab, controlled by commands of the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; events that arrive in between are appended to ``events``."""
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json(timeout=_TIMEOUT)
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return dict(message["result"])
            self.events.append(message)

    async def open(self, path: Path) -> None:
        """Open a file and wait until it is loaded."""
        for domain in ("Page", "Network", "Runtime"):
            await self.command(f"{domain}.enable")
        await self.command("Page.navigate", url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(await self._socket.receive_json(timeout=_TIMEOUT))

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, after awaiting it if it is a promise."""
        answer = await self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def click(self, selector: str) -> None:
        """Scroll to an element and click in its middle."""
        element = f"document.querySelector({json.dumps(selector)})"
        await self.evaluate(f"{element}.scrollIntoView({{block: 'center'}})")
        box = await self.evaluate(f"{element}.getBoundingClientRect().toJSON()")
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            await self.command("Input.dispatchMouseEvent", type=kind, **at)

    async def press(self, key: str) -> None:
        """Press and release a key in the focused element."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        await self.command("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        await self.command("Input.dispatchKeyEvent", type="keyUp", key=key)

    def requested(self) -> list[str]:
        """Return the URLs that the page requested."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Return the errors that the browser reported: exceptions, and violations of the page's security policy."""
        errors = []
        for event in self.events:
            if event["method"] == "Runtime.exceptionThrown":
                errors.append(str(event["params"]["exceptionDetails"]))
            if event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                errors.append(str(event["params"]["entry"]["text"]))
        return errors


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Page]:
    """Start a Chromium with this profile folder and yield its tab; kill it and its children at the end."""
    flags = (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--window-size=1200,900",
        "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
    )  # fmt: skip
    log = (profile.parent / f"{profile.name}.log").open("w")
    process = subprocess.Popen([find_chromium(), *flags], stdout=log, stderr=log, start_new_session=True)
    try:
        port = await _read_port(profile / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                tab = next(tab for tab in await response.json() if tab["type"] == "page")
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=1 << 28) as socket:
                page = Page(socket)
                await page.command("Log.enable")
                yield page
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


async def _read_port(path: Path, process: subprocess.Popen[bytes]) -> int:
    """Return the port that the browser wrote into its profile folder, once it is there."""
    async with asyncio.timeout(_TIMEOUT):
        while not (path.exists() and path.read_text().count("\n")):
            assert process.poll() is None, f"Chromium ended with {process.returncode}; see {path.parent.name}.log"
            await asyncio.sleep(0.02)
    return int(path.read_text().splitlines()[0])


def in_browser(tmp_path: Path, page: Path, steps: Callable[[Page], Awaitable[None]], script: bool = True) -> None:
    """Open a page in a new browser and run ``steps`` in it."""

    async def run() -> None:
        async with browser(tmp_path / "profile") as tab:
            if not script:
                await tab.command("Emulation.setScriptExecutionDisabled", value=True)
            await tab.open(page)
            await steps(tab)

    asyncio.run(run())
