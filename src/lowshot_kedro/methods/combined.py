"""Late fusion of diffusion and logistic regression."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lowshot_kedro.classifiers import weighted_averages
from lowshot_kedro.methods.method import (
    RATE,
    Axis,
    Method,
    Options,
    Outcome,
    Settings,
    Sizes,
    Style,
    Work,
)
from lowshot_kedro.methods.palette import GREEN
from lowshot_kedro.progress import Stopwatch


class CombinedMethod(Method):
    """The weighted average of what two methods say, Douze et al., CVPR 2018, section 4."""

    name = "combined"
    title = "combined"
    style = Style(GREEN, "P", "--")
    needs = "graph"
    parts = ("diffusion", "logistic_regression")
    axis = Axis("weight", "combination_weight", RATE)

    def run(self, work: Work) -> Iterator[Outcome]:
        """Average the probabilities of both parts with every weight.

        In memory: the scores of both as probabilities, and one combination in double precision.
        """
        watch = Stopwatch()
        first, second = (work.parts[name] for name in self.parts)
        combined = weighted_averages(first, second, work.places)
        entries = [
            work.judge(0, weight, of_weight)
            for weight, of_weight in zip(work.places, combined, strict=True)
        ]
        yield Outcome(0, entries, {"combination": watch.seconds})

    def memory_bytes(
        self, sizes: Sizes, settings: Sequence[Settings], options: Options, n_steps: int
    ) -> int:
        """Bytes of the scores of both parts, also as probabilities, and of one combination."""
        return 5 * sizes.score_bytes
