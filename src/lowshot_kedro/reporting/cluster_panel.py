"""Images of the largest clusters and of the tightest."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from lowshot_kedro.deepercluster.panel import ChosenClusters, ShownCluster
from lowshot_kedro.images import ImageSource
from lowshot_kedro.reporting.style import empty_figure

# In inches: an image and the gap behind it, what stands before the first, headings, the title.
_CELL, _GAP, _GROUP_GAP = 0.82, 0.07, 0.12
_TEXT, _HEADING, _TITLE, _MARGIN = 1.62, 0.3, 0.58, 0.12
_MIN_WIDTH = 6.5
# Twice as many as are shown of an image in a file of 120 dots per inch.
_PIXELS = 200
# Fewer repeats are not worth a word.
_MIN_REPEATS = 0.05
_LIGHT_GREY, _DARK_GREY = "#EEEEEE", "#666666"


def plot_cluster_panel(images: ImageSource, chosen: ChosenClusters | None) -> Figure:
    """A row for each cluster: what it is, and its images, the nearest to the centroid first.

    An image is decoded at its own size, and then made as small as it is shown; one is in memory at
    a time.

    Args:
        images: All images.
        chosen: The clusters, see :func:`~lowshot_kedro.deepercluster.panel.choose_clusters`; None:
            there are no clusters, as in a training that predicts rotations alone.
    """
    if chosen is None:
        return empty_figure("no clusters: nothing but rotations is learnt")
    if not chosen.largest:
        return empty_figure("no cluster has an image")
    groups = (
        ("The largest", chosen.largest),
        ("The tightest: the smallest mean distance from the centroid", chosen.tightest),
    )
    n_rows = sum(max(1, len(clusters)) for _, clusters in groups)
    n_columns = max(len(cluster.numbers) for _, clusters in groups for cluster in clusters)
    width = max(_MIN_WIDTH, 2 * _MARGIN + _TEXT + n_columns * (_CELL + _GAP))
    height = _TITLE + n_rows * (_CELL + _GAP) + len(groups) * (_HEADING + _GROUP_GAP) + _MARGIN
    figure = Figure(figsize=(width, height))
    # One inch is one unit, and y points down.
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    _write_title(axes, chosen)
    top = _TITLE
    for heading, clusters in groups:
        axes.text(_MARGIN, top + _HEADING / 2, heading, fontsize=10, va="center", weight="bold")
        axes.plot([_MARGIN, width - _MARGIN], 2 * [top + _HEADING - 0.03], color="0.8", lw=0.8)
        top += _HEADING + _GAP / 2
        if not clusters:
            said = "none: each has one image, or more than half of its images repeat another one"
            axes.text(_MARGIN, top + _CELL / 2, said, fontsize=8, va="center", color=_DARK_GREY)
            top += _CELL + _GAP
        for cluster in clusters:
            _draw_cluster(axes, top, images, cluster, chosen)
            top += _CELL + _GAP
        top += _GROUP_GAP - _GAP / 2
    return figure


def _write_title(axes: Axes, chosen: ChosenClusters) -> None:
    clusters = f"{chosen.n_clusters:,} cluster" + ("s" if chosen.n_clusters != 1 else "")
    if chosen.n_super_clusters > 1:
        clusters += f" in {chosen.n_super_clusters:,} super-clusters"
    axes.text(_MARGIN, 0.12, f"{chosen.n_images:,} images in {clusters}", fontsize=12, va="top")
    axes.text(
        _MARGIN, 0.36, "Images of a row: the nearest to the centroid first, repeats left out",
        fontsize=8, va="top", color=_DARK_GREY,
    )  # fmt: skip


def _draw_cluster(
    axes: Axes, top: float, images: ImageSource, cluster: ShownCluster, chosen: ChosenClusters
) -> None:
    lines = _said_of(cluster, chosen)
    # As high as the image beside it.
    line = _CELL / 5
    for number, text in enumerate(lines):
        axes.text(
            _MARGIN, top + (number + 1) * line + (4 - len(lines)) * line / 2, text,
            fontsize=7.5, va="center", weight="bold" if number == 0 else "normal",
            color="black" if number == 0 else _DARK_GREY,
        )  # fmt: skip
    for column, image in enumerate(cluster.numbers.tolist()):
        _draw_image(axes, _MARGIN + _TEXT + column * (_CELL + _GAP), top, images, image)


def _said_of(cluster: ShownCluster, chosen: ChosenClusters) -> Sequence[str]:
    name = f"cluster {cluster.cluster}"
    if chosen.n_super_clusters > 1:
        name = f"super {cluster.super_cluster} · {name}"
    share = 100 * cluster.size / chosen.n_images
    images = "1 image" if cluster.size == 1 else f"{cluster.size:,} images"
    lines = [name, f"{images} ({share:.2g} %)", f"mean distance {cluster.mean_distance:.3f}"]
    if cluster.repeats >= _MIN_REPEATS:
        lines.append(f"{cluster.repeats:.0%} repeats")
    return lines


def _draw_image(axes: Axes, left: float, top: float, images: ImageSource, number: int) -> None:
    image, _, problem = images[number]
    if problem is not None:
        axes.add_patch(
            Rectangle(
                (left, top), _CELL, _CELL, facecolor=_LIGHT_GREY, edgecolor=_DARK_GREY, lw=0.6
            )
        )
        axes.text(
            left + _CELL / 2, top + _CELL / 2, "blank", fontsize=7, ha="center", va="center",
            color=_DARK_GREY,
        )  # fmt: skip
        return
    shown = _thumbnail(image)
    width, height = (_CELL * side / max(shown.size) for side in shown.size)
    left, top = left + (_CELL - width) / 2, top + (_CELL - height) / 2
    axes.imshow(
        shown, extent=(left, left + width, top + height, top), aspect="auto",
        interpolation="antialiased",
    )  # fmt: skip


def _thumbnail(image: Image.Image) -> Image.Image:
    """An image in RGB whose longer side has about as many pixels as are shown.

    Small images are enlarged by whole numbers, each pixel a square: smoothed they would look as if
    the network had seen something blurred.
    """
    longer = max(image.size)
    if longer < _PIXELS:
        times = _PIXELS // longer
        size = (times * image.width, times * image.height)
        return image.convert("RGB").resize(size, Image.Resampling.NEAREST)
    shown = image.convert("RGB")
    shown.thumbnail((_PIXELS, _PIXELS), Image.Resampling.LANCZOS)
    return shown
