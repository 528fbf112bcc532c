"""Parameters, data and metrics of small sweeps."""

from __future__ import annotations

import copy
from typing import Any

from lowshot_kedro.parameters import (
    DiffusionParameters,
    EvaluationParameters,
    GraphParameters,
    LogisticRegressionParameters,
    SweepParameters,
)
from lowshot_kedro.sweep.plan import ImageCounts, Settings, SweepData
from tests.test_parameters import VALID

SECTIONS: dict[str, type] = {
    "sweep": SweepParameters,
    "graph": GraphParameters,
    "diffusion": DiffusionParameters,
    "logistic_regression": LogisticRegressionParameters,
    "evaluation": EvaluationParameters,
}


def make_settings(**changes: Any) -> Settings:
    """Those of tests/test_parameters.py, but for some: `{"sweep.diffusion.k": [3]}`."""
    values = {name: copy.deepcopy(VALID[name]) for name in SECTIONS}
    for name, value in changes.items():
        *sections, parameter = name.split(".")
        section = values
        for section_name in sections:
            section = section[section_name]
        assert parameter in section, name
        section[parameter] = value
    return Settings(**{name: kind(**values[name]) for name, kind in SECTIONS.items()})


def make_sweep(**changes: Any) -> SweepParameters:
    """The section `sweep`: `{"diffusion.k": [3]}`."""
    return make_settings(**{f"sweep.{name}": value for name, value in changes.items()}).sweep


def make_data(
    counts: dict[tuple[str, int], ImageCounts] | None = None, **changes: Any
) -> SweepData:
    """100 labelled, 50 unlabelled and 40 test images of 10 classes, whatever the run."""
    every_run = {
        (mode, n): ImageCounts(100, 50, 40, 10) for mode in ("val", "test") for n in (1, 2, 5, 20)
    }
    values: dict[str, Any] = {
        "counts": every_run | (counts or {}),
        "n_background": {0: 0, 70: 70, None: 200},
        "n_features": 64,
        "n_components": 16,
        "facts": {"class_split": "5a", "train_features": {"checksum": "b0"}},
        "background_facts": {
            n: {
                "vectors": {"n_rows": n or 0, "checksum": f"v{n}"},
                "graph": {"checksum": f"g{n}"},
            }
            for n in (0, 70, None)
        },
    }
    return SweepData(**values | changes)
