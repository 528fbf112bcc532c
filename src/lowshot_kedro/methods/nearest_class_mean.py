"""Nearest class mean: every class is one direction, its prototype."""

from __future__ import annotations

from collections.abc import Iterator

from lowshot_kedro.classifiers import NearestClassMean
from lowshot_kedro.methods.method import Method, Outcome, Style, Work
from lowshot_kedro.methods.palette import PURPLE
from lowshot_kedro.progress import Stopwatch


class NearestClassMeanMethod(Method):
    """Cosines to the means of the classes, which need no hyper-parameter."""

    name = "nearest_class_mean"
    title = "nearest class mean"
    style = Style(PURPLE, "v")

    def run(self, work: Work) -> Iterator[Outcome]:
        """Do the only run that there can be, since nothing is searched."""
        watch = Stopwatch()
        classifier = NearestClassMean(work.images.n_classes)
        classifier.fit(work.images.labeled_features(), work.images.labeled_classes)
        entry = work.judge(0, None, classifier.scores(work.images.test_images_features()))
        yield Outcome(0, [entry], {"classification": watch.seconds})
