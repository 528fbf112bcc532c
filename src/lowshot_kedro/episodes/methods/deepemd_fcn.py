"""DeepEMD on dense maps."""

from __future__ import annotations

from lowshot_kedro.episodes.methods.emd_method import EMDMethod


class DeepEMDFCN(EMDMethod):
    """The places of a network's last map are the regions."""

    name = "deepemd_fcn"
    title = "DeepEMD-FCN"
