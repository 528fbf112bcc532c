"""Tables and plots: methods compared, neighbours in the graph, the spectrum of a PCA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from lowshot_kedro.images import ImageSource
from lowshot_kedro.matrices import FeatureMatrix, KnnGraph
from lowshot_kedro.metrics import Scores, top_k_hits
from lowshot_kedro.pca import spectrum_of, variance_kept
from lowshot_kedro.protocol import ImageSelection

# Okabe and Ito's colours, which people with colour-blindness tell apart.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#E69F00", "#009E73", "#999999"
_NUMBER_WIDTH = 5
# Smaller variances, beside the largest, are what float32 has rounded.
_LEAST_VARIANCE = 1e-7
_NEIGHBORS_SHOWN = 8
_BROKEN_PICTURES_LISTED = 100_000
_COLORS = {"": _BLUE, "_novel": _ORANGE, "_base": _GREEN}
_GROUP_NAMES = {"": "all classes", "_novel": "novel classes", "_base": "base classes"}


def describe_broken_pictures(collections: Mapping[str, FeatureMatrix]) -> dict[str, Any]:
    """Which pictures could not be read, so that their features are those of a blank picture.

    Args:
        collections: Features by name of the collection.

    Returns:
        For every name: n_pictures, n_broken (None where nobody has kept a list), and broken, a list
        of picture (its number) and problem for the first 100 000; the complete lists are beside the
        features.
    """
    report = {}
    for name, features in collections.items():
        broken: list[dict[str, Any]] = []
        n_broken = 0
        problems = features.broken_pictures
        for picture, problem in problems or ():
            n_broken += 1
            if n_broken <= _BROKEN_PICTURES_LISTED:
                broken.append({"picture": picture, "problem": problem})
        report[name] = {
            "n_pictures": features.n_rows,
            "n_broken": None if problems is None else n_broken,
            "broken": broken,
        }
    return report


def compare_methods(metrics: Mapping[str, Mapping[str, Any]], top_k: Sequence[int]) -> pd.DataFrame:
    """Final accuracies of several methods side by side.

    Args:
        metrics: Content of a metrics file by name of the method.
        top_k: Values of k.

    Returns:
        A row per method: method, iteration, top1, top1_novel, top1_base, top5, … (fractions).
    """
    columns = [f"top{k}{group}" for k in top_k for group in _GROUP_NAMES]
    rows = [
        {
            "method": method,
            "iteration": content["final"]["iteration"],
            **{column: content["final"][column] for column in columns},
        }
        for method, content in metrics.items()
    ]
    return pd.DataFrame(rows, columns=["method", "iteration", *columns])


def print_comparison(table: pd.DataFrame, experiment: Mapping[str, Any]) -> None:
    """Print the table of :func:`compare_methods` to the terminal."""
    title = (
        f"Accuracy, mode {experiment['mode']}, {experiment['n_labeled']} labelled images per novel "
        f"class, seed {experiment['seed']}"
    )
    printed = Table(title=title)
    accuracy = table.drop(columns="iteration")
    for column in accuracy.columns:
        name = str(column).replace("_", " ").replace("top", "top-")
        if column == "method":
            printed.add_column(name, no_wrap=True)
        else:
            printed.add_column(name, justify="right", min_width=_NUMBER_WIDTH)
    for row in accuracy.itertuples(index=False):
        printed.add_row(*(_cell(value) for value in row))
    # A terminal that is too narrow wraps lines; numbers are never cut.
    n_numbers = len(accuracy.columns) - 1
    narrowest = max(map(len, accuracy["method"])) + 4 + n_numbers * (_NUMBER_WIDTH + 3)
    Console(width=max(Console().width, narrowest)).print(printed)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if np.isnan(value) else f"{value:.3f}"
    return "–" if value is None else str(value)


def plot_accuracy_per_step(
    diffusion_metrics: Mapping[str, Any], baseline_metrics: Mapping[str, Any], k: int
) -> Figure:
    """Top-k accuracy after each diffusion step, with the baseline as dashed lines."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    entries = diffusion_metrics["per_iteration"]
    steps = [entry["iteration"] for entry in entries]
    for group, name in _GROUP_NAMES.items():
        key, color = f"top{k}{group}", _COLORS[group]
        values = [np.nan if entry[key] is None else 100 * entry[key] for entry in entries]
        axes.plot(steps, values, marker="o", color=color, label=f"diffusion, {name}")
        baseline = baseline_metrics["final"][key]
        if baseline is not None:
            axes.axhline(
                100 * baseline, color=color, linestyle="--", linewidth=1,
                label=f"logistic regression, {name}",
            )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="diffusion step", ylabel=f"top-{k} accuracy (%)", title="Accuracy per step")
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, ncols=3, loc="outside lower center")
    return figure


def plot_methods(table: pd.DataFrame, k: int) -> Figure:
    """Final top-k accuracies of the methods as bars: all, novel and base classes."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(table))
    width = 0.26
    for offset, (group, name) in enumerate(_GROUP_NAMES.items()):
        values = 100 * table[f"top{k}{group}"].astype(float).to_numpy()
        bars = axes.bar(
            positions + (offset - 1) * width, values, width, color=_COLORS[group], label=name
        )
        axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.set_xticks(positions, table["method"])
    axes.set(ylabel=f"top-{k} accuracy (%)", title="Methods side by side", ylim=(0, 112))
    axes.legend(fontsize=8, ncols=3, loc="upper center")
    return figure


def plot_spectrum(transform: faiss.VectorTransform) -> Figure:
    """How the variance is spread over the directions of a PCA, and how much of it is kept.

    A transform that does not know, such as an OPQ, gives a figure that says so.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    variances, kept = spectrum_of(transform), variance_kept(transform)
    if kept is None:
        axes.axis("off")
        axes.text(0.5, 0.5, f"{type(transform).__name__}: spectrum not known", ha="center")
        return figure
    parts = 100 * variances / variances.sum()
    numbers = np.arange(1, len(parts) + 1)
    shown = np.where(parts > _LEAST_VARIANCE * parts.max(), parts, np.nan)
    (of_each,) = axes.plot(numbers, shown, color=_BLUE, label="of each direction")
    cumulative = axes.twinx()
    (together,) = cumulative.plot(
        numbers, np.cumsum(parts), color=_ORANGE, label="of all up to here"
    )
    limit = axes.axvline(
        transform.d_out, color=_GREY, linestyle="--", label=f"{transform.d_out} are kept"
    )
    axes.set(
        xlabel="direction", ylabel="variance (%, logarithmic)", yscale="log",
        title=f"{transform.d_out} of {transform.d_in} dimensions keep {100 * kept:.1f} % "
        "of the variance",
    )  # fmt: skip
    cumulative.set(ylabel="sum of the variances (%)", ylim=(0, 105))
    axes.grid(alpha=0.3)
    figure.legend(
        handles=[of_each, together, limit], fontsize=8, ncols=3, loc="outside lower center"
    )
    return figure


@dataclass(frozen=True)
class NeighborRow:
    """One test picture and its most similar nodes, as :func:`plot_neighbors` draws them.

    Attributes:
        picture: The test picture.
        title: What is said of it.
        neighbors: (picture, caption, colour of the frame) of each neighbour.
    """

    picture: Image.Image
    title: str
    neighbors: Sequence[tuple[Image.Image, str, str]]


@dataclass(frozen=True)
class NodePictures:
    """The pictures behind the nodes of a completed graph: labelled images first.

    Attributes:
        selection: Knows which training images are the labelled nodes.
        train_images: The training set.
        unlabeled_images: Where the other nodes come from.
        unlabeled_positions: Their numbers there; None: 0, 1, 2, …
    """

    selection: ImageSelection
    train_images: ImageSource
    unlabeled_images: ImageSource
    unlabeled_positions: NDArray[np.int64] | None = None

    def class_of(self, node: int) -> int | None:
        """Class of a labelled node, None for others."""
        classes = self.selection.labeled_classes
        return int(classes[node]) if node < len(classes) else None

    def __getitem__(self, node: int) -> Image.Image:
        if self.class_of(node) is not None:
            return self.train_images[int(self.selection.labeled_positions[node])].image
        number = node - len(self.selection.labeled_positions)
        if self.unlabeled_positions is not None:
            number = int(self.unlabeled_positions[number])
        return self.unlabeled_images[number].image


def frame_color(neighbor_class: int | None, true_class: int) -> str:
    """Green for a labelled neighbour of the true class, orange of another, grey without label."""
    if neighbor_class is None:
        return _GREY
    return _GREEN if neighbor_class == true_class else _ORANGE


def neighbor_rows(
    points: NDArray[np.int64],
    selection: ImageSelection,
    scores: Scores,
    neighbors: KnnGraph,
    test_images: ImageSource,
    nodes: NodePictures,
) -> list[NeighborRow]:
    """Test pictures with true and guessed class, and their eight most similar nodes.

    Args:
        points: int64 (m,), which of the test images.
        selection: The images of the run.
        scores: Of the test images.
        neighbors: Graph neighbours of the test images.
        test_images: The test set.
        nodes: The pictures behind the nodes.
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
        picture = test_images[int(selection.test_positions[point])].image
        rows.append(NeighborRow(picture, title, cells))
    return rows


def plot_neighbors(rows: Sequence[NeighborRow]) -> Figure:
    """Test pictures, each followed by its neighbours in the graph, most similar first."""
    n_columns = 1 + max((len(row.neighbors) for row in rows), default=0)
    height = 1.55 * max(1, len(rows)) + 0.7
    figure = Figure(figsize=(1.25 * n_columns, height))
    figure.suptitle(
        "Test pictures and their neighbours: green = labelled, same class; orange = labelled, "
        "another class; grey = without label",
        fontsize=9,
        y=1 - 0.15 / height,
    )
    grid = figure.subplots(max(1, len(rows)), n_columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.axis("off")
    for row, line in zip(rows, grid, strict=False):
        cells = [(row.picture, row.title, "black"), *row.neighbors]
        for axes, (picture, caption, color) in zip(line, cells, strict=False):
            axes.axis("on")
            axes.imshow(picture)
            axes.set_title(caption, fontsize=7)
            for spine in axes.spines.values():
                spine.set(color=color, linewidth=3)
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.01, top=1 - 0.65 / height, wspace=0.1, hspace=0.35
    )
    return figure


def pictures_worth_showing(scores: Scores, n_pictures: int) -> NDArray[np.int64]:
    """Positions of some test pictures: half recognised, half not, spread over the classes.

    Args:
        scores: Of T test images.
        n_pictures: How many.

    Returns:
        int64 (at most n_pictures,), in class order.
    """
    correct = top_k_hits(scores.scores, scores.test_classes, 1)
    by_class = np.argsort(scores.test_classes, kind="stable")
    wrong, right = by_class[~correct[by_class]], by_class[correct[by_class]]
    n_wrong = min(len(wrong), max(n_pictures // 2, n_pictures - len(right)))
    n_right = min(len(right), n_pictures - n_wrong)
    chosen = np.concatenate(
        [
            group[np.linspace(0, len(group) - 1, n).round().astype(np.int64)]
            for group, n in ((wrong, n_wrong), (right, n_right))
            if n
        ]
        or [np.empty(0, dtype=np.int64)]
    )
    return chosen[np.argsort(scores.test_classes[chosen], kind="stable")]
