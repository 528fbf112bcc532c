"""Power transform and optimal transport to prototypes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lowshot_kedro.episodes.methods.easyfsl_method import EasyFSLMethod

if TYPE_CHECKING:
    import torch

_POWER = 0.5
_OFFSET = 1e-6


class PTMAPMethod(EasyFSLMethod):
    """Prototypes that are moved by the optimal transport plan of the query images.

    As in the paper, vectors have length 1 after the power transform. easyfsl scales them before it
    alone; in single precision exp(-λ d²) is then 0 for whole rows of long vectors, and these query
    images get no class. So the transform is done here, and easyfsl's has the power 1.
    """

    name = "pt_map"
    title = "PT-MAP"
    is_transductive = True
    source = (
        "Y. Hu, V. Gripon and S. Pateux, Leveraging the Feature Distribution in Transfer-Based "
        "Few-Shot Learning, ICANN 2021; easyfsl"
    )
    notes = "Takes every class to have as many query images as another."
    classifier = "PTMAP"
    settings = MappingProxyType(
        {
            "fine_tuning_steps": 30,
            "fine_tuning_lr": 0.3,
            "lambda_regularization": 10,
            "power_factor": 1.0,
        }
    )

    def prepared(self, vectors: torch.Tensor) -> torch.Tensor:
        """The power transform of vectors without their negative entries, scaled to length 1."""
        transformed = (vectors.relu() + _OFFSET).pow(_POWER)
        unit: torch.Tensor = transformed / transformed.norm(dim=1, keepdim=True)
        return unit

    def parameters(self) -> Mapping[str, Any]:
        """The keyword arguments, and the transform that comes before."""
        return {**self.settings, "transform": f"power {_POWER:g}, then length 1"}
