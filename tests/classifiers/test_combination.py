import numpy as np
import pytest

from lowshot_kedro.classifiers import weighted_averages
from lowshot_kedro.methods import METHODS


def combine(diffusion, probabilities, weight):
    """As sweeps and single runs do it."""
    with np.errstate(divide="ignore"):
        logarithms = np.log(np.array(probabilities, dtype=np.float32))
    return combine_scores(np.array(diffusion, dtype=np.float32), logarithms, weight)


def combine_scores(diffusion, logarithms, weight):
    (found,) = weighted_averages(
        METHODS["diffusion"].probabilities(diffusion),
        METHODS["logistic_regression"].probabilities(logarithms),
        [weight],
    )
    return found


def test_a_combination_worked_out_by_hand():
    # Diffusion as probabilities: (¼, ¾) and (1, 0).
    found = combine([[1, 3], [0.2, 0]], [[0.5, 0.5], [0.1, 0.9]], 0.25)
    expected = [
        [0.25 * 0.25 + 0.75 * 0.5, 0.25 * 0.75 + 0.75 * 0.5],
        [0.25 * 1 + 0.75 * 0.1, 0.75 * 0.9],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("weight", "expected"), [(0, [[0.3, 0.7]]), (1, [[0.25, 0.75]]), (0.5, [[0.275, 0.725]])]
)
def test_the_weight_is_that_of_the_diffusion(weight, expected):
    np.testing.assert_allclose(combine([[2, 6]], [[0.3, 0.7]], weight), expected, rtol=1e-6)


def test_a_point_that_no_label_reached_has_the_regression_only():
    found = combine([[0, 0], [1, 1]], [[0.2, 0.8], [0.2, 0.8]], 0.5)
    np.testing.assert_allclose(found, [[0.1, 0.4], [0.35, 0.65]], rtol=1e-6)


def test_probability_zero_stays_zero():
    np.testing.assert_allclose(combine([[1, 1]], [[0, 1]], 0.5), [[0.25, 0.75]], rtol=1e-6)


def test_rows_sum_to_one_where_labels_arrived():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(6), 40)
    found = combine(rng.random((40, 6)) * 1e-6, probabilities, 0.3)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_the_arguments_stay_as_they_are():
    diffusion = np.ones((2, 3), dtype=np.float32)
    logarithms = np.full((2, 3), -1, dtype=np.float32)
    combine_scores(diffusion, logarithms, 0.5)
    assert (diffusion == 1).all()
    assert (logarithms == -1).all()


def test_different_shapes_are_refused():
    message = r"scores to combine: found shapes \(2, 3\) and \(1, 3\), expected the same"
    with pytest.raises(ValueError, match=message):
        combine_scores(np.zeros((2, 3), np.float32), np.zeros((1, 3), np.float32), 0.5)


def test_several_weights_give_what_each_gives_alone():
    rng = np.random.default_rng(0)
    diffusion = rng.random((5, 3)).astype(np.float32)
    diffusion[2] = 0
    logarithms = np.log(rng.dirichlet(np.ones(3), 5)).astype(np.float32)
    weights = [0.75, 0, 1, 0.25]
    probabilities = METHODS["diffusion"].probabilities(diffusion)
    found = weighted_averages(probabilities, np.exp(logarithms), iter(weights))
    for weight, combined in zip(weights, found, strict=True):
        np.testing.assert_array_equal(combined, combine_scores(diffusion, logarithms, weight))


def test_different_shapes_are_refused_before_the_first_is_asked_for():
    with pytest.raises(ValueError, match="scores to combine: found shapes"):
        weighted_averages(np.zeros((2, 3), np.float32), np.zeros((1, 3), np.float32), [0.5])
