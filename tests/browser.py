"""Somebody in front of a browser."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import time
from pathlib import Path
from typing import Any

from tests.projects import ROOT

spec = importlib.util.spec_from_file_location(
    "headless_browser", ROOT / "docs" / "headless_browser.py"
)
assert spec is not None and spec.loader is not None
headless_browser = importlib.util.module_from_spec(spec)
spec.loader.exec_module(headless_browser)

BROWSER = headless_browser.find_browser()
KEY_CODES = {
    "Enter": 13, "Tab": 9, "Escape": 27, " ": 32, "Delete": 46, "Backspace": 8, "Home": 36,
    "End": 35, "PageUp": 33, "PageDown": 34, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
    "ArrowDown": 40,
}  # fmt: skip
CONTROL, SHIFT = 2, 8


class Person:
    """Somebody with a browser, a keyboard and a mouse."""

    def __init__(self, page: Any, downloads: Path) -> None:
        self.page = page
        self.downloads = downloads
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        page.call("Page.enable")
        # As if the window were in front of others.
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def sees(self, script: str) -> Any:
        return self.page.evaluate(script)

    def opens(self, path: Path, there: str = "") -> None:
        self.page.call("Page.navigate", url="about:blank")
        self.page.wait_for("location.href === 'about:blank'")
        self.page.call("Page.navigate", url=path.absolute().as_uri() + there)
        self.page.wait_for("document.querySelectorAll('.links a').length > 0")

    def goes_to(self, there: str) -> None:
        self.page.evaluate(f"location.hash = {json.dumps(there)}")
        time.sleep(0.1)

    def presses(self, *keys: str, modifiers: int = 0) -> None:
        for key in keys:
            text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
            code = KEY_CODES.get(key, ord(key.upper()) if len(key) == 1 else 0)
            what = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
            typed = {"text": text} if text and not modifiers & CONTROL else {}
            kind = "keyDown" if typed else "rawKeyDown"
            self.page.call("Input.dispatchKeyEvent", type=kind, **what, **typed)
            self.page.call("Input.dispatchKeyEvent", type="keyUp", **what)

    def types(self, text: str) -> None:
        self.page.call("Input.insertText", text=text)

    def clicks(self, script: str, modifiers: int = 0) -> None:
        box = self.sees(f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = "
                        f"e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + 20]; }})"
                        f"({script})")  # fmt: skip
        where = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.page.call("Input.dispatchMouseEvent", type=kind, modifiers=modifiers, **where)

    def tabs_to(self, name: str, modifiers: int = 0) -> None:
        """With the key Tab alone."""
        for _ in range(60):
            if self.sees("document.activeElement.id") == name:
                return
            self.presses("Tab", modifiers=modifiers)
        raise AssertionError(f"Tab does not lead to {name}")

    @property
    def focused(self) -> str:
        """The file of the tile that has the focus."""
        return self.sees(
            "document.activeElement.matches('.tile') ? "
            "document.activeElement.querySelector('.file').title : ''"
        )

    @property
    def is_told(self) -> str:
        return self.sees("document.getElementById('status').textContent")

    @property
    def counted(self) -> str:
        return self.sees("document.getElementById('corrections').textContent")

    def saved(self) -> list[list[str]]:
        """What is in the file that the browser has downloaded; it is taken away."""
        path = self.downloads / "labels.csv"
        end = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < end, "no labels.csv was downloaded"
            time.sleep(0.05)
        content = path.read_bytes()
        path.unlink()
        text = content.decode("utf-8")
        assert "\r" not in text
        # As files of labels are read.
        lines = io.StringIO(text, newline="")
        return list(csv.reader(lines, strict=True, skipinitialspace=True))
