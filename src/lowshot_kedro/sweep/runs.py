"""What a sweep consists of: single runs, each with a name that people can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

METHODS = (
    "nearest_class_mean",
    "nearest_neighbors",
    "label_spreading",
    "logistic_regression",
    "diffusion",
    "combined",
)

# Along what a method's metrics hold more than one entry: `per_iteration` of the diffusion, …
AXES = {
    "nearest_neighbors": "k",
    "logistic_regression": "iteration",
    "diffusion": "iteration",
    "combined": "weight",
}

# How settings are called in the names of runs, in which they come in this order.
_SHORT = {
    "lr": "lr", "weight_decay": "wd", "batch_size": "bs", "k": "k", "edge_weight": "",
    "alpha": "alpha",
}  # fmt: skip


def labeled_name(n_labeled: int | None) -> str:
    """`nl2`, `nlall`: labelled images of every novel class as names of runs have them."""
    return f"nl{'all' if n_labeled is None else n_labeled}"


@dataclass(frozen=True, order=True)
class UnlabeledImages:
    """Which unlabelled images a run uses.

    Attributes:
        kind: As `experiment.unlabeled`: background, train or both.
        n_background: How many of the background; None: all.
    """

    kind: str
    n_background: int | None

    @property
    def name(self) -> str:
        """`nbg1000000`, `nbgall`, `train`, `nbg1000000_train`."""
        background = f"nbg{'all' if self.n_background is None else self.n_background}"
        return {"background": background, "train": "train", "both": f"{background}_train"}[
            self.kind
        ]


@dataclass(frozen=True)
class Run:
    """One method on one choice of labelled images.

    Attributes:
        method: One of :data:`METHODS`.
        mode: `val` or `test`.
        n_labeled: Labelled images of every novel class; None: all that are given.
        seed: Of their choice.
        unlabeled: None for methods that use no unlabelled images.
        settings: What is searched on the validation classes and needs a run of its own.
    """

    method: str
    mode: str
    n_labeled: int | None
    seed: int
    unlabeled: UnlabeledImages | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def edge_weight(self) -> str:
        """Of the diffusion; names of runs leave out the usual one."""
        return str(self.settings.get("edge_weight", "constant"))

    @property
    def key(self) -> str:
        """`diffusion/test/nl2/nbg1000000/k30/seed1`."""
        parts = [self.method, self.mode, labeled_name(self.n_labeled)]
        if self.unlabeled is not None:
            parts.append(self.unlabeled.name)
        for name in sorted(self.settings, key=list(_SHORT).index):
            parts.append(_SHORT[name] + _as_text(self.settings[name]))
        return "/".join([*parts, f"seed{self.seed}"])


def _as_text(value: Any) -> str:
    """1.0 is the same setting as 1."""
    is_whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if is_whole else value)
