"""Wrong parameters are named when fit begins."""

import logging
import re

import numpy as np
import pytest

from lowshot_kedro import LabelDiffusion
from lowshot_kedro.errors import InputError, NotEnoughMemoryError
from lowshot_kedro.estimators import label_diffusion

from .making import clusters, few_labels, two_islands

WRONG = [
    ("n_neighbors", 0),
    ("n_neighbors", -1),
    ("n_neighbors", 2.5),
    ("n_neighbors", "10"),
    ("n_neighbors", None),
    ("n_neighbors", 2.0),
    ("n_neighbors", True),
    ("n_iterations", -1),
    ("n_iterations", 1.5),
    ("n_iterations", "many"),
    ("n_iterations", None),
    ("n_iterations", "AUTO"),
    ("n_iterations", 2.0),
    ("n_iterations", True),
    ("n_iterations", [3]),
    ("metric", "manhattan"),
    ("metric", None),
    ("graph_method", "fastest"),
    ("graph_method", 3),
    ("target_recall", 0),
    ("target_recall", 1.5),
    ("target_recall", float("nan")),
    ("target_recall", "high"),
    ("class_prior", "balanced"),
    ("class_prior", [1, 2]),
    ("class_prior", [1, 2, -1]),
    ("class_prior", [0, 0, 0]),
    ("class_prior", [0, 1, 2]),
    ("class_prior", [1, 0.0, 2]),
    ("class_prior", (1, 2, 0)),
    ("class_prior", [1, 2, 1e-60]),
    ("class_prior", [1e308, 1e308, 1e308]),
    ("class_prior", [1, 2, 10**400]),
    ("class_prior", [1, 2, float("inf")]),
    ("class_prior", ["1", "2", "3"]),
    ("class_prior", [True, True, True]),
    ("class_prior", [1, 2, 3j]),
    ("class_prior", [1, 2, None]),
    ("class_prior", {0: 1, 1: 2, 2: 3}),
    ("class_prior", [1, 2, float("nan")]),
    ("class_prior", 5),
    ("class_prior", None),
    ("precision", "float16"),
    ("precision", np.float32),
    ("class_slice", -1),
    ("class_slice", 1.5),
    ("class_slice", "all"),
    ("n_components", 0),
    ("n_components", 2.5),
    ("n_components", "all"),
    ("memory_budget_gb", 0),
    ("memory_budget_gb", -1),
    ("memory_budget_gb", float("nan")),
    ("memory_budget_gb", "all"),
    ("n_jobs", 0),
    ("n_jobs", 1.5),
    ("n_jobs", "all"),
    ("random_state", "today"),
    ("random_state", -1),
    ("random_state", 1.0),
    ("random_state", True),
    ("random_state", 2**32),
    ("random_state", [1, 2]),
    ("verbose", "no"),
    ("verbose", None),
    ("memory_budget_gb", float("inf")),
    ("memory_budget_gb", True),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda value: str(value))
def test_a_wrong_parameter_is_named_with_what_was_found_and_expected(name, value):
    X, classes = clusters()
    model = LabelDiffusion(**{name: value})
    assert model.get_params()[name] is value
    with pytest.raises(ValueError) as raised:
        model.fit(X, few_labels(classes))
    message = str(raised.value)
    assert message.startswith(f"{name}: "), message
    found = "2 numbers" if (name, value) == ("class_prior", [1, 2]) else repr(value)[:70]
    assert found in message, message
    assert re.search("expected|one of", message), message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["n_iterations", "class_slice", "class_prior", "random_state"])
def test_an_array_where_none_belongs_is_shown_in_one_line(name):
    X, classes = clusters()
    value = np.zeros((30, 30))
    with pytest.raises(ValueError, match=rf"^{name}: got array\(\[\[0.*expected") as raised:
        LabelDiffusion(**{name: value}).fit(X, few_labels(classes))
    assert "\n" not in str(raised.value)


def test_a_number_that_cannot_be_written_is_named_all_the_same():
    X, classes = clusters()
    for name in ("random_state", "class_prior"):
        value = 10**5000 if name == "random_state" else [1, 2, 10**5000]
        with pytest.raises(ValueError, match=rf"^{name}: got a huge (int|list), expected"):
            LabelDiffusion(**{name: value}).fit(X, few_labels(classes))


def test_huge_numbers_of_threads_and_bytes_are_all_that_there_are():
    X, classes = clusters()
    y = few_labels(classes)
    plain = LabelDiffusion(5, 3).fit(X, y)
    for name, value in (
        ("n_jobs", 10**12), ("memory_budget_gb", 1e300), ("memory_budget_gb", 10**400)
    ):  # fmt: skip
        model = LabelDiffusion(5, 3, **{name: value}).fit(X, y)
        np.testing.assert_array_equal(model.transduction_, plain.transduction_)


def test_the_scale_of_priors_does_not_matter():
    X, classes = clusters(spread=1.2)
    y = few_labels(classes)
    plain = LabelDiffusion(5, 3, class_prior=[1, 2, 3]).fit(X, y)
    for scale in (1e-100, 1e100):
        model = LabelDiffusion(5, 3, class_prior=np.array([1, 2, 3]) * scale).fit(X, y)
        np.testing.assert_allclose(
            model.label_distributions_, plain.label_distributions_, rtol=1e-5
        )


def test_too_small_a_budget_says_what_is_needed():
    X, classes = clusters()
    with pytest.raises(ValueError, match=r"memory_budget_gb.* [KMG]i?B"):
        LabelDiffusion(memory_budget_gb=1e-9).fit(X, few_labels(classes))
    LabelDiffusion(memory_budget_gb=64).fit(X, few_labels(classes))


def test_more_neighbors_than_rows_are_all_rows():
    X, classes = clusters(30)
    y = few_labels(classes)
    with pytest.warns(UserWarning, match=r"n_neighbors.*31.*30") as warned:
        model = LabelDiffusion(31, 2).fit(X, y)
    assert len(warned) == 1
    every = LabelDiffusion(30, 2).fit(X, y)
    np.testing.assert_allclose(model.label_distributions_, every.label_distributions_, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X), every.predict_proba(X), atol=1e-6)


def test_parameters_are_looked_at_before_the_rows():
    with pytest.raises(ValueError, match="n_neighbors"):
        LabelDiffusion(0).fit(None, None)


@pytest.mark.parametrize(
    ("parameters", "name", "found", "kind"),
    [
        ({"graph_method": "hnsw"}, "graph_method", "hnsw", InputError),
        ({"memory_budget_gb": 0.01}, "memory_budget_gb", 10**7, NotEnoughMemoryError),
        ({"n_neighbors": 8193}, "n_neighbors", 8193, InputError),
    ],
)
def test_what_another_package_refuses_is_named_as_it_is_here(parameters, name, found, kind):
    rows = np.random.default_rng(0).standard_normal((8200, 2))
    labels = np.where(np.arange(len(rows)) < 2, [0, 1] * 4100, -1)
    with pytest.raises(kind) as raised:
        LabelDiffusion(**parameters).fit(rows, labels)
    assert (raised.value.parameter, raised.value.found) == (name, found)
    assert str(raised.value).startswith(f"{name}: got ")
    # Where it was refused, it had the name that it has there.
    cause = raised.value.__cause__
    assert cause.parameter != name
    assert str(raised.value) == f"{name}{str(cause).removeprefix(cause.parameter)}"


def refusing(kind):
    def scores_when_reached(*arguments, **options):
        raise kind(parameter="memory_budget_bytes", found=2 * 10**9, expected="more")

    return scores_when_reached


def test_rows_far_away_stay_without_a_label_where_memory_is_short(monkeypatch, caplog):
    points, labels = two_islands()
    monkeypatch.setattr(label_diffusion, "scores_when_reached", refusing(NotEnoughMemoryError))
    with caplog.at_level(logging.INFO), pytest.warns(UserWarning, match="10 of 30 rows"):
        model = LabelDiffusion(5).fit(points, labels)
    assert (model.transduction_[20:] == -1).all()
    assert "stay without a label: memory_budget_gb: got 2 GB, expected more" in caplog.text


def test_any_other_error_there_is_not_taken_for_that(monkeypatch):
    points, labels = two_islands()
    monkeypatch.setattr(label_diffusion, "scores_when_reached", refusing(InputError))
    with pytest.raises(InputError, match=r"^memory_budget_gb: got 2 GB, expected more$"):
        LabelDiffusion(5).fit(points, labels)
