"""Environments whose images are a data set of torchvision: their globals name it, the rest follows.

The section `torchvision` of a globals.yml says what differs from one data set to the other:

    torchvision:
      name: FashionMNIST                  # a class of torchvision.datasets
      train: {rows_per_class: [0, 500]}   # the images that can be labelled

docs/public_data.md has all that can stand there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from lowshot_kedro.errors import InputError, require_integer, shown

SECTION = "torchvision"

_KEYS = ("name", "train", "test", "background", "download", "n_classes", "class_split")
_PART_KEYS = ("arguments", "rows_per_class")
_LISTS = ("base_classes_1", "novel_classes_1", "base_classes_2", "novel_classes_2")

# What conf/base says otherwise: the demonstration writes images, these are there.
PARAMETERS = {"demonstration": {"enabled": False}}


def class_list(section: Mapping[str, Any], raw: str) -> dict[str, Any]:
    """Where captions find the names of classes, as `class_list` of a dataset.

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
        raise InputError(
            f"{SECTION}.name: got {shown(section.get('name'))}, expected a class of "
            "torchvision.datasets, such as CIFAR100"
        )
    if not isinstance(section.get("download", True), bool):
        raise InputError(
            f"{SECTION}.download: got {shown(section['download'])}, expected true or false"
        )
    for name in ("train", "test", "background"):
        part = section.get(name)
        if part is not None:
            _require_names(f"{SECTION}.{name}", part, _PART_KEYS)
            _require_rows(f"{SECTION}.{name}.rows_per_class", part.get("rows_per_class"))
            if not isinstance(part.get("arguments") or {}, Mapping):
                raise InputError(
                    f"{SECTION}.{name}.arguments: got {shown(part['arguments'])}, expected "
                    "arguments of the class, such as {split: test}"
                )
    split, n_classes = section.get("class_split"), section.get("n_classes")
    if split is not None:
        _require_names(f"{SECTION}.class_split", split, (*_LISTS, "label_names"))
        for name in split:
            if not isinstance(split[name], list):
                raise InputError(
                    f"{SECTION}.class_split.{name}: got {shown(split[name])}, expected a list"
                )
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
    """What is stated of the background, or else the training images that cannot be labelled."""
    train, background = _part(section, "train"), _part(section, "background")
    arguments = train.get("arguments", {})
    if background.setdefault("arguments", arguments) != arguments:
        return background
    first, last = train.get("rows_per_class", (0, None))
    name = f"{SECTION}.train.rows_per_class"
    if "rows_per_class" not in background:
        if last is None:
            raise InputError(
                f"{name}: got {shown(train.get('rows_per_class'))}, expected the images of a "
                "class that can be labelled, such as [0, 100]; the others are the background"
            )
        background["rows_per_class"] = [last, None]
    start, end = background["rows_per_class"]
    if (end is None or first < end) and (last is None or start < last):
        raise InputError(
            f"{SECTION}.background.rows_per_class: got {shown([start, end])}, expected other "
            f"images than those of {name}, {shown([first, last])}"
        )
    return background


def _require_rows(name: str, rows: Any) -> None:
    if rows is None:
        return
    if isinstance(rows, Sequence) and not isinstance(rows, str) and len(rows) == 2:
        first, last = rows
        if _is_integer(first) and (last is None or _is_integer(last)):
            return
    raise InputError(f"{name}: got {shown(rows)}, expected [first, last], or last null: to the end")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_names(prefix: str, found: Any, allowed: Sequence[str]) -> None:
    if not isinstance(found, Mapping):
        raise InputError(f"{prefix}: got {shown(found)}, expected a section")
    for name in found:
        if name not in allowed:
            near = get_close_matches(str(name), allowed, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            names = ", ".join(allowed)
            raise InputError(
                f"{prefix}: got {shown(name)}, unknown{hint}; expected some of: {names}"
            )
