"""Fashion-MNIST for scripts that train networks on it, and what labels spread to on its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.idx import CLASSES, IMAGES, find_idx
from lowshot_kedro import LabelDiffusion
from lowshot_kedro.images import TorchvisionImages
from lowshot_kedro.probes import Gallery


def image_source(fashion_mnist: Path, folder: Path, *, train: bool) -> TorchvisionImages:
    """The training or the test images as a trainer reads them.

    Args:
        fashion_mnist: Holds the four idx files, plain or compressed.
        folder: Gets links to the files, as torchvision looks for them.
        train: Whether it is the training images.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is of something else.
    """
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        for what in (IMAGES, CLASSES):
            path = find_idx(fashion_mnist, part, what)
            if path is not None and not (raw / path.name).exists():
                (raw / path.name).symlink_to(path.resolve())
    return TorchvisionImages("FashionMNIST", folder, arguments={"train": train})


class Diffusion:
    """Label diffusion over vectors, labelled or not, and what others get from it.

    Args:
        nodes: float32 (N, d) of length 1.
        tested: float32 (m, d) of length 1, which are in no fit.
        n_neighbors: Neighbours of a vector.
    """

    def __init__(
        self, nodes: NDArray[np.float32], tested: NDArray[np.float32], n_neighbors: int
    ) -> None:
        self._n_nodes = len(nodes)
        # Of this fit the graph alone is wanted. All labels but one, so that nothing warns.
        labels = np.arange(len(nodes)) % 2
        labels[0] = -1
        model = LabelDiffusion(n_neighbors, 1, metric="cosine").fit(nodes, labels)
        self._neighbors = (model.neighbors_, None)
        nearest = Gallery(nodes, np.zeros(len(nodes), np.int32), 1).nearest(tested, n_neighbors)
        self._test_neighbors = nearest.indices

    def shares(
        self,
        labeled: NDArray[np.int64],
        classes: NDArray[np.integer[Any]],
        n_iterations: int,
        asked: NDArray[np.int64] | slice = slice(None),
    ) -> NDArray[np.float32]:
        """The shares of classes of vectors that are in no fit.

        Args:
            labeled: Nodes that have a label.
            classes: Their labels, of which C differ.
            n_iterations: Steps.
            asked: Positions of those that are asked for.

        Returns:
            float32 (m, C), the classes in increasing order.
        """
        labels = np.full(self._n_nodes, -1)
        labels[labeled] = classes
        model = LabelDiffusion(
            n_iterations=n_iterations, metric="precomputed", class_prior="uniform"
        )
        model.fit(self._neighbors, labels)
        return model.predict_proba((self._test_neighbors[asked], None)).astype(np.float32)


def percent(values: Sequence[float]) -> str:
    """Mean, and sample standard deviation of several."""
    mean = f"{100 * np.mean(values):.1f}"
    return f"{mean} ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else mean
