"""The data sets of few-shot classification, in the layouts that DeepEMD's authors hand out."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from lowshot_kedro.blocks import spread_rows
from lowshot_kedro.errors import InputError, MissingFileError, shown
from lowshot_kedro.images.decoding import open_image
from lowshot_kedro.images.folders import ClassFolders, folders_in, image_suffixes, some_of
from lowshot_kedro.images.image_files import ImageFiles
from lowshot_kedro.input_files import require_file
from lowshot_kedro.parameters import refuse, require_one_of

logger = logging.getLogger(__name__)

ClassOrder = Literal["sorted", "original"]
CLASS_ORDERS: tuple[ClassOrder, ...] = ("sorted", "original")
SPLITS = ("train", "val", "test")

# What other tools call the folders of splits.
_SPLIT_LIKE = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
_N_LOOKED_FOR = 1000
_N_OPENED = 20
# Images in their original sizes have longer sides; the copies that go around have 84 pixels.
_ORIGINAL_SIDE = 200


@dataclass(frozen=True)
class _Lists:
    """A data set with a CSV file for every split.

    Attributes:
        title: Its name for people.
        folders: Names that its folder may have.
        layout: What its folder holds, in words.
        images: The folder in it that names of images are relative to.
        has_more_fields: Whether lines may have more than name and class.
        left_out: By split, the line after the header that the original leaves out, from 0.
        is_large: Whether images are expected in the sizes that they have in ImageNet.
    """

    title: str
    folders: tuple[str, ...]
    layout: str
    images: str
    has_more_fields: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict)
    is_large: bool = False


@dataclass(frozen=True)
class _Folders:
    """A data set with a folder for every split, and in it one for every class.

    Attributes:
        title: Its name for people.
        folders: Names that its folder may have.
        layout: What its folder holds, in words.
        prefix: What names of the folders of splits begin with.
        is_large: Whether images are expected in the sizes that they have in ImageNet.
    """

    title: str
    folders: tuple[str, ...]
    layout: str
    prefix: str = ""
    is_large: bool = False


_SETS: Mapping[str, _Lists | _Folders] = {
    "miniimagenet": _Lists(
        "miniImageNet",
        ("miniimagenet",),
        "miniimagenet/images/NAME and miniimagenet/split/{train,val,test}.csv with a header and a "
        "line name,class for every image",
        "images",
        is_large=True,
    ),
    "tieredimagenet": _Folders(
        "tieredImageNet",
        ("tiered_imagenet", "tieredimagenet"),
        "tiered_imagenet/{train,val,test}/CLASS/IMAGE",
        is_large=True,
    ),
    "cub": _Lists(
        "CUB",
        ("cub",),
        "cub/NAME and cub/split/{train,val,test}.csv with a header and a line name,class for every "
        "image, the name relative to cub/",
        "",
        has_more_fields=True,
        left_out={"train": 5864},
    ),
    "fc100": _Folders("FC100", ("FC100", "fc100"), "FC100/{train,val,test}/CLASS/IMAGE"),
    "cifar_fs": _Folders(
        "CIFAR-FS",
        ("cifar_fs",),
        "cifar_fs/{meta-train,meta-val,meta-test}/CLASS/IMAGE",
        prefix="meta-",
    ),
}
FEW_SHOT_SETS = (*_SETS, "folder")


class FewShotImages(ImageFiles):
    """The images of one split of a data set, and the names of its classes.

    Args:
        dataset: The data set, one of `FEW_SHOT_SETS`.
        split: Which of its classes: train, val or test.
        root: The folder that names are relative to.
        names: One for each image.
        labels: Positions in `class_names`, one for each image.
        class_names: The classes.
    """

    def __init__(
        self,
        dataset: str,
        split: str,
        root: Path,
        names: Sequence[str],
        labels: Sequence[int],
        class_names: Sequence[str],
    ) -> None:
        super().__init__("few-shot images", root, root, names, labels)
        self.dataset = dataset
        self.split = split
        self.class_names = tuple(class_names)

    def describe(self) -> dict[str, Any]:
        """Data set and split, and what :meth:`ImageFiles.describe` says."""
        return {**super().describe(), "dataset": self.dataset, "split": self.split}


def few_shot_images(
    dataset: str,
    path: str | Path,
    split: str,
    *,
    class_order: ClassOrder = "sorted",
    report: bool = True,
) -> FewShotImages:
    """The images of a split of a data set.

    Classes are numbered in the order of their names, and images of a class stand in the order of
    their file names, or of the lines of a list. Then the same seed makes the same episodes on every
    machine. The original numbers the classes of lists by first appearance, which `class_order`
    offers too (it also gives the images of a class that appears in several places the class before;
    here they keep their own), and takes folders and files in whatever order the file system has
    them, so that its episodes of tieredImageNet, FC100 and CIFAR-FS differ from machine to machine.

    The image of line 5864 after the header of CUB's train list is left out, whether it can be read
    or not: it is broken in the original's copy, and its episodes are drawn from the others.

    Args:
        dataset: One of `FEW_SHOT_SETS`. `folder`: a folder with a folder for every class, or with
            folders train, val and test that hold those.
        path: The folder of the data set, or the one that it lies in.
        split: train, val or test. Of a `folder` without folders of splits it takes all images.
        class_order: `sorted`, or `original` for miniImageNet and CUB.
        report: Whether to log in what the images differ from the original's, and to look at files:
            for up to 1000 whether they are there, and at the headers of 20 of miniImageNet and
            tieredImageNet. A warning says if images are missing, which are blank ones then, or are
            not in their original sizes, which costs accuracy.

    Returns:
        The images. Nothing is decoded; names and labels are in memory.

    Raises:
        MissingFileError: If a folder or a list is not there.
        InputError: If an argument is none of those allowed, a list is damaged, naming the line, or
            none of the images of a list is there.
    """
    require_one_of("dataset", dataset, FEW_SHOT_SETS)
    require_one_of("split", split, SPLITS)
    require_one_of("class_order", class_order, CLASS_ORDERS)
    known, folder = _SETS.get(dataset), Path(path)
    if class_order == "original" and not isinstance(known, _Lists):
        expected = f"sorted for {dataset}: the original has the order of the file system"
        raise refuse("class_order", class_order, expected)
    if isinstance(known, _Lists):
        images = _listed(dataset, known, folder, split, class_order, report)
    elif known is not None:
        of_split = f"{known.prefix}{split}"
        images = _in_folders(dataset, split, _find(known, folder, of_split) / of_split)
    else:
        images = _in_folders(dataset, split, _folder_of_classes(folder, split))
    if report and isinstance(known, _Lists):
        _require_files(images, known)
    if report and known is not None and known.is_large:
        _warn_of_small_files(images, known)
    return images


def _find(known: _Lists | _Folders, folder: Path, needed: str) -> Path:
    """The folder of a data set, which holds a file or folder."""
    for candidate in (*(folder / name for name in known.folders), folder):
        if (candidate / needed).exists():
            return candidate
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder; expected {known.layout} in it")
    looked_for = " nor ".join([*(f"{name}/{needed}" for name in known.folders), needed])
    raise MissingFileError(
        f"{folder}: neither {looked_for} is there; expected {known.title} as {known.layout}"
    )


def _listed(
    dataset: str,
    known: _Lists,
    folder: Path,
    split: str,
    class_order: ClassOrder,
    report: bool,
) -> FewShotImages:
    list_name = f"split/{split}.csv"
    root = _find(known, folder, list_name)
    if not (root / known.images).is_dir():
        raise MissingFileError(
            f"{root / known.images}: no such folder; expected {known.title} as {known.layout}"
        )
    rows = _read_list(root / list_name, known.has_more_fields)
    left_out = known.left_out.get(split, len(rows))
    if left_out < len(rows):
        name, _ = rows.pop(left_out)
        if report:
            logger.info(
                "%s: %s, line %d after the header, is left out: the original's copy is broken",
                root / list_name,
                name,
                left_out,
            )
    appeared = list(dict.fromkeys(class_name for _, class_name in rows))
    class_names = sorted(appeared) if class_order == "sorted" else appeared
    if report and class_names != appeared:
        logger.info(
            "%s: classes are numbered by name; the original numbers them as they appear, so that a "
            "seed makes other episodes",
            root / list_name,
        )
    numbers = {class_name: number for number, class_name in enumerate(class_names)}
    names = [name for name, _ in rows]
    labels = [numbers[class_name] for _, class_name in rows]
    return FewShotImages(dataset, split, root / known.images, names, labels, class_names)


def _read_list(path: Path, has_more_fields: bool) -> list[tuple[str, str]]:
    """Name and class of every image."""
    require_file(path)
    rows: list[tuple[str, str]] = []
    lines: dict[str, int] = {}
    expected = "name,class" + (" and perhaps more" if has_more_fields else "")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if header and Path(header[0].strip()).suffix.lower() in image_suffixes():
                raise InputError(
                    f"{path}, line 1: found the image {shown(header[0])}, expected a header such "
                    "as filename,label: the first line is never an image"
                )
            for raw in reader:
                cells = [cell.strip() for cell in raw]
                if not any(cells):
                    continue
                is_right = len(cells) == 2 or (len(cells) > 2 and has_more_fields)
                if not is_right or not cells[0] or not cells[1]:
                    found = shown(",".join(cells))
                    raise InputError(
                        f"{path}, line {reader.line_num}: found {found}, expected {expected}"
                    )
                # An episode would have it as support and query image.
                first = lines.setdefault(cells[0], reader.line_num)
                if first != reader.line_num:
                    raise InputError(
                        f"{path}, line {reader.line_num}: found {shown(cells[0])} again, as in "
                        f"line {first}; expected every image once"
                    )
                rows.append((cells[0], cells[1]))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable CSV file in UTF-8 ({error})") from error
    if not rows:
        raise InputError(f"{path}: found no image, expected a header and lines {expected}")
    return rows


def _folder_of_classes(folder: Path, split: str) -> Path:
    """The folder of the class folders of a split, in a folder of any layout."""
    if not folder.is_dir():
        raise MissingFileError(
            f"{folder}: no such folder; expected CLASS/IMAGE or {{train,val,test}}/CLASS/IMAGE in "
            "it"
        )
    found = folders_in(folder)
    # A class may be called `train`, too.
    with_classes = [name for name in SPLITS if name in found and folders_in(folder / name)]
    if split in with_classes:
        return folder / split
    if not set(found) <= set(SPLITS) and {name.lower() for name in found} <= _SPLIT_LIKE:
        raise InputError(
            f"{folder}: found the folders {some_of(found)}; expected a folder for every class, or "
            f"{', '.join(SPLITS)} with such folders"
        )
    if with_classes and set(found) <= set(SPLITS):
        raise MissingFileError(
            f"{folder / split}: no folder of classes; found them in {some_of(with_classes)} alone"
        )
    return folder


def _in_folders(dataset: str, split: str, folder: Path) -> FewShotImages:
    found = ClassFolders(folder)
    names = [found.name(number) for number in range(len(found))]
    return FewShotImages(dataset, split, folder, names, found.labels.tolist(), found.classes)


def _require_files(images: FewShotImages, known: _Lists) -> None:
    """Refuse a list of images that are not there; warn where some are not."""
    looked_for = spread_rows(len(images), _N_LOOKED_FOR)
    paths = [images.root / images.name(int(number)) for number in looked_for]
    missing = [path for path in paths if not path.is_file()]
    if len(missing) == len(paths):
        raise MissingFileError(
            f"{missing[0]}: no such file, nor is any other of {len(paths)} looked for; expected "
            f"{known.title} as {known.layout}"
        )
    if missing:
        logger.warning(
            "%s: %d of %d images looked for are not there, the first is %s: they are blank images",
            images.root,
            len(missing),
            len(paths),
            missing[0].name,
        )


def _warn_of_small_files(images: FewShotImages, known: _Lists | _Folders) -> None:
    sizes: list[tuple[int, int]] = []
    for number in spread_rows(len(images), _N_OPENED):
        try:
            with open_image(images.root / images.name(int(number))) as file:
                sizes.append(Image.open(file).size)
        except Exception:
            # What is wrong with it is said where it is decoded.
            continue
    small = [size for size in sizes if max(size) < _ORIGINAL_SIDE]
    if 2 * len(small) > len(sizes):
        logger.warning(
            "%s: %d of %d images looked at are smaller than the originals, for instance %d × %d "
            "pixels; expected %s in its original sizes: with copies of 84 pixels people got 57 %% "
            "on miniImageNet instead of 66 %%",
            images.root,
            len(small),
            len(sizes),
            *small[0],
            known.title,
        )
