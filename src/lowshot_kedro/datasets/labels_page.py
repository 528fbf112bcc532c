"""A page of HTML, and the folder beside it with what the page loads."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.disk import full_disk_named
from lowshot_kedro.errors import InputError
from lowshot_kedro.input_files import require_file
from lowshot_kedro.locks import SECONDS_TO_WAIT, written_by_one

# What a page says of itself stands at its beginning.
_HEAD_BYTES = 16384
_DESCRIPTION = re.compile(r'<meta name="description" content="([^"]*)">')


class Page(Protocol):
    """What can be saved: it writes itself, whole or not at all."""

    def write(self, path: Path) -> None:
        """Write the page, and what it loads into a folder beside it."""
        ...


class LabelsPageDataset(FileDataset[Page, Path]):
    """A page that writes itself, loaded as its path.

    What the page loads lies beside it, in a folder that for labels.html is labels_files.

    Args:
        filepath: The page.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            labels_page:
              type: lowshot_kedro.datasets.LabelsPageDataset
              filepath: data/08_reporting/labels.html
    """

    def save(self, data: Page) -> None:
        """Let the page write itself, while no other process does.

        Raises:
            DiskFullError: Naming the page and what is left.
            ResultInUseError: Naming the page, and what else writes it.
        """
        with (
            written_by_one(self._filepath, seconds_to_wait=SECONDS_TO_WAIT),
            full_disk_named(self._filepath),
        ):
            self._write(self._filepath, data)

    def check(self) -> None:
        """See that the page and what it loads are there."""
        require_file(self._filepath)
        if not self._folder.is_dir():
            raise InputError(
                f"{self._filepath}: the folder {self._folder.name} beside it is not there"
            )

    @property
    def _folder(self) -> Path:
        return self._filepath.with_name(f"{self._filepath.stem}_files")

    def _read(self) -> Path:
        self.check()
        return self._filepath.absolute()

    def _write(self, path: Path, data: Page) -> None:
        data.write(path)

    def _facts(self) -> dict[str, str]:
        with self._filepath.open("rb") as file:
            head = file.read(_HEAD_BYTES).decode("utf-8", "replace")
        found = _DESCRIPTION.search(head)
        # Whole numbers with what they count, as the page puts them.
        facts = {}
        for said in html.unescape(found[1]).split(", ") if found else ():
            number, _, what = said.partition(" ")
            facts[what] = number
        return {**facts, "size on disk": self._size_on_disk()}

    def _first_rows(self) -> Iterator[Sequence[Any]]:
        yield from ()
