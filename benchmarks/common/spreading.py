"""Ways to spread a few labels over all rows, each for a process of its own.

A process imports the libraries of its method only, since they are part of its memory. So this
module imports none of them, and nor may a script at its top whose processes these are.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from common.limits import Report
from lowshot_kedro.memory import peak_rss_bytes, recent_peak_rss_bytes, restart_peak
from lowshot_kedro.progress import Stopwatch

UNLABELED = -1


class Draw(NamedTuple):
    """A choice of labelled rows.

    Attributes:
        labels: How many, in words.
        rows: int64 (l,), of every class at least one.
        timed: Whether everything is done anew, and counts; else whoever can keeps the graph of
            the last one.
    """

    labels: str
    rows: NDArray[np.int64]
    timed: bool


@dataclass(frozen=True)
class Task:
    """What everybody gets.

    Attributes:
        vectors: An npy file of float32 (n, d).
        classes: int64 (n,), 0..C-1.
        n_neighbors: Everybody's parameter of this name.
        draws: One after the other; the first is timed.
    """

    vectors: Path
    classes: NDArray[np.int64]
    n_neighbors: int
    draws: tuple[Draw, ...]


class Ready(NamedTuple):
    """Libraries are imported and vectors read.

    Attributes:
        peak: Largest resident memory until now, in bytes.
    """

    peak: int


class Fit(NamedTuple):
    """What came of a draw.

    Attributes:
        labels: Of the draw.
        accuracy: Part of the rows without label that got their class.
        seconds: Of everything, the graph included; None: not timed.
        peak: Largest resident memory of the process while it was timed, in bytes.
    """

    labels: str
    accuracy: float
    seconds: float | None
    peak: int | None


class Method(Protocol):
    """Somebody's way."""

    def fit(
        self, vectors: NDArray[np.float32], labels: NDArray[np.int64], n_neighbors: int
    ) -> NDArray[Any]:
        """From vectors to classes.

        Args:
            vectors: float32 (n, d).
            labels: int64 (n,), -1 for unknown.
            n_neighbors: The parameter of this name.

        Returns:
            The class of each row (n,).
        """
        ...

    def fit_again(
        self, vectors: NDArray[np.float32], labels: NDArray[np.int64], n_neighbors: int
    ) -> NDArray[Any]:
        """The same with other labels, on the graph of the last call if that can be had."""
        ...


class Ours:
    """This project's estimator, with its defaults."""

    def __init__(self) -> None:
        from lowshot_kedro import LabelDiffusion

        self._estimator = LabelDiffusion

    def fit(
        self, vectors: NDArray[np.float32], labels: NDArray[np.int64], n_neighbors: int
    ) -> NDArray[Any]:
        """From vectors to classes."""
        found: NDArray[Any] = self._estimator(n_neighbors).fit(vectors, labels).transduction_
        return found

    fit_again = fit


class LabelSpreading:
    """scikit-learn's, with its defaults and all processors."""

    options: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        from sklearn import neighbors, semi_supervised

        self._neighbors, self._semi_supervised = neighbors, semi_supervised
        self._graph: Any = None

    def fit(
        self, vectors: NDArray[np.float32], labels: NDArray[np.int64], n_neighbors: int
    ) -> NDArray[Any]:
        """From vectors to classes."""
        model = self._semi_supervised.LabelSpreading(
            "knn", n_neighbors=n_neighbors, n_jobs=-1, **self.options
        )
        found: NDArray[Any] = model.fit(vectors, labels).transduction_
        return found

    def fit_again(
        self, vectors: NDArray[np.float32], labels: NDArray[np.int64], n_neighbors: int
    ) -> NDArray[Any]:
        """On a graph made as it makes its own, which it does not give away."""
        if self._graph is None:
            nearest = self._neighbors.NearestNeighbors(n_neighbors=n_neighbors, n_jobs=-1)
            self._graph = nearest.fit(vectors).kneighbors_graph(vectors)
        model = self._semi_supervised.LabelSpreading(lambda *_: self._graph, **self.options)
        found: NDArray[Any] = model.fit(vectors, labels).transduction_
        return found


class FarLabelSpreading(LabelSpreading):
    """The same told to go farther: with its defaults it stops before it has reached most rows."""

    options: ClassVar[dict[str, Any]] = {"alpha": 0.9, "max_iter": 100}


class PoissonLearning:
    """graphlearning's, with its defaults.

    Its graph takes the neighbours that annoy finds. Where annoy is not installed, it gets the exact
    ones from scikit-learn, by comparison of all pairs: its own is a loop in Python, and
    scikit-learn's choice for few columns, a tree, is slower by far.
    """

    def __init__(self) -> None:
        import graphlearning  # type: ignore[import-not-found,unused-ignore]
        from sklearn import neighbors

        self._graphlearning, self._neighbors = graphlearning, neighbors
        self._graph: Any = None

    def fit(
        self, vectors: NDArray[np.float32], labels: NDArray[np.int64], n_neighbors: int
    ) -> NDArray[Any]:
        """From vectors to classes."""
        given = None if annoy_installed() else self._exact_neighbors(vectors, n_neighbors)
        self._graph = self._graphlearning.weightmatrix.knn(vectors, n_neighbors, knn_data=given)
        return self.fit_again(vectors, labels, n_neighbors)

    def fit_again(
        self, vectors: NDArray[np.float32], labels: NDArray[np.int64], n_neighbors: int
    ) -> NDArray[Any]:
        """On the graph of the last call."""
        labeled = np.flatnonzero(labels != UNLABELED)
        model = self._graphlearning.ssl.poisson(self._graph)
        found: NDArray[Any] = model.fit_predict(labeled, labels[labeled])
        return found

    def _exact_neighbors(
        self, vectors: NDArray[np.float32], n_neighbors: int
    ) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """Numbers and distances (n, k + 1): it does not count a row as a neighbour of itself."""
        nearest = self._neighbors.NearestNeighbors(
            n_neighbors=n_neighbors + 1, algorithm="brute", n_jobs=-1
        )
        distances, neighbors = nearest.fit(vectors).kneighbors(vectors)
        return neighbors, distances


OURS = "LabelDiffusion"
LABEL_SPREADING = "LabelSpreading"
FAR_LABEL_SPREADING = "LabelSpreading, alpha 0.9"
POISSON = "Poisson learning"
METHODS: dict[str, type[Method]] = {
    OURS: Ours,
    LABEL_SPREADING: LabelSpreading,
    FAR_LABEL_SPREADING: FarLabelSpreading,
    POISSON: PoissonLearning,
}


def annoy_installed() -> bool:
    """Whether graphlearning can look for neighbours in the way that it does by default."""
    return importlib.util.find_spec("annoy") is not None


def missing(method: str) -> str | None:
    """Why a method cannot run here, or None."""
    if method == POISSON and importlib.util.find_spec("graphlearning") is None:
        return "graphlearning is not installed; pip install 'lowshot-kedro[bench]' brings it"
    return None


def measure(method: str, task: Task, report: Report) -> None:
    """Fit all draws with a method.

    Args:
        method: Of :data:`METHODS`.
        task: What to fit.
        report: Gets a :class:`Ready` before the first fit, then a :class:`Fit` after each.
    """
    logging.basicConfig(format="  %(message)s")  # to standard error
    logging.getLogger("lowshot_kedro").setLevel(logging.INFO)
    contestant = METHODS[method]()
    vectors = np.load(task.vectors)
    report(Ready(peak_rss_bytes()))
    for draw in task.draws:
        labels = np.full(len(task.classes), UNLABELED, np.int64)
        labels[draw.rows] = task.classes[draw.rows]
        restart_peak()
        watch = Stopwatch()
        fit = contestant.fit if draw.timed else contestant.fit_again
        found = fit(vectors, labels, task.n_neighbors)
        seconds = watch.seconds
        peak = recent_peak_rss_bytes()
        unlabeled = labels == UNLABELED
        accuracy = float(np.mean(found[unlabeled] == task.classes[unlabeled]))
        if draw.timed:
            report(Fit(draw.labels, accuracy, seconds, peak))
        else:
            report(Fit(draw.labels, accuracy, None, None))
