"""DeepEMD: few-shot classification by optimal transport between the regions of images.

C. Zhang, Y. Cai, G. Lin and C. Shen, "DeepEMD: Few-Shot Image Classification With Differentiable
Earth Mover's Distance and Structured Classifiers", CVPR 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowshot_kedro.deepemd.transport import EarthMoversDistance, earth_movers_distance
from lowshot_kedro.extras import lazy_names

if TYPE_CHECKING:
    from lowshot_kedro.deepemd.classifier import DeepEMD
    from lowshot_kedro.deepemd.head import emd_logits
    from lowshot_kedro.deepemd.structured_layer import structured_prototypes

# Distances and parameters do without PyTorch.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DeepEMD": "classifier",
        "emd_logits": "head",
        "structured_prototypes": "structured_layer",
    },
)

__all__ = [
    "DeepEMD",
    "EarthMoversDistance",
    "earth_movers_distance",
    "emd_logits",
    "structured_prototypes",
]
