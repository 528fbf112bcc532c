"""What a sweep consists of: single runs, each with a name that people can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lowshot_kedro.methods import METHODS


def labeled_name(n_labeled: int | None) -> str:
    """`nl2`, `nlall`: labelled images of every novel class as names of runs have them."""
    return f"nl{'all' if n_labeled is None else n_labeled}"


@dataclass(frozen=True, order=True)
class UnlabeledImages:
    """Which unlabelled images a run uses.

    Attributes:
        kind: A value of `experiment.unlabeled`: background, train or both.
        n_background: How many images of the background; None: all.
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
        method: A name in :data:`~lowshot_kedro.methods.METHODS`.
        mode: `val` or `test`.
        n_labeled: Labelled images of every novel class; None: all that are given.
        seed: Seed of their choice.
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
    def key(self) -> str:
        """`diffusion/test/nl2/nbg1000000/k30/seed1`."""
        parts = [self.method, self.mode, labeled_name(self.n_labeled)]
        if self.unlabeled is not None:
            parts.append(self.unlabeled.name)
        # A combination has the settings of its first part.
        method = METHODS[(METHODS[self.method].parts or (self.method,))[0]]
        for name, setting in method.settings.items():
            if name in self.settings:
                parts.append(setting.short + _as_text(self.settings[name]))
        return "/".join([*parts, f"seed{self.seed}"])


def _as_text(value: Any) -> str:
    """A setting as names of runs have it: 1.0 is the same setting as 1."""
    is_whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if is_whole else value)
