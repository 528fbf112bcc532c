"""The methods that find labels for all images.

Each has a file, with a class that follows
:class:`~lowshot_kedro.labeling.methods.method.LabelingMethod`. A new one is such a file and a line
in :data:`METHODS`.
"""

from __future__ import annotations

from lowshot_kedro.labeling.methods.combined import CombinedLabels
from lowshot_kedro.labeling.methods.diffusion import DiffusionLabels
from lowshot_kedro.labeling.methods.logistic_regression import LogisticRegressionLabels
from lowshot_kedro.labeling.methods.method import LabelingMethod, Work
from lowshot_kedro.labeling.methods.nearest_class_mean import NearestClassMeanLabels

# By name, the one that is taken unless another is better first; parts before what joins them.
METHODS: dict[str, type[LabelingMethod]] = {
    method.name: method
    for method in (
        DiffusionLabels,
        LogisticRegressionLabels,
        NearestClassMeanLabels,
        CombinedLabels,
    )
}

__all__ = ["METHODS", "LabelingMethod", "Work"]
