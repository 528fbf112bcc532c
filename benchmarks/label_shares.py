"""What a share of LabelDiffusion is worth: the part of the rows that are right, by their share.

Several times labels are drawn at random, and a tenth of the rows stays new. The share of a row is
the largest in its row of `label_distributions_`, or of `predict_proba` for new rows. A temperature
and a threshold are chosen by shares of labels that were held out, as the manual describes it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import NearestNeighbors

from common import machine
from common.labeled import read_images
from common.options import positive
from common.output import note, print_json, print_table
from common.vectors import FASHION_MNIST
from lowshot_kedro import LabelDiffusion

DIGITS, FASHION = "digits", "Fashion-MNIST"
DATA = (DIGITS, FASHION)
LABELS_PER_CLASS = (2, 5, 20, 100)
BINS = (0.0, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0)
NEW_PART = 0.1
WANTED_PRECISION = 0.95
FOLDS = 5
# Of the calibration error, as it is usual.
ERROR_BINS = 10


class Shares(NamedTuple):
    """Shares of all classes, and what is true.

    Attributes:
        of_classes: float64 (m, C), rows that sum to 1.
        classes: int64 (m,).
    """

    of_classes: NDArray[np.float64]
    classes: NDArray[np.int64]

    @property
    def largest(self) -> NDArray[np.float64]:
        """Share of the class that a row gets."""
        return self.of_classes.max(axis=1)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether it is the true one."""
        found: NDArray[np.bool_] = self.of_classes.argmax(axis=1) == self.classes
        return found

    def with_temperature(self, temperature: float) -> Shares:
        """Shares to the power of 1 / temperature, so that rows sum to 1 again."""
        powers = np.power(self.of_classes, 1 / temperature)
        return Shares(powers / powers.sum(axis=1, keepdims=True), self.classes)


@dataclass
class Curve:
    """How often shares are right.

    Attributes:
        largest: Of the draws so far, float64 parts.
        right: The same.
    """

    largest: list[NDArray[np.float64]] = field(default_factory=list)
    right: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, shares: Shares) -> None:
        """Those of one more draw."""
        self.largest.append(shares.largest)
        self.right.append(shares.right)

    def bins(self, edges: Sequence[float]) -> list[tuple[float, float, float]]:
        """Part of the rows, mean share and part that is right, from edge to edge; NaN of none."""
        largest, right = np.concatenate(self.largest), np.concatenate(self.right)
        numbers = np.clip(np.searchsorted(edges, largest, "right") - 1, 0, len(edges) - 2)
        found = []
        for number in range(len(edges) - 1):
            chosen = numbers == number
            mean = largest[chosen].mean() if chosen.any() else np.nan
            part = right[chosen].mean() if chosen.any() else np.nan
            found.append((float(chosen.mean()), float(mean), float(part)))
        return found

    def error(self) -> float:
        """Expected calibration error: distance of share and part that is right, mean over rows."""
        bins = self.bins(np.linspace(0, 1, ERROR_BINS + 1).tolist())
        return sum(part * abs(mean - right) for part, mean, right in bins if part)


@dataclass
class Result:
    """Of one data set and number of labels.

    Attributes:
        rows: Curve of the rows of fit that have no label.
        new: Curve of new rows.
        tempered: As `rows`, with a temperature from held-out labels.
        temperatures: Of the draws.
        precisions: Part that is right of the rows above the threshold from held-out labels.
        kept: Part of the rows above it.
    """

    rows: Curve = field(default_factory=Curve)
    new: Curve = field(default_factory=Curve)
    tempered: Curve = field(default_factory=Curve)
    temperatures: list[float] = field(default_factory=list)
    precisions: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)


class Problem:
    """Rows with known classes, and the graph over nine tenths of them.

    Args:
        rows: float32 (N, d).
        classes: int64 (N,).
        seed: Which rows are new.
    """

    def __init__(self, rows: NDArray[np.float32], classes: NDArray[np.int64], seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(rows))
        n_new = round(NEW_PART * len(rows))
        new, old = order[:n_new], order[n_new:]
        self.classes, self._new_classes = classes[old], classes[new]
        # Of this fit the graph alone is wanted. All labels but one, so that nothing warns.
        labels = self.classes.copy()
        labels[0] = -1
        model = LabelDiffusion(n_iterations=1).fit(rows[old], labels)
        self._lists = (model.neighbors_, None)
        search = NearestNeighbors(n_neighbors=model.n_neighbors, algorithm="brute").fit(rows[old])
        self._new_lists = (search.kneighbors(rows[new], return_distance=False), None)

    def measure(self, n_labels: int, seed: int, result: Result) -> None:
        """One draw.

        Args:
            n_labels: Of each class.
            seed: Of the draw.
            result: Gets what is found.
        """
        rng = np.random.default_rng([seed, n_labels])
        labeled = np.concatenate(
            [
                rng.choice(np.flatnonzero(self.classes == label), n_labels, replace=False)
                for label in np.unique(self.classes)
            ]
        )
        model = self._fit(labeled)
        others = np.setdiff1d(np.arange(len(self.classes)), labeled)
        found = reached(model.label_distributions_[others], self.classes[others])
        result.rows.add(found)
        result.new.add(reached(model.predict_proba(self._new_lists), self._new_classes))
        held_out = self._held_out(labeled, seed)
        temperature = fitted_temperature(held_out)
        result.temperatures.append(temperature)
        result.tempered.add(found.with_temperature(temperature))
        sure = found.largest >= fitted_threshold(held_out, WANTED_PRECISION)
        result.kept.append(float(sure.mean()))
        if sure.any():
            result.precisions.append(float(found.right[sure].mean()))

    def _fit(self, labeled: NDArray[np.int64]) -> LabelDiffusion:
        y = np.full(len(self.classes), -1)
        y[labeled] = self.classes[labeled]
        return LabelDiffusion(metric="precomputed").fit(self._lists, y)

    def _held_out(self, labeled: NDArray[np.int64], seed: int) -> Shares:
        """Shares of the labelled rows, each from a fit that has not seen its label."""
        classes = self.classes[labeled]
        n_folds = min(FOLDS, int(np.bincount(classes).min()))
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
        parts = []
        for kept, out in folds.split(labeled, classes):
            distributions = self._fit(labeled[kept]).label_distributions_
            parts.append(reached(distributions[labeled[out]], classes[out]))
        return Shares(*map(np.concatenate, zip(*parts, strict=True)))


def reached(shares: NDArray[np.floating], classes: NDArray[np.int64]) -> Shares:
    """Without rows that no label has reached, which have no share."""
    chosen = shares.any(axis=1)
    return Shares(shares[chosen].astype(np.float64), classes[chosen])


def fitted_temperature(held_out: Shares) -> float:
    """With which the true classes of held-out labels are most likely."""

    def loss(logarithm: float) -> float:
        tempered = held_out.with_temperature(np.exp(logarithm)).of_classes
        true = tempered[np.arange(len(tempered)), held_out.classes]
        return -float(np.log(np.maximum(true, 1e-6)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def fitted_threshold(held_out: Shares, precision: float) -> float:
    """The smallest share from which on so many of the held-out labels are right; inf for none."""
    order = np.argsort(-held_out.largest, kind="stable")
    right = np.cumsum(held_out.right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(right >= precision)
    return float(held_out.largest[order[enough[-1]]]) if len(enough) else np.inf


def read(name: str, options: argparse.Namespace) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows and classes of a data set."""
    if name == DIGITS:
        rows, classes = load_digits(return_X_y=True)
        return rows.astype(np.float32), classes
    pixels, classes = read_images(options.fashion_mnist)
    chosen = np.random.default_rng(options.seed).permutation(len(pixels))[: options.image_rows]
    return pixels[chosen].astype(np.float32), classes[chosen]


def percent(part: float) -> str:
    """For a table."""
    return "" if np.isnan(part) else f"{100 * part:.1f}"


def print_tables(name: str, results: dict[int, Result]) -> None:
    """For people.

    Args:
        name: Of the data set.
        results: By number of labels of a class.
    """
    edges = [f"{low:g} to {high:g}" for low, high in pairwise(BINS)]
    for title, which in (("rows of fit", "rows"), ("new rows", "new")):
        bins = {count: getattr(result, which).bins(BINS) for count, result in results.items()}
        table = [
            [edge, *(f"{percent(of[row][2])} ({percent(of[row][0])})" for of in bins.values())]
            for row, edge in enumerate(edges)
        ]
        columns = ["share", *(f"{count} a class" for count in results)]
        print_table(f"{name}, {title}: percent right (percent of the rows)", columns, table)
    shares, thresholds = [], []
    for count, result in results.items():
        right = np.concatenate(result.rows.right)
        shares.append(
            [
                str(count),
                percent(float(right.mean())),
                f"{np.concatenate(result.rows.largest).mean():.2f}",
                f"{result.rows.error():.3f}",
                f"{np.median(result.temperatures):.2f}",
                f"{result.tempered.error():.3f}",
            ]
        )
        precisions = result.precisions or [np.nan]
        thresholds.append(
            [
                str(count),
                percent(float(np.mean(precisions))),
                percent(min(precisions)),
                percent(float(np.mean(result.kept))),
            ]
        )
    columns = ["labels a class", "right", "mean share", "error", "temperature", "error with it"]
    print_table(f"{name}, rows of fit: calibration error", columns, shares)
    columns = ["labels a class", "right", "in the worst draw", "rows"]
    title = f"{name}, rows of fit: above a threshold for {WANTED_PRECISION:.0%}"
    print_table(title, columns, thresholds)


def summary(result: Result) -> dict[str, object]:
    """For the line of JSON."""
    return {
        "bins": result.rows.bins(BINS),
        "bins_of_new_rows": result.new.bins(BINS),
        "error": result.rows.error(),
        "error_of_new_rows": result.new.error(),
        "error_with_temperature": result.tempered.error(),
        "temperatures": result.temperatures,
        "precisions": result.precisions,
        "kept": result.kept,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=DATA, choices=DATA, help="what to measure")
    parser.add_argument("--labels", nargs="+", type=positive, default=LABELS_PER_CLASS)
    parser.add_argument("--draws", type=positive, default=5, help="of the labels")
    parser.add_argument("--image-rows", type=positive, default=20_000, help="of Fashion-MNIST")
    parser.add_argument("--fashion-mnist", type=Path, default=FASHION_MNIST, help="folder")
    parser.add_argument("--seed", type=int, default=0, help="of draws and new rows")
    options = parser.parse_args()
    options.labels = sorted(set(options.labels))
    if options.labels[0] < 2:
        parser.error("--labels: one of each class has to be held out, so at least 2 are needed")
    found = {}
    for name in options.data:
        try:
            rows, classes = read(name, options)
        except FileNotFoundError as error:
            note(f"{name} is left out: {error}")
            continue
        note(f"{name}: graph")
        problem = Problem(rows, classes, options.seed)
        results = {count: Result() for count in options.labels}
        for count, result in results.items():
            for draw in range(options.draws):
                note(f"{name}: {count} labels a class, draw {draw + 1}")
                problem.measure(count, options.seed + draw, result)
        print_tables(name, results)
        found[name] = {str(count): summary(result) for count, result in results.items()}
    print_json(
        {
            "benchmark": "label_shares",
            "machine": machine.describe(),
            "sizes": {
                "labels": options.labels,
                "draws": options.draws,
                "image_rows": options.image_rows,
                "seed": options.seed,
            },
            "results": found,
        }
    )


if __name__ == "__main__":
    main()
