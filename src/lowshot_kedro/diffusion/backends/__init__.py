"""Back ends: they compute the steps, and all give the same scores up to float32 rounding."""

from lowshot_kedro.diffusion.backends.interface import Backend
from lowshot_kedro.diffusion.backends.registry import BACKENDS, PRECISIONS, create_backend

__all__ = ["BACKENDS", "PRECISIONS", "Backend", "create_backend"]
