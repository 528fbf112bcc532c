"""A folder of images as docs/own_images.md describes it, and runs over it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lowshot_kedro.images.demonstration import digits
from tests.projects import ROOT, run

# Labelled images of each class.
LABELED = {"cat": 1, "dog": 12, "horse": 3}

SMALL = {"features": {"image_size": 64, "num_workers": 0}}


def write_own_images(folder: Path) -> Path:
    """Three classes, four test images of each, 40 background images and one that is none."""
    images = folder / "images"
    demonstration = digits(seed=1, image_size=32)
    for split, numbers in (("train", LABELED), ("test", dict.fromkeys(LABELED, 4))):
        for label, (name, n_images) in enumerate(numbers.items()):
            folder = images / split / name
            folder.mkdir(parents=True)
            chosen = [scan for scan, digit in getattr(demonstration, split) if digit == label]
            for number, image in enumerate(chosen[:n_images]):
                image.save(folder / f"{number}.jpg")
    for number, image in enumerate(demonstration.background[:40]):
        folder = images / "background" / str(number % 3)
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.jpg")
    (images / "background" / "1" / "broken.jpg").write_bytes(b"no image")
    page = (ROOT / "docs" / "own_images.md").read_text()
    (content,) = re.findall(r"```csv\n(class,.*?)```", page, re.DOTALL)
    (images / "classes.csv").write_text(content)
    return images


def run_own_images(project: Path, *pipelines: str, **parameters: Any) -> None:
    changes: dict[str, Any] = {
        **SMALL,
        "pca": {"n_components": 16},
        "logistic_regression": {"max_iterations": 100},
    }
    run(project, *pipelines, env="own_images", **changes | parameters)
