"""The parameters of DeeperCluster: section `deepercluster`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks.parameters import require_weights
from lowshot_kedro.networks.unsupervised import require_unsupervised_network
from lowshot_kedro.parameters import (
    refuse,
    require_boolean,
    require_integer,
    require_number,
    require_one_of,
)
from lowshot_kedro.training.parameters import TrainingParameters

N_ROTATIONS = 4
SHARES = ("fixed", "proportional")


@dataclass(frozen=True, kw_only=True)
class DeeperClusterParameters(TrainingParameters):
    """A network that learns from images without labels, and how these are clustered.

    What is not said is as in the published training on 96 million images. DeepCluster has
    n_super_classes 1 and no rotation; RotNet has 4 and n_clusters 1.

    Attributes:
        images_path: A folder of images, which is searched with its folders; None: the background
            images.
        network: A name for :func:`~lowshot_kedro.networks.unsupervised.unsupervised_network`.
        sobel: Whether the network sees the edges of a grey image in place of colours.
        weights: What it starts from.
        dimension: Numbers in a feature.
        n_super_classes: Classes that one head predicts: super-clusters, times 4 with rotation.
        rotation: Whether images are turned by 0, 90, 180 and 270 degrees, which is predicted too.
        n_clusters: Clusters of all super-clusters together.
        clusters_per_super: `fixed`: each super-cluster has as many; `proportional`: as its share of
            the images is.
        cluster_every: Epochs from one clustering to the next.
        n_components: Dimensions of the whitened features that are clustered.
        n_whitening_images: Images that the whitening follows from; None: F·(F - 1) / 2 of them for
            features of F numbers, 100 000 at least.
        n_iterations: Updates of the centroids in each k-means.
        images_per_epoch: Images of an epoch, those that are turned counted each time; None: as
            published, as many as there are with rotation, and a quarter without.
        memory_budget_gb: Memory for clustering in each process, beside network and labels; in GB.
        n_clusters_shown: Clusters in the panel, once the largest and once the tightest.
        n_images: Images of each of them.
    """

    without: ClassVar[tuple[str, ...]] = (
        *TrainingParameters.without,
        "memory_budget_gb",
        "n_clusters_shown",
        "n_images",
        "images_path",
    )

    epochs: int = 100
    batch_size: int = 3072
    lr: float = 0.1
    lr_schedule: str = "constant"
    lr_step_epochs: int = 40
    nesterov: bool = False
    weight_decay: float = 1e-5
    augmentation: str = "imagenet"
    image_size: int = 224
    images_path: str | None = None
    network: str = "vgg16"
    sobel: bool = True
    weights: str = "none"
    dimension: int = 4096
    n_super_classes: int = 16
    rotation: bool = True
    n_clusters: int = 320_000
    clusters_per_super: str = "fixed"
    cluster_every: int = 3
    n_components: int = 4096
    n_whitening_images: int | None = None
    n_iterations: int = 10
    images_per_epoch: int | None = None
    memory_budget_gb: float = 4.0
    n_clusters_shown: int = 8
    n_images: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        # Of an empty text the catalog would make the folder of the project.
        is_folder = isinstance(self.images_path, str) and self.images_path
        if self.images_path is not None and not is_folder:
            raise refuse("images_path", self.images_path, "a folder, or null: background_images")
        require_boolean("sobel", self.sobel)
        try:
            require_unsupervised_network(self.network, self.sobel)
        except InputError as error:
            raise (error.renamed("network") if error.parameter == "name" else error) from error
        require_weights(self.weights, has_package=False)
        require_integer("dimension", self.dimension, 2, 65536)
        require_boolean("rotation", self.rotation)
        require_integer("n_super_classes", self.n_super_classes, 1, 65536)
        if self.rotation and self.n_super_classes % N_ROTATIONS:
            expected = "a multiple of 4, the rotations, or rotation = false"
            raise refuse("n_super_classes", self.n_super_classes, expected)
        if self.batch_size % self.n_super_classes:
            expected = f"a multiple of n_super_classes, {self.n_super_classes}"
            raise refuse("batch_size", self.batch_size, expected)
        require_integer("n_clusters", self.n_clusters, self.n_super_clusters)
        require_one_of("clusters_per_super", self.clusters_per_super, SHARES)
        if self.clusters_per_super == "fixed" and self.n_clusters % self.n_super_clusters:
            expected = (
                f"a multiple of {self.n_super_clusters}, the super-clusters, or "
                "clusters_per_super = proportional"
            )
            raise refuse("n_clusters", self.n_clusters, expected)
        require_integer("cluster_every", self.cluster_every, 1)
        require_integer("n_components", self.n_components, 1, self.dimension)
        everything = "F · (F - 1) / 2 for features of F numbers"
        require_integer("n_whitening_images", self.n_whitening_images, 2, null=everything)
        require_integer("n_iterations", self.n_iterations, 1)
        published = "as many as there are with rotation, a quarter without"
        require_integer("images_per_epoch", self.images_per_epoch, 1, null=published)
        require_number("memory_budget_gb", self.memory_budget_gb, 0.01)
        require_integer("n_clusters_shown", self.n_clusters_shown, 1, 100)
        require_integer("n_images", self.n_images, 1, 100)

    @property
    def n_rotations(self) -> int:
        """How many ways images are turned: 4 or 1."""
        return N_ROTATIONS if self.rotation else 1

    @property
    def n_super_clusters(self) -> int:
        """Clusters of the first level."""
        return self.n_super_classes // self.n_rotations

    @property
    def needs_clustering(self) -> bool:
        """Whether there is anything to be clustered: RotNet alone learns without."""
        return self.n_clusters > 1
