import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowshot_kedro.diffusion import (
    PropagationOptions,
    choose_steps,
    expected_steps,
    folds,
    held_out_scores,
    plan_memory,
    propagate,
    propagation_matrix,
    validation,
)

from .truth import dense_matrix, dense_scores


def chain(*sizes):
    """Chains of nodes, each linked to itself and to the next node on either side."""
    n_nodes = sum(sizes)
    ends = np.cumsum(sizes) - 1
    nodes = np.arange(n_nodes)
    before = np.where(np.isin(nodes - 1, ends), -1, nodes - 1)
    after = np.where(np.isin(nodes, ends), -1, nodes + 1)
    return np.stack([nodes, before, after], axis=1).astype(np.int32)


def ints(*values):
    return np.array(values, np.int32)


def dense_per_step(neighbors, nodes, classes, n_classes, n_steps):
    """Scores of all nodes, (n_steps + 1, N, C), the labelled ones being anywhere."""
    order = np.concatenate([nodes, np.setdiff1d(np.arange(len(neighbors)), nodes)])
    rank = np.argsort(order)
    renumbered = np.where(neighbors < 0, -1, rank[neighbors])[order]
    everyone = np.arange(len(neighbors))[:, None]
    scores = dense_scores(dense_matrix(renumbered), classes, everyone, n_classes, n_steps)
    return scores[:, rank]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 5))
def test_every_label_but_those_of_classes_with_one_is_held_out_once(classes, seed):
    classes = np.array(classes, np.int32)
    dealt = list(validation.folds(classes, seed))
    counts = np.bincount(classes)
    expected = np.flatnonzero(counts[classes] > 1)
    np.testing.assert_array_equal(np.sort(np.concatenate([*dealt, np.empty(0, int)])), expected)
    assert len(dealt) <= 5
    for fold in dealt:
        assert len(fold) > 0
        # Something of every class is left.
        assert (counts - np.bincount(classes[fold], minlength=len(counts)) > 0)[classes].all()
        for label in range(len(counts)):
            share = counts[label] / 5
            assert np.count_nonzero(classes[fold] == label) in (np.floor(share), np.ceil(share))


def test_a_class_spreads_until_its_perplexity_is_what_is_wanted():
    neighbors = chain(60)
    nodes, classes = ints(10, 30, 50), ints(0, 1, 2)
    scores = dense_per_step(neighbors, nodes, classes, 3, 300)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropies = -np.nansum(scores * np.log(scores), axis=1)
    spread = np.exp(entropies).mean(axis=1) / 60
    # One label a class: four times its share would be more than half of the nodes.
    wanted = np.flatnonzero(spread >= 0.5)[0]
    assert wanted > 20
    assert expected_steps(propagation_matrix(neighbors), nodes, classes, 3) == wanted


def test_more_labels_need_fewer_steps():
    labels = np.repeat(np.arange(6), 6).astype(np.int32)
    nodes = np.sort(np.random.default_rng(0).choice(90, 36, replace=False)).astype(np.int32)
    matrix = propagation_matrix(chain(90))
    few = np.arange(0, 36, 6)
    steps = [expected_steps(matrix, nodes[a], labels[a], 6) for a in (few, slice(None))]
    assert 300 > steps[0] > 2 * steps[1]


def test_labels_of_classes_that_are_not_sampled_change_nothing_for_the_others():
    neighbors = chain(200)
    nodes, labels = np.arange(0, 200, 5).astype(np.int32), np.arange(40, dtype=np.int32)
    found = expected_steps(propagation_matrix(neighbors), nodes, labels, 40)
    scores = dense_per_step(neighbors, nodes, labels, 40, 100)[:, :, np.arange(16) * 40 // 16]
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.exp(-np.nansum(scores * np.log(scores), axis=1)).mean(axis=1) / 200
    assert found == np.flatnonzero(spread[1:] >= 4 / 40)[0] + 1


@pytest.mark.parametrize("prior", ["uniform", "labeled", [1, 3, 2]])
@pytest.mark.parametrize("counts", [(6, 5, 3), (9, 2, 1), (2, 2, 2)])
@pytest.mark.parametrize("n_columns", [2, 7, 128])
def test_accuracy_is_that_of_leaving_each_fold_out(monkeypatch, n_columns, counts, prior):
    monkeypatch.setattr(validation, "MAX_COLUMNS", n_columns)
    neighbors = chain(30, 20)
    rng = np.random.default_rng(3)
    n_labels = sum(counts)
    nodes = np.sort(rng.choice(50, n_labels, replace=False)).astype(np.int32)
    classes = rng.permutation(np.repeat(np.arange(3), counts)).astype(np.int32)
    options = PropagationOptions(class_prior=prior)
    chosen = choose_steps(propagation_matrix(neighbors), nodes, classes, 3, options, seed=7)
    right = []
    for held_out in validation.folds(classes, 7):
        kept = np.setdiff1d(np.arange(n_labels), held_out)
        steps = len(chosen.accuracy) - 1
        scores = dense_per_step(neighbors, nodes[kept], classes[kept], 3, steps)[:, nodes[held_out]]
        scores *= {
            "uniform": [1, 1, 1],
            "labeled": np.bincount(classes[kept], minlength=3),
        }.get(str(prior), prior)
        found = np.where(scores.max(axis=2) > 0, scores.argmax(axis=2), -1)
        right.append(found == classes[held_out])
    right = np.concatenate(right, axis=1)
    # Float32 may see equal scores otherwise: one label is one of right.shape[1].
    assert np.abs(chosen.accuracy - right.mean(axis=1)).mean() < 0.5 / right.shape[1]
    assert len(chosen.accuracy) == max(2 * chosen.expected, 10) + 1


def test_without_two_labels_of_a_class_the_expected_number_is_taken():
    matrix = propagation_matrix(chain(50))
    chosen = choose_steps(matrix, ints(5, 30), ints(0, 1), 2)
    assert (
        chosen.n_iterations == chosen.expected == expected_steps(matrix, ints(5, 30), ints(0, 1), 2)
    )
    assert chosen.accuracy is None


@pytest.mark.parametrize("prior", ["uniform", "labeled"])
@pytest.mark.parametrize("n_labels", [1, 2, 5])
def test_scores_kept_are_those_of_the_chosen_number(n_labels, prior):
    matrix = propagation_matrix(chain(300, 100))
    nodes = np.arange(7, 400, 397 // (3 * n_labels)).astype(np.int32)[: 3 * n_labels + 1]
    classes = (np.arange(len(nodes)) % 3).astype(np.int32)
    options = PropagationOptions(class_prior=prior)
    chosen = choose_steps(matrix, nodes, classes, 3, options, keep_scores=True)
    everyone = np.arange(400, dtype=np.int32)[:, None]
    (expected,) = propagate(
        matrix, classes, everyone, 3, chosen.n_iterations, options, every_step=False,
        labeled_nodes=nodes,
    )  # fmt: skip
    np.testing.assert_array_equal(chosen.scores, expected)
    assert choose_steps(matrix, nodes, classes, 3, options).scores is None


@pytest.mark.parametrize("further", [-1, 0, 1])
def test_scores_are_not_kept_of_another_number(monkeypatch, further):
    def chosen_by_labels(right, expected):
        return expected + further

    monkeypatch.setattr(validation, "_nearest_of_the_best", chosen_by_labels)
    nodes, classes = ints(10, 20, 40, 50), ints(0, 0, 1, 1)
    chosen = choose_steps(propagation_matrix(chain(60)), nodes, classes, 2, keep_scores=True)
    assert chosen.n_iterations == chosen.expected + further
    assert (chosen.scores is None) == (further != 0)


def test_scores_are_not_kept_where_a_class_cannot_spread_on():
    # The steps had to go on to see that.
    matrix = propagation_matrix(chain(10, 10, 10, 10))
    chosen = choose_steps(matrix, ints(0, 10, 20, 30), ints(0, 1, 2, 3), 4, keep_scores=True)
    assert chosen.n_iterations == chosen.expected and chosen.scores is None


def test_scores_are_kept_of_all_of_few_classes_if_there_is_room():
    matrix = propagation_matrix(chain(400))
    for n_classes, is_kept in ((16, True), (17, False)):
        nodes = np.arange(0, 400, 20, dtype=np.int32)[:n_classes]
        classes = np.arange(n_classes, dtype=np.int32)
        chosen = choose_steps(matrix, nodes, classes, n_classes, keep_scores=True)
        assert (chosen.scores is not None) == is_kept
    everything = plan_memory(matrix, 400, 16, 1, PropagationOptions(backend="native")).total
    arguments = matrix, nodes[:16], classes[:16], 16
    for options, is_kept in (
        ({"memory_budget_bytes": 2 * everything}, True),
        ({"memory_budget_bytes": 2 * everything - 1}, False),
        ({"class_slice": 15}, False),
    ):
        options = PropagationOptions(backend="native", **options)
        chosen = choose_steps(*arguments, options, keep_scores=True)
        assert (chosen.scores is not None) == is_kept
        assert chosen.n_iterations == choose_steps(*arguments).n_iterations


def right_at(*accuracies, n_labels=100):
    """Held-out labels after 0, 1, 2 … steps, nested: who is right with fewer is so with more."""
    return np.array([np.arange(n_labels) < round(a * n_labels) for a in (0, *accuracies)])


@pytest.mark.parametrize(
    ("accuracies", "expected", "chosen"),
    [
        # One label less is within a standard error, √1; two are not within √2.
        ((0.90, 0.99, 1.0, 0.99, 0.5), 2, 2),
        ((0.90, 0.99, 1.0, 0.99, 0.5), 9, 4),
        ((0.90, 0.98, 1.0, 0.98, 0.5), 2, 3),
        ((0.90, 0.90, 1.0, 0.90, 0.5), 1, 3),
        # All the same: what is expected.
        ((0.5, 0.5, 0.5, 0.5, 0.5), 3, 3),
        # 2 and 8 are as far from 4.
        ((0.2, 0.9, 0.2, 0.2, 0.2, 0.2, 0.2, 0.9), 4, 2),
        # No step at all is never taken.
        ((0.0, 0.0), 1, 1),
    ],
)
def test_the_best_but_for_a_standard_error_and_near_to_the_expected(accuracies, expected, chosen):
    assert validation._nearest_of_the_best(right_at(*accuracies), expected) == chosen


def test_labels_that_are_right_here_and_wrong_there_widen_the_error():
    first, second = np.arange(100) < 95, np.arange(100) >= 7
    right = np.array([first & False, first, second])
    # 95 against 93: b = 7, c = 5, and 2 is within √12.
    assert validation._nearest_of_the_best(right, 2) == 2


def test_held_out_labels_overrule_the_expected_number():
    # Labels of a class alternate along a chain: only the nearest, soon reached, tell which it is.
    neighbors = chain(*[4] * 60)
    nodes = np.arange(240, dtype=np.int32)[np.arange(240) % 4 < 2]
    classes = (nodes // 4 % 2).astype(np.int32)
    chosen = choose_steps(propagation_matrix(neighbors), nodes, classes, 2)
    assert chosen.accuracy[chosen.n_iterations] >= chosen.accuracy.max() - 0.05


def test_where_a_class_cannot_spread_on_no_more_steps_are_expected():
    # Four chains with a label each: a class stays within a quarter of the nodes.
    nodes, classes = ints(0, 10, 20, 30), ints(0, 1, 2, 3)
    found = expected_steps(propagation_matrix(chain(10, 10, 10, 10)), nodes, classes, 4)
    spread = np.exp(
        [
            -sum(p * np.log(p) for p in scores[:10, 0] if p > 0)
            for scores in dense_per_step(chain(10, 10, 10, 10), nodes, classes, 4, 300)
        ]
    )
    # Near to all of its chain, but not for long.
    assert spread[found] > 0.9 * spread[300]
    assert spread[2 * found] < 1.05 * spread[found]
    assert spread[2 * (found - 1)] >= 1.05 * spread[found - 1]


@pytest.mark.parametrize("prior", ["uniform", [1, 3, 2]])
@pytest.mark.parametrize("n_columns", [2, 7, 128])
def test_held_out_scores_are_those_of_leaving_each_fold_out(monkeypatch, n_columns, prior):
    monkeypatch.setattr(validation, "MAX_COLUMNS", n_columns)
    # Nothing comes to the last chain without its only labels, and late to the end of the first.
    neighbors = chain(30, 20, 3)
    nodes = ints(0, 2, 4, 5, 8, 29, 30, 33, 36, 45, 50, 51)
    classes = ints(0, 1, 0, 2, 1, 0, 2, 2, 1, 1, 0, 1)
    dealt = [np.array(fold) for fold in ([0, 4, 6], [5, 7, 3], [10, 11, 1])]
    options = PropagationOptions(class_prior=prior)
    found = held_out_scores(propagation_matrix(neighbors), nodes, classes, 3, 4, dealt, options)
    weights = np.ones(3) if prior == "uniform" else np.array(prior) / 2
    expected = []
    for fold in dealt:
        kept = np.setdiff1d(np.arange(len(nodes)), fold)
        scores = dense_per_step(neighbors, nodes[kept], classes[kept], 3, 40)[:, nodes[fold]]
        for label in range(len(fold)):
            reached = np.flatnonzero(scores[4:, label].any(axis=1))
            expected.append(weights * (scores[4 + reached[0], label] if len(reached) else 0))
    assert not found[6:8].any()
    assert found[3].any()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_without_folds_there_are_no_held_out_scores():
    found = held_out_scores(propagation_matrix(chain(9)), ints(1, 5), ints(0, 1), 2, 3, [])
    assert found.shape == (0, 2)


def test_folds_may_be_others_than_the_usual_ones():
    matrix, nodes = propagation_matrix(chain(60)), ints(3, 10, 31, 33, 50, 52)
    classes = ints(0, 0, 1, 1, 2, 2)
    usual = choose_steps(matrix, nodes, classes, 3, seed=4)
    same = choose_steps(matrix, nodes, classes, 3, held_out=list(folds(classes, 4)))
    np.testing.assert_array_equal(same.accuracy, usual.accuracy)
    # Without its neighbour, the other label of its class is 19 links away, one of another 2.
    chosen = choose_steps(matrix, nodes, ints(0, 2, 1, 0, 2, 1), 3, held_out=[np.array([3])])
    assert chosen.accuracy[2] == 0
    assert len(chosen.accuracy) == max(2 * chosen.expected, 10) + 1
