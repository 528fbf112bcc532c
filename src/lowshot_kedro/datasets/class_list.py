"""Lists of classes that people write: which are novel, which are base classes."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pandas as pd
from kedro.utils import find_kedro_project
from kedro_datasets._typing import TablePreview

from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.datasets.whole_file import WholeFileDataset
from lowshot_kedro.errors import InputError, shown
from lowshot_kedro.input_files import read_json, require_file

# A file, or name, filepath, arguments and label_names of a torchvision data set.
ClassList: TypeAlias = Path | Mapping[str, Any]

_PREVIEW_ROWS = 100

_ROLES = ("base", "novel")
_REQUIRED, _OPTIONAL = ("class", "role"), ("mode",)

# As long as a folder's may be.
_MAX_NAME = 255
_MAX_COLUMNS_SHOWN = 5

# The class split file numbers its sets: 1 are the classes for choosing hyper-parameters.
_SPLIT_NUMBER = {"val": 1, "test": 2}


class _Row(NamedTuple):
    """A class, its role, and the modes in which it has that role."""

    name: str
    role: str
    modes: tuple[str, ...]


class ClassListDataset(FileDataset[Any, dict[str, Any]]):
    """A CSV file of classes, loaded as the content of a class split file.

    It has the columns class and role (base or novel), and may have mode: test, val, or nothing for
    both. Labels follow the order in which the classes first appear. The file is read only.

    Args:
        filepath: The CSV file.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            class_split:
              type: lowshot_kedro.datasets.ClassListDataset
              filepath: data/01_raw/classes.csv
    """

    def _read(self) -> dict[str, Any]:
        """Lists of 1-based labels for each mode and role, and label_names.

        Raises:
            FileNotFoundError: If the file is not there.
            ValueError: If it is no such list: an unknown column, role or mode, a class twice in a
                mode, a mode with base classes but without novel ones; naming the line.
        """
        rows = _read_rows(self._filepath)
        names = _in_order(rows)
        labels = {name: label for label, name in enumerate(names, start=1)}
        split: dict[str, Any] = {
            f"{role}_classes_{number}": sorted(
                labels[row.name] for row in rows if row.role == role and mode in row.modes
            )
            for mode, number in _SPLIT_NUMBER.items()
            for role in _ROLES
        }
        for mode, number in _SPLIT_NUMBER.items():
            if split[f"base_classes_{number}"] and not split[f"novel_classes_{number}"]:
                raise InputError(
                    f"{self._filepath}: no novel class in mode {mode}, expected at least one"
                )
        return {**split, "label_names": names}

    def _write(self, path: Path, data: Any) -> None:
        raise InputError(f"{self._filepath}: a class list is written by people, never by a run")

    def _facts(self) -> dict[str, str]:
        split = self._read()
        counts = {
            f"{role} in mode {mode}": str(len(split[f"{role}_classes_{number}"]))
            for mode, number in _SPLIT_NUMBER.items()
            for role in _ROLES
        }
        return {"classes": str(len(split["label_names"])), **counts}

    def _headings(self) -> list[str]:
        return ["", "class", "role", "modes"]

    def _first_rows(self) -> Iterator[list[str]]:
        for row in _read_rows(self._filepath):
            yield [row.name, row.role, " and ".join(row.modes)]


class ClassSplitDataset(WholeFileDataset):
    """The class split file: base and novel classes of both modes, and the names of all classes.

    Args:
        filepath: The JSON file.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            class_split:
              type: lowshot_kedro.datasets.ClassSplitDataset
              filepath: data/01_raw/label_idx.json
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(
            dataset={"type": "json.JSONDataset", "filepath": filepath}, metadata=metadata
        )
        self.preview = self._table

    def _table(self) -> TablePreview:
        """The role of every class in both modes, for kedro-viz."""
        return split_table(self.load())


def split_table(content: Mapping[str, Any]) -> TablePreview:
    """A table of the role of every class in both modes.

    Args:
        content: A class split: 1-based lists for each mode and role, and label_names.
    """
    name = namer(content.get("label_names", []))
    roles: dict[int, dict[str, str]] = {}
    for mode, number in _SPLIT_NUMBER.items():
        for role in _ROLES:
            for label in content.get(f"{role}_classes_{number}", []):
                roles.setdefault(label, {})[mode] = role
    rows = [
        {"label": label - 1, "class": name(label - 1)}
        | {f"mode {mode}": roles[label].get(mode, "") for mode in _SPLIT_NUMBER}
        for label in sorted(roles)[:_PREVIEW_ROWS]
    ]
    return TablePreview(pd.DataFrame(rows).to_dict("split"))


def namer(names: Sequence[str]) -> Callable[[int], str]:
    """What the class of a label is called: its name, or else the label."""
    return lambda label: names[label] if 0 <= label < len(names) else str(label)


def class_namer(class_list: ClassList | None) -> Callable[[int], str]:
    """The :func:`namer` of the names in a class list; of no names where it cannot be read."""
    try:
        return namer([] if class_list is None else read_class_names(class_list))
    except (OSError, InputError):
        return namer([])


def in_project(class_list: str | Mapping[str, Any] | None) -> ClassList | None:
    """A class list with a path relative to the project, wherever in the project one works.

    Kedro sees to that where the argument is called filepath, but under no other name.
    """
    if class_list is None:
        return None
    folder = find_kedro_project(Path.cwd()) or Path.cwd()
    if isinstance(class_list, Mapping):
        return {**class_list, "filepath": folder / Path(class_list["filepath"]).expanduser()}
    return folder / Path(class_list).expanduser()


def read_class_names(class_list: ClassList) -> list[str]:
    """Names of classes in the order of their labels.

    Args:
        class_list: A class split file (.json, with label_names), a CSV file as
            :class:`ClassListDataset` reads it, or name, filepath and arguments as of
            :class:`~lowshot_kedro.datasets.TorchvisionClassSplitDataset`, and label_names where
            they are not torchvision's.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it is none of these, or has no names.
    """
    if isinstance(class_list, Mapping):
        if "label_names" in class_list:
            return list(class_list["label_names"])
        # Loading torchvision takes a second that other class lists should not pay.
        from lowshot_kedro.images import torchvision_class_names

        name, root = class_list["name"], class_list["filepath"]
        return list(torchvision_class_names(name, root, arguments=class_list.get("arguments", {})))
    path = class_list
    if path.suffix.lower() != ".json":
        return _in_order(_read_rows(path))
    content = read_json(path)
    names = content.get("label_names") if isinstance(content, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise InputError(f"{path}: expected an object with label_names, a list of names")
    return names


def _in_order(rows: list[_Row]) -> list[str]:
    """The names, each where it is first."""
    return list(dict.fromkeys(row.name for row in rows))


def _read_rows(path: Path) -> list[_Row]:
    require_file(path)
    rows: list[_Row] = []
    line_of: dict[tuple[str, str], int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            columns: list[str] | None = None
            for raw in reader:
                cells = [cell.strip() for cell in raw]
                if not any(cells):
                    continue
                if columns is None:
                    columns = _require_columns(path, cells)
                    continue
                row = _parse(f"{path}, line {reader.line_num}", columns, cells)
                for mode in row.modes:
                    earlier = line_of.setdefault((row.name, mode), reader.line_num)
                    if earlier != reader.line_num:
                        raise InputError(
                            f"{path}, line {reader.line_num}: class {row.name} is in mode {mode} "
                            f"already, by line {earlier}; expected it once"
                        )
                rows.append(row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable CSV file in UTF-8 ({error})") from error
    if not rows:
        raise InputError(f"{path}: found no class, expected a line class,role and a line for each")
    return rows


def _require_columns(path: Path, found: list[str]) -> list[str]:
    unknown = [name for name in found if name not in (*_REQUIRED, *_OPTIONAL)]
    missing = [name for name in _REQUIRED if name not in found]
    if unknown or missing or len(set(found)) != len(found):
        raise InputError(
            f"{path}: found the columns {_some(found)} in the first line; expected class, role and "
            "perhaps mode, separated by commas"
        )
    return found


def _some(columns: list[str]) -> str:
    more = len(columns) - _MAX_COLUMNS_SHOWN
    return ", ".join(map(shown, columns[:_MAX_COLUMNS_SHOWN])) + (
        f" and {more} more" if more > 0 else ""
    )


def _parse(where: str, columns: list[str], cells: list[str]) -> _Row:
    if len(cells) != len(columns):
        raise InputError(
            f"{where}: found {len(cells)} values, expected {len(columns)}: {', '.join(columns)}"
        )
    values = dict(zip(columns, cells, strict=True))
    name, role, mode = values["class"], values["role"], values.get("mode", "")
    if not name:
        raise InputError(f"{where}: found no name of a class")
    if len(name) > _MAX_NAME or "\0" in name:
        raise InputError(
            f"{where}: found the name {shown(name)}, expected at most {_MAX_NAME} characters, none "
            "of them NUL"
        )
    if role not in _ROLES:
        raise InputError(f"{where}: got role {shown(role)}, expected one of: {', '.join(_ROLES)}")
    if mode and mode not in _SPLIT_NUMBER:
        modes = ", ".join(_SPLIT_NUMBER)
        raise InputError(f"{where}: got mode {shown(mode)}, expected one of: {modes}, or nothing")
    return _Row(name, role, (mode,) if mode else tuple(_SPLIT_NUMBER))
