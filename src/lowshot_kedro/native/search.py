"""Searching for nearest neighbours: 8-bit codes of vectors, list search, descent, exact ranking.

Codes stand for vectors scaled to length 1, and the score of one for another grows with the inner
product of both; or for vectors as they are, and of two the nearer one has the larger score. Scores
are integers, so they are the same on every machine and in every order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._library import Explain, call, check_array, check_no_overlap, ffi, lib, pointer

CODE_WIDTH_UNIT = 64
MAX_NEIGHBORS = int(lib.LOWSHOT_MAX_NEIGHBORS)
_PART_ROWS = 2**18
_LARGEST_COSINE_SCALE = 1e4
_LARGEST_SCALE = 1e36
MAX_POOL_ROWS = (2**31 - 1) // 2


class Encoder(NamedTuple):
    """How vectors become codes: what is subtracted, flipped, and multiplied.

    Attributes:
        mean: float32 (d,), subtracted from vectors, of length 1 unless euclidean.
        signs: float32 (w,), +1 or -1; w ≥ d is the width of the codes, a multiple of 64.
        scale: Steps of a code in 1.
        euclidean: Whether vectors are taken as they are, for distances between them.
    """

    mean: npt.NDArray[np.float32]
    signs: npt.NDArray[np.float32]
    scale: float
    euclidean: bool = False

    @property
    def width(self) -> int:
        """Columns of the codes."""
        return len(self.signs)


class Codes(NamedTuple):
    """8-bit codes of vectors.

    Attributes:
        values: int8 (n, w).
        biases: int32 (n,), part of the score of each vector for any query.
    """

    values: npt.NDArray[np.int8]
    biases: npt.NDArray[np.int32]

    def part(self, rows: slice | npt.NDArray[np.integer[Any]]) -> Codes:
        """The codes of some vectors: without a copy for a slice."""
        return Codes(self.values[rows], self.biases[rows])


class Lists(NamedTuple):
    """A division of vectors into lists.

    Attributes:
        offsets: int64 (L + 1,), where each list begins in members.
        members: int32 (m,), numbers of vectors; None: the numbers 0, 1, 2 … themselves.
    """

    offsets: npt.NDArray[np.int64]
    members: npt.NDArray[np.int32] | None = None


class Prefix(NamedTuple):
    """By what the first 64 columns of codes tell which vectors are too far from a query.

    Attributes:
        query_biases: int32 (q,), of the queries' codes.
        share: The largest part of the squared distance at a query's floor that these columns may
            hold; from 1 on it leaves nothing out.
        full_probes: In so many of the first lists that a query probes nothing is left out, and the
            worst of the best found there raises the floor for the others.
    """

    query_biases: npt.NDArray[np.int32]
    share: float
    full_probes: int = 0


class Pools(NamedTuple):
    """Lists of neighbours in the making, best first.

    Attributes:
        entries: int32 (n, p), twice the number of a neighbour, plus 1 if a round ago it was not
            there; -1 is none.
        scores: int32 (n, p).
    """

    entries: npt.NDArray[np.int32]
    scores: npt.NDArray[np.int32]


class VectorParts:
    """A matrix of float32 whose rows lie in several arrays, for instance list after list in a file.

    Args:
        parts: float32 (m, d) each, C-contiguous, the first rows first; they need not be aligned.

    Raises:
        ValueError: For other arrays.
    """

    def __init__(self, parts: Sequence[npt.NDArray[np.float32]]) -> None:
        columns = parts[0].shape[-1] if parts else 0
        for number, part in enumerate(parts):
            if part.dtype != np.float32 or part.shape[1:] != (columns,) or part.ndim != 2:
                raise ValueError(
                    f"parts: part {number} is {part.dtype} {part.shape}, expected float32 (m, "
                    f"{columns})"
                )
            if not part.flags.c_contiguous:
                raise ValueError(f"parts: part {number} is not C-contiguous")
        # Alive as long as their addresses are used.
        self._parts = parts
        self.addresses = np.array([part.ctypes.data for part in parts], np.uint64)
        self.offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=self.offsets[1:])
        self.shape = (int(self.offsets[-1]), columns)

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """A copy of some rows, in increasing order, float32 (m, d)."""
        copy = np.empty((len(rows), self.shape[1]), np.float32)
        number = np.searchsorted(self.offsets, rows, side="right") - 1
        starts = np.flatnonzero(np.diff(number, prepend=-1))
        for first, last in itertools.pairwise([*starts.tolist(), len(rows)]):
            part = int(number[first])
            np.take(self._parts[part], rows[first:last] - self.offsets[part], 0, copy[first:last])
        return copy


def largest_bias(width: int) -> int:
    """The largest bias of codes of so many columns."""
    # What a score of codes may add to a bias: 2^14 for each column.
    return 2**31 - 1 - (width << 14)


def encode(
    encoder: Encoder, vectors: npt.NDArray[np.float32]
) -> tuple[Codes, npt.NDArray[np.float32] | None]:
    """Codes of vectors, which are scaled to length 1 first, unless distances count.

    The mean is subtracted, and what is left is turned by random signs and a Hadamard transform,
    which makes all columns alike in size, then rounded to 8 bits, and cut off at ±127. A bias is
    minus half the squared length of the codes, so that scores grow with nearness; for vectors of
    length 0 that are scaled to length 1 it is half a squared scale less, since their inner products
    are 0. Rotating before quantising is that of J. Gao and C. Long, "RaBitQ" (SIGMOD 2024); here
    with 8 bits instead of one.

    Args:
        encoder: What is subtracted, flipped and multiplied.
        vectors: float32 (n, d), C-contiguous or the first columns of a wider matrix.

    Returns:
        The codes, and float32 (n,): 1 / length of each vector, 0 for vectors of length 0, as which
        those shorter than 1e-36 count; None if the encoder is euclidean.

    Raises:
        ValueError: Wrong types or shapes; a vector that is not finite, with its row, or, if
            distances count, farther than 1e18 from the mean; a mean longer than 1, or, if distances
            count, than 1e30; signs that are none.
    """
    stride = check_array("vectors", vectors, np.float32, ("n", "d"), strided=True)
    rows, dimension = vectors.shape
    check_array("mean", encoder.mean, np.float32, (dimension,))
    check_array("signs", encoder.signs, np.float32, ("w",))
    width = encoder.width
    _check_width(width)
    if dimension == 0:
        raise ValueError("vectors: expected at least one column, got none")
    largest = _LARGEST_SCALE if encoder.euclidean else _LARGEST_COSINE_SCALE
    # Rounded to float32 it must lie in between, too.
    if width < dimension or not 0 < np.float32(encoder.scale) < largest:
        raise ValueError(
            f"encoder: expected at least {dimension} columns and a scale between 0 and "
            f"{largest:g}, got {width} and {encoder.scale}"
        )
    codes = Codes(np.empty((rows, width), np.int8), np.empty(rows, np.int32))
    inverse_lengths = None if encoder.euclidean else np.empty(rows, np.float32)

    def explain(kind: int, which: int, row: int, column: int) -> str:
        if which == 1:
            kind_of_mean = (
                "at most 1e30 long" if encoder.euclidean else "that of vectors of length 1"
            )
            return (
                f"mean: expected {kind_of_mean}, got one of length "
                f"{np.linalg.norm(encoder.mean.astype(np.float64))}"
            )
        if which == 2:
            return f"signs: entry {row} holds {encoder.signs[row]}, expected 1 or -1"
        if encoder.euclidean and np.isfinite(vectors[row]).all():
            return (
                f"vectors: row {row} is farther than 1e18 from the mean, expected smaller numbers"
            )
        return f"vectors: row {row} holds NaN or infinity, expected finite numbers"

    structure = ffi.new(
        "struct lowshot_encoder *",
        {
            "mean": pointer(encoder.mean),
            "signs": pointer(encoder.signs),
            "dimension": dimension,
            "width": width,
            "scale": encoder.scale,
            "metric": lib.LOWSHOT_EUCLIDEAN if encoder.euclidean else lib.LOWSHOT_COSINE,
        },
    )
    call(
        lib.lowshot_encode,
        structure,
        pointer(vectors),
        rows,
        stride,
        pointer(codes.values),
        pointer(codes.biases),
        ffi.NULL if inverse_lengths is None else pointer(inverse_lengths),
        explain=explain,
    )
    return codes, inverse_lengths


def place_codes(block: Codes, positions: npt.NDArray[np.int32], codes: Codes) -> None:
    """Write codes to rows of others.

    Args:
        block: The codes, n of them.
        positions: int32 (n,), the rows, all different.
        codes: What they are written to.

    Raises:
        ValueError: Wrong types or shapes; a position that is no row.
    """
    _codes(codes)
    rows, width = codes.values.shape
    check_array("block", block.values, np.int8, ("n", width))
    check_array("block_biases", block.biases, np.int32, (len(block.values),))
    check_array("positions", positions, np.int32, (len(block.values),))

    def explain(kind: int, which: int, row: int, column: int) -> str:
        return f"positions: entry {row} holds {positions[row]}, expected 0..{rows - 1}"

    call(
        lib.lowshot_place_codes,
        _codes(block),
        pointer(positions),
        pointer(codes.values),
        pointer(codes.biases),
        rows,
        explain=explain,
    )


def score_pairs(
    codes: Codes, numbers: npt.NDArray[np.int32], queries: npt.NDArray[np.int8]
) -> npt.NDArray[np.int32]:
    """The score of one vector for each query.

    Args:
        codes: Codes of the vectors.
        numbers: int32 (q,), the vector of each query.
        queries: int8 (q, w), codes of the queries.

    Returns:
        int32 (q,).

    Raises:
        ValueError: Wrong types or shapes; a number that is no vector; biases so large that scores
            could leave the range of int32.
    """
    structure = _codes(codes)
    check_array("queries", queries, np.int8, ("q", codes.values.shape[1]))
    check_array("numbers", numbers, np.int32, (len(queries),))
    scores = np.empty(len(queries), np.int32)

    def explain(kind: int, which: int, row: int, column: int) -> str:
        if which == 2:
            return _explain_bias(codes, row)
        return f"numbers: entry {row} holds {numbers[row]}, expected 0..{len(codes.values) - 1}"

    call(
        lib.lowshot_score_pairs,
        structure,
        pointer(numbers),
        _codes(Codes(queries, np.zeros(len(queries), np.int32))),
        pointer(scores),
        explain=explain,
    )
    return scores


def score_all(codes: Codes, queries: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    """The score of every vector for every query.

    Args:
        codes: Codes of the vectors.
        queries: int8 (q, w), codes of the queries.

    Returns:
        int32 (q, n).

    Raises:
        ValueError: Wrong types or shapes; biases so large that scores could leave the range of
            int32.
    """
    structure = _codes(codes)
    check_array("queries", queries, np.int8, ("q", codes.values.shape[1]))
    scores = np.empty((len(queries), len(codes.values)), np.int32)

    def explain(kind: int, which: int, row: int, column: int) -> str:
        return _explain_bias(codes, row)

    call(
        lib.lowshot_score_all,
        structure,
        _codes(Codes(queries, np.zeros(len(queries), np.int32))),
        pointer(scores),
        explain=explain,
    )
    return scores


def search_lists(
    codes: Codes,
    lists: Lists,
    queries: npt.NDArray[np.int8],
    probes: npt.NDArray[np.int32],
    width: int,
    floors: npt.NDArray[np.int32] | None = None,
    prefix: Prefix | None = None,
    limits: npt.NDArray[np.int32] | None = None,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The best vectors of the lists that each query probes.

    Neighbouring queries should probe the same lists: each list is scored for all of them at once.

    Args:
        codes: Codes of the vectors.
        lists: Without common members, as far as one query probes them.
        queries: int8 (q, w), codes of the queries.
        probes: int32 (q, p), lists, each at most once in a row; -1 is none.
        width: How many vectors to find for each query.
        floors: int32 (q,), the least score that counts; None: any.
        prefix: Which vectors are left out without being scored in full; None: none. It takes
            floors, or lists where nothing is left out, and vectors whose biases are those that
            :func:`encode` gives; codes of 64 columns are scored in full.
        limits: int32 (q, p), how many of the first members of each list the query looks through;
            None: all.

    Returns:
        int32 (q, width), numbers of vectors, best first, of equal scores the smaller number first,
        -1 where there are fewer; and int32 (q, width), their scores. Besides, for each thread: 4
        bytes for each list, and 50 MB or 1 KB for each of width and of p, whichever is more.

    Raises:
        ValueError: Wrong types or shapes; members or probes out of range; wrong offsets; biases
            so large that scores could leave the range of int32; a prefix without floors and
            without lists before, or with a share that is none.
    """
    structure = _codes(codes)
    code_width = codes.values.shape[1]
    check_array("queries", queries, np.int8, ("q", code_width))
    n_queries = len(queries)
    check_array("probes", probes, np.int32, (n_queries, "p"))
    check_array("offsets", lists.offsets, np.int64, ("L + 1",))
    if len(lists.offsets) == 0:
        raise ValueError("offsets: expected one more than there are lists, got none")
    n_lists = len(lists.offsets) - 1
    if lists.members is not None:
        check_array("members", lists.members, np.int32, ("m",))
    n_entries = len(codes.values) if lists.members is None else len(lists.members)
    if floors is not None:
        check_array("floors", floors, np.int32, (n_queries,))
    if limits is not None:
        check_array("limits", limits, np.int32, probes.shape)
    _check_neighbors("width", width)
    query_biases = np.zeros(n_queries, np.int32)
    prefix_share, full_probes = 0, probes.shape[1]
    if prefix is not None:
        query_biases = prefix.query_biases
        check_array("query_biases", query_biases, np.int32, (n_queries,))
        if prefix.full_probes < 0:
            raise ValueError(f"prefix: expected full_probes ≥ 0, got {prefix.full_probes}")
        without_floors = floors is None and prefix.full_probes == 0
        if without_floors or not prefix.share > 0:
            raise ValueError(
                "prefix: expected floors and a share above 0, got "
                f"{'no floors' if without_floors else f'a share of {prefix.share}'}"
            )
        if prefix.share < 1 and code_width > CODE_WIDTH_UNIT:
            prefix_share = math.ceil(prefix.share * int(lib.LOWSHOT_WHOLE))
            full_probes = min(prefix.full_probes, full_probes)
    numbers = np.empty((n_queries, width), np.int32)
    scores = np.empty((n_queries, width), np.int32)

    def explain(kind: int, which: int, row: int, column: int) -> str:
        if kind == lib.LOWSHOT_BAD_OFFSET:
            return _explain_offset(lists.offsets, row, n_entries)
        if which == 2:
            return _explain_bias(codes, row)
        if which == 1 and lists.members is not None:
            return (
                f"members: entry {row} holds {lists.members[row]}, expected 0.."
                f"{len(codes.values) - 1}"
            )
        return (
            f"probes: row {row}, column {column} holds {probes[row, column]}, expected -1 or 0.."
            f"{n_lists - 1}"
        )

    call(
        lib.lowshot_search_lists,
        structure,
        ffi.new(
            "struct lowshot_lists *",
            {
                "offsets": pointer(lists.offsets),
                "members": ffi.NULL if lists.members is None else pointer(lists.members),
                "count": n_lists,
                "entries": n_entries,
            },
        ),
        _codes(Codes(queries, query_biases)),
        pointer(probes),
        probes.shape[1],
        ffi.NULL if limits is None else pointer(limits),
        ffi.NULL if floors is None else pointer(floors),
        prefix_share,
        full_probes,
        width,
        pointer(numbers),
        pointer(scores),
        explain=explain,
    )
    return numbers, scores


def search_lists_in_reach(
    codes: Codes,
    offsets: npt.NDArray[np.int64],
    centroids: Codes,
    queries: Codes,
    bounds: npt.NDArray[np.int32],
    floors: npt.NDArray[np.int32],
    width: int,
    shares: tuple[float, float] = (1.0, 1.0),
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The best vectors of the lists that are near enough to each query.

    Neighbouring queries should be near to the same lists.

    Args:
        codes: Codes of the vectors, list after list.
        offsets: int64 (L + 1,), where each list begins.
        centroids: Codes of the centroids of the lists.
        queries: Codes of the queries.
        bounds: int32 (q,), the least score of a centroid whose list the query looks through.
        floors: int32 (q,), the least score of a vector that counts.
        width: How many vectors to find for each query.
        shares: The largest parts of the squared distance at a query's floor that the first 64 and
            the first 128 columns of codes may hold; 1, as much as all of them, loses nothing.

    Returns:
        int32 (q, width), numbers of vectors, best first, of equal scores the smaller number first,
        -1 where there are fewer; and int32 (q, width), their scores. Besides, for each thread, for
        4096 queries at most: 16 bytes for each of width, 2 KB, 32 bytes, and their codes.

    Raises:
        ValueError: Wrong types or shapes; wrong offsets; biases more than half as large as they may
            be elsewhere.
    """
    return _search_in_reach(
        False, codes, (offsets, centroids), queries, bounds, floors, width, shares
    )


def search_points_in_reach(
    points: Codes,
    centroids: Codes,
    offsets: npt.NDArray[np.int64],
    members: Codes,
    bounds: npt.NDArray[np.int32],
    floors: npt.NDArray[np.int32],
    width: int,
    shares: tuple[float, float] = (1.0, 1.0),
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The best points for each member of lists, of those that are near enough to its list.

    Args:
        points: Codes of the points.
        centroids: Codes of the centroids of the lists.
        offsets: int64 (L + 1,), where the members of each list begin.
        members: Codes (m, w), of the members.
        bounds: int32 (m,), the least score of a point that the member is compared with, for its
            centroid and with that one's bias. A few others may be found as well.
        floors: As for :func:`search_lists_in_reach`, of the members.
        width: How many points to find for each member.
        shares: As for :func:`search_lists_in_reach`.

    Returns:
        As :func:`search_lists_in_reach`. Besides, a copy of the points' codes, and for each thread
        36 bytes for each point and for 4096 members 16 bytes for each of width and 2 KB.

    Raises:
        ValueError: As for :func:`search_lists_in_reach`.
    """
    return _search_in_reach(
        True, points, (offsets, centroids), members, bounds, floors, width, shares
    )


def _search_in_reach(
    for_members: bool,
    codes: Codes,
    lists: tuple[npt.NDArray[np.int64], Codes],
    queries: Codes,
    bounds: npt.NDArray[np.int32],
    floors: npt.NDArray[np.int32],
    width: int,
    shares: tuple[float, float],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    offsets, centroids = lists
    structure = _codes(codes)
    code_width = codes.values.shape[1]
    check_array("queries", queries.values, np.int8, ("q", code_width))
    check_array("centroids", centroids.values, np.int8, ("L", code_width))
    n_queries, n_lists = len(queries.values), len(centroids.values)
    check_array("query_biases", queries.biases, np.int32, (n_queries,))
    check_array("centroid_biases", centroids.biases, np.int32, (n_lists,))
    check_array("offsets", offsets, np.int64, (n_lists + 1,))
    check_array("bounds", bounds, np.int32, (n_queries,))
    check_array("floors", floors, np.int32, (n_queries,))
    _check_neighbors("width", width)
    share, more_share = (
        _whole_share(min(share, 1.0)) if code_width > columns else 0
        for share, columns in zip(shares, (CODE_WIDTH_UNIT, 2 * CODE_WIDTH_UNIT), strict=True)
    )
    numbers, scores = (np.empty((n_queries, width), np.int32) for _ in range(2))
    n_members = n_queries if for_members else len(codes.values)

    def explain(kind: int, which: int, row: int, column: int) -> str:
        if kind == lib.LOWSHOT_BAD_OFFSET:
            return _explain_offset(offsets, row, n_members)
        at_fault = {1: codes, 2: queries, 3: centroids}[which]
        return _explain_bias(at_fault, row, 2)

    arguments = pointer(offsets), _codes(centroids)
    call(
        lib.lowshot_search_points_in_reach if for_members else lib.lowshot_search_lists_in_reach,
        structure,
        *(reversed(arguments) if for_members else arguments),
        _codes(queries),
        pointer(bounds),
        pointer(floors),
        share,
        more_share,
        width,
        pointer(numbers),
        pointer(scores),
        explain=explain,
    )
    return numbers, scores


def sample_links(
    pools: Pools,
    forward: int,
    backward: int,
    first: int,
    last: int,
    after_part: Callable[[], object] = lambda: None,
) -> npt.NDArray[np.int32]:
    """Links to follow in a round of descent: from rows first..last-1, and into them.

    Args:
        pools: Pools of all rows; read from front to back, twice.
        forward: How many entries of a row to follow, the best; also of those rows that link to it.
        backward: How many rows that link to a row to follow, those with the best scores.
        first: First row.
        last: One after the last.
        after_part: Called whenever 262144 rows have been read, for instance to give the memory of
            a memmap back.

    Returns:
        int32 (last - first, forward + backward), entries as in `Pools`, of each row the new ones
        first and each number once, new if it is in either direction, then -1. Besides: 8 bytes for
        each row of the range, and 8 for each link into it.

    Raises:
        ValueError: Wrong types, shapes or numbers.
    """
    _pools(pools)
    n_rows, width = pools.entries.shape
    _check_range(first, last, n_rows)
    if not 1 <= forward <= width or not 0 <= backward <= MAX_NEIGHBORS:
        raise ValueError(
            f"forward, backward: expected 1..{width} and 0..{MAX_NEIGHBORS}, got "
            f"{forward} and {backward}"
        )
    parts = [
        (begin, Pools(*(array[begin : begin + _PART_ROWS] for array in pools)))
        for begin in range(0, n_rows, _PART_ROWS)
    ]
    explain = _changed("pools")
    counts = np.zeros(last - first, np.int64)
    for _, part in parts:
        call(
            lib.lowshot_count_links,
            _pools(part), forward, first, last, pointer(counts),
            explain=explain,
        )  # fmt: skip
        after_part()
    ends = np.cumsum(counts) - counts
    links = np.empty(int(counts.sum()), np.uint64)
    for begin, part in parts:
        call(
            lib.lowshot_collect_links,
            _pools(part), begin, forward, first, last, pointer(ends), pointer(links), links.size,
            explain=explain,
        )  # fmt: skip
        after_part()
    sampled = np.empty((last - first, forward + backward), np.int32)
    call(
        lib.lowshot_choose_links,
        _pools(Pools(*(array[first:last] for array in pools))),
        forward, backward, pointer(ends), pointer(links), links.size, pointer(sampled),
        explain=explain,
    )  # fmt: skip
    return sampled


def join_neighbors(
    codes: Codes, pools: Pools, sampled: npt.NDArray[np.int32], first: int, last: int
) -> Pools:
    """A round of nearest-neighbour descent for some rows.

    Each row compares itself with what is linked to it in two steps of which one is new, and keeps
    the best. After Dong, Moses, Li, "Efficient k-nearest neighbor graph construction for generic
    similarity measures" (WWW 2011); here every row looks for itself only, so that rounds depend on
    nothing but the round before.

    Args:
        codes: Codes of all rows.
        pools: Pools of all rows.
        sampled: int32 (n, s), links of all rows, from :func:`sample_links`: new ones first, none
            behind a negative one.
        first: First row.
        last: One after the last.

    Returns:
        Pools of rows first..last-1. Besides, for each thread: one byte for each row, and up to 24
        for each pair of s links, which is 24 s².

    Raises:
        ValueError: Wrong types or shapes; a link to what is no row; biases so large that scores
            could leave the range of int32.
    """
    structure = _pools(pools)
    codes_structure = _codes(codes)
    n_rows, width = pools.entries.shape
    check_array("sampled", sampled, np.int32, (n_rows, "s"))
    if not 1 <= sampled.shape[1] <= MAX_NEIGHBORS:
        raise ValueError(f"sampled: expected 1..{MAX_NEIGHBORS} columns, got {sampled.shape[1]}")
    _check_range(first, last, n_rows)
    if len(codes.values) != n_rows:
        raise ValueError(f"codes: expected {n_rows} rows, got {len(codes.values)}")
    joined = Pools(
        np.empty((last - first, width), np.int32), np.empty((last - first, width), np.int32)
    )

    def explain(kind: int, which: int, row: int, column: int) -> str:
        if which == 2:
            return _explain_bias(codes, row)
        return f"sampled: a link followed from row {row} leads to no row, expected 0..{n_rows - 1}"

    call(
        lib.lowshot_join_neighbors,
        codes_structure,
        structure,
        pointer(sampled),
        sampled.shape[1],
        first,
        last,
        pointer(joined.entries),
        pointer(joined.scores),
        explain=explain,
    )
    return joined


def rank_candidates(
    vectors: npt.NDArray[np.float32] | VectorParts,
    inverse_lengths: npt.NDArray[np.float32] | None,
    queries: npt.NDArray[np.float32],
    candidates: npt.NDArray[np.int32],
    width: int,
    *,
    numbers: npt.NDArray[np.int32] | None = None,
    normalized: bool = False,
    found: tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]] | None = None,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The most similar of the candidates of each query.

    Args:
        vectors: float32 (n, d), of any length, an array, memmap or parts, of which only candidates
            are looked at.
        inverse_lengths: float32 (n,), 1 / length of each, 0 for vectors of length 0. None: what
            counts is the distance, unless vectors are normalized.
        queries: float32 (q, d), of length 1 or 0, or of any length where the distance counts.
        candidates: int32 (q, c), rows of vectors, no two the same in a row; -1 is none.
        width: How many to keep.
        numbers: int32 (n,), from 0 and all different, what the rows of vectors are called in the
            result; None: their places.
        normalized: Whether vectors have length 1 or 0 already.
        found: int32 (q, width) and float32 (q, width), what has been found already of other
            candidates, which counts too.

    Returns:
        int32 (q, width) and float32 (q, width), numbers and similarities: inner products of vectors
        of length 1, or minus squared distances, summed up from differences. Most similar first, of
        equal similarities the smaller number first; -1 and minus infinity where there are fewer.
        Besides, for each thread: up to 5 MB.

    Raises:
        ValueError: Wrong types or shapes; a candidate that is no row; a similarity that is not
            finite.
    """
    if isinstance(vectors, VectorParts):
        addresses, offsets = vectors.addresses, vectors.offsets
        stride = vectors.shape[1]
    else:
        stride = check_array("vectors", vectors, np.float32, ("n", "d"), strided=True)
        addresses = np.array([vectors.ctypes.data], np.uint64)
        offsets = np.array([0, len(vectors)], np.int64)
    n_vectors, dimension = vectors.shape
    if inverse_lengths is not None:
        check_array("inverse_lengths", inverse_lengths, np.float32, (n_vectors,))
        if normalized:
            raise ValueError("inverse_lengths: expected None, since vectors are normalized")
    if numbers is not None:
        check_array("numbers", numbers, np.int32, (n_vectors,))
    queries_stride = check_array("queries", queries, np.float32, ("q", dimension), strided=True)
    n_queries = len(queries)
    check_array("candidates", candidates, np.int32, (n_queries, "c"))
    if candidates.shape[1] > MAX_NEIGHBORS:
        raise ValueError(
            f"candidates: expected at most {MAX_NEIGHBORS} columns, got {candidates.shape[1]}"
        )
    _check_neighbors("width", width)
    is_euclidean = inverse_lengths is None and not normalized
    indices = np.empty((n_queries, width), np.int32)
    similarities = np.empty((n_queries, width), np.float32)
    if found is not None:
        check_array("found", found[0], np.int32, indices.shape)
        check_array("found", found[1], np.float32, indices.shape)
        indices[:], similarities[:] = found

    def explain(kind: int, which: int, row: int, column: int) -> str:
        number = candidates[row, column]
        if kind == lib.LOWSHOT_NOT_FINITE:
            expected = (
                "finite vectors no farther than 1e18 from each other"
                if is_euclidean
                else "finite vectors, queries of length 1 or 0, and 1 / length of the vectors"
            )
            return (
                f"queries: the similarity of row {row} to vector {number} is not finite, expected "
                f"{expected}"
            )
        return (
            f"candidates: row {row}, column {column} holds {number}, expected -1 or 0.."
            f"{n_vectors - 1}"
        )

    call(
        lib.lowshot_rank_candidates,
        ffi.new(
            "struct lowshot_vectors *",
            {
                "parts": ffi.cast("float **", addresses.ctypes.data),
                "offsets": pointer(offsets),
                "count": len(addresses),
                "rows": n_vectors,
                "columns": dimension,
                "stride": stride,
            },
        ),
        ffi.NULL if numbers is None else pointer(numbers),
        ffi.NULL if inverse_lengths is None else pointer(inverse_lengths),
        lib.LOWSHOT_EUCLIDEAN if is_euclidean else lib.LOWSHOT_COSINE,
        _matrix(queries, queries_stride),
        pointer(candidates),
        candidates.shape[1],
        width,
        found is not None,
        pointer(indices),
        pointer(similarities),
        explain=explain,
    )
    return indices, similarities


def copy_rows(
    vectors: npt.NDArray[np.float32],
    factors: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int32],
    places: npt.NDArray[np.int64],
    copies: npt.NDArray[np.float32],
) -> None:
    """Copy some vectors, multiplied by factors, to places in a matrix.

    Args:
        vectors: float32 (n, d), an array or memmap of which only these rows are looked at.
        factors: float32 (n,), one for each vector.
        rows: int32 (c,), which vectors; fastest in increasing order.
        places: int64 (c,), the row of the matrix for each of them, no two the same.
        copies: float32 (m, d), the matrix, in memory of its own; its other rows stay as they are.

    Raises:
        ValueError: Wrong types or shapes; rows or places out of range.
    """
    stride = check_array("vectors", vectors, np.float32, ("n", "d"), strided=True)
    n_vectors, dimension = vectors.shape
    check_array("factors", factors, np.float32, (n_vectors,))
    check_array("rows", rows, np.int32, ("c",))
    check_array("places", places, np.int64, (len(rows),))
    check_array("copies", copies, np.float32, ("m", dimension), writeable=True)
    check_no_overlap("copies", copies, vectors=vectors, factors=factors, rows=rows, places=places)

    def explain(kind: int, which: int, row: int, column: int) -> str:
        name, found, count = (
            ("places", places, len(copies)) if which == 1 else ("rows", rows, n_vectors)
        )
        return f"{name}: entry {row} holds {found[row]}, expected 0..{count - 1}"

    call(
        lib.lowshot_copy_rows,
        _matrix(vectors, stride),
        pointer(factors),
        pointer(rows),
        pointer(places),
        len(rows),
        pointer(copies),
        len(copies),
        explain=explain,
    )


def checksum_rows(
    vectors: npt.NDArray[np.float32],
    factors: npt.NDArray[np.uint64],
    euclidean: bool = False,
) -> npt.NDArray[np.uint64]:
    """A checksum of each vector: the same for equal ones, and for other ones seldom the same.

    It is the sum of the bits of each number, as an integer, times its factor, modulo 2⁶⁴. Minus
    zero counts as zero.

    Args:
        vectors: float32 (n, d), C-contiguous or the first columns of a wider matrix.
        factors: uint64 (d,), random odd numbers.
        euclidean: Whether vectors are taken as they are; else they are scaled to length 1 first,
            so that all that point in one direction are equal.

    Returns:
        uint64 (n,).

    Raises:
        ValueError: Wrong types or shapes; a vector that is not finite, with its row.
    """
    stride = check_array("vectors", vectors, np.float32, ("n", "d"), strided=True)
    check_array("factors", factors, np.uint64, (vectors.shape[1],))
    checksums = np.empty(len(vectors), np.uint64)

    def explain(kind: int, which: int, row: int, column: int) -> str:
        return f"vectors: row {row} holds NaN or infinity, expected finite numbers"

    call(
        lib.lowshot_checksum_rows,
        _matrix(vectors, stride),
        lib.LOWSHOT_EUCLIDEAN if euclidean else lib.LOWSHOT_COSINE,
        pointer(factors),
        pointer(checksums),
        explain=explain,
    )
    return checksums


def take_vectors(
    vectors: npt.NDArray[np.float32],
    inverse_lengths: npt.NDArray[np.float32] | None,
    numbers: npt.NDArray[np.int32],
) -> npt.NDArray[np.float32]:
    """Some rows of a matrix of vectors, scaled.

    Args:
        vectors: float32 (n, d), C-contiguous or the first columns of a wider matrix.
        inverse_lengths: float32 (n,), what each row is multiplied by; None: by nothing.
        numbers: int32 (m,), the rows.

    Returns:
        float32 (m, d).

    Raises:
        ValueError: Wrong types or shapes; a number that is no row.
    """
    stride = check_array("vectors", vectors, np.float32, ("n", "d"), strided=True)
    rows, columns = vectors.shape
    check_array("numbers", numbers, np.int32, ("m",))
    if inverse_lengths is not None:
        check_array("inverse_lengths", inverse_lengths, np.float32, (rows,))
    taken = np.empty((len(numbers), columns), np.float32)

    def explain(kind: int, which: int, row: int, column: int) -> str:
        return f"numbers: entry {row} holds {numbers[row]}, expected 0..{rows - 1}"

    call(
        lib.lowshot_take_vectors,
        ffi.new(
            "struct lowshot_matrix *",
            {
                "values": pointer(vectors),
                "rows": rows,
                "columns": columns,
                "stride": stride,
            },
        ),
        ffi.NULL if inverse_lengths is None else pointer(inverse_lengths),
        pointer(numbers),
        len(numbers),
        pointer(taken),
        explain=explain,
    )
    return taken


def code_width(dimension: int) -> int:
    """Columns of the codes of vectors with so many columns."""
    return -(-dimension // CODE_WIDTH_UNIT) * CODE_WIDTH_UNIT


def _matrix(array: npt.NDArray[np.float32], stride: int) -> Any:
    return ffi.new(
        "struct lowshot_matrix *",
        {
            "values": pointer(array),
            "rows": len(array),
            "columns": array.shape[1],
            "stride": stride,
        },
    )


def _codes(codes: Codes) -> Any:
    check_array("codes", codes.values, np.int8, ("n", "w"))
    rows, width = codes.values.shape
    check_array("biases", codes.biases, np.int32, (rows,))
    _check_width(width)
    return ffi.new(
        "struct lowshot_codes *",
        {
            "values": pointer(codes.values),
            "biases": pointer(codes.biases),
            "rows": rows,
            "width": width,
        },
    )


def _whole_share(share: float) -> int:
    if not share > 0:
        raise ValueError(f"prefix: expected floors and a share above 0, got a share of {share}")
    return math.ceil(share * int(lib.LOWSHOT_WHOLE))


def _explain_offset(offsets: npt.NDArray[np.int64], row: int, end: int) -> str:
    return (
        f"offsets: entry {row} holds {offsets[row]}, expected numbers that begin at 0, never "
        f"decrease, and end at {end}"
    )


def _explain_bias(codes: Codes, row: int, n_added: int = 1) -> str:
    largest = largest_bias(codes.values.shape[1]) // n_added
    return f"biases: entry {row} holds {codes.biases[row]}, expected {-largest}..{largest}"


def _pools(pools: Pools) -> Any:
    check_array("entries", pools.entries, np.int32, ("n", "p"))
    check_array("scores", pools.scores, np.int32, pools.entries.shape)
    rows, width = pools.entries.shape
    _check_neighbors("entries", width)
    if rows > MAX_POOL_ROWS:
        raise ValueError(f"entries: expected at most {MAX_POOL_ROWS} rows, got {rows}")
    return ffi.new(
        "struct lowshot_pools *",
        {
            "entries": pointer(pools.entries),
            "scores": pointer(pools.scores),
            "rows": rows,
            "width": width,
        },
    )


def _check_width(width: int) -> None:
    largest = int(lib.LOWSHOT_MAX_CODE_WIDTH)
    if not (0 < width <= largest and width % CODE_WIDTH_UNIT == 0):
        raise ValueError(
            f"codes: expected a multiple of {CODE_WIDTH_UNIT} columns up to {largest}, got {width}"
        )


def _check_neighbors(name: str, width: int) -> None:
    if not 1 <= width <= MAX_NEIGHBORS:
        raise ValueError(f"{name}: expected 1..{MAX_NEIGHBORS} neighbours, got {width}")


def _check_range(first: int, last: int, rows: int) -> None:
    if not 0 <= first <= last <= rows:
        raise ValueError(f"first, last: expected 0 ≤ first ≤ last ≤ {rows}, got {first}, {last}")


def _changed(name: str) -> Explain:
    def explain(kind: int, which: int, row: int, column: int) -> str:
        return f"{name}: changed during the call"

    return explain
