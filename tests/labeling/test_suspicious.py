"""Given labels that are probably wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.datasets import load_digits

from lowshot_kedro.labeling import suspicious
from lowshot_kedro.labeling.suspicious import suspicious_labels
from tests.labeling.attention import given_labels, graph_of, labeling_of


def left_out(
    vectors: NDArray[np.float64], classes: NDArray[np.int64], groups: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Ridge regression fitted anew without each label and its group."""
    n_classes = int(classes.max()) + 1
    rows = np.column_stack([vectors, np.ones(len(vectors))])
    weights = len(classes) / n_classes / np.bincount(classes)[classes]
    ridge = np.diag([*[1.0] * vectors.shape[1], 1e-3])
    predicted = np.empty((len(rows), n_classes))
    for row in range(len(rows)):
        kept = np.arange(len(rows)) != row
        if groups[row] >= 0:
            kept &= groups != groups[row]
        weighted = rows[kept] * weights[kept, None]
        predicted[row] = rows[row] @ np.linalg.solve(
            rows[kept].T @ weighted + ridge, weighted.T @ np.eye(n_classes)[classes[kept]]
        )
    return predicted


@pytest.mark.parametrize("with_groups", [False, True])
def test_least_squares_is_that_of_fits_without_the_label(
    with_groups: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 5)).astype(np.float32)
    graph = graph_of(vectors, 4, n_first=10)
    nodes = np.sort(rng.choice(40, 23, replace=False)).astype(np.int32)
    classes = rng.integers(0, 3, 23).astype(np.int32)
    groups = np.full(23, -1)
    if with_groups:
        groups[:9] = [0, 0, 1, 1, 1, 2, -1, 0, 3]
    monkeypatch.setattr(suspicious, "_BLOCK_ROWS", 7)
    found = suspicious._least_squares(
        graph.vectors, nodes, classes, groups.astype(np.int32) if with_groups else None, 3
    )
    expected = left_out(graph.vectors.take(nodes).astype(np.float64), classes, groups)
    # The scale is fitted, and the same for all.
    logits = np.log(found)
    differences = logits - logits[:, :1]
    expected = expected - expected[:, :1]
    scale = float((differences * expected).sum() / (expected**2).sum())
    np.testing.assert_allclose(differences, scale * expected, atol=2e-3)
    np.testing.assert_allclose(found, softmax(scale * expected, axis=1), atol=1e-3)
    own = np.arange(23), classes
    best = np.log(found[own]).mean()
    for factor in (0.8, 1.25):
        other = softmax(scale * factor * expected, axis=1)
        assert np.log(other[own]).mean() <= best + 1e-6


def test_planted_errors_are_found() -> None:
    pixels, classes = load_digits(return_X_y=True)
    pixels, classes = pixels[:600], classes[:600]
    rng = np.random.default_rng(0)
    labels = np.full(600, -1)
    nodes = np.sort(rng.choice(600, 300, replace=False))
    labels[nodes] = classes[nodes]
    wrong = rng.choice(nodes, 30, replace=False)
    labels[wrong] = (classes[wrong] + rng.integers(1, 10, 30)) % 10
    graph = graph_of(pixels - pixels.mean(axis=0), 30)
    # Held-out labels: votes of the labelled neighbours.
    votes = np.zeros((300, 10))
    for row, node in enumerate(nodes):
        for other in graph.neighbors[node]:
            if other != node and labels[other] >= 0:
                votes[row, labels[other]] += 1
    votes /= np.maximum(votes.sum(axis=1, keepdims=True), 1)
    found = suspicious_labels(graph, labeling_of(given_labels(labels), held_out=(nodes, votes)))
    assert np.isin(found.nodes[:30], wrong).mean() >= 0.9
    assert len(found.nodes) < 60
    assert (np.diff(found.suspicion) <= 0).all()
    assert (found.suspicion >= 0).all() and (found.suspicion <= 1).all()
    assert (found.suggested != labels[found.nodes]).all()
    hits = np.isin(found.nodes, wrong)
    assert (found.suggested[hits] == classes[found.nodes[hits]]).mean() > 0.9

    labels[nodes] = classes[nodes]
    clean = suspicious_labels(
        graph, labeling_of(given_labels(labels), held_out=(nodes, np.eye(10)[classes[nodes]]))
    )
    assert len(clean.nodes) <= 3


def two_clusters(n_each: int = 10) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    labels = np.repeat([0, 1], n_each)
    vectors = np.eye(2)[labels] + 0.1 * np.random.default_rng(0).normal(size=(2 * n_each, 2))
    return vectors, labels


def test_the_only_label_of_a_class_is_not_suspicious_among_others() -> None:
    vectors, labels = two_clusters()
    labels[4] = 2
    nodes = np.flatnonzero(labels < 2)
    held_out = np.eye(3)[labels[nodes]]
    found = suspicious_labels(
        graph_of(vectors, 6), labeling_of(given_labels(labels), held_out=(nodes, held_out))
    )
    assert found.nodes.tolist() == []
    assert found.suspicion.dtype == np.float32 and found.suggested.dtype == np.int32


def test_copies_with_two_labels_are_suspicious_both() -> None:
    vectors, labels = two_clusters()
    vectors[4] = vectors[3]
    labels[4] = 2
    nodes = np.flatnonzero(labels < 2)
    held_out = np.eye(3)[labels[nodes]]
    found = suspicious_labels(
        graph_of(vectors, 6), labeling_of(given_labels(labels), held_out=(nodes, held_out))
    )
    assert dict(zip(found.nodes.tolist(), found.suggested.tolist(), strict=True)) == {3: 2, 4: 0}
    assert (found.suspicion == 0.5).all()


def test_a_label_is_named_once_with_its_larger_suspicion() -> None:
    vectors, labels = two_clusters()
    labels[3] = 1
    vectors[4] = vectors[3]
    nodes = np.arange(20)
    truth = np.repeat([0, 1], 10)
    held_out = 0.9 * np.eye(2)[truth] + 0.05
    found = suspicious_labels(
        graph_of(vectors, 6), labeling_of(given_labels(labels), held_out=(nodes, held_out))
    )
    assert found.nodes[0] == 3 and found.suspicion[0] > 0.75 and found.suggested[0] == 0
    assert sorted(found.nodes.tolist()) == [3, 4]


def test_what_nothing_reached_is_judged_by_the_vectors_alone() -> None:
    vectors, labels = two_clusters(30)
    labels[5] = 1
    held_out = np.zeros((60, 2))
    found = suspicious_labels(
        graph_of(vectors, 6),
        labeling_of(given_labels(labels), held_out=(np.arange(60), held_out)),
    )
    assert found.nodes[0] == 5 and found.suggested[0] == 0
    assert len(found.nodes) <= 2


def test_without_held_out_labels_there_is_nothing_to_say() -> None:
    found = suspicious_labels(
        graph_of(np.eye(4), 2), labeling_of(given_labels(np.array([0, 1, -1, -1])))
    )
    assert len(found.nodes) == len(found.suspicion) == len(found.suggested) == 0


def test_a_label_that_somebody_has_checked_is_not_listed_and_speaks_for_others() -> None:
    """Images 3 and 4 are copies with two labels, image 3 is among those of the other class."""
    vectors, labels = two_clusters()
    labels[3] = 1
    vectors[4] = vectors[3]
    held_out = np.arange(20), 0.9 * np.eye(2)[np.repeat([0, 1], 10)] + 0.05
    graph = graph_of(vectors, 6)

    def found(*checked: int) -> dict[int, int]:
        is_checked = np.isin(np.arange(20), checked)
        given = dataclasses.replace(given_labels(labels), checked=is_checked)
        result = suspicious_labels(graph, labeling_of(given, held_out=held_out))
        assert len(result.suspicion) == len(result.nodes)
        return dict(zip(result.nodes.tolist(), result.suggested.tolist(), strict=True))

    assert found() == {3: 0, 4: 1}
    assert found(3) == {4: 1}
    assert found(4) == {3: 0}
    assert found(3, 4) == {}
    assert found(5) == {3: 0, 4: 1}


def test_a_group_does_not_speak_for_itself() -> None:
    """Five images of a burst, all labelled wrong: together they would be right."""
    vectors, labels = two_clusters(15)
    vectors = np.column_stack([vectors, np.zeros((30, 1))])
    vectors[:5] = [1, 0, 3] + 0.01 * np.random.default_rng(1).normal(size=(5, 3))
    labels[:5] = 1
    groups = np.full(30, -1)
    groups[:5] = 0
    held_out = np.full((30, 2), 0.5)

    def suspicion(groups: NDArray[np.int64] | None) -> NDArray[np.int64]:
        given = given_labels(labels, groups)
        found = suspicious._least_squares(
            graph_of(vectors, 6).vectors,
            np.arange(30, dtype=np.int32),
            given.labels,
            given.groups,
            held_out.shape[1],
        )
        return found[:5].argmax(axis=1)

    assert (suspicion(None) == 1).all()
    assert (suspicion(groups) == 0).all()
