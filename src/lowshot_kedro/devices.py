"""Which device computes."""

from __future__ import annotations

import torch

from lowshot_kedro.errors import InputError

DEVICES = ("auto", "cpu", "cuda")


def choose_device(device: str, name: str = "device") -> torch.device:
    """The device that a parameter means: `auto` is a GPU where there is one.

    Args:
        device: One of `DEVICES`.
        name: The parameter, for the error message.

    Raises:
        ValueError: For `cuda` on a machine without a usable GPU.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{name}: got 'cuda', but PyTorch finds no GPU; use auto or cpu")
    return torch.device(device)
