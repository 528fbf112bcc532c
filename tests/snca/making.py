"""Small trainings by SNCA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lowshot_kedro.snca.parameters import SNCAParameters
from lowshot_kedro.snca.training import SNCAJob
from tests.training.making import MadeImages

N_IMAGES, N_TEST = 21, 9


def parameters(**changes: Any) -> SNCAParameters:
    values: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 8,
        "lr_step_epochs": 1,
        "augmentation": "shift",
        "image_size": 16,
        "network": "small",
        "dimension": 6,
        "num_workers": 0,
        "device": "cpu",
        "eval_k": (3,),
        "checkpoint_minutes": 0,
        "bank_momentum_changes": {1: 0.8},
    }
    return SNCAParameters(**{**values, **changes})


def job(folder: Path, **changes: Any) -> SNCAJob:
    images, tests = MadeImages(N_IMAGES, 16), MadeImages(N_TEST, 16)
    return SNCAJob(
        images=images,
        classes=images.labels.astype(np.int64),
        test_images=tests,
        test_classes=tests.labels.astype(np.int64),
        parameters=parameters(**changes),
        folder=folder,
    )
