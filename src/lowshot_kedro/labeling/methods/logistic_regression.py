"""Logistic regression on the features of the labelled images."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.classifiers import LogisticRegressions
from lowshot_kedro.devices import choose_device
from lowshot_kedro.labeling.methods.method import LabelingMethod
from lowshot_kedro.parameters import refuse
from lowshot_kedro.progress import logged_step

logger = logging.getLogger(__name__)


class LogisticRegressionLabels(LabelingMethod):
    """One linear layer, trained once for each fold and once with all labels.

    In memory: the features of labelled images, and a block of others.
    """

    name = "logistic_regression"
    # It depends on the length of features, and on how long the layer is trained.
    temperature_spread = 2.0
    library = "torch"

    def held_out(self) -> NDArray[np.float32]:
        """Probabilities by the layers of the folds; all the same where one diverged."""
        found = [np.empty((0, self.work.n_classes), np.float32)]
        for number, fold in enumerate(self.work.folds, start=1):
            with logged_step(f"{self.title}: fold {number} of {len(self.work.folds)}"):
                layer = self._trained(self.work.kept(fold))
                if layer.diverged[0]:
                    logger.info("%s diverged: a smaller learning rate may help", self.title)
                found.append(np.exp(layer.scores(self.work.labeled_features[fold], 0)))
        return np.concatenate(found)

    def everyone(self) -> NDArray[np.float32]:
        """Probabilities of all images, read block by block.

        Raises:
            InputError: If the training diverges.
        """
        with logged_step(self.title):
            layer = self._trained(np.arange(len(self.work.nodes)))
        if layer.diverged[0]:
            expected = "less: logistic regression diverged on the labelled images"
            raise refuse("lr", self.work.logistic_regression.lr, expected)
        return self._block_by_block(lambda features: np.exp(layer.scores(features, 0)))

    def _trained(self, labels: NDArray[np.int64]) -> LogisticRegressions:
        parameters = self.work.logistic_regression
        layer = LogisticRegressions(
            self.work.n_classes,
            lr=[parameters.lr],
            weight_decay=[parameters.weight_decay],
            batch_size=parameters.batch_size,
            max_iterations=parameters.max_iterations,
            momentum=parameters.momentum,
            seed=self.work.seed,
            device=choose_device("auto"),
        )
        layer.fit(self.work.labeled_features[labels], self.work.classes[labels])
        return layer
