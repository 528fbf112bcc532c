"""Files in the format of torch.save before 2020 that hold modules, read without executing anything.

`torch.load(weights_only=True)` refuses a module in this format, whatever class is allowed: the
source code stands beside it. Such a file is five pickles (a magic number, a version, facts about
the machine, the content, and the numbers of the storages), then the values of each storage.

What a name in the file may stand for is decided by :meth:`_Unpickler.find_class`: nothing of
PyTorch is reached, and whatever can be called builds a tensor or does nothing.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import IO, Any

import torch

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C

# Names of storages in torch and torch.cuda.
_STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


class _Dictionary(dict[Any, Any]):
    """In place of an ordered dictionary, whose attributes a file could set."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Take nothing."""


class _Function:
    """A function that a file may call, but not change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it changes a function")


def _tensor(
    storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> torch.Tensor:
    return storage.as_strided(size, stride, offset)


def _parameter(values: torch.Tensor, *_: Any) -> torch.Tensor:
    return values


_NAMES: dict[str, Any] = {
    "__builtin__.set": set,
    "builtins.set": set,
    "collections.OrderedDict": _Dictionary,
    "torch.Size": tuple,
    "torch._utils._rebuild_parameter": _Function(_parameter),
    "torch._utils._rebuild_tensor": _Function(_tensor),
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch.nn.parameter.Parameter": _Function(_parameter),
    **{
        f"{module}.{name}": dtype
        for module in ("torch", "torch.cuda")
        for name, dtype in _STORAGES.items()
    },
}


class _Unpickler(pickle.Unpickler):
    """Reads one pickle.

    Args:
        file: The file, at the beginning of the pickle.
        stand_ins: Name of a class → what takes its place.
        n_bytes: Size of the file.

    Attributes:
        storages: The storages that were asked for, by number; their values are still to be read.
    """

    def __init__(self, file: IO[bytes], stand_ins: dict[str, type], n_bytes: int) -> None:
        # Texts of Python 2 are bytes.
        super().__init__(file, encoding="utf-8")
        self._stand_ins = stand_ins
        self._n_bytes = n_bytes
        self.storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for."""
        full_name = f"{module}.{name}"
        if full_name in self._stand_ins:
            return self._stand_ins[full_name]
        if full_name in _NAMES:
            return _NAMES[full_name]
        raise pickle.UnpicklingError(f"GLOBAL {full_name} is not allowed")

    def persistent_load(self, pid: Any) -> Any:
        """A class, without its source code, or a storage."""
        kind, *facts = pid
        if kind == "module":
            return facts[0]
        if kind != "storage":
            raise pickle.UnpicklingError("it holds neither a module nor a storage")
        dtype, number, _, n_values, view = facts
        if not isinstance(dtype, torch.dtype) or not isinstance(n_values, int):
            raise pickle.UnpicklingError("one of its storages is none")
        if number not in self.storages:
            if n_values * dtype.itemsize > self._n_bytes:
                raise pickle.UnpicklingError("a storage is larger than the file")
            self.storages[number] = torch.empty(n_values, dtype=dtype)
        if view is None:
            return self.storages[number]
        _, offset, length = view
        return self.storages[number].narrow(0, offset, length)


def load_legacy(file: IO[bytes], stand_ins: dict[str, type]) -> Any:
    """What a file in the old format holds, on the CPU.

    Args:
        file: The file, at its beginning.
        stand_ins: Name of a class → what takes its place.

    Returns:
        Tensors, numbers, texts, lists, dictionaries and stand-ins. All tensors are in memory.

    Raises:
        UNPICKLING_ERRORS: For another kind of file, one that is cut off, or one that names anything
            but tensors, ordered dictionaries and stand-ins.
    """
    try:
        return _load(file, stand_ins)
    except MemoryError:
        # Of the length of a text: a damaged one may be anything.
        raise pickle.UnpicklingError("it announces more than fits into memory") from None


def _load(file: IO[bytes], stand_ins: dict[str, type]) -> Any:
    n_bytes = os.fstat(file.fileno()).st_size

    def unpickler() -> _Unpickler:
        return _Unpickler(file, stand_ins, n_bytes)

    magic_number, _, machine = (unpickler().load() for _ in range(3))
    if magic_number != _MAGIC_NUMBER or machine.get("little_endian") is not True:
        raise pickle.UnpicklingError("it is no file of torch.save from a common processor")
    of_content = unpickler()
    content = of_content.load()
    for number in unpickler().load():
        values = of_content.storages[number]
        n_values = int.from_bytes(file.read(8), "little")
        if n_values != len(values):
            raise pickle.UnpicklingError(f"{n_values} values where {len(values)} were announced")
        rest = values.view(torch.uint8).numpy().data
        while rest:
            n_read = file.readinto(rest)  # type: ignore[attr-defined]
            if not n_read:
                raise EOFError("it is cut off")
            rest = rest[n_read:]
    return content
