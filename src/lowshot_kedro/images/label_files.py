"""Labels that people have written down, or given in Label Studio, read from one file."""

from __future__ import annotations

import csv
import json
import logging
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

from lowshot_kedro.errors import InputError, shown, shown_line
from lowshot_kedro.images.folders import image_suffixes
from lowshot_kedro.input_files import read_json, require_file

logger = logging.getLogger(__name__)

# What columns are called, in lower case, the first one that is there counts.
_FILE = ("file", "filename", "file_name", "filepath", "path", "image")
_LABEL = ("label", "class", "category", "choice")
_GROUP = ("group",)
_CHECKED = ("checked",)
_YES = ("yes", "true", "1", "x")
# Label Studio's exports also have what a task had, such as an older label.
_ASKED_FIRST = ("choice", *(name for name in _LABEL if name != "choice"))
_DATES = ("updated_at", "created_at")
# Columns that our own labels have, and given ones do not.
_COMPUTED = ("confidence", "guess")
# Columns of Label Studio's exports that say nothing about the image. What is called otherwise is
# what the label was asked for with.
_BOOKKEEPING = frozenset(
    ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")
)
# Label Studio's prefix for files of the machine that it runs on.
_LOCAL_FILES = "/data/local-files/"

_DELIMITERS = ",;\t"
_SEPARATOR = "sep="
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# As long as a folder's name may be.
_MAX_LABEL = 255
_MAX_COLUMNS_SHOWN = 5

_EXPECTED = (
    "a CSV file with a line file,label (and perhaps group, checked) and a line for each image, or "
    "finished annotations of Label Studio as JSON, JSON_MIN or CSV"
)


class LabelRow(NamedTuple):
    """A row of a file of labels.

    Attributes:
        file: The image.
        label: What it is; None for nothing.
        group: What it belongs to; None for nothing.
        checked: Whether somebody has looked at the label again, and found it right.
    """

    file: str
    label: str | None
    group: str | None = None
    checked: bool = False


@dataclass(frozen=True)
class LabelTable:
    """The rows of a file of labels.

    Attributes:
        files: The images, as the file names them; of Label Studio's addresses the path.
        labels: What each is, without space around it; None for nothing.
        groups: What each belongs to; None for nothing. None: no image belongs to anything.
        path: The file.
        rows: Where each row stands, counted from 1. Empty: in the order of `files`.
        row_name: What is counted.
        checked: Which labels somebody has looked at again, and found right. None: none was.
    """

    files: tuple[str, ...]
    labels: tuple[str | None, ...]
    groups: tuple[str | None, ...] | None
    path: Path
    rows: Sequence[int] = field(default=(), compare=False)
    row_name: str = "line"
    checked: tuple[bool, ...] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def as_rows(self) -> Iterator[LabelRow]:
        """The rows one after the other."""
        nothing = [None] * len(self)
        unchecked = [False] * len(self)
        columns = (self.files, self.labels, self.groups or nothing, self.checked or unchecked)
        yield from map(LabelRow, *columns)

    def place(self, row: int) -> str:
        """Where a row stands, for a message."""
        return f"{self.row_name} {self.rows[row]}" if len(self.rows) else f"row {row + 1}"

    def require_same(self, earlier: int, row: int) -> None:
        """Refuse two rows about one image that say different things.

        Raises:
            ValueError: If labels or groups differ, naming both places.
        """
        for what, values in (("label", self.labels), ("group", self.groups)):
            if values is not None and values[earlier] != values[row]:
                raise InputError(
                    f"{self.path}, {self.place(row)}: {shown_line(self.files[row])} has the {what} "
                    f"{_named(values[row])}, but {_named(values[earlier])} by "
                    f"{self.place(earlier)}; expected one {what} for an image"
                )


def read_label_file(path: str | Path) -> LabelTable:
    """Read the labels that people gave.

    A CSV file in UTF-8 has a line with the names of columns: file (or image, filename, file_name,
    path, filepath), label (or class, category, choice), and perhaps group and checked. In a file of
    two columns with other names the first is the file. Commas, semicolons or tabs part the columns.
    An empty label says that an image has none. In the column checked yes, true, 1 or x says that
    somebody has looked at the label again, and found it right; otherwise it is empty.

    Of Label Studio's exports JSON, JSON_MIN and CSV are read. Cancelled annotations do not count;
    of several annotations of an image the newest counts.

    In memory are the columns.

    Args:
        path: The file; what is in it decides what it is.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it cannot be read, naming the line or task; if an image has two labels; if it
            holds labels that were computed.
    """
    path = Path(path)
    require_file(path)
    table = _from_json(path) if _is_json(path) else _from_csv(path)
    row_of: dict[str, int] = {}
    for row, file in enumerate(table.files):
        earlier = row_of.setdefault(file, row)
        if earlier != row:
            table.require_same(earlier, row)
    return table


def table_text(
    rows: Iterable[LabelRow | tuple[str, str | None, str | None]],
) -> Iterator[str]:
    """The lines of a CSV file that :func:`read_label_file` reads.

    There are columns group and checked where a row has such a value. Cells are in quotes where they
    have to be (RFC 4180), lines end with a line feed.

    Args:
        rows: Rows, or the first three values of them: (file, label, group).
    """
    all_rows = [LabelRow(*row) for row in rows]
    is_there = (
        True,
        True,
        any(row.group for row in all_rows),
        any(row.checked for row in all_rows),
    )
    yield ",".join(compress(LabelRow._fields, is_there)) + "\n"
    for file, label, group, checked in all_rows:
        values = (file, label or "", group or "", _YES[0] if checked else "")
        yield ",".join(map(_cell, compress(values, is_there))) + "\n"


def write_label_file(
    path: str | Path, rows: Iterable[LabelRow | tuple[str, str | None, str | None]]
) -> None:
    """Write a CSV file that :func:`read_label_file` reads, whole or not at all.

    Args:
        path: The file; one that is there is replaced.
        rows: Rows, or the first three values of them: (file, label, group).
    """
    path = Path(path)
    unfinished = path.with_name(f".partial-{path.name}")
    try:
        # Names of files that are no text come back as they were.
        with unfinished.open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            file.writelines(table_text(rows))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _cell(text: str) -> str:
    # Readers may skip a space that begins a cell.
    if text.startswith(" ") or any(character in text for character in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _named(value: str | None) -> str:
    return "nothing" if value is None else shown(value)


def _is_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"[", b"{")


class _Rows:
    """Rows of a table that is being read."""

    def __init__(self, path: Path, row_name: str) -> None:
        self.path, self.row_name = path, row_name
        self._files: list[str] = []
        self._labels: list[str | None] = []
        self._groups: list[str | None] = []
        self._checked: list[bool] = []
        self._rows = array("q")
        # Labels and groups are few: one object of each is enough.
        self._known: dict[str, str] = {}
        self._annotated: dict[str, tuple[str, int]] = {}

    def where(self, row: int) -> str:
        """The place of a row, for a message."""
        return f"{self.path}, {self.row_name} {row}"

    def add(self, row: int, file: str, label: str, group: str, checked: str = "") -> None:
        """Append a row.

        Raises:
            ValueError: If there is no file, the label is no name, or `checked` neither says yes nor
                is empty.
        """
        if not file.strip():
            raise InputError(f"{self.where(row)}: found no file, expected the path of an image")
        self._files.append(_path_in(file))
        self._labels.append(self._name(row, "label", label))
        self._groups.append(self._name(row, "group", group))
        self._checked.append(self._is_yes(row, checked))
        self._rows.append(row)

    def add_annotation(self, row: int, file: str, label: str, group: str, when: str) -> None:
        """Append a row, or put it in the place of an older one of the same image.

        Args:
            row: As for :meth:`add`, like the next three.
            file: See there.
            label: See there.
            group: See there.
            when: The date and time of it; a later row is newer than an earlier one of the same.
        """
        newest, position = self._annotated.get(file, ("", -1))
        if position < 0:
            self._annotated[file] = when, len(self._files)
            self.add(row, file, label, group)
        elif when >= newest:
            self._annotated[file] = when, position
            self._labels[position] = self._name(row, "label", label)
            self._rows[position] = row

    def table(self) -> LabelTable:
        """All rows."""
        groups = tuple(self._groups) if any(self._groups) else None
        return LabelTable(
            tuple(self._files),
            tuple(self._labels),
            groups,
            self.path,
            self._rows,
            self.row_name,
            tuple(self._checked) if any(self._checked) else None,
        )

    def _is_yes(self, row: int, text: str) -> bool:
        text = text.strip()
        if text and text.lower() not in _YES:
            raise InputError(
                f"{self.where(row)}: found checked {shown(text)}, expected {_YES[0]} for a label "
                "that somebody has checked, or nothing"
            )
        return bool(text)

    def _name(self, row: int, what: str, text: str) -> str | None:
        text = text.strip()
        if text in self._known or not text:
            return self._known.get(text)
        if len(text) > _MAX_LABEL or not text.isprintable():
            raise InputError(
                f"{self.where(row)}: found the {what} {shown(text)}, expected a name of at most "
                f"{_MAX_LABEL} characters in one line"
            )
        return self._known.setdefault(text, text)


def _path_in(address: str) -> str:
    """The path in an address of Label Studio, or of the web; any other text as it is."""
    if _LOCAL_FILES in address:
        path = parse_qs(address.partition("?")[2]).get("d")
        return address if path is None else path[0]
    scheme, is_address, rest = address.partition("://")
    if not is_address:
        return address
    if scheme.lower() in ("http", "https"):
        rest = rest.partition("?")[0]
    host, slash, path_there = rest.partition("/")
    return unquote(slash + path_there if scheme.lower() == "file" else path_there or host)


class _Columns:
    """Which column holds what.

    Args:
        path: The file.
        found: The names of all columns.
    """

    def __init__(self, path: Path, found: Sequence[str]) -> None:
        names = [name.strip().lower() for name in found]
        self.is_label_studio = "annotation_id" in names
        if set(_COMPUTED) <= set(names) and not self.is_label_studio:
            raise InputError(
                f"{path}: found the columns {' and '.join(_COMPUTED)}, so these labels were "
                f"computed; expected labels that people gave: {_EXPECTED}"
            )
        self.file = _position(names, _FILE)
        self.label = _position(names, _ASKED_FIRST if self.is_label_studio else _LABEL)
        self.group = _position(names, _GROUP)
        self.checked = None if self.is_label_studio else _position(names, _CHECKED)
        self.updated = _position(names, _DATES)
        others = [
            position
            for position, name in enumerate(names)
            if position not in (self.file, self.label, self.group, self.checked)
            and name not in _BOOKKEEPING
        ]
        if self.label is None and self.is_label_studio and len(others) == 1:
            self.label = others.pop()
        has_others_only = self.file is self.label is self.checked is None
        if has_others_only and len(names) == 2 and not _is_image(names[0]):
            # As fastai has it, which goes by the order of columns.
            self.file, self.label, others = 0, 1, []
        if self.file is None or self.label is None:
            raise InputError(
                f"{path}: found the columns {_some(found)} in the first line; expected {_EXPECTED}"
            )
        if others:
            ignored = _some([found[position] for position in others])
            logger.info("%s: columns that are not read: %s", path, ignored)
        self.names = found


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in image_suffixes()


def _position(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _some(columns: Sequence[str]) -> str:
    more = len(columns) - _MAX_COLUMNS_SHOWN
    return ", ".join(map(shown, columns[:_MAX_COLUMNS_SHOWN])) + (
        f" and {more} more" if more > 0 else ""
    )


def _from_csv(path: Path) -> LabelTable:
    rows = _Rows(path, "line")
    with path.open("rb") as file:
        # What Excel calls Unicode text.
        encoding = "utf-16" if file.read(2) in _UTF16 else "utf-8-sig"
    try:
        with path.open(encoding=encoding, errors="surrogatepass", newline="") as lines:
            delimiter = _delimiter(lines)
        with path.open(encoding=encoding, errors="surrogatepass", newline="") as lines:
            reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
            columns: _Columns | None = None
            for cells in reader:
                if not any(cells) or (columns is None and cells[0].lower() == _SEPARATOR):
                    continue
                if columns is None:
                    columns = _Columns(path, cells)
                else:
                    _add_cells(rows, columns, reader.line_num, cells)
    except (csv.Error, UnicodeError) as error:
        raise InputError(f"{path}: not a readable CSV file in UTF-8 ({error})") from error
    if columns is None:
        raise InputError(f"{path}: found no line, expected {_EXPECTED}")
    return rows.table()


def _delimiter(lines: Iterable[str]) -> str:
    """What parts the columns: as the line `sep=` of Excel says, or whatever the header has most."""
    for line in lines:
        if line.lower().startswith(_SEPARATOR):
            return line[len(_SEPARATOR) :][:1] or ","
        if line.strip():
            return max(_DELIMITERS, key=line.count)
    return ","


def _add_cells(rows: _Rows, columns: _Columns, row: int, cells: Sequence[str]) -> None:
    assert columns.file is not None and columns.label is not None
    if len(cells) != len(columns.names):
        raise InputError(
            f"{rows.where(row)}: found {len(cells)} values, expected {len(columns.names)}: "
            f"{', '.join(map(shown_line, columns.names[:_MAX_COLUMNS_SHOWN]))}"
        )
    group = "" if columns.group is None else cells[columns.group]
    if not columns.is_label_studio:
        checked = "" if columns.checked is None else cells[columns.checked]
        rows.add(row, cells[columns.file].rstrip(), cells[columns.label], group, checked)
        return
    label = cells[columns.label]
    if label.startswith("{"):
        # Where several could be chosen.
        try:
            label = _one_choice(rows.where(row), json.loads(label))
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
    when = "" if columns.updated is None else cells[columns.updated]
    rows.add_annotation(row, cells[columns.file], label, group, when)


def _from_json(path: Path) -> LabelTable:
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        kind = "an object" if isinstance(tasks, dict) else "something else"
        raise InputError(f"{path}: found {kind}, expected a list of tasks: {_EXPECTED}")
    if not tasks:
        raise InputError(f"{path}: found no task, expected {_EXPECTED}")
    rows = _Rows(path, "task")
    numbered = [
        (task["id"] if isinstance(task.get("id"), int) else number, task)
        for number, task in enumerate(tasks, start=1)
    ]
    if any("annotations" in task for task in tasks):
        for number, task in numbered:
            _add_task(rows, number, task)
    elif any("predictions" in task for task in tasks):
        raise InputError(
            f"{path}: found predictions and no annotations, so these labels were computed; "
            f"expected labels that people gave: {_EXPECTED}"
        )
    else:
        names = [*dict.fromkeys(name for task in tasks for name in task)]
        columns = _Columns(path, names)
        for number, task in numbered:
            _add_short_task(rows, columns, number, task)
    return rows.table()


def _add_task(rows: _Rows, number: int, task: Mapping[str, Any]) -> None:
    """The annotations of a task, as the export JSON has them."""
    where = rows.where(number)
    data = task.get("data")
    if not isinstance(data, dict):
        raise InputError(f"{where}: found no data, expected an object with an image")
    names = [name.lower() for name in data]
    position = _position(names, _FILE)
    texts = [value for value in data.values() if isinstance(value, str)]
    file = [*data.values()][position] if position is not None else texts[0] if texts else None
    if not isinstance(file, str) or (position is None and len(texts) > 1):
        raise InputError(f"{where}: found {_some(names) or 'nothing'} in data, expected an image")
    group = _text(data.get("group"))
    annotations = task.get("annotations")
    for annotation in annotations if isinstance(annotations, list) else ():
        if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
            raise InputError(f"{where}: found an annotation without result, expected a list")
        if annotation.get("was_cancelled"):
            continue
        values = [part.get("value") for part in annotation["result"] if isinstance(part, dict)]
        chosen = [
            choice
            for value in values
            if isinstance(value, dict) and isinstance(value.get("choices"), list)
            for choice in value["choices"]
        ]
        label = _one_choice(where, {"choices": chosen})
        rows.add_annotation(number, file, label, group, _date(annotation))


def _add_short_task(rows: _Rows, columns: _Columns, number: int, task: Mapping[str, Any]) -> None:
    """An object with a name for each column, as the export JSON_MIN has them."""
    assert columns.file is not None and columns.label is not None
    file = task.get(columns.names[columns.file])
    if not isinstance(file, str):
        raise InputError(f"{rows.where(number)}: found no file, expected the path of an image")
    label = _one_choice(rows.where(number), task.get(columns.names[columns.label]))
    group = "" if columns.group is None else _text(task.get(columns.names[columns.group]))
    if columns.is_label_studio:
        rows.add_annotation(number, file, label, group, _date(task))
    else:
        checked = "" if columns.checked is None else task.get(columns.names[columns.checked])
        rows.add(number, file, label, group, _text(checked))


def _one_choice(where: str, value: Any) -> str:
    """The label that was chosen; "" for none."""
    choices = value.get("choices") if isinstance(value, dict) else value
    if not isinstance(choices, list):
        choices = [choices]
    if len(choices) > 1:
        raise InputError(
            f"{where}: found {len(choices)} choices, {_some([*map(str, choices)])}; expected one "
            "label for an image"
        )
    return _text(choices[0]) if choices else ""


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _date(annotation: Mapping[str, Any]) -> str:
    return next((_text(annotation[name]) for name in _DATES if annotation.get(name)), "")
