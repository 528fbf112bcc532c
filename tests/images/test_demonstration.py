from collections import Counter
from itertools import chain

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lowshot_kedro.images.demonstration import digits


def scans_of(images):
    """The 8×8 scans, as bytes of 0..255, that images of 8×8 pixels show."""
    return [np.asarray(loaded).tobytes() for loaded in images]


@pytest.fixture(scope="module")
def dealt():
    return digits(seed=3, image_size=8)


def test_three_equal_parts_hold_every_scan_once(dealt):
    parts = [[image for image, _ in dealt.train], [image for image, _ in dealt.test]]
    parts.append(dealt.background)
    assert [len(part) for part in parts] == [599, 599, 599]
    expected = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    # As a bag: scikit-learn may hold a scan twice.
    assert Counter(scans_of(chain(*parts))) == Counter(scan.tobytes() for scan in expected)


def test_labels_belong_to_their_images(dealt):
    data = load_digits()
    scans = np.round(data.images * 255 / 16).astype(np.uint8)
    labels = {scan.tobytes(): int(label) for scan, label in zip(scans, data.target, strict=True)}
    for image, label in dealt.train + dealt.test:
        assert labels[np.asarray(image).tobytes()] == label


def test_every_class_is_in_every_labelled_part(dealt):
    for part in (dealt.train, dealt.test):
        assert {label for _, label in part} == set(range(10))


def test_the_seed_decides_the_order(dealt):
    again, other = digits(seed=3, image_size=8), digits(seed=4, image_size=8)
    assert scans_of(again.background) == scans_of(dealt.background)
    assert [label for _, label in again.train] == [label for _, label in dealt.train]
    assert scans_of(other.background) != scans_of(dealt.background)


def test_images_are_enlarged(dealt):
    large = digits(seed=3, image_size=40)
    assert {image.size for image in large.background} == {(40, 40)}
    shrunk = np.asarray(large.background[0].resize((8, 8)), dtype=float)
    original = np.asarray(dealt.background[0], dtype=float)
    assert np.corrcoef(shrunk.ravel(), original.ravel())[0, 1] > 0.95


def test_the_class_split_swaps_base_and_novel_between_modes(dealt):
    split = dealt.class_split
    assert split["base_classes_2"] == split["novel_classes_1"] == [1, 2, 3, 4, 5]
    assert split["novel_classes_2"] == split["base_classes_1"] == [6, 7, 8, 9, 10]
    assert split["label_names"][0] == "zero"
    assert split["label_names"][9] == "nine"
    assert len(set(split["label_names"])) == 10
