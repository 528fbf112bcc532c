"""Images that look the same."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lowshot_kedro.errors import InputError
from lowshot_kedro.labeling import duplicates
from lowshot_kedro.labeling.attention import Duplicates
from lowshot_kedro.labeling.duplicates import near_duplicates
from lowshot_kedro.labeling.nodes import LabelingGraph
from tests.labeling.attention import graph_of


def groups_of(found: Duplicates) -> list[list[int]]:
    assert len(found.nodes) == len(found.groups) == len(found.similarity)
    # Groups are numbered in the order in which they stand, nodes increase in each.
    assert found.groups.tolist() == sorted(found.groups.tolist())
    groups = [
        found.nodes[found.groups == number].tolist()
        for number in range(int(found.groups.max(initial=-1)) + 1)
    ]
    assert all(group == sorted(group) and len(group) > 1 for group in groups)
    return groups


def on_circle(degrees: list[float]) -> NDArray[np.float64]:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_groups_of_the_similar_the_most_similar_first() -> None:
    vectors = on_circle([0, 3, 90, 91, 180, 200, 92])
    found = near_duplicates(graph_of(vectors, 5), 0.99)
    assert groups_of(found) == [[2, 3, 6], [0, 1]]
    one, three = np.cos(np.radians([1, 3]))
    np.testing.assert_allclose(found.similarity, [one, one, one, three, three], atol=1e-6)
    assert found.nodes.dtype == found.groups.dtype == np.int32
    assert found.similarity.dtype == np.float32


def test_a_chain_of_small_steps_is_no_group() -> None:
    vectors = on_circle(list(range(0, 180, 4)))
    threshold = float(np.cos(np.radians(5)))
    groups = groups_of(near_duplicates(graph_of(vectors, 10), threshold))
    assert sum(map(len, groups)) >= 40
    for group in groups:
        cosines = vectors[group] @ vectors[group].T
        # Each is similar to one of them.
        assert (cosines >= threshold).all(axis=1).any()
        assert len(group) <= 3


@pytest.mark.parametrize("noise", [0, 1e-7])
def test_copies_stay_together_however_many_there_are(noise: float) -> None:
    rng = np.random.default_rng(0)
    distinct = rng.normal(size=(30, 64))
    vectors = np.concatenate([distinct, np.tile(distinct[:1], (40, 1)), distinct[5:7]])
    vectors += noise * rng.normal(size=vectors.shape)
    found = near_duplicates(graph_of(vectors, 5), 1.0)
    assert groups_of(found) == [[0, *range(30, 70)], [5, 70], [6, 71]]
    np.testing.assert_allclose(found.similarity, 1, atol=1e-5)
    assert (found.similarity <= 1).all()


def test_copies_that_the_graph_has_left_out_are_found() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 8))
    vectors[10:18] = vectors[3]
    graph = graph_of(vectors, 4, n_first=5)
    for node in (3, *range(10, 18)):
        graph.neighbors[node], graph.similarities[node] = -1, -np.inf
    assert groups_of(near_duplicates(graph, 0.9999)) == [[3, *range(10, 18)]]


def test_an_image_similar_to_copies_joins_all_of_them() -> None:
    vectors = np.concatenate([np.tile(on_circle([0]), (9, 1)), on_circle([5, 10, 45])])
    found = near_duplicates(graph_of(vectors, 4), float(np.cos(np.radians(5.5))))
    groups = groups_of(found)
    assert next(group for group in groups if 0 in group)[:9] == list(range(9))
    assert any(9 in group for group in groups)
    assert not any(11 in group for group in groups)


def brute_force(vectors: NDArray[np.float64], threshold: float) -> set[frozenset[int]]:
    """Star clustering on all pairs."""
    cosines = vectors @ vectors.T
    near = cosines >= threshold
    np.fill_diagonal(near, False)
    free = set(range(len(vectors)))
    found = set()
    for center in np.argsort(-near.sum(axis=1), kind="stable").tolist():
        if center in free:
            group = {center, *np.flatnonzero(near[center])} & free
            free -= group
            if len(group) > 1:
                found.add(frozenset(int(node) for node in group))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_it_is_star_clustering(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK_ROWS", 17)
    vectors = np.random.default_rng(seed).normal(size=(120, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = near_duplicates(graph_of(vectors, 119), 0.97)
    groups = groups_of(found)
    assert {frozenset(group) for group in groups} == brute_force(vectors, 0.97)
    for group in groups:
        cosines = vectors[group] @ vectors[group].T - 2 * np.eye(len(group))
        own = found.similarity[np.isin(found.nodes, group)]
        np.testing.assert_allclose(own, cosines.max(axis=1), atol=1e-5)
    tops = [found.similarity[found.groups == number].max() for number in range(len(groups))]
    assert tops == sorted(tops, reverse=True)


def test_zero_vectors_and_missing_neighbours_are_no_duplicates() -> None:
    vectors = np.zeros((6, 3))
    vectors[4:] = [1, 0, 0]
    graph = graph_of(vectors, 3)
    graph.neighbors[:4] = -1
    graph.similarities[:4] = -np.inf
    assert groups_of(near_duplicates(graph, 0.5)) == [[4, 5]]


def test_nothing_is_similar() -> None:
    found = near_duplicates(graph_of(np.eye(5), 3), 0.5)
    assert len(found.nodes) == len(found.groups) == len(found.similarity) == 0


def test_equal_checksums_of_different_vectors_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(duplicates, "_checksums", lambda vectors: np.zeros(len(vectors), np.uint64))
    graph: LabelingGraph = graph_of(on_circle([0, 1, 90, 180]), 3)
    assert groups_of(near_duplicates(graph, 0.99)) == [[0, 1]]


def test_a_similarity_above_one_is_refused() -> None:
    with pytest.raises(InputError, match="min_similarity"):
        near_duplicates(graph_of(np.eye(3), 2), 1.5)


def test_images_that_cannot_be_read_are_no_duplicates() -> None:
    graph = graph_of(on_circle([0, 0, 90, 90]), 2)
    assert groups_of(near_duplicates(graph, 0.9)) == [[0, 1], [2, 3]]
    assert groups_of(near_duplicates(graph, 0.9, np.array([2, 3]))) == [[0, 1]]


def test_what_is_as_near_as_many_others_is_no_duplicate() -> None:
    rng = np.random.default_rng(0)
    # Sixty that are alike, and two pairs: one far from them, and one among them that is nearer.
    alike = np.eye(1, 64) + 0.02 * rng.normal(size=(60, 64))
    far = np.eye(2, 64, 1)[:1] + 0.002 * rng.normal(size=(2, 64))
    vectors = np.concatenate([alike, far, alike[:1] + 0.002 * rng.normal(size=64)])
    graph = graph_of(vectors, 25)
    assert (graph.similarities[:60] > 0.95).all()
    assert sorted(groups_of(near_duplicates(graph, 0.95))) == [[0, 62], [60, 61]]
    # In short lists nobody knows what else is near.
    assert len(near_duplicates(graph_of(vectors, 10), 0.95).nodes) > 50
