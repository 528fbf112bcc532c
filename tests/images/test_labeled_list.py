import json

import pytest
from PIL import Image

from lowshot_kedro.images import LabeledList
from tests.images.helpers import flat_jpeg, value_of


@pytest.fixture
def path(tmp_path):
    return tmp_path / "train.json"


def write(path, names, labels, **more):
    path.write_text(json.dumps({"image_names": names, "image_labels": labels, **more}))


def test_names_are_relative_to_the_root_which_is_relative_to_the_list(path):
    (path.parent / "pictures" / "n01").mkdir(parents=True)
    (path.parent / "pictures" / "n01" / "a.JPEG").write_bytes(flat_jpeg(10))
    (path.parent / "pictures" / "b.png").write_bytes(flat_jpeg(20))
    write(path, ["n01/a.JPEG", "b.png"], [7, 0], label_names=["ignored"])
    source = LabeledList(path, "pictures")
    assert len(source) == 2
    assert [value_of(picture) for picture in source] == pytest.approx([10, 20], abs=2)
    assert [picture.label for picture in source] == [7, 0]
    assert source[-1].label == 0
    assert str(path) in repr(source)


def test_the_root_may_be_absolute_or_left_out(path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "a.jpg").write_bytes(flat_jpeg(10))
    (path.parent / "a.jpg").write_bytes(flat_jpeg(20))
    write(path, ["a.jpg"], [1])
    assert value_of(LabeledList(path, elsewhere)[0]) == pytest.approx(10, abs=2)
    assert value_of(LabeledList(path)[0]) == pytest.approx(20, abs=2)


def test_missing_and_unreadable_pictures_are_blank_and_keep_their_label(path):
    (path.parent / "a.jpg").write_text("no picture")
    write(path, ["a.jpg", "absent.jpg"], [3, 4])
    unreadable, absent = LabeledList(path)
    assert (unreadable.label, absent.label) == (3, 4)
    assert "cannot identify" in unreadable.problem
    assert "absent.jpg" in absent.problem
    assert unreadable.image.size == absent.image.size == (256, 256)


@pytest.mark.parametrize("number", [2, -3])
def test_a_number_outside_the_list(path, number):
    write(path, ["a.jpg", "b.jpg"], [0, 1])
    with pytest.raises(IndexError, match=rf"train\.json: picture {number} of 2"):
        LabeledList(path)[number]


@pytest.mark.parametrize(
    "text, complaint",
    [
        ('{"image_names": ["a', "not valid JSON.*cut off"),
        ("", "not valid JSON"),
        ("[]", "image_names"),
        ('{"image_labels": [1]}', "image_names"),
        ('{"image_names": ["a"]}', "image_labels"),
        ('{"image_names": "a", "image_labels": [1]}', "image_names"),
        ('{"image_names": ["a", "b"], "image_labels": [1]}', "2 image_names but 1 image_labels"),
        ('{"image_names": ["a"], "image_labels": [-1]}', r"image_labels\[0\] is -1"),
        ('{"image_names": ["a", "b"], "image_labels": [0, 1.5]}', r"image_labels\[1\] is 1\.5"),
        ('{"image_names": ["a"], "image_labels": ["cat"]}', r"image_labels\[0\] is 'cat'"),
        ('{"image_names": ["a"], "image_labels": [true]}', r"image_labels\[0\] is True"),
        ('{"image_names": ["a"], "image_labels": [null]}', r"image_labels\[0\] is None"),
    ],
)
def test_a_file_that_is_no_such_list(path, text, complaint):
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"train\.json: .*{complaint}"):
        LabeledList(path)


def test_a_list_that_is_not_text(path):
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"train\.json"):
        LabeledList(path)


def test_names_that_are_not_text(path):
    write(path, [1], [0])
    with pytest.raises(ValueError, match=r"train\.json: .*image_names\[0\] is 1"):
        LabeledList(path)


def test_a_missing_list(path):
    with pytest.raises(FileNotFoundError, match=r"train\.json"):
        LabeledList(path)


def test_an_empty_list(path):
    write(path, [], [])
    assert list(LabeledList(path)) == []


def test_a_picture_is_read_when_it_is_asked_for(path):
    write(path, ["a.png"], [0])
    source = LabeledList(path)
    Image.new("L", (16, 16), 90).save(path.parent / "a.png")
    assert value_of(source[0]) == 90
