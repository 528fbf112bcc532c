import pytest

from lowshot_kedro.errors import InputError
from lowshot_kedro.images import ClassFolders, ImageFolder
from lowshot_kedro.images.labeling_folder import find_layout, labeled_images, unlabeled_images
from tests.images.helpers import flat_jpeg

JPEG = flat_jpeg(100)


def write(root, *names):
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)
    return root


def files(source):
    """Path below the folder → class, of all images."""
    names = [source.name(number) for number in range(len(source))]
    if not isinstance(source, ClassFolders):
        return names
    labels = [source.classes[label] for label in source.labels]
    return dict(zip(names, labels, strict=True))


def found(root, labels_file_exists=False, classes=None):
    layout = find_layout(root, labels_file_exists)
    labeled = labeled_images(layout, classes)
    return files(labeled), files(unlabeled_images(layout)), layout


TRAIN = ("train/cat/1.jpg", "train/cat/deep/2.jpg", "train/dog/1.jpg")


@pytest.mark.parametrize("labels_file_exists", [True, False])
def test_train_and_background_are_what_they_are_without_labelling(tmp_path, labels_file_exists):
    write(tmp_path, *TRAIN, "test/cat/3.jpg", "background/x/1.jpg", "loose.jpg", "other/1.jpg")
    layout = find_layout(tmp_path, labels_file_exists)
    labeled, unlabeled = labeled_images(layout), unlabeled_images(layout)
    alone = ClassFolders(tmp_path / "train"), ImageFolder(tmp_path / "background")
    for mine, theirs in zip((labeled, unlabeled), alone, strict=True):
        assert mine.describe() == theirs.describe()
        assert files(mine) == files(theirs)
        assert mine.root == theirs.root
    assert labeled.classes == ("cat", "dog")
    assert ("of the file" in layout.sentence) is labels_file_exists


def test_a_class_list_orders_the_classes_as_without_labelling(tmp_path):
    write(tmp_path, *TRAIN, "train/cow/1.jpg", "background/1.jpg")
    labeled = labeled_images(find_layout(tmp_path, False), ["dog", "cat"])
    assert labeled.describe() == ClassFolders(tmp_path / "train", ["dog", "cat"]).describe()


def test_train_alone_leaves_all_other_images_without_a_label(tmp_path):
    write(tmp_path, *TRAIN, "test/cat/3.jpg", "loose.jpg", "2021/may/1.jpg", ".hidden/1.jpg")
    labeled, unlabeled, layout = found(tmp_path)
    assert labeled == {"cat/1.jpg": "cat", "cat/deep/2.jpg": "cat", "dog/1.jpg": "dog"}
    assert unlabeled == ["2021/may/1.jpg", "loose.jpg"]
    assert layout.sentence == (
        f"{tmp_path}: images in the folders of train have the name of their folder as label, all "
        "others have none, those in test are left out"
    )


@pytest.mark.parametrize("name", ["background", "Unlabeled", "unlabelled", "BACKGROUND"])
@pytest.mark.parametrize("labels_file_exists", [True, False])
def test_folders_beside_one_of_unlabelled_images_are_classes(tmp_path, name, labels_file_exists):
    write(tmp_path, "cat/1.jpg", "dog/a/1.jpg", f"{name}/x/1.jpg", "loose.jpg", "test/cat/2.jpg")
    labeled, unlabeled, layout = found(tmp_path, labels_file_exists)
    assert labeled == {"cat/1.jpg": "cat", "dog/a/1.jpg": "dog"}
    assert unlabeled == sorted([f"{name}/x/1.jpg", "loose.jpg"])
    assert f"those in {name} and beside" in layout.sentence


def test_folders_beside_loose_images_are_classes_without_a_file_of_labels(tmp_path):
    write(tmp_path, "cat/1.jpg", "dog/1.jpg", "b.jpg", "a.png", "test/dog/9.jpg", "empty/")
    labeled, unlabeled, layout = found(tmp_path)
    assert labeled == {"cat/1.jpg": "cat", "dog/1.jpg": "dog"}
    assert unlabeled == ["a.png", "b.jpg"]
    # An empty folder is known, so that it can be named.
    assert layout.class_folders == ("cat", "dog", "empty")
    assert labeled_images(layout).classes == ("cat", "dog", "empty")


def test_with_a_file_of_labels_no_folder_is_a_class(tmp_path):
    write(tmp_path, "2021/1.jpg", "2022/1.jpg", "loose.jpg", "test/1.jpg")
    labeled, unlabeled, layout = found(tmp_path, True)
    assert (labeled, layout.labeled_root) == ({}, None)
    assert unlabeled == ["2021/1.jpg", "2022/1.jpg", "loose.jpg", "test/1.jpg"]
    assert "(were 2021, 2022 meant to be classes, move" in layout.sentence
    (tmp_path / "loose.jpg").unlink()
    assert "meant" not in find_layout(tmp_path, True).sentence
    empty = labeled_images(layout)
    assert (len(empty), empty.classes, empty.labels.tolist()) == (0, (), [])
    assert empty.describe()["n_pictures"] == 0


def test_labels_of_a_file_are_enough_beside_a_folder_of_unlabelled_images(tmp_path):
    write(tmp_path, "background/1.jpg", "background/2.jpg")
    labeled, unlabeled, _ = found(tmp_path, True)
    assert (labeled, unlabeled) == ({}, ["background/1.jpg", "background/2.jpg"])


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path, "car/1.jpg", "train/1.jpg", "train/2.jpg", "loose.jpg")
    labeled, unlabeled, _ = found(tmp_path)
    assert labeled == {"car/1.jpg": "car", "train/1.jpg": "train", "train/2.jpg": "train"}
    assert unlabeled == ["loose.jpg"]


@pytest.mark.parametrize("place", ["results", "cat/results", ""])
@pytest.mark.parametrize("labels_file_exists", [True, False])
def test_results_of_a_labelling_are_neither_images_nor_classes(tmp_path, place, labels_file_exists):
    write(tmp_path, "cat/1.jpg", "dog/1.jpg", "loose.jpg")
    before = found(tmp_path, labels_file_exists)
    out = tmp_path / place
    write(out, "labels_files/thumbnails/1.jpg")
    (out / "labels.html").touch()
    if place:
        write(out, "by_label/cat/1.jpg")
    after = found(tmp_path, labels_file_exists)
    assert after[:2] == before[:2]
    assert after[2].class_folders == before[2].class_folders


@pytest.mark.parametrize("place", ["results", "cat/results"])
def test_results_of_a_run_that_was_stopped_are_neither_images_nor_classes(tmp_path, place):
    write(tmp_path, "cat/1.jpg", "dog/1.jpg", "loose.jpg")
    before = found(tmp_path)
    write(tmp_path / place, "labels_report.json", "labels_map.png", "labels_files/thumbnails/1.jpg")
    after = found(tmp_path)
    assert after[:2] == before[:2]
    assert after[2].class_folders == before[2].class_folders


def test_one_of_the_two_names_makes_no_results(tmp_path):
    write(tmp_path, "cat/1.jpg", "labels_files/1.jpg", "loose.jpg")
    assert found(tmp_path)[0] == {"cat/1.jpg": "cat", "labels_files/1.jpg": "labels_files"}


@pytest.mark.parametrize(
    "names, facts",
    [
        (["cat/1.jpg", "dog/1.jpg"], ["images in cat, dog", "no images without a label"]),
        (["1.jpg", "2.jpg"], ["found no class and 2 images without a label"]),
        (["empty/", "2.jpg"], ["found no class and 1 images without a label"]),
        (["notes/"], ["found no class and no images"]),
        (["cat/1.jpg", "1.jpg"], ["images of one class only, cat", "two classes at least"]),
        (["cat/1.jpg", "dog/", "1.jpg"], ["images of one class only, cat"]),
        (["train/cat/1.jpg", "1.jpg"], ["train", "one class only, cat"]),
        (["train/cat/", "1.jpg"], ["train", "no class folder with an image"]),
        ([*TRAIN], ["found no image but those in train"]),
        ([*TRAIN, "test/cat/9.jpg"], ["found no image but those in train, test"]),
        ([*TRAIN, "background/", "1.jpg"], ["background: found no image;"]),
        (["cat/1.jpg", "dog/1.jpg", "unlabeled/"], ["no images without a label"]),
    ],
)
def test_a_folder_that_is_none_of_these_is_refused_with_what_would_be(tmp_path, names, facts):
    write(tmp_path, *names)
    with pytest.raises(InputError) as caught:
        found(tmp_path)
    message = str(caught.value)
    for fact in [str(tmp_path), *facts, "a folder for each class", "labels.csv"]:
        assert fact in message
    assert "\n" not in message


def test_a_folder_without_images_is_refused_with_a_file_of_labels_too(tmp_path):
    with pytest.raises(InputError, match="found no image;"):
        found(tmp_path, True)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_layout(tmp_path / "absent", True)


def test_classes_of_a_list_without_images_are_told_from_folders(tmp_path):
    write(tmp_path, "cat/1.jpg", "dog/1.jpg", "1.jpg")
    with pytest.raises(InputError, match="no folder for class eel, emu; found cat, dog"):
        found(tmp_path, classes=["eel", "emu"])


def test_corrected_labels_of_class_folders_leave_them_classes(tmp_path):
    write(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "loose.jpg")
    named = ["cat/1.jpg", "dog/1.jpg", "loose.jpg"]
    layout = find_layout(tmp_path, True, lambda: named)
    assert (layout.labeled_root, layout.class_folders) == (tmp_path, ("cat", "dog"))
    assert files(unlabeled_images(layout)) == ["loose.jpg"]
    # A few labels in a tree of folders say nothing of the folders.
    assert find_layout(tmp_path, True, lambda: named[:1]).labeled_root is None
    (tmp_path / "loose.jpg").unlink()
    assert find_layout(tmp_path, True, lambda: named).labeled_root is None


@pytest.mark.parametrize("name", ["labeled", "Labelled"])
def test_train_may_be_called_labeled(tmp_path, name):
    write(tmp_path, f"{name}/cat/1.jpg", f"{name}/dog/1.jpg", "unlabeled/1.jpg", "2.jpg")
    labeled, unlabeled, _ = found(tmp_path)
    assert labeled == {"cat/1.jpg": "cat", "dog/1.jpg": "dog"}
    assert unlabeled == ["2.jpg", "unlabeled/1.jpg"]
