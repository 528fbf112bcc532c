"""The classes of a torchvision data set, as the content of a class split file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview

from lowshot_kedro.datasets.class_list import split_table
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import TorchvisionImages, torchvision_class_names

# In the order in which classes are dealt.
_LISTS = ("base_classes_2", "base_classes_1", "novel_classes_2", "novel_classes_1")


class TorchvisionClassSplitDataset(AbstractDataset[Any, dict[str, Any]]):
    """The class split of a torchvision data set: stated, or its classes dealt in turn. Read only.

    Where no split is stated, the first class goes to the base classes of mode test, the second to
    the base classes of mode val, the third to the novel classes of mode test, the fourth to the
    novel classes of mode val, the fifth to the base classes of mode test again, and so on. The
    names of the classes are those of torchvision.

    Args:
        name: A class of torchvision.datasets.
        filepath: The folder that torchvision calls root.
        download: Whether files that are not there are fetched, where classes have to be counted.
        arguments: For the class, as for the training images.
        n_classes: How many classes there are; None: those of the training images are counted.
        class_split: The 1-based lists base_classes_1, novel_classes_1 (mode val),
            base_classes_2, novel_classes_2 (mode test), and label_names where torchvision has
            none. None: the classes are dealt.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            class_split:
              type: lowshot_kedro.datasets.TorchvisionClassSplitDataset
              name: CIFAR100
              filepath: data/01_raw
              n_classes: 100
    """

    def __init__(
        self,
        *,
        name: str,
        filepath: str,
        download: bool = False,
        arguments: dict[str, Any] | None = None,
        n_classes: int | None = None,
        class_split: Mapping[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._name = name
        self._filepath = Path(filepath)
        self._download = download
        self._arguments = arguments or {}
        self._n_classes = n_classes
        self._class_split = class_split
        self.metadata = metadata

    def check(self) -> None:
        """Find the classes, downloading the files if that is allowed and needed.

        Raises:
            FileNotFoundError: If files are needed, are not there and may not be downloaded.
            ValueError: If they cannot be read, or there are too few classes.
        """
        self._find(self._download)

    def files_in_use(self) -> list[Path]:
        """No files, since no run writes them."""
        return []

    def load(self) -> dict[str, Any]:
        """Lists of 1-based labels for each mode and role, and label_names; raises as `check`."""
        return self._find(self._download)

    def save(self, data: Any) -> None:
        """Refuse to write the class split.

        Raises:
            ValueError: Always.
        """
        raise InputError(f"{self._filepath}: a {type(self).__name__} is read, never written")

    def preview(self) -> TablePreview:
        """The role of every class in both modes, for kedro-viz, which never downloads."""
        return split_table(self._find(download=False))

    def _find(self, download: bool) -> dict[str, Any]:
        if self._class_split is not None:
            return {"label_names": self._names(), **self._class_split}
        if self._n_classes is not None:
            return self._deal(range(1, self._n_classes + 1), self._names())
        # One image of every class says which classes there are.
        images = TorchvisionImages(
            self._name,
            self._filepath,
            download=download,
            arguments=self._arguments,
            rows_per_class=(0, 1),
            part="train",
        )
        labels = np.unique(images.labels) + 1
        return self._deal(labels.tolist(), images.class_names)

    def _names(self) -> list[str]:
        """What torchvision calls the classes; nothing where its files are needed and not there."""
        try:
            names = torchvision_class_names(self._name, self._filepath, arguments=self._arguments)
        except (OSError, InputError):
            return []
        return list(names)

    def _deal(self, classes: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
        if len(classes) < len(_LISTS):
            raise InputError(
                f"torchvision's {self._name}: got {len(classes)} classes to divide, expected at "
                f"least {len(_LISTS)}, or a class_split that states the classes of both modes"
            )
        dealt = {key: list(classes[start :: len(_LISTS)]) for start, key in enumerate(_LISTS)}
        return {**dealt, "label_names": list(names)}

    def _exists(self) -> bool:
        # Only torchvision knows which files it wants: `check` finds out, and says what to do.
        return True

    def _describe(self) -> dict[str, Any]:
        return {
            "filepath": str(self._filepath),
            "name": self._name,
            "download": self._download,
            "arguments": self._arguments,
            "n_classes": self._n_classes,
            "class_split": self._class_split,
        }
