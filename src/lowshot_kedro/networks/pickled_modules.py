"""Files of torch.save that hold whole modules, read without executing anything from them.

A module is pickled as the name of its class and what its instance holds. The class is not looked
for: an inert stand-in takes the tensors.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.serialization import safe_globals

from lowshot_kedro.errors import InputError
from lowshot_kedro.input_files import UNPICKLING_ERRORS
from lowshot_kedro.networks.legacy_pickles import load_legacy

# Layers of PyTorch, what programs of 2018 put beside them, and the modules of the SNCA code.
_STANDS_IN = re.compile(
    r"torch\.nn\.(modules|parallel)\.\w+\.\w+"
    r"|torch\.nn\.backends\.thnn\._get_thnn_function_backend"
    r"|lib\.(LinearAverage|normalize)\.\w+"
    r"|models\.(resnet|resnet_cifar)\.\w+"
)
_ZIP_BEGINS = b"PK\x03\x04"
# Before the zip format: a magic number, a version, facts about the machine, and the content.
_PICKLES_BEFORE_ZIP = 4


class PickledModule:
    """What a file says of a module: the name of its class and what its instance held.

    Attributes:
        class_name: Module and name of the class, such as torch.nn.modules.linear.Linear.
        content: Attribute → value, as pickled.
    """

    # No instance has a dictionary: a file cannot give it attributes that PyTorch would look at.
    __slots__ = ("content",)

    class_name: ClassVar[str]
    content: dict[str, Any]

    def __new__(cls, *arguments: Any) -> PickledModule:
        """Make one, whatever the class would have been given."""
        instance = super().__new__(cls)
        instance.content = {}
        return instance

    def __init__(self, *arguments: Any) -> None:
        """Do nothing."""

    def __setstate__(self, state: object) -> None:
        self.content = state if isinstance(state, dict) else {}

    def tensors(self, where: str | Path) -> dict[str, torch.Tensor]:
        """Parameters and buffers by name, those of modules within this one too.

        Args:
            where: The file, for messages.

        Raises:
            InputError: If the module holds one module twice, as itself.
        """
        found: dict[str, torch.Tensor] = {}
        seen: set[int] = set()
        waiting: list[tuple[str, PickledModule]] = [("", self)]
        while waiting:
            prefix, module = waiting.pop()
            if id(module) in seen:
                raise InputError(
                    f"{where}: {prefix.rstrip('.')} is a module that occurs twice, "
                    "expected every module once"
                )
            seen.add(id(module))
            for kind in ("_parameters", "_buffers"):
                for name, tensor in module._children(kind):
                    if isinstance(tensor, torch.Tensor):
                        found[f"{prefix}{name}"] = tensor.detach()
            inner = [
                (f"{prefix}{name}.", child)
                for name, child in module._children("_modules")
                if isinstance(child, PickledModule)
            ]
            waiting += reversed(inner)
        return found

    def _children(self, kind: str) -> list[tuple[Any, Any]]:
        children = self.content.get(kind)
        return [*children.items()] if isinstance(children, dict) else []


def load_pickled(path: Path) -> Any:
    """What torch.save has written, today or in 2017, on the CPU.

    Args:
        path: The file.

    Returns:
        Tensors, numbers, texts, lists and dictionaries; :class:`PickledModule` for modules of
        PyTorch and of the SNCA code. All tensors are in memory.

    Raises:
        UNPICKLING_ERRORS: For a file of another kind, or one that names anything else.
    """
    is_zip, names = _names_in(path)
    stand_ins = {name: _stand_in(name) for name in sorted(names) if _STANDS_IN.fullmatch(name)}
    if stand_ins and not is_zip:
        with path.open("rb") as file:
            return load_legacy(file, stand_ins)
    allowed: list[Any] = [(stand_in, name) for name, stand_in in stand_ins.items()]
    with safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)


def _stand_in(name: str) -> type:
    return type(name.rpartition(".")[2], (PickledModule,), {"__slots__": (), "class_name": name})


def _names_in(path: Path) -> tuple[bool, set[str]]:
    """Whether a file is a zip archive, and the names in it that stand for classes and functions."""
    is_zip, names = False, set()
    try:
        with path.open("rb") as file, ExitStack() as opened:
            is_zip = file.read(len(_ZIP_BEGINS)) == _ZIP_BEGINS
            file.seek(0)
            content: Any = file
            if is_zip:
                archive = opened.enter_context(zipfile.ZipFile(file))
                member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
                content = opened.enter_context(archive.open(member))
            for _ in range(1 if is_zip else _PICKLES_BEFORE_ZIP):
                for operation, argument, _ in pickletools.genops(content):
                    if operation.name == "GLOBAL":
                        names.add(str(argument).replace(" ", ".", 1))
    except (*UNPICKLING_ERRORS, zipfile.BadZipFile, StopIteration, MemoryError):
        # Whatever is wrong with the file, whoever loads it finds it too.
        pass
    return is_zip, names
