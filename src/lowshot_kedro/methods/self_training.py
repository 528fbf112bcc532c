"""scikit-learn's self-training: a classifier's own confident guesses become labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from threadpoolctl import threadpool_limits

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
from lowshot_kedro.methods.palette import VERMILLION
from lowshot_kedro.parameters import distinct_values, require_integer, require_number
from lowshot_kedro.progress import Stopwatch, logged_step

_NO_LABEL = -1
# C of the logistic regression: with less no probability reaches a threshold on unit vectors.
_INVERSE_PENALTY = 100.0


@dataclass(frozen=True)
class SelfTrainingGrid:
    """How sure a guess has to be, how often guesses are added, and how many images are tried."""

    threshold: tuple[float, ...] = (0.5, 0.75, 0.9)
    max_iterations: int = 10
    max_images: int = 20_000

    def __post_init__(self) -> None:
        threshold = distinct_values(
            "threshold",
            self.threshold,
            lambda name, value: require_number(name, value, 0.01, below=1),
        )
        object.__setattr__(self, "threshold", threshold)
        require_integer("max_iterations", self.max_iterations, 1)
        require_integer("max_images", self.max_images, 1)


class SelfTrainingMethod(Method):
    """scikit-learn's SelfTrainingClassifier around its logistic regression, on the vectors.

    D. Yarowsky, "Unsupervised word sense disambiguation rivaling supervised methods" (ACL 1995).
    """

    name = "self_training"
    title = "self-training"
    style = Style(VERMILLION, "X")
    needs = "vectors"
    settings: ClassVar[Mapping[str, Setting]] = {"threshold": Setting(PART, "threshold")}
    grid = SelfTrainingGrid

    def run(self, work: Work) -> Iterator[Outcome]:
        """Fit one run after the other, each in one thread, so that their number changes no result.

        In memory: the vectors three times, and 16 bytes for each image and class.
        """
        # They take a second to import, and most commands need other methods.
        from sklearn.linear_model import LogisticRegression
        from sklearn.semi_supervised import SelfTrainingClassifier

        images = work.images
        vectors = images.labeled_and_unlabeled_vectors()
        labels = np.full(len(vectors), _NO_LABEL)
        labels[: len(images.labeled_classes)] = images.labeled_classes
        test = images.test_vectors()
        for number, settings in enumerate(work.settings):
            watch = Stopwatch()
            classifier = SelfTrainingClassifier(
                LogisticRegression(C=_INVERSE_PENALTY, class_weight="balanced", max_iter=1000),
                threshold=settings["threshold"],
                max_iter=work.options.grid.max_iterations,
            )
            with (
                threadpool_limits(1),
                logged_step(f"self-training over {len(vectors)} images"),
            ):
                classifier.fit(vectors, labels)
                scores = classifier.predict_proba(test).astype(np.float32)
            described = {**settings, "max_iterations": work.options.grid.max_iterations}
            yield Outcome(
                number,
                [work.judge(number, None, scores)],
                {"classification": watch.seconds},
                {self.name: described},
                len(vectors),
            )

    def candidates(self, grid: SelfTrainingGrid, n_images: int) -> list[dict[str, Any]]:
        """A run for every threshold."""
        return [{"threshold": threshold} for threshold in grid.threshold]

    def fits(self, grid: SelfTrainingGrid, n_images: Sequence[int]) -> bool:
        """Whether there are no more images than `max_images`."""
        return max(n_images) <= grid.max_images

    def memory_bytes(
        self, sizes: Sizes, settings: Sequence[Settings], options: Options, n_steps: int
    ) -> int:
        """Bytes of the vectors, also in double precision, and of all images' probabilities."""
        vectors = 4 * sizes.n_components * (5 * sizes.n_nodes + sizes.n_test)
        return vectors + 16 * sizes.n_nodes * sizes.n_classes + 3 * sizes.score_bytes

    def provenance(self, settings: Settings, options: Options, n_images: int) -> dict[str, Any]:
        """How often guesses are added, which is the same for all thresholds."""
        return {self.name: {"max_iterations": options.grid.max_iterations}}
