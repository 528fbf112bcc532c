"""Files of torch.save that hold whole modules, read without executing anything from them.

A module is pickled as the name of its class and what its instance holds. The class is not looked
for: an inert stand-in takes the tensors.
"""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, Any, ClassVar

import torch
from torch.serialization import safe_globals

from lowshot_kedro.errors import InputError
from lowshot_kedro.input_files import UNPICKLING_ERRORS

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
    # PyTorch asks the classes of old files for it.
    dump_patches: ClassVar[bool] = False

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
    stand_ins: list[Any] = [(_stand_in(name), name) for name in sorted(_names_in(path))]
    with safe_globals(stand_ins), warnings.catch_warnings():
        # It would compare the source code in the file with that of the class.
        warnings.filterwarnings("ignore", message="Couldn't retrieve source code")
        return torch.load(path, map_location="cpu", weights_only=True)


def _stand_in(name: str) -> type[PickledModule]:
    return type(name.rpartition(".")[2], (PickledModule,), {"__slots__": (), "class_name": name})


def _names_in(path: Path) -> set[str]:
    """Names in a file that a stand-in is there for."""
    names = set()
    with ExitStack() as opened:
        try:
            for content in _pickles(path, opened):
                for operation, argument, _ in pickletools.genops(content):
                    if operation.name == "GLOBAL":
                        names.add(str(argument).replace(" ", ".", 1))
        except (*UNPICKLING_ERRORS, zipfile.BadZipFile):
            # Whatever is wrong with the file, PyTorch finds it too.
            pass
    return {name for name in names if _STANDS_IN.fullmatch(name)}


def _pickles(path: Path, opened: ExitStack) -> Iterator[IO[bytes]]:
    file = opened.enter_context(path.open("rb"))
    is_zip = file.read(len(_ZIP_BEGINS)) == _ZIP_BEGINS
    file.seek(0)
    if is_zip:
        archive = opened.enter_context(zipfile.ZipFile(file))
        members = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        for member in islice(members, 1):
            yield opened.enter_context(archive.open(member))
    else:
        for _ in range(_PICKLES_BEFORE_ZIP):
            yield file
