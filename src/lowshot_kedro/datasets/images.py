"""Collections of images as Kedro datasets."""

from __future__ import annotations

import abc
import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from kedro.io import AbstractDataset
from kedro_datasets._typing import ImagePreview
from PIL import Image

from lowshot_kedro.datasets.class_list import class_namer, in_project, namer, read_class_names
from lowshot_kedro.datasets.previews import contact_sheet, shown_path
from lowshot_kedro.disk import full_disk_named
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import (
    AbsentImages,
    ClassFolders,
    ImageFolder,
    ImageSource,
    LabeledList,
    NumberedZipShards,
    TorchvisionImages,
    write_labeled_list,
    write_zip_shards,
)
from lowshot_kedro.locks import written_by_one

Saved = TypeVar("Saved")


def _png(image: Image.Image) -> str:
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return base64.b64encode(encoded.getvalue()).decode()


class ImagesDataset(AbstractDataset[Saved, ImageSource], Generic[Saved]):
    """A collection of images, shown as a contact sheet of some of them."""

    def __init__(
        self,
        filepath: str,
        optional: bool,
        metadata: dict[str, Any] | None,
        class_list: str | Mapping[str, Any] | None = None,
    ) -> None:
        self._filepath = Path(filepath)
        self._optional = optional
        self._class_list = in_project(class_list)
        self.metadata = metadata

    @abc.abstractmethod
    def _open(self) -> ImageSource:
        """Open the collection, which is there."""

    def _source(self) -> ImageSource:
        if self._optional and not self._filepath.exists():
            return AbsentImages(self._filepath)
        return self._open()

    def check(self) -> None:
        """Open the collection without decoding an image.

        Raises:
            FileNotFoundError: If it is not there.
            ValueError: If it is not in the format expected.
        """
        self._source()

    def files_in_use(self) -> list[Path]:
        """The files that nobody else may write while a run uses this dataset."""
        return [self._filepath]

    def load(self) -> ImageSource:
        """The collection; images are decoded when asked for."""
        return self._source()

    def count_images(self) -> int:
        """How many there are; this reads a list, or looks through folders."""
        source = self._shown()
        return 0 if source is None else len(source)

    def preview(self) -> ImagePreview:
        """Some images, for kedro-viz."""
        return ImagePreview(self._sheet(self._source()))

    def _class_namer(self, source: ImageSource) -> Callable[[int], str] | None:
        """How captions call the class of a label; None where labels say nothing."""
        return class_namer(self._class_list)

    def _sheet(self, source: ImageSource) -> str:
        """Some images as a PNG file in text."""
        return _png(contact_sheet(source, self._class_namer(source), self._amount(source)))

    def _amount(self, source: ImageSource) -> str:
        """How much there is, in words."""
        return f"{len(source)} images"

    def _title(self) -> str:
        """What this is and where."""
        return f"{type(self).__name__} {shown_path(self._filepath)}"

    def _shown(self) -> ImageSource | None:
        """The collection if it is there."""
        return self._source() if self.exists() else None

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        title, source = self._title(), self._shown()
        if source is None:
            return f"<p>{title} is not there yet</p>"
        png, amount = self._sheet(source), self._amount(source)
        return f"<p>{title}: {amount}</p><img src='data:image/png;base64,{png}'>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What IPython prints in a terminal."""
        source = None if cycle else self._shown()
        state = "not there yet" if source is None else self._amount(source)
        printer.text(f"{self._title()}: {state}")

    def _exists(self) -> bool:
        return self._optional or self._filepath.exists()


class ReadOnlyImagesDataset(ImagesDataset[Any]):
    """A collection that other programs have put there."""

    def files_in_use(self) -> list[Path]:
        """No files, since no run writes them."""
        return []

    def save(self, data: Any) -> None:
        """Refuse to write the collection.

        Raises:
            ValueError: Always.
        """
        raise InputError(f"{self._filepath}: a {type(self).__name__} is read, never written")


class ZipShardImagesDataset(ImagesDataset[Iterable[Image.Image]]):
    """Numbered images in numbered zip files: image 12345678 is 678.jpg in 12/345.zip.

    Args:
        filepath: The folder of the shards.
        i0: Number of the first image.
        i1: Number after the last image; None: as many as there are.
        optional: Whether the collection may be absent: every image is then a blank one.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            background_images:
              type: lowshot_kedro.datasets.ZipShardImagesDataset
              filepath: data/01_raw/yfcc100m
    """

    def __init__(
        self,
        *,
        filepath: str,
        i0: int = 0,
        i1: int | None = None,
        optional: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath, optional, metadata)
        self._i0 = i0
        self._i1 = i1

    def _class_namer(self, source: ImageSource) -> None:
        return None

    def _open(self) -> NumberedZipShards:
        try:
            return NumberedZipShards(self._filepath, self._i0, self._i1)
        except InputError as error:
            own_names = {"first": "i0", "last": "i1"}
            if error.parameter not in own_names:
                raise
            raise error.renamed(own_names[error.parameter]) from error

    def save(self, data: Iterable[Image.Image]) -> None:
        """Write images 0, 1, … as JPEG files; the folder appears when it is complete."""
        with full_disk_named(self._filepath), written_by_one(self._filepath):
            write_zip_shards(self._filepath, data)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "i0": self._i0, "i1": self._i1}


class LabeledImagesDataset(ImagesDataset[Iterable[tuple[Image.Image, int]]]):
    """Images named in a JSON list with image_names and image_labels.

    Args:
        filepath: The JSON file.
        root: The folder that image_names are relative to, itself relative to the list's folder.
        class_list: What names the classes, for captions: as for
            :class:`ClassFolderImagesDataset`. None: captions have numbers.
        optional: Whether the collection may be absent: every image is then a blank one.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            train_images:
              type: lowshot_kedro.datasets.LabeledImagesDataset
              filepath: data/01_raw/train.json
              root: train
    """

    def __init__(
        self,
        *,
        filepath: str,
        root: str = ".",
        class_list: str | Mapping[str, Any] | None = None,
        optional: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath, optional, metadata, class_list)
        self._root = root

    def _open(self) -> LabeledList:
        return LabeledList(self._filepath, self._root)

    def save(self, data: Iterable[tuple[Image.Image, int]]) -> None:
        """Write (image, label) pairs as PNG files and the list last."""
        with full_disk_named(self._filepath), written_by_one(self._filepath):
            write_labeled_list(self._filepath, self._root, data)

    def _exists(self) -> bool:
        return self._optional or self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "root": self._root}


class ClassFolderImagesDataset(ReadOnlyImagesDataset):
    """Images in a folder for every class, at any depth below it. Read only.

    Args:
        filepath: The folder of the class folders.
        class_list: A file that names the classes in the order of their labels, the others being
            left out: a CSV file as :class:`~lowshot_kedro.datasets.ClassListDataset` reads it, or
            a class split file (.json); or name, filepath and arguments as of
            :class:`~lowshot_kedro.datasets.TorchvisionClassSplitDataset`. None: all folders,
            sorted by name.
        every_class: Whether every class of the list needs an image; false for a test set that
            cannot have one of each.
        optional: Whether the collection may be absent: every image is then a blank one.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            train_images:
              type: lowshot_kedro.datasets.ClassFolderImagesDataset
              filepath: data/01_raw/train
              class_list: data/01_raw/classes.csv
    """

    def __init__(
        self,
        *,
        filepath: str,
        class_list: str | Mapping[str, Any] | None = None,
        every_class: bool = True,
        optional: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath, optional, metadata, class_list)
        self._every_class = every_class

    def _class_namer(self, source: ImageSource) -> Callable[[int], str]:
        # Without a list the folders name the classes.
        return namer(source.classes if isinstance(source, ClassFolders) else ())

    def _open(self) -> ClassFolders:
        names = None if self._class_list is None else read_class_names(self._class_list)
        return ClassFolders(self._filepath, names, self._every_class)

    def _describe(self) -> dict[str, Any]:
        class_list = None if self._class_list is None else str(self._class_list)
        return {
            "filepath": str(self._filepath),
            "class_list": class_list,
            "every_class": self._every_class,
        }


class FolderImagesDataset(ReadOnlyImagesDataset):
    """All images anywhere below a folder, without labels. Read only.

    Args:
        filepath: The folder.
        optional: Whether the collection may be absent: every image is then a blank one.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            background_images:
              type: lowshot_kedro.datasets.FolderImagesDataset
              filepath: data/01_raw/background
    """

    def __init__(
        self,
        *,
        filepath: str,
        optional: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath, optional, metadata)

    def _class_namer(self, source: ImageSource) -> None:
        return None

    def _open(self) -> ImageFolder:
        return ImageFolder(self._filepath)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


class TorchvisionImagesDataset(ReadOnlyImagesDataset):
    """Images of a torchvision dataset. Read only; files that are there are used as they are.

    Args:
        name: A class of torchvision.datasets.
        filepath: The folder that torchvision calls root.
        download: Whether files that are not there are fetched, at the start of a run.
        arguments: For the class.
        rows_per_class: [first, last]: keep images first..last-1 of every class, in their order;
            last null: to the end. So training and background can share the training images.
        labeled: false hides the labels.
        class_list: What names the classes, for captions: as for
            :class:`ClassFolderImagesDataset`. None: torchvision's own names.
        part: train or test: adds `train` or `split` to the arguments of a class that takes one of
            them, where they do not say it. None adds nothing.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            train_images:
              type: lowshot_kedro.datasets.TorchvisionImagesDataset
              name: FashionMNIST
              filepath: data/01_raw
              download: true
              arguments: {train: true}
              rows_per_class: [0, 500]
    """

    def __init__(
        self,
        *,
        name: str,
        filepath: str,
        download: bool = False,
        arguments: dict[str, Any] | None = None,
        rows_per_class: Sequence[int | None] | None = None,
        labeled: bool = True,
        class_list: str | Mapping[str, Any] | None = None,
        part: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath, False, metadata, class_list)
        self._name = name
        self._download = download
        self._arguments = arguments or {}
        self._rows_per_class = (0, None) if rows_per_class is None else rows_per_class
        self._labeled = labeled
        self._part = part

    def _open(self) -> TorchvisionImages:
        return self._open_files(self._download)

    def _open_files(self, download: bool) -> TorchvisionImages:
        return TorchvisionImages(
            self._name,
            self._filepath,
            download=download,
            arguments=self._arguments,
            rows_per_class=self._rows_per_class,
            labeled=self._labeled,
            part=self._part,
        )

    def preview(self) -> ImagePreview:
        """Some images, for kedro-viz, which never downloads."""
        return ImagePreview(self._sheet(self._open_files(download=False)))

    def _class_namer(self, source: ImageSource) -> Callable[[int], str] | None:
        if not self._labeled:
            return None
        if self._class_list is None and isinstance(source, TorchvisionImages):
            return namer(source.class_names)
        return super()._class_namer(source)

    def _shown(self) -> TorchvisionImages | None:
        try:
            return self._open_files(download=False)
        except (FileNotFoundError, InputError):
            return None

    def _exists(self) -> bool:
        # Only torchvision knows which files it wants: `check` finds out, and says what to do.
        return True

    def _describe(self) -> dict[str, Any]:
        return {
            "filepath": str(self._filepath),
            "name": self._name,
            "download": self._download,
            "arguments": self._arguments,
            "rows_per_class": self._rows_per_class,
            "labeled": self._labeled,
            "part": self._part,
        }
