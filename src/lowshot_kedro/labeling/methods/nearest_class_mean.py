"""Nearest class mean: every class is one direction, its prototype."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.classifiers import NearestClassMean
from lowshot_kedro.labeling.methods.method import LabelingMethod

# Softmax of so many times the cosines, before a temperature. Gidaris and Komodakis (CVPR 2018),
# who learn it, begin with 10.
_SCALE = 10.0


class NearestClassMeanLabels(LabelingMethod):
    """The softmax of scaled cosines with the means of the classes.

    An image whose features are all zero points nowhere: nothing is known of it, and it is in no
    mean. In memory: the features of labelled images, and a block of others.
    """

    name = "nearest_class_mean"
    default_temperature = 0.8

    def held_out(self) -> NDArray[np.float32]:
        """Probabilities by the means of the labels that are left."""
        found = [np.empty((0, self.work.n_classes), np.float32)]
        for fold in self.work.folds:
            means = _Means(self.work.labeled_features, self.work.classes, self.work.kept(fold))
            found.append(means.probabilities(self.work.labeled_features[fold], self.work.n_classes))
        return np.concatenate(found)

    def everyone(self) -> NDArray[np.float32]:
        """Probabilities of all images, read block by block."""
        means = _Means(
            self.work.labeled_features, self.work.classes, np.arange(len(self.work.nodes))
        )
        return self._block_by_block(
            lambda features: means.probabilities(features, self.work.n_classes)
        )


class _Means:
    """Means of the classes that have a direction."""

    def __init__(
        self,
        features: NDArray[np.float32],
        classes: NDArray[np.int32],
        labels: NDArray[np.int64],
    ) -> None:
        labels = labels[features[labels].any(axis=1)]
        self.present, numbers = np.unique(classes[labels], return_inverse=True)
        self._classifier = NearestClassMean(len(self.present))
        if len(self.present):
            self._classifier.fit(features[labels], numbers.astype(np.int32))

    def probabilities(self, features: NDArray[np.float32], n_classes: int) -> NDArray[np.float32]:
        result = np.zeros((len(features), n_classes), np.float32)
        rows = np.flatnonzero(features.any(axis=1))
        if len(rows) and len(self.present):
            logits = _SCALE * self._classifier.scores(features[rows])
            logits -= logits.max(axis=1, keepdims=True)
            np.exp(logits, out=logits)
            result[np.ix_(rows, self.present)] = logits / logits.sum(axis=1, keepdims=True)
        return result
