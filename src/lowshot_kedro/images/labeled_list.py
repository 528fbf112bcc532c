"""Images named in a JSON list together with their labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from lowshot_kedro.errors import InputError, shown
from lowshot_kedro.images.decoding import upright
from lowshot_kedro.images.image_files import ImageFiles
from lowshot_kedro.input_files import read_json

_MAX_LABEL = 2**31 - 1


class LabeledList(ImageFiles):
    """The images of a JSON file with image_names and image_labels, relative to a root folder.

    Args:
        list_path: The JSON file.
        root: The folder that image_names are relative to; itself relative to the list's folder.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no such list: not JSON, a key missing, lengths that differ, or
            a label that is not an integer from 0.
    """

    def __init__(self, list_path: str | Path, root: str | Path = ".") -> None:
        list_path = Path(list_path)
        names, labels = _read_list(list_path)
        super().__init__("labeled list", list_path, list_path.parent / root, names, labels)


def _read_list(path: Path) -> tuple[list[str], list[int]]:
    """Names and labels, as many of each."""
    content: dict[str, Any] = read_json(path)
    for key in ("image_names", "image_labels"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{path}: expected an object with a list {key}")
    names, labels = content["image_names"], content["image_labels"]
    if len(names) != len(labels):
        raise InputError(
            f"{path}: {len(names)} image_names but {len(labels)} image_labels; expected as many"
        )
    for position, name in enumerate(names):
        if not isinstance(name, str):
            raise InputError(
                f"{path}: image_names[{position}] is {shown(name)}; expected file names"
            )
    for position, label in enumerate(labels):
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label <= _MAX_LABEL:
            raise InputError(
                f"{path}: image_labels[{position}] is {shown(label)}; expected integers from 0 to "
                f"{_MAX_LABEL}"
            )
    return names, labels


def write_labeled_list(
    list_path: Path, root: str, images: Iterable[tuple[Image.Image, int]]
) -> None:
    """Write images as numbered PNG files and the list that names them.

    The list is written last and all at once: where it exists, the images do. Images are turned
    as their EXIF orientation says, which is not written.

    Args:
        list_path: The JSON file.
        root: The folder of the images, relative to the list's; replaced if it exists.
        images: (image, 0-based label) pairs.

    Raises:
        ValueError: If root is not a folder of its own below the list's: it would be replaced
            together with whatever else is there.
    """
    folder = (list_path.parent / root).resolve()
    if list_path.parent.resolve() not in folder.parents:
        raise InputError(f"{list_path}: root is {root!r}; expected a folder below the list's own")
    partial_folder = folder.with_name(f".partial-{folder.name}")
    partial_list = list_path.with_name(f".partial-{list_path.name}")
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir(parents=True)
    try:
        names, labels = [], []
        for number, (image, label) in enumerate(images):
            names.append(f"{number:06d}.png")
            labels.append(int(label))
            upright(image).save(partial_folder / names[-1])
        partial_list.write_text(json.dumps({"image_names": names, "image_labels": labels}))
        list_path.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        partial_folder.rename(folder)
        partial_list.replace(list_path)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
        partial_list.unlink(missing_ok=True)
