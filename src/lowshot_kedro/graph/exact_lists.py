"""The graph over vectors that 8-bit codes cannot tell apart: lists compared as they are.

Codes have one size of step for all vectors. Where most vectors lie a thousand times nearer to each
other than a few are far away, the codes of most are equal. Here every list is compared with the
lists around it by matrix products about its own centre, which takes several times as long.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph
from lowshot_kedro.graph.centroids import lists_of, probes_among
from lowshot_kedro.graph.exact_search import ExactNodes
from lowshot_kedro.graph.methods import EXACT_BELOW
from lowshot_kedro.graph.quality import sample_rows
from lowshot_kedro.graph.spaces import Space
from lowshot_kedro.progress import Progress, logged_step
from lowshot_kedro.threads import map_in_threads

logger = logging.getLogger(__name__)

_TUNING_ROWS = 256
# Lists around a list that are known.
_MAX_NEARBY = 1024
# Vectors with which one is compared, on average, at most.
_MAX_COMPARED = EXACT_BELOW


def exact_list_graph(
    vectors: NDArray[np.float32],
    centroids: NDArray[np.float32],
    space: Space,
    k: int,
    target_recall: float,
    name: str,
) -> KnnGraph:
    """The k most similar vectors of every vector, found in the lists around the one it is in.

    Args:
        vectors: float32 (n, d), a memmap or array.
        centroids: float32 (L, d), points, the centroids of the lists.
        space: Space in which vectors are compared.
        k: Neighbours of each.
        target_recall: Part of them to be found, estimated on 256 rows; as much of it as comparing
            every vector with 20000 others finds.
        name: What messages call the vectors.

    Returns:
        The graph, (n, k). In memory besides: 4 bytes for each vector, 4 KB for each list, and for
        each thread the vectors of the lists that it looks through.

    Raises:
        ValueError: For NaN or infinity.
    """
    with logged_step("graph: assigning vectors to lists"):
        nearest, nearby = _assign(vectors, centroids, space, name)
    lists = lists_of(nearest, len(centroids))
    assert lists.members is not None
    offsets, members = lists.offsets, lists.members
    nearby = nearby[:, : _n_probe(vectors, nearest, nearby, space, k, target_recall, name)]
    graph = KnnGraph(np.empty((len(vectors), k), np.int32), np.empty((len(vectors), k), np.float32))

    def search(number: int) -> tuple[NDArray[np.int32], KnnGraph]:
        # Lists are searched side by side.
        native.set_num_threads(1)
        own = members[offsets[number] : offsets[number + 1]]
        around = [members[offsets[each] : offsets[each + 1]] for each in nearby[number]]
        numbers = np.sort(np.concatenate(around))
        about = space if space.origin is None else Space(space.origin + centroids[number])
        found = ExactNodes(vectors[numbers], about, name).search(
            space.query_rows(vectors, own, name), k
        )
        indices = np.where(found.indices < 0, np.int32(-1), numbers[found.indices])
        return own, KnnGraph(indices, found.similarities)

    filled = np.flatnonzero(np.diff(offsets)).tolist()
    with logged_step("graph: comparison of lists"), Progress(len(vectors), "graph") as bar:
        for rows, found in map_in_threads(search, filled):
            graph.indices[rows] = found.indices
            graph.similarities[rows] = found.similarities
            bar.update(len(rows))
    return graph


def _assign(
    vectors: NDArray[np.float32], centroids: NDArray[np.float32], space: Space, name: str
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The list of every vector, and the lists around every list, itself first if it has any."""
    about_origin = space if space.origin is None else Space(np.zeros_like(space.origin))
    search = ExactNodes(centroids, about_origin, "centroids")
    nearest = np.empty(len(vectors), np.int32)
    for first, block in space.point_blocks(vectors, name):
        nearest[first : first + len(block)] = search.search(block, 1).indices[:, 0]
    nearby = search.search(centroids, min(len(centroids), _MAX_NEARBY)).indices
    return nearest, nearby


def _n_probe(
    vectors: NDArray[np.float32],
    nearest: NDArray[np.int32],
    nearby: NDArray[np.int32],
    space: Space,
    k: int,
    target_recall: float,
    name: str,
) -> int:
    """How many lists to look through around each."""
    n_lists = len(nearby)
    rows = sample_rows(len(vectors), _TUNING_ROWS)
    exact = ExactNodes(vectors, space, name).search(space.query_rows(vectors, rows, name), k)
    wanted = np.where(exact.indices < 0, np.int32(-1), nearest[exact.indices])
    order = nearby[nearest[rows]]
    # Half of what may be missed, so that chance does not make it more.
    needed = probes_among(order, wanted, n_lists, 1 - (1 - target_recall) / 2)
    n_probe = min(needed, max(1, _MAX_COMPARED * n_lists // len(vectors)))
    there = (wanted[:, :, None] == order[:, None, :n_probe]).any(axis=2)
    reached = float(there[wanted >= 0].mean())
    logger.info(
        "graph: %d of %d lists looked through for each list, recall@%d %.4f",
        n_probe,
        n_lists,
        k,
        reached,
    )
    if reached < target_recall:
        logger.warning(
            "target_recall: got %.4f on %d rows, wanted %.4f",
            reached,
            len(rows),
            target_recall,
        )
    return n_probe
