from contextlib import nullcontext as nothing_to_expect

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lowshot_kedro import LabelDiffusion, native
from lowshot_kedro.diffusion import PropagationOptions, propagate, propagation_matrix
from lowshot_kedro.graph import insert_labeled_nodes, unlabeled_nodes

from .making import clusters, digits, few_labels
from .truth import (
    as_shares,
    classes_of,
    distributions,
    is_clear,
    knn_links,
    links_of,
    nearest,
    spread,
)

METRICS = ["euclidean", "cosine"]
PRIORS = ["uniform", "labeled", [0.2, 3, 1]]


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float32)


def assert_as_computed_densely(X, y, new, k, n_iterations, metric, class_prior):
    """All that fit and predict give is what the formulas give."""
    scores = spread(knn_links(X, k, metric), y, n_iterations, class_prior)
    expected = distributions(scores, y)
    links = links_of(nearest(new, X, k, metric), len(X))
    expected_of_new = as_shares(links @ scores)

    model = LabelDiffusion(k, n_iterations, metric=metric, class_prior=class_prior).fit(X, y)
    found = model.predict_proba(new)
    assert (model.label_distributions_.dtype, found.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(model.label_distributions_, expected, atol=2e-5)
    np.testing.assert_allclose(found, expected_of_new, atol=2e-5)
    assert model.n_iterations_ == n_iterations
    assert model.validation_accuracy_ is None

    classes = np.unique(y[y != -1])
    np.testing.assert_array_equal(model.classes_, classes)
    for shares, labels in (
        (expected, model.transduction_),
        (expected_of_new, model.predict(new)),
    ):
        ranked = np.sort(np.pad(shares, ((0, 0), (1, 0))), axis=1)
        certain = (ranked[:, -1] - ranked[:, -2] > 1e-4) | (ranked[:, -1] == 0)
        np.testing.assert_array_equal(labels[certain], classes_of(shares, classes)[certain])
        assert np.isin(labels, [-1, *classes]).all()
    assert model.n_unreached_ == (~expected.any(axis=1)).sum()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("class_prior", PRIORS, ids=str)
@pytest.mark.parametrize("n_iterations", [0, 1, 3, 20])
@pytest.mark.parametrize("metric", METRICS)
def test_labels_are_those_of_the_formulas_computed_densely(metric, n_iterations, class_prior):
    X, classes = clusters(90, spread=1.0)
    y = few_labels(classes)
    # So that labeled is another prior than uniform.
    y[np.flatnonzero(classes == 1)[:9]] = 1
    new, _ = clusters(25, spread=1.0, seed=1)
    assert is_clear(X, X, 6, metric) and is_clear(new, X, 6, metric)
    assert_as_computed_densely(X, y, new, 6, n_iterations, metric, class_prior)


@st.composite
def small_problems(draw):
    n, n_new = draw(st.integers(1, 25)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** draw(st.integers(-3, 3))
    points = scale * rng.standard_normal((n + n_new, draw(st.integers(1, 4))))
    n_classes = draw(st.integers(1, min(3, n)))
    y = np.where(rng.random(n) < draw(st.sampled_from([0.1, 0.5, 1.0])), 0, -1)
    y[y == 0] = rng.integers(0, n_classes, (y == 0).sum())
    y[rng.permutation(n)[:n_classes]] = range(n_classes)
    prior = draw(
        st.sampled_from(["uniform", "labeled"])
        | st.lists(st.floats(0.1, 9), min_size=n_classes, max_size=n_classes)
    )
    return points[:n], y, points[n:], draw(st.integers(1, min(n, 6))), prior


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(deadline=None, max_examples=25)
@given(small_problems(), st.sampled_from([0, 1, 2, 3, 20]), st.sampled_from(METRICS))
def test_any_small_problem_is_solved_as_computed_densely(problem, n_iterations, metric):
    X, y, new, k, prior = problem
    # In one dimension all angles are alike.
    assume(metric == "euclidean" or X.shape[1] > 1)
    assume(is_clear(X, X, k, metric, 1e-5) and is_clear(new, X, k, metric, 1e-5))
    assert_as_computed_densely(X, y, new, k, n_iterations, metric, prior)


@pytest.mark.parametrize("class_prior", ["uniform", "labeled"])
@pytest.mark.parametrize("n_iterations", [0, 4])
def test_new_rows_score_as_test_images_do_in_a_run_of_the_pipeline(n_iterations, class_prior):
    X, classes = clusters(340, n_classes=5, dimension=16, spread=1.0)
    vectors, k, n_labeled = unit(X), 10, 17
    nodes, new = vectors[:300], vectors[300:]
    assert is_clear(nodes, nodes, k, "cosine") and is_clear(new, nodes, k, "cosine")
    labeled_classes = classes[:n_labeled].astype(np.int32)
    background = unlabeled_nodes(nodes[n_labeled:], k, "exact", "background")
    graph = insert_labeled_nodes(nodes[:n_labeled], new, background, k)
    scores = propagate(
        propagation_matrix(graph.neighbors),
        labeled_classes,
        graph.test_neighbors.indices,
        5,
        n_iterations,
        PropagationOptions(class_prior=class_prior),
    )[-1]

    y = np.full(len(nodes), -1)
    y[:n_labeled] = labeled_classes
    for case in (
        {"metric": "cosine", "rows": nodes, "new": new},
        {"metric": "precomputed", "rows": (graph.neighbors, None), "new":
         (graph.test_neighbors.indices, None)},
    ):  # fmt: skip
        model = LabelDiffusion(
            k, n_iterations, metric=case["metric"], class_prior=class_prior, graph_method="exact"
        )
        with pytest.warns(UserWarning) if n_iterations == 0 else nothing_to_expect():
            model.fit(case["rows"], y)
            found = model.predict_proba(case["new"])
        np.testing.assert_allclose(found, as_shares(scores), atol=1e-5)
        assert (n_iterations == 0) == (not found.any(axis=1).all())


# --- what must not matter, or only a little ---


def test_the_order_of_rows_does_not_matter():
    X, classes = clusters(90, spread=1.0)
    y, order = few_labels(classes), np.random.default_rng(0).permutation(90)
    new, _ = clusters(25, spread=1.0, seed=1)
    assert is_clear(X, X, 6) and is_clear(new, X, 6)
    model = LabelDiffusion(6, 5).fit(X, y)
    shuffled = LabelDiffusion(6, 5).fit(X[order], y[order])
    np.testing.assert_array_equal(shuffled.transduction_, model.transduction_[order])
    np.testing.assert_allclose(
        shuffled.label_distributions_, model.label_distributions_[order], atol=1e-5
    )
    np.testing.assert_allclose(shuffled.predict_proba(new), model.predict_proba(new), atol=1e-5)


def test_new_rows_do_not_know_of_each_other():
    X, classes = clusters(90, spread=1.0)
    model = LabelDiffusion(6, 5).fit(X, few_labels(classes))
    new, _ = clusters(25, spread=1.0, seed=1)
    together = model.predict_proba(new)
    one_by_one = np.concatenate([model.predict_proba(row[None]) for row in new])
    np.testing.assert_allclose(one_by_one, together, atol=1e-6)


@pytest.mark.parametrize("n_iterations", ["auto", 7])
def test_the_number_of_threads_changes_no_bit(n_iterations):
    X, classes = digits()
    y = few_labels(classes[:1000], 3)
    found = []
    for n_jobs in (1, 2, None):
        model = LabelDiffusion(n_iterations=n_iterations, n_jobs=n_jobs).fit(X[:1000], y)
        found.append((model, model.predict_proba(X[1000:])))
    (first, of_first), *others = found
    for other, of_other in others:
        assert other.n_iterations_ == first.n_iterations_
        np.testing.assert_array_equal(other.validation_accuracy_, first.validation_accuracy_)
        np.testing.assert_array_equal(other.label_distributions_, first.label_distributions_)
        np.testing.assert_array_equal(of_other, of_first)


def test_threads_are_afterwards_as_many_as_before():
    X, classes = clusters(60)
    y = few_labels(classes)
    before = native.get_num_threads()
    try:
        for n_threads, n_jobs in ((1, 2), (2, 1)):
            native.set_num_threads(n_threads)
            LabelDiffusion(5, 4, n_jobs=n_jobs).fit(X, y).predict(X)
            assert native.get_num_threads() == n_threads
    finally:
        native.set_num_threads(before)


@pytest.mark.parametrize("class_slice", [0, 1, 3])
def test_slices_of_classes_change_no_bit(class_slice):
    X, classes = digits()
    y = few_labels(classes[:600], 2)
    whole = LabelDiffusion(n_iterations=5).fit(X[:600], y)
    sliced = LabelDiffusion(n_iterations=5, class_slice=class_slice).fit(X[:600], y)
    np.testing.assert_array_equal(sliced.label_distributions_, whole.label_distributions_)


def test_half_the_precision_gives_about_the_same():
    X, classes = digits()
    y = few_labels(classes[:600], 2)
    full = LabelDiffusion(n_iterations=5).fit(X[:600], y)
    half = LabelDiffusion(n_iterations=5, precision="bfloat16").fit(X[:600], y)
    np.testing.assert_allclose(half.label_distributions_, full.label_distributions_, atol=0.02)
    assert (half.label_distributions_ != full.label_distributions_).any()


@pytest.mark.parametrize("graph_method", ["exact", "ivf", "descent", "Flat", "HNSW32"])
@pytest.mark.parametrize("metric", METRICS)
def test_every_way_to_build_the_graph_leads_to_about_the_same(metric, graph_method):
    X, classes = clusters(500, n_classes=4, dimension=8)
    y = few_labels(classes, 3)
    new, _ = clusters(100, n_classes=4, dimension=8, seed=1)
    exact = LabelDiffusion(n_iterations=5, metric=metric).fit(X, y)
    model = LabelDiffusion(n_iterations=5, metric=metric, graph_method=graph_method).fit(X, y)
    assert (model.transduction_ == exact.transduction_).mean() > 0.97
    assert (model.predict(new) == exact.predict(new)).mean() > 0.95
