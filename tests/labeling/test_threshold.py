import numpy as np
import pytest

from lowshot_kedro.errors import InputError
from lowshot_kedro.labeling.parameters import LabelingParameters
from lowshot_kedro.labeling.threshold import choose_threshold, require_no_class

CONFIDENCE = np.array([1, 0.9, 0.7, 0.6, 0.3, 0], np.float32)
IS_FOUND = np.array([False, True, True, True, True, False])
NOTHING = np.empty(0, np.float32), np.empty(0, np.bool_)


def chosen(held_out=NOTHING, confidence=CONFIDENCE, is_found=IS_FOUND, **parameters):
    return choose_threshold(LabelingParameters(**parameters), confidence, is_found, *held_out)


def held_out(n, seed=0):
    """Labels that are right as often as their confidence says."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.3, 1, n).astype(np.float32)
    return confidence, rng.uniform(size=n) < confidence


def test_without_a_wish_all_labels_are_kept():
    found = chosen()
    assert found.confidence is None
    assert not found.is_unknown.any()


def test_a_threshold_given_is_taken():
    found = chosen(threshold=0.7, unknown="no idea")
    assert found.confidence == 0.7
    assert found.is_unknown.tolist() == [False, False, False, True, True, False]
    assert "0.7 are no idea: 2 of 4 found labels are kept" in found.sentence


@pytest.mark.parametrize("accuracy", [0.7, 0.8, 0.9])
def test_the_smallest_confidence_with_the_accuracy_is_found(accuracy):
    confidence, right = held_out(400)
    found = chosen((confidence, right), accuracy=accuracy)
    good = [
        t for t in confidence
        if right[confidence >= t].sum() / ((confidence >= t).sum() + 1) >= accuracy
    ]  # fmt: skip
    assert found.confidence == min(good)
    above = confidence >= found.confidence
    assert f"Of {above.sum()} held-out labels above it" in found.sentence
    assert f"{100 * right[above].mean():.1f} % are right" in found.sentence
    others, whether = held_out(100_000, seed=1)
    assert whether[others >= found.confidence].mean() == pytest.approx(accuracy, abs=0.04)


def test_a_higher_accuracy_keeps_fewer_labels():
    kept = [int((~chosen(held_out(400), accuracy=a).is_unknown).sum()) for a in (0.5, 0.8, 0.95)]
    assert kept == sorted(kept, reverse=True)


def test_equal_confidences_are_kept_or_left_together():
    confidence = np.repeat(np.array([0.9, 0.5], np.float32), 50)
    right = np.ones(100, np.bool_)
    right[60:] = False
    found = chosen((confidence, right), accuracy=0.8)
    # The first ten of the second half are right, but no threshold separates them from the rest.
    assert found.confidence == np.float32(0.9)


def test_a_few_lucky_labels_say_nothing():
    confidence = np.linspace(0.5, 1, 40).astype(np.float32)
    right = np.arange(40) >= 30
    found = chosen((confidence, right), accuracy=0.95)
    assert "which nothing confirms" in found.sentence
    assert found.confidence == 0.95


def test_with_too_few_labels_the_mean_confidence_decides():
    confidence, right = held_out(20)
    found = chosen((confidence, right), accuracy=0.79)
    # 0.9 and 0.7 have a mean of 0.8, and with 0.6 it is 0.73.
    assert found.confidence == pytest.approx(0.7)
    assert "too few held-out labels" in found.sentence
    assert "are right" not in found.sentence
    # No mean reaches this one.
    assert chosen(NOTHING, accuracy=0.95).confidence == 0.95
    nothing = np.zeros(6, np.bool_)
    assert not chosen(NOTHING, is_found=nothing, accuracy=0.95).is_unknown.any()


def test_a_class_that_is_called_unknown_is_refused():
    require_no_class("unknown", ("cat", "dog"))
    with pytest.raises(InputError) as caught:
        require_no_class("dog", ("cat", "dog"))
    assert caught.value.parameter == "unknown"
    assert str(caught.value) == (
        "unknown: got 'dog', which is also a class; expected a text that is no class"
    )
