"""A folder that a node itself writes to, such as one of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset


class FolderDataset(AbstractDataset[NoReturn, Path]):
    """The path of a folder, which need not be there yet. It cannot be saved to as a whole.

    Args:
        filepath: The folder.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            snca_checkpoints:
              type: lowshot_kedro.datasets.FolderDataset
              filepath: data/06_models/snca_checkpoints
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        """The path of the folder, absolute."""
        return self._filepath.absolute()

    def save(self, data: NoReturn) -> None:
        """Refuse: whoever loads the path writes there."""
        raise NotImplementedError(f"{self._filepath}: a folder is not saved as a whole")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
