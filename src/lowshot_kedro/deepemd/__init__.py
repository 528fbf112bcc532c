"""DeepEMD: few-shot classification by optimal transport between the regions of images.

C. Zhang, Y. Cai, G. Lin and C. Shen, "DeepEMD: Few-Shot Image Classification With Differentiable
Earth Mover's Distance and Structured Classifiers", CVPR 2020.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lowshot_kedro.deepemd.transport import EarthMoversDistance, earth_movers_distance
from lowshot_kedro.extras import needed_by

if TYPE_CHECKING:
    from lowshot_kedro.deepemd.classifier import DeepEMD
    from lowshot_kedro.deepemd.head import emd_logits
    from lowshot_kedro.deepemd.structured_layer import structured_prototypes

# PyTorch takes long to import, and not everyone has it: distances and parameters do without.
_MODULES = {
    "DeepEMD": "classifier",
    "emd_logits": "head",
    "structured_prototypes": "structured_layer",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        with needed_by(f"{__name__}.{name}"):
            module = import_module(f"{__name__}.{_MODULES[name]}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "DeepEMD",
    "EarthMoversDistance",
    "earth_movers_distance",
    "emd_logits",
    "structured_prototypes",
]
