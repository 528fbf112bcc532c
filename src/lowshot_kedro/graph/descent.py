"""The graph over vectors that are divided into lists: list search, then descent.

List search alone (`ivf`) looks through enough lists to find nearly all neighbours. Descent looks
through fewer, and finds the rest among neighbours of neighbours, which takes a fraction of the
comparisons. Both work with 8-bit codes, and rank by the vectors themselves at the end.

Vectors are taken in the order of their lists, in which neighbours stand near each other: what one
row has read is still at hand for the next.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph, RowBlocks, row_ranges
from lowshot_kedro.graph.bounded_search import prefix_shares
from lowshot_kedro.graph.centroids import missed_after_probes, probes_needed
from lowshot_kedro.graph.codes import usual_prefix_share
from lowshot_kedro.graph.exact_search import ExactNodes
from lowshot_kedro.graph.list_search import Division, ListSearch
from lowshot_kedro.graph.quality import recall, sample_rows
from lowshot_kedro.graph.sampled_neighbors import SampledNeighbors
from lowshot_kedro.graph.workspace import Stage, Workspace
from lowshot_kedro.progress import logged_step
from lowshot_kedro.threads import prefetch

logger = logging.getLogger(__name__)

BLOCK_ROWS = 65536
_TUNING_ROWS = 256
# Neighbours whose scores may be smaller than is reckoned with: of random errors next to none are.
_MAX_MISJUDGED = 1e-3
# The least part of the neighbours that the first search of lists is to find. Where vectors have
# little structure, neighbours of neighbours tell less, and too little if most are wrong.
_FIRST_RECALL = 0.95
# How many links of a row are followed in a round, of its own and as many of those that lead to it:
# the fewest and the most. What a first round leaves falls with them about as exp(-links / 12); with
# a few more, one round is likely to do.
_MIN_LINKS = 8
_MAX_LINKS = 48
_LINKS_TO_SHARE = 12.0
_SPARE_LINKS = 4
# Vectors that a search of lists looks at in the time that a round takes for each square of a link.
_VECTORS_PER_SQUARED_LINK = 8.0
# Recall is measured on a few hundred rows; beyond this it tells nothing.
_LEAST_MISSED = 1e-3
# The nearest lists: 3, or 2 that hold 12 vectors for each candidate kept, or more that hold 4. In
# them every vector is compared by all columns of its code. They say how far others may be from a
# vector by their first columns.
_FULL_PROBES = (2, 3)
_MANY_FULL_VECTORS = 12
_MIN_FULL_VECTORS = 4
# First columns are compared if no more vectors of a sample are near enough by these: what is
# compared in full besides is read from all over the memory.
_MAX_PASSING = 0.25
_MAX_SAMPLED_LISTS = 32
# What part of the neighbours may be lost by looking only at lists around a vector's own.
_LOST_TO_DISTANCE = 1e-3
# Rows whose links are sampled at once, if memory is short, and what sampling takes for each link
# followed: links collected, counted, chosen and copied, and pages of the pools besides.
_MIN_LINK_ROWS = 2**18
_BYTES_PER_LINK = 64
# Of the graph, in which rows stand list after list, so much is put in the order of their numbers at
# a time.
_MIN_GATHERED_BYTES = 2**26
_MAX_GATHERED_BYTES = 2**29
# Candidates kept for each neighbour wanted: the least, and how many times as many at most.
_POOL_PART = 1.5
_WIDEST_POOL = 8


@dataclass(frozen=True)
class Tuning:
    """What a sample of rows says about the effort that a recall takes.

    Attributes:
        rows: int64 (s,), positions of the sample.
        queries: float32 (s, d), their queries.
        neighbors: (s, k), the most similar vectors of each, -1 where all are equally similar.
        pool_width: Candidates of which nearly all neighbours are among the best by their codes.
        recall: Part of these neighbours that is among so many candidates.
    """

    rows: NDArray[np.int64]
    queries: NDArray[np.float32]
    neighbors: KnnGraph
    pool_width: int
    recall: float

    @property
    def half(self) -> Tuning:
        """Every other row: what these say is tried on rows that have had no say."""
        neighbors = KnnGraph(self.neighbors.indices[::2], self.neighbors.similarities[::2])
        return replace(self, rows=self.rows[::2], queries=self.queries[::2], neighbors=neighbors)


class _Loss(NamedTuple):
    """How many neighbours may be lost by comparing first columns first.

    Attributes:
        of_sample: Part of the neighbours of a sample.
        of_farthest: Part of those at the largest distance that counts, were codes random.
    """

    of_sample: float
    of_farthest: float


_LOSS = _Loss(5e-4, 0.05)
# Descent finds most of them again, in less time than is saved.
_LOSS_BEFORE_DESCENT = _Loss(3e-3, 0.2)


def divided_graph(
    division: Division,
    make_search: Callable[[], ListSearch],
    stored_k: int,
    target_recall: float,
    descend: bool,
    workspace: Workspace,
    tuning: Tuning | None = None,
) -> RowBlocks[KnnGraph]:
    """The stored_k most similar vectors of every vector, itself included.

    Args:
        division: Division of the vectors into lists.
        make_search: Makes the search over these lists, unless an earlier run has got past it.
        stored_k: Columns of the graph.
        target_recall: Part of the neighbours to be found, estimated on 256 rows.
        descend: Whether to follow neighbours of neighbours, or search lists only.
        workspace: Folder for the phases, which stay until the graph is written.
        tuning: What :func:`tune` says of this search; None: it is called here.

    Returns:
        Blocks in row order. In memory: what the search holds, 160 bytes for each vector, and 1 for
        each thread, while descending, and blocks; what the budget has no room for is kept on disk.
    """
    positions = division.positions
    n_vectors = len(positions)
    stage = workspace.stage(
        "ranked",
        len(division.numbers),
        [("numbers", stored_k, "<i4"), ("similarities", stored_k, "<f4")],
    )
    if not stage.is_complete:
        _rank(make_search(), stored_k, target_recall, descend, workspace, stage, tuning)
    ranked = KnnGraph(*stage.load())

    def blocks(first_row: int) -> Iterator[KnnGraph]:
        n_blocks = max(1, _gathered_bytes(workspace) // (8 * stored_k * BLOCK_ROWS))
        for first, last in row_ranges(n_vectors - first_row, n_blocks * BLOCK_ROWS):
            gathered = _gather(ranked, positions[first_row + first : first_row + last], workspace)
            for begin, end in row_ranges(last - first, BLOCK_ROWS):
                yield gathered.part(begin, end, stored_k)
            del gathered

    # One block is put in order while another is written.
    return RowBlocks(n_vectors, stored_k, BLOCK_ROWS, lambda first: prefetch(blocks(first)))


def _gathered_bytes(workspace: Workspace) -> int:
    """How much of a graph to put in another order at a time: the file is read once for each."""
    return min(max(workspace.budget.left // 2, _MIN_GATHERED_BYTES), _MAX_GATHERED_BYTES)


def _gather(ranked: KnnGraph, rows: NDArray[np.int32], workspace: Workspace) -> KnnGraph:
    """Rows of a graph in a file, which is read from front to back whatever their order is."""
    shape = len(rows), ranked.indices.shape[1]
    gathered = KnnGraph(np.empty(shape, np.int32), np.empty(shape, np.float32))
    order = np.argsort(rows)
    for first, last in row_ranges(len(rows), BLOCK_ROWS):
        places = order[first:last]
        gathered.indices[places] = ranked.indices[rows[places]]
        gathered.similarities[places] = ranked.similarities[rows[places]]
        workspace.relieve(*ranked)
    return gathered


def _rank(
    search: ListSearch,
    stored_k: int,
    target_recall: float,
    descend: bool,
    workspace: Workspace,
    stage: Stage,
    tuning: Tuning | None,
) -> None:
    """Find candidates for all vectors, in the order of their lists, and rank them."""
    if tuning is None:
        tuning = tune(search, stored_k, target_recall)
    # Rounds of descent make up for what a sample does not show; without them all of it is asked.
    asked = tuning.half if descend else tuning
    n_probe = _count_probes(search, asked, target_recall, descend)
    logger.info(
        "graph: %d of %d lists looked through for each vector, %d candidates kept",
        n_probe,
        len(search.division.centroids),
        tuning.pool_width,
    )
    rounds = _Rounds(search, tuning, workspace)
    if not rounds.recalls:
        with logged_step("graph: search of lists"):
            loss = _LOSS_BEFORE_DESCENT if descend else _LOSS
            make = _search_lists(search, n_probe, asked, stored_k, loss)
            found = rounds.stage(0).fill(make, BLOCK_ROWS, "search of lists")
        rounds.keep(native.Pools(*found))
    while descend and (effort := rounds.next_links(target_recall)) is not None:
        number = len(rounds.recalls)
        with logged_step(f"graph: round {number} of descent"):
            make = _join(search, rounds.last(), *effort, workspace)
            found = rounds.stage(number).fill(make, BLOCK_ROWS, f"round {number} of descent")
        rounds.keep(native.Pools(*found))
    if rounds.recalls[-1] < target_recall:
        logger.warning(
            "target_recall: got %.4f on %d rows, wanted %.4f",
            rounds.recalls[-1],
            len(tuning.rows),
            target_recall,
        )
    pools = rounds.last()
    trusts_codes = _trusts_codes(search, tuning, pools)

    def rank(first: int, last: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        queries = search.queries_at(np.arange(first, last))
        candidates = pools.entries[first:last] >> 1
        if trusts_codes:
            scores, biases = pools.scores[first:last], search.codes.biases[first:last]
            ranked = search.rank_likely(queries, biases, candidates, scores, stored_k)
        else:
            ranked = search.rank(queries, candidates, stored_k)
        workspace.release(*pools)
        return ranked

    with logged_step("graph: ranking by the vectors themselves"):
        stage.fill(rank, BLOCK_ROWS // 4, "ranking")
    search.release()


def _trusts_codes(search: ListSearch, tuning: Tuning, pools: native.Pools) -> bool:
    """Whether no neighbour of the sample looks too far by its code to be one."""
    rows, k = tuning.rows, tuning.neighbors.indices.shape[1]
    candidates, scores = pools.entries[rows] >> 1, pools.scores[rows]
    biases = search.codes.biases[rows]
    likely = search.rank_likely(tuning.queries, biases, candidates, scores, k, scattered=True)
    every = search.rank(tuning.queries, candidates, k, scattered=True)
    return np.array_equal(likely.indices, every.indices)


def tune(search: ListSearch, k: int, target_recall: float) -> Tuning:
    """Search for the neighbours of a sample of rows among all vectors.

    Args:
        search: Search over the vectors.
        k: How many neighbours count.
        target_recall: Part of them to be found.

    Returns:
        The sample and what it says. In memory: up to 256 rows of everything.
    """
    with logged_step("graph: tuning"):
        return _tune(search, k, target_recall)


def _tune(search: ListSearch, k: int, target_recall: float) -> Tuning:
    rows = sample_rows(len(search.division.numbers), _TUNING_ROWS)
    queries = search.queries(search.division.numbers[rows])
    widest = min(native.MAX_NEIGHBORS, _WIDEST_POOL * k)
    sampled = SampledNeighbors(queries, k, widest, search.encoder)
    found = sampled.add(search.codes, partial(search.rank, k=k, scattered=True))
    neighbors = sampled.neighbors
    is_anywhere = search.space.without_direction(queries)
    unsure = np.flatnonzero(_may_miss_some(search, sampled) & ~is_anywhere)
    if len(unsure):
        among_all = ExactNodes(search.vectors, search.space, "vectors").search(queries[unsure], k)
        neighbors.indices[unsure], neighbors.similarities[unsure] = among_all
    # Other vectors are as good neighbours of these.
    neighbors.indices[is_anywhere] = -1
    pool_width = min(widest, max(int(_POOL_PART * k), _MAX_LINKS))
    # Half of what may be missed is left to the search.
    wanted = 1 - (1 - target_recall) / 2
    while True:
        best = np.ascontiguousarray(found[:, :pool_width])
        ranked = search.rank(queries, best, k, scattered=True)
        reached = (
            float(_recall(search, ranked, neighbors.similarities).mean()) if len(rows) else 1.0
        )
        if reached >= wanted or pool_width >= widest:
            break
        pool_width = min(2 * pool_width, widest)
    search.release()
    return Tuning(rows, queries, neighbors, pool_width, reached)


def _may_miss_some(search: ListSearch, sampled: SampledNeighbors) -> NDArray[np.bool_]:
    """Of which queries codes may have missed neighbours: they may be too coarse, or mislead.

    Where vectors have one or two coordinates, the errors of all columns of their codes are alike,
    and do not make up for each other. That shows in the scores of the neighbours that are found.
    """
    indices, similarities = sampled.neighbors
    rows, columns = np.nonzero(indices >= 0)
    of_links = sampled.codes.part(rows)
    positions = search.division.positions[indices[rows, columns]]
    scores = native.score_pairs(search.codes, positions, of_links.values)
    least = search.encoder.least_scores(similarities[rows, columns], of_links.biases)
    if np.count_nonzero(scores < least) > _MAX_MISJUDGED * len(rows):
        return np.ones(len(indices), np.bool_)
    return ~sampled.is_sure


def _recall(
    search: ListSearch, ranked: KnnGraph, wanted: NDArray[np.float32]
) -> NDArray[np.float64]:
    return recall(ranked.similarities, wanted, wanted.shape[1], search.space)


class _Rounds:
    """The pools after each round, of which the last is kept, and the least recall of each."""

    def __init__(self, search: ListSearch, tuning: Tuning, workspace: Workspace) -> None:
        self._search = search
        self._tuning = tuning
        self._workspace = workspace
        self._path = workspace.folder / "recall_per_round.json"
        self.recalls: list[float] = []
        if self._path.is_file():
            self.recalls = json.loads(self._path.read_text())

    def stage(self, number: int) -> Stage:
        """The stage that holds the pools of a round."""
        width = self._tuning.pool_width
        return self._workspace.stage(
            f"round{number}",
            len(self._search.division.numbers),
            [("entries", width, "<i4"), ("scores", width, "<i4")],
        )

    def last(self) -> native.Pools:
        """The pools of the last round that is complete."""
        return native.Pools(*self.stage(len(self.recalls) - 1).load())

    def keep(self, pools: native.Pools) -> None:
        """Measure the pools of a round that is complete, and drop those of the round before."""
        rows = self._tuning.rows
        wanted = self._tuning.neighbors.similarities
        k = wanted.shape[1]
        candidates = pools.entries[rows] >> 1
        ranked = self._search.rank(self._tuning.queries, candidates, k, scattered=True)
        self._workspace.release(*pools)
        reached = _recall(self._search, ranked, wanted)
        number = len(self.recalls)
        # Less one standard error, so that chance does not end the search too early.
        error = reached.std() / np.sqrt(max(len(reached), 1))
        self.recalls.append(float(reached.mean() - error) if len(reached) else 1.0)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self.recalls))
        partial.replace(self._path)
        if number > 0:
            self.stage(number - 1).delete()
        what = f"after round {number}" if number else "of the search of lists"
        logger.info("graph: recall@%d %s: at least %.4f", k, what, self.recalls[-1])

    def next_links(self, target_recall: float) -> tuple[int, bool] | None:
        """How many links to follow in the next round, and whether for the first time so many.

        None if the target is reached, or cannot be by further rounds.
        """
        return links_to_follow(self.recalls, target_recall)


def links_to_follow(recalls: Sequence[float], target_recall: float) -> tuple[int, bool] | None:
    """How many links to follow in the next round of descent.

    Args:
        recalls: Recall of the search of lists, and after each round so far.
        target_recall: Recall wanted.

    Returns:
        How many links, and whether for the first time so many; None if the target is reached, or
        cannot be by further rounds.
    """
    if recalls[-1] >= target_recall:
        return None
    n_links, fresh = 0, True
    for number, after in enumerate(recalls):
        # A round that leaves more to be found than it has found is not worth repeating.
        fresh = number == 0 or after - recalls[number - 1] < target_recall - after
        if fresh and n_links == _MAX_LINKS:
            return None
        if fresh:
            more = int(np.ceil(_links_needed(1 - after, target_recall)))
            n_links = min(n_links + max(more, _MIN_LINKS), _MAX_LINKS)
    return n_links, fresh


def _links_needed(missed: Any, target_recall: float) -> Any:
    """How many links to follow where a part of the neighbours is missed; 0 if so many may be."""
    allowed = max(1 - target_recall, _LEAST_MISSED)
    ratio = np.maximum(missed, allowed) / allowed
    return np.where(missed <= allowed, 0.0, _SPARE_LINKS + _LINKS_TO_SHARE * np.log(ratio))


def _count_probes(search: ListSearch, tuning: Tuning, target_recall: float, descend: bool) -> int:
    """How many lists to look through: all that it takes, or with what descent takes, the least."""
    codes = np.ascontiguousarray(search.codes.values[tuning.rows])
    lists = search.lists_of(tuning.neighbors.indices)
    n_lists = len(search.division.centroids)
    if not descend:
        return probes_needed(search.centroids, codes, lists, n_lists, target_recall)
    missed = missed_after_probes(search.centroids, codes, lists, n_lists)
    links = _links_needed(missed, target_recall)
    vectors = np.arange(1, len(missed) + 1) * (len(search.division.numbers) / n_lists)
    costs = vectors + _VECTORS_PER_SQUARED_LINK * links**2
    costs[missed > max(1 - _FIRST_RECALL, 1 - target_recall, missed.min(initial=1))] = np.inf
    return 1 + int(np.argmin(costs))


def _full_probes(search: ListSearch, tuning: Tuning) -> int:
    """In how many lists every vector is compared by all columns."""
    list_size = len(search.division.numbers) / len(search.division.centroids)
    lists_of_candidates = tuning.pool_width / list_size
    usual = int(np.clip(np.ceil(_MANY_FULL_VECTORS * lists_of_candidates), *_FULL_PROBES))
    return max(usual, int(np.ceil(_MIN_FULL_VECTORS * lists_of_candidates)))


def _prefix_share(
    search: ListSearch, tuning: Tuning, n_probe: int, full_probes: int, loss: _Loss = _LOSS
) -> float:
    """What part of a squared distance first columns may hold in the farther of the lists.

    1 if that would hardly leave out any vector.
    """
    first, width = native.CODE_WIDTH_UNIT, search.encoder.width
    if n_probe <= full_probes or width <= first or not len(tuning.rows):
        return 1.0
    codes = search.codes.part(tuning.rows)
    probes = search.probes(codes.values, n_probe)
    near = np.ascontiguousarray(probes[:, :full_probes])
    _, scores = search.candidates(codes.values, full_probes, tuning.pool_width, probes=near)
    floors = scores[:, -1]
    rows, columns = np.nonzero(tuning.neighbors.indices >= 0)
    positions = search.division.positions[tuning.neighbors.indices[rows, columns]]
    is_far = (near[rows] != search.division.lists_of(positions)[:, None]).all(axis=1)
    of_far, neighbors = rows[is_far], search.codes.values[positions[is_far]]
    shares = np.sort(prefix_shares(codes.part(of_far), neighbors, floors[of_far])[0])
    n_lost = int(loss.of_sample * len(rows))
    share = float(shares[-1 - n_lost]) if len(shares) > n_lost else 0.0
    share = min(1.0, max(share, usual_prefix_share(width, lost=loss.of_farthest)))
    # One vector of each of some lists.
    far = probes[:, full_probes : full_probes + _MAX_SAMPLED_LISTS]
    offsets = search.division.offsets
    rows, columns = np.nonzero((far >= 0) & (offsets[far] < offsets[far + 1]))
    some = search.codes.values[offsets[far[rows, columns]]]
    passing = prefix_shares(codes.part(rows), some, floors[rows])[0] <= share
    return share if len(passing) and passing.mean() <= _MAX_PASSING else 1.0


def _are_lists_around_enough(search: ListSearch, tuning: Tuning, n_probe: int) -> bool:
    """Whether lists around their own hold nearly as many neighbours of vectors as the nearest."""
    codes = np.ascontiguousarray(search.codes.values[tuning.rows])
    lists = search.lists_of(tuning.neighbors.indices)

    def found(probes: NDArray[np.int32]) -> int:
        return int((lists[:, :, None] == probes[:, None]).any(axis=2)[lists >= 0].sum())

    around = search.probes_around(codes, search.division.lists_of(tuning.rows), n_probe)
    nearest = search.probes(codes, n_probe)
    return found(nearest) - found(around) <= _LOST_TO_DISTANCE * lists.size


def _search_lists(
    search: ListSearch, n_probe: int, tuning: Tuning, at_least: int, loss: _Loss
) -> Callable[[int, int], tuple[NDArray[np.int32], ...]]:
    full_probes = _full_probes(search, tuning)
    share = _prefix_share(search, tuning, n_probe, full_probes, loss)
    around = _are_lists_around_enough(search, tuning, n_probe)

    def make(first: int, last: int) -> tuple[NDArray[np.int32], ...]:
        codes = search.codes.part(slice(first, last))
        if around:
            own = search.division.lists(first, last)
            probes = search.probes_around(codes.values, own, n_probe)
        else:
            probes = search.probes(codes.values, n_probe)
        positions, scores = search.candidates(
            codes.values,
            n_probe,
            tuning.pool_width,
            at_least,
            probes,
            native.Prefix(codes.biases, share, full_probes),
        )
        # New ones, all of them; and -1 stays -1.
        np.left_shift(positions, 1, out=positions)
        np.bitwise_or(positions, 1, out=positions)
        return positions, scores

    return make


def _join(
    search: ListSearch, pools: native.Pools, n_links: int, all_new: bool, workspace: Workspace
) -> Callable[[int, int], tuple[NDArray[np.int32], ...]]:
    n_vectors, width = pools.entries.shape
    n_links = min(n_links, width)
    links = np.empty((0, 2 * n_links), np.int32)
    most_rows = max(_MIN_LINK_ROWS, workspace.budget.left // (_BYTES_PER_LINK * n_links))
    if most_rows < n_vectors:
        links = workspace.allocate("links", (n_vectors, 2 * n_links), np.int32)
    for first, last in row_ranges(n_vectors, most_rows):
        part = native.sample_links(
            pools, n_links, n_links, first, last, partial(workspace.release, *pools)
        )
        # Pairs that have met are not compared again, unless more links are followed than before.
        if all_new:
            np.bitwise_or(part, 1, out=part, where=part >= 0)
        if most_rows < n_vectors:
            links[first:last] = part
        else:
            links = part
        workspace.release(*pools)

    def make(first: int, last: int) -> tuple[NDArray[np.int32], ...]:
        parts = []
        for begin, end in row_ranges(last - first, workspace.rows_at_once(BLOCK_ROWS)):
            parts.append(
                native.join_neighbors(search.codes, pools, links, first + begin, first + end)
            )
            workspace.release(*pools)
        if len(parts) == 1:
            return parts[0]
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    return make
