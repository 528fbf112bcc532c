"""Which device computes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lowshot_kedro.errors import InputError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")
# What Linux shows of a GPU that a driver has found: NVIDIA's, the same under Windows, and AMD's.
_GPU_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))


def gpu_available() -> bool:
    """Whether PyTorch finds a GPU.

    PyTorch takes seconds to import, and half a gigabyte, so it is not asked where the system shows
    none.
    """
    if "torch" not in sys.modules and sys.platform == "linux":
        if not any(file.exists() for file in _GPU_FILES):
            return False
    import torch

    return torch.cuda.is_available()


def free_gpu_bytes(number: int | None = None) -> int:
    """Free memory of a GPU, by its number, or of the one that is used."""
    import torch

    return int(torch.cuda.mem_get_info(*([] if number is None else [number]))[0])


def choose_device(device: str) -> torch.device:
    """The device that a parameter means: `auto` is a GPU where there is one.

    Args:
        device: One of `DEVICES`.

    Raises:
        ValueError: For `cuda` on a machine without a usable GPU.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "but PyTorch finds no GPU; use auto or cpu", parameter="device", found=device
        )
    return torch.device(device)
