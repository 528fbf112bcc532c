"""State dictionaries of PyTorch models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.errors import InputError
from lowshot_kedro.extras import LazyModule, require
from lowshot_kedro.input_files import UNPICKLING_ERRORS, require_file

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch", "TorchStateDataset", globals())


class TorchStateDataset(FileDataset[dict[str, Any], dict[str, Any]]):
    """Named tensors as torch.save writes them. Loading never executes code from the file.

    Args:
        filepath: The file.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            logistic_regression:
              type: lowshot_kedro.datasets.TorchStateDataset
              filepath: data/06_models/logistic_regression.pt
    """

    def check(self) -> None:
        """See that the file is there."""
        require_file(self._filepath)

    def _read(self) -> dict[str, Any]:
        self.check()
        require("torch", "TorchStateDataset")
        try:
            state: dict[str, Any] = torch.load(
                self._filepath, map_location="cpu", weights_only=True
            )
        except UNPICKLING_ERRORS as error:
            raise InputError(
                f"{self._filepath}: not a readable PyTorch state; is it cut off? ({error})"
            ) from error
        return state

    def _write(self, path: Path, data: dict[str, Any]) -> None:
        with path.open("wb") as file:
            torch.save(data, file)

    def _facts(self) -> dict[str, str]:
        tensors = {
            name: f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
            for name, tensor in self._read().items()
        }
        return {**tensors, "size on disk": self._size_on_disk()}

    def _matrix(self) -> torch.Tensor | None:
        """The first of the tensors that is a matrix."""
        return next((tensor for tensor in self._read().values() if tensor.ndim == 2), None)

    def _size(self) -> tuple[int, int] | None:
        matrix = self._matrix()
        return None if matrix is None else (matrix.shape[0], matrix.shape[1])

    def _first_rows(self) -> Iterator[list[float]]:
        matrix = self._matrix()
        if matrix is not None:
            yield from matrix[:10].tolist()
