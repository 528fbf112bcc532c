"""The parameters people type, checked once at the start of a run.

Every section of the `parameters_*.yml` files has a frozen dataclass here. A value that cannot be
used names itself, what was found and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, TypeGuard

from lowshot_kedro.devices import DEVICES
from lowshot_kedro.diffusion import (
    BACKENDS,
    CLASS_PRIORS,
    EDGE_WEIGHTS,
    PRECISIONS,
    neighbor_candidates,
)
from lowshot_kedro.errors import InputError, shown
from lowshot_kedro.graph import METHODS, require_method
from lowshot_kedro.metrics import GROUPS
from lowshot_kedro.networks import PRECISIONS as EXTRACTOR_PRECISIONS
from lowshot_kedro.networks import require_extractor
from lowshot_kedro.protocol import MODES, UNLABELED
from lowshot_kedro.sweep.runs import METHODS as SWEEP_METHODS
from lowshot_kedro.sweep.runs import UnlabeledImages

_MAX_INT32 = 2**31 - 1
# Its square is a number of single precision.
_MAX_NUMBER = 1e18
# Counted in bytes it is an integer of 64 bits.
_MAX_GIGABYTES = 1e9

# Chosen by the data.
AUTO = "auto"


def _refuse(name: str, value: object, expected: str) -> InputError:
    return InputError(f"{name}: got {shown(value)}, expected {expected}")


def _one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise _refuse(name, value, "one of: " + ", ".join(allowed))


def _boolean(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise _refuse(name, value, "true or false")


def _integer(
    name: str,
    value: object,
    minimum: int,
    maximum: int = _MAX_INT32,
    null: str | None = None,
    alternative: str | None = None,
) -> None:
    if value is None and null is not None:
        return
    valid = isinstance(value, Integral) and not isinstance(value, bool)
    if not valid or not minimum <= value <= maximum:  # type: ignore[operator]
        other = f", or null = {null}" if null else f", or {alternative}" if alternative else ""
        raise _refuse(name, value, f"an integer from {minimum} to {maximum}{other}")


def _is_number(value: object, minimum: float, maximum: float) -> bool:
    # Compared as it is: there are integers that no float can hold.
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and bool(minimum <= value <= maximum)  # type: ignore[operator]


def _number(
    name: str,
    value: object,
    minimum: float,
    below: float | None = None,
    maximum: float = _MAX_NUMBER,
) -> None:
    if not _is_number(value, minimum, maximum) or (below is not None and not value < below):  # type: ignore[operator]
        limit = f" and at most {maximum:g}" if below is None else f" and below {below:g}"
        raise _refuse(name, value, f"a number of at least {minimum:g}{limit}")


def _gigabytes(name: str, value: object) -> None:
    if value is not None:
        _number(name, value, 0, maximum=_MAX_GIGABYTES)


def _bytes_of(gigabytes: float | None) -> int | None:
    """1 GB being 10⁹ bytes."""
    return None if gigabytes is None else int(gigabytes * 10**9)


def stored_columns(k: int | str, stored_k: int) -> int:
    """Columns of the stored background graph.

    Args:
        k: Neighbours that a run uses; `auto` chooses among those that are stored.
        stored_k: Columns wanted.

    Returns:
        stored_k, or the next power of two from k if that is more.
    """
    if isinstance(k, str):
        return stored_k
    return max(stored_k, 1 << (int(k) - 1).bit_length())


@dataclass(frozen=True)
class DemonstrationParameters:
    """The images that `kedro run` writes for itself when nobody brings their own."""

    enabled: bool
    seed: int
    image_size: int

    def __post_init__(self) -> None:
        _boolean("demonstration.enabled", self.enabled)
        _integer("demonstration.seed", self.seed, 0)
        _integer("demonstration.image_size", self.image_size, 8, 1024)


@dataclass(frozen=True)
class ExperimentParameters:
    """Which classes, how many labelled images of the novel ones, and which unlabelled images."""

    mode: str
    n_labeled: int | None
    seed: int
    unlabeled: str

    def __post_init__(self) -> None:
        _one_of("experiment.mode", self.mode, MODES)
        _integer("experiment.n_labeled", self.n_labeled, 1, null="all that are given")
        _integer("experiment.seed", self.seed, 0)
        _one_of("experiment.unlabeled", self.unlabeled, UNLABELED)


@dataclass(frozen=True)
class FeaturesParameters:
    """The network that turns images into vectors, and how it is run."""

    extractor: str
    weights: str
    image_size: int | None
    batch_size: int
    num_workers: int | str
    device: str
    precision: str
    compile: bool | str

    def __post_init__(self) -> None:
        require_extractor(self.extractor)
        if not isinstance(self.weights, str) or not self.weights:
            expected = "none, download, package, package:MODULE/FILE or a file"
            raise _refuse("features.weights", self.weights, expected)
        _integer("features.image_size", self.image_size, 32, 4096, null="the network's own")
        _integer("features.batch_size", self.batch_size, 1)
        if self.num_workers != "auto":
            _integer("features.num_workers", self.num_workers, 0, 1024, alternative="auto")
        _one_of("features.device", self.device, DEVICES)
        _one_of("features.precision", self.precision, EXTRACTOR_PRECISIONS)
        if self.compile != "auto" and not isinstance(self.compile, bool):
            raise _refuse("features.compile", self.compile, "true, false or auto")


@dataclass(frozen=True)
class PcaParameters:
    """Reduction of the features to the vectors of the graph."""

    n_components: int
    random_rotation: bool
    max_train_rows: int | None

    def __post_init__(self) -> None:
        _integer("pca.n_components", self.n_components, 1)
        _boolean("pca.random_rotation", self.random_rotation)
        _integer("pca.max_train_rows", self.max_train_rows, 1, null="all")
        if self.max_train_rows is not None and self.max_train_rows <= self.n_components:
            raise _refuse(
                "pca.max_train_rows",
                self.max_train_rows,
                f"more than pca.n_components = {self.n_components}",
            )


@dataclass(frozen=True)
class GraphParameters:
    """The k-NN graph over labelled and background images.

    `stored_k` becomes the number of columns that are stored, see :func:`stored_columns`.
    """

    k: int | str
    n_background: int | None
    stored_k: int
    method: str
    target_recall: float
    memory_budget_gb: float | None
    recall_sample: int

    def __post_init__(self) -> None:
        if self.k != AUTO:
            _integer("graph.k", self.k, 1, 1024, alternative=AUTO)
        _integer("graph.n_background", self.n_background, 0, null="all")
        _integer("graph.stored_k", self.stored_k, 1, 1024)
        if not isinstance(self.method, str) or not self.method:
            expected = f"one of: {', '.join(METHODS)}; or a description for faiss.index_factory"
            raise _refuse("graph.method", self.method, expected)
        _number("graph.target_recall", self.target_recall, 0.01)
        if self.target_recall > 1:
            raise _refuse("graph.target_recall", self.target_recall, "a number from 0.01 to 1")
        _gigabytes("graph.memory_budget_gb", self.memory_budget_gb)
        _integer("graph.recall_sample", self.recall_sample, 1)
        object.__setattr__(self, "stored_k", stored_columns(self.k, self.stored_k))

    @property
    def max_k(self) -> int:
        """k, or the most neighbours that `auto` may choose."""
        return max(self.candidates())

    def candidates(self, max_k: int | None = None) -> tuple[int, ...]:
        """The numbers of neighbours to choose from; k alone if it is a number.

        Args:
            max_k: The most that there are; None: as many as are stored.
        """
        if not isinstance(self.k, str):
            return (self.k,)
        return neighbor_candidates(self.stored_k if max_k is None else max_k)

    @property
    def memory_budget_bytes(self) -> int | None:
        """The budget, 1 GB being 10⁹ bytes; None: what is free."""
        return _bytes_of(self.memory_budget_gb)


@dataclass(frozen=True)
class DiffusionParameters:
    """The propagation of labels over the graph."""

    n_iterations: int | str
    class_slice: int | str
    memory_budget_gb: float | None
    backend: str
    precision: str
    edge_weight: str
    sigma: float
    local_neighbor: int
    reciprocal: bool
    sinkhorn_rounds: int
    power: float
    clamping: bool
    class_prior: str | tuple[float, ...]

    def __post_init__(self) -> None:
        if self.n_iterations != AUTO:
            _integer("diffusion.n_iterations", self.n_iterations, 0, 10_000, alternative=AUTO)
        if self.class_slice != "auto":
            _integer("diffusion.class_slice", self.class_slice, 0, alternative="auto")
        _gigabytes("diffusion.memory_budget_gb", self.memory_budget_gb)
        _one_of("diffusion.backend", self.backend, BACKENDS)
        _one_of("diffusion.precision", self.precision, PRECISIONS)
        _one_of("diffusion.edge_weight", self.edge_weight, EDGE_WEIGHTS)
        _number("diffusion.sigma", self.sigma, 1e-3)
        _integer("diffusion.local_neighbor", self.local_neighbor, 1, 1024)
        _boolean("diffusion.reciprocal", self.reciprocal)
        _integer("diffusion.sinkhorn_rounds", self.sinkhorn_rounds, 0, 10_000)
        _number("diffusion.power", self.power, 0.01, below=100)
        _boolean("diffusion.clamping", self.clamping)
        if not _is_list(self.class_prior):
            _one_of("diffusion.class_prior", self.class_prior, CLASS_PRIORS)
        else:
            numbers: tuple[Any, ...] = tuple(self.class_prior)
            for number in numbers:
                if not _is_number(number, 0, _MAX_NUMBER):
                    raise _refuse(
                        "diffusion.class_prior",
                        self.class_prior,
                        f"numbers of at least 0 and at most {_MAX_NUMBER:g}",
                    )
            object.__setattr__(self, "class_prior", numbers)
        if self.precision == "bfloat16":
            if self.backend not in ("auto", "native"):
                raise _refuse("diffusion.precision", "bfloat16", "float32, or backend native")
            if self.power != 1 or self.clamping:
                raise _refuse("diffusion.precision", "bfloat16", "float32 with power or clamping")

    @property
    def memory_budget_bytes(self) -> int | None:
        """The budget, 1 GB being 10⁹ bytes; None: what is free."""
        return _bytes_of(self.memory_budget_gb)


@dataclass(frozen=True)
class LogisticRegressionParameters:
    """The baseline: one linear layer trained on class-balanced batches."""

    lr: float
    weight_decay: float
    batch_size: int
    max_iterations: int
    momentum: float
    eval_every: int

    def __post_init__(self) -> None:
        _number("logistic_regression.lr", self.lr, 0)
        _number("logistic_regression.weight_decay", self.weight_decay, 0)
        _integer("logistic_regression.batch_size", self.batch_size, 1)
        _integer("logistic_regression.max_iterations", self.max_iterations, 1)
        _number("logistic_regression.momentum", self.momentum, 0, below=1)
        _integer("logistic_regression.eval_every", self.eval_every, 1)


@dataclass(frozen=True)
class EvaluationParameters:
    """Which accuracies are reported, and how the two methods are combined."""

    top_k: tuple[int, ...]
    combination_weight: float
    n_images: int

    def __post_init__(self) -> None:
        if not _is_list(self.top_k) or not tuple(self.top_k):
            raise _refuse("evaluation.top_k", self.top_k, "a list of integers, such as [1, 5]")
        for k in self.top_k:
            _integer("evaluation.top_k", k, 1)
        object.__setattr__(self, "top_k", tuple(sorted(set(self.top_k))))
        _number("evaluation.combination_weight", self.combination_weight, 0)
        if self.combination_weight > 1:
            raise _refuse(
                "evaluation.combination_weight", self.combination_weight, "a number from 0 to 1"
            )
        _integer("evaluation.n_images", self.n_images, 1, 100)


@dataclass(frozen=True)
class ReportingParameters:
    """What a run prints."""

    show_resources: bool

    def __post_init__(self) -> None:
        _boolean("reporting.show_resources", self.show_resources)


def _is_list(value: object) -> TypeGuard[Iterable[Any]]:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _values(name: str, found: object, check: Callable[[str, Any], None]) -> tuple[Any, ...]:
    """A list of values that are searched or repeated, each of them once."""
    if not _is_list(found):
        raise _refuse(name, found, "a list, such as [1, 2]")
    values = list(found)
    if not values:
        raise _refuse(name, values, "a list with at least one entry")
    for value in values:
        check(name, value)
    return tuple(dict.fromkeys(values))


def _non_negative(name: str, value: object) -> None:
    _number(name, value, 0)


def _part(name: str, value: object) -> None:
    _number(name, value, 0)
    if value > 1:  # type: ignore[operator]
        raise _refuse(name, value, "a number from 0 to 1")


def _positive(name: str, value: object) -> None:
    _integer(name, value, 1)


@dataclass(frozen=True)
class LogisticRegressionGrid:
    """What is searched for logistic regression: all combinations of the lists, at all times."""

    lr: tuple[float, ...]
    weight_decay: tuple[float, ...]
    batch_size: tuple[int, ...]
    max_iterations: int
    eval_every: int

    def __post_init__(self) -> None:
        prefix = "sweep.logistic_regression."
        for name, check in (
            ("lr", _non_negative), ("weight_decay", _non_negative), ("batch_size", _positive)
        ):  # fmt: skip
            object.__setattr__(self, name, _values(prefix + name, getattr(self, name), check))
        _integer(prefix + "max_iterations", self.max_iterations, 1)
        _integer(prefix + "eval_every", self.eval_every, 1)


@dataclass(frozen=True)
class DiffusionGrid:
    """What is searched for the diffusion: neighbours, edge weights, and all numbers of steps."""

    k: tuple[int, ...]
    edge_weight: tuple[str, ...]
    n_iterations: int

    def __post_init__(self) -> None:
        prefix = "sweep.diffusion."
        object.__setattr__(
            self, "k", _values(prefix + "k", self.k, lambda name, k: _integer(name, k, 1, 1024))
        )
        weights = _values(
            prefix + "edge_weight",
            self.edge_weight,
            lambda name, weight: _one_of(name, weight, EDGE_WEIGHTS),
        )
        object.__setattr__(self, "edge_weight", weights)
        _integer(prefix + "n_iterations", self.n_iterations, 1, 10_000)


@dataclass(frozen=True)
class NearestNeighborsGrid:
    """What is searched for k-NN."""

    k: tuple[int, ...]

    def __post_init__(self) -> None:
        name = "sweep.nearest_neighbors.k"
        object.__setattr__(self, "k", _values(name, self.k, _positive))


@dataclass(frozen=True)
class LabelSpreadingGrid:
    """What is searched for scikit-learn's LabelSpreading, and up to which size it is tried."""

    alpha: tuple[float, ...]
    n_neighbors: int
    max_iterations: int
    max_images: int

    def __post_init__(self) -> None:
        prefix = "sweep.label_spreading."
        object.__setattr__(self, "alpha", _values(prefix + "alpha", self.alpha, _between_0_and_1))
        for name in ("n_neighbors", "max_iterations", "max_images"):
            _integer(prefix + name, getattr(self, name), 1)


def _between_0_and_1(name: str, value: object) -> None:
    _number(name, value, 0, below=1)
    if value == 0:
        raise _refuse(name, value, "a number above 0 and below 1")


@dataclass(frozen=True)
class SweepParameters:
    """Many experiments: what is searched on the validation classes, and what is repeated."""

    methods: tuple[str, ...]
    n_labeled: tuple[int | None, ...]
    seeds: tuple[int, ...]
    validation_seeds: tuple[int, ...]
    metric: str
    unlabeled: tuple[str, ...]
    n_background: tuple[int | None, ...]
    logistic_regression: LogisticRegressionGrid
    diffusion: DiffusionGrid
    nearest_neighbors: NearestNeighborsGrid
    label_spreading: LabelSpreadingGrid
    combination_weights: tuple[float, ...]
    scheduler: str
    cluster: Mapping[str, Any]
    n_workers: int | str
    memory_budget_gb: float | None
    max_tries: int

    def __post_init__(self) -> None:
        checks: dict[str, Callable[[str, Any], None]] = {
            "methods": lambda name, value: _one_of(name, value, SWEEP_METHODS),
            "n_labeled": lambda name, value: _integer(name, value, 1, null="all that are given"),
            "seeds": lambda name, value: _integer(name, value, 0),
            "validation_seeds": lambda name, value: _integer(name, value, 0),
            "unlabeled": lambda name, value: _one_of(
                name, value, [kind for kind in UNLABELED if kind != "none"]
            ),
            "n_background": lambda name, value: _integer(name, value, 0, null="all"),
            "combination_weights": _part,
        }
        for name, check in checks.items():
            object.__setattr__(self, name, _values(f"sweep.{name}", getattr(self, name), check))
        groups = "|".join(GROUPS)
        if not isinstance(self.metric, str) or not re.fullmatch(
            rf"top[1-9][0-9]*({groups})", self.metric
        ):
            expected = "top1, top1_novel, top1_base or the same of another of evaluation.top_k"
            raise _refuse("sweep.metric", self.metric, expected)
        missing = [
            name for name in ("logistic_regression", "diffusion") if name not in self.methods
        ]
        if "combined" in self.methods and missing:
            raise _refuse("sweep.methods", list(self.methods), f"{missing[0]} beside combined")
        for name, grid in _GRIDS.items():
            values = getattr(self, name)
            if not isinstance(values, grid):
                if not isinstance(values, Mapping):
                    raise _refuse(f"sweep.{name}", values, "a section of parameters")
                _require_names(f"sweep.{name}.", values, [field.name for field in fields(grid)])
                object.__setattr__(self, name, grid(**values))
        if not isinstance(self.scheduler, str) or not self.scheduler:
            expected = "local, the address of a Dask scheduler, or a batch system such as slurm"
            raise _refuse("sweep.scheduler", self.scheduler, expected)
        if not isinstance(self.cluster, Mapping):
            raise _refuse("sweep.cluster", self.cluster, "a section, such as {queue: short}")
        if self.n_workers != "auto":
            _integer("sweep.n_workers", self.n_workers, 0, 100_000, alternative="auto")
        _gigabytes("sweep.memory_budget_gb", self.memory_budget_gb)
        _integer("sweep.max_tries", self.max_tries, 1, 1000)

    @property
    def unlabeled_images(self) -> list[UnlabeledImages]:
        """Every kind of unlabelled images with every size of background it can have."""
        return [
            UnlabeledImages(kind, n_background)
            for kind in self.unlabeled
            for n_background in ((0,) if kind == "train" else self.n_background)
        ]

    @property
    def memory_budget_bytes(self) -> int | None:
        """The budget, 1 GB being 10⁹ bytes; None: what is free."""
        return _bytes_of(self.memory_budget_gb)


_GRIDS: dict[str, type] = {
    "logistic_regression": LogisticRegressionGrid,
    "diffusion": DiffusionGrid,
    "nearest_neighbors": NearestNeighborsGrid,
    "label_spreading": LabelSpreadingGrid,
}

SECTIONS: dict[str, type] = {
    "demonstration": DemonstrationParameters,
    "experiment": ExperimentParameters,
    "features": FeaturesParameters,
    "pca": PcaParameters,
    "graph": GraphParameters,
    "diffusion": DiffusionParameters,
    "logistic_regression": LogisticRegressionParameters,
    "evaluation": EvaluationParameters,
    "sweep": SweepParameters,
    "reporting": ReportingParameters,
}


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Check all sections: no unknown name, none missing, every value in its range.

    Args:
        parameters: Section name → mapping of parameter name → value, as the YAML files and
            `--params` give them.

    Raises:
        ValueError: For the first thing that is wrong.
    """
    _require_names("", parameters, list(SECTIONS))
    for section, section_class in SECTIONS.items():
        values = parameters[section]
        if not isinstance(values, Mapping):
            raise _refuse(section, values, "a section of parameters")
        _require_names(f"{section}.", values, [field.name for field in fields(section_class)])
        section_class(**values)
    require_method(parameters["graph"]["method"], parameters["pca"]["n_components"])


def _require_names(prefix: str, found: Mapping[str, Any], allowed: Sequence[str]) -> None:
    for name in found:
        if name not in allowed:
            near = get_close_matches(str(name), allowed, n=1)
            hint = f" (did you mean {prefix}{near[0]}?)" if near else ""
            names = ", ".join(prefix + allowed_name for allowed_name in allowed)
            raise InputError(f"{prefix}{name}: unknown parameter{hint}; allowed: {names}")
    for name in allowed:
        if name not in found:
            raise InputError(f"{prefix}{name}: missing; expected it in conf/base or conf/<env>")
