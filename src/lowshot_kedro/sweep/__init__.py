"""The paper's experiments: choose on validation classes, report on test classes, over seeds."""

from lowshot_kedro.sweep.runs import AXES, METHODS, Run, UnlabeledImages

__all__ = ["AXES", "METHODS", "Run", "UnlabeledImages"]
