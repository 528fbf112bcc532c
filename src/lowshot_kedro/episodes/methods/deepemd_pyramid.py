"""DeepEMD on dense maps with a feature pyramid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lowshot_kedro.episodes.episode import Episode
from lowshot_kedro.episodes.methods.emd_method import JOURNAL, EMDMethod

if TYPE_CHECKING:
    import torch


class DeepEMDPyramid(EMDMethod):
    """The places of a network's last map and of coarser ones, its means, are the regions."""

    name = "deepemd_pyramid"
    title = "DeepEMD-FCN, feature pyramid"
    source = JOURNAL

    @property
    def pyramid(self) -> tuple[int, ...]:
        """Sides of the coarser maps whose places are regions too."""
        return self._settings.feature_pyramid

    def regions(self, episode: Episode) -> tuple[torch.Tensor, torch.Tensor]:
        """Regions of support and query images, float32 (n, C, 1, nodes)."""
        from lowshot_kedro.deepemd.regions import with_pyramid

        support, query = (with_pyramid(maps, self.pyramid) for maps in super().regions(episode))
        return support, query

    def parameters(self) -> Mapping[str, Any]:
        """Those of DeepEMD, and the sides of the coarser maps."""
        return {**super().parameters(), "feature_pyramid": list(self.pyramid)}
