"""Data sets of few-shot classification, written as the specification lays them out."""

import logging
import pickle

import numpy as np
import pytest
from PIL import Image

from lowshot_kedro.episodes.image_sets import few_shot_images
from lowshot_kedro.errors import InputError, MissingFileError
from lowshot_kedro.images import JoinedImages


def write_image(path, value=0, size=(2, 2)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def write_list(path, rows, header="filename,label"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")


def write_mini(root, rows, split="test", **kwargs):
    """A miniImageNet whose images are as bright as the number in their name."""
    write_list(root / f"split/{split}.csv", rows)
    for row in rows:
        name = row.split(",")[0]
        write_image(root / "images" / name, int(name.split(".")[0]), **kwargs)
    return root


ROWS = ["30.png,bird", "10.png,ant", "40.png,bird", "20.png,ant", "50.png,cat"]


def shown(images):
    return [(loaded.image.getpixel((0, 0))[0], loaded.label) for loaded in images]


@pytest.mark.parametrize("given", ["parent", "itself"])
def test_mini_imagenet_has_classes_by_name_and_images_by_line(tmp_path, given):
    root = write_mini(tmp_path / "miniimagenet", ROWS)
    images = few_shot_images("miniimagenet", tmp_path if given == "parent" else root, "test")
    assert images.class_names == ("ant", "bird", "cat")
    assert shown(images) == [(30, 1), (10, 0), (40, 1), (20, 0), (50, 2)]
    assert images.labels.dtype == np.int32
    assert images.labels.tolist() == [1, 0, 1, 0, 2]


def test_the_original_numbers_classes_as_they_appear(tmp_path, caplog):
    write_mini(tmp_path / "miniimagenet", ROWS)
    caplog.set_level(logging.INFO)
    images = few_shot_images("miniimagenet", tmp_path, "test", class_order="original")
    assert images.class_names == ("bird", "ant", "cat")
    assert images.labels.tolist() == [0, 1, 0, 1, 2]
    assert "numbered by name" not in caplog.text
    few_shot_images("miniimagenet", tmp_path, "test")
    assert "numbered by name; the original numbers them as they appear" in caplog.text


def test_folders_have_no_order_of_the_original(tmp_path):
    with pytest.raises(InputError, match=r"class_order: .*sorted for fc100"):
        few_shot_images("fc100", tmp_path, "test", class_order="original")


def test_a_split_is_read_from_its_own_list(tmp_path):
    for split, row in (("train", "1.png,a"), ("val", "2.png,b")):
        write_mini(tmp_path, [row], split)
    assert shown(few_shot_images("miniimagenet", tmp_path, "train")) == [(1, 0)]
    assert few_shot_images("miniimagenet", tmp_path, "val").class_names == ("b",)


def test_names_in_cub_are_relative_to_its_folder_and_further_fields_ignored(tmp_path):
    write_list(tmp_path / "cub/split/test.csv", ["images/x/7.png,wren,12,more"])
    write_image(tmp_path / "cub/images/x/7.png", 7)
    images = few_shot_images("cub", tmp_path, "test")
    assert shown(images) == [(7, 0)]
    assert images.name(0) == "images/x/7.png"


def test_the_broken_image_of_cub_is_left_out_of_train_alone(tmp_path, caplog):
    rows = [f"{number}.png,wren" for number in range(5866)]
    for split in ("train", "val"):
        write_list(tmp_path / f"split/{split}.csv", rows)
    write_image(tmp_path / "0.png")
    caplog.set_level(logging.INFO)
    train = few_shot_images("cub", tmp_path, "train")
    names = [train.name(number) for number in range(len(train))]
    assert names == [row.split(",")[0] for row in (*rows[:5864], rows[5865])]
    assert "5864.png, line 5864 after the header, is left out" in caplog.text
    assert len(few_shot_images("cub", tmp_path, "val", report=False)) == 5866


@pytest.mark.parametrize(
    ("dataset", "folder"),
    [
        ("tieredimagenet", "tiered_imagenet/val"),
        ("tieredimagenet", "tieredimagenet/val"),
        ("fc100", "FC100/val"),
        ("cifar_fs", "cifar_fs/meta-val"),
    ],
)
def test_folders_of_classes_are_sorted(tmp_path, dataset, folder):
    for number, name in enumerate(("dog/b", "dog/a", "cat/c")):
        write_image(tmp_path / folder / f"{name}.png", number)
    write_image(tmp_path / folder / "../other/bee/a.png")
    for path in (tmp_path, (tmp_path / folder).parent):
        images = few_shot_images(dataset, path, "val")
        assert images.class_names == ("cat", "dog")
        assert shown(images) == [(2, 0), (1, 1), (0, 1)]


def test_any_folder_of_classes_or_of_splits(tmp_path):
    for split in ("train", "test"):
        write_image(tmp_path / f"splits/{split}/of {split}/1.png")
        write_image(tmp_path / f"classes/{split}/1.png")
    assert few_shot_images("folder", tmp_path / "splits", "test").class_names == ("of test",)
    # CIFAR-100 has a class `train`.
    for split in ("train", "val"):
        images = few_shot_images("folder", tmp_path / "classes", split)
        assert images.class_names == ("test", "train")
    with pytest.raises(MissingFileError, match=r"splits/val: no folder of classes; .*train, test"):
        few_shot_images("folder", tmp_path / "splits", "val")
    write_image(tmp_path / "splits/cat/1.png")
    images = few_shot_images("folder", tmp_path / "splits", "val")
    assert images.class_names == ("cat", "test", "train")


def test_they_are_described_sent_and_named_as_other_images(tmp_path):
    (tmp_path / "a").mkdir()
    root = write_mini(tmp_path / "a/miniimagenet", ROWS)
    images = few_shot_images("miniimagenet", root, "test")
    sent = pickle.loads(pickle.dumps(images))
    assert shown(sent) == shown(images)
    assert (sent.class_names, sent.split) == (images.class_names, "test")
    facts = images.describe()
    assert facts.items() >= {"dataset": "miniimagenet", "split": "test", "n_pictures": 5}.items()
    assert JoinedImages([images]).file(1) == "10.png"
    assert images.file_keys(0, 5).any(axis=1).all()
    moved = root.rename(tmp_path / "elsewhere")
    assert few_shot_images("miniimagenet", moved, "test").describe() == facts
    write_image(moved / "images/10.png", 11, (9, 9))
    assert few_shot_images("miniimagenet", moved, "test").describe() != facts


@pytest.mark.parametrize("dataset", ["miniimagenet", "tieredimagenet", "fc100"])
@pytest.mark.parametrize("size", [(84, 84), (250, 190)])
def test_small_copies_are_warned_of_where_original_sizes_are_expected(
    tmp_path, caplog, dataset, size
):
    if dataset == "miniimagenet":
        write_mini(tmp_path, ROWS, size=size)
    else:
        write_image(tmp_path / "test/cat/1.png", size=size)
    few_shot_images(dataset, tmp_path, "test")
    is_small = size == (84, 84) and dataset != "fc100"
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == is_small
    if is_small:
        n_images = 5 if dataset == "miniimagenet" else 1
        assert f"{n_images} of {n_images} images looked at are smaller" in caplog.text
        assert "84 × 84 pixels" in caplog.text
    caplog.clear()
    few_shot_images(dataset, tmp_path, "test", report=False)
    assert not caplog.records


def test_some_small_images_are_nothing_to_warn_of(tmp_path, caplog):
    write_mini(tmp_path, ROWS[:2])
    write_mini(tmp_path, ROWS[2:], "val", size=(300, 2))
    write_list(tmp_path / "split/test.csv", ROWS)
    (tmp_path / "images/30.png").write_bytes(b"no image")
    few_shot_images("miniimagenet", tmp_path, "test")
    assert "WARNING" not in caplog.text


def test_missing_images_are_warned_of_or_refused(tmp_path, caplog):
    root = write_mini(tmp_path, ROWS, size=(200, 1))
    (root / "images/10.png").unlink()
    images = few_shot_images("miniimagenet", root, "test")
    assert images[1].problem is not None
    assert "1 of 5 images looked for are not there, the first is 10.png" in caplog.text
    for path in (root / "images").iterdir():
        path.unlink()
    with pytest.raises(MissingFileError, match=r"30\.png: no such file, nor is any other of 5 "):
        few_shot_images("miniimagenet", root, "test")


LAYOUTS = {
    "miniimagenet": r"expected miniImageNet as miniimagenet/images/NAME and miniimagenet/split/",
    "cub": r"expected CUB as cub/NAME and cub/split/",
    "tieredimagenet": r"expected tieredImageNet as tiered_imagenet/\{train,val,test\}/CLASS/IMAGE",
    "fc100": r"expected FC100 as FC100/",
    "cifar_fs": r"neither cifar_fs/meta-test nor meta-test is there",
}


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_a_layout_that_is_not_there_is_described(tmp_path, dataset):
    with pytest.raises(MissingFileError, match=LAYOUTS[dataset]):
        few_shot_images(dataset, tmp_path, "test")
    with pytest.raises(MissingFileError, match=r"absent: no such folder; expected .*\{"):
        few_shot_images(dataset, tmp_path / "absent", "test")


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"absent: no such folder; expected CLASS/IMAGE"):
        few_shot_images("folder", tmp_path / "absent", "test")
    with pytest.raises(InputError, match="expected one for each class"):
        few_shot_images("folder", tmp_path, "test")
    write_list(tmp_path / "split/test.csv", ["1.png,a"])
    with pytest.raises(MissingFileError, match="images: no such folder; expected miniImageNet as"):
        few_shot_images("miniimagenet", tmp_path, "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("filename,label\n1.png,a\n\n2.png,b,c\n", r"csv, line 4: found '2\.png,b,c', expected na"),
        ("filename,label\n1.png\n", r"csv, line 2: found '1\.png', expected name,class"),
        ("filename,label\n1.png,\n", r"csv, line 2: found '1\.png,'"),
        ("filename,label\n1.png,a\n1.png,b\n", r"line 3: found '1\.png' again, as in line 2"),
        ("filename,label\n,a\n", r"csv, line 2"),
        ("filename,label\n", "csv: found no image"),
        ("", "csv: found no image"),
        ("1.png,a\n2.png,a\n", r"csv, line 1: found the image '1\.png', expected a header"),
        ('filename,label\n"1.png,a\n', "csv: not a readable CSV"),
        (b"filename,label\n\xff.png,a\n", "csv: not a readable CSV"),
    ],
)
def test_a_damaged_list_is_refused_by_line(tmp_path, content, message):
    write_mini(tmp_path, ROWS)
    path = tmp_path / "split/test.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        few_shot_images("miniimagenet", tmp_path, "test")


@pytest.mark.parametrize("names", [("Train", "Test"), ("train", "valid")])
def test_folders_of_splits_by_other_names_are_no_classes(tmp_path, names):
    for name in names:
        write_image(tmp_path / name / "cat" / "1.png")
    with pytest.raises(InputError, match=r"expected a folder for every class, or train, val, test"):
        few_shot_images("folder", tmp_path, "test")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("imagenet", "test"), r"dataset: got 'imagenet', expected one of: .*miniimagenet\?"),
        (("features", "test"), "dataset"),
        (("folder", "novel"), "split: got 'novel', expected one of: train, val, test"),
    ],
)
def test_unknown_words_are_refused(tmp_path, arguments, message):
    dataset, split = arguments
    with pytest.raises(InputError, match=message):
        few_shot_images(dataset, tmp_path, split)
