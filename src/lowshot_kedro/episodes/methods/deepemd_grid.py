"""DeepEMD on a grid of patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lowshot_kedro.episodes.methods.emd_method import JOURNAL, EMDMethod


class DeepEMDGrid(EMDMethod):
    """Patches of an image, each seen by the network alone, are the regions."""

    name = "deepemd_grid"
    title = "DeepEMD-Grid"
    view = "grid"
    source = JOURNAL

    def parameters(self) -> Mapping[str, Any]:
        """Those of DeepEMD, and which patches these are."""
        settings = self._settings
        return {
            **super().parameters(),
            "patch_list": list(settings.patch_list),
            "patch_ratio": settings.patch_ratio,
        }
