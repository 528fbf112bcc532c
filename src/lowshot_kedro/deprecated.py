"""Names of version 0.1 that have changed. They keep working for one version, with a warning.

A name that is gone for good loses its line here, and nothing else has to change.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from inspect import signature
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

MODULES = {
    "lowshot_kedro.commands": "lowshot_kedro.project.commands",
    "lowshot_kedro.config": "lowshot_kedro.project.config",
    "lowshot_kedro.dataset_statistics": "lowshot_kedro.project.dataset_statistics",
    "lowshot_kedro.estimator": "lowshot_kedro.estimators.label_diffusion",
    "lowshot_kedro.extractors": "lowshot_kedro.networks",
    "lowshot_kedro.hooks": "lowshot_kedro.project.hooks",
    "lowshot_kedro.matrices": "lowshot_kedro.blocks",
    "lowshot_kedro.parallel": "lowshot_kedro.threads",
    "lowshot_kedro.resources": "lowshot_kedro.progress",
    "lowshot_kedro.results": "lowshot_kedro.project.results",
    "lowshot_kedro.telemetry": "lowshot_kedro.project.telemetry",
}

NAMES = {
    "lowshot_kedro.diffusion": {
        "MOST_COLUMNS": "MAX_COLUMNS",
        "MOST_STEPS": "MAX_STEPS",
        "NUMBERINGS": "NODE_ORDERINGS",
        "RestoreLabeled": "Clamping",
        "numbering_for": "choose_node_ordering",
    },
    "lowshot_kedro.graph": {
        "CompletedGraph": "ExtendedGraph",
        "complete_graph": "insert_labeled_nodes",
        "node_graph": "build_knn_graph",
    },
    "lowshot_kedro.images": {
        "AbsentPictures": "AbsentImages",
        "Picture": "LoadedImage",
        "PictureFolder": "ImageFolder",
        "TorchvisionPictures": "TorchvisionImages",
    },
    "lowshot_kedro.progress": {
        name: f"lowshot_kedro.memory.{name}"
        for name in ("available_bytes", "recent_peak_rss_bytes", "restart_peak")
    },
    "lowshot_kedro.threads": {"ahead": "prefetch", "map_ahead": "map_in_threads"},
}

KEYWORDS = {
    "memory_budget": "memory_budget_bytes",
    "numbering": "node_ordering",
    "restore_labeled": "clamping",
}


def old_names(module: str) -> Callable[[str], Any]:
    """Make the `__getattr__` of a module, by which its old names are found.

    Args:
        module: Its name, one of those in :data:`NAMES`.
    """

    def get(name: str) -> Any:
        if name not in NAMES[module]:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = NAMES[module][name].rpartition(".")
        home = home or module
        _warn(f"{module}.{name}", f"{home}.{new}")
        if name == "complete_graph":
            return _complete_graph
        return getattr(importlib.import_module(home), new)

    return get


def _complete_graph(
    labeled_vectors: Any, test_vectors: Any, background_vectors: Any, background_index: Any,
    background_neighbors: Any, *arguments: Any, **options: Any,
) -> Any:  # fmt: skip
    """`insert_labeled_nodes` with the parts of the unlabelled nodes as arguments of their own."""
    # Not an import statement: graph/ imports this module.
    graph = importlib.import_module("lowshot_kedro.graph")
    nodes = graph.UnlabeledNodes(background_vectors, background_index, background_neighbors)
    return graph.insert_labeled_nodes(labeled_vectors, test_vectors, nodes, *arguments, **options)


def takes_old_keywords(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Let a function be called with the keywords in :data:`KEYWORDS`, too."""

    @wraps(function)
    def call(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        for old in KEYWORDS.keys() & options.keys():
            new = KEYWORDS[old]
            if new in options:
                raise TypeError(f"{function.__name__}() got both {new!r} and its old name {old!r}")
            _warn(f"{old} of {function.__name__}", new)
            options[new] = options.pop(old)
        return function(*arguments, **options)

    return call


def gathers_keywords(
    options_class: type[Any],
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Let a function with an argument `options` be called with what these hold as keywords, too.

    Args:
        options_class: The dataclass of `options`.
    """
    names = {field.name for field in fields(options_class)}

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @wraps(function)
        def call(*arguments: Parameters.args, **keywords: Parameters.kwargs) -> Result:
            told = {name: keywords.pop(name) for name in sorted(names & keywords.keys())}
            if told:
                of_function = f"{', '.join(told)} of {function.__name__}"
                _warn(of_function, f"options={options_class.__name__}({', '.join(told)})")
                options: Any = keywords.get("options", options_class())
                keywords["options"] = replace(options, **told)
            position = list(signature(function).parameters).index("options")
            given = arguments[position : position + 1]
            if given and not isinstance(given[0], options_class):
                raise TypeError(
                    f"{function.__name__}(): got {given[0]!r} for options, expected "
                    f"{options_class.__name__}(…), which holds what came by position before"
                )
            return function(*arguments, **keywords)

        return call

    return decorate


class _MovedModules(MetaPathFinder):
    """Finds modules, and what is below them, by their old names."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """A spec for an old name; None for every other."""
        for old, new in MODULES.items():
            if fullname == old or fullname.startswith(f"{old}."):
                moved = new + fullname.removeprefix(old)
                if fullname == old:
                    _warn(old, moved)
                return ModuleSpec(fullname, _SameModule(moved))
        return None


class _SameModule(Loader):
    """Loads, for an old name, the module that has the new name, not a second copy of it.

    Args:
        new: The new name.
    """

    def __init__(self, new: str) -> None:
        self._new = new

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of the new name in the place of this one."""
        sys.modules[module.__name__] = importlib.import_module(self._new)


def find_moved_modules() -> None:
    """Let imports by old names succeed."""
    # First: folders of old versions may still lie about, and would be found as empty packages.
    sys.meta_path.insert(0, _MovedModules())


def _warn(old: str, new: str) -> None:
    warnings.warn(
        f"{old} is now {new}; the old name goes with the next version",
        FutureWarning,
        stacklevel=3,
    )
