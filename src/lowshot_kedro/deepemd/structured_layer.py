"""The structured fully connected layer of DeepEMD: prototypes of classes with several images."""

from __future__ import annotations

import torch

from lowshot_kedro.deepemd.solvers import Solver


def structured_prototypes(
    support: torch.Tensor,
    n_way: int,
    n_shot: int,
    *,
    lr: float = 100.0,
    n_passes: int = 100,
    batch_size: int = 4,
    generator: torch.Generator | None = None,
    solver: str | Solver = "native",
) -> torch.Tensor:
    """Prototypes (n_way, C, H, W) of support images (n_shot · n_way, C, H, W), classes in turn."""
    raise NotImplementedError
