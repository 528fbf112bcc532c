"""Back ends by name."""

from __future__ import annotations

from lowshot_kedro import native
from lowshot_kedro.devices import free_gpu_bytes, gpu_available
from lowshot_kedro.diffusion.backends.interface import Backend
from lowshot_kedro.diffusion.backends.mkl_backend import MklBackend
from lowshot_kedro.diffusion.backends.native_backend import NativeBackend
from lowshot_kedro.diffusion.backends.scipy_backend import ScipyBackend
from lowshot_kedro.diffusion.matrix import PropagationMatrix
from lowshot_kedro.errors import InputError
from lowshot_kedro.extras import command, require
from lowshot_kedro.memory import available_bytes

BACKENDS = ("auto", "native", "torch", "mkl", "scipy")
PRECISIONS = ("float32", "bfloat16")


def backend_class(name: str) -> type[Backend]:
    """The class of a back end; not of `auto`."""
    if name == "torch":
        # Others do without PyTorch, which takes long to import.
        from lowshot_kedro.diffusion.backends.torch_backend import TorchBackend

        return TorchBackend
    others: dict[str, type[Backend]] = {
        "native": NativeBackend,
        "mkl": MklBackend,
        "scipy": ScipyBackend,
    }
    return others[name]


def require_backend(name: str, precision: str) -> None:
    """Refuse an unknown name or precision, or a precision that the back end does not have.

    Args:
        name: One of :data:`BACKENDS`.
        precision: One of :data:`PRECISIONS`.

    Raises:
        ValueError: For an unknown name, or a precision that the back end does not have.
    """
    if name not in BACKENDS:
        expected = f"one of: {', '.join(BACKENDS)}"
        raise InputError(parameter="backend", found=name, expected=expected)
    if precision not in PRECISIONS:
        expected = f"one of: {', '.join(PRECISIONS)}"
        raise InputError(parameter="precision", found=precision, expected=expected)
    if precision == "bfloat16" and name not in ("auto", "native"):
        raise InputError(
            f"which back end {name} does not have; use native",
            parameter="precision",
            found=precision,
        )


def candidates(name: str, precision: str = "float32") -> list[str]:
    """The back ends to try, the first one whose memory is enough being taken.

    Args:
        name: One of :data:`BACKENDS`. `auto`: torch if there is a GPU, then native.
        precision: One of :data:`PRECISIONS`, which the back end has.

    Raises:
        ValueError: For torch or mkl where that is not installed.
    """
    if name == "auto":
        use_gpu = gpu_available() and precision == "float32"
        return ["torch", "native"] if use_gpu else ["native"]
    if name == "torch":
        require("torch", parameter="backend", found=name)
    if name == "mkl" and not native.mkl_available():
        raise InputError(
            f"but Intel MKL is not installed; use auto, or type: {command('mkl')}",
            parameter="backend",
            found=name,
        )
    return [name]


def on_gpu(name: str) -> bool:
    """Whether a back end holds its scores on a GPU: torch does, if there is one."""
    return name == "torch" and gpu_available()


def free_bytes(name: str) -> int:
    """Free memory of where a back end holds its scores."""
    if on_gpu(name):
        return free_gpu_bytes()
    return available_bytes()


def create_backend(name: str, matrix: PropagationMatrix, precision: str = "float32") -> Backend:
    """Make the back end of a name, ready to start.

    Args:
        name: `native`, `torch` (on a GPU if there is one), `mkl` or `scipy`.
        matrix: W.
        precision: Precision of the stored scores.
    """
    if name == "native":
        return NativeBackend(matrix, precision)
    if name == "torch":
        from lowshot_kedro.diffusion.backends.torch_backend import TorchBackend

        return TorchBackend(matrix, "cuda" if on_gpu(name) else "cpu")
    return MklBackend(matrix) if name == "mkl" else ScipyBackend(matrix)
