"""Images and those that an embedding holds to be most like them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lowshot_kedro.blocks import spread_rows
from lowshot_kedro.images import ImageSource
from lowshot_kedro.metrics import right_and_wrong
from lowshot_kedro.probes import Gallery, strict_top_k
from lowshot_kedro.reporting.neighbors import (
    NeighborRow,
    RowLayout,
    frame_color,
    plot_rows,
)
from lowshot_kedro.reporting.style import shortened

# Where there are more queries, those that are shown are chosen from so many of them.
_MAX_CLASSIFIED = 4096
_MAX_NAME = 12
_RIGHT, _WRONG = "\N{CHECK MARK}", "\N{BALLOT X}"
_LAYOUT = RowLayout(cell=(0.72, 1.05), gaps=(0.12, 0.42), captions_below=True, font_size=6.5)


@dataclass(frozen=True)
class EmbeddedImages:
    """Images and what a network makes of them.

    Attributes:
        images: n images with their labels.
        embeddings: float32 (n, d).
    """

    images: ImageSource
    embeddings: NDArray[np.float32]


def nearest_image_rows(
    queries: EmbeddedImages,
    gallery: EmbeddedImages,
    class_names: Sequence[str],
    temperature: float,
    n_queries: int = 10,
    n_neighbors: int = 20,
    starred: Collection[int] = (),
) -> list[NeighborRow]:
    """Some images, half of them recognised, and the most similar ones of a gallery.

    An image is recognised if its class has the best score by the neighbours shown, each of them
    with the weight exp(similarity / temperature). The images shown are the same for the same
    embeddings.

    Args:
        queries: Images to choose from, as a rule the test set. Of labels that the gallery has not
            none is shown.
        gallery: As a rule the training set.
        class_names: A name for every label; empty: the labels are the names.
        temperature: Above 0.
        n_queries: How many are shown at most.
        n_neighbors: How many similar images each has, or all of a smaller gallery.
        starred: Labels whose names get a star, such as those that were not trained on.

    Returns:
        A row for each image shown, for :func:`plot_nearest_images`. In memory besides: a copy of
        the gallery's embeddings.

    Raises:
        InputError: As :func:`lowshot_kedro.probes.knn_scores`.
    """
    labels, classes = np.unique(gallery.images.labels, return_inverse=True)
    rows = np.flatnonzero(np.isin(queries.images.labels, labels))
    rows = rows[spread_rows(len(rows), _MAX_CLASSIFIED)]
    if len(rows) == 0:
        return []
    true = np.searchsorted(labels, queries.images.labels[rows]).astype(np.int32)
    found = Gallery(gallery.embeddings, classes, len(labels))
    k = min(n_neighbors, len(found))
    embeddings = queries.embeddings[rows]
    scores = found.scores(embeddings, k, temperature)
    chosen = right_and_wrong(strict_top_k(scores, true, 1), true, n_queries)
    nearest = found.nearest(embeddings[chosen], k)

    def name_of(number: int) -> str:
        label = int(labels[number])
        name = shortened(class_names[label] if class_names else str(label), _MAX_NAME)
        return f"{name}*" if label in starred else name

    result = []
    for place, query in enumerate(chosen.tolist()):
        true_class, guess = int(true[query]), int(scores[query].argmax())
        cells = []
        for row, similarity in zip(
            nearest.indices[place].tolist(), nearest.similarities[place].tolist(), strict=True
        ):
            is_right = int(classes[row]) == true_class
            caption = f"{_mark(is_right)} {similarity:.2f}\n{name_of(classes[row])}"
            color = frame_color(int(classes[row]), true_class)
            cells.append((gallery.images[row].image, caption, color))
        title = name_of(true_class)
        if guess != true_class:
            title += f"\n→ {name_of(guess)}"
        image = queries.images[int(rows[query])].image
        result.append(NeighborRow(image, title, cells))
    return result


def plot_nearest_images(rows: Sequence[NeighborRow], star: str = "") -> Figure:
    """Images, each followed by the most similar ones of the gallery, most similar first.

    Args:
        rows: Of :func:`nearest_image_rows`.
        star: What a star behind a name means; empty: there is none.
    """
    return plot_rows(
        rows,
        f"Images, up to half of them taken for another class (→), and the most similar ones: "
        f"{_RIGHT} green = same class, {_WRONG} orange = another class; similarity"
        + (f"; * {star}" if star else ""),
        _LAYOUT,
    )


def _mark(is_right: bool) -> str:
    return _RIGHT if is_right else _WRONG
