import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowshot_kedro.diffusion import (
    PropagationOptions,
    adjustments,
    choice,
    choose_diffusion,
    expected_steps,
    neighbor_candidates,
    propagation_matrix,
)

from .truth import dense_matrix, dense_scores


def clusters(sizes, seed=0, spread=0.6):
    """Neighbour lists of points around one centre for each size, nearest first; their classes."""
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(sizes)), sizes)
    points = 2 * rng.standard_normal((len(sizes), 3))[classes]
    points += spread * rng.standard_normal(points.shape)
    order = rng.permutation(len(points))
    points, classes = points[order], classes[order]
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    return np.argsort(distances, axis=1, kind="stable").astype(np.int32), classes


def labels_first(neighbors, classes, n_labeled):
    """The graph renumbered so that the first so many nodes of each class come first."""
    labeled = np.concatenate(
        [np.flatnonzero(classes == number)[:n] for number, n in enumerate(n_labeled)]
    )
    order = np.concatenate([labeled, np.setdiff1d(np.arange(len(classes)), labeled)])
    rank = np.argsort(order).astype(np.int32)
    return rank[neighbors][order], classes[labeled].astype(np.int32)


N_LABELED = (2, 9, 2, 14, 2)
IS_NOVEL = np.array([True, False, True, False, True])


@pytest.fixture(scope="module")
def case():
    neighbors, classes = clusters([40] * 5, spread=1.3)
    return labels_first(neighbors[:, :20], classes, N_LABELED)


def matrix_of(neighbors):
    return lambda k: propagation_matrix(np.ascontiguousarray(neighbors[:, :k]))


def dense_accuracies(neighbors, labels, is_novel, n_steps, seed=0, **steps):
    """The weighted accuracy for held-out labels after each step, round by round, label by label."""
    nodes = np.arange(len(neighbors))
    n_classes = len(is_novel)
    found = {(few, c): [] for few in (True, False) for c in range(n_classes)}
    for part in choice.rounds_of(labels, is_novel, seed):
        kept = np.setdiff1d(np.arange(len(labels)), part.held_out)
        order = np.concatenate([kept, np.setdiff1d(nodes, kept)])
        rank = np.argsort(order)
        asked = [
            rank[[node for node in neighbors[label] if node != label]] for label in part.tested
        ]
        links = np.full((len(asked), max(map(len, asked))), -1)
        for row, listed in zip(links, asked, strict=True):
            row[: len(listed)] = listed
        scores = dense_scores(
            dense_matrix(rank[neighbors][order]), labels[kept], links, n_classes, n_steps, **steps
        )
        n_novel = np.bincount(labels, minlength=n_classes)[is_novel].max()
        for number, label in enumerate(part.tested):
            true = labels[label]
            acting = not is_novel[true] and np.count_nonzero(labels[kept] == true) == n_novel
            of_label = scores[:, number]
            right = (of_label.max(axis=1) > 0) & (of_label.argmax(axis=1) == true)
            found[bool(is_novel[true] or acting), true].append(right)
    part = is_novel.mean()
    of_roles = {
        role: np.mean([np.mean(f, axis=0) for (few, _), f in found.items() if few == role and f], 0)
        for role in (True, False)
    }
    return part * of_roles[True] + (1 - part) * of_roles[False]


# --- what is held out ---


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=8),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(1, 3),
)
def test_every_base_class_acts_once_and_no_class_loses_all_its_labels(
    base_counts, n_novel_labels, seed, n_novel
):
    counts = np.array([*base_counts, *[n_novel_labels] * n_novel])
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    is_novel = np.arange(len(counts)) >= len(base_counts)
    rounds = choice.rounds_of(labels, is_novel, seed)
    assert len(rounds) <= 5
    acted = np.zeros(len(counts), int)
    dealt = np.zeros(len(counts), int)
    for part in rounds:
        assert len(part.tested) > 0
        assert np.isin(part.tested, part.held_out).all()
        held_out = np.bincount(labels[part.held_out], minlength=len(counts))
        assert (held_out < counts).all()
        for number in np.flatnonzero(held_out):
            if is_novel[number] or part.is_few[labels[part.tested] == number].any():
                assert part.is_few[labels[part.tested] == number].all()
            if not is_novel[number] and part.is_few[labels[part.tested] == number].all():
                acted[number] += 1
                assert counts[number] - held_out[number] == n_novel_labels
            else:
                dealt[number] += held_out[number]
    more = ~is_novel & (counts > n_novel_labels)
    np.testing.assert_array_equal(acted, more)
    # The others, in the rounds in which they do not act, hold out each label once at most.
    assert (dealt <= counts).all()
    np.testing.assert_array_equal(dealt[is_novel], counts[is_novel] * (n_novel_labels > 1))


def test_a_class_with_many_labels_speaks_no_louder_than_others():
    labels = np.repeat(np.arange(4), [3000, 40, 2, 2]).astype(np.int32)
    is_novel = np.array([False, False, True, True])
    rounds = choice.rounds_of(labels, is_novel, 0)
    assert all(len(part.tested) <= 1000 for part in rounds)
    weights, cells = choice.weights_of(rounds, labels, is_novel)
    assert weights.sum() == pytest.approx(1)
    classes = np.concatenate([labels[part.tested] for part in rounds])
    few = np.concatenate([part.is_few for part in rounds])
    # Two of four classes are novel, and two base classes act: four classes share a half.
    for number in range(4):
        assert weights[few & (classes == number)].sum() == pytest.approx(0.5 / 4)
    for number in range(2):
        assert weights[~few & (classes == number)].sum() == pytest.approx(0.5 / 2)
    assert len(np.unique(cells)) == sum(len(np.unique(labels[part.tested])) for part in rounds)


# --- the choice ---


@pytest.mark.parametrize("steps", [{}, {"power": 1.5}, {"clamping": True}])
def test_accuracy_is_that_of_leaving_each_round_out(case, steps):
    neighbors, labels = case
    found = choose_diffusion(
        matrix_of(neighbors), neighbors, (5, 20), labels, IS_NOVEL,
        PropagationOptions(adjustments=adjustments(**steps)),
    )  # fmt: skip
    n_steps = len(found.steps.accuracy) - 1
    dense = {
        k: dense_accuracies(neighbors[:, :k], labels, IS_NOVEL, n_steps, **steps) for k in (5, 20)
    }
    # Float32 may see equal scores otherwise: one label of a class with few.
    np.testing.assert_allclose(found.steps.accuracy, dense[found.k], atol=0.02)
    assert found.accuracy_per_k[found.k] == found.steps.accuracy[found.steps.n_iterations]
    # The curve tells one variant from another.
    assert np.ptp(dense[5] - dense[20]) > 0.05


def test_a_given_number_of_steps_is_kept(case):
    neighbors, labels = case
    found = choose_diffusion(
        matrix_of(neighbors), neighbors, (5, 10, 20), labels, IS_NOVEL, n_iterations=2
    )
    assert found.steps.n_iterations == 2
    assert set(found.accuracy_per_k) == {5, 10, 20}
    for k, accuracy in found.accuracy_per_k.items():
        dense = dense_accuracies(neighbors[:, :k], labels, IS_NOVEL, 2)
        assert accuracy == pytest.approx(dense[2], abs=0.02)
    none = choose_diffusion(matrix_of(neighbors), neighbors, (5,), labels, IS_NOVEL, n_iterations=0)
    assert (none.steps.n_iterations, len(none.steps.accuracy)) == (0, 1)


def test_one_label_of_a_novel_class_is_kept_and_base_classes_speak_for_it():
    neighbors, classes = clusters([40] * 4)
    neighbors, labels = labels_first(neighbors[:, :10], classes, (1, 20, 1, 20))
    is_novel = np.array([True, False, True, False])
    found = choose_diffusion(matrix_of(neighbors), neighbors, (5, 10), labels, is_novel)
    assert found.steps.accuracy is not None
    acting = [labels[part.tested[part.is_few]] for part in choice.rounds_of(labels, is_novel, 0)]
    assert sorted({*np.concatenate(acting)}) == [1, 3]


def test_without_a_label_to_hold_out_the_usual_numbers_are_taken():
    neighbors, classes = clusters([40] * 3)
    neighbors, labels = labels_first(neighbors[:, :30], classes, (1, 1, 1))
    found = choose_diffusion(
        matrix_of(neighbors), neighbors, (5, 10, 20, 30), labels, np.array([True] * 3)
    )
    expected = expected_steps(
        propagation_matrix(np.ascontiguousarray(neighbors[:, :10])),
        np.arange(3, dtype=np.int32), labels, 3,
    )  # fmt: skip
    assert (found.k, found.steps.n_iterations, found.steps.accuracy) == (10, expected, None)
    assert found.accuracy_per_k == dict.fromkeys((5, 10, 20, 30))


def test_held_out_labels_overrule_ten_neighbors():
    # Groups of six: the five nearest are of the same class, the next ones of the next.
    neighbors, classes = clusters([6] * 40, spread=0.01)
    after = [np.flatnonzero(classes == (number + 1) % 40) for number in classes]
    neighbors = np.concatenate([neighbors[:, :5], after, np.roll(after, 1, axis=1)], axis=1)
    neighbors = neighbors.astype(np.int32)
    is_novel = np.arange(40) % 2 == 0
    neighbors, labels = labels_first(neighbors, classes, np.where(is_novel, 2, 5))
    found = choose_diffusion(matrix_of(neighbors), neighbors, (5, 10), labels, is_novel)
    assert found.k == 5
    assert found.accuracy_per_k[5] > 0.95 > found.accuracy_per_k[10]


@pytest.mark.parametrize(
    ("sums", "good"),
    [
        # One cell in four says 0.1 more, the others the same: the error is 0.1 too.
        ([[0.2, 0.2, 0.2, 0.2], [0.3, 0.2, 0.2, 0.2]], [True, True]),
        # Two cells do: 0.2 is more than √2 · 0.1.
        ([[0.2, 0.2, 0.2, 0.2], [0.3, 0.3, 0.2, 0.2]], [False, True]),
        # Two do, one says the contrary: 0.1 against √3 · 0.1.
        ([[0.2, 0.2, 0.3, 0.2], [0.3, 0.3, 0.2, 0.2]], [True, True]),
        ([[0.1, 0.1], [0.1, 0.1], [0.0, 0.0]], [True, True, False]),
    ],
)
def test_as_good_as_the_best_but_for_a_standard_error(sums, good):
    assert choice._as_good_as_the_best(np.array(sums)).tolist() == good


@pytest.mark.parametrize(
    ("max_k", "expected"),
    [(1, (1,)), (4, (4,)), (5, (5,)), (12, (5, 10)), (32, (5, 10, 20, 30))],
)
def test_no_more_neighbors_are_tried_than_there_are(max_k, expected):
    assert neighbor_candidates(max_k) == expected
