import numpy as np
import pytest
from scipy.special import softmax

from lowshot_kedro.labeling import calibration
from lowshot_kedro.labeling.calibration import (
    SMALLEST,
    CalibratedMethod,
    accuracy_above,
    calibration_error,
    calibration_sentence,
    fit_temperature,
    most_probable,
    reliability,
    wilson_error,
    with_temperature,
)


def drawn(n, temperature, seed=0, n_classes=4):
    """Probabilities, and classes that are as frequent as they say at a temperature."""
    rng = np.random.default_rng(seed)
    probabilities = softmax(2 * rng.standard_normal((n, n_classes)), axis=1)
    tempered = probabilities ** (1 / temperature)
    tempered /= tempered.sum(axis=1, keepdims=True)
    classes = [rng.choice(n_classes, p=row) for row in tempered]
    return probabilities.astype(np.float32), np.array(classes, np.int32)


def loss(probabilities, classes, temperature, default, spread):
    logits = np.log(probabilities.astype(float) + SMALLEST) / temperature
    tempered = softmax(logits, axis=1)[np.arange(len(classes)), classes]
    return -np.log(tempered).sum() + (np.log(temperature / default) / spread) ** 2 / 2


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_temperature_is_found_again(temperature):
    found = fit_temperature(*drawn(20_000, temperature), default=0.7, spread=1)
    assert found == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("spread", [0.3, 2.0])
@pytest.mark.parametrize("n", [3, 40, 300])
def test_it_makes_labels_most_probable_beside_what_was_expected(n, spread):
    probabilities, classes = drawn(n, 0.5, seed=n)
    found = fit_temperature(probabilities, classes, 0.8, spread)
    tried = np.exp(np.linspace(-5, 5, 4001))
    losses = [loss(probabilities, classes, each, 0.8, spread) for each in tried]
    assert found == pytest.approx(tried[np.argmin(losses)], rel=0.005)


def test_where_nothing_is_known_it_is_the_default():
    nothing = np.zeros((50, 3), np.float32)
    for part in (nothing, nothing[:0]):
        found = fit_temperature(part, np.zeros(len(part), np.int32), 0.6, 1)
        assert found == pytest.approx(0.6, rel=1e-3)


def test_labels_that_are_all_right_do_not_make_it_certain():
    probabilities = np.full((8, 2), [0.7, 0.3], np.float32)
    found = fit_temperature(probabilities, np.zeros(8, np.int32), 0.5, 1)
    confidence = with_temperature(probabilities, found).max()
    assert 0.9 < confidence < 0.9999


def test_many_labels_are_fitted_by_some_of_them(monkeypatch):
    probabilities, classes = drawn(4000, 0.5)
    whole = fit_temperature(probabilities, classes, 5, 1)
    monkeypatch.setattr(calibration, "_MAX_FITTED", 2000)
    part = fit_temperature(probabilities, classes, 5, 1)
    # Each of them counts for two.
    assert part == pytest.approx(whole, rel=0.05)
    assert part != whole


def test_a_temperature_keeps_the_order_and_rows_of_zeros(monkeypatch):
    monkeypatch.setattr(calibration, "BLOCK_ROWS", 7)
    probabilities, _ = drawn(40, 1)
    probabilities[[3, 20]] = 0
    before = probabilities.copy()
    for temperature in (0.01, 0.5, 3):
        found = with_temperature(probabilities, temperature)
        np.testing.assert_array_equal(probabilities, before)
        np.testing.assert_array_equal(most_probable(found), most_probable(before))
        assert most_probable(found)[3] == -1
        expected = softmax(np.log(before.astype(float) + SMALLEST) / temperature, axis=1)
        expected[[3, 20]] = 0
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(with_temperature(probabilities, 3, in_place=True), found)
    np.testing.assert_array_equal(probabilities, found)


def test_what_has_not_arrived_is_possible_all_the_same():
    found = with_temperature(np.array([[1, 0, 0]], np.float32), 1)
    np.testing.assert_allclose(found, [[1.001 / 1.003, 0.001 / 1.003, 0.001 / 1.003]], rtol=1e-5)


def test_reliability_counts_each_label_in_one_bin():
    confidence = np.array([0.05, 0.31, 0.39, 0.72, 0.95, 1.0], np.float32)
    right = np.array([False, True, False, True, True, True])
    found = reliability(confidence, right)
    assert [(b["lower"], b["upper"], b["n"], b["accuracy"]) for b in found] == [
        (0.0, 0.1, 1, 0.0), (0.3, 0.4, 2, 0.5), (0.7, 0.8, 1, 1.0), (0.9, 1.0, 2, 1.0),
    ]  # fmt: skip
    assert found[1]["confidence"] == pytest.approx(0.35)
    gaps = [0.05, 2 * 0.15, 0.28, 2 * 0.025]
    assert calibration_error(confidence, right) == pytest.approx(sum(gaps) / 6)
    assert calibration_error(confidence[:0], right[:0]) is None
    assert reliability(confidence[:0], right[:0]) == []


def test_accuracy_above_a_confidence():
    confidence = np.array([0.4, 0.5, 0.9, 0.95, 0.97], np.float32)
    right = np.array([False, True, False, True, True])
    found = {level["confidence"]: level for level in accuracy_above(confidence, right)}
    assert {c: (level["n"], level["accuracy"]) for c, level in found.items()} == {
        0.5: (4, 0.75), 0.8: (3, 2 / 3), 0.9: (3, 2 / 3), 0.95: (2, 1.0), 0.99: (0, None),
    }  # fmt: skip
    assert found[0.5]["error"] == wilson_error(0.75, 4)


def test_the_error_is_half_of_wilsons_interval():
    # The interval holds the p for which (p - r/n)² ≤ p (1 - p) / n.
    for right, n in ((9, 10), (10, 10), (0, 3), (50, 100)):
        roots = np.roots([1 + 1 / n, -2 * right / n - 1 / n, (right / n) ** 2])
        assert wilson_error(right / n, n) == pytest.approx(np.ptp(roots) / 2)


class FakeWork:
    def __init__(self, classes, folds):
        self.classes, self.folds = classes, folds
        self.tested = np.concatenate(folds)


class FakeMethod:
    default_temperature = 0.6
    temperature_spread = 0.7

    def __init__(self, classes, folds, probabilities):
        self.work, self._probabilities = FakeWork(classes, folds), probabilities

    def held_out(self):
        return self._probabilities[self.work.tested]


def test_held_out_labels_are_judged_without_their_own_fold():
    probabilities, classes = drawn(60, 0.4)
    order = np.random.default_rng(1).permutation(60)
    folds = [np.sort(part) for part in np.split(order, [20, 35])]
    found = CalibratedMethod(FakeMethod(classes, folds, probabilities))
    assert found.is_calibrated
    assert found.temperature == fit_temperature(
        probabilities[found.method.work.tested], classes[found.method.work.tested], 0.6, 0.7
    )
    expected = []
    for number, fold in enumerate(folds):
        others = np.concatenate(folds[:number] + folds[number + 1 :])
        temperature = fit_temperature(probabilities[others], classes[others], 0.6, 0.7)
        expected.append(with_temperature(probabilities[fold], temperature))
    np.testing.assert_array_equal(found.held_out, np.concatenate(expected))
    tested = found.method.work.tested
    np.testing.assert_array_equal(found.raw_confidence, probabilities[tested].max(axis=1))
    np.testing.assert_array_equal(found.right, probabilities[tested].argmax(1) == classes[tested])


def test_sentences():
    confidence = np.linspace(0.5, 1, 100).astype(np.float32)
    right = np.ones(100, np.bool_)
    right[85] = False
    found = calibration_sentence(confidence, right, True)
    # Above 0.9 are 20 labels, one of them wrong: (19 + ½) / 21, and Wilson's error.
    assert found == (
        "Of the images labelled with a confidence above 0.9 about 93 % are right (± 5), as 20 "
        "held-out labels say."
    )
    assert "above 0.5" in calibration_sentence(confidence / 1.3, right, True)
    assert "Of the images labelled about" in calibration_sentence(confidence / 3, right, True)
    few = calibration_sentence(confidence[:4], right[:4], False)
    assert "too few labels" in few
    assert "4 could be held out" in few
