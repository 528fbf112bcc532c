"""All sections of parameters that people type, read once at the start of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lowshot_kedro.deepemd.parameters import DeepEMDParameters
from lowshot_kedro.deepercluster.parameters import DeeperClusterParameters
from lowshot_kedro.episodes.parameters import EpisodesParameters
from lowshot_kedro.graph import require_method
from lowshot_kedro.graph.parameters import GraphParameters
from lowshot_kedro.images.parameters import DemonstrationParameters
from lowshot_kedro.labeling.parameters import LabelingParameters
from lowshot_kedro.methods import METHODS
from lowshot_kedro.metrics import EvaluationParameters
from lowshot_kedro.networks.parameters import FeaturesParameters
from lowshot_kedro.parameters import (
    field_names,
    in_section,
    read_section,
    require_boolean,
    require_names,
    require_one_of,
)
from lowshot_kedro.pca.parameters import PcaParameters
from lowshot_kedro.protocol import ExperimentParameters
from lowshot_kedro.snca.parameters import SNCAParameters
from lowshot_kedro.sweep.parameters import SweepParameters, read_sweep

logger = logging.getLogger(__name__)

# Names of an earlier version, by section: they work until the next one.
_RENAMED = {
    "demonstration": {"picture_size": "image_size"},
    "diffusion": {"restore_labeled": "clamping"},
    "evaluation": {"n_pictures": "n_images"},
    "graph": {"memory_budget": "memory_budget_gb"},
    "sweep": {"memory_budget": "memory_budget_gb"},
}


@dataclass(frozen=True)
class BaselineParameters:
    """The method that the diffusion is compared with: one that needs nothing but features."""

    method: str

    def __post_init__(self) -> None:
        possible = [name for name, method in METHODS.items() if method.needs == "features"]
        require_one_of("method", self.method, possible)


@dataclass(frozen=True)
class ReportingParameters:
    """What a run prints."""

    show_resources: bool

    def __post_init__(self) -> None:
        require_boolean("show_resources", self.show_resources)


# Section → its class; those of methods come with the methods.
SECTIONS: dict[str, type] = {
    "demonstration": DemonstrationParameters,
    "experiment": ExperimentParameters,
    "features": FeaturesParameters,
    "pca": PcaParameters,
    "graph": GraphParameters,
    "baseline": BaselineParameters,
    **{name: method.parameters for name, method in METHODS.items() if method.parameters},
    "evaluation": EvaluationParameters,
    "snca": SNCAParameters,
    "deepercluster": DeeperClusterParameters,
    "labeling": LabelingParameters,
    "episodes": EpisodesParameters,
    "deepemd": DeepEMDParameters,
    "sweep": SweepParameters,
    "reporting": ReportingParameters,
}


def read_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Read all sections: they have no unknown name, none is missing, and values are in range.

    Args:
        parameters: Section name → mapping of parameter name → value, as the YAML files and
            `--params` give them; or sections that are read already.

    Returns:
        Section name → its dataclass. The section of a method that has defaults for everything may
        be missing.

    Raises:
        InputError: For the first thing that is wrong.
    """
    require_names("", parameters, {name: _is_needed(kind) for name, kind in SECTIONS.items()})
    sections = {name: _reader(name)(parameters.get(name, {})) for name in SECTIONS}
    in_section(
        "graph", lambda: require_method(sections["graph"].method, sections["pca"].n_components)
    )
    return sections


def _is_needed(section_class: type) -> bool:
    return any(field_names(section_class).values())


def _reader(name: str) -> Callable[[object], Any]:
    return read_sweep if name == "sweep" else partial(read_section, name, SECTIONS[name])


def with_new_names(
    parameters: Mapping[str, Any], typed: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Parameters under the names of this version, with a warning for each of an earlier one.

    Args:
        parameters: Section name → parameter name → value.
        typed: Those of them that the command line gives.
    """
    renamed = dict(parameters)
    for section, names in _RENAMED.items():
        values = parameters.get(section)
        found = [old for old in names if isinstance(values, Mapping) and old in values]
        for old in found:
            logger.warning(
                "%s.%s: this parameter is called %s.%s now; the old name works until the next "
                "version",
                section,
                old,
                section,
                names[old],
            )
        if found:
            assert isinstance(values, Mapping)
            of_command = (typed or {}).get(section, {})
            # What was typed for this run under the new name counts more than a file's old name.
            given = {
                names[old]: values[old]
                for old in found
                if old in of_command or names[old] not in of_command
            }
            kept = {name: value for name, value in values.items() if name not in found}
            renamed[section] = {**kept, **given}
    return renamed
