"""Back ends by name."""

from __future__ import annotations

import torch

from lowshot_kedro import native
from lowshot_kedro.diffusion.backends.interface import Backend
from lowshot_kedro.diffusion.backends.mkl_backend import MklBackend
from lowshot_kedro.diffusion.backends.native_backend import NativeBackend
from lowshot_kedro.diffusion.backends.scipy_backend import ScipyBackend
from lowshot_kedro.diffusion.backends.torch_backend import TorchBackend
from lowshot_kedro.diffusion.matrix import PropagationMatrix
from lowshot_kedro.errors import InputError

BACKENDS = ("auto", "native", "torch", "mkl", "scipy")
PRECISIONS = ("float32", "bfloat16")


def resolve_backend(name: str, gpu_bytes: int, precision: str = "float32") -> str:
    """The name of the back end that `auto` stands for; any other name stays.

    Args:
        name: One of :data:`BACKENDS`.
        gpu_bytes: Memory that the problem would take on a GPU.
        precision: One of :data:`PRECISIONS`.

    Returns:
        `torch` where there is a GPU with that much free memory, else `native`.

    Raises:
        ValueError: For an unknown name or precision, a precision that the back end does not have,
            or mkl where MKL is not installed.
    """
    if name not in BACKENDS:
        raise InputError(f"diffusion.backend: got {name!r}, expected one of: {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise InputError(
            f"diffusion.precision: got {precision!r}, expected one of: {', '.join(PRECISIONS)}"
        )
    if name == "auto":
        fits = torch.cuda.is_available() and gpu_bytes < torch.cuda.mem_get_info()[0]
        return "torch" if fits and precision == "float32" else "native"
    if precision == "bfloat16" and name != "native":
        raise InputError(
            f"diffusion.precision: got 'bfloat16', which back end {name} does not have; use native"
        )
    if name == "mkl" and not native.mkl_available():
        raise InputError("diffusion.backend: got 'mkl', but Intel MKL is not installed; use auto")
    return name


def create_backend(name: str, matrix: PropagationMatrix, precision: str = "float32") -> Backend:
    """A back end.

    Args:
        name: `native`, `torch` (on a GPU if there is one), `mkl` or `scipy`.
        matrix: W.
        precision: Of the stored scores.
    """
    if name == "scipy":
        return ScipyBackend(matrix)
    if name == "mkl":
        return MklBackend(matrix)
    if name == "torch":
        return TorchBackend(matrix, "cuda" if torch.cuda.is_available() else "cpu")
    return NativeBackend(matrix, precision)
