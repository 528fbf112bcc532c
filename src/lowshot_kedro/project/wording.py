"""Messages about input that cannot be used, in the names that people type for a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lowshot_kedro.disk import DiskFullError
from lowshot_kedro.errors import InputError
from lowshot_kedro.methods import METHODS
from lowshot_kedro.project.commands import Invocation
from lowshot_kedro.project.config import UserError

logger = logging.getLogger(__name__)

# The sections of the parameters in which people type the arguments of a package. Those of a sweep,
# which come first, count in a sweep alone.
_SECTIONS = {
    "classifiers.label_spreading": ("sweep.label_spreading",),
    "classifiers.logistic_regression": ("sweep.logistic_regression", "logistic_regression"),
    "classifiers.nearest_neighbors": ("sweep.nearest_neighbors",),
    "devices": ("features",),
    "diffusion": ("sweep.diffusion", "diffusion"),
    "graph": ("sweep.diffusion", "graph"),
    "labeling": ("labeling",),
    "metrics": ("evaluation",),
    "networks": ("features",),
    "pca": ("pca",),
    "protocol": ("experiment",),
    "snca": ("snca",),
    "training": ("snca",),
    "snca.extractor": ("features",),
}
# Arguments that people type under another name.
_NAMES = {
    ("networks", "name"): "extractor",
    ("snca", "k"): "eval_k",
    ("snca", "n_labeled"): "eval_n_labeled",
    ("snca", "seeds"): "eval_seeds",
}


class Wording:
    """Words errors in the names of one run's parameters.

    Args:
        parameters: All sections, as the YAML files and `--params` give them.
        is_sweep: Whether the run reads the section `sweep`.
        invocation: How the run was started, for commands; None: a pipeline is called by its name.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        is_sweep: bool = False,
        invocation: Invocation | None = None,
    ) -> None:
        self._parameters = parameters
        self._is_sweep = is_sweep
        self._invocation = invocation

    def message(self, error: BaseException) -> str:
        """The message of an error, for whoever typed the parameters."""
        if isinstance(error, InputError):
            command = None if self._invocation is None else self._invocation.command
            return error.worded(self.name_of, command)
        # Ours has no use for the number that OSError puts in front.
        return str(error.strerror if isinstance(error, DiskFullError) else error)

    def user_error(self, error: BaseException, before: str = "", after: str = "") -> UserError:
        """The error at the surface, with what it carries.

        Args:
            error: An error about an input or a file.
            before: Said before the message.
            after: Said after it.
        """
        logger.debug("What the error comes from:", exc_info=error)
        result = UserError(before + self.message(error) + after)
        if isinstance(error, InputError):
            result.parameter, result.found = self.name_of(error), error.found
            result.expected, result.made_by = error.expected, error.made_by
            result.origin = error.origin
        return result

    def name_of(self, error: InputError) -> str | None:
        """`graph.memory_budget_gb` for `memory_budget_bytes` of the package graph.

        An argument that is no parameter of a run keeps its name.
        """
        name, package = error.parameter, _package_of(error.origin)
        if name is None:
            return name
        own = _NAMES.get((package or "", name), name)
        for section in _sections_of(error.origin):
            if section.startswith("sweep.") and not self._is_sweep:
                continue
            for typed in (own, _in_gigabytes(own)):
                if typed in self._section(section):
                    return f"{section}.{typed}"
        return name

    def _section(self, path: str) -> Mapping[str, Any]:
        section: Any = self._parameters
        for part in path.split("."):
            section = section.get(part) if isinstance(section, Mapping) else None
        return section if isinstance(section, Mapping) else {}


def _in_gigabytes(name: str) -> str:
    """The name under which people type an amount of bytes, in GB."""
    return f"{name.removesuffix('_bytes')}_gb" if name.endswith("_bytes") else name


def _sections_of(module: str) -> tuple[str, ...]:
    """The sections in which the arguments of a module are typed."""
    for name, method in METHODS.items():
        if type(method).__module__ == module:
            return (f"sweep.{name}", name)
    return _SECTIONS.get(_package_of(module) or "", ())


def _package_of(module: str) -> str | None:
    """The entry of the sections that a module belongs to."""
    parts = module.split(".")[1:]
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in _SECTIONS), None)
