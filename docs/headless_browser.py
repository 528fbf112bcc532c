"""Screenshots of a web page by Chromium or Chrome, through its debugging protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SECONDS_TO_START = 30


def find_browser() -> str | None:
    """The program, if one is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """An open page.

    Args:
        connection: To the page's end of the debugging protocol.
        loop: Where it was opened.
    """

    def __init__(
        self, connection: WebSocketClientConnection, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._n_calls = 0

    def open(self, address: str, storage: Mapping[str, Any]) -> None:
        """Go to an address, as somebody who has been there before.

        Args:
            address: Of the page.
            storage: What the page finds in its local storage, as JSON.
        """
        items = json.dumps({name: json.dumps(value) for name, value in storage.items()})
        script = f"for (const [name, value] of Object.entries({items})) localStorage[name] = value"
        self.call("Page.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        self.call("Page.navigate", url=address)

    def evaluate(self, script: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return answer["result"].get("value")

    def wait_for(self, script: str, seconds: float = 60) -> None:
        """Wait until an expression of JavaScript is true.

        Raises:
            TimeoutError: If it does not become true.
        """
        end = time.monotonic() + seconds
        while not self.evaluate(script):
            if time.monotonic() > end:
                raise TimeoutError(f"after {seconds:.0f} s this is not true of the page: {script}")
            time.sleep(0.2)

    def screenshot(self, path: Path) -> None:
        """Write what is to be seen as a PNG file."""
        answer = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(answer["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers to a call of its debugging protocol."""
        return self._loop.run_until_complete(self._answer(method, parameters))

    async def _answer(self, method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        self._n_calls += 1
        call = {"id": self._n_calls, "method": method, "params": parameters}
        await self._connection.write_message(json.dumps(call))
        while True:
            received = await asyncio.wait_for(self._connection.read_message(), 60)
            if received is None:
                raise ConnectionError("the browser has closed the page")
            message = json.loads(received)
            if message.get("method") == "Page.javascriptDialogOpening":
                # Nobody is there to answer whether a page may be left.
                yes = {"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
                await self._connection.write_message(json.dumps(yes))
            # What happens on the page is told in between.
            if message.get("id") != self._n_calls:
                continue
            if "error" in message:
                raise RuntimeError(f"{method}: {message['error']['message']}")
            return dict(message["result"])


@contextmanager
def opened_page(browser: str, width: int, height: int) -> Iterator[Page]:
    """Start a browser that knows nothing of earlier ones, and end it.

    Args:
        browser: The program.
        width: Of the page, in pixels.
        height: Of the page, in pixels.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={folder}",
            f"--window-size={width},{height}", "about:blank",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        loop = asyncio.new_event_loop()
        try:
            address = _page_address(Path(folder) / "DevToolsActivePort")
            connection = loop.run_until_complete(_connected(address))
            yield Page(connection, loop)
            connection.close()
        finally:
            process.terminate()
            process.wait()
            loop.close()


async def _connected(address: str) -> WebSocketClientConnection:
    # A screenshot is one message.
    return await websocket_connect(address, max_message_size=2**28)


def _page_address(note: Path) -> str:
    """Where the debugging protocol of the first page is spoken, once the browser has noted it."""
    end = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < end:
        if note.is_file() and (lines := note.read_text().splitlines()):
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                targets = json.load(answer)
            pages = [target for target in targets if target["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise TimeoutError(f"the browser did not start within {_SECONDS_TO_START} s")
