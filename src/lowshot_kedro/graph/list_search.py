"""Search in lists: a query looks through the lists whose centroids are nearest to it.

All queries of a block that look through the same list do so together, with 8-bit codes; what that
finds is ranked by the vectors themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph, row_ranges, spread_rows
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.centroids import CentroidSearch
from lowshot_kedro.graph.codes import VectorEncoder
from lowshot_kedro.graph.copies import Copies
from lowshot_kedro.graph.spaces import COSINE, Space
from lowshot_kedro.graph.stored_vectors import StoredVectors, release_index
from lowshot_kedro.graph.vectors import is_mapped, release
from lowshot_kedro.graph.workspace import MemoryBudget, Workspace

QUERY_ROWS = 65536
# Lists whose numbers are read before memory is given back: around each the system maps 64 KB.
_LISTS_READ = 512
_SAMPLE_ROWS = 16384
# Candidates ranked by the vectors themselves, for each neighbour wanted.
_CANDIDATES = 1.5
# Candidates ranked before memory is looked at, and the vectors read are given back where it is
# short: the system maps 64 KB around every vector, of which neighbouring queries have many in
# common, above all where vectors are read list after list.
_FEW_CANDIDATES = 4096
_MANY_CANDIDATES = 65536
_MANY_STORED_CANDIDATES = 262144


@dataclass(frozen=True)
class Division:
    """Vectors divided into lists.

    Inside, vectors are numbered list after list; "position" means that number here, and "number"
    the row of the matrix.

    Attributes:
        centroids: float32 (L, d), points.
        offsets: int64 (L + 1,), where each list begins.
        numbers: int32 (p,), the number at each position.
        n_probe: How many lists a search looks through.
        copies: The vectors that are in no list, since others like them are; None: all are in one.
        stored: The vectors in the order of their positions; None where nobody holds them so.
    """

    centroids: NDArray[np.float32]
    offsets: NDArray[np.int64]
    numbers: NDArray[np.int32]
    n_probe: int
    copies: Copies | None = None
    stored: StoredVectors | None = None

    @property
    def positions(self) -> NDArray[np.int32]:
        """int32 (n,), the position of each number, or of the first vector like it."""
        n_vectors = len(self.numbers) if self.copies is None else self.copies.n_rows
        positions = np.empty(n_vectors, np.int32)
        positions[self.numbers] = np.arange(len(self.numbers), dtype=np.int32)
        if self.copies is not None:
            positions[self.copies.rows] = positions[self.copies.first]
        return positions

    def without(self, copies: Copies) -> Division:
        """These lists without the copies, each of which has to be in one of them now."""
        is_kept = np.ones(copies.n_rows, np.bool_)
        is_kept[copies.rows] = False
        at_position = is_kept[self.numbers]
        before = np.concatenate([[0], np.cumsum(at_position)])
        return Division(
            self.centroids,
            before[self.offsets],
            self.numbers[at_position],
            self.n_probe,
            copies,
            None if self.stored is None else self.stored.at(at_position),
        )

    def lists(self, first: int, last: int) -> NDArray[np.int32]:
        """int32 (last - first,), the list of each of these positions."""
        return self.lists_of(np.arange(first, last, dtype=np.int32))

    def lists_of(self, positions: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """The list of each of these positions, in an array of their shape."""
        return (np.searchsorted(self.offsets, positions, side="right") - 1).astype(np.int32)


def is_divided(index: faiss.Index) -> TypeGuard[faiss.IndexIVF]:
    """Whether an index is an inverted file, whose lists can be searched here."""
    return isinstance(index, faiss.IndexIVF)


def division_of(index: faiss.IndexIVF) -> Division:
    """The lists of an inverted file.

    Args:
        index: An inverted file of any kind; its numbers must be those of the vectors, 0..n-1.

    Returns:
        The division. In memory: 4 bytes for each vector, and the centroids. If the index holds the
        vectors as they are, it stays as long as the division.

    Raises:
        ValueError: If the numbers are others.
    """
    lists: Any = index.invlists
    sizes = np.array([lists.list_size(number) for number in range(index.nlist)], np.int64)
    offsets = np.zeros(index.nlist + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    numbers = np.empty(int(offsets[-1]), np.int32)
    for number, size in enumerate(sizes.tolist()):
        if size:
            ids = lists.get_ids(number)
            numbers[offsets[number] : offsets[number + 1]] = faiss.rev_swig_ptr(ids, size)
            lists.release_ids(number, ids)
        if number % _LISTS_READ == 0:
            release_index(index)
    release_index(index)
    seen = np.zeros(len(numbers), np.bool_)
    if len(numbers) and 0 <= numbers.min() <= numbers.max() < len(numbers):
        seen[numbers] = True
    if not seen.all():
        raise InputError(
            f"background_index: its vectors are not numbered 0..{len(numbers) - 1}; expected an "
            "index of the background vectors in their order"
        )
    centroids = index.quantizer.reconstruct_n(0, index.nlist)
    stored = StoredVectors.of(index, numbers)
    return Division(centroids, offsets, numbers, int(index.nprobe), stored=stored)


def fit_encoder(vectors: NDArray[np.float32], name: str, space: Space = COSINE) -> VectorEncoder:
    """An encoder for these vectors, from 16384 of them."""
    rows = spread_rows(len(vectors), _SAMPLE_ROWS)
    return VectorEncoder(space.point_rows(vectors, rows, name), space)


class ListSearch:
    """Search over vectors that are divided into lists.

    Args:
        vectors: float32 (n, d), a memmap or array, not normalised.
        division: Division of these vectors into lists.
        encoder: For them.
        codes: Codes of the vectors, in the order of their positions.
        inverse_lengths: float32 (n,), 1 / length of the vectors, in the order of their numbers;
            None if distances count.
        stored: The same vectors in the order of their positions, by which candidates are ranked;
            None: by those of the matrix.
        budget: How much memory the vectors that are read may take; None: any.
    """

    def __init__(
        self,
        vectors: NDArray[np.float32],
        division: Division,
        encoder: VectorEncoder,
        codes: native.Codes,
        inverse_lengths: NDArray[np.float32] | None,
        stored: StoredVectors | None = None,
        budget: MemoryBudget | None = None,
    ) -> None:
        self._stored = stored
        self._budget = budget
        self.vectors = vectors
        self.division = division
        self.encoder = encoder
        self.codes = codes
        self.inverse_lengths = inverse_lengths
        self.space = encoder.space
        self.centroids = CentroidSearch(division.centroids, encoder)

    @classmethod
    def of(
        cls,
        vectors: NDArray[np.float32],
        division: Division,
        workspace: Workspace,
        name: str,
        space: Space = COSINE,
    ) -> ListSearch:
        """Encode the vectors, block by block.

        Args:
            vectors: float32 (n, d), a memmap or array, not normalised.
            division: Division of these vectors into lists.
            workspace: Folder for codes that the budget has no room for.
            name: What messages call the vectors.
            space: Space in which they are compared.

        Returns:
            The search. In memory: w + 12 bytes for each vector, w being d rounded up to a multiple
            of 64.

        Raises:
            ValueError: For NaN.
        """
        encoder = fit_encoder(vectors, name, space)
        n_vectors = len(vectors)
        n_positions = len(division.numbers)
        values = workspace.allocate("codes", (n_positions, encoder.width), np.int8)
        codes = native.Codes(values, np.empty(n_positions, np.int32))
        inverse_lengths = None if space.is_euclidean else np.empty(n_vectors, np.float32)
        positions = division.positions
        for first, last in row_ranges(n_vectors, QUERY_ROWS):
            block, of_block = encode_rows(encoder, vectors, first, last, name)
            if inverse_lengths is not None:
                inverse_lengths[first:last] = of_block
            native.place_codes(block, positions[first:last], codes)
            workspace.release(vectors)
        stored = division.stored
        if stored is not None and (space.is_euclidean or not stored.agree_with(vectors, name)):
            stored = None
        return cls(vectors, division, encoder, codes, inverse_lengths, stored, workspace.budget)

    def queries(self, numbers: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """The queries of vectors that are searched here, float32 (m, d)."""
        return native.take_vectors(
            self.vectors, self.inverse_lengths, np.asarray(numbers, dtype=np.int32)
        )

    def queries_at(self, positions: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """The queries of the vectors at these positions, which increase, float32 (m, d)."""
        if self._stored is None:
            return self.queries(self.division.numbers[positions])
        return self._stored.take(positions)

    def lists_of(self, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
        """The list of each of these vectors, -1 for -1, in an array of their shape."""
        lists = self.division.lists_of(self.division.positions[numbers])
        return np.where(numbers < 0, np.int32(-1), lists)

    def probes(self, codes: NDArray[np.int8], n_probe: int) -> NDArray[np.int32]:
        """The lists that queries look through, int32 (q, n_probe), nearest first."""
        most = min(len(self.division.centroids), native.MAX_NEIGHBORS)
        return self.centroids.nearest(codes, min(n_probe, most))

    def probes_around(
        self, codes: NDArray[np.int8], lists: NDArray[np.int32], n_probe: int
    ) -> NDArray[np.int32]:
        """As :meth:`probes`, for vectors whose lists are known, only around these."""
        most = min(len(self.division.centroids), native.MAX_NEIGHBORS)
        return self.centroids.nearest_around(codes, lists, min(n_probe, most))

    def candidates(
        self,
        codes: NDArray[np.int8],
        n_probe: int,
        width: int,
        at_least: int = 0,
        probes: NDArray[np.int32] | None = None,
        prefix: native.Prefix | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Positions with the best scores for queries, int32 (q, width), and these scores.

        Queries that find fewer than at_least look through four times as many lists, and so on.

        Args:
            codes: int8 (q, w), of the queries.
            n_probe: How many lists to look through.
            width: How many positions to find for each query.
            at_least: How many of them should be there.
            probes: int32 (q, n_probe), these lists; None: those that :meth:`probes` says.
            prefix: Which vectors to leave out; None: none.
        """
        lists = native.Lists(self.division.offsets)
        if probes is None:
            probes = self.probes(codes, n_probe)
        found, scores = native.search_lists(self.codes, lists, codes, probes, width, prefix=prefix)
        at_least = min(at_least, width, len(self.codes.values))
        most = min(len(self.division.centroids), native.MAX_NEIGHBORS)
        short = np.flatnonzero(found[:, at_least - 1] < 0 if at_least else [])
        while n_probe < most and len(short):
            n_probe = min(4 * n_probe, most)
            queries = np.ascontiguousarray(codes[short])
            found[short], scores[short] = native.search_lists(
                self.codes, lists, queries, self.probes(queries, n_probe), width
            )
            short = short[found[short, at_least - 1] < 0]
        return found, scores

    def rank(
        self,
        queries: NDArray[np.float32],
        positions: NDArray[np.int32],
        k: int,
        scattered: bool = False,
        found: KnnGraph | None = None,
    ) -> KnnGraph:
        """The k most similar of the candidates of each query, by their numbers.

        Args:
            queries: float32 (q, d), queries.
            positions: int32 (q, c), candidates, -1 for none.
            k: How many.
            scattered: Whether neighbouring queries have few candidates in common.
            found: (q, k), what has been found already of other candidates.
        """
        part_rows = max(1, len(queries))
        sparing = self._is_sparing()
        if sparing:
            many = _MANY_CANDIDATES if self._stored is None else _MANY_STORED_CANDIDATES
            most = _FEW_CANDIDATES if scattered else many
            part_rows = max(1, most // max(positions.shape[1], 1))
        parts = []
        for first, last in row_ranges(len(queries), part_rows):
            of_part = None if found is None else found.part(first, last, k)
            parts.append(self._rank(queries[first:last], positions[first:last], k, of_part))
            if sparing and self._is_short():
                self.release()
        if sparing and scattered:
            # Who is searched for next has others.
            self.release()
        return KnnGraph.joined(parts, k)

    def _is_sparing(self) -> bool:
        """Whether there may be too little memory for all pages of a file to be read."""
        mapped = is_mapped(self.vectors) if self._stored is None else self._stored.is_mapped
        return mapped and self._budget is not None and self.vectors.nbytes > self._budget.left

    def _is_short(self) -> bool:
        """Whether no more is left than what is spared for blocks."""
        return self._budget is not None and self._budget.left == 0

    def _rank(
        self,
        queries: NDArray[np.float32],
        positions: NDArray[np.int32],
        k: int,
        found: KnnGraph | None,
    ) -> KnnGraph:
        if self._stored is not None:
            return KnnGraph(*self._stored.rank(queries, positions, k, found))
        numbers = np.where(positions < 0, np.int32(-1), self.division.numbers[positions])
        return KnnGraph(
            *native.rank_candidates(
                self.vectors, self.inverse_lengths, queries, numbers, k, found=found
            )
        )

    def release(self) -> None:
        """Let the system have the memory into which vectors have been read from files."""
        release(self.vectors)
        if self._stored is not None:
            self._stored.release()

    def rank_likely(
        self,
        queries: NDArray[np.float32],
        query_biases: NDArray[np.int32],
        positions: NDArray[np.int32],
        scores: NDArray[np.int32],
        k: int,
        scattered: bool = False,
    ) -> KnnGraph:
        """What :meth:`rank` finds, without looking at candidates that are too far by their codes.

        Args:
            queries: float32 (q, d), queries.
            query_biases: int32 (q,), of the queries' codes.
            positions: int32 (q, c), candidates, those with the best scores first, -1 for none.
            scores: int32 (q, c), of these.
            k: How many.
            scattered: As for :meth:`rank`.
        """
        likely = np.ascontiguousarray(positions[:, :k])
        found = self.rank(queries, likely, k, scattered)
        least = self.encoder.least_scores(found.similarities[:, -1], query_biases)
        others = np.where(scores[:, k:] < least[:, None], np.int32(-1), positions[:, k:])
        return self.rank(queries, others, k, scattered, found)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        n_probe: int | None = None,
        at_least: int = 0,
        width: int = 0,
    ) -> KnnGraph:
        """The k most similar vectors of each query.

        Args:
            queries: float32 (q, d), queries.
            k: How many.
            n_probe: Lists to look through; None: as the division says.
            at_least: How many should be found; for those that find fewer, more lists are looked
                through.
            width: How many candidates to rank, if that is more than usual.

        Returns:
            Numbers and similarities; -1 and -inf where the lists hold fewer than k.
        """
        n_probe = n_probe or self.division.n_probe
        blocks = []
        for first, last in row_ranges(len(queries), QUERY_ROWS):
            part = queries[first:last]
            codes, _ = self.encoder.encode(part)
            # Neighbouring queries share lists, whose codes are then read once for all of them.
            nearest = self.centroids.nearest(codes.values, 1)[:, 0]
            order = np.argsort(nearest, kind="stable")
            found, _ = self.candidates(
                codes.values[order], n_probe, max(n_candidates(k), width), at_least
            )
            positions = np.empty_like(found)
            positions[order] = found
            blocks.append(self.rank(part, positions, k, scattered=True))
        return KnnGraph.joined(blocks, k)


def n_candidates(k: int) -> int:
    """How many candidates to rank for k neighbours."""
    return min(native.MAX_NEIGHBORS, int(_CANDIDATES * k) + 16)


def encode_rows(
    encoder: VectorEncoder, vectors: NDArray[np.float32], first: int, last: int, name: str
) -> tuple[native.Codes, NDArray[np.float32] | None]:
    """Codes of rows first..last-1 of vectors, and 1 / length of each unless distances count.

    Raises:
        ValueError: For NaN or infinity, naming all rows that hold any.
    """
    try:
        return encoder.encode(vectors[first:last])
    except ValueError:
        # Says which rows of the whole matrix are at fault.
        for _ in encoder.space.point_blocks(vectors, name, first):
            pass
        raise
