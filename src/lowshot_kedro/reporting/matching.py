"""Which regions of an image DeepEMD matches to which of the images of two classes, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image

from lowshot_kedro.deepemd.matching import (
    ClassMatch,
    QueryMatch,
    RegionImage,
    region_image,
)
from lowshot_kedro.episodes.episode import Episode
from lowshot_kedro.fonts import drawable, font_families
from lowshot_kedro.images import ImageSource
from lowshot_kedro.methods.palette import BLUE, VERMILLION
from lowshot_kedro.reporting.neighbors import frame_color
from lowshot_kedro.reporting.style import empty_figure, shortened

if TYPE_CHECKING:
    from lowshot_kedro.episodes.methods.emd_method import EMDMethod
    from lowshot_kedro.networks import DenseExtractor

# Between two images the strongest flows are drawn that together carry this part; never more lines.
_PART_DRAWN = 0.8
_MAX_LINES = 12
_MAX_NAME = 18
_RIGHT, _WRONG = "\N{CHECK MARK}", "\N{BALLOT X}"

# In widths of an image: left edges of the five images of a row, and room for them.
_PAIRS = ((0.0, 1.5), (2.85, 4.35))
_REASONS = 5.7
_ROW = (6.72, 1.47)
_INCHES = 1.42
_ABOVE, _BELOW, _MARGIN = 0.58, 0.66, 0.1  # inches
_FONT_SIZE = 7.5
_PIXELS = 120
_SAME_SIZE = 1e-6

_LINE_WIDTHS = (0.6, 3)
_SPREAD = 0.8
# From light to dark: for every eye, and on paper too.
_SIMILARITIES = LinearSegmentedColormap.from_list(
    "similarities", ["#A9D3F0", "#56A0D8", "#0072B2", "#083D73", "#04163A"]
)
# In front of black and of white.
_VEIL, _MAX_VEIL = "#A0A0A0", 0.85
_MAX_TINT, _PALE = 0.8, 0.5


@dataclass(frozen=True)
class _Place:
    """Where an image is drawn: the scale of a row is the width of its images, y points down."""

    left: float
    top: float
    width: float
    height: float

    @property
    def extent(self) -> tuple[float, float, float, float]:
        return self.left, self.left + self.width, self.top + self.height, self.top

    def anchor(self, box: NDArray[np.float64]) -> tuple[float, float]:
        """Where lines begin or end in a region: the higher the further left the region is.

        Of regions side by side all would otherwise lie on the lines of the others.
        """
        left, top, right, bottom = box
        x, y = (
            (left + right) / 2,
            (top + bottom) / 2 + _SPREAD * (bottom - top) * ((left + right) / 2 - 0.5),
        )
        return self.left + self.width * x, self.top + self.height * y


@dataclass(frozen=True)
class _Scales:
    """What widths and colours mean, the same in a whole figure."""

    max_flow: float
    similarities: Normalize
    writing: dict[str, Any]

    def line_width(self, flow: float) -> float:
        thin, thick = _LINE_WIDTHS
        return thin + (thick - thin) * flow / self.max_flow


def plot_matching(
    matches: Sequence[QueryMatch],
    query_image: Callable[[int], RegionImage],
    support_image: Callable[[int], RegionImage],
    class_names: Sequence[str],
) -> Figure:
    """A row for each query: how its regions flow to those of images of the two best classes.

    Beside the query stands a support image of the best class, and then, with the query once more,
    one of the second. Regions that weigh little are greyed. Lines are the strongest flows, as wide
    as much flows and the darker the more similar the regions are. On the far right, what in the
    query speaks for the best class rather than the second: it adds up to the difference of their
    logits.

    Args:
        matches: As :func:`~lowshot_kedro.deepemd.matching.explain_matches` gives them.
        query_image: The image behind a position among the queries, and its regions.
        support_image: The image behind a position among the support images, and its regions.
        class_names: A name for every class of the episode.
    """
    if not matches:
        return empty_figure("no queries")
    names = [shortened(name, _MAX_NAME) for name in class_names]
    scales = _scales(matches, names)
    names = [drawable(name) for name in names]
    width = _INCHES * _ROW[0] + 2 * _MARGIN
    height = _INCHES * _ROW[1] * len(matches) + _ABOVE + _BELOW
    figure = Figure(figsize=(width, height))
    for number, query in enumerate(matches):
        bottom = _BELOW + _INCHES * _ROW[1] * (len(matches) - 1 - number)
        axes = figure.add_axes(
            (
                _MARGIN / width,
                bottom / height,
                1 - 2 * _MARGIN / width,
                _INCHES * _ROW[1] / height,
            ),
            xlim=(0, _ROW[0]),
            ylim=(1.14, 1.14 - _ROW[1]),
        )
        axes.axis("off")
        _draw_row(axes, query, query_image, support_image, names, scales)
    figure.text(
        0.5, 1 - 0.12 / height,
        "Which regions of a query image flow to which regions of images of the two best classes",
        ha="center", va="top", fontsize=10,
    )  # fmt: skip
    figure.text(
        0.5, 1 - 0.34 / height,
        "Greyed regions weigh little. Lines: the strongest flows, as many as carry "
        f"{_PART_DRAWN:.0%} of all, and at most {_MAX_LINES} from image to image",
        ha="center", va="top", fontsize=8,
    )  # fmt: skip
    _draw_legends(figure, scales)
    return figure


def plot_episode_matching(
    method: EMDMethod,
    episode: Episode,
    images: ImageSource,
    extractor: DenseExtractor,
    class_name: Callable[[int], str] = str,
    n_queries: int = 4,
) -> Figure:
    """The matching of some queries of an episode, half of them wrongly classified ones.

    Args:
        method: A variant of DeepEMD.
        episode: The episode.
        images: All images that the episode was drawn from.
        extractor: What their regions come from, in the view of the method, see
            :func:`~lowshot_kedro.deepemd.regions.view_extractor`.
        class_name: The name of a label of the images.
        n_queries: How many are shown at most.
    """

    def shown(rows: NDArray[np.int64]) -> Callable[[int], RegionImage]:
        return lambda number: region_image(
            images[int(rows[number])].image, extractor, method.pyramid
        )

    labels = images.labels[episode.support_rows[: episode.n_way]].tolist()
    return plot_matching(
        method.matches(episode, n_queries),
        shown(episode.query_rows),
        shown(episode.support_rows),
        [class_name(label) for label in labels],
    )


def strongest_flows(
    flow: NDArray[np.float64], part: float = _PART_DRAWN, max_lines: int = _MAX_LINES
) -> list[tuple[int, int]]:
    """The strongest flows, strongest first: as many as carry a part of all, and at most some.

    Args:
        flow: float64 (n, m), at least 0.
        part: 0..1, of the sum of all.
        max_lines: At most so many.

    Returns:
        (i, j) of each; of equal ones those of the first region come first.
    """
    order = np.argsort(-flow, axis=None, kind="stable")[:max_lines]
    carried = np.cumsum(flow.flat[order]) / flow.sum()
    # A little more than nothing, since sums are rounded.
    n_needed = 1 + int((carried < part - 1e-9).sum())
    shown = order[:n_needed]
    return [
        (int(i), int(j)) for i, j in zip(*np.unravel_index(shown, flow.shape), strict=True)
        if flow[i, j] > 0
    ]  # fmt: skip


def heat_map(
    values: NDArray[np.float64], boxes: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float64]:
    """Values of regions, each spread evenly over its box, on the pixels of an image.

    Args:
        values: float64 (n,).
        boxes: float64 (n, 4): left, top, right, bottom, 0..1, with an area above 0.
        size: Pixels: height and width.

    Returns:
        float64 (height, width): what falls on each pixel. The sum is that of the values.
    """
    height, width = size

    def covered(first: NDArray[np.float64], last: NDArray[np.float64], n: int) -> Any:
        """What part of each interval falls on each of n pixels."""
        edges = np.arange(n + 1) / n
        shared = np.minimum(last[:, None], edges[1:]) - np.maximum(first[:, None], edges[:-1])
        return shared.clip(0) / (last - first)[:, None]

    left, top, right, bottom = boxes.T
    rows, columns = covered(top, bottom, height), covered(left, right, width)
    return np.asarray((rows * values[:, None]).T @ columns)


def _scales(matches: Sequence[QueryMatch], names: Sequence[str]) -> _Scales:
    pairs = [match for query in matches for match in (query.best, query.second)]
    drawn = [(match, *line) for match in pairs for line in strongest_flows(match.flow)]
    similarities = [match.similarities[i, j] for match, i, j in drawn]
    low = np.floor(10 * min(similarities)) / 10
    return _Scales(
        max(match.flow[i, j] for match, i, j in drawn),
        Normalize(low, max(low + 0.1, np.ceil(10 * max(similarities)) / 10)),
        {"parse_math": False, "family": font_families(names), "fontsize": _FONT_SIZE},
    )


def _reasons(query: QueryMatch, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where in the query what speaks for the best class (above 0) or for the second (below)."""
    difference = query.best.contributions - query.second.contributions
    return heat_map(difference, boxes, (_PIXELS, _PIXELS))


def _draw_row(
    axes: Axes,
    query: QueryMatch,
    query_image: Callable[[int], RegionImage],
    support_image: Callable[[int], RegionImage],
    names: Sequence[str],
    scales: _Scales,
) -> None:
    of_query = query_image(query.query)
    taken_for = names[query.best.class_number]
    verdict = f"recognised {_RIGHT}" if query.is_right else f"taken for {taken_for} {_WRONG}"
    for match, (left, right), rank in zip(
        (query.best, query.second), _PAIRS, ("best", "second"), strict=True
    ):
        of_support = support_image(match.support)
        places = _place(of_query.image, left), _place(of_support.image, right)
        _draw_image(axes, of_query, places[0], match.query_weights)
        _draw_image(axes, of_support, places[1], match.support_weights)
        _draw_flows(axes, match, (of_query, of_support), places, scales)
        is_true = match.class_number == query.true_class
        _frame(axes, places[0], "black")
        _frame(axes, places[1], frame_color(match.class_number, query.true_class))
        again = "" if rank == "best" else "same "
        _caption(axes, left, f"{again}query: {names[query.true_class]}\n{verdict}", scales)
        _caption(
            axes,
            right,
            f"{rank}: {names[match.class_number]} {_RIGHT if is_true else _WRONG}\n"
            f"logit {match.logit:.2f}, {match.probability:.0%}",
            scales,
        )
        _note(axes, left, right, match, query.n_shot)
    _draw_reasons(axes, query, of_query, scales)


def _place(image: Image.Image, left: float) -> _Place:
    """In the middle of a square whose upper left corner is (left, 0)."""
    width, height = (side / max(image.size) for side in image.size)
    return _Place(left + (1 - width) / 2, (1 - height) / 2, width, height)


def _draw_image(
    axes: Axes, shown: RegionImage, place: _Place, weights: NDArray[np.float64]
) -> None:
    """Draw an image with a grey veil over what weighs little."""
    axes.imshow(shown.image, extent=place.extent, aspect="auto")
    heat = heat_map(weights, shown.boxes, (_PIXELS, _PIXELS))
    veil = np.empty((*heat.shape, 4))
    veil[..., :3] = to_rgb(_VEIL)
    veil[..., 3] = _MAX_VEIL * (1 - heat / heat.max())
    axes.imshow(veil, extent=place.extent, aspect="auto", interpolation="nearest")


def _draw_flows(
    axes: Axes,
    match: ClassMatch,
    images: tuple[RegionImage, RegionImage],
    places: tuple[_Place, _Place],
    scales: _Scales,
) -> None:
    # The strongest above the others.
    for i, j in reversed(strongest_flows(match.flow)):
        color = _SIMILARITIES(scales.similarities(match.similarities[i, j]))
        boxes = [image.boxes[region] for image, region in zip(images, (i, j), strict=True)]
        ends = [place.anchor(box) for place, box in zip(places, boxes, strict=True)]
        width = scales.line_width(match.flow[i, j])
        for place, image, box in zip(places, images, boxes, strict=True):
            if _differ_in_size(image.boxes):
                _outline(axes, place, box, color)
        halo = [withStroke(linewidth=width + 1.2, foreground="white")]
        axes.plot(
            *zip(*ends, strict=True), color=color, linewidth=width, solid_capstyle="round",
            marker="o", markersize=width + 1.8, markeredgewidth=0, path_effects=halo,
        )  # fmt: skip


def _differ_in_size(boxes: NDArray[np.float64]) -> bool:
    """Whether a line's end does not say which region it belongs to."""
    return bool((np.ptp(boxes[:, 2:] - boxes[:, :2], axis=0) > _SAME_SIZE).any())


def _outline(axes: Axes, place: _Place, box: NDArray[np.float64], color: Any) -> None:
    left, top, right, bottom = box
    axes.add_patch(
        Rectangle(
            (place.left + left * place.width, place.top + top * place.height),
            (right - left) * place.width, (bottom - top) * place.height,
            fill=False, edgecolor=color, linewidth=0.5, alpha=0.7,
        )
    )  # fmt: skip


def _frame(axes: Axes, place: _Place, color: str) -> None:
    axes.add_patch(
        Rectangle(
            (place.left, place.top), place.width, place.height, fill=False, edgecolor=color,
            linewidth=2.2 if color != "black" else 0.8,
        )
    )  # fmt: skip


def _caption(axes: Axes, left: float, text: str, scales: _Scales) -> None:
    axes.text(left + 0.5, -0.04, text, ha="center", va="bottom", **scales.writing)


def _note(axes: Axes, left: float, right: float, match: ClassMatch, n_shot: int) -> None:
    lines = strongest_flows(match.flow)
    carried = sum(match.flow[i, j] for i, j in lines)
    lines_carry = "1 line carries" if len(lines) == 1 else f"{len(lines)} lines carry"
    text = f"{lines_carry} {carried:.0%}"
    if n_shot > 1:
        text += f"; best match of {n_shot} images: logit {match.support_logit:.2f} alone"
    axes.text(
        (left + right + 1) / 2, 1.03, text, ha="center", va="top", fontsize=6.5, color="#555555"
    )


def _draw_reasons(axes: Axes, query: QueryMatch, shown: RegionImage, scales: _Scales) -> None:
    place = _place(shown.image, _REASONS)
    # Paler than it is, so that colours in front of black are seen.
    pale = _PALE + (1 - _PALE) * np.asarray(shown.image.convert("L")) / 255
    axes.imshow(pale, cmap="gray", vmin=0, vmax=1, extent=place.extent, aspect="auto")
    heat = _reasons(query, shown.boxes)
    heat /= np.abs(heat).max() or 1
    tint = np.empty((*heat.shape, 4))
    tint[..., :3] = np.where(heat[..., None] >= 0, to_rgb(BLUE), to_rgb(VERMILLION))
    tint[..., 3] = _MAX_TINT * np.abs(heat)
    axes.imshow(tint, extent=place.extent, aspect="auto", interpolation="nearest")
    _frame(axes, place, "black")
    difference = query.best.logit - query.second.logit
    _caption(axes, _REASONS, f"best or second?\nlogits differ by {difference:.2f}", scales)


def _draw_legends(figure: Figure, scales: _Scales) -> None:
    width, height = figure.get_size_inches()
    bar = figure.add_axes((0.06, 0.34 / height, 0.2, 0.1 / height))
    figure.colorbar(
        ScalarMappable(scales.similarities, _SIMILARITIES), cax=bar, orientation="horizontal"
    )
    bar.tick_params(labelsize=7, length=2, pad=1)
    bar.set_title("similarity of the regions", fontsize=7.5, pad=3)
    flows = [scales.max_flow, scales.max_flow / 4]
    lines = [
        Line2D([], [], color=BLUE, linewidth=scales.line_width(flow), label=f"{flow:.1%} flow")
        for flow in flows
    ]
    frames = [
        Patch(fill=False, edgecolor=frame_color(0, 0), linewidth=2.2, label=f"{_RIGHT} true class"),
        Patch(fill=False, edgecolor=frame_color(1, 0), linewidth=2.2, label=f"{_WRONG} another"),
    ]
    tints = [
        Patch(color=BLUE, alpha=_MAX_TINT, label="speaks for the best class"),
        Patch(color=VERMILLION, alpha=_MAX_TINT, label="for the second"),
    ]
    figure.legend(
        handles=[*lines, *frames, *tints], ncols=3, loc="lower right", fontsize=7.5,
        bbox_to_anchor=(1 - _MARGIN / width, 0), frameon=False,
    )  # fmt: skip
