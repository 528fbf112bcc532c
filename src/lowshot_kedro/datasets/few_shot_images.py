"""The images, or the features, that few-shot episodes are drawn from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from lowshot_kedro.datasets.class_list import in_project, namer
from lowshot_kedro.datasets.features_file import open_regions
from lowshot_kedro.datasets.images import ReadOnlyImagesDataset
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import AbsentImages, FewShotImages, ImageSource, few_shot_images
from lowshot_kedro.images.few_shot_sets import FEW_SHOT_SETS, ClassOrder
from lowshot_kedro.parameters import refuse, require_one_of

_ENVIRONMENT, _FEATURES = "environment", "features"


class FewShotImagesDataset(ReadOnlyImagesDataset):
    """What few-shot episodes are drawn from. Read only.

    Loading gives :class:`~lowshot_kedro.images.FewShotImages`; of `features`
    :class:`~lowshot_kedro.blocks.RegionFeatures`; and None of `environment`, whose test images are
    another dataset of the catalog.

    Args:
        dataset: miniimagenet, tieredimagenet, cub, fc100, cifar_fs, folder, features or
            environment.
        data_path: The folder of the data set or the one that it lies in, see
            :func:`~lowshot_kedro.images.few_shot_images`; the file of the features, see
            :func:`~lowshot_kedro.datasets.features_file.open_regions`. Relative to the project.
        split: Which classes of a data set: train, val or test.
        class_order: `sorted`, or `original`: how the original numbers the classes of miniImageNet
            and CUB.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            episode_images:
              type: lowshot_kedro.datasets.FewShotImagesDataset
              dataset: miniimagenet
              data_path: data/01_raw
              split: test
    """

    def __init__(
        self,
        *,
        dataset: str,
        data_path: str | None = None,
        split: str = "test",
        class_order: ClassOrder = "sorted",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        path = cast("Path | None", in_project(data_path))
        super().__init__(str(path or dataset), False, metadata)
        self._dataset = dataset
        self._data_path = path
        self._split = split
        self._class_order = class_order

    def load(self) -> Any:
        """The images, features or None; images are decoded, and features read, when asked for."""
        if self._dataset == _ENVIRONMENT:
            return None
        return open_regions(self._path()) if self._dataset == _FEATURES else self._open()

    def check(self) -> None:
        """Open the images without decoding one, and log what is special about them.

        Raises:
            FileNotFoundError: If they are not there.
            ValueError: If they are not in the format expected.
        """
        if self._dataset == _FEATURES:
            open_regions(self._path())
        elif self._dataset != _ENVIRONMENT:
            self._open(report=True)

    def count_images(self) -> int:
        """How many there are, features of images included; of `environment` none."""
        if self._dataset == _FEATURES:
            return int(open_regions(self._path()).features.n_rows)
        return super().count_images()

    def _open(self, report: bool = False) -> FewShotImages:
        require_one_of("dataset", self._dataset, (_ENVIRONMENT, *FEW_SHOT_SETS, _FEATURES))
        return few_shot_images(
            self._dataset,
            self._path(),
            self._split,
            class_order=self._class_order,
            report=report,
        )

    def _path(self) -> Path:
        if self._data_path is None:
            raise refuse("data_path", None, f"the path of the {self._dataset} images")
        return self._data_path

    def _source(self) -> ImageSource:
        if self._dataset in (_ENVIRONMENT, _FEATURES):
            return AbsentImages(self._filepath)
        return self._open()

    def _shown(self) -> ImageSource | None:
        try:
            return self._source()
        except (FileNotFoundError, InputError):
            return None

    def _amount(self, source: ImageSource) -> str:
        if self._dataset == _ENVIRONMENT:
            return "the test images of the environment"
        if self._dataset == _FEATURES:
            regions = open_regions(self._path())
            return f"features of {regions.features.n_rows} images, {regions.shape}"
        return f"{self._split}: {super()._amount(source)}"

    def _class_namer(self, source: ImageSource) -> Callable[[int], str] | None:
        return namer(source.class_names) if isinstance(source, FewShotImages) else None

    def _exists(self) -> bool:
        # `check` knows what is missing, and says in what layout it is expected.
        return True

    def _describe(self) -> dict[str, Any]:
        return {
            "filepath": None if self._data_path is None else str(self._data_path),
            "dataset": self._dataset,
            "split": self._split,
            "class_order": self._class_order,
        }
