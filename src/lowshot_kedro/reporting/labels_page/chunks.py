"""Data in scripts, which a page that is opened as a file can load."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from lowshot_kedro.reporting.labels_page.thumbnails import UNFINISHED

DATA_PREFIX = "data-"
_OURS = re.compile(rf"{DATA_PREFIX}[0-9a-f]{{32}}|{re.escape(UNFINISHED)}data")


def is_ours(name: str) -> bool:
    """Whether a folder of this name beside the thumbnails is one that a page was made of."""
    return _OURS.fullmatch(name) is not None


class Chunks:
    """Files that a page loads, in a folder that gets its name from their content.

    Args:
        folder: Where that folder will be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unfinished = folder / f"{UNFINISHED}data"
        self._digest = hashlib.blake2b(digest_size=16)
        shutil.rmtree(self._unfinished, ignore_errors=True)
        self._unfinished.mkdir()

    def add(self, name: str, content: bytes) -> None:
        """Write a file; its name may have a folder."""
        path = self._unfinished / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        for part in (name.encode(), content):
            self._digest.update(len(part).to_bytes(8, "little"))
            self._digest.update(part)

    def write(self, name: str, content: Any) -> None:
        """Write a script that hands something to the page: a page from a file may load no other."""
        text = f"lowshotChunk({json.dumps(name)},{as_json(content)});\n"
        self.add(f"{name}.js", text.encode("ascii"))

    def finish(self) -> Path:
        """Give the folder its name, and return it."""
        path = self._folder / f"{DATA_PREFIX}{self._digest.hexdigest()}"
        if path.exists():
            shutil.rmtree(self._unfinished)
        else:
            self._unfinished.replace(path)
        return path


def as_json(content: Any) -> str:
    """ASCII without spaces, and without what could end a script."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
