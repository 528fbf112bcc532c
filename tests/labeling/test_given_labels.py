import unicodedata
from pathlib import Path

import numpy as np
import pytest

from lowshot_kedro.errors import InputError
from lowshot_kedro.images import AbsentImages, ClassFolders, ImageFolder
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.images.label_files import LabelRow, LabelTable, read_label_file, write_label_file
from lowshot_kedro.images.labeling_folder import find_layout, labeled_images, unlabeled_images
from lowshot_kedro.labeling.given_labels import collect_labels, table_of


def write(root, *names):
    """Files that differ from each other, for nothing of an image is looked at here."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


LABELED = ("train/cat/1.jpg", "train/cat/2.jpg", "train/dog/1.jpg", "train/dog/2.jpg")
OTHERS = ("background/1.jpg", "background/a b/2.jpg", "background/é.jpg")


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "images", *LABELED, *OTHERS)


def images_of(root, has_file=True):
    layout = find_layout(root, has_file)
    return JoinedImages([labeled_images(layout), unlabeled_images(layout)], root)


def table(*rows, path="labels.csv", groups=None):
    files, labels = zip(*rows, strict=True) if rows else ((), ())
    return LabelTable(files, labels, groups, Path(path))


def labels(images, given):
    """File → label of all that have one."""
    return {
        images.file(number): given.classes[label]
        for number, label in enumerate(given.labels)
        if label >= 0
    }


FOLDERS = {name: name.split("/")[1] for name in LABELED}


def test_labels_of_folders(root):
    images = images_of(root)
    given = collect_labels(images, None, None)
    assert (given.classes, given.labels.tolist()) == (("cat", "dog"), [0, 0, 1, 1, -1, -1, -1])
    assert given.labels.dtype == np.int32
    assert (given.groups, given.group_names, given.notes) == (None, (), ())
    assert given.nodes.tolist() == [0, 1, 2, 3]
    named = collect_labels(images, ["zebra", "ape"], None)
    assert (named.classes, named.labels.tolist()) == (("ape", "zebra"), [1, 1, 0, 0, -1, -1, -1])


def test_labels_without_names_are_numbers():
    class Numbered(AbsentImages):
        labels = np.array([3, 10, 3], np.int32)

        def __len__(self):
            return 3

    images = JoinedImages([Numbered(Path("x")), AbsentImages(Path("y"))])
    given = collect_labels(images, None, None)
    assert (given.classes, given.labels.tolist()) == (("10", "3"), [1, 0, 1])
    given = collect_labels(images, ["a", "b", "c", "d"], table(("image 2", "d")))
    assert (given.classes, given.labels.tolist()) == (("10", "d"), [1, 0, 1])


def test_labels_of_a_file_go_before_those_of_folders(root):
    images = images_of(root)
    given = collect_labels(
        images,
        None,
        table(
            ("train/cat/1.jpg", "dog"),
            ("train/cat/2.jpg", None),
            ("train/dog/1.jpg", "dog"),
            ("background/1.jpg", "emu"),
            ("background/é.jpg", None),
        ),
    )
    assert labels(images, given) == {
        "train/cat/1.jpg": "dog",
        "train/dog/1.jpg": "dog",
        "train/dog/2.jpg": "dog",
        "background/1.jpg": "emu",
    }
    assert given.classes == ("dog", "emu")
    assert given.notes == (
        "labels.csv: 1 labels differ from those of folders, and go before them: "
        "train/cat/1.jpg (cat → dog)",
        "labels.csv: 1 labels of folders are taken away: train/cat/2.jpg (cat)",
        "no labelled image, so that nothing gets this label: cat",
        "one labelled image only, so that none can be held out, of emu",
    )


def test_a_file_alone_is_enough(tmp_path):
    write(tmp_path, "2021/1.jpg", "2022/1.jpg", "3.jpg")
    images = images_of(tmp_path)
    given = collect_labels(images, None, table(("3.jpg", "b"), ("2021/1.jpg", "a")))
    assert (given.classes, given.labels.tolist()) == (("a", "b"), [0, -1, 1])


@pytest.mark.parametrize(
    "spelled",
    [
        lambda root, name: f"./{name}",
        lambda root, name: str(root / name),
        lambda root, name: name.replace("/", "\\"),
        lambda root, name: f".\\{name}".replace("/", "\\"),
        lambda root, name: f" {name} ",
        lambda root, name: f"train/../{name}",
        lambda root, name: unicodedata.normalize("NFD", name),
        # Relative to, or in, another folder.
        lambda root, name: f"photos/2026/{name}",
        lambda root, name: f"/somewhere/else/{name}",
        lambda root, name: f"C:\\photos\\{name}".replace("/", "\\"),
        # The end of the path.
        lambda root, name: name.partition("/")[2],
    ],
)
def test_ways_to_name_a_file(root, spelled):
    images = images_of(root)
    wanted = {"train/cat/2.jpg": "dog", "background/a b/2.jpg": "emu", "background/é.jpg": "cat"}
    given = collect_labels(
        images, None, table(*((spelled(root, name), label) for name, label in wanted.items()))
    )
    assert labels(images, given) == FOLDERS | wanted


def test_a_folder_that_is_reached_through_a_link(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    images = images_of(tmp_path / "link")
    file = str(root.resolve() / "background/1.jpg")
    assert labels(images, collect_labels(images, None, table((file, "cat")))) == {
        **FOLDERS, "background/1.jpg": "cat",
    }  # fmt: skip


def test_the_folder_above_is_one_for_all_files(tmp_path):
    write(tmp_path, "a/1.jpg", "b/1.jpg", "1.jpg")
    images = images_of(tmp_path)
    rows = [("x/a/1.jpg", "cat"), ("x/b/1.jpg", "dog"), ("x/c/1.jpg", "emu")]
    given = collect_labels(images, None, table(*rows))
    assert labels(images, given) == {"a/1.jpg": "cat", "b/1.jpg": "dog"}
    assert given.notes[:2] == (
        "labels.csv: names of files are understood without x/",
        "labels.csv: 1 of 3 files are not there: x/c/1.jpg (row 3) (did you mean b/1.jpg?)",
    )


def test_a_file_that_is_not_there_is_no_other_file_of_this_name(root):
    images = images_of(root)
    rows = [("background/1.jpg", "cat"), ("old/a b/2.jpg", "emu"), ("Background/É.JPG", "emu")]
    rows += [(f"gone/{number}.jpg", "emu") for number in range(10, 16)]
    given = collect_labels(images, None, table(*rows))
    assert labels(images, given) == FOLDERS | {"background/1.jpg": "cat"}
    assert given.classes == ("cat", "dog")
    (note,) = (note for note in given.notes if "not there" in note)
    assert note == (
        "labels.csv: 8 of 9 files are not there: old/a b/2.jpg (row 2) (did you mean "
        "background/a b/2.jpg?), Background/É.JPG (row 3) (did you mean background/é.jpg?), "
        "gone/10.jpg (row 4), gone/11.jpg (row 5), gone/12.jpg (row 6) and 3 more"
    )


@pytest.mark.parametrize(
    "rows, facts",
    [
        ([("x.jpg", "cat"), ("y.jpg", "dog")],
         ["none of its 2 files is among the 7 images", "found x.jpg, expected names such as "
          "train/cat/1.jpg"]),
        ([("TRAIN/cat/1.jpg", "dog")], ["TRAIN/cat/1.jpg (did you mean train/cat/1.jpg?)"]),
        ([("2.jpg", "dog")], ["row 1: 2.jpg may be", "train/cat/2.jpg or train/dog/2.jpg",
                              "expected the path"]),
        ([("background/1.jpg", "cat"), ("./background/1.jpg", "dog")],
         ["row 2: ./background/1.jpg has the label 'dog', but 'cat' by row 1"]),
        ([(name, "cat") for name in LABELED],
         ["labels of one class only, cat (4 images)", "two classes"]),
        ([(name, None) for name in LABELED], ["found no label among 7 images", "two classes"]),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_used(root, rows, facts):
    with pytest.raises(InputError) as caught:
        collect_labels(images_of(root), None, table(*rows))
    for fact in ["labels.csv", *facts]:
        assert fact in str(caught.value)


def test_no_label_at_all(tmp_path):
    write(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(InputError, match="found no label among 2 images; expected labels of two"):
        collect_labels(images_of(tmp_path), None, None)
    with pytest.raises(InputError, match=r"labels.csv: found no label among 2 images"):
        collect_labels(images_of(tmp_path), None, table())


def test_what_is_odd_is_said(root):
    write(root, "train/Dog/3.jpg", "train/unknown/4.jpg", "train/ cat/5.jpg", "train/?/6.jpg")
    (root / "train" / "empty").mkdir()
    images = images_of(root)
    given = collect_labels(images, None, None)
    assert given.classes == ("?", "Dog", "cat", "dog", "unknown")
    assert labels(images, given)["train/ cat/5.jpg"] == "cat"
    assert given.notes == (
        "no labelled image, so that nothing gets this label: empty",
        "one labelled image only, so that none can be held out, of ?, Dog, unknown",
        "classes that differ only in upper and lower case: Dog (1 images), dog (2 images)",
        "labels that count as classes, but look as if they meant none: '?' (1 images), 'unknown' "
        "(1 images); no label is written as nothing",
    )


def test_the_same_image_in_two_classes(root):
    long = b"x" * 10_000
    for name, content in {
        "train/cat/a.jpg": b"1" + long, "train/dog/b.jpg": b"1" + long,  # the same
        "train/cat/c.jpg": b"2" + long,  # another beginning
        "train/dog/d.jpg": b"1" + long[1:] + b"y",  # another end
        "train/dog/e.jpg": b"1" + long,  # the same and of the same class as one of them
        "train/cat/f.jpg": b"twice", "train/cat/g.jpg": b"twice",  # the same class
        "train/cat/h.jpg": b"", "train/dog/h.jpg": b"",  # no images
        "train/cat/i.jpg": b"three", "background/i.jpg": b"three",  # without a label
    }.items():  # fmt: skip
        (root / name).write_bytes(content)
    (root / "train/dog/absent.jpg").symlink_to("nowhere.jpg")
    (root / "train/cat/absent.jpg").symlink_to("nowhere.jpg")
    images = images_of(root)
    assert collect_labels(images, None, None).notes == (
        "the same image has two labels: train/cat/a.jpg (cat) and train/dog/b.jpg (dog)",
    )
    given = collect_labels(images, None, table(("background/i.jpg", "dog")))
    assert given.notes == (
        "the same image has two labels: train/cat/a.jpg (cat) and train/dog/b.jpg (dog); "
        "train/cat/i.jpg (cat) and background/i.jpg (dog)",
    )
    for number in range(9):
        for name in ("cat", "dog"):
            (root / f"train/{name}/{number + 10}.jpg").write_text(f"the same {number}")
    (note,) = collect_labels(images_of(root), None, None).notes
    assert note.count(" and train/") == 5
    assert note.endswith("; and 5 more such images")


def test_groups(root):
    images = images_of(root)
    rows = [(name, name.split("/")[1]) for name in LABELED] + [("background/1.jpg", None)]
    groups = ("z", None, "z", "a", "a")
    given = collect_labels(images, None, table(*rows, groups=groups))
    assert given.group_names == ("a", "z")
    assert given.groups.tolist() == [1, -1, 1, 0, 0, -1, -1]
    assert given.groups.dtype == np.int32
    missing = collect_labels(
        images, None, table(*rows, ("absent.jpg", "cat"), groups=(*groups, "other"))
    )
    assert missing.group_names == ("a", "z")


@pytest.mark.parametrize("groups", [None, ("s 1", None, None, "s2", "s2")])
def test_labels_are_the_same_after_they_were_written_and_read(root, tmp_path, groups):
    images = images_of(root)
    rows = [
        ("train/cat/1.jpg", "wolf, grey"),
        ("train/cat/2.jpg", None),
        ("train/dog/1.jpg", "dog"),
        ("background/a b/2.jpg", "dog"),
        ("background/é.jpg", None),
    ]
    given = collect_labels(images, None, table(*rows, groups=groups))
    path = tmp_path / "again.csv"
    write_label_file(path, table_of(images, given))
    again = collect_labels(images, None, read_label_file(path))
    assert (again.classes, again.labels.tolist()) == (given.classes, given.labels.tolist())
    assert again.group_names == given.group_names
    if groups:
        assert again.groups.tolist() == given.groups.tolist()


def test_checked_labels(root, tmp_path):
    images = images_of(root)
    path = tmp_path / "labels.csv"
    path.write_text(
        "file,label,checked\ntrain/dog/2.jpg,cat,\nbackground/1.jpg,dog,yes\n"
        "train/cat/2.jpg,,yes\ntrain/cat/1.jpg,cat,yes\ngone.jpg,cat,yes\n"
    )
    given = collect_labels(images, None, read_label_file(path))
    # Where there is no label there is nothing that could have been checked.
    checked = [True, False, False, False, True, False, False]
    assert given.checked.tolist() == checked and given.checked.dtype == np.bool_
    write_label_file(path, table_of(images, given))
    assert collect_labels(images, None, read_label_file(path)).checked.tolist() == checked
    assert collect_labels(images, None, table(("background/1.jpg", "dog"))).checked is None


def test_rows_of_files_that_are_not_there_are_kept(root, tmp_path):
    images = images_of(root)
    path = tmp_path / "labels.csv"
    path.write_text(
        "file,label,group,checked\n/disk/1.jpg,zebra,far,yes\nbackground/1.jpg,dog,,\n"
        "gone\\2.jpg,,,\nc.jpg,cat,near,\n/disk/1.jpg,zebra,far,\nd.jpg,,near,\n"
    )
    given = collect_labels(images, None, read_label_file(path))
    missing = (
        LabelRow("/disk/1.jpg", "zebra", "far", True),
        LabelRow("gone\\2.jpg", None, None, False),
        LabelRow("c.jpg", "cat", "near", False),
        LabelRow("d.jpg", None, "near", False),
    )
    assert given.missing == missing
    assert given.classes == ("cat", "dog")
    write_label_file(path, table_of(images, given))
    assert collect_labels(images, None, read_label_file(path)).missing == missing
    assert collect_labels(images, None, table(("background/1.jpg", "dog"))).missing == ()


def test_a_missing_file_is_named_as_those_that_are_there(root, tmp_path):
    """A name with a folder above would not be understood beside names without it."""
    images = images_of(root)
    there, gone = ("images/background/1.jpg", "dog"), ("images/background/9.jpg", "ape")
    rows = there, gone, ("/x/y.jpg", "ape")
    given = collect_labels(images, None, table(*rows))
    assert given.missing == (LabelRow("background/9.jpg", "ape"), LabelRow("/x/y.jpg", "ape"))
    path = tmp_path / "labels.csv"
    write_label_file(path, table_of(images, given))
    write(root, "background/9.jpg")
    images = images_of(root)
    given = collect_labels(images, None, read_label_file(path))
    assert labels(images, given)["background/9.jpg"] == "ape"
    assert labels(images, given)["background/1.jpg"] == "dog"
    two = table(there, ("images/8.jpg", "ape"), ("images/./8.jpg", "x"))
    with pytest.raises(InputError, match=r"row 3: images/\./8.jpg has the label 'x', but 'ape' by"):
        collect_labels(images, None, two)


def test_sources_of_other_folders(tmp_path):
    write(tmp_path / "one", "cat/1.jpg", "dog/1.jpg")
    write(tmp_path / "two", "x.jpg")
    images = JoinedImages([ClassFolders(tmp_path / "one"), ImageFolder(tmp_path / "two")])
    given = collect_labels(images, None, table(("two/x.jpg", "cat"), ("one/dog/1.jpg", "dog")))
    assert given.labels.tolist() == [0, 1, 0]
