"""The parameters of DeepEMD: section `deepemd`."""

from __future__ import annotations

from dataclasses import dataclass

from lowshot_kedro.parameters import (
    distinct_values,
    refuse,
    require_integer,
    require_number,
    require_one_of,
)

SOLVERS = ("native", "pot", "opencv", "qpth", "qpth_qp")
# What turns an image into regions: the dense map of a network, the same with a feature pyramid, a
# grid of patches, or patches that are drawn at random.
VARIANTS = ("fcn", "pyramid", "grid", "sampling")
_MAX_SIDE = 16


@dataclass(frozen=True, kw_only=True)
class DeepEMDParameters:
    """How DeepEMD compares images. What is not said is as in the original's eval.py.

    Attributes:
        temperature: By which similarities are multiplied.
        solver: Which solver finds the flows, one of `SOLVERS`.
        feature_pyramid: Sides of the pooled maps that are appended to the dense map.
        patch_list: Sides of the grids of patches.
        patch_ratio: How much larger a patch of a grid is than its cell.
        n_patches: Patches of an image that are drawn at random.
        prototype_lr: Learning rate of the structured fully connected layer.
        prototype_passes: Passes over the support images that it takes.
        prototype_batch_size: Support images of a step.
    """

    temperature: float = 12.5
    solver: str = "native"
    feature_pyramid: tuple[int, ...] = (2, 3)
    patch_list: tuple[int, ...] = (2, 3)
    patch_ratio: float = 2.0
    n_patches: int = 9
    prototype_lr: float = 100.0
    prototype_passes: int = 100
    prototype_batch_size: int = 4

    def __post_init__(self) -> None:
        require_number("temperature", self.temperature, 0, 1e6)
        require_one_of("solver", self.solver, SOLVERS)
        for name in ("feature_pyramid", "patch_list"):
            sides = distinct_values(name, getattr(self, name), _require_side)
            object.__setattr__(self, name, sides)
        require_number("patch_ratio", self.patch_ratio, 0, 100)
        if self.patch_ratio == 0:
            raise refuse("patch_ratio", self.patch_ratio, "a number above 0 and at most 100")
        require_integer("n_patches", self.n_patches, 1, _MAX_SIDE**2)
        require_number("prototype_lr", self.prototype_lr, 0, 1e9)
        require_integer("prototype_passes", self.prototype_passes, 0)
        require_integer("prototype_batch_size", self.prototype_batch_size, 1)


def _require_side(name: str, value: object) -> None:
    require_integer(name, value, 1, _MAX_SIDE)
