"""What users of scikit-learn take for granted."""

import pickle
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from lowshot_kedro import LabelDiffusion

from .making import clusters, few_labels, two_islands


@pytest.mark.filterwarnings("ignore::UserWarning")
@parametrize_with_checks(
    [LabelDiffusion(), LabelDiffusion(metric="cosine"), LabelDiffusion(n_iterations=20)]
)
def test_scikit_learn_finds_nothing_to_complain_about(estimator, check):
    check(estimator)


def checks_of(estimator):
    return {
        (check.func if isinstance(check, partial) else check).__name__
        for _, check in estimator_checks_generator(estimator)
    }


def test_scikit_learn_checks_no_less_than_of_its_own_label_spreading():
    assert checks_of(LabelDiffusion()) >= checks_of(LabelSpreading())


# --- parameters and copies ---


def test_parameters_have_the_documented_names_and_defaults():
    assert LabelDiffusion().get_params() == {
        "n_neighbors": 10,
        "n_iterations": "auto",
        "metric": "euclidean",
        "graph_method": "auto",
        "target_recall": 0.99,
        "class_prior": "labeled",
        "precision": "float32",
        "class_slice": "auto",
        "n_components": 256,
        "memory_budget_gb": None,
        "n_jobs": None,
        "random_state": 0,
        "verbose": False,
    }
    model = LabelDiffusion(7, 3)
    assert (model.n_neighbors, model.n_iterations) == (7, 3)
    with pytest.raises(TypeError):
        LabelDiffusion(7, 3, "cosine")
    assert is_classifier(model)


def test_a_clone_is_not_fitted_and_fits_alike():
    X, classes = clusters()
    y = few_labels(classes)
    model = LabelDiffusion(5, class_prior=[1, 2, 3], random_state=3).fit(X, y)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    for call in (copy.predict, copy.predict_proba):
        with pytest.raises(NotFittedError):
            call(X)
    with pytest.raises(NotFittedError):
        copy.score(X, y)
    np.testing.assert_array_equal(copy.fit(X, y).transduction_, model.transduction_)


def test_parameters_may_be_numbers_of_numpy():
    X, classes = clusters()
    y = few_labels(classes)
    plain = LabelDiffusion(5, 3, target_recall=1.0, class_slice=2, n_jobs=1).fit(X, y)
    of_numpy = LabelDiffusion(
        np.int64(5),
        np.int32(3),
        target_recall=np.float32(1),
        class_slice=np.int16(2),
        n_jobs=np.int64(1),
        random_state=np.int64(0),
        class_prior=np.array([2, 2, 2]),
    ).fit(X, y)
    np.testing.assert_array_equal(of_numpy.label_distributions_, plain.label_distributions_)


@pytest.mark.parametrize("graph_method", ["exact", "ivf", "HNSW32"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_pickled_estimator_predicts_the_same(metric, graph_method):
    X, classes = clusters(300, dimension=8)
    new, _ = clusters(40, dimension=8, seed=1)
    model = LabelDiffusion(metric=metric, graph_method=graph_method)
    model.fit(X, few_labels(classes))
    before = model.predict_proba(new)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict_proba(new), before)
    np.testing.assert_array_equal(copy.transduction_, model.transduction_)


def test_an_estimator_fitted_on_a_file_can_be_pickled_and_outlives_the_file(tmp_path):
    X, classes = clusters(300, dimension=8)
    path = tmp_path / "rows.raw"
    X.astype(np.float32).tofile(path)
    rows = np.memmap(path, np.float32, "r", shape=X.shape)
    model = LabelDiffusion(5).fit(rows, few_labels(classes))
    expected = LabelDiffusion(5).fit(X.astype(np.float32), few_labels(classes)).predict_proba(X)
    pickled = pickle.dumps(model)
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    del model, rows
    path.unlink()
    np.testing.assert_array_equal(pickle.loads(pickled).predict_proba(X), expected)


def test_fit_forgets_what_it_learned_before_and_leaves_its_input_alone():
    X, classes = clusters()
    y = few_labels(classes)
    model = LabelDiffusion(5).fit(X, np.where(y < 0, y, y + 5))
    model.fit(X[:, :2], y)
    fresh = LabelDiffusion(5).fit(X[:, :2], y)
    np.testing.assert_array_equal(model.classes_, [0, 1, 2])
    assert model.n_features_in_ == 2
    np.testing.assert_array_equal(model.label_distributions_, fresh.label_distributions_)
    np.testing.assert_array_equal(X, clusters()[0])
    np.testing.assert_array_equal(y, few_labels(classes))


def test_the_index_of_the_largest_share_is_the_class_and_shares_sum_to_one():
    X, classes = clusters(spread=1.0)
    new, _ = clusters(spread=1.0, seed=1)
    model = LabelDiffusion(5).fit(X, few_labels(classes + 7))
    for shares, labels in (
        (model.predict_proba(new), model.predict(new)),
        (model.label_distributions_, model.transduction_),
    ):
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_array_equal(model.classes_[shares.argmax(axis=1)], labels)


# --- frames ---


def test_columns_of_a_frame_are_remembered_and_compared():
    X, classes = clusters()
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"], index=np.arange(60) + 500)
    y = few_labels(classes)
    model = LabelDiffusion(5).fit(frame, pd.Series(y, index=frame.index[::-1]))
    np.testing.assert_array_equal(model.feature_names_in_, ["a", "b", "c", "d"])
    assert model.n_features_in_ == 4
    plain = LabelDiffusion(5).fit(X, y)
    assert not hasattr(plain, "feature_names_in_")
    np.testing.assert_array_equal(model.predict_proba(frame), plain.predict_proba(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["b", "a", "c", "d"]])
    with pytest.raises(ValueError, match="3 features"):
        plain.predict(X[:, :3])


# --- pipelines and searches ---


def test_a_pipeline_with_frames_between_its_steps_works():
    X, classes = clusters()
    y = few_labels(classes)
    pipeline = make_pipeline(StandardScaler(), LabelDiffusion(5)).set_output(transform="pandas")
    pipeline.fit(X, y)
    scaled = StandardScaler().fit_transform(X)
    model = LabelDiffusion(5).fit(scaled, y)
    assert list(pipeline[-1].feature_names_in_) == ["x0", "x1", "x2", "x3"]
    np.testing.assert_array_equal(pipeline.predict(X), model.predict(scaled))
    assert pipeline.score(X, classes) == model.score(scaled, classes)


def test_a_search_chooses_parameters_by_the_labelled_rows():
    X, classes = clusters(150, spread=1.2)
    y = few_labels(classes, 20)
    folds = StratifiedKFold(3)
    grid = {"n_neighbors": np.array([4, 12]), "n_iterations": [1, "auto"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        search = GridSearchCV(LabelDiffusion(), grid, cv=folds, error_score="raise").fit(X, y)
        for number, parameters in enumerate(search.cv_results_["params"]):
            for fold, (train, test) in enumerate(folds.split(X, y)):
                model = LabelDiffusion(**parameters).fit(X[train], y[train])
                labeled = test[y[test] != -1]
                expected = (model.predict(X[labeled]) == y[labeled]).mean()
                found = search.cv_results_[f"split{fold}_test_score"][number]
                assert found == pytest.approx(expected)
    assert 0.4 < search.best_score_ < 1
    assert search.predict(X).shape == (150,)


# --- score ---


def test_score_is_the_accuracy_over_rows_with_a_label():
    X, classes = clusters(spread=1.2)
    model = LabelDiffusion(5).fit(X, few_labels(classes))
    correct = model.predict(X) == classes
    assert 0.4 < correct.mean() < 1
    assert model.score(X, classes) == pytest.approx(correct.mean())

    truth = np.where(np.arange(60) % 4 == 0, -1, classes)
    counted = truth != -1
    assert model.score(X, truth) == pytest.approx(correct[counted].mean())
    weights = np.random.default_rng(0).uniform(0.1, 5, 60)
    expected = np.average(correct[counted], weights=weights[counted])
    assert model.score(X, truth, sample_weight=weights) == pytest.approx(expected)


def test_score_compares_texts_with_texts():
    X, classes = clusters(spread=1.2)
    names = np.array(["cat", "dog", "owl"])[classes]
    hidden = few_labels(classes)
    model = LabelDiffusion(5).fit(X, np.where(hidden < 0, "-1", names))
    expected = (model.predict(X) == names).mean()
    assert 0.4 < expected < 1
    for some in (
        np.where(np.arange(60) < 50, names, "-1"),
        np.where(np.arange(60) < 50, names.astype(object), -1),
    ):
        assert model.score(X, names) == pytest.approx(expected)
        assert model.score(X, some) == pytest.approx((model.predict(X) == names)[:50].mean())


def test_a_row_that_nothing_reaches_is_a_wrong_one():
    X, y = two_islands()
    with pytest.warns(UserWarning):
        model = LabelDiffusion(5, 10).fit(X, y)
    truth = np.where(np.arange(30) < 20, model.transduction_, 0)
    of_first = (model.predict(X[:20]) == truth[:20]).sum()
    with pytest.warns(UserWarning):
        assert model.score(X, truth) == pytest.approx(of_first / 30)


def test_score_of_nothing_is_refused():
    X, classes = clusters()
    model = LabelDiffusion(5).fit(X, few_labels(classes))
    with pytest.raises(ValueError, match=r"^y: .*60.*label"):
        model.score(X, np.full(60, -1))
    with pytest.raises(ValueError, match="sample_weight"):
        model.score(X, classes, sample_weight=np.zeros(60))
