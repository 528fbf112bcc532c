"""What a propagation can be told besides the graph and the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lowshot_kedro.diffusion.backends.registry import require_backend
from lowshot_kedro.diffusion.variants import Adjustment, require_class_prior
from lowshot_kedro.errors import InputError


@dataclass(frozen=True)
class PropagationOptions:
    """How labels are spread, the same for a propagation and for what chooses its steps.

    Attributes:
        class_slice: Classes propagated at once, which bounds memory; 0: all (up to 65536); `auto`:
            as many as fit. Changes no bit of the result.
        backend: One of :data:`~lowshot_kedro.diffusion.backends.BACKENDS`.
        precision: Type of the scores stored between steps: `float32`, or with the native back end
            `bfloat16`, in half the memory.
        adjustments: What happens to the scores after each step, for instance
            :class:`~lowshot_kedro.diffusion.variants.Clamping`. With any of them all rows and
            classes are computed in every step.
        class_prior: What the column of each class sums to, as for
            :func:`~lowshot_kedro.diffusion.variants.class_priors`.
        memory_budget_bytes: Bytes for everything held, as for
            :func:`~lowshot_kedro.diffusion.memory.plan_memory`.

    Raises:
        ValueError: For an unknown name, or a value that cannot be.
    """

    class_slice: int | str = "auto"
    backend: str = "auto"
    precision: str = "float32"
    adjustments: Sequence[Adjustment] = ()
    class_prior: str | Sequence[float] = "uniform"
    memory_budget_bytes: int | None = None

    def __post_init__(self) -> None:
        class_slice = self.class_slice
        is_integer = isinstance(class_slice, (int, np.integer)) and not isinstance(
            class_slice, bool
        )
        if class_slice != "auto" and not (is_integer and int(class_slice) >= 0):
            expected = "an integer of at least 0, or auto"
            raise InputError(parameter="class_slice", found=class_slice, expected=expected)
        require_backend(self.backend, self.precision)
        if self.adjustments and self.precision == "bfloat16":
            raise InputError(
                "which adjustments cannot change; use float32",
                parameter="precision",
                found=self.precision,
            )
        require_class_prior(self.class_prior)


DEFAULT_OPTIONS = PropagationOptions()
