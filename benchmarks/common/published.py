"""Data sets in the published layout: Fashion-MNIST by the pipelines, and points made up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import yaml
from numpy.typing import NDArray

from common.idx import CLASSES, IMAGES, find_idx
from lowshot_kedro.blocks import Blocks, LabeledBlock, row_ranges
from lowshot_kedro.datasets import (
    FaissTransformDataset,
    HDF5Features,
    HDF5FeaturesDataset,
    RawMatrixDataset,
)
from lowshot_kedro.pca import apply_transform
from lowshot_kedro.threads import run_in_one_thread

PROJECT = Path(__file__).parents[2]
ENVIRONMENT = "fashion_mnist"
CLASS_SPLIT = PROJECT / "conf" / ENVIRONMENT / "globals.yml"

# Of a class of the points that are made up, for training and for the test.
IMAGES_PER_CLASS = 50
# Points of a class lie around its centre in so many directions, and a little in all.
LATENT_COLUMNS = 16
SPREAD = 0.95
NOISE = 0.05
BLOCK_ROWS = 16_384
PCA_TRAINING_ROWS = 50_000


class PublishedFiles(NamedTuple):
    """Where the files of a data set are.

    Attributes:
        features: Folder of train.hdf5, val.hdf5, PCAR….vt and f100m/concatenated_PCAR….raw.
        class_split: The JSON file, or an environment's globals.yml that states the split.
        n_columns: Of the vectors, as file names say.
        description: What it is.
    """

    features: Path
    class_split: Path
    n_columns: int
    description: str

    @property
    def transform(self) -> Path:
        """The PCA."""
        return self.features / f"PCAR{self.n_columns}.vt"

    @property
    def background(self) -> Path:
        """The vectors of the background."""
        return self.features / "f100m" / f"concatenated_PCAR{self.n_columns}.raw"

    def load(self) -> PublishedData:
        """Open them.

        Raises:
            ValueError: Or FileNotFoundError, for a file that is missing or damaged.
        """
        train, test = (
            HDF5FeaturesDataset(filepath=str(self.features / f"{name}.hdf5")).load()
            for name in ("train", "val")
        )
        return PublishedData(
            read_class_split_file(self.class_split),
            train,
            test,
            FaissTransformDataset(filepath=str(self.transform)).load(),
            RawMatrixDataset(filepath=str(self.background), n_columns=self.n_columns).load(),
        )


class PublishedData(NamedTuple):
    """What is in the files.

    Attributes:
        class_split: Base and novel classes.
        train: Features of the images that may be labelled.
        test: Features of the test images.
        transform: The PCA.
        background: float32 (n, d), vectors of the unlabelled images, not normalised.
    """

    class_split: dict[str, Any]
    train: HDF5Features
    test: HDF5Features
    transform: faiss.VectorTransform
    background: NDArray[np.float32]


def read_class_split_file(path: Path) -> dict[str, Any]:
    """Base and novel classes, from a class split file or from an environment's globals.yml."""
    text = path.read_text()
    if path.suffix == ".json":
        split: dict[str, Any] = json.loads(text)
    else:
        split = yaml.safe_load(text)["torchvision"]["class_split"]
    return split


def fashion_mnist(folder: Path, images: Path, n_columns: int) -> PublishedFiles:
    """Fashion-MNIST, as `kedro run --env fashion_mnist --pipelines features,pca` makes it.

    Args:
        folder: Where a copy of the project's settings, and below it the data, is kept. What is
            there is not made again.
        images: Folder of the four idx files, plain or compressed.
        n_columns: Of the PCA.

    Raises:
        FileNotFoundError: If a file of images or labels is missing.
    """
    project = folder / ENVIRONMENT.replace("_", "-")
    raw = project / "data" / "01_raw" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        for what in (IMAGES, CLASSES):
            path = find_idx(images, part, what)
            if path is None:
                raise FileNotFoundError(f"{images} has no {part}-{what}-ubyte, plain or .gz")
            if not (raw / path.name).exists():
                (raw / path.name).symlink_to(path.resolve())
    for name in ("base", ENVIRONMENT):
        shutil.copytree(PROJECT / "conf" / name, project / "conf" / name, dirs_exist_ok=True)
    (project / "src").mkdir(exist_ok=True)
    shutil.copy(PROJECT / "pyproject.toml", project)
    subprocess.run(
        [
            *(sys.executable, "-m", "kedro", "run", "--env", ENVIRONMENT),
            *("--pipelines", "features,pca", "--params", f"pca.n_components={n_columns}"),
        ],
        cwd=project,
        env={**os.environ, "KEDRO_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"},
        stdout=sys.stderr,
        check=True,
    )
    features = project / "data" / ENVIRONMENT / "04_feature"
    return PublishedFiles(features, CLASS_SPLIT, n_columns, "Fashion-MNIST")


def made_up(folder: Path, n_rows: int, n_classes: int, n_columns: int, seed: int) -> PublishedFiles:
    """Points around the centres of many classes, which overlap.

    A class has a centre and a spread around it, both in 16 directions that all classes share; the
    columns are mixtures of these, and there is a little noise in all. A quarter of the classes
    each are base and novel, for choosing hyper-parameters and for the test.

    Args:
        folder: Where the files are kept. They are not made again if they are there.
        n_rows: Points of the background, of all classes.
        n_classes: A multiple of 4.
        n_columns: Of features and vectors.
        seed: The same files for the same arguments.

    Returns:
        In memory while they are made: a block of points and what the PCA is trained on.
    """
    name = f"made-up-{n_rows}x{n_columns}-classes{n_classes}-seed{seed}"
    files = PublishedFiles(
        folder / name / "features",
        folder / name / "label_idx.json",
        n_columns,
        f"points of {n_classes} classes made up",
    )
    # Written last.
    if files.class_split.is_file():
        return files
    files.background.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((n_classes, LATENT_COLUMNS))
    directions = rng.standard_normal((LATENT_COLUMNS, n_columns)) / np.sqrt(LATENT_COLUMNS)

    def points(classes: NDArray[np.int64], *number: int) -> NDArray[np.float32]:
        rng = np.random.default_rng([seed, *number])
        latent = centers[classes]
        latent += SPREAD * rng.standard_normal(latent.shape)
        noise = NOISE * rng.standard_normal((len(classes), n_columns))
        features: NDArray[np.float32] = (latent @ directions + noise).astype(np.float32)
        return features

    labels = np.repeat(np.arange(n_classes), IMAGES_PER_CLASS)
    for number, part in enumerate(("train", "val")):
        block = LabeledBlock(points(labels, 1, number), labels.astype(np.int32))
        dataset = HDF5FeaturesDataset(filepath=str(files.features / f"{part}.hdf5"))
        dataset.save(Blocks(len(labels), n_columns, lambda block=block: [block]))

    of_background = np.random.default_rng([seed, 0]).integers(0, n_classes, n_rows)
    pca = faiss.PCAMatrix(n_columns, n_columns, 0, True)
    run_in_one_thread(pca.train, points(of_background[:PCA_TRAINING_ROWS], 2))
    FaissTransformDataset(filepath=str(files.transform)).save(pca)

    def vectors() -> Iterator[NDArray[np.float32]]:
        for first, last in row_ranges(n_rows, BLOCK_ROWS):
            block = points(of_background[first:last], 3, first)
            yield apply_transform(pca, block, "background")

    dataset = RawMatrixDataset(filepath=str(files.background), n_columns=n_columns)
    dataset.save(Blocks(n_rows, n_columns, vectors))
    parts = rng.permutation(np.arange(1, n_classes + 1)).reshape(4, -1)
    names = ("base_classes_1", "novel_classes_1", "base_classes_2", "novel_classes_2")
    split: dict[str, Any] = {
        name: sorted(part.tolist()) for name, part in zip(names, parts, strict=True)
    }
    split["label_names"] = [f"class {number}" for number in range(1, n_classes + 1)]
    files.class_split.write_text(json.dumps(split))
    return files
