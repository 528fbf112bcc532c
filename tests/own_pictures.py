"""A folder of pictures as docs/own_pictures.md describes it, and runs over it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lowshot_kedro.images.demonstration import digits
from tests.projects import ROOT, run

# Labelled pictures of each class.
LABELED = {"cat": 1, "dog": 12, "horse": 3}

SMALL = {"features": {"image_size": 64, "num_workers": 0}}


def write_own_pictures(folder: Path) -> Path:
    """Three classes, four test pictures of each, 40 background pictures and one that is none."""
    pictures = folder / "pictures"
    demonstration = digits(seed=1, picture_size=32)
    for split, numbers in (("train", LABELED), ("test", dict.fromkeys(LABELED, 4))):
        for label, (name, n_pictures) in enumerate(numbers.items()):
            folder = pictures / split / name
            folder.mkdir(parents=True)
            chosen = [scan for scan, digit in getattr(demonstration, split) if digit == label]
            for number, picture in enumerate(chosen[:n_pictures]):
                picture.save(folder / f"{number}.jpg")
    for number, picture in enumerate(demonstration.background[:40]):
        folder = pictures / "background" / str(number % 3)
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{number}.jpg")
    (pictures / "background" / "1" / "broken.jpg").write_bytes(b"no picture")
    page = (ROOT / "docs" / "own_pictures.md").read_text()
    (content,) = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    (pictures / "classes.csv").write_text(content)
    return pictures


def run_own_pictures(project: Path, *pipelines: str, **parameters: Any) -> None:
    changes: dict[str, Any] = {
        **SMALL,
        "pca": {"n_components": 16},
        "logistic_regression": {"max_iterations": 100},
    }
    run(project, *pipelines, env="own_pictures", **changes | parameters)
