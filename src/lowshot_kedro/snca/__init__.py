"""SNCA: embeddings learnt for nearest neighbours, with a bank of every image.

Z. Wu, A. Efros and S. Yu, "Improving Generalization via Scalable Neighborhood Component Analysis",
ECCV 2018.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowshot_kedro.extras import lazy_names

if TYPE_CHECKING:
    from lowshot_kedro.snca.loss import SNCALoss


# Parameters can be checked without PyTorch.
__getattr__, __dir__ = lazy_names(__name__, {"SNCALoss": "loss"})


__all__ = ["SNCALoss"]
