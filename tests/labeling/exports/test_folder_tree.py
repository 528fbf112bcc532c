import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lowshot_kedro.errors import InputError
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.labeling.exports.folder_tree import (
    MARKER,
    FolderTree,
    _folder_names,
    write_folder_tree,
)
from tests.labeling.exports.making import ArrayImages, images_in, labeling_of


@pytest.fixture
def images(tmp_path):
    return images_in(
        tmp_path / "photos", ("cats", ["a.jpg"]), (".", ["a.jpg", "in/A.JPG", "u.jpg", "z.jpg"]),
        exist=True,
    )  # fmt: skip


@pytest.fixture
def labeling():
    return labeling_of(
        [0, 0, 0, 1, -1],
        [0, -1, -1, -1, -1],
        is_unknown=np.array([False, False, False, True, False]),
    )


def content_of(folder):
    """Files below a folder, and where links lead."""
    return {
        path.relative_to(folder).as_posix(): path.resolve()
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() and path.name != MARKER
    }


@pytest.mark.parametrize("kind", ["links", "copies"])
def test_each_label_has_a_folder(tmp_path, images, labeling, kind):
    folder = tmp_path / "out" / "by label"
    found = write_folder_tree(folder, images, labeling, kind)
    assert found == FolderTree(n_files=4, n_without_label=1, n_without_file=0, n_missing=0)
    sources = {
        "cat/a.jpg": images.path(0),
        "cat/a_2.jpg": images.path(1),
        "cat/A_3.JPG": images.path(2),
        "unknown/u.jpg": images.path(3),
    }
    content = content_of(folder)
    assert set(content) == set(sources)
    for name, source in sources.items():
        assert (folder / name).read_bytes() == source.read_bytes()
        assert (folder / name).is_symlink() == (kind == "links")
        if kind == "links":
            assert content[name] == source.resolve()
            assert not (folder / name).readlink().is_absolute()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["by label"]


def test_links_hold_when_everything_moves_and_where_a_folder_is_a_link(tmp_path, images, labeling):
    real = tmp_path / "disk" / "deep"
    real.mkdir(parents=True)
    (tmp_path / "short").symlink_to(real)
    write_folder_tree(tmp_path / "short" / "tree", images, labeling)
    assert content_of(real / "tree")["unknown/u.jpg"] == images.path(3).resolve()
    moved = tmp_path.with_name(f"{tmp_path.name} moved")
    tmp_path.rename(moved)
    assert (moved / "disk/deep/tree/unknown/u.jpg").is_file()
    moved.rename(tmp_path)


def test_an_earlier_tree_is_replaced(tmp_path, images, labeling):
    folder = tmp_path / "tree"
    write_folder_tree(folder, images, labeling, "links")
    other = labeling_of([1] * 5, [-1] * 5)
    write_folder_tree(folder, images, other, "copies")
    assert len(content_of(folder)) == 5 and {path.name for path in folder.iterdir()} == {
        "dog", MARKER,
    }  # fmt: skip
    write_folder_tree(folder, images, labeling, "links")
    assert len(content_of(folder)) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "tree"]


@pytest.mark.parametrize("kind", ["links", "copies"])
@pytest.mark.parametrize("change", ["added", "removed", "exchanged", "beside"])
def test_a_tree_that_people_have_changed_is_kept(tmp_path, images, labeling, kind, change):
    folder = tmp_path / "tree"
    write_folder_tree(folder, images, labeling, kind)
    if change == "added":
        (folder / "cat" / "mine.txt").write_text("mine")
    elif change == "removed":
        (folder / "cat" / "a.jpg").unlink()
    elif change == "exchanged":
        file = folder / "cat" / "a.jpg"
        file.unlink()
        if kind == "links":
            file.write_text("mine")
        else:
            file.symlink_to(images.path(4))
    else:
        (folder / "mine.txt").write_text("mine")
    before = content_of(folder)
    with pytest.raises(InputError, match=r"^folder: got .* somebody has put files"):
        write_folder_tree(folder, images, labeling, kind)
    assert content_of(folder) == before


def test_another_folder_is_refused(tmp_path, images, labeling):
    folder = tmp_path / "mine"
    folder.mkdir()
    write_folder_tree(folder, images, labeling)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="which has other files in it"):
        write_folder_tree(other, images, labeling)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(folder)
    for name in ("file", "link"):
        with pytest.raises(InputError, match="which is no folder"):
            write_folder_tree(tmp_path / name, images, labeling)
    assert (other / "mine.txt").read_text() == "mine"
    with pytest.raises(InputError, match=r"^kind: got 'link'"):
        write_folder_tree(tmp_path / "new", images, labeling, "link")


def test_a_tree_that_images_are_in_is_refused(tmp_path, images, labeling):
    folder = tmp_path / "tree"
    write_folder_tree(folder, images, labeling, "copies")
    inside = images_in(folder, ("cat", ["a.jpg"]))
    with pytest.raises(InputError, match=r"is in; a tree is written anew"):
        write_folder_tree(folder, inside, labeling_of([0], [0]), "copies")
    assert len(content_of(folder)) == 4


def test_what_fails_on_the_way_leaves_nothing_and_the_earlier_tree(
    tmp_path, images, labeling, monkeypatch
):
    folder = tmp_path / "tree"
    write_folder_tree(folder, images, labeling, "links")
    before = content_of(folder)
    from lowshot_kedro.labeling.exports import folder_tree

    calls = []

    def copy(source, target):
        calls.append(source)
        if len(calls) == 3:
            raise KeyboardInterrupt
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(folder_tree.shutil, "copyfile", copy)
    with pytest.raises(KeyboardInterrupt):
        write_folder_tree(folder, images, labeling, "copies")
    assert content_of(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "tree"]


def test_where_no_links_are_possible_the_error_says_what_is(
    tmp_path, images, labeling, monkeypatch
):
    def no_links(*_):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    with pytest.raises(InputError, match=r"^kind: got 'links', no links .*; expected copies"):
        write_folder_tree(tmp_path / "tree", images, labeling)
    assert not (tmp_path / "tree").exists()


def test_images_that_are_no_files_are_written_among_copies_alone(tmp_path, caplog):
    images = JoinedImages([ArrayImages(3)])
    labeling = labeling_of([0, 1, 0], [0, -1, -1])
    found = write_folder_tree(tmp_path / "copies", images, labeling, "copies")
    assert found.n_files == 3
    assert set(content_of(tmp_path / "copies")) == {
        "cat/image 0.png", "cat/image 2.png", "dog/image 1.png",
    }  # fmt: skip
    with Image.open(tmp_path / "copies/cat/image 2.png") as image:
        assert (image.size, image.getpixel((0, 0))) == ((5, 4), (2, 0, 0))
    found = write_folder_tree(tmp_path / "links", images, labeling)
    assert found == FolderTree(0, 0, 3, 0)
    assert "3 images are left out: they are no files" in caplog.text


@pytest.mark.parametrize("kind", ["links", "copies"])
def test_a_missing_file_is_left_out_and_counted(tmp_path, images, labeling, kind, caplog):
    images.path(1).unlink()
    found = write_folder_tree(tmp_path / "tree", images, labeling, kind)
    assert (found.n_files, found.n_missing) == (3, 1)
    assert "1 images are left out: their file is not there" in caplog.text


ODD_CLASSES = (
    "a/b", "a\\b", "A_B", "..", ".", "", " ", ".hidden", "CON", "con.txt", "nul", "end. ", "end",
    "Café", "Cafe\u0301", "CAFÉ", "x" * 300, "x" * 299, "字" * 200, "tab\tnul\0", "v1.5", "V1.5",
    "unknown_", "Unknown", MARKER,
)  # fmt: skip


def test_odd_classes_have_names_that_every_file_system_takes():
    labels = [*ODD_CLASSES, "unknown"]
    names = _folder_names(labels)
    assert list(names) == labels
    folded = [name.casefold() for name in names.values()]
    assert len(set(folded)) == len(labels)
    for name in names.values():
        assert 0 < len(name.encode()) < 220
        assert (
            not set(name) & set('/\\<>:"|?*\0\t') and name[0] not in ". " and name[-1] not in ". "
        )
        assert name.split(".")[0].lower() not in ("con", "nul")
    assert names["end"] != names["end. "] and names["v1.5"] == "v1.5"
    assert names["V1.5"] == "V1.5_2"


def test_odd_classes_are_written_and_the_marker_says_what_they_are(tmp_path):
    n = len(ODD_CLASSES)
    names = [f"{number}.jpg" for number in range(n - 1)] + ["y" * 250 + ".jpg"]
    images = images_in(tmp_path / "photos", (".", names), exist=True)
    labeling = labeling_of(np.arange(n), np.full(n, -1), ODD_CLASSES)
    write_folder_tree(tmp_path / "tree", images, labeling)
    content = content_of(tmp_path / "tree")
    assert len(content) == n
    labels = json.loads((tmp_path / "tree" / MARKER).read_text("utf-8"))["labels"]
    for name, source in content.items():
        number = names.index(source.name)
        assert labels[name.split("/")[0]] == ODD_CLASSES[number]
    write_folder_tree(tmp_path / "tree", images, labeling)


def test_many_files_of_one_name_are_all_there(tmp_path):
    names = [f"{number}/a.jpg" for number in range(30)] + ["b/a_2.jpg", "b/a_3.jpg"]
    images = images_in(tmp_path / "photos", (".", names), exist=True)
    labeling = labeling_of([0] * 32, [-1] * 32)
    write_folder_tree(tmp_path / "tree", images, labeling)
    found = content_of(tmp_path / "tree")
    assert sorted(found.values()) == sorted(images.path(n).resolve() for n in range(32))
