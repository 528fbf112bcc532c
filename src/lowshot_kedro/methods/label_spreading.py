"""scikit-learn's semi-supervised label spreading, up to a size that it can handle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from lowshot_kedro.classifiers import LabelSpreading
from lowshot_kedro.methods.method import (
    PART,
    Method,
    Options,
    Outcome,
    Setting,
    Settings,
    Sizes,
    Style,
    Work,
)
from lowshot_kedro.methods.palette import GREY
from lowshot_kedro.parameters import distinct_values, refuse, require_integer, require_number
from lowshot_kedro.progress import Stopwatch


@dataclass(frozen=True)
class LabelSpreadingGrid:
    """What is searched for scikit-learn's LabelSpreading, and up to which size it is tried."""

    alpha: tuple[float, ...]
    n_neighbors: int
    max_iterations: int
    max_images: int

    def __post_init__(self) -> None:
        alpha = distinct_values("alpha", self.alpha, _require_between_0_and_1)
        object.__setattr__(self, "alpha", alpha)
        for name in ("n_neighbors", "max_iterations", "max_images"):
            require_integer(name, getattr(self, name), 1)


def _require_between_0_and_1(name: str, value: object) -> None:
    require_number(name, value, 0, below=1)
    if value == 0:
        raise refuse(name, value, "a number above 0 and below 1")


class LabelSpreadingMethod(Method):
    """Labels that spread over the vectors of labelled and unlabelled images until they settle."""

    name = "label_spreading"
    title = "label spreading"
    style = Style(GREY, "D")
    needs = "vectors"
    settings: ClassVar[Mapping[str, Setting]] = {"alpha": Setting(PART, "alpha")}
    grid = LabelSpreadingGrid

    def run(self, work: Work) -> Iterator[Outcome]:
        """Fit scikit-learn's LabelSpreading for one run after the other."""
        images = work.images
        vectors = images.labeled_and_unlabeled_vectors()
        n_labeled = len(images.labeled_classes)
        test = images.test_vectors()
        fixed = _fixed(work.options.grid)
        for number, settings in enumerate(work.settings):
            watch = Stopwatch()
            classifier = LabelSpreading(
                images.n_classes, unlabeled=vectors[n_labeled:], **settings, **fixed
            )
            classifier.fit(vectors[:n_labeled], images.labeled_classes)
            entry = work.judge(number, None, classifier.scores(test))
            yield Outcome(
                number,
                [entry],
                {"classification": watch.seconds},
                {self.name: {**settings, **fixed}},
                len(vectors),
            )

    def candidates(self, grid: LabelSpreadingGrid, n_images: int) -> list[dict[str, Any]]:
        """A run for every alpha."""
        return [{"alpha": alpha} for alpha in grid.alpha]

    def fits(self, grid: LabelSpreadingGrid, n_images: Sequence[int]) -> bool:
        """Whether there are as many images as neighbours, and no more than `max_images`."""
        return min(n_images) >= grid.n_neighbors and max(n_images) <= grid.max_images

    def left_out(self, grid: LabelSpreadingGrid, n_images: int) -> tuple[str, Sequence[int]]:
        """The number of neighbours, if it is more than there are images."""
        return "n_neighbors", [grid.n_neighbors] if grid.n_neighbors > n_images else []

    def memory_bytes(
        self, sizes: Sizes, settings: Sequence[Settings], options: Options, n_steps: int
    ) -> int:
        """Bytes of vectors, graph and distances, and of the distributions of the classes."""
        vectors = 4 * sizes.n_components * (2 * sizes.n_nodes + sizes.n_test)
        of_image: int = 24 * options.grid.n_neighbors + 40 * sizes.n_classes
        return vectors + sizes.n_nodes * of_image + 3 * sizes.score_bytes

    def provenance(self, settings: Settings, options: Options, n_images: int) -> dict[str, Any]:
        """The parameters that are the same for all alpha."""
        fixed = _fixed(options.grid)
        del fixed["max_images"]
        return {self.name: fixed}


def _fixed(grid: LabelSpreadingGrid) -> dict[str, Any]:
    values = asdict(grid)
    del values["alpha"]
    return values
