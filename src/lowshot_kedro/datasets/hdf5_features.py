"""Feature vectors with labels in HDF5, in one file or in blocks of a million images."""

from __future__ import annotations

import abc
import itertools
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import (
    Blocks,
    KeyedRowBlocks,
    LabeledBlock,
    Resumable,
    RowBlocks,
    row_ranges,
)
from lowshot_kedro.datasets.class_list import class_namer, in_project
from lowshot_kedro.datasets.feature_writer import (
    BYTES_PER_NUMBER,
    COUNT,
    FEATURES,
    KEYS,
    LABELS,
    FeatureWriter,
    ProblemList,
)
from lowshot_kedro.datasets.files import partial_path, written_whole
from lowshot_kedro.datasets.hdf5_files import find_dataset, open_hdf5, require_stored
from lowshot_kedro.datasets.known_rows import rows_with_keys, with_known_rows
from lowshot_kedro.datasets.resumable import ResumableDataset, ResumableFiles
from lowshot_kedro.datasets.table_dataset import PREVIEW_COLUMNS, PREVIEW_ROWS, TableDataset
from lowshot_kedro.disk import require_space
from lowshot_kedro.errors import InputError
from lowshot_kedro.memory import format_bytes
from lowshot_kedro.parameters import require_integer

logger = logging.getLogger(__name__)

_LABEL_ROWS = 2**20

FeatureContent = Blocks[LabeledBlock] | Resumable[RowBlocks[LabeledBlock]]


@dataclass(frozen=True)
class HDF5Features:
    """The valid rows of one or several feature files, one after the other.

    Nothing is in memory but the labels, once asked for.

    Attributes:
        paths: The files.
        counts: Valid rows of each.
        n_columns: Dimension of the features.
    """

    paths: tuple[Path, ...]
    counts: tuple[int, ...]
    n_columns: int

    @property
    def name(self) -> str:
        """What an error message calls it."""
        return str(self.paths[0] if len(self.paths) == 1 else self.paths[0].parent)

    @property
    def n_rows(self) -> int:
        """Number of valid rows."""
        return sum(self.counts)

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """int32 (n_rows,), 0-based."""
        parts = []
        for path, count in zip(self.paths, self.counts, strict=True):
            with open_hdf5(path) as file:
                parts.append(_read_labels(path, find_dataset(file, LABELS), count))
        return np.concatenate(parts)

    @property
    def broken_images(self) -> Iterator[tuple[int, str]] | None:
        """Numbers of the images that were blank and why; None where nobody has kept a list."""
        lists = [ProblemList(path) for path in map(_problems_path, self.paths) if path.exists()]
        return chain.from_iterable(lists) if lists else None

    def image_keys(self, key_bytes: int) -> NDArray[np.uint8]:
        """By what the images of the rows are known again, uint8 (n_rows, key_bytes).

        They are all 0 in files that hold none.
        """
        keys = np.zeros((self.n_rows, key_bytes), np.uint8)
        start = 0
        for path, count in zip(self.paths, self.counts, strict=True):
            with open_hdf5(path) as file:
                if KEYS in file:
                    found = find_dataset(file, KEYS)
                    shape = (len(found), key_bytes)
                    if found.dtype == np.uint8 and found.shape == shape and len(found) >= count:
                        keys[start : start + count] = found[:count]
            start += count
        return keys

    @cached_property
    def _offsets(self) -> list[int | None]:
        """The byte at which each file's float32 rows begin; None: they are not in one piece."""
        offsets = []
        for path in self.paths:
            with open_hdf5(path) as file:
                features = find_dataset(file, FEATURES)
                is_plain = features.dtype.str == "<f4"
                offsets.append(features.id.get_offset() if is_plain else None)
        return offsets

    def read(
        self, first: int, last: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Rows first..last-1. May be called from several threads at a time.

        Args:
            first: First row.
            last: Row after the last.
            out: float32 (last - first, n_columns), C-contiguous, to read into; None: a new array.

        Returns:
            float32 (last - first, n_columns).

        Raises:
            IndexError: If they are not all there.
            ValueError: If a file has been cut off.
        """
        if not 0 <= first <= last <= self.n_rows:
            raise IndexError(f"{self.name}: rows {first}..{last} of {self.n_rows}")
        result = np.empty((last - first, self.n_columns), np.float32) if out is None else out
        start = 0
        for path, count, offset in zip(self.paths, self.counts, self._offsets, strict=True):
            begin, end = max(first, start), min(last, start + count)
            if begin < end:
                rows = result[begin - first : end - first]
                if offset is None:
                    with open_hdf5(path) as file:
                        wanted = np.s_[begin - start : end - start]
                        features = find_dataset(file, FEATURES)
                        # Those of dense features are maps.
                        as_stored = rows.reshape(len(rows), *features.shape[1:])
                        features.read_direct(as_stored, wanted)
                else:
                    # Past the library, which lets one thread read at a time.
                    skipped = BYTES_PER_NUMBER * self.n_columns * (begin - start)
                    _read_into(rows, path, offset + skipped)
            start += count
        return result

    def __len__(self) -> int:
        return self.n_rows


def open_features(paths: tuple[Path, ...], dense: bool = False) -> HDF5Features:
    """Check feature files and describe what is in them.

    Args:
        paths: The files, in order. Beside the first file that a job has written is its list of
            broken images.
        dense: Whether all_feats may also be (n, C, h, w): its rows are flattened then.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is cut off or no HDF5, lacks a dataset, or has one of another type or
            shape than the format says.
    """
    counts, widths = zip(*(_inspect(path, dense) for path in paths), strict=True)
    for path, width in zip(paths, widths, strict=True):
        if width != widths[0]:
            raise InputError(f"{path}: {width} columns, but {paths[0].name} has {widths[0]}")
    return HDF5Features(paths, counts, widths[0])


def bytes_to_write(n_rows: int, n_columns: int, begun: Sequence[Path] = ()) -> int:
    """Bytes that rows and their labels still take on the disk.

    Args:
        n_rows: Rows.
        n_columns: Their numbers.
        begun: Files that a stopped run has begun, which need not be there.
    """
    # What is begun is a file with holes: its blocks count, not its size.
    taken = sum(512 * path.stat().st_blocks for path in begun if path.is_file())
    return max(0, BYTES_PER_NUMBER * n_rows * (n_columns + 1) - taken)


def _read_into(rows: NDArray[np.float32], path: Path, offset: int) -> None:
    """Fill rows with what is in a file from a byte on."""
    rest = rows.reshape(-1).view(np.uint8).data
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while rest:
            n_read = file.readinto(rest)
            if not n_read:
                raise InputError(f"{path}: ends before the last row it counts; it is cut off")
            rest = rest[n_read:]


def _is_no_first_one(path: Path) -> bool:
    """Whether a file is not the first one of a job, beside which there would be a note."""
    files = ResumableFiles(path)
    return not files.note.exists() and not files.work_folder.exists()


def _problems_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.broken_pictures.csv")


def _inspect(path: Path, dense: bool) -> tuple[int, int]:
    with open_hdf5(path) as file:
        expected: dict[str, tuple[tuple[int, ...], str]] = {
            FEATURES: ((2, 4) if dense else (2,), "f"),
            LABELS: ((1,), "iu"),
            COUNT: ((1,), "iu"),
        }
        arrays = {key: find_dataset(file, key) for key in expected}
        for key, (n_dimensions, kinds) in expected.items():
            shape, dtype = arrays[key].shape, arrays[key].dtype
            if len(shape) not in n_dimensions or dtype.kind not in kinds:
                numbers = "float32" if kinds == "f" else "int32"
                raise InputError(
                    f"{path}: {key} is {dtype} of shape {shape}; expected {numbers} with "
                    f"{' or '.join(map(str, n_dimensions))} dimension(s)"
                )
        (n_features, *row_shape), (n_labels,) = arrays[FEATURES].shape, arrays[LABELS].shape
        n_columns = prod(row_shape)
        if arrays[COUNT].shape != (1,):
            raise InputError(f"{path}: count has shape {arrays[COUNT].shape}; expected (1,)")
        count = int(arrays[COUNT][0])
        if not 0 <= count <= min(n_features, n_labels):
            raise InputError(
                f"{path}: count is {count}, but all_feats has {n_features} rows and all_labels "
                f"{n_labels}"
            )
        for key in (FEATURES, LABELS):
            require_stored(arrays[key], f"{path}: {key}", count)
        if count * n_columns and not arrays[FEATURES].id.get_storage_size():
            raise InputError(f"{path}: all_feats holds no numbers, expected {count} rows of them")
        if not np.can_cast(arrays[LABELS].dtype, np.int32):
            _read_labels(path, arrays[LABELS], count)
    return count, n_columns


def _read_labels(path: Path, labels: h5py.Dataset, count: int) -> NDArray[np.int32]:
    """The first labels of a file.

    Raises:
        ValueError: For one that is no int32, naming its row in the file.
    """
    read = np.empty(count, np.int32)
    for first, last in row_ranges(count, _LABEL_ROWS):
        block = labels[first:last]
        read[first:last] = block.astype(np.int32)
        wrong = np.flatnonzero(read[first:last] != block)
        if len(wrong):
            row = first + int(wrong[0])
            raise InputError(
                f"{path}: all_labels[{row}] is {block[wrong[0]]}; expected integers of 32 bits, at "
                f"most {np.iinfo(np.int32).max}"
            )
    return read


class _FeaturesDataset(TableDataset[FeatureContent, HDF5Features], ResumableDataset):
    """Feature files: one, or several with as many rows in each but the last.

    Args:
        rows_per_file: Rows of every file but the last; None: all in one file.
        first_image: The number that the first row has as an image.
        metadata: For Kedro plugins.
        class_list: What names the classes, for previews; None: previews name none.
    """

    # What rows are flattened from, where they are regions of images.
    _row_shape: tuple[int, ...] | None = None

    def __init__(
        self,
        rows_per_file: int | None,
        first_image: int,
        metadata: dict[str, Any] | None,
        class_list: str | Mapping[str, Any] | None = None,
    ) -> None:
        self._class_list = in_project(class_list)
        self._rows_per_file = rows_per_file
        self._first_image = first_image
        self.metadata = metadata

    @abc.abstractmethod
    def _path(self, number: int) -> Path:
        """The file with this number, counted from 0."""

    @abc.abstractmethod
    def _open(self) -> HDF5Features:
        """Check the files and describe what is in them."""

    def _paths(self, n_rows: int) -> list[Path]:
        n_files = max(1, -(-n_rows // self._rows_per_file)) if self._rows_per_file else 1
        return [self._path(number) for number in range(n_files)]

    @property
    def _files(self) -> ResumableFiles:  # type: ignore[override]
        """The first file, beside which the note is."""
        return self._files_of(0)

    def _files_of(self, n_rows: int, following: Iterable[Path] = ()) -> ResumableFiles:
        """The files of so many rows.

        Args:
            n_rows: Rows.
            following: Files of an older result behind them, which would pass for a part of ours.

        Raises:
            ValueError: If the rows end within a file and those of another job follow, whose rows
                would move up.
        """
        paths = self._paths(n_rows)
        ours = [*itertools.takewhile(_is_no_first_one, following)]
        replaced = [
            beside
            for path in paths[1:]
            for beside in (ResumableFiles(path).note, _problems_path(path))
        ]
        if self._rows_per_file and n_rows % self._rows_per_file:
            behind = self._path(len(paths))
            if behind.is_file() and behind not in ours:
                raise InputError(
                    f"{behind}: is there already, but {n_rows} images do not fill "
                    f"{paths[-1].name} before it; expected a multiple of {self._rows_per_file}, or "
                    "no such file: move it away"
                )
        return ResumableFiles(paths[0], *paths, obsolete=[*ours, *replaced])

    def files_in_use(self) -> list[Path]:
        """All files that are there: nobody else may write them while a run uses this dataset."""
        numbers = itertools.count(1) if self._rows_per_file else ()
        following = itertools.takewhile(Path.is_file, map(self._path, numbers))
        return [self._path(0), *following]

    def check(self) -> None:
        """Open the files and compare them with the format.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If one is damaged or in another format.
        """
        self._open()

    def load(self) -> HDF5Features:
        """All rows as one collection; nothing is read yet."""
        return self._open()

    def save(self, data: FeatureContent) -> None:
        """Write all rows, or those that are not there yet; files get their names at the end.

        A Resumable says in its `provenance` how large the result is: n_rows and n_columns. Only a
        Resumable brings a list of broken images.

        Raises:
            DiskFullError: Naming the first file.
            ValueError: If blocks are not what they announce, or there are files of others that
                do not fit: they are never overwritten.
        """
        if isinstance(data, Resumable):
            self._save_resumable(data)
            return
        self._require_space(data.n_rows, data.n_columns)
        n_files = len(self._paths(data.n_rows))
        following = map(self._path, itertools.count(n_files)) if self._rows_per_file else ()
        files = self._files_of(data.n_rows, itertools.takewhile(Path.is_file, following))
        with files.written_anew() as paths:
            for path in paths:
                path.unlink(missing_ok=True)
            with FeatureWriter(
                paths, data.n_rows, data.n_columns, self._rows_per_file or data.n_rows
            ) as writer:
                first = 0
                for block in data.checked(str(self._path(0))):
                    writer.write(first, block)
                    first += len(block.features)
            _problems_path(self._path(0)).unlink(missing_ok=True)

    def _save_resumable(self, data: Resumable[RowBlocks[LabeledBlock]]) -> None:
        paths = self._paths(int(data.provenance["n_rows"]))
        files = ResumableFiles(paths[0], *paths)
        with ExitStack() as stack:
            if not files.are_kept(data.provenance):
                # What is there is looked at when nobody else can change it.
                stack.enter_context(files.written_by_one())
            self._save_as_far_as_missing(data)

    def _save_as_far_as_missing(self, data: Resumable[RowBlocks[LabeledBlock]]) -> None:
        n_rows, n_columns = int(data.provenance["n_rows"]), int(data.provenance["n_columns"])
        older = self._files.provenance() or {}
        n_files = len(self._paths(n_rows))
        files = self._files_of(n_rows, self._paths(int(older.get("n_rows", 0)))[n_files:])
        there = [path for path in files.paths if path.is_file()]
        # While a missing one of our own is made again, the note of the others is gone.
        are_of_others = files.provenance() is None and files.unfinished_provenance() is None
        if there and are_of_others and not files.exist():
            missing = next(path for path in files.paths if path not in there)
            raise InputError(
                f"{there[0]}: is there without a note of what it was made from, and "
                f"{missing.name} is missing; expected all files of {n_rows} images or none: "
                "add the missing ones, or move the others away to have them computed"
            )
        unfinished = files.unfinished_provenance() or {}
        begun = self._paths(int(unfinished.get("n_rows", 0)))[n_files:]
        problems = ProblemList(files.work_folder / "broken_pictures.csv", self._first_image)

        def check_kept() -> None:
            found = open_features(files.paths, self._row_shape is not None)
            if found.n_rows != n_rows:
                raise InputError(
                    f"{found.name}: holds features of {found.n_rows} images, but there are "
                    f"{n_rows}; move the files away to have them computed anew"
                )

        def write(blocks: RowBlocks[LabeledBlock], paths: Sequence[Path]) -> None:
            for path in itertools.takewhile(_is_no_first_one, begun):
                partial_path(path).unlink(missing_ok=True)
            self._require_space(n_rows, n_columns, paths)
            keys = None
            if isinstance(blocks, KeyedRowBlocks):
                keys = blocks.keys()
                blocks = self._with_known_rows(blocks, keys, data.provenance)
            rows_per_file = self._rows_per_file or n_rows
            with FeatureWriter(
                paths, n_rows, n_columns, rows_per_file, problems, keys, self._row_shape
            ) as writer:
                done = writer.rows_done
                first = done if done == n_rows else done - done % blocks.block_rows
                writer.continue_at(first)
                if first:
                    logger.info("%s: continuing after row %d of %d", self._path(0), first, n_rows)
                if first < n_rows:
                    name = str(self._path(0)) + (f" after row {first}" if first else "")
                    for block in blocks.starting_at(first).checked(name):
                        writer.write(first, block)
                        first += len(block.features)
            # A copy: whoever is killed before the files get their names begins here again.
            with written_whole(_problems_path(self._path(0))) as (copy,):
                shutil.copyfile(problems.path, copy)

        files.save(data, check_kept, write)

    def _with_known_rows(
        self,
        blocks: KeyedRowBlocks[LabeledBlock],
        keys: NDArray[np.uint8],
        provenance: Mapping[str, Any],
    ) -> RowBlocks[LabeledBlock]:
        """Blocks of which rows that are in the files to be replaced are copied from there.

        Images that were blank are tried again.
        """
        if not self._files.differ_only_in(provenance, blocks.facts_of_collection):
            return blocks
        n_older = int((self._files.provenance() or {}).get("n_rows", 0))
        try:
            older = open_features(tuple(self._paths(n_older)))
            older_keys = older.image_keys(keys.shape[1])
        except (OSError, InputError):
            # What is damaged is replaced.
            return blocks
        broken = older.broken_images
        if broken is None or (older.n_rows, older.n_columns) != (n_older, blocks.n_columns):
            return blocks
        numbers = np.array([number for number, _ in broken], np.int64) - self._first_image
        known = rows_with_keys(keys, older_keys, numbers)
        n_known = int((known >= 0).sum())
        if n_known == 0:
            return blocks
        logger.info(
            "%s: features of %d of %d images are known: %d are computed",
            self._path(0),
            n_known,
            blocks.n_rows,
            blocks.n_rows - n_known,
        )
        return with_known_rows(blocks, older, known)

    def _require_space(self, n_rows: int, n_columns: int, begun: Sequence[Path] = ()) -> None:
        require_space(self._path(0), bytes_to_write(n_rows, n_columns, begun))

    def _exists(self) -> bool:
        return self._path(0).exists()

    def _facts(self) -> dict[str, str]:
        features = self._open()
        labels, problems = features.labels, features.broken_images
        return {
            **({"files": str(len(features.paths))} if self._rows_per_file else {}),
            "shape": f"({features.n_rows}, {features.n_columns})",
            "dtype": "float32",
            "labels": f"{labels.min()}..{labels.max()}" if len(labels) else "none",
            "size on disk": format_bytes(self._n_bytes()),
            "broken images": "not known" if problems is None else str(sum(1 for _ in problems)),
            **self._files.facts(),
        }

    def _n_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._open().paths)

    def _size(self) -> tuple[int, int]:
        features = self._open()
        return features.n_rows, features.n_columns

    def _row_classes(self) -> list[str]:
        if self._class_list is None:
            return []
        name = class_namer(self._class_list)
        return [name(int(label)) for label in self._open().labels[:PREVIEW_ROWS]]

    def _first_rows(self) -> NDArray[np.float32]:
        features = self._open()
        return features.read(0, min(features.n_rows, PREVIEW_ROWS))[:, :PREVIEW_COLUMNS]


class HDF5FeaturesDataset(_FeaturesDataset):
    """Features and labels of a training or test set: all_feats, all_labels, count.

    Loading gives an :class:`HDF5Features`, which reads from disk what is asked for. Saving accepts
    :class:`~lowshot_kedro.blocks.Blocks`, or a :class:`~lowshot_kedro.blocks.Resumable`, which
    a later run continues where this one was stopped.

    Args:
        filepath: The HDF5 file.
        class_list: What names the classes of rows in previews: a class split file (.json), a CSV
            file as :class:`~lowshot_kedro.datasets.ClassListDataset` reads it, or name, filepath
            and arguments as of :class:`~lowshot_kedro.datasets.TorchvisionClassSplitDataset`.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            train_features:
              type: lowshot_kedro.datasets.HDF5FeaturesDataset
              filepath: data/04_feature/train.hdf5

        >>> features = HDF5FeaturesDataset(filepath="train.hdf5").load()
        >>> features.read(0, 10).shape
        (10, 2048)
    """

    def __init__(
        self,
        *,
        filepath: str,
        class_list: str | Mapping[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(None, 0, metadata, class_list)
        self._filepath = Path(filepath)

    def _path(self, number: int) -> Path:
        return self._filepath

    def _open(self) -> HDF5Features:
        return open_features((self._filepath,))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


class HDF5FeatureBlocksDataset(_FeaturesDataset):
    """Features of a background collection: block0.hdf5, block1.hdf5, … in one folder.

    Several machines can share the work: each gets a range of images i0..i1 in its catalog, and
    the same i0 here; once all are done, an entry without i0 has all blocks.

    Args:
        filepath: The folder.
        rows_per_file: Images in every block file but the last.
        i0: Number of the first image, a multiple of rows_per_file: its block is the first one
            here.
        metadata: For Kedro plugins.

    Raises:
        ValueError: For an i0 in the middle of a block, or blocks without rows.

    Example:
        .. code-block:: yaml

            background_features:
              type: lowshot_kedro.datasets.HDF5FeatureBlocksDataset
              filepath: data/04_feature/f100m
    """

    def __init__(
        self,
        *,
        filepath: str,
        rows_per_file: int = 1_000_000,
        i0: int = 0,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(rows_per_file, i0, metadata)
        self._filepath = Path(filepath)
        require_integer("rows_per_file", rows_per_file, 1, where=filepath)
        require_integer("i0", i0, 0, where=filepath)
        self._first_block, rest = divmod(i0, rows_per_file)
        if rest:
            raise InputError(
                f"{filepath}: got i0 = {i0}, expected the beginning of a block, a multiple of "
                f"{rows_per_file}"
            )

    def _path(self, number: int) -> Path:
        return self._filepath / f"block{self._first_block + number}.hdf5"

    def _open(self) -> HDF5Features:
        number = 0
        while os.path.lexists(self._path(number)):
            number += 1
        # Without any, the first one is looked for once more, and named as missing.
        return open_features(tuple(self._path(file) for file in range(max(1, number))))

    def _describe(self) -> dict[str, Any]:
        return {
            "filepath": str(self._filepath),
            "rows_per_file": self._rows_per_file,
            "i0": self._first_image,
        }
