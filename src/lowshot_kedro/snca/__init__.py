"""SNCA: embeddings learnt for nearest neighbours, with a bank of every image.

Z. Wu, A. Efros and S. Yu, "Improving Generalization via Scalable Neighborhood Component Analysis",
ECCV 2018.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowshot_kedro.extras import needed_by

if TYPE_CHECKING:
    from lowshot_kedro.snca.loss import SNCALoss


# PyTorch takes long to import, and not everyone has it: parameters can be checked without it.
def __getattr__(name: str) -> Any:
    if name == "SNCALoss":
        with needed_by(f"{__name__}.{name}"):
            from lowshot_kedro.snca.loss import SNCALoss

        return SNCALoss
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["SNCALoss"]
