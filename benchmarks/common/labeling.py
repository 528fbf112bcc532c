"""Collections of images with known classes for the benchmarks of labelling."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from common.idx import CLASSES, IMAGES, SIDE, find_idx, read_idx
from common.output import note
from common.vectors import FASHION_MNIST
from lowshot_kedro import LabelDiffusion
from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.graph import normalize
from lowshot_kedro.labeling.given_labels import GivenLabels
from lowshot_kedro.labeling.labels import HeldOutLabels, Labeling
from lowshot_kedro.labeling.nodes import LabelingGraph, NodeVectors
from lowshot_kedro.networks import create_extractor

DIGITS, PIXELS, NETWORK = "digits", "Fashion-MNIST, pixels", "Fashion-MNIST, network"
DATA = (DIGITS, PIXELS, NETWORK)
# Neighbours in the graph, and those that labels spread to, as LabelDiffusion has it.
GRAPH_NEIGHBORS = 30
DIFFUSION_NEIGHBORS = 10
_COMPONENTS = 256
_NETWORK = "efficientnet_lite0"
_BATCH = 50


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which collections, and where files are."""
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    add = parser.add_argument
    add("--data", nargs="+", default=DATA, choices=DATA, help="what to measure")
    add("--fashion-mnist", type=Path, default=FASHION_MNIST, help="folder of the images")
    add("--features", type=Path, help="npy file of features of the test images; made if missing")
    add("--quick", action="store_true", help="digits alone, two seeds")
    add("--seed", type=int, default=0, help="of the first draw")


class Collection:
    """Images with known classes: PCA, length 1, exact neighbours by cosine.

    Args:
        name: One of :data:`DATA`.
        rows: float32 (N, d), pixels or features.
        classes: int64 (N,), 0..C-1.
    """

    def __init__(self, name: str, rows: NDArray[np.float32], classes: NDArray[np.int64]) -> None:
        self.name, self.rows, self.classes = name, rows, classes
        self.n_classes = int(classes.max()) + 1

    def __len__(self) -> int:
        return len(self.classes)

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """float32 (N, up to 256), of length 1."""
        n_components = min(_COMPONENTS, self.rows.shape[1])
        reduced = PCA(n_components, random_state=0).fit_transform(self.rows)
        return normalize(reduced.astype(np.float32), 0, self.name)

    @cached_property
    def graph(self) -> LabelingGraph:
        """The graph of nearest neighbours."""
        index = faiss.IndexFlatIP(self.vectors.shape[1])
        index.add(self.vectors)
        similarities, neighbors = index.search(self.vectors, GRAPH_NEIGHBORS)
        nothing = np.empty((0, self.vectors.shape[1]), np.float32)
        return LabelingGraph(
            neighbors.astype(np.int32), similarities, NodeVectors(nothing, self.vectors)
        )

    def shares(self, labeled: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """What LabelDiffusion makes of labels, float32 (N, C)."""
        y = np.full(len(self), -1)
        y[labeled] = labels
        neighbors = np.ascontiguousarray(self.graph.neighbors[:, :DIFFUSION_NEIGHBORS])
        model = LabelDiffusion(metric="precomputed", class_prior="uniform")
        found = model.fit((neighbors, None), y).label_distributions_
        shares = np.zeros((len(self), self.n_classes), np.float32)
        shares[:, model.classes_] = found
        return shares

    def labeling(
        self,
        labeled: NDArray[np.int64],
        labels: NDArray[np.int64],
        shares: NDArray[np.float32],
        held_out: NDArray[np.float32] | None = None,
    ) -> Labeling:
        """Labels for all images.

        Args:
            labeled: int64 (L,), increasing where there are held-out labels.
            labels: int64 (L,).
            shares: float32 (N, C).
            held_out: float32 (L, C); None: no label was held out.
        """
        given = np.full(len(self), -1, np.int32)
        given[labeled] = labels
        order = np.argsort(-shares, axis=1, kind="stable")[:, :2]
        first, second = np.take_along_axis(shares, order, axis=1).T
        nodes = labeled.astype(np.int32) if held_out is not None else np.empty(0, np.int32)
        if held_out is None:
            held_out = np.empty((0, self.n_classes), np.float32)
        nothing = np.full(len(self), -1, np.int32)
        classes = tuple(str(number) for number in range(self.n_classes))
        return Labeling(
            GivenLabels(classes, given),
            order[:, 0].astype(np.int32),
            first,
            order[:, 1].astype(np.int32),
            first - second,
            nothing,
            nothing,
            np.zeros(len(self), np.bool_),
            HeldOutLabels(nodes, held_out),
            {},
        )


def collections(options: argparse.Namespace) -> Iterator[Collection]:
    """Those that are there; what is missing is named."""
    for name in (DIGITS,) if options.quick else options.data:
        try:
            yield _collection(name, options)
        except (FileNotFoundError, ValueError) as error:
            note(f"{name} is left out: {error}")


def _collection(name: str, options: argparse.Namespace) -> Collection:
    if name == DIGITS:
        rows, classes = load_digits(return_X_y=True)
        return Collection(name, rows.astype(np.float32), classes)
    pixels = _read(options.fashion_mnist, IMAGES)
    classes = _read(options.fashion_mnist, CLASSES).astype(np.int64)
    if name == PIXELS:
        return Collection(name, pixels.astype(np.float32), classes)
    path = options.features
    if path is not None and path.is_file():
        return Collection(name, np.load(path), classes)
    features = _features(pixels)
    if path is not None:
        np.save(path, features)
    return Collection(name, features, classes)


def _read(folder: Path, what: str) -> NDArray[np.uint8]:
    path = find_idx(folder, "t10k", what)
    if path is None:
        raise FileNotFoundError(f"{folder} has no t10k-{what}-ubyte, plain or .gz")
    return read_idx(path, what)


def _features(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features by a network that was trained on photographs."""
    import torch

    extractor = create_extractor(_NETWORK, "package", None)
    network = extractor.network.to(memory_format=torch.channels_last)
    parts = []
    with torch.inference_mode():
        for first, last in row_ranges(len(pixels), _BATCH):
            images = [
                extractor.preprocess(Image.fromarray(image).convert("RGB"))
                for image in pixels[first:last].reshape(-1, SIDE, SIDE)
            ]
            batch = torch.stack(images).contiguous(memory_format=torch.channels_last)
            parts.append(network(batch).numpy())
            if first % 1000 == 0:
                note(f"{NETWORK}: features of {last} images")
    return np.concatenate(parts)


def mean_and_error(values: list[float], percent: bool = True) -> str:
    """Mean ± standard error, for a table."""
    scale, digits = (100, 1) if percent else (1, 3)
    mean = scale * float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    error = scale * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return f"{mean:.{digits}f} ± {error:.{digits}f}"
