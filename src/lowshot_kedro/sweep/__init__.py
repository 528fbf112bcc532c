"""The paper's experiments: choose on validation classes, report on test classes, over seeds."""

from lowshot_kedro.sweep.runs import Run, UnlabeledImages

__all__ = ["Run", "UnlabeledImages"]
