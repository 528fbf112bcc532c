"""Images to label next."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from lowshot_kedro.errors import InputError
from lowshot_kedro.labeling.next_images import images_to_label_next
from lowshot_kedro.labeling.nodes import LabelingGraph
from tests.labeling.attention import given_labels, graph_of, labeling_of


def assert_greedy(
    graph: LabelingGraph,
    labels: NDArray[np.int64],
    margin: NDArray[np.float32],
    chosen: NDArray[np.int32],
) -> None:
    """Each has the largest gain when it is chosen, on a full matrix with every gain made anew."""
    covers = np.eye(len(labels))
    for node in range(len(labels)):
        for other, cosine in zip(graph.neighbors[node], graph.similarities[node], strict=True):
            if other != node:
                covers[node, other] = covers[other, node] = max(0, min(1, cosine))
    is_taken = labels >= 0
    weights = 2 - margin.astype(np.float64)
    before = np.inf
    for node in chosen.tolist():
        covered = covers[is_taken].max(axis=0)
        gains = np.where(is_taken, -1, np.maximum(covers - covered, 0) @ weights)
        assert gains[node] == pytest.approx(gains.max(), abs=1e-5)
        assert gains[node] <= before + 1e-5
        before, is_taken[node] = gains[node], True


@pytest.mark.parametrize(("seed", "k", "n"), [(0, 8, 12), (1, 8, 40), (2, 20, 40), (3, 3, 74)])
def test_it_is_the_greedy_choice_of_the_sum(seed: int, k: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    graph = graph_of(rng.normal(size=(80, 4)), k)
    labels = np.full(80, -1)
    labels[rng.choice(80, 6, replace=False)] = np.arange(6) % 2
    margin = np.where(labels >= 0, 1, rng.random(80)).astype(np.float32)
    found = images_to_label_next(graph, labeling_of(given_labels(labels), margin), n, seed)
    assert len(found.nodes) == n
    assert_greedy(graph, labels, margin, found.nodes)
    assert found.nodes.dtype == np.int32
    assert "ProbCover" in found.rule


def test_every_group_of_images_gets_a_label_before_any_gets_two() -> None:
    rng = np.random.default_rng(0)
    sizes = [30, 20, 25, 15, 10]
    group = np.repeat(np.arange(5), sizes)
    vectors = np.eye(5)[group] + 0.02 * rng.normal(size=(100, 5))
    labels = np.full(100, -1)
    labels[0] = 0
    graph = graph_of(vectors, 30)
    found = images_to_label_next(graph, labeling_of(given_labels(labels)), 4).nodes
    # Without the group that has a label, the largest first.
    assert group[found].tolist() == [2, 1, 3, 4]


def test_of_two_groups_the_uncertain_one_comes_first() -> None:
    vectors = np.eye(3)[np.repeat([0, 1, 2], [1, 10, 10])]
    vectors += 0.01 * np.random.default_rng(0).normal(size=vectors.shape)
    labels = np.full(21, -1)
    labels[0] = 0
    for uncertain in (1, 2):
        margin = np.ones(21)
        margin[1 + 10 * (uncertain - 1) : 1 + 10 * uncertain] = 0.1
        labeling = labeling_of(given_labels(labels), margin)
        found = images_to_label_next(graph_of(vectors, 10), labeling, 1).nodes
        assert (found[0] - 1) // 10 == uncertain - 1


def test_a_seed_decides_between_equal_ones_and_nothing_else() -> None:
    vectors = np.eye(6)
    labels = np.full(6, -1)
    labels[2] = 0
    labeling = labeling_of(given_labels(labels))
    graph = graph_of(vectors, 2)
    draws = [images_to_label_next(graph, labeling, 5, seed).nodes.tolist() for seed in range(20)]
    assert all(sorted(draw) == [0, 1, 3, 4, 5] for draw in draws)
    assert len({tuple(draw) for draw in draws}) > 1
    assert draws[3] == images_to_label_next(graph, labeling, 5, 3).nodes.tolist()


def test_without_any_label_typical_images_come_first() -> None:
    vectors = np.eye(2)[np.repeat([0, 1], [12, 5])]
    vectors += 0.05 * np.random.default_rng(0).normal(size=vectors.shape)
    given = given_labels(np.full(17, -1))
    found = images_to_label_next(graph_of(vectors, 12), labeling_of(given), 2).nodes
    assert found[0] < 12 <= found[1]


@pytest.mark.parametrize(("n", "expected"), [(0, 0), (3, 3), (7, 7), (100, 7)])
def test_at_most_all_that_have_no_label(n: int, expected: int) -> None:
    labels = np.full(10, -1)
    labels[:3] = [0, 1, 0]
    graph = graph_of(np.random.default_rng(0).normal(size=(10, 3)), 4)
    found = images_to_label_next(graph, labeling_of(given_labels(labels)), n).nodes
    assert len(found) == len(set(found.tolist())) == expected
    assert not set(found.tolist()) & {0, 1, 2}


def test_what_a_labelled_image_covers_comes_last() -> None:
    vectors = np.eye(3)[np.repeat([0, 1, 2], [6, 2, 2])]
    labels = np.full(10, -1)
    labels[0] = 0
    graph = graph_of(vectors, 10)
    found = images_to_label_next(graph, labeling_of(given_labels(labels)), 3).nodes
    assert sorted((found[:2] // 2).tolist()) == [3, 4]
    assert found[2] < 6


def test_a_negative_number_is_refused() -> None:
    graph = graph_of(np.eye(3), 2)
    labeling = labeling_of(given_labels(np.array([0, 1, -1])))
    with pytest.raises(InputError, match="n: got -1"):
        images_to_label_next(graph, labeling, -1)


def test_an_image_that_cannot_be_read_is_not_asked_for() -> None:
    graph = graph_of(np.random.default_rng(0).normal(size=(10, 3)), 4)
    labels = np.array([0, 1, *[-1] * 8])
    labeling = replace(labeling_of(given_labels(labels)), broken=np.array([5, 7]))
    found = images_to_label_next(graph, labeling, 10)
    assert sorted(found.nodes.tolist()) == [2, 3, 4, 6, 8, 9]
