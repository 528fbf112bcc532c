"""All images in two dimensions, similar ones together, coloured by label."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from lowshot_kedro.blocks import spread_rows
from lowshot_kedro.fonts import drawable, font_families
from lowshot_kedro.labeling.labels import Labeling
from lowshot_kedro.methods.palette import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    VERMILLION,
)
from lowshot_kedro.reporting.style import empty_figure, shortened

_MAX_IN_LEGEND = 20
_MAX_AT_CENTRES = 60
_MAX_NAME = 24
_MAX_FOR_MEDIAN = 2_000
_LIGHT_GREY = "#CCCCCC"
# Behind the palette's those of Paul Tol's muted scheme that are unlike them.
_COLORS = (
    BLUE, ORANGE, GREEN, VERMILLION, SKY_BLUE, PURPLE, "#882255", "#117733", "#332288", "#999933",
)  # fmt: skip
# A colour comes again with another mark.
_MARKS = ("o", "s", "^", "D", "v", "P", "X")


def plot_image_map(
    positions: NDArray[np.float32],
    labeling: Labeling,
    max_points: int = 50_000,
    unknown: str = "unknown",
) -> Figure:
    """Where images lie in two dimensions, coloured by label; given labels have a black edge.

    Up to 20 classes stand in a legend. Names of more stand where most of their images are.

    Args:
        positions: float32 (N, 2).
        labeling: The labels of N images.
        max_points: At most so many images are drawn: all that have a given label, if these are
            fewer, and of the others some, evenly spread.
        unknown: What a label less sure than the threshold is called.
    """
    if not len(positions):
        return empty_figure("no images")
    given, labels = labeling.given, labeling.labels
    drawn = _drawn_nodes(given.labels >= 0, max_points)
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots()
    size = float(np.clip(20_000 / len(drawn), 3, 30))
    is_known = (labels[drawn] >= 0) & ~labeling.is_unknown[drawn]
    others = drawn[~is_known]
    if len(others):
        axes.scatter(
            positions[others, 0], positions[others, 1], s=size, color=_LIGHT_GREY,
            linewidths=0, label=unknown, rasterized=True,
        )  # fmt: skip
    of_class = _by_class(drawn[is_known], labels, given.n_classes)
    names = [drawable(shortened(name, _MAX_NAME)) for name in given.classes]
    families = font_families([*names, unknown])
    is_many = given.n_classes > _MAX_IN_LEGEND
    for nodes, name, (mark, color) in zip(of_class, names, _looks(given.n_classes), strict=True):
        if len(nodes):
            axes.scatter(
                positions[nodes, 0], positions[nodes, 1], s=size, color=color, marker=mark,
                linewidths=0, label=name, alpha=0.8, rasterized=True,
            )  # fmt: skip
        # Above all that have none.
        labeled = nodes[given.labels[nodes] >= 0]
        axes.scatter(
            positions[labeled, 0], positions[labeled, 1], s=3 * max(size, 8), color=color,
            marker=mark, edgecolors="black", linewidths=0.8, zorder=3,
        )  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(_title(len(positions), len(drawn), len(given.nodes)), fontsize=10)
    if is_many:
        figure.draw_without_rendering()
        _write_names(axes, positions, of_class, names, families)
    elif axes.get_legend_handles_labels()[0]:
        legend = figure.legend(
            loc="outside right upper", fontsize=9, prop={"family": families, "size": 9}
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_sizes([36])  # type: ignore[attr-defined]
                handle.set_alpha(1)
    return figure


def _drawn_nodes(is_given: NDArray[np.bool_], max_points: int) -> NDArray[np.int64]:
    """Which images are drawn: given ones first of all, the others evenly spread."""
    given, others = np.flatnonzero(is_given), np.flatnonzero(~is_given)
    given = given[spread_rows(len(given), max_points)]
    others = others[spread_rows(len(others), max_points - len(given))]
    return np.sort(np.concatenate([given, others]))


def _by_class(
    nodes: NDArray[np.int64], labels: NDArray[np.int32], n_classes: int
) -> list[NDArray[np.int64]]:
    order = nodes[np.argsort(labels[nodes], kind="stable")]
    ends = np.searchsorted(labels[order], np.arange(1, n_classes))
    return np.split(order, ends)


def _looks(n_classes: int) -> Iterator[tuple[str, str]]:
    """A mark and a colour for each class; with very many classes they come again."""
    looks = list(product(_MARKS, _COLORS))
    return islice((looks[number % len(looks)] for number in range(n_classes)), n_classes)


def _write_names(
    axes: Axes,
    positions: NDArray[np.float32],
    of_class: list[NDArray[np.int64]],
    names: list[str],
    families: list[str],
) -> None:
    """Write names where most images of a class are, the largest classes first, none over others."""
    taken: list[Bbox] = []
    sizes = np.array([len(nodes) for nodes in of_class])
    for number in np.argsort(-sizes, kind="stable").tolist():
        if not sizes[number] or len(taken) == _MAX_AT_CENTRES:
            break
        nodes = of_class[number][spread_rows(int(sizes[number]), _MAX_FOR_MEDIAN)]
        x, y = np.median(positions[nodes], axis=0)
        written = axes.text(
            x, y, names[number], ha="center", va="center", fontsize=7, zorder=4,
            parse_math=False, family=families,
            bbox={"boxstyle": "round,pad=0.15", "color": "white", "alpha": 0.75},
        )  # fmt: skip
        place = written.get_window_extent()
        if any(place.overlaps(other) for other in taken):
            written.remove()
        else:
            taken.append(place)


def _title(n_images: int, n_drawn: int, n_labeled: int) -> str:
    title = f"{n_images} images, similar ones close together"
    if n_drawn < n_images:
        title += f"; {n_drawn} of them are drawn"
    return f"{title}\ncoloured by label; a black edge: the label was given ({n_labeled})"
