"""A folder of images that a network learns from without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from lowshot_kedro.datasets.class_list import in_project
from lowshot_kedro.datasets.images import ReadOnlyImagesDataset
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import AbsentImages, ImageFolder, ImageSource
from lowshot_kedro.parameters import refuse

_ELSEWHERE = "no folder"


class UnlabeledImagesDataset(ReadOnlyImagesDataset):
    """All images anywhere below a folder, where a parameter may name one. Read only.

    Loading gives an :class:`~lowshot_kedro.images.ImageFolder`; and None where no folder is named
    and the images are another dataset of the catalog.

    Args:
        path: The folder, relative to the project; None: there is none.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            deepercluster_images:
              type: lowshot_kedro.datasets.UnlabeledImagesDataset
              path: data/01_raw/photos
    """

    def __init__(self, *, path: str | None = None, metadata: dict[str, Any] | None = None) -> None:
        self._named = path
        # Of the empty text that would be the whole project.
        self._path = cast("Path | None", in_project(path))
        super().__init__(str(self._path or _ELSEWHERE), False, metadata)

    def load(self) -> Any:
        """The images, which are decoded when asked for, or None."""
        return None if self._path is None else self._open()

    def check(self) -> None:
        """Look through the folder without decoding an image.

        Raises:
            FileNotFoundError: If it is not there.
            ValueError: If it is a file, or holds no image.
        """
        if self._path is not None:
            self._open()

    def _open(self) -> ImageFolder:
        if not self._named:
            raise refuse("path", self._named, "a folder of images, or null where there is none")
        return ImageFolder(self._filepath)

    def _source(self) -> ImageSource:
        return AbsentImages(self._filepath) if self._path is None else self._open()

    def _shown(self) -> ImageSource | None:
        try:
            return self._source()
        except (FileNotFoundError, InputError):
            return None

    def _amount(self, source: ImageSource) -> str:
        return "no folder is named" if self._path is None else super()._amount(source)

    def _class_namer(self, source: ImageSource) -> None:
        return None

    def _exists(self) -> bool:
        # `check` knows what is missing.
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": None if self._path is None else str(self._path)}
