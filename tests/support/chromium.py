"""A headless Chromium for tests, driven through its remote debugging port."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE = 120.0


def find_chromium() -> str:
    """The browser's command; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    return found


class Page:
    """One tab: commands of the DevTools protocol, and what tests do with a page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events that come between are kept."""
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json(timeout=_PATIENCE)
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
            self.events.append(await self._socket.receive_json(timeout=_PATIENCE))

    async def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are waited for."""
        answer = await self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def click(self, selector: str) -> None:
        """Press the mouse in the middle of an element, after scrolling to it."""
        place = f"document.querySelector({json.dumps(selector)})"
        await self.ask(f"{place}.scrollIntoView({{block: 'center'}})")
        box = await self.ask(f"{place}.getBoundingClientRect().toJSON()")
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            await self.command("Input.dispatchMouseEvent", type=kind, **at)

    async def press(self, key: str) -> None:
        """Press and release a key, sent to what has the focus."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        await self.command("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        await self.command("Input.dispatchKeyEvent", type="keyUp", key=key)

    def requested(self) -> list[str]:
        """The addresses that the page asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """What the browser reported as errors: exceptions, and what the page's own policy refused."""
        told = []
        for event in self.events:
            if event["method"] == "Runtime.exceptionThrown":
                told.append(str(event["params"]["exceptionDetails"]))
            if event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                told.append(str(event["params"]["entry"]["text"]))
        return told


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Page]:
    """Start a Chromium with its own profile folder and give its tab; it is stopped at the end, with its children."""
    flags = (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--window-size=1200,900",
        "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
    )  # fmt: skip
    log = (profile.parent / f"{profile.name}.log").open("w")
    process = subprocess.Popen([find_chromium(), *flags], stdout=log, stderr=log, start_new_session=True)
    try:
        port = await _port(profile / "DevToolsActivePort", process)
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


async def _port(path: Path, process: subprocess.Popen[bytes]) -> int:
    """The port that the browser chose, once it has written it down."""
    async with asyncio.timeout(_PATIENCE):
        while not (path.exists() and path.read_text().count("\n")):
            assert process.poll() is None, f"Chromium ended with {process.returncode}; see {path.parent.name}.log"
            await asyncio.sleep(0.02)
    return int(path.read_text().splitlines()[0])
