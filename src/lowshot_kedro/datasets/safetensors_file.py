"""Named tensors with a header, in the safetensors format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.errors import InputError, in_one_line
from lowshot_kedro.extras import LazyModule, require
from lowshot_kedro.input_files import require_file

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch", "SafetensorsDataset", globals())

# The number of bytes of the header is at the beginning.
_LENGTH_BYTES = 8

TensorsAndHeader = tuple[dict[str, "torch.Tensor"], dict[str, str]]


class SafetensorsDataset(FileDataset[TensorsAndHeader, TensorsAndHeader]):
    """Named tensors and a header of texts by name, in the safetensors format.

    The format holds nothing that could be executed, and other programs read it. What is saved may
    be on any device and share memory; it is in memory two more times meanwhile. What is loaded is
    on the CPU, all of it in memory.

    Args:
        filepath: The file.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            snca_network:
              type: lowshot_kedro.datasets.SafetensorsDataset
              filepath: data/06_models/snca_network.safetensors
    """

    def check(self) -> None:
        """Read the header.

        Raises:
            FileNotFoundError: If the file is not there.
            InputError: If it is another kind of file, or cut off.
        """
        with self._opened():
            pass

    def _opened(self) -> Any:
        require_file(self._filepath)
        require("safetensors", "SafetensorsDataset")
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(self._filepath, framework="pt")
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"{self._filepath}: not a readable safetensors file; is it cut off? "
                f"({in_one_line(error)})"
            ) from error

    def _read(self) -> TensorsAndHeader:
        with self._opened() as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})

    def _write(self, path: Path, data: TensorsAndHeader) -> None:
        require("safetensors", "SafetensorsDataset")
        from safetensors.torch import save

        tensors, header = data
        # The format refuses tensors that share memory, and holds all of what a view is a part of.
        plain = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        content = save({name: tensor.contiguous() for name, tensor in plain.items()}, header)
        first = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
        with path.open("wb") as file:
            file.write(content[:_LENGTH_BYTES])
            file.write(_sorted_header(content[_LENGTH_BYTES:first]))
            file.write(memoryview(content)[first:])

    def _facts(self) -> dict[str, str]:
        with self._opened() as file:
            # The library gives it in another order each time.
            texts = sorted((file.metadata() or {}).items())
            header = {f"header: {name}": value for name, value in texts}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            tensors = {
                name: f"{part.get_dtype()} {tuple(part.get_shape())}"
                for name, part in slices.items()
            }
        return {**header, **tensors, "size on disk": self._size_on_disk()}

    def _matrix_name(self, file: Any) -> str | None:
        """The first of the tensors that is a matrix."""
        names = (name for name in file.keys() if len(file.get_slice(name).get_shape()) == 2)  # noqa: SIM118
        return next(names, None)

    def _size(self) -> tuple[int, int] | None:
        with self._opened() as file:
            name = self._matrix_name(file)
            # A network with a matrix among its tensors is no matrix.
            if name is None or len(file.keys()) > 1:
                return None
            n_rows, n_columns = file.get_slice(name).get_shape()
            return n_rows, n_columns

    def _first_rows(self) -> Iterator[list[float]]:
        with self._opened() as file:
            name = self._matrix_name(file)
            if name is not None:
                yield from file.get_slice(name)[:10].tolist()


def _sorted_header(text: bytes) -> bytes:
    """What a header says in order, as long as it was: the library writes it in any."""
    header = json.loads(text)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    return json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(len(text))
