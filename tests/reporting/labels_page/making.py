"""Small collections of images with labels, and pages of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lowshot_kedro.images import ImageFolder, LoadedImage
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.images.label_files import LabelRow
from lowshot_kedro.labeling.attention import Duplicates, NextImages, SuspiciousLabels
from lowshot_kedro.labeling.given_labels import GivenLabels
from lowshot_kedro.labeling.labels import HeldOutLabels, Labeling
from lowshot_kedro.labeling.parameters import LabelingParameters
from lowshot_kedro.reporting.labels_page import LabelsPage

NO_NODES = np.empty(0, np.int32)
NO_NUMBERS = np.empty(0, np.float32)


class Shades:
    """Images that are no files: image i has the shade i."""

    def __init__(self, n_images: int) -> None:
        self.n_images = n_images
        self.asked_for: list[int] = []

    def __len__(self) -> int:
        return self.n_images

    def __getitem__(self, number: int) -> LoadedImage:
        self.asked_for.append(number)
        return LoadedImage(Image.new("RGB", (9, 7), (number % 256,) * 3), 0, None)

    @property
    def labels(self):
        return np.zeros(self.n_images, np.int32)

    def describe(self):
        return {"kind": "shades", "n_pictures": self.n_images}


def write_files(folder: Path, names: Sequence[str]) -> None:
    """PNG files, the shade of each is its place."""
    for place, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), (place, 100, 100)).save(path)


def folders(root: Path, labeled: Sequence[str], others: Sequence[str]) -> JoinedImages:
    """Two folders of images, of which the first one is the training set."""
    write_files(root / "labeled", labeled)
    write_files(root / "others", others)
    sources = [ImageFolder(root / "labeled"), ImageFolder(root / "others")]
    return JoinedImages(sources, root)


def labeling_of(
    classes: Sequence[str],
    given: Sequence[int],
    labels: Sequence[int],
    confidence: Sequence[float],
    groups: Sequence[int] | None = None,
    group_names: Sequence[str] = (),
    checked: Sequence[bool] | None = None,
    missing: Sequence[LabelRow] = (),
) -> Labeling:
    """A labelling; what is less certain than 0.3 is unknown."""
    given_, labels_ = np.array(given, np.int32), np.array(labels, np.int32)
    confidence_ = np.array(confidence, np.float32)
    n_images = len(labels_)
    return Labeling(
        GivenLabels(
            tuple(classes),
            given_,
            None if groups is None else np.array(groups, np.int32),
            tuple(group_names),
            ("a note about labels",),
            None if checked is None else np.array(checked, np.bool_),
            tuple(missing),
        ),
        labels_,
        confidence_,
        np.where(labels_ >= 0, (labels_ + 1) % len(classes), -1).astype(np.int32),
        (confidence_ / 2).astype(np.float32),
        np.where(given_ >= 0, 0, 1).astype(np.int32),
        np.zeros(n_images, np.int32),
        (confidence_ < 0.3) & (labels_ >= 0) & (given_ < 0),
        HeldOutLabels(NO_NODES, np.empty((0, len(classes)), np.float32)),
        {
            "method": "nearest_class_mean",
            "reason": "Nobody held labels out.",
            "methods": {"diffusion": {"accuracy": None, "error": None}},
            "classes": [
                {"name": name, "n_given": 1, "n_labels": int((labels_ == number).sum()),
                 "recall": None}
                for number, name in enumerate(classes)
            ],
            "is_calibrated": False,
            "calibration_sentence": "There are too few labels to know how many are right.",
            "threshold_sentence": "",
            "reliability": [],
            "notes": [],
        },
    )  # fmt: skip


def page_of(images: JoinedImages, labeling: Labeling, **changes) -> LabelsPage:
    """A page with empty lists, but for what is said."""
    return LabelsPage(
        **{
            "images": images,
            "labeling": labeling,
            "next_images": NextImages(NO_NODES, "A rule."),
            "suspicious": SuspiciousLabels(NO_NODES, NO_NUMBERS, NO_NODES, "Another rule."),
            "duplicates": Duplicates(NO_NODES, NO_NODES, NO_NUMBERS),
            "broken": [],
            "plots": {},
            "parameters": LabelingParameters(),
            **changes,
        }
    )


def summary(path: Path) -> dict:
    """What a page says of itself to its script."""
    found = re.search(r'id="summary">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def chunk(path: Path, name: str) -> dict:
    """What a page would load by a name."""
    text = (path.parent / summary(path)["data"] / f"{name}.js").read_text()
    found = re.fullmatch(r"lowshotChunk\((\"[^\"]*\"),(.*)\);\n", text, re.DOTALL)
    assert found is not None
    assert json.loads(found[1]) == name
    return json.loads(found[2])


def names_below(folder: Path) -> set[str]:
    return {os.path.relpath(path, folder) for path in folder.rglob("*") if path.is_file()}
