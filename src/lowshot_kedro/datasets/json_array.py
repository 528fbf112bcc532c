"""Many entries in one JSON file, written one by one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.errors import InputError, shown_line
from lowshot_kedro.input_files import read_json, require_file

_PREVIEW_ENTRIES = 5
_PREVIEW_LETTERS = 200


class JsonArrayDataset(FileDataset[Iterable[Any], list[Any]]):
    """A JSON file with a list of entries, a line for each.

    What is saved may be of any length: one entry is in memory at a time. What is loaded is a list.

    Args:
        filepath: The JSON file.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            label_studio_tasks:
              type: lowshot_kedro.datasets.JsonArrayDataset
              filepath: data/08_reporting/labels_files/label_studio_tasks.json
    """

    def check(self) -> None:
        """See that the file is there, and begins as a list does.

        Raises:
            FileNotFoundError: If it is not there.
            ValueError: If it is no file or no list.
        """
        require_file(self._filepath)
        with self._filepath.open(encoding="utf-8-sig", errors="replace") as file:
            beginning = file.read(1024).lstrip()
        if not beginning.startswith("["):
            raise self._no_list()

    def _read(self) -> list[Any]:
        found = read_json(self._filepath)
        if not isinstance(found, list):
            raise self._no_list()
        return found

    def _write(self, path: Path, data: Iterable[Any]) -> None:
        with path.open("w", encoding="utf-8") as file:
            file.write("[")
            separator = "\n"
            for entry in data:
                file.write(separator + json.dumps(entry, ensure_ascii=False, allow_nan=False))
                separator = ",\n"
            file.write("\n]\n")

    def _no_list(self) -> InputError:
        return InputError(f"{self._filepath}: found no list, expected [ and entries")

    def _facts(self) -> dict[str, str]:
        return {
            "entries": str(sum(1 for _ in self._entries())),
            "size on disk": self._size_on_disk(),
        }

    def _headings(self) -> list[str]:
        return ["", "entry"]

    def _first_rows(self) -> Iterator[list[str]]:
        for entry in islice(self._entries(), _PREVIEW_ENTRIES):
            yield [shown_line(entry)[:_PREVIEW_LETTERS]]

    def _entries(self) -> Iterator[str]:
        """The entries as text, without all of them in memory where each has a line."""
        with self._filepath.open(encoding="utf-8-sig") as file:
            if file.readline() == "[\n" and _is_entry(file.readline()):
                file.seek(0)
                for line in islice(file, 1, None):
                    if line != "]\n":
                        yield line.strip().removesuffix(",")
                return
        for entry in self._read():
            yield json.dumps(entry, ensure_ascii=False)


def _is_entry(line: str) -> bool:
    try:
        json.loads(line.strip().removesuffix(","))
    except ValueError:
        return False
    return True
