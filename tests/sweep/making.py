"""Parameters, data and metrics of small sweeps."""

from __future__ import annotations

import copy
from typing import Any

from lowshot_kedro.project.parameters import read_parameters
from lowshot_kedro.sweep.parameters import SweepParameters
from lowshot_kedro.sweep.plan import ImageCounts, SweepData, SweepSettings
from tests.test_parameters import VALID


def make_settings(**changes: Any) -> SweepSettings:
    """Those of tests/test_parameters.py, but for some: `{"sweep.diffusion.k": [3]}`."""
    values = copy.deepcopy(VALID)
    for name, value in changes.items():
        *sections, parameter = name.split(".")
        section = values
        for section_name in sections:
            section = section[section_name]
        assert parameter in section, name
        section[parameter] = value
    return SweepSettings(read_parameters(values))


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
