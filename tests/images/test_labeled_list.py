import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from lowshot_kedro.images import LabeledList, image_files
from tests.images.helpers import flat_jpeg, is_blank, value_of


@pytest.fixture
def path(tmp_path):
    return tmp_path / "train.json"


def write(path, names, labels, **more):
    path.write_text(json.dumps({"image_names": names, "image_labels": labels, **more}))


def test_names_are_relative_to_the_root_which_is_relative_to_the_list(path):
    (path.parent / "images" / "n01").mkdir(parents=True)
    (path.parent / "images" / "n01" / "a.JPEG").write_bytes(flat_jpeg(10))
    (path.parent / "images" / "b.png").write_bytes(flat_jpeg(20))
    write(path, ["n01/a.JPEG", "b.png"], [7, 0], label_names=["ignored"])
    source = LabeledList(path, "images")
    assert len(source) == 2
    assert [value_of(image) for image in source] == pytest.approx([10, 20], abs=2)
    assert [image.label for image in source] == [7, 0]
    assert source[-1].label == 0
    assert str(path) in repr(source)


def test_the_root_may_be_absolute_or_left_out(path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "a.jpg").write_bytes(flat_jpeg(10))
    (path.parent / "a.jpg").write_bytes(flat_jpeg(20))
    write(path, ["a.jpg"], [1])
    assert value_of(LabeledList(path, elsewhere)[0]) == pytest.approx(10, abs=2)
    assert value_of(LabeledList(path)[0]) == pytest.approx(20, abs=2)


def test_missing_and_unreadable_images_are_blank_and_keep_their_label(path):
    (path.parent / "a.jpg").write_text("no image")
    write(path, ["a.jpg", "absent.jpg"], [3, 4])
    unreadable, absent = LabeledList(path)
    assert (unreadable.label, absent.label) == (3, 4)
    assert unreadable.problem == "a.jpg: UnidentifiedImageError: cannot identify image file"
    assert absent.problem == "absent.jpg: FileNotFoundError: No such file or directory"
    assert unreadable.image.size == absent.image.size == (256, 256)


@pytest.mark.parametrize("number", [2, -3])
def test_a_number_outside_the_list(path, number):
    write(path, ["a.jpg", "b.jpg"], [0, 1])
    with pytest.raises(IndexError, match=rf"train\.json: image {number} of 2"):
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
        (
            '{"image_names": ["a"], "image_labels": [2147483648]}',
            r"image_labels\[0\] is 2147483648; expected integers from 0 to 2147483647",
        ),
        (
            '{"image_names": ["a"], "image_labels": [4294967299]}',
            r"image_labels\[0\] is 4294967299",
        ),
        ('{"image_names": ["a"], "image_labels": [3.0]}', r"image_labels\[0\] is 3\.0"),
        ('{"image_names": ["a"], "image_labels": [NaN]}', r"image_labels\[0\] is nan"),
        ('{"image_names": ["a"], "image_labels": [[1]]}', r"image_labels\[0\] is \[1\]"),
        (
            '{"image_names": ["a"], "image_labels": [1' + 30 * "0" + "]}",
            r"image_labels\[0\] is 10{30};",
        ),
        ('{"image_names": ["a"], "image_labels": [' + 5000 * "1" + "]}", "not valid JSON"),
        ('{"image_names": ' + 100_000 * "[", "too deep"),
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


def test_an_image_is_read_when_it_is_asked_for(path):
    write(path, ["a.png"], [0])
    source = LabeledList(path)
    Image.new("L", (16, 16), 90).save(path.parent / "a.png")
    assert value_of(source[0]) == 90


def test_labels_are_known_without_an_image(path):
    write(path, ["a.jpg", "b.jpg", "c.jpg"], [7, 0, 2**31 - 1])
    labels = LabeledList(path).labels
    assert (labels.tolist(), labels.dtype) == ([7, 0, 2**31 - 1], np.int32)
    with pytest.raises(ValueError, match="read-only"):
        labels[0] = 1


def test_a_list_in_utf_8_with_a_byte_order_mark(path):
    Image.new("L", (16, 16), 90).save(path.parent / "été.png")
    content = json.dumps({"image_names": ["été.png"], "image_labels": [0]}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert value_of(LabeledList(path)[0]) == 90


@pytest.mark.parametrize("name", ["a\0b.jpg", "\ud800.jpg", "", "x" * 5000])
def test_a_name_that_no_file_can_have_is_a_blank_image(path, name):
    write(path, [name], [1])
    image = LabeledList(path)[0]
    assert is_blank(image)
    assert image.label == 1
    assert LabeledList(path).describe()["n_pictures"] == 1


def test_the_problem_of_an_absolute_name_does_not_say_where_it_is(path):
    write(path, [str(path.parent / "cat" / "3.jpg")], [1])
    assert LabeledList(path)[0].problem.startswith("cat/3.jpg: ")


def test_a_source_can_be_pickled(path):
    Image.new("L", (16, 16), 90).save(path.parent / "a.png")
    write(path, ["a.png", "absent.png"], [3, 4])
    source = LabeledList(path)
    copy = pickle.loads(pickle.dumps(source))
    assert (len(copy), repr(copy), copy.labels.tolist()) == (2, repr(source), [3, 4])
    assert value_of(copy[0]) == 90
    assert copy.describe() == source.describe()


def described(path, names, labels, contents):
    """What is said of a list in a folder of its own, whose files hold so many bytes."""
    path.parent.mkdir()
    for name, n_bytes in contents.items():
        (path.parent / name).write_bytes(bytes(n_bytes))
    write(path, names, labels)
    return LabeledList(path).describe()


def test_the_description_tells_images_from_others_wherever_they_lie(tmp_path):
    def make(folder, names=("a", "b"), labels=(0, 1), **contents):
        contents = {"a": 5, "b": 6, **contents}
        return described(tmp_path / folder / "train.json", list(names), list(labels), contents)

    original = make("one")
    assert original.keys() == {"kind", "n_pictures", "checksum"}
    assert (original["kind"], original["n_pictures"]) == ("labeled list", 2)
    json.dumps(original)
    assert make("two") == original
    os.utime(tmp_path / "two" / "a", (1, 1))
    assert LabeledList(tmp_path / "two" / "train.json").describe() == original
    others = [
        make("labels", labels=(1, 0)),
        make("order", names=("b", "a"), labels=(1, 0)),
        make("names", names=("a", "c"), c=6),
        make("sizes", b=7),
        make("empty", b=0),
        make("fewer", names=("a",), labels=(0,)),
        make("absent", names=("a", "absent")),
    ]
    checksums = {description["checksum"] for description in [original, *others]}
    assert len(checksums) == 8


def test_the_description_knows_where_a_name_ends(path):
    write(path, ["ab", "c"], [0, 0])
    before = LabeledList(path).describe()
    write(path, ["a", "bc"], [0, 0])
    assert LabeledList(path).describe() != before


def test_an_absent_file_differs_from_an_empty_one(path):
    write(path, ["a", "b"], [0, 1])
    absent = LabeledList(path).describe()
    (path.parent / "a").touch()
    assert LabeledList(path).describe() != absent


def test_of_many_files_only_some_are_asked_for_their_size(path, monkeypatch):
    monkeypatch.setattr(image_files, "_MAX_SIZES_LOOKED_AT", 3)
    write(path, [f"{number}.jpg" for number in range(9)], [0] * 9)
    asked = []
    monkeypatch.setattr(image_files, "file_size", lambda path: asked.append(path.name) or 1)
    before = LabeledList(path).describe()
    assert asked == ["0.jpg", "3.jpg", "6.jpg"]
    write(path, [f"{number}.jpg" for number in range(9)], [0] * 8 + [1])
    assert LabeledList(path).describe() != before
