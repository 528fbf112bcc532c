import itertools
import json
import logging
import pickle

import numpy as np
import pytest
from PIL import Image

from lowshot_kedro.images import ClassFolders, ImageFolder, LabeledList
from lowshot_kedro.images.image_files import Names
from tests.images.helpers import flat_jpeg, is_blank, value_of
from tests.odd_files import NO_FILES, no_waiting


def write(root, **values):
    """Files by name, each as bright as said; `__` in a name stands for a slash, `_` for a dot."""
    for name, value in values.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(flat_jpeg(value))
    return root


def shown(source):
    return [(round(value_of(image), -1), image.label) for image in source]


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "train", dog__b_jpg=20, dog__a_jpg=10, cat__x__y_PNG=40, cat__z_jpg=30)


def test_classes_are_numbered_by_the_name_of_their_folder(root):
    source = ClassFolders(root)
    assert source.classes == ("cat", "dog")
    assert shown(source) == [(40, 0), (30, 0), (10, 1), (20, 1)]
    assert [source.name(number) for number in range(4)] == [
        "cat/x/y.PNG", "cat/z.jpg", "dog/a.jpg", "dog/b.jpg",
    ]  # fmt: skip
    assert (source.labels.tolist(), source.labels.dtype) == ([0, 0, 1, 1], np.int32)
    assert str(root) in repr(source)


def test_a_list_of_classes_decides_on_labels_and_order(root):
    source = ClassFolders(root, ["dog", "cat"])
    assert shown(source) == [(10, 0), (20, 0), (40, 1), (30, 1)]


def test_folders_that_are_not_listed_are_left_out_and_named(root, caplog):
    write(root, **{f"other{number}__a_jpg": 1 for number in range(7)})
    with caplog.at_level(logging.INFO):
        source = ClassFolders(root, ["dog"])
    assert shown(source) == [(10, 0), (20, 0)]
    [record] = caplog.records
    assert record.getMessage().endswith("cat, other0, other1, other2, other3 and 3 more")


def test_hidden_and_other_files_are_not_images(root):
    write(root, dog___hidden_jpg=1, dog___hidden__a_jpg=1, _hidden__a_jpg=1, dog__notes_txt=1)
    write(root, dog__archive_zip=1, dog__noending=1, loose_jpg=1, dog__report_pdf=1)
    (root / "dog" / "folder.jpg").mkdir()
    assert len(ClassFolders(root)) == 4


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "gif", "webp", "tif", "BMP"])
def test_suffixes_of_images(tmp_path, suffix):
    write(tmp_path, **{f"a__b_{suffix}": 50})
    assert shown(ClassFolders(tmp_path)) == [(50, 0)]


@pytest.mark.parametrize(
    "classes, facts",
    [
        (["dog", "bird"], ["no folder for class bird", "found cat, dog, empty"]),
        (["dog", "empty"], ["no image of class empty"]),
        (["dog", "cat", "dog"], ["class dog is listed twice"]),
        ([], ["no folder"]),
        (["."], [r"no folder for class ."]),
    ],
)
def test_a_list_of_classes_that_does_not_fit(root, classes, facts):
    (root / "empty").mkdir()
    with pytest.raises(ValueError) as caught:
        ClassFolders(root, classes)
    for fact in [str(root), *facts]:
        assert fact in str(caught.value)


def test_a_class_of_a_list_need_not_have_images_where_that_is_allowed(root, caplog):
    (root / "empty").mkdir()
    source = ClassFolders(root, ["eel", "dog", "empty", "cat"], every_class=False)
    assert shown(source) == [(10, 1), (20, 1), (40, 3), (30, 3)]
    [warning] = caplog.messages
    assert warning.endswith("no image of class eel, empty")
    for classes in (["eel"], ["empty"], ["eel", "empty"]):
        with pytest.raises(ValueError, match="found no image in a folder of a class"):
            ClassFolders(root, classes, every_class=False)


def test_an_empty_folder_keeps_its_number(root, caplog):
    (root / "cow").mkdir()
    source = ClassFolders(root)
    assert source.classes == ("cat", "cow", "dog")
    assert source.labels.tolist() == [0, 0, 2, 2]
    assert "no image of class cow" in caplog.text


@pytest.mark.parametrize("source_class", [ClassFolders, ImageFolder])
def test_a_folder_without_an_image(tmp_path, source_class):
    with pytest.raises(FileNotFoundError, match="absent: no such folder"):
        source_class(tmp_path / "absent")
    with pytest.raises(ValueError, match=rf"{tmp_path}: found no"):
        source_class(tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").touch()
    with pytest.raises(ValueError, match=rf"{tmp_path}: found no image"):
        source_class(tmp_path)


def test_any_folder_is_a_collection_without_labels(root):
    write(root, loose_jpg=50)
    source = ImageFolder(root)
    assert shown(source) == [(40, 0), (30, 0), (10, 0), (20, 0), (50, 0)]
    assert source.labels.tolist() == [0] * 5
    assert source[-1].problem is None


def test_links_are_followed_but_not_in_circles(root, tmp_path):
    elsewhere = write(tmp_path / "elsewhere", a_jpg=60, deep__b_jpg=70)
    (root / "bird").symlink_to(elsewhere)
    (root / "dog" / "linked.jpg").symlink_to(root / "dog" / "a.jpg")
    (elsewhere / "deep" / "again").symlink_to(elsewhere)
    (root / "dog" / "broken.jpg").symlink_to("absent.jpg")
    source = ClassFolders(root, ["bird", "dog"])
    assert shown(source) == [(60, 0), (70, 0), (10, 1), (20, 1), (0, 1), (10, 1)]
    assert source[4].problem == "dog/broken.jpg: FileNotFoundError: No such file or directory"


@pytest.mark.parametrize("kind", [kind for kind in NO_FILES if kind != "folder"])
@pytest.mark.parametrize("source_class", [ClassFolders, ImageFolder])
def test_what_is_no_file_is_a_blank_image_and_is_not_waited_for(root, source_class, kind):
    make, found = NO_FILES[kind]
    make(root / "cat" / "c.jpg")
    with no_waiting():
        source = source_class(root)
        source.describe()
        images = [source[number] for number in range(len(source))]
    assert [image.problem is None for image in images] == [False, True, True, True, True]
    assert is_blank(images[0])
    assert images[0].problem.startswith("cat/c.jpg: it is ")
    assert found.removeprefix("is ") in images[0].problem


def test_a_folder_with_the_name_of_an_image_is_a_folder(root):
    write(root / "cat", folder_jpg__a_jpg=90)
    (root / "cat" / "empty.png").mkdir()
    assert [value for value, _ in shown(ImageFolder(root))].count(90) == 1


@pytest.mark.parametrize("target", ["/", "..", "../..", "."])
def test_a_link_to_a_folder_around_all_is_left_out_and_named(root, target, caplog):
    (root / "dog" / "out").symlink_to(target)
    source = ImageFolder(root)
    assert len(source) == 4
    assert str(root / "dog" / "out") in caplog.text


def test_links_that_lead_to_a_folder_in_many_ways_lead_there_once(root, tmp_path):
    # Thirty folders, each with two links to the next one: a thousand million ways to the last.
    folders = [tmp_path / "chain" / str(number) for number in range(31)]
    for folder in folders:
        folder.mkdir(parents=True)
    for folder, following in itertools.pairwise(folders):
        (folder / "a").symlink_to(following)
        (folder / "b").symlink_to(following)
    Image.new("L", (16, 16), 90).save(folders[-1] / "last.png")
    (root / "dog" / "chain").symlink_to(folders[0])
    with no_waiting():
        source = ImageFolder(root)
    assert [value for value, _ in shown(source)].count(90) == 1


def test_a_file_that_goes_away_is_a_blank_image(root):
    source = ClassFolders(root)
    (root / "dog" / "a.jpg").unlink()
    assert is_blank(source[2])
    assert source[2].label == 1
    assert source[2].problem == "dog/a.jpg: FileNotFoundError: No such file or directory"


def test_names_that_are_no_text(tmp_path):
    (tmp_path / "cat").mkdir()
    path = tmp_path.joinpath("cat", b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))
    path.write_bytes(flat_jpeg(50))
    assert shown(ClassFolders(tmp_path)) == [(50, 0)]
    path.write_bytes(b"")
    assert "caf\\udce9.jpg" in ImageFolder(tmp_path)[0].problem


def test_a_source_can_be_pickled(root):
    copy = pickle.loads(pickle.dumps(ClassFolders(root)))
    assert copy.classes == ("cat", "dog")
    assert shown(copy) == shown(ClassFolders(root))
    assert copy.describe() == ClassFolders(root).describe()


def test_the_description_follows_names_classes_and_sizes_but_not_the_place(root, tmp_path):
    original = ClassFolders(root).describe()
    json.dumps(original)
    assert original == {
        "kind": "class folders", "n_pictures": 4, "checksum": original["checksum"],
    }  # fmt: skip
    other = ClassFolders(root, ["dog", "cat"]).describe()
    assert other["checksum"] != original["checksum"]
    flat = ImageFolder(root).describe()
    assert (flat["kind"], flat["n_pictures"]) == ("picture folder", 4)
    moved = root.rename(tmp_path / "moved")
    assert ClassFolders(moved).describe() == original
    write(moved, dog__c_jpg=1)
    longer = ClassFolders(moved).describe()
    (moved / "dog" / "c.jpg").rename(moved / "dog" / "d.jpg")
    renamed = ClassFolders(moved).describe()
    assert len({original["checksum"], longer["checksum"], renamed["checksum"]}) == 3


def test_the_same_images_as_a_labelled_list_of_them(root, tmp_path):
    folders = ClassFolders(root)
    names = [folders.name(number) for number in range(4)]
    content = {"image_names": names, "image_labels": folders.labels.tolist()}
    (tmp_path / "train.json").write_text(json.dumps(content))
    assert shown(LabeledList(tmp_path / "train.json", "train")) == shown(folders)


def test_a_million_names_are_small_also_when_sent_to_a_worker():
    names = [f"n{number % 1000:08d}/image_{number}.JPEG" for number in range(1_000_000)]
    packed = Names(names)
    assert (len(packed), packed[0], packed[999_999]) == (1_000_000, names[0], names[-1])
    sent = pickle.dumps(packed)
    assert len(sent) < 40_000_000
    assert pickle.loads(sent)[123_456] == names[123_456]
