"""Collections of pictures as Kedro datasets."""

from __future__ import annotations

import abc
import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

from kedro.io import AbstractDataset
from kedro_datasets._typing import ImagePreview
from PIL import Image, ImageDraw

from lowshot_kedro.datasets.files import full_disk_named
from lowshot_kedro.images import (
    AbsentPictures,
    ImageSource,
    LabeledList,
    NumberedZipShards,
    write_labeled_list,
    write_zip_shards,
)

Saved = TypeVar("Saved")

_COLUMNS, _ROWS, _CELL, _CAPTION = 8, 3, 96, 14


def contact_sheet(source: ImageSource) -> Image.Image:
    """The first pictures of a collection side by side, each with its number and label."""
    n_pictures = min(len(source), _COLUMNS * _ROWS)
    n_rows = max(1, -(-n_pictures // _COLUMNS))
    sheet = Image.new("RGB", (_COLUMNS * _CELL, n_rows * (_CELL + _CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for number in range(n_pictures):
        picture = source[number]
        row, column = divmod(number, _COLUMNS)
        corner = (column * _CELL, row * (_CELL + _CAPTION))
        sheet.paste(picture.image.resize((_CELL - 4, _CELL - 4)), (corner[0] + 2, corner[1] + 2))
        caption = f"{number}: {picture.problem[:12] if picture.problem else picture.label}"
        draw.text((corner[0] + 2, corner[1] + _CELL), caption, fill="black")
    return sheet


def _png(image: Image.Image) -> str:
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return base64.b64encode(encoded.getvalue()).decode()


class ImagesDataset(AbstractDataset[Saved, ImageSource], Generic[Saved]):
    """A collection of pictures, shown as a contact sheet of the first ones."""

    def __init__(self, filepath: str, optional: bool, metadata: dict[str, Any] | None) -> None:
        self._filepath = Path(filepath)
        self._optional = optional
        self.metadata = metadata

    @abc.abstractmethod
    def _open(self) -> ImageSource:
        """Open the collection, which is there."""

    def _source(self) -> ImageSource:
        if self._optional and not self._filepath.exists():
            return AbsentPictures(self._filepath)
        return self._open()

    def check(self) -> None:
        """Open the collection without decoding a picture.

        Raises:
            FileNotFoundError: If it is not there.
            ValueError: If it is not in the format expected.
        """
        self._source()

    def load(self) -> ImageSource:
        """The collection; pictures are decoded when asked for."""
        return self._source()

    def preview(self) -> ImagePreview:
        """The first pictures, for kedro-viz."""
        return ImagePreview(_png(contact_sheet(self._source())))

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        title = f"{type(self).__name__} {self._filepath}"
        if not self.exists():
            return f"<p>{title} is not there yet</p>"
        source = self._source()
        png = _png(contact_sheet(source))
        return f"<p>{title}: {len(source)} pictures</p><img src='data:image/png;base64,{png}'>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What IPython prints in a terminal."""
        there = not cycle and self.exists()
        state = f"{len(self._source())} pictures" if there else "not there yet"
        printer.text(f"{type(self).__name__} {self._filepath}: {state}")


class ZipShardImagesDataset(ImagesDataset[Iterable[Image.Image]]):
    """Numbered pictures in numbered zip files: picture 12345678 is 678.jpg in 12/345.zip.

    Args:
        filepath: The folder of the shards.
        i0: Number of the first picture.
        i1: Number after the last picture; None: as many as there are.
        optional: Whether the collection may be absent: every picture is then a blank one.
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

    def _open(self) -> NumberedZipShards:
        return NumberedZipShards(self._filepath, self._i0, self._i1)

    def save(self, data: Iterable[Image.Image]) -> None:
        """Write pictures 0, 1, … as JPEG files; the folder appears when it is complete."""
        with full_disk_named(self._filepath):
            write_zip_shards(self._filepath, data)

    def _exists(self) -> bool:
        return self._optional or self._filepath.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "i0": self._i0, "i1": self._i1}


class LabeledImagesDataset(ImagesDataset[Iterable[tuple[Image.Image, int]]]):
    """Pictures named in a JSON list with image_names and image_labels.

    Args:
        filepath: The JSON file.
        root: The folder that image_names are relative to, itself relative to the list's folder.
        optional: Whether the collection may be absent: every picture is then a blank one.
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
        optional: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath, optional, metadata)
        self._root = root

    def _open(self) -> LabeledList:
        return LabeledList(self._filepath, self._root)

    def save(self, data: Iterable[tuple[Image.Image, int]]) -> None:
        """Write (picture, label) pairs as PNG files and the list last."""
        with full_disk_named(self._filepath):
            write_labeled_list(self._filepath, self._root, data)

    def _exists(self) -> bool:
        return self._optional or self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "root": self._root}
