"""The labelled and the unlabelled images of a folder whose images are to be labelled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lowshot_kedro.datasets.class_list import in_project, namer, read_class_names
from lowshot_kedro.datasets.images import ReadOnlyImagesDataset
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import ClassFolders, ImageFolder, ImageSource
from lowshot_kedro.images.label_files import read_label_file
from lowshot_kedro.images.labeling_folder import (
    LABELS_FILE,
    Layout,
    find_layout,
    labeled_images,
    unlabeled_images,
)

logger = logging.getLogger(__name__)


class _LabelingImagesDataset(ReadOnlyImagesDataset):
    """Some of the images of a folder whose images are to be labelled."""

    def __init__(
        self,
        filepath: str,
        labels: str | None,
        class_list: str | None,
        metadata: dict[str, Any] | None,
    ) -> None:
        super().__init__(filepath, False, metadata, class_list)
        named = in_project(labels)
        self._labels = named if isinstance(named, Path) else self._filepath / LABELS_FILE

    def _layout(self) -> Layout:
        return find_layout(self._filepath, self._labels.exists(), self._labeled_files)

    def _labeled_files(self) -> tuple[str, ...]:
        try:
            return read_label_file(self._labels).files
        except (OSError, InputError):
            # What is wrong with the file, whoever reads its labels says.
            return ()


class LabeledFolderImagesDataset(_LabelingImagesDataset):
    """The images of a folder that have a label by the folder that they lie in; maybe none.

    :func:`~lowshot_kedro.images.labeling_folder.find_layout` says which. Read only.

    Args:
        filepath: The folder.
        labels: A file that gives labels too, whether it is there or not: with it, folders need not
            be classes. None: `labels.csv` in the folder.
        class_list: A file that names the classes in the order of their labels, the others being
            left out, as for :class:`~lowshot_kedro.datasets.ClassFolderImagesDataset`; each needs
            an image, if no file gives labels too. None, or a file that is not there: all, sorted by
            name.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            train_images:
              type: lowshot_kedro.datasets.LabeledFolderImagesDataset
              filepath: data/01_raw
              class_list: data/01_raw/classes.csv
    """

    def __init__(
        self,
        *,
        filepath: str,
        labels: str | None = None,
        class_list: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath, labels, class_list, metadata)

    def check(self) -> None:
        """Open the collection without decoding an image, and log where labels come from.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If there are no labels, or no images without.
        """
        logger.info("%s", self._layout().sentence)
        self._open()

    def _class_namer(self, source: ImageSource) -> Callable[[int], str]:
        return namer(source.classes if isinstance(source, ClassFolders) else ())

    def _open(self) -> ClassFolders:
        class_list = self._class_list
        is_there = isinstance(class_list, Path) and class_list.exists()
        names = read_class_names(class_list) if class_list is not None and is_there else None
        return labeled_images(self._layout(), names)

    def _describe(self) -> dict[str, Any]:
        class_list = None if self._class_list is None else str(self._class_list)
        return {
            "filepath": str(self._filepath),
            "labels": str(self._labels),
            "class_list": class_list,
        }


class UnlabeledFolderImagesDataset(_LabelingImagesDataset):
    """The images of a folder that have no label by the folder that they lie in.

    :func:`~lowshot_kedro.images.labeling_folder.find_layout` says which. Read only.

    Args:
        filepath: The folder.
        labels: As for :class:`LabeledFolderImagesDataset`.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            background_images:
              type: lowshot_kedro.datasets.UnlabeledFolderImagesDataset
              filepath: data/01_raw
    """

    def __init__(
        self,
        *,
        filepath: str,
        labels: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath, labels, None, metadata)

    def _class_namer(self, source: ImageSource) -> None:
        return None

    def _open(self) -> ImageFolder:
        return unlabeled_images(self._layout())

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "labels": str(self._labels)}
