"""k-NN: votes of the k most similar labelled images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lowshot_kedro.classifiers import NearestNeighbors
from lowshot_kedro.methods.method import COUNT, Axis, Method, Options, Outcome, Style, Work
from lowshot_kedro.methods.palette import SKY_BLUE
from lowshot_kedro.parameters import distinct_values, require_integer
from lowshot_kedro.progress import Stopwatch


@dataclass(frozen=True)
class NearestNeighborsParameters:
    """One number of neighbours."""

    k: int = 10

    def __post_init__(self) -> None:
        require_integer("k", self.k, 1)


@dataclass(frozen=True)
class NearestNeighborsGrid:
    """What is searched for k-NN."""

    k: tuple[int, ...]

    def __post_init__(self) -> None:
        k = distinct_values("k", self.k, lambda name, value: require_integer(name, value, 1))
        object.__setattr__(self, "k", k)


class NearestNeighborsMethod(Method):
    """k nearest labelled images; all numbers of neighbours come from one search."""

    name = "nearest_neighbors"
    title = "nearest neighbours"
    style = Style(SKY_BLUE, "^")
    axis = Axis("k", "k", COUNT)
    grid = NearestNeighborsGrid
    parameters = NearestNeighborsParameters

    def run(self, work: Work) -> Iterator[Outcome]:
        """Do the only run that there can be, and judge it for every k."""
        watch = Stopwatch()
        classifier = NearestNeighbors(work.images.n_classes, k=max(work.places))
        classifier.fit(work.images.labeled_features(), work.images.labeled_classes)
        scores = classifier.scores_per_k(work.images.test_images_features(), work.places)
        entries = [work.judge(0, k, of_k) for k, of_k in zip(work.places, scores, strict=True)]
        yield Outcome(0, entries, {"classification": watch.seconds})

    def places(self, grid: NearestNeighborsGrid, n_images: int) -> tuple[int, ...]:
        """The values of k that are no more than there are images."""
        return tuple(k for k in grid.k if k <= n_images)

    def fits(self, grid: NearestNeighborsGrid, n_images: Sequence[int]) -> bool:
        """Whether a value of k is possible."""
        return bool(self.places(grid, min(n_images)))

    def left_out(self, grid: NearestNeighborsGrid, n_images: int) -> tuple[str, Sequence[int]]:
        """The values of k that are more than there are images."""
        return "k", [k for k in grid.k if k > n_images]

    def places_provenance(self, options: Options, n_images: int) -> dict[str, Any]:
        """The values of k for which there are entries."""
        return {"k": list(self.places(options.grid, n_images))}
