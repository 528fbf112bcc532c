"""DeepEMD on patches that are drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lowshot_kedro.episodes.methods.emd_method import JOURNAL, EMDMethod


class DeepEMDSampling(EMDMethod):
    """Patches drawn at random, each seen by the network alone, are the regions."""

    name = "deepemd_sampling"
    title = "DeepEMD-Sampling"
    view = "sampling"
    source = JOURNAL

    def parameters(self) -> Mapping[str, Any]:
        """Those of DeepEMD, and how many patches an image has."""
        return {**super().parameters(), "n_patches": self._settings.n_patches}
