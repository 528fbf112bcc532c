"""The device that computes: a CPU or a GPU."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lowshot_kedro.errors import InputError
from lowshot_kedro.extras import needed_by

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")
# What Linux shows of a GPU that a driver has found: NVIDIA's, the same under Windows, and AMD's.
_GPU_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))


def gpu_available() -> bool:
    """Whether PyTorch, where it is installed, finds a GPU.

    PyTorch takes seconds to import, and half a gigabyte, so it is not asked where the system shows
    none.
    """
    if sys.modules.get("torch") is None:
        shows_one = sys.platform != "linux" or any(file.exists() for file in _GPU_FILES)
        if not shows_one or find_spec("torch") is None:
            return False
    import torch

    return torch.cuda.is_available()


def free_gpu_bytes(number: int | None = None) -> int:
    """Free memory of a GPU, by its number, or of the one that is used."""
    with needed_by("the memory of a GPU"):
        import torch

    return int(torch.cuda.mem_get_info(*([] if number is None else [number]))[0])


def choose_device(device: str) -> torch.device:
    """The device that a parameter means: `auto` is a GPU where there is one.

    Args:
        device: One of `DEVICES`.

    Raises:
        ValueError: For `cuda` on a machine without a usable GPU.
    """
    with needed_by(parameter="device", found=device):
        import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "but PyTorch finds no GPU; use auto or cpu", parameter="device", found=device
        )
    return torch.device(device)
