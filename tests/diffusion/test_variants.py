import numpy as np
import pytest

from lowshot_kedro.diffusion import Clamping, LabeledRows, Power, class_priors, variants
from lowshot_kedro.diffusion.variants import adjustments
from lowshot_kedro.errors import InputError

from .cases import ints

NOBODY = LabeledRows(ints(), ints(), np.empty(0, np.float32), 2, ints())


def columns_to_one(scores):
    return scores / scores.sum(axis=0)


# --- adjustments ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("exponent", [0.5, 1.5, 2, 3])
def test_a_power_raises_every_score_up_to_the_scale_of_columns(dtype, exponent):
    before = columns_to_one(np.random.default_rng(0).random((50, 3)))
    scores = before.astype(dtype)
    Power(exponent)(scores, NOBODY)
    assert scores.dtype == dtype
    np.testing.assert_allclose(
        columns_to_one(scores.astype(np.float64)), columns_to_one(before**exponent), rtol=2e-6
    )


def test_a_power_leaves_columns_and_scores_of_zero_at_zero():
    scores = np.float32([[0, 0], [0, 0.25], [0, 0.75]])
    Power(2)(scores, NOBODY)
    np.testing.assert_array_equal(scores[:, 0], 0)
    assert scores[0, 1] == 0
    assert scores[2, 1] / scores[1, 1] == pytest.approx(9)


def test_a_power_of_small_scores_does_not_vanish():
    scores = np.full((10**5, 1), 1e-5, np.float32)
    Power(10)(scores, NOBODY)
    np.testing.assert_array_equal(scores, scores[0, 0])
    assert scores[0, 0] > 0.9


def test_a_power_of_blocks_of_rows_is_the_same(monkeypatch):
    whole = np.random.default_rng(0).random((50, 3), dtype=np.float32)
    parts = whole.copy()
    Power(1.5)(whole, NOBODY)
    monkeypatch.setattr(variants, "BLOCK_ROWS", 7)
    Power(1.5)(parts, NOBODY)
    np.testing.assert_array_equal(whole, parts)


def test_labelled_images_get_their_start_back_and_others_keep_their_scores():
    # A slice of classes 1 and 2: rows 4 and 2 are of class 1, row 0 of class 2, row 5 of another.
    labeled = LabeledRows(
        ints(4, 2, 0), ints(0, 0, 1), np.float32([0.5, 0.5, 1]), 2, ints(4, 2, 0, 5)
    )
    scores = np.full((6, 2), 0.125, np.float32)
    Clamping()(scores, labeled)
    expected = np.full((6, 2), 0.125)
    expected[[4, 2]], expected[0], expected[5] = [0.5, 0], [0, 1], [0, 0]
    np.testing.assert_array_equal(scores, expected)


def test_parameters_ask_for_adjustments_in_their_order():
    assert adjustments() == ()
    assert adjustments(power=1.5) == (Power(1.5),)
    assert adjustments(clamping=True) == (Clamping(),)
    assert adjustments(2, True) == (Power(2), Clamping())


# --- priors ---


def test_uniform_priors_are_one():
    np.testing.assert_array_equal(class_priors("uniform", ints(0, 0, 2), 4), [1, 1, 1, 1])


def test_labelled_priors_follow_the_labels_and_have_mean_one():
    found = class_priors("labeled", ints(0, 0, 2, 0), 4)
    np.testing.assert_array_equal(found, [3, 0, 1, 0])
    assert found.dtype == np.float32


def test_listed_priors_are_scaled_to_mean_one():
    found = class_priors([1, 0, 2.5, 0.5], ints(), 4)
    np.testing.assert_array_equal(found, [1, 0, 2.5, 0.5])
    np.testing.assert_array_equal(class_priors([10, 30], ints(), 2), [0.5, 1.5])
    assert found.dtype == np.float32


def test_an_unknown_prior_is_refused():
    message = "class_prior: got 'flat', expected one of: uniform, labeled, or a list"
    with pytest.raises(InputError, match=message):
        class_priors("flat", ints(0), 2)


@pytest.mark.parametrize("prior", [[1], [1, 1, 1], []])
def test_priors_of_another_length_are_refused(prior):
    message = rf"class_prior: got {len(prior)} numbers, expected one .* the 2 classes"
    with pytest.raises(InputError, match=message):
        class_priors(prior, ints(0), 2)


@pytest.mark.parametrize("prior", [[0, 0], [1, -1], [2, -1], [1, np.nan], [1, np.inf]])
def test_numbers_that_are_no_priors_are_refused(prior):
    with pytest.raises(InputError, match=r"class_prior: got .*, expected numbers of at least 0"):
        class_priors(prior, ints(0), 2)


def test_labelled_priors_without_labels_are_refused():
    with pytest.raises(InputError, match=r"class_prior"):
        class_priors("labeled", ints(), 2)
