"""Environments whose images are a data set of torchvision: their globals name it, the rest follows.

The section `torchvision` of a globals.yml says what differs from one data set to the other:

    torchvision:
      name: FashionMNIST                  # a class of torchvision.datasets
      train: {rows_per_class: [0, 500]}   # the images that can be labelled

docs/public_data.md has all that can stand there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lowshot_kedro.errors import InputError, shown
from lowshot_kedro.parameters import (
    is_integer,
    refuse,
    require_boolean,
    require_integer,
    require_names,
)

SECTION = "torchvision"

_KEYS = ("name", "train", "test", "background", "download", "n_classes", "class_split")
_PART_KEYS = ("arguments", "rows_per_class")
_LISTS = ("base_classes_1", "novel_classes_1", "base_classes_2", "novel_classes_2")

# What conf/base says otherwise: the demonstration writes images, these are there.
PARAMETERS = {"demonstration": {"enabled": False}}


def class_list(section: Mapping[str, Any], raw: str) -> dict[str, Any]:
    """The `class_list` of a dataset, from which captions take the names of classes.

    Args:
        section: What the globals say.
        raw: The folder of the files.
    """
    names = (section.get("class_split") or {}).get("label_names")
    source = {
        "name": section["name"],
        "filepath": raw,
        "arguments": dict(_part(section, "train").get("arguments") or {}),
    }
    return source if names is None else {**source, "label_names": list(names)}


def catalog_entries(
    section: Mapping[str, Any], raw: str, class_list: str | Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The catalog entries of the images and the class split.

    Args:
        section: What the globals say.
        raw: The folder of the files.
        class_list: What names the classes.
    """
    train, test = _part(section, "train"), _part(section, "test")
    shared = {
        "name": section["name"],
        "filepath": raw,
        "download": section.get("download", True),
        "metadata": {"kedro-viz": {"layer": "raw"}},
    }
    images = {**shared, "type": "lowshot_kedro.datasets.TorchvisionImagesDataset"}
    return {
        "train_images": {**images, "part": "train", "class_list": class_list, **train},
        "test_images": {**images, "part": "test", "class_list": class_list, **test},
        "background_images": {**images, "part": "train", "labeled": False, **_background(section)},
        "class_split": {
            **shared,
            "type": "lowshot_kedro.datasets.TorchvisionClassSplitDataset",
            "arguments": train.get("arguments"),
            "n_classes": section.get("n_classes"),
            "class_split": section.get("class_split"),
        },
    }


def require_section(section: Any) -> None:
    """Refuse what cannot be a data set, without opening one.

    Raises:
        ValueError: For the first thing that is wrong.
    """
    _require_names(SECTION, section, _KEYS)
    if not isinstance(section.get("name"), str):
        expected = "a class of torchvision.datasets, such as CIFAR100"
        raise refuse(f"{SECTION}.name", section.get("name"), expected)
    require_boolean(f"{SECTION}.download", section.get("download", True))
    for name in ("train", "test", "background"):
        part = section.get(name)
        if part is not None:
            _require_names(f"{SECTION}.{name}", part, _PART_KEYS)
            _require_rows(f"{SECTION}.{name}.rows_per_class", part.get("rows_per_class"))
            if not isinstance(part.get("arguments") or {}, Mapping):
                expected = "arguments of the class, such as {split: test}"
                raise refuse(f"{SECTION}.{name}.arguments", part["arguments"], expected)
    split, n_classes = section.get("class_split"), section.get("n_classes")
    if split is not None:
        _require_names(f"{SECTION}.class_split", split, (*_LISTS, "label_names"))
        for name in split:
            if not isinstance(split[name], list):
                raise refuse(f"{SECTION}.class_split.{name}", split[name], "a list")
    if n_classes is not None:
        require_integer(f"{SECTION}.n_classes", n_classes, 1)
        if split is not None:
            raise InputError(
                f"{SECTION}.n_classes: got {n_classes} beside class_split, expected one of both"
            )
    _background(section)


def _part(section: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in (section.get(name) or {}).items() if value is not None}


def _background(section: Mapping[str, Any]) -> dict[str, Any]:
    """The background that is stated, or else the training images that cannot be labelled."""
    train, background = _part(section, "train"), _part(section, "background")
    arguments = train.get("arguments", {})
    if background.setdefault("arguments", arguments) != arguments:
        return background
    first, last = train.get("rows_per_class", (0, None))
    name = f"{SECTION}.train.rows_per_class"
    if "rows_per_class" not in background:
        if last is None:
            expected = "the images of a class that can be labelled, such as [0, 100]"
            raise refuse(
                name, train.get("rows_per_class"), f"{expected}; the others are the background"
            )
        background["rows_per_class"] = [last, None]
    start, end = background["rows_per_class"]
    if (end is None or first < end) and (last is None or start < last):
        expected = f"other images than those of {name}, {shown([first, last])}"
        raise refuse(f"{SECTION}.background.rows_per_class", [start, end], expected)
    return background


def _require_rows(name: str, rows: Any) -> None:
    if rows is None:
        return
    if isinstance(rows, Sequence) and not isinstance(rows, str) and len(rows) == 2:
        first, last = rows
        if is_integer(first, 0) and (last is None or is_integer(last, 1)):
            return
    raise refuse(name, rows, "[first, last], or last null: to the end")


def _require_names(prefix: str, found: Any, allowed: Sequence[str]) -> None:
    if not isinstance(found, Mapping):
        raise refuse(prefix, found, "a section")
    require_names(f"{prefix}.", found, dict.fromkeys(allowed, False))
