"""DeeperCluster: features learnt from images without labels, by clustering them and by rotation.

M. Caron, P. Bojanowski, J. Mairal and A. Joulin, "Unsupervised Pre-Training of Image Features on
Non-Curated Data", ICCV 2019. DeepCluster (M. Caron, P. Bojanowski, A. Joulin and M. Douze, ECCV
2018) and RotNet (S. Gidaris, P. Singh and N. Komodakis, ICLR 2018) are special cases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowshot_kedro.extras import lazy_names

if TYPE_CHECKING:
    from lowshot_kedro.deepercluster.assigning import assign_clusters
    from lowshot_kedro.deepercluster.final_clustering import cluster_trained
    from lowshot_kedro.deepercluster.groups import process_groups
    from lowshot_kedro.deepercluster.lloyd import kmeans
    from lowshot_kedro.deepercluster.parameters import DeeperClusterParameters
    from lowshot_kedro.deepercluster.sampling import uniform_label_sample
    from lowshot_kedro.deepercluster.training import DeeperClusterJob, train_deepercluster
    from lowshot_kedro.deepercluster.two_level import hierarchical_kmeans
    from lowshot_kedro.deepercluster.whitening import fit_whitening


# Parameters can be checked without PyTorch.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DeeperClusterJob": "training",
        "DeeperClusterParameters": "parameters",
        "assign_clusters": "assigning",
        "cluster_trained": "final_clustering",
        "fit_whitening": "whitening",
        "hierarchical_kmeans": "two_level",
        "kmeans": "lloyd",
        "process_groups": "groups",
        "train_deepercluster": "training",
        "uniform_label_sample": "sampling",
    },
)


__all__ = [
    "DeeperClusterJob",
    "DeeperClusterParameters",
    "assign_clusters",
    "cluster_trained",
    "fit_whitening",
    "hierarchical_kmeans",
    "kmeans",
    "process_groups",
    "train_deepercluster",
    "uniform_label_sample",
]
