import csv
import io

import numpy as np
import pytest

from lowshot_kedro.errors import InputError
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.labeling.attention import Duplicates, NextImages, SuspiciousLabels
from lowshot_kedro.labeling.exports.table import (
    duplicates_frame,
    label_names,
    labels_frame,
    next_frame,
    suspicious_frame,
)
from lowshot_kedro.labeling.given_labels import GivenLabels
from tests.labeling.exports.making import ArrayImages, images_in, labeling_of


@pytest.fixture
def images(tmp_path):
    return images_in(tmp_path, ("cats", ["a.jpg", "b.jpg"]), (".", ["x.jpg", "in/y.jpg", "z.jpg"]))


@pytest.fixture
def labeling():
    """A given cat, a given dog, a cat, a dog that is unknown, one that nothing has reached."""
    return labeling_of(
        [0, 1, 0, 1, -1],
        [0, 1, -1, -1, -1],
        confidence=np.array([1, 1, 0.123456, 0.4, 0], np.float32),
        margin=np.array([1, 1, 0.5, 0.1, 0], np.float32),
        second=np.array([1, -1, 1, 0, -1], np.int32),
        n_steps=np.array([0, 0, 1, 12, -1], np.int32),
        nearest_labeled=np.array([1, 0, 0, 1, -1], np.int32),
        is_unknown=np.array([False, False, False, True, False]),
    )


def as_rows(frame):
    return list(csv.DictReader(io.StringIO(frame.to_csv(index=False))))


def test_the_table_says_all_of_every_image(images, labeling):
    rows = as_rows(labels_frame(images, labeling))
    assert list(rows[0]) == [
        "file", "label", "confidence", "margin", "second_label", "n_steps", "nearest_labeled",
        "given", "guess",
    ]  # fmt: skip
    assert [list(row.values()) for row in rows] == [
        ["cats/a.jpg", "cat", "1.0", "1.0", "dog", "0", "cats/b.jpg", "yes", "cat"],
        ["cats/b.jpg", "dog", "1.0", "1.0", "", "0", "cats/a.jpg", "yes", "dog"],
        ["x.jpg", "cat", "0.1235", "0.5", "dog", "1", "cats/a.jpg", "no", "cat"],
        ["in/y.jpg", "unknown", "0.4", "0.1", "cat", "12", "cats/b.jpg", "no", "dog"],
        ["z.jpg", "", "0.0", "0.0", "", "", "", "no", ""],
    ]


def test_groups_are_named_where_there_are_any(images, labeling):
    groups = np.array([0, -1, 1, 1, -1], np.int32)
    given = GivenLabels(("cat", "dog"), labeling.given.labels, groups, ("north", "south"))
    labeling = labeling_of(labeling.labels, given)
    column = labels_frame(images, labeling)["group"]
    assert column.tolist() == ["north", "", "south", "south", ""]
    given = GivenLabels(("cat", "dog"), labeling.given.labels, groups)
    labeling = labeling_of(labeling.labels, given)
    assert labels_frame(images, labeling)["group"].tolist() == ["0", "", "1", "1", ""]


def test_a_class_that_is_called_unknown_is_refused(images, labeling):
    assert label_names(labeling, "?").tolist() == ["cat", "dog", "cat", "?", ""]
    with pytest.raises(InputError, match="unknown: got 'cat', which is a class"):
        labels_frame(images, labeling, "cat")


def test_images_to_label_next_are_a_file_to_fill_in(images, labeling):
    frame = next_frame(images, labeling, NextImages(np.array([4, 2], np.int32), "a rule"))
    assert [list(row.items()) for row in as_rows(frame)] == [
        [("file", "z.jpg"), ("label", ""), ("perhaps", ""), ("how_sure", "0.0")],
        [("file", "x.jpg"), ("label", ""), ("perhaps", "cat"), ("how_sure", "0.1235")],
    ]


def test_suspicious_labels_stand_beside_what_is_suggested(images, labeling):
    found = SuspiciousLabels(
        np.array([1, 0], np.int32),
        np.array([0.9, 0.33333], np.float32),
        np.array([0, 1], np.int32),
        "a rule",
    )
    assert [list(row.values()) for row in as_rows(suspicious_frame(images, labeling, found))] == [
        ["cats/b.jpg", "dog", "0.9", "cat", "cats/a.jpg", "cat"],
        ["cats/a.jpg", "cat", "0.3333", "dog", "cats/b.jpg", "dog"],
    ]


def test_duplicates_stand_group_after_group(images, labeling):
    found = Duplicates(
        np.array([0, 3, 2, 4], np.int32),
        np.array([0, 0, 1, 1], np.int32),
        np.array([1, 1, 0.98766, 0.98766], np.float32),
    )
    assert [list(row.values()) for row in as_rows(duplicates_frame(images, labeling, found))] == [
        ["1", "cats/a.jpg", "1.0", "cat", "cat"],
        ["1", "in/y.jpg", "1.0", "", "dog"],
        ["2", "x.jpg", "0.9877", "", "cat"],
        ["2", "z.jpg", "0.9877", "", ""],
    ]


def test_nothing_found_is_a_table_without_rows(images, labeling):
    none, values = np.empty(0, np.int32), np.empty(0, np.float32)
    for frame, first in [
        (next_frame(images, labeling, NextImages(none, "")), "file"),
        (suspicious_frame(images, labeling, SuspiciousLabels(none, values, none, "")), "file"),
        (duplicates_frame(images, labeling, Duplicates(none, none, values)), "duplicates"),
    ]:
        assert frame.to_csv(index=False).startswith(f"{first},")
        assert len(frame) == 0


def test_file_names_are_those_of_the_images_one_by_one(tmp_path):
    outside = str(tmp_path / "other" / "o.jpg")
    odd = ["a.jpg", "in/../b.jpg", "..c.jpg", "d..", "./e.jpg", "x//y.jpg", outside, "n\nm.jpg"]
    here = images_in(tmp_path, ("one", odd), ("../two", odd), (".", odd))
    images = JoinedImages([*here.sources, ArrayImages(2)], tmp_path)
    assert list(images.files()) == [images.file(number) for number in range(len(images))]
    without_base = JoinedImages([ArrayImages(2)])
    assert list(without_base.files()) == ["image 0", "image 1"]


def test_a_file_name_that_is_no_text_can_be_written(tmp_path):
    images = images_in(tmp_path, (".", ["\udcff.jpg", "é.jpg"]))
    frame = labels_frame(images, labeling_of([0, 1], [0, 1]))
    assert frame["file"].tolist() == ["\\udcff.jpg", "é.jpg"]
    frame.to_csv(index=False).encode()
