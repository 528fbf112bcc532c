"""Checkpoints as the original SNCA code writes them, with classes that are gone when they are read.

The classes stand in files of their own, since old files hold the source code beside a module.
"""

from __future__ import annotations

import importlib
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import torch

_SOURCES = {
    "lib/LinearAverage.py": """
import torch
from torch import nn


class LinearAverage(nn.Module):
    def __init__(self, inputSize, outputSize, T=0.05, momentum=0.5):
        super().__init__()
        self.nLem = outputSize
        self.register_buffer("params", torch.tensor([T, momentum]))
        self.register_buffer("memory", torch.rand(outputSize, inputSize))

    def forward(self, x, y):
        return torch.mm(x, self.memory.t()) / self.params[0].item()
""",
    "lib/normalize.py": """
from torch import nn


class Normalize(nn.Module):
    def __init__(self, power=2):
        super().__init__()
        self.power = power

    def forward(self, x):
        norm = x.pow(self.power).sum(1, keepdim=True).pow(1.0 / self.power)
        return x.div(norm)
""",
    "models/resnet_cifar.py": """
import torch.nn.functional as F
from torch import nn

from lib.normalize import Normalize


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, in_planes, planes, stride):
        super().__init__()
        out = 4 * planes
        self.conv1 = nn.Conv2d(in_planes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_planes, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += self.shortcut(x)
        return F.relu(out)


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, in_planes, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_planes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    def __init__(self, block, num_blocks, low_dim):
        super().__init__()
        self.in_planes = 64
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self._make_layer(block, 64, num_blocks[0], 1)
        self.layer2 = self._make_layer(block, 128, num_blocks[1], 2)
        self.layer3 = self._make_layer(block, 256, num_blocks[2], 2)
        self.layer4 = self._make_layer(block, 512, num_blocks[3], 2)
        self.linear = nn.Linear(512 * block.expansion, low_dim)
        self.l2norm = Normalize(2)

    def _make_layer(self, block, planes, num_blocks, stride):
        layers = []
        for stride in [stride] + [1] * (num_blocks - 1):
            layers.append(block(self.in_planes, planes, stride))
            self.in_planes = planes * block.expansion
        return nn.Sequential(*layers)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        out = F.avg_pool2d(out, 4)
        return self.l2norm(self.linear(out.view(out.size(0), -1)))
""",
}
_PACKAGES = ("lib", "models")


@contextmanager
def original_code(folder: Path) -> Iterator[types.SimpleNamespace]:
    """The classes of the original, by the names that it has for them; inside alone."""
    for name, source in _SOURCES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name("__init__.py").touch()
        path.write_text(source)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield types.SimpleNamespace(
            LinearAverage=importlib.import_module("lib.LinearAverage").LinearAverage,
            cifar=importlib.import_module("models.resnet_cifar"),
        )
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] in _PACKAGES]:
            del sys.modules[name]


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes text as Python 2 wrote it, and ordered dictionaries as lists of pairs."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def _save_text(self, text: str) -> None:
        content = text.encode("ascii")
        if len(content) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(content)]) + content)
        else:
            self.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)
        self.memoize(text)

    dispatch[str] = _save_text

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, OrderedDict):
            return OrderedDict, ([[key, item] for key, item in value.items()],)
        return NotImplemented


def _dump(value: Any, file: Any, protocol: int) -> None:
    _Python2Pickler(file, protocol=protocol).dump(value)


PYTHON_2 = types.SimpleNamespace(Pickler=_Python2Pickler, dump=_dump, __name__="pickle")


class _Backend:
    """What every module held until PyTorch 1.2: pickled as the call of a function."""

    def __reduce__(self) -> Any:
        thnn = sys.modules["torch.nn.backends.thnn"]
        return vars(thnn)["_get_thnn_function_backend"], ()


def save(content: Any, path: Path, form: str) -> Path:
    """Write a checkpoint.

    Args:
        content: What torch.save is given.
        path: Where to.
        form: `zip`: as today. `legacy`: as until 2020. `2018`: as in 2018 under Python 2, with
            what modules held then, and tensors in the memory of a GPU.
    """
    if form != "2018":
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
        return path
    thnn = types.ModuleType("torch.nn.backends.thnn")

    def _get_thnn_function_backend() -> None:
        raise AssertionError("called")

    _get_thnn_function_backend.__module__ = thnn.__name__
    _get_thnn_function_backend.__qualname__ = _get_thnn_function_backend.__name__
    vars(thnn)["_get_thnn_function_backend"] = _get_thnn_function_backend
    for value in content.values():
        if isinstance(value, torch.nn.Module):
            for module in value.modules():
                vars(module)["_backend"] = _Backend()
    with (
        mock.patch.dict(sys.modules, {"torch.nn.backends.thnn": thnn}),
        mock.patch("torch.serialization.location_tag", lambda storage: "cuda:0"),
    ):
        torch.save(content, path, pickle_module=PYTHON_2, _use_new_zipfile_serialization=False)
    written = path.read_bytes()
    for kind in (b"FloatStorage", b"LongStorage"):
        written = written.replace(b"ctorch\n" + kind, b"ctorch.cuda\n" + kind)
    path.write_bytes(written)
    return path
