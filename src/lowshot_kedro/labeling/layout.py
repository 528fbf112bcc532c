"""All images in two dimensions, similar ones close together."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lowshot_kedro.blocks import row_ranges, spread_rows
from lowshot_kedro.extras import command
from lowshot_kedro.graph.exact_search import ExactNodes
from lowshot_kedro.graph.spaces import COSINE
from lowshot_kedro.labeling.nodes import LabelingGraph, NodeVectors
from lowshot_kedro.progress import Progress, Stopwatch, logged_step

logger = logging.getLogger(__name__)

# PaCMAP's own choice, and how many candidates it takes these from.
_NEIGHBORS, _CANDIDATES = 10, 60
# The neighbours whose mean distance is the scale of an image, counted from 0.
_SCALE = slice(3, 6)
# PaCMAP draws 20 other images for each image, and 6 at a time, until all are different.
_MIN_IMAGES = 50
# It adds up to 5 for every image to the seed, as an integer of 32 bits.
_MAX_SEED = 2**30
_NEAREST_PLACED = 5
_MAX_COMPARED = 4096
_BLOCK_ROWS = 65536
_SECONDS_TO_IMPORT = 5


def layout_images(
    graph: LabelingGraph,
    *,
    max_images: int = 20_000,
    seed: int = 0,
    always: NDArray[np.integer] | None = None,
) -> NDArray[np.float32]:
    """Positions of all images in two dimensions, by PaCMAP.

    PaCMAP (Wang, Huang, Rudin and Shaposhnik, Understanding How Dimension Reduction Tools Work,
    JMLR 22, 2021) begins with the first two principal components. Its neighbours are those of the
    graph; where some images are laid out only, neighbours are searched for among these. Where it is
    not installed, and for fewer than 50 images, principal components are all there is.

    Args:
        graph: The images and their neighbours.
        max_images: At most so many are laid out, evenly spread; the others go to the mean of their
            most similar neighbours that have a place, link after link.
        seed: Seed of the pairs that PaCMAP draws.
        always: Images that are laid out before others, such as labelled ones; they get half of the
            places at most, if there are too many.

    Returns:
        float32 (N, 2), the same for every number of threads. In memory are the vectors of those
        that are laid out, and a copy.
    """
    n_images = len(graph.vectors)
    nodes = _laid_out(n_images, max_images, always)
    with logged_step(f"laid out {len(nodes)} of {n_images} images"), _one_thread():
        vectors = graph.vectors.take(nodes)
        mean, axes = _principal_axes(vectors)
        start = np.asarray((vectors - mean) @ axes, np.float32)
        if not _can_use_pacmap(len(nodes)) or not start.std(axis=0).all():
            return _projected(graph.vectors, mean, axes)
        neighbors = _nearest(graph, nodes, vectors)
        placed = _pacmap(vectors, neighbors, start, seed % _MAX_SEED)
    if len(nodes) == n_images:
        return placed
    return _place_others(graph, nodes, placed)


def _laid_out(
    n_images: int, max_images: int, always: NDArray[np.integer] | None
) -> NDArray[np.int64]:
    """Which images are laid out, increasing."""
    if n_images <= max_images:
        return np.arange(n_images)
    first = np.unique(np.empty(0, np.int64) if always is None else always)
    first = first[spread_rows(len(first), max_images // 2)]
    others = np.setdiff1d(np.arange(n_images), first, assume_unique=True)
    others = others[spread_rows(len(others), max_images - len(first))]
    return np.sort(np.concatenate([first, others]))


def _principal_axes(
    vectors: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean (d,) and the first two principal axes (d, 2), of which some may be 0."""
    dimension = vectors.shape[1]
    if not len(vectors):
        return np.zeros(dimension, np.float32), np.zeros((dimension, 2), np.float32)
    mean = vectors.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((dimension, dimension))
    for first, last in row_ranges(len(vectors), _BLOCK_ROWS):
        centred = vectors[first:last] - mean
        covariance += centred.T @ centred
    _, directions = np.linalg.eigh(covariance)
    axes = np.zeros((dimension, 2), np.float32)
    found = directions[:, ::-1][:, :2]
    # The other direction would do as well: the largest entry is positive.
    found = found * np.sign(found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])])
    axes[:, : found.shape[1]] = found
    return mean.astype(np.float32), axes


def _can_use_pacmap(n_images: int) -> bool:
    if n_images < _MIN_IMAGES:
        return False
    if find_spec("pacmap") is None:
        logger.warning(
            "the map shows principal components alone: pacmap is not installed; type: %s",
            command("pacmap"),
        )
        return False
    return True


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for products of matrices, whose last bits depend on the number of threads."""
    with threadpool_limits(1, user_api="blas"):
        yield


def _projected(
    vectors: NodeVectors, mean: NDArray[np.float32], axes: NDArray[np.float32]
) -> NDArray[np.float32]:
    positions = np.empty((len(vectors), 2), np.float32)
    for first, last in vectors.blocks():
        positions[first:last] = (vectors.read(first, last) - mean) @ axes
    return positions


def _nearest(
    graph: LabelingGraph, nodes: NDArray[np.int64], vectors: NDArray[np.float32]
) -> NDArray[np.int32]:
    """The neighbours that PaCMAP attracts, int32 (m, 10), as numbers of rows of `nodes`.

    A row with fewer ends with itself, which has no effect.
    """
    if len(nodes) == len(graph.vectors):
        neighbors, similarities = graph.neighbors, graph.similarities
    else:
        search = ExactNodes(vectors, COSINE, "vectors of the map")
        neighbors, similarities = search.search(vectors, min(_CANDIDATES + 1, len(vectors)))
    own = np.arange(len(neighbors), dtype=np.int32)[:, None]
    is_link = (neighbors >= 0) & (neighbors != own)
    squared = np.where(is_link, 2 - 2 * np.minimum(similarities, 1), np.inf)
    order = np.argsort(squared, axis=1, kind="stable")[:, :_CANDIDATES]
    squared = np.take_along_axis(squared, order, 1)
    neighbors = np.where(np.isfinite(squared), np.take_along_axis(neighbors, order, 1), own)
    distances = np.sqrt(squared[:, _SCALE])
    there = np.isfinite(distances)
    scale = np.where(there, distances, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    # Images that have hardly any neighbours, or duplicates alone, have no scale.
    scale = np.maximum(scale, 1e-10)
    scaled = squared / scale[:, None] / scale[neighbors]
    best = np.argsort(scaled, axis=1, kind="stable")[:, :_NEIGHBORS]
    found = np.tile(own, (1, _NEIGHBORS))
    found[:, : best.shape[1]] = np.take_along_axis(neighbors, best, 1)
    return found


def _pacmap(
    vectors: NDArray[np.float32],
    neighbors: NDArray[np.int32],
    start: NDArray[np.float32],
    seed: int,
) -> NDArray[np.float32]:
    """Lay out images whose neighbours are known."""
    watch = Stopwatch()
    import numba
    import pacmap

    if watch.seconds > _SECONDS_TO_IMPORT:
        logger.info("pacmap was compiled, as once in an installation: %.1f s", watch.seconds)
    rows = np.repeat(np.arange(len(vectors), dtype=np.int32), _NEIGHBORS)
    pairs = np.column_stack([rows, neighbors.ravel()])
    its_logger = logging.getLogger("pacmap.pacmap")
    level, n_threads = its_logger.level, numba.get_num_threads()
    # It warns of every seed, and of a search for neighbours that there is none of.
    its_logger.setLevel(logging.ERROR)
    # Its loops are too short for several threads, which wait for each other.
    numba.set_num_threads(1)
    try:
        # Made where it is used: the seed is that of the estimator made last. With pairs given it
        # leaves faiss alone, whose threads it takes away otherwise.
        mapper = pacmap.PaCMAP(
            n_neighbors=_NEIGHBORS, pair_neighbors=pairs, apply_pca=False, random_state=seed
        )
        positions = mapper.fit_transform(vectors, init=start)
    finally:
        numba.set_num_threads(n_threads)
        its_logger.setLevel(level)
    return np.asarray(positions, np.float32)


def _place_others(
    graph: LabelingGraph, nodes: NDArray[np.int64], placed: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Put the images that were not laid out where their neighbours are."""
    n_images = len(graph.vectors)
    positions = np.zeros((n_images, 2), np.float32)
    positions[nodes] = placed
    has_place = np.zeros(n_images, bool)
    has_place[nodes] = True
    with Progress(n_images - len(nodes), "images beside their neighbours", unit="image") as bar:
        while True:
            waiting, found = np.flatnonzero(~has_place), []
            for first, last in row_ranges(len(waiting), _BLOCK_ROWS):
                rows = waiting[first:last]
                near = graph.neighbors[rows]
                is_placed = (near >= 0) & has_place[near]
                is_placed &= is_placed.cumsum(axis=1) <= _NEAREST_PLACED
                n_placed = is_placed.sum(axis=1)
                total = np.where(is_placed[:, :, None], positions[near], 0).sum(axis=1)
                positions[rows] = total / np.maximum(n_placed, 1)[:, None]
                found.append(rows[n_placed > 0])
            new = np.concatenate([*found, np.empty(0, np.int64)])
            if not len(new):
                break
            # Those found now are neighbours from the next link on.
            has_place[new] = True
            bar.update(len(new))
        if len(waiting):
            _place_by_vectors(graph.vectors, waiting, nodes, positions)
    return positions


def _place_by_vectors(
    vectors: NodeVectors,
    waiting: NDArray[np.int64],
    nodes: NDArray[np.int64],
    positions: NDArray[np.float32],
) -> None:
    """Put images that no link leads away from, to a place, beside one that looks like them."""
    compared = nodes[spread_rows(len(nodes), _MAX_COMPARED)]
    search = ExactNodes(vectors.take(compared), COSINE, "vectors of the map")
    for first, last in row_ranges(len(waiting), _BLOCK_ROWS):
        rows = waiting[first:last]
        nearest = search.search(vectors.take(rows), 1).indices[:, 0]
        positions[rows] = positions[compared[nearest]]
