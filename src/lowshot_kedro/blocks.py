"""The shapes in which large data travels between the packages of this project.

Nothing here computes. A matrix that may not fit in memory is either a memmap, a
:class:`FeatureMatrix` that is read block by block, or :class:`Blocks` that are made block by
block while somebody writes them down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowshot_kedro.errors import InputError

Block = TypeVar("Block")
Content = TypeVar("Content")

# In which form the regions of images are at hand: the dense map of a network (a feature vector is
# one of 1 × 1), a grid of patches, or patches drawn at random.
View = Literal["map", "grid", "sampling"]
VIEWS: tuple[View, ...] = get_args(View)


@dataclass(frozen=True)
class Blocks(Generic[Block]):
    """Rows that arrive in blocks and are consumed once, in order.

    Iterating computes, so whoever iterates pays for the work. It is deliberately not an
    iterator itself: it can be passed on and looked at without being used up.

    Attributes:
        n_rows: Rows of all blocks together.
        n_columns: Columns of every block.
        make: Starts the work and returns the blocks.
    """

    n_rows: int
    n_columns: int
    make: Callable[[], Iterable[Block]]

    def __iter__(self) -> Iterator[Block]:
        return self.checked("blocks")

    def checked(self, name: str) -> Iterator[Block]:
        """Compute the blocks.

        Args:
            name: What an error message calls what they are written to.

        Raises:
            ValueError: If they have other rows or columns than announced.
        """
        n_rows = 0
        for block in self.make():
            parts = [
                part
                for part in (block if isinstance(block, tuple) else (np.asarray(block),))
                if isinstance(part, np.ndarray)
            ]
            widths = {part.shape[1] for part in parts if part.ndim == 2}
            lengths = {len(part) for part in parts}
            if widths != {self.n_columns} or len(lengths) != 1:
                shapes = " and ".join(str(part.shape) for part in parts)
                raise ValueError(
                    f"{name}: a block after row {n_rows} has shape {shapes}; expected "
                    f"{self.n_columns} columns, and as many rows in each part"
                )
            n_rows += lengths.pop()
            if n_rows > self.n_rows:
                break
            yield block
        _require_n_rows(n_rows, self.n_rows, name)


def _require_n_rows(n_rows: int, expected: int, name: str) -> None:
    """Refuse blocks with other rows than announced; of too many not all are counted."""
    if n_rows != expected:
        found = f"more than {expected}" if n_rows > expected else str(n_rows)
        raise ValueError(f"{name}: got blocks of {found} rows; expected {expected}")


@dataclass(frozen=True)
class TableBlocks:
    """Rows of a table that arrive in blocks and are consumed once, in order.

    Attributes:
        n_rows: Rows of all blocks together.
        columns: Names of the columns.
        make: Starts the work and returns blocks: as many values for each column.
    """

    n_rows: int
    columns: tuple[str, ...]
    make: Callable[[], Iterable[Mapping[str, Sequence[Any] | NDArray[Any]]]]

    def checked(self, name: str) -> Iterator[Mapping[str, Sequence[Any] | NDArray[Any]]]:
        """Compute the blocks.

        Args:
            name: What an error message calls what they are written to.

        Raises:
            ValueError: If they have other rows or columns than announced.
        """
        n_rows = 0
        for block in self.make():
            lengths = {len(values) for values in block.values()}
            if set(block) != set(self.columns) or len(lengths) != 1:
                found = ", ".join(f"{column} ({len(block[column])})" for column in block)
                raise ValueError(
                    f"{name}: a block after row {n_rows} has columns {found or 'none'}; expected "
                    f"{', '.join(self.columns)}, and as many values in each"
                )
            n_rows += lengths.pop()
            if n_rows > self.n_rows:
                break
            yield block
        _require_n_rows(n_rows, self.n_rows, name)


@dataclass(frozen=True)
class RowBlocks(Generic[Block]):
    """Rows in blocks of a fixed number of rows, of which the first ones may exist already.

    Attributes:
        n_rows: Rows of all blocks together.
        n_columns: Columns of every block.
        block_rows: Rows of every block but the last.
        make_from: Starts the work at a row, a multiple of block_rows, and returns the blocks from
            there on. The same row always gets the same content, wherever the work starts.
    """

    n_rows: int
    n_columns: int
    block_rows: int
    make_from: Callable[[int], Iterable[Block]]

    def starting_at(self, first_row: int) -> Blocks[Block]:
        """The blocks from a row on, a multiple of block_rows."""
        return Blocks(self.n_rows - first_row, self.n_columns, lambda: self.make_from(first_row))


@dataclass(frozen=True)
class KeyedRowBlocks(RowBlocks[Block]):
    """Labelled rows of which an older result may have some, known by their keys.

    Attributes:
        keys: Finds the keys, uint8 (n_rows, b). Rows with the same key have the same features; a
            key of zeros alone is none.
        labels: int32 (n_rows,), which an older result may have otherwise.
        only: The blocks of some rows alone, int64 and increasing.
        facts_of_collection: Names of facts of the provenance from which no row follows. A result
            that differs in these alone has rows that can be copied.
    """

    keys: Callable[[], NDArray[np.uint8]]
    labels: NDArray[np.int32]
    only: Callable[[NDArray[np.int64]], RowBlocks[Block]]
    facts_of_collection: frozenset[str]


@dataclass(frozen=True)
class Resumable(Generic[Content]):
    """A result that is computed while it is saved, and that a later run can continue.

    Attributes:
        provenance: All that the result follows from, as JSON holds it: method, sizes, parameters, a
            checksum of the vectors. Results made from the same are the same.
        begin: Does what has to be done before there is anything to save, and returns the content.
            It gets a folder that lasts until the content is saved; what it finds there was left by
            an earlier run with the same `provenance`.
    """

    provenance: Mapping[str, Any]
    begin: Callable[[Path], Content]


@dataclass(frozen=True)
class Runs:
    """Results of many runs by name, computed while they are saved.

    Attributes:
        provenance: For every name all that its result follows from, as JSON holds it. Results made
            from the same are the same.
        compute: Gets the names of which there is no such result yet, and returns names and results
            in any order, each as soon as there is one.
    """

    provenance: Mapping[str, Mapping[str, Any]]
    compute: Callable[[Sequence[str]], Iterable[tuple[str, Mapping[str, Any]]]]


class ListBlock(NamedTuple):
    """Lists of an inverted file, or parts of them, one after the other.

    Attributes:
        numbers: int64 (m,), which vectors these are.
        vectors: float32 (m, d), normalised.
        counts: int64 (L,), how many of them each list gets, behind those of earlier blocks.
    """

    numbers: NDArray[np.int64]
    vectors: NDArray[np.float32]
    counts: NDArray[np.int64]

    def parts(self) -> Iterator[tuple[int, slice]]:
        """Each list that gets any vectors, and where these stand in the block."""
        ends = np.cumsum(self.counts).tolist()
        for number in np.flatnonzero(self.counts).tolist():
            yield number, slice(ends[number] - int(self.counts[number]), ends[number])


@dataclass(frozen=True)
class InvertedFile:
    """An inverted file that is written block by block.

    Attributes:
        centroids: float32 (L, d), one for each list.
        sizes: int64 (L,), vectors of each list.
        n_probe: How many lists a search looks through unless told otherwise.
        make: Starts reading and returns blocks, together as many vectors of each list as `sizes`
            says.
    """

    centroids: NDArray[np.float32]
    sizes: NDArray[np.int64]
    n_probe: int
    make: Callable[[], Iterable[ListBlock]]


class LabeledBlock(NamedTuple):
    """Some rows of a feature file.

    Attributes:
        features: float32 (m, d).
        labels: int32 (m,), 0-based.
        problems: Why an image is a blank one, by row of this block; the other rows are fine.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int32]
    problems: Mapping[int, str] = MappingProxyType({})

    def rows(self, first: int, last: int) -> LabeledBlock:
        """Rows first..last-1."""
        problems = {
            row - first: problem for row, problem in self.problems.items() if first <= row < last
        }
        return LabeledBlock(self.features[first:last], self.labels[first:last], problems)


class KnnGraph(NamedTuple):
    """The k most similar nodes of every node, or a block of rows of such a graph.

    Attributes:
        indices: int32 (n, k), node numbers, most similar first; -1 where a row has fewer.
        similarities: float32 (n, k), inner products in the same order; -inf beside -1.
    """

    indices: NDArray[np.int32]
    similarities: NDArray[np.float32]

    def part(self, first: int, last: int, k: int) -> KnnGraph:
        """The k most similar nodes of nodes first..last-1, without a copy."""
        return KnnGraph(self.indices[first:last, :k], self.similarities[first:last, :k])

    @classmethod
    def joined(cls, blocks: Iterable[KnnGraph], k: int) -> KnnGraph:
        """One graph of all rows of the blocks; k columns also where there is no block."""
        indices, similarities = [np.empty((0, k), np.int32)], [np.empty((0, k), np.float32)]
        for block in blocks:
            indices.append(block.indices)
            similarities.append(block.similarities)
        return cls(np.concatenate(indices), np.concatenate(similarities))


class FeatureMatrix(Protocol):
    """Labelled feature vectors on disk, read in blocks."""

    @property
    def name(self) -> str:
        """What an error message calls it."""
        ...

    @property
    def n_rows(self) -> int:
        """Number of valid rows."""
        ...

    @property
    def n_columns(self) -> int:
        """Dimension of the features."""
        ...

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (n_rows,), 0-based."""
        ...

    @property
    def broken_images(self) -> Iterable[tuple[int, str]] | None:
        """Numbers of the images that were blank and why; None where nobody has kept a list."""
        ...

    def read(
        self, first: int, last: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Rows first..last-1 as float32 (last - first, n_columns), in `out` if that is given."""
        ...


@dataclass(frozen=True)
class RegionFeatures:
    """The regions of all images of a collection.

    Attributes:
        features: A row for every image: its regions, flattened from (C, H, W).
        shape: Channels C, height H and width W. Patches stand side by side: H is their number.
        provenance: All that the features follow from, as JSON holds it, so that what is made of
            them can be kept; nothing where it is not known.
    """

    features: FeatureMatrix
    shape: tuple[int, int, int]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Images."""
        return self.features.n_rows

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (n,), the class of every image, 0-based."""
        return self.features.labels

    def read(self, rows: ArrayLike) -> NDArray[np.float32]:
        """The regions of some images, float32 (n, C, H, W), in the order asked for.

        Nothing else is read: an episode wants some dozen images of a hundred thousand.

        Raises:
            IndexError: For a position that is no row.
            ValueError: For NaN or infinite features in these rows.
        """
        features = self.features
        rows = np.asarray(rows, np.int64)
        _require_positions(features, rows)
        result = np.empty((len(rows), features.n_columns), np.float32)
        order = np.argsort(rows, kind="stable")
        breaks = np.flatnonzero(np.diff(rows[order]) != 1) + 1
        # Of no rows the only run is empty.
        for run in np.split(order, breaks) if len(rows) else ():
            first = int(rows[run[0]])
            result[run] = features.read(first, first + len(run))
        require_finite(result, rows, features.name)
        return result.reshape(len(rows), *self.shape)


def row_ranges(n_rows: int, block_rows: int) -> Iterator[tuple[int, int]]:
    """Cut 0..n_rows into consecutive (first, last) ranges of at most block_rows rows."""
    for first in range(0, n_rows, block_rows):
        yield first, min(n_rows, first + block_rows)


def spread_rows(n_rows: int, count: int) -> NDArray[np.int64]:
    """Up to count row numbers, evenly spread, in increasing order and all different."""
    count = min(count, n_rows)
    return (np.arange(count, dtype=np.int64) * n_rows) // max(count, 1)


def require_finite(block: NDArray[np.floating[Any]], rows: NDArray[np.int64], name: str) -> None:
    """Refuse rows that hold NaN or infinity.

    Args:
        block: (m, d).
        rows: int64 (m,), the numbers of these rows in the whole matrix.
        name: What the message calls the matrix.

    Raises:
        ValueError: Naming the matrix and the first rows concerned.
    """
    # The sum of a row is finite unless an entry is not (or 1e38 is exceeded): one cheap pass
    # decides, and only a suspicious block is looked at entry by entry.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(block.sum(axis=1)).all()
    if not suspicious:
        return
    bad = rows[~np.isfinite(block).all(axis=1)]
    if len(bad):
        numbers = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
        raise InputError(
            f"{name}: found NaN or infinite values in {len(bad)} row(s), numbers {numbers}; "
            "expected finite numbers"
        )


def require_nodes(
    neighbors: NDArray[np.int32], n_nodes: int, name: str, first_row: int = 0
) -> None:
    """Refuse neighbours that are no nodes.

    Args:
        neighbors: int32 (m, k), -1 for none.
        n_nodes: Number of nodes.
        name: What the message calls the neighbours.
        first_row: Number of the first of these rows in the whole matrix.

    Raises:
        ValueError: Naming the first of them.
    """
    bad = np.argwhere((neighbors < -1) | (neighbors >= n_nodes))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{name}: row {first_row + row}, column {column} holds {neighbors[row, column]}, "
            f"expected -1 or 0..{n_nodes - 1}"
        )


def take_rows(
    features: FeatureMatrix,
    positions: NDArray[np.int64],
    transform: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
    block_rows: int = 16384,
) -> NDArray[np.float32]:
    """Some rows of a feature file, in the order asked for, transformed on the way.

    Reads the file once from front to back and skips blocks of which nothing is wanted.

    Args:
        features: The file.
        positions: int64 (m,) row numbers, in any order.
        transform: Applied to float32 (rows, n_columns) blocks, for instance a PCA.
        block_rows: Rows read at once.

    Returns:
        float32 (m, n_columns), or as many columns as the transform returns. In memory: this
        matrix, and one block before and after the transform.

    Raises:
        IndexError: For a position that is no row of the file.
        ValueError: For NaN or infinite features in the rows taken.
    """
    _require_positions(features, positions)
    order = np.argsort(positions, kind="stable")
    wanted = positions[order]
    result: NDArray[np.float32] | None = None
    for first, last in row_ranges(features.n_rows, block_rows):
        begin, end = np.searchsorted(wanted, [first, last])
        if begin == end:
            continue
        block = features.read(first, last)[wanted[begin:end] - first]
        require_finite(block, wanted[begin:end], features.name)
        if transform is not None:
            block = transform(block)
        if result is None:
            result = np.empty((len(positions), block.shape[1]), dtype=np.float32)
        result[order[begin:end]] = block
    if result is None:
        block = np.empty((0, features.n_columns), dtype=np.float32)
        return transform(block) if transform is not None else block
    return result


def _require_positions(features: FeatureMatrix, positions: NDArray[np.int64]) -> None:
    if len(positions) and not 0 <= positions.min() <= positions.max() < features.n_rows:
        raise IndexError(
            f"{features.name}: rows {positions.min()}..{positions.max()} of {features.n_rows}"
        )
