"""The methods that are compared over episodes.

Each has a file, with a class that follows
:class:`~lowshot_kedro.episodes.methods.method.EpisodeMethod`. A new one is such a file and a line
in :data:`METHODS`.

FEAT and relation networks, which easyfsl has too, are not among them: their modules have to be
trained in episodes together with the network.
"""

from __future__ import annotations

from lowshot_kedro.episodes.methods.bd_cspn import BDCSPNMethod
from lowshot_kedro.episodes.methods.deepemd_fcn import DeepEMDFCN
from lowshot_kedro.episodes.methods.deepemd_grid import DeepEMDGrid
from lowshot_kedro.episodes.methods.deepemd_pyramid import DeepEMDPyramid
from lowshot_kedro.episodes.methods.deepemd_sampling import DeepEMDSampling
from lowshot_kedro.episodes.methods.finetune import FinetuneMethod
from lowshot_kedro.episodes.methods.label_diffusion import LabelDiffusionMethod
from lowshot_kedro.episodes.methods.laplacian_shot import LaplacianShotMethod
from lowshot_kedro.episodes.methods.logistic_regression import LogisticRegressionMethod
from lowshot_kedro.episodes.methods.matching_networks import MatchingNetworksMethod
from lowshot_kedro.episodes.methods.method import EpisodeMethod, MethodOptions
from lowshot_kedro.episodes.methods.nearest_class_mean import NearestClassMeanMethod
from lowshot_kedro.episodes.methods.nearest_neighbors import NearestNeighborsMethod
from lowshot_kedro.episodes.methods.prototypical_networks import PrototypicalNetworksMethod
from lowshot_kedro.episodes.methods.pt_map import PTMAPMethod
from lowshot_kedro.episodes.methods.simple_shot import SimpleShotMethod
from lowshot_kedro.episodes.methods.tim import TIMMethod
from lowshot_kedro.episodes.methods.transductive_finetuning import TransductiveFinetuningMethod

# By name, in the order of tables: inductive ones, then transductive ones.
METHODS: dict[str, type[EpisodeMethod]] = {
    method.name: method
    for method in (
        NearestClassMeanMethod,
        NearestNeighborsMethod,
        LogisticRegressionMethod,
        PrototypicalNetworksMethod,
        MatchingNetworksMethod,
        SimpleShotMethod,
        FinetuneMethod,
        DeepEMDFCN,
        DeepEMDPyramid,
        DeepEMDGrid,
        DeepEMDSampling,
        TransductiveFinetuningMethod,
        BDCSPNMethod,
        LaplacianShotMethod,
        TIMMethod,
        PTMAPMethod,
        LabelDiffusionMethod,
    )
}

__all__ = ["METHODS", "EpisodeMethod", "MethodOptions"]
