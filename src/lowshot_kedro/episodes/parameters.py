"""The parameters of few-shot episodes: section `episodes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from lowshot_kedro.devices import DEVICES
from lowshot_kedro.episodes.image_sets import CLASS_ORDERS, ClassOrder
from lowshot_kedro.episodes.sampler import ORDERS, EpisodeSampler, Order
from lowshot_kedro.errors import InputError
from lowshot_kedro.networks import PRECISIONS, require_extractor
from lowshot_kedro.networks.parameters import require_weights
from lowshot_kedro.parameters import (
    AUTO,
    distinct_values,
    refuse,
    require_integer,
    require_num_workers,
    require_one_of,
)

# Where images come from: the test images of the environment, the data sets of the field, a folder
# with a folder for every class, or features that are there already.
DATASETS = (
    "environment",
    "miniimagenet",
    "tieredimagenet",
    "cub",
    "fc100",
    "cifar_fs",
    "folder",
    "features",
)
SPLITS = ("train", "val", "test")
CLASSES = ("all", "base", "novel")


@dataclass(frozen=True, kw_only=True)
class EpisodesParameters:
    """Few-shot episodes, and the methods that are compared over them.

    Attributes:
        dataset: Where the images come from, one of `DATASETS`.
        data_path: The folder of that data set, or the file of features; None for `environment`.
        class_order: How the classes of a data set are numbered, see
            :func:`~lowshot_kedro.episodes.image_sets.few_shot_images`.
        split: Which of a data set's classes, one of `SPLITS`.
        classes: Which classes of the environment: all, or base or novel ones of experiment.mode.
        n_way: Classes of an episode.
        n_shot: Support images of a class.
        n_query: Query images of a class.
        n_episodes: Episodes.
        seed: Draws the episodes, and whatever is random in a method.
        order: What drew from the generator before, as :class:`EpisodeSampler` says.
        methods: Names of methods; `all`: every one that is installed.
        backbone: The network, as for :func:`~lowshot_kedro.networks.create_dense_network`.
        weights: Its weights.
        image_size: Width and height of its input in pixels; None: its own.
        batch_size: Images, or patches, of a pass through the network.
        num_workers: Processes that decode images; auto: one for every core.
        device: auto, cpu or cuda.
        precision: auto, float32 or bfloat16.
        n_images: Query images in the plot of the matching.
    """

    dataset: str = "environment"
    data_path: str | None = None
    class_order: ClassOrder = "sorted"
    split: str = "test"
    classes: str = "all"
    n_way: int = 5
    n_shot: int = 1
    n_query: int = 15
    n_episodes: int = 600
    seed: int = 1
    order: Order = "direct"
    methods: tuple[str, ...] | str = "all"
    backbone: str = "efficientnet_lite0"
    weights: str = "package"
    image_size: int | None = None
    batch_size: int = 64
    num_workers: int | str = AUTO
    device: str = AUTO
    precision: str = AUTO
    n_images: int = 4

    def __post_init__(self) -> None:
        require_one_of("dataset", self.dataset, DATASETS)
        is_path = isinstance(self.data_path, str) and self.data_path != ""
        if not is_path and (self.dataset != "environment" or self.data_path is not None):
            expected = "the path of the data set, or null with the dataset environment"
            raise refuse("data_path", self.data_path, expected)
        require_one_of("class_order", self.class_order, CLASS_ORDERS)
        require_one_of("split", self.split, SPLITS)
        require_one_of("classes", self.classes, CLASSES)
        require_integer("n_way", self.n_way, 2, 10_000)
        for name in ("n_shot", "n_query", "n_episodes", "batch_size"):
            require_integer(name, getattr(self, name), 1)
        require_integer("seed", self.seed, 0)
        require_one_of("order", self.order, ORDERS)
        if self.methods != "all":
            # One name can be given on Kedro's command line, a list of them cannot.
            names = [self.methods] if isinstance(self.methods, str) else self.methods
            methods = distinct_values("methods", names, _require_name)
            object.__setattr__(self, "methods", methods)
        try:
            require_extractor(self.backbone)
        except InputError as error:
            raise error.renamed("backbone") from error
        require_weights(self.weights)
        require_integer("image_size", self.image_size, 16, 4096, null="the network's own")
        require_num_workers("num_workers", self.num_workers)
        require_one_of("device", self.device, DEVICES)
        require_one_of("precision", self.precision, PRECISIONS)
        require_integer("n_images", self.n_images, 1, 50)

    def sampler(
        self, labels: ArrayLike, class_names: Sequence[str] | None = None
    ) -> EpisodeSampler:
        """The episodes.

        Args:
            labels: (N,), the class of every image.
            class_names: Names of the classes by label, for messages.

        Raises:
            InputError: If they have no such episodes.
        """
        return EpisodeSampler(
            labels,
            self.n_way,
            self.n_shot,
            self.n_query,
            self.n_episodes,
            self.seed,
            self.order,
            class_names,
        )


def _require_name(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise refuse(name, value, "names of methods, or all")
