"""The methods of low-shot (few-shot) learning that sweeps, runs, tables and plots compare.

Each has a file: inductive baselines that use the labelled images alone, semi-supervised methods
that use unlabelled images too, and their combination. A new one is a file with a class that follows
:class:`~lowshot_kedro.methods.method.Method`, and a line in :data:`METHODS`; or, in another
package, an entry point of the group `lowshot_kedro.methods`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from lowshot_kedro.errors import InputError, did_you_mean, shown
from lowshot_kedro.methods.combined import CombinedMethod
from lowshot_kedro.methods.diffusion import DiffusionMethod
from lowshot_kedro.methods.images import ChosenImages
from lowshot_kedro.methods.label_spreading import LabelSpreadingMethod
from lowshot_kedro.methods.logistic_regression import LogisticRegressionMethod
from lowshot_kedro.methods.method import Method, Options, Outcome, Work
from lowshot_kedro.methods.nearest_class_mean import NearestClassMeanMethod
from lowshot_kedro.methods.nearest_neighbors import NearestNeighborsMethod
from lowshot_kedro.methods.self_training import SelfTrainingMethod

# All methods by name, in the order of tables.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        NearestClassMeanMethod(),
        NearestNeighborsMethod(),
        LabelSpreadingMethod(),
        SelfTrainingMethod(),
        LogisticRegressionMethod(),
        DiffusionMethod(),
        CombinedMethod(),
    )
}

# Methods of other installed packages: entry points of this group name a class.
for _found in entry_points(group="lowshot_kedro.methods"):
    METHODS.setdefault(_found.name, _found.load()())


def method_named(name: str) -> Method:
    """A method by its name.

    Raises:
        InputError: For an unknown name, with the one that is probably meant.
    """
    if name not in METHODS:
        hint = did_you_mean(name, METHODS)
        raise InputError(f"method: got {shown(name)}, expected one of: {', '.join(METHODS)}{hint}")
    return METHODS[name]


def method_of(metrics: Mapping[str, Any]) -> Method:
    """The method that the content of a metrics file of `kedro run` is about.

    Files of earlier versions do not say it; those of the diffusion have its parameters.
    """
    usual = DiffusionMethod if "diffusion" in metrics["experiment"] else LogisticRegressionMethod
    return method_named(metrics.get("method", usual.name))


__all__ = [
    "METHODS",
    "ChosenImages",
    "Method",
    "Options",
    "Outcome",
    "Work",
    "method_named",
    "method_of",
]
