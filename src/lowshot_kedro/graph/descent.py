"""The graph over vectors that are divided into lists: list search, then descent.

List search alone (`ivf`) looks through enough lists to find nearly all neighbours. Descent looks
through a few, and finds the rest among neighbours of neighbours, which takes a fraction of the
comparisons. Both work with 8-bit codes, and rank by the vectors themselves at the end.

Vectors are taken in the order of their lists, in which neighbours stand near each other: what one
row has read is still at hand for the next.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph, RowBlocks, row_ranges
from lowshot_kedro.graph.centroids import probes_needed
from lowshot_kedro.graph.exact_search import ExactNodes
from lowshot_kedro.graph.list_search import Division, ListSearch
from lowshot_kedro.graph.quality import recall, sample_rows
from lowshot_kedro.graph.sampled_neighbors import SampledNeighbors
from lowshot_kedro.graph.workspace import Stage, Workspace
from lowshot_kedro.progress import logged_step

logger = logging.getLogger(__name__)

BLOCK_ROWS = 65536
_TUNING_ROWS = 256
# Neighbours whose scores may be smaller than is reckoned with: of random errors next to none are.
_MAX_MISJUDGED = 1e-3
# The part of the neighbours that the first search of lists finds; descent finds the others faster.
_FIRST_RECALL = 0.95
# How many links of a row are followed in a round, of its own and as many of those that lead to it.
# More where a round has found little and the recall wanted is not reached.
_LINKS = (20, 32, 48)
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
        Blocks in row order. In memory: what the search holds, 160 bytes for each vector while
        descending, and blocks; what the budget has no room for is kept on disk.
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

    return RowBlocks(n_vectors, stored_k, BLOCK_ROWS, blocks)


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
    n_probe = probes_needed(
        search.centroids,
        np.ascontiguousarray(search.codes.values[tuning.rows]),
        search.lists_of(tuning.neighbors.indices),
        len(search.division.centroids),
        min(_FIRST_RECALL, target_recall) if descend else target_recall,
    )
    logger.info(
        "graph: %d of %d lists looked through for each vector, %d candidates kept",
        n_probe,
        len(search.division.centroids),
        tuning.pool_width,
    )
    rounds = _Rounds(search, tuning, workspace)
    if not rounds.recalls:
        with logged_step("graph: search of lists"):
            make = _search_lists(search, n_probe, tuning.pool_width, stored_k)
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
    pool_width = min(widest, max(int(_POOL_PART * k), max(_LINKS)))
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
        effort, fresh = 0, True
        for before, after in pairwise(self.recalls):
            # A round that leaves more to be found than it has found is not worth repeating.
            fresh = after - before < target_recall - after
            effort += fresh
        if self.recalls[-1] >= target_recall or effort == len(_LINKS):
            return None
        return _LINKS[effort], fresh


def _search_lists(
    search: ListSearch, n_probe: int, width: int, at_least: int
) -> Callable[[int, int], tuple[NDArray[np.int32], ...]]:
    def make(first: int, last: int) -> tuple[NDArray[np.int32], ...]:
        positions, scores = search.candidates(
            search.codes.values[first:last], n_probe, width, at_least
        )
        return np.where(positions < 0, np.int32(-1), 2 * positions + 1), scores

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
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    return make
