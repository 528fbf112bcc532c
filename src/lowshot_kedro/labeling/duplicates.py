"""Images that look the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.labeling.attention import Duplicates
from lowshot_kedro.labeling.nodes import LabelingGraph, NodeVectors
from lowshot_kedro.parameters import require_number
from lowshot_kedro.progress import logged_step

# What rounding takes from the cosine of equal vectors of some thousand float32 numbers.
# How much nearer two images are than the last ones in their lists, and how long these have to be.
# Of copies that were compressed, cropped or made brighter, among photographs and Fashion-MNIST,
# this finds as many as a cosine of 0.93 alone, or more, and fewer that are none.
_RATIO, _MIN_LISTED = 0.45, 20
_ROUNDING = 1e-5
_BLOCK_ROWS = 16384
_SEED = 20180618


def near_duplicates(
    graph: LabelingGraph, min_similarity: float, broken: NDArray[np.int64] | None = None
) -> Duplicates:
    """Groups of images that look the same, as the graph sees them.

    Copies, whose vectors are equal but for rounding, always stay together, however many there are.
    Of what is only similar, a group is an image and those linked to it that no group has got
    before, the image with most such links first: star clustering (J. Aslam, E. Pelekhov and D. Rus,
    "The Star Clustering Algorithm for Static and Dynamic Information Organization", Journal of
    Graph Algorithms and Applications, 2004). So each image of a group is as similar as asked for to
    the same one of them, and no chain of small differences joins images that do not look alike.

    Where many images are alike, as small ones of one kind are, a cosine alone says little: two have
    to be much nearer to each other than to the last image in their lists, as in the ratio test of
    D. Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004. Lists of fewer
    than 20 images, or of all that there are, say nothing of that.

    Args:
        graph: The graph over all images.
        min_similarity: Cosine from which two images look the same, up to rounding. Photographs that
            were compressed, resized or cropped by a little have 0.9 to 0.97 by EfficientNet-Lite0.
        broken: int64 (B,), images that cannot be read, and are in no group: all of them are blank.

    Returns:
        The groups. In memory besides: 16 bytes for each image, and 24 for each link between similar
        ones.

    Raises:
        ValueError: For a similarity outside 0..1.
    """
    require_number("min_similarity", min_similarity, 0, 1)
    with logged_step("near-duplicates"):
        pairs = _standing_out(graph, _similar_pairs(graph, min_similarity - _ROUNDING))
        if broken is not None and len(broken):
            whole = ~(np.isin(pairs.first, broken) | np.isin(pairs.second, broken))
            pairs = _Pairs(pairs.first[whole], pairs.second[whole], pairs.cosines[whole])
        return _ordered(_groups(pairs, len(graph.neighbors)), pairs)


class _Pairs(NamedTuple):
    """Pairs of similar images, each once.

    Attributes:
        first: (P,), the one with the lower number.
        second: (P,).
        cosines: float32 (P,), at most 1.
    """

    first: NDArray[np.integer]
    second: NDArray[np.integer]
    cosines: NDArray[np.float32]


def _similar_pairs(graph: LabelingGraph, min_similarity: float) -> _Pairs:
    """Pairs that a list of neighbours or equal vectors speak for."""
    none = np.empty(0, np.int64)
    parts = [_Pairs(none, none, np.empty(0, np.float32))]
    for first, last in row_ranges(len(graph.neighbors), _BLOCK_ROWS):
        neighbors, cosines = graph.neighbors[first:last], graph.similarities[first:last]
        rows, columns = np.nonzero((cosines >= min_similarity) & (neighbors >= 0))
        parts.append(_Pairs(first + rows, neighbors[rows, columns], cosines[rows, columns]))
    for pairs in _equal_vectors(graph.vectors):
        similar = pairs.cosines >= min_similarity
        parts.append(_Pairs(pairs.first[similar], pairs.second[similar], pairs.cosines[similar]))
    one, other, found = (np.concatenate(part) for part in zip(*parts, strict=True))
    low, high = np.minimum(one, other), np.maximum(one, other)
    order = np.lexsort((-found, high, low))
    # Two lists may name a pair, and their cosines differ by rounding.
    order = order[_changes(low[order]) | _changes(high[order])]
    order = order[low[order] != high[order]]
    return _Pairs(low[order], high[order], np.minimum(found[order], np.float32(1)))


def _standing_out(graph: LabelingGraph, pairs: _Pairs) -> _Pairs:
    """The pairs of copies, and those that are much nearer than other images are."""
    n_nodes, n_listed = graph.neighbors.shape
    if n_listed < _MIN_LISTED or n_listed >= n_nodes:
        return pairs
    # Where a list is not full, everything else is far away.
    last = np.maximum(graph.similarities[:, -1], -1)
    last[graph.neighbors[:, -1] < 0] = -np.inf
    distances = np.sqrt(np.maximum(2 - 2 * last, 0))
    limits = _RATIO * np.minimum(distances[pairs.first], distances[pairs.second])
    kept = np.sqrt(np.maximum(2 - 2 * pairs.cosines, 0)) <= limits
    kept |= pairs.cosines >= 1 - _ROUNDING
    return _Pairs(pairs.first[kept], pairs.second[kept], pairs.cosines[kept])


def _equal_vectors(vectors: NodeVectors) -> Iterator[_Pairs]:
    """Every vector that an earlier one equals, with the first such one.

    The graph may have left them out, where more are equal than a list has room for.
    """
    checksums = _checksums(vectors)
    order = np.argsort(checksums, kind="stable")
    begins = np.flatnonzero(_changes(checksums[order]))
    originals = np.repeat(order[begins], np.diff(begins, append=len(order)))
    is_copy = order != originals
    copies, originals = order[is_copy], originals[is_copy]
    for first, last in row_ranges(len(copies), _BLOCK_ROWS):
        some, of = copies[first:last], originals[first:last]
        # Different vectors may have one checksum.
        yield _Pairs(of, some, (vectors.take(some) * vectors.take(of)).sum(axis=1))


def _checksums(vectors: NodeVectors) -> NDArray[np.uint64]:
    """A number for every vector: the same for equal ones, as a rule another one for others."""
    factors = np.random.default_rng(_SEED).integers(0, 2**64, vectors.dimension, np.uint64)
    checksums = np.empty(len(vectors), np.uint64)
    for first, last in vectors.blocks():
        # Adding 0 makes -0 the same as 0.
        bits = (vectors.read(first, last) + np.float32(0)).view(np.uint32)
        checksums[first:last] = (bits * (factors | np.uint64(1))).sum(axis=1)
    return checksums


def _changes(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where another value begins, the first one included."""
    is_new = np.ones(len(values), np.bool_)
    is_new[1:] = values[1:] != values[:-1]
    return is_new


def _groups(pairs: _Pairs, n_nodes: int) -> NDArray[np.int64]:
    """The group of every image, int64 (N,)."""
    is_copy = pairs.cosines >= 1 - _ROUNDING
    n_units, units = connected_components(
        _matrix(pairs.first[is_copy], pairs.second[is_copy], n_nodes), directed=False
    )
    first, second = units[pairs.first], units[pairs.second]
    apart = first != second
    links = _matrix(first[apart], second[apart], n_units)
    links = (links + links.T).tocsr()
    counts = links.indptr[1:] - links.indptr[:-1]
    groups = np.full(n_units, -1)
    centers = np.flatnonzero(counts)
    for center in centers[np.argsort(-counts[centers], kind="stable")].tolist():
        if groups[center] < 0:
            members = links.indices[links.indptr[center] : links.indptr[center + 1]]
            groups[members[groups[members] < 0]] = groups[center] = center
    alone = groups < 0
    groups[alone] = np.flatnonzero(alone)
    of_node: NDArray[np.int64] = groups[units]
    return of_node


def _matrix(rows: NDArray[Any], columns: NDArray[Any], n_nodes: int) -> sparse.csr_array:
    ones = np.ones(len(rows), np.bool_)
    return sparse.coo_array((ones, (rows, columns)), shape=(n_nodes, n_nodes)).tocsr()


def _ordered(groups: NDArray[np.int64], pairs: _Pairs) -> Duplicates:
    """Groups of at least two images, that with the most similar ones first."""
    n_nodes = len(groups)
    together = groups[pairs.first] == groups[pairs.second]
    similarity = np.full(n_nodes, -1, np.float32)
    for ends in (pairs.first, pairs.second):
        np.maximum.at(similarity, ends[together], pairs.cosines[together])
    nodes = np.flatnonzero(similarity >= 0)
    of_group = np.full(n_nodes, -1, np.float32)
    np.maximum.at(of_group, groups[nodes], similarity[nodes])
    first_node = np.full(n_nodes, n_nodes)
    np.minimum.at(first_node, groups[nodes], nodes)
    of_node = groups[nodes]
    order = np.lexsort((nodes, first_node[of_node], -of_group[of_node]))
    nodes = nodes[order]
    numbers = np.cumsum(_changes(groups[nodes])) - 1
    return Duplicates(nodes.astype(np.int32), numbers.astype(np.int32), similarity[nodes])
