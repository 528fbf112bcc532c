"""Which image is meant by the name of a file that people, or other programs, have written down."""

from __future__ import annotations

import posixpath
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.errors import InputError, did_you_mean, shown_line
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.images.label_files import LabelTable

_MAX_NAMED = 5
# Files of one name, in which the one that was meant is looked for.
_MAX_COMPARED = 1000


class MatchedFiles(NamedTuple):
    """Which images the rows of a table are about.

    Attributes:
        numbers: int64 (n,), the image of every row; -1 where it is not there.
        notes: What people should know of it, a line each.
        names: What every row calls its file, without a folder above all images that was found to
            begin the names.
    """

    numbers: NDArray[np.int64]
    notes: tuple[str, ...]
    names: Sequence[str]


def match_files(images: JoinedImages, table: LabelTable) -> MatchedFiles:
    """Find the images that a table names.

    A name is a path relative to `images.base`, or an absolute one below it, with slashes or
    backslashes. Where no image of the table is there, all names may be relative to a folder above,
    or each may be the end of the path of one image.

    In memory are the names of all images and files.

    Args:
        images: The images.
        table: The names.

    Raises:
        ValueError: If no file of the table is there, or one may be any of several images.
    """
    number_of: dict[str, int] = {}
    for number, name in enumerate(images.files()):
        number_of.setdefault(name, number)
    notes = []
    names: Sequence[str] = table.files
    bases = [] if images.base is None else [images.base.absolute(), images.base.resolve()]
    prefixes = tuple(f"{base.as_posix().rstrip('/')}/" for base in bases)
    numbers = np.array([_number(number_of, file, prefixes) for file in table.files], dtype=np.int64)
    if len(numbers) and numbers.max() < 0:
        files = [_with_slashes(file).lstrip("/") for file in table.files]
        folder = _folder_above(number_of, files)
        if folder is not None:
            skipped = len(folder) + 1
            is_below = [file.startswith(f"{folder}/") for file in files]
            names = [
                file[skipped:] if below else name
                for name, file, below in zip(names, files, is_below, strict=True)
            ]
            numbers[:] = [
                number_of.get(name, -1) if below else -1
                for name, below in zip(names, is_below, strict=True)
            ]
            notes.append(f"{table.path}: names of files are understood without {folder}/")
        else:
            _match_ends(number_of, files, table, numbers)
        if numbers.max() < 0:
            hint = _hints(number_of, table.files[:1])
            example = next(iter(number_of), "")
            raise InputError(
                f"{table.path}: none of its {len(table)} files is among the {len(images)} images: "
                f"found {shown_line(table.files[0])}{hint[0]}, expected names such as "
                f"{shown_line(example)}"
            )
    missing = np.flatnonzero(numbers < 0)
    if len(missing):
        named = [table.files[row] for row in missing[:_MAX_NAMED]]
        hints = _hints(number_of, named)
        texts = [
            f"{shown_line(file)} ({table.place(int(row))}){hint}"
            for row, file, hint in zip(missing, named, hints, strict=False)
        ]
        more = f" and {len(missing) - len(named)} more" if len(missing) > len(named) else ""
        notes.append(
            f"{table.path}: {len(missing)} of {len(table)} files are not there: "
            f"{', '.join(texts)}{more}"
        )
    return MatchedFiles(numbers, tuple(notes), names)


def _with_slashes(file: str) -> str:
    return posixpath.normpath(file.strip().replace("\\", "/"))


def _number(number_of: Mapping[str, int], file: str, prefixes: tuple[str, ...]) -> int:
    number = number_of.get(file)
    if number is not None:
        return number
    return next((number_of[name] for name in _spellings(file, prefixes) if name in number_of), -1)


def _spellings(file: str, prefixes: tuple[str, ...]) -> Iterator[str]:
    """What a file may be called too."""
    for text in (posixpath.normpath(file), _with_slashes(file)):
        names = [text, *(text[len(prefix) :] for prefix in prefixes if text.startswith(prefix))]
        for name in names:
            yield name
            # Some file systems take accents apart.
            yield unicodedata.normalize("NFC", name)
            yield unicodedata.normalize("NFD", name)


def _folder_above(number_of: Mapping[str, int], files: Sequence[str]) -> str | None:
    """The beginning of paths without which the most of them are there, the shortest of several."""
    times: Counter[str] = Counter()
    for file in files:
        start = file.find("/")
        while start >= 0:
            if file[start + 1 :] in number_of:
                times[file[:start]] += 1
            start = file.find("/", start + 1)
    return min(times, key=lambda folder: (-times[folder], len(folder)), default=None)


def _match_ends(
    number_of: Mapping[str, int],
    files: Sequence[str],
    table: LabelTable,
    numbers: NDArray[np.int64],
) -> None:
    """Set the numbers of files that are the end of the path of one image."""
    wanted = set(files)
    ending: dict[str, str] = {}
    ambiguous: dict[str, str] = {}
    for name in number_of:
        start = name.find("/")
        while start >= 0:
            end = name[start + 1 :]
            if end in wanted and ending.setdefault(end, name) != name:
                ambiguous.setdefault(end, name)
            start = name.find("/", start + 1)
    for row, file in enumerate(files):
        if file in ambiguous:
            raise InputError(
                f"{table.path}, {table.place(row)}: {shown_line(file)} may be "
                f"{shown_line(ending[file])} or {shown_line(ambiguous[file])}; expected the path "
                "below the folder of all images"
            )
        if file in ending:
            numbers[row] = number_of[ending[file]]


def _hints(number_of: Mapping[str, int], files: Sequence[str]) -> list[str]:
    """For each file the hint which image was probably meant; nothing where none is like it."""
    plain_paths = [_plain(_with_slashes(file)) for file in files]
    paths = dict.fromkeys(plain_paths, "")
    same_name: dict[str, list[str]] = {posixpath.basename(path): [] for path in plain_paths}
    for name in number_of:
        plain = _plain(name)
        if plain in paths:
            paths[plain] = name
        of_name = same_name.get(posixpath.basename(plain))
        if of_name is not None and len(of_name) < _MAX_COMPARED:
            of_name.append(name)
    return [
        did_you_mean(
            file,
            [paths[plain]] if paths[plain] else same_name[posixpath.basename(plain)],
            shown_as=shown_line,
        )
        for file, plain in zip(files, plain_paths, strict=True)
    ]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
