"""Test images and their neighbours in the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lowshot_kedro.blocks import KnnGraph
from lowshot_kedro.fonts import drawable, font_families
from lowshot_kedro.images import ImageSource
from lowshot_kedro.methods.palette import GREEN, GREY, ORANGE
from lowshot_kedro.metrics import Scores, right_and_wrong, top_k_hits
from lowshot_kedro.protocol import ImageSelection

_NEIGHBORS_SHOWN = 8


@dataclass(frozen=True)
class NeighborRow:
    """One test image and its most similar nodes, as :func:`plot_neighbors` draws them.

    Attributes:
        image: The test image.
        title: What is said of it.
        neighbors: (image, caption, colour of the frame) of each neighbour.
    """

    image: Image.Image
    title: str
    neighbors: Sequence[tuple[Image.Image, str, str]]


@dataclass(frozen=True)
class NodeImages:
    """The images behind the nodes of the graph of a run.

    Labelled images come first, then the training images that were not chosen if `unlabeled` is
    train or both, then the background.

    Attributes:
        selection: Knows which training images are nodes.
        train_images: The training set.
        background_images: The background.
        unlabeled: A value of `experiment.unlabeled`.
    """

    selection: ImageSelection
    train_images: ImageSource
    background_images: ImageSource
    unlabeled: str

    def class_of(self, node: int) -> int | None:
        """Class of a labelled node, None for others."""
        classes = self.selection.labeled_classes
        return int(classes[node]) if node < len(classes) else None

    def __getitem__(self, node: int) -> Image.Image:
        parts = [self.selection.labeled_positions]
        if self.unlabeled in ("train", "both"):
            parts.append(self.selection.unlabeled_positions)
        for positions in parts:
            if node < len(positions):
                return self.train_images[int(positions[node])].image
            node -= len(positions)
        return self.background_images[node].image


def frame_color(neighbor_class: int | None, true_class: int) -> str:
    """Green for a labelled neighbour of the true class, orange of another, grey without label."""
    if neighbor_class is None:
        return GREY
    return GREEN if neighbor_class == true_class else ORANGE


def neighbor_rows(
    points: NDArray[np.int64],
    selection: ImageSelection,
    scores: Scores,
    neighbors: KnnGraph,
    test_images: ImageSource,
    nodes: NodeImages,
) -> list[NeighborRow]:
    """Test images with true and guessed class, and their eight most similar nodes.

    Args:
        points: int64 (m,), which of the test images.
        selection: The images of the run.
        scores: Scores of the test images.
        neighbors: Graph neighbours of the test images.
        test_images: The test set.
        nodes: The images behind the nodes.
    """
    rows = []
    for point in points.tolist():
        true_class = int(selection.test_classes[point])
        guess = int(scores.scores[point].argmax())
        links = zip(
            neighbors.indices[point, :_NEIGHBORS_SHOWN].tolist(),
            neighbors.similarities[point, :_NEIGHBORS_SHOWN].tolist(),
            strict=True,
        )
        cells = []
        for node, similarity in links:
            if node < 0:
                continue
            node_class = nodes.class_of(node)
            name = "" if node_class is None else f"{selection.class_names[node_class]} "
            color = frame_color(node_class, true_class)
            cells.append((nodes[node], f"{name}{similarity:.2f}", color))
        title = f"{selection.class_names[true_class]}\n→ {selection.class_names[guess]}"
        image = test_images[int(selection.test_positions[point])].image
        rows.append(NeighborRow(image, title, cells))
    return rows


def plot_neighbors(rows: Sequence[NeighborRow]) -> Figure:
    """Test images, each followed by its neighbours in the graph, most similar first."""
    return plot_rows(
        rows,
        "Test images and their neighbours: green = labelled, same class; orange = labelled, "
        "another class; grey = without label",
    )


@dataclass(frozen=True)
class RowLayout:
    """How rows of images are laid out.

    Attributes:
        cell: Width and height of an image with its caption, in inches.
        gaps: Those between images, in parts of them, horizontally and vertically.
        captions_below: Whether captions stand below the images, not above.
        font_size: Of the captions, in points.
    """

    cell: tuple[float, float] = (1.25, 1.55)
    gaps: tuple[float, float] = (0.1, 0.35)
    captions_below: bool = False
    font_size: float = 7


def plot_rows(rows: Sequence[NeighborRow], title: str, layout: RowLayout | None = None) -> Figure:
    """Images, each followed by others with captions and coloured frames.

    Args:
        rows: What is drawn.
        title: What colours and captions mean.
        layout: Sizes, and where captions stand; None: the usual ones.
    """
    layout = layout or RowLayout()
    n_columns = 1 + max((len(row.neighbors) for row in rows), default=0)
    height = layout.cell[1] * max(1, len(rows)) + 0.7
    figure = Figure(figsize=(layout.cell[0] * n_columns, height))
    figure.suptitle(title, fontsize=9, y=1 - 0.15 / height)
    texts = [row.title for row in rows] + [cell[1] for row in rows for cell in row.neighbors]
    families = font_families(texts)
    grid = figure.subplots(max(1, len(rows)), n_columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.axis("off")
    for row, line in zip(rows, grid, strict=False):
        cells = [(row.image, row.title, "black"), *row.neighbors]
        for axes, (image, caption, color) in zip(line, cells, strict=False):
            axes.axis("on")
            axes.imshow(image)
            write = axes.set_xlabel if layout.captions_below else axes.set_title
            # A class may be called $5.
            write(drawable(caption), fontsize=layout.font_size, parse_math=False, family=families)
            for spine in axes.spines.values():
                spine.set(color=color, linewidth=3)
    room_below = 0.5 / height if layout.captions_below else 0.01
    room_above = (0.35 if layout.captions_below else 0.65) / height
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=room_below, top=1 - room_above, wspace=layout.gaps[0],
        hspace=layout.gaps[1],
    )  # fmt: skip
    return figure


def images_worth_showing(scores: Scores, n_images: int) -> NDArray[np.int64]:
    """Positions of some test images: half recognised, half not, spread over the classes.

    Args:
        scores: Scores of T test images.
        n_images: How many.

    Returns:
        int64 (at most n_images,), in class order.
    """
    correct = top_k_hits(scores.scores, scores.test_classes, 1)
    return right_and_wrong(correct, scores.test_classes, n_images)
