"""How much memory a propagation takes, and how many classes at a time fit."""

from __future__ import annotations

from typing import NamedTuple

from lowshot_kedro.diffusion.backends.registry import backend_class, free_bytes, on_gpu
from lowshot_kedro.diffusion.matrix import PropagationMatrix
from lowshot_kedro.diffusion.options import PropagationOptions
from lowshot_kedro.errors import NotEnoughMemoryError
from lowshot_kedro.memory import format_bytes, format_gigabytes

# The part of the free memory that may be taken if no budget is given.
AVAILABLE_PART = 0.8
# Wider slices gain nothing, and a sparse row could hold more entries than it can count.
MAX_SLICE = 2**16


class MemoryPlan(NamedTuple):
    """What a propagation will hold, in bytes.

    Attributes:
        class_slice: Classes propagated at once.
        matrix: W, and what the back end makes of it.
        scores: Score matrices of a slice.
        results: Scores of the test points, those returned and those of a slice.
    """

    class_slice: int
    matrix: int
    scores: int
    results: int

    @property
    def total(self) -> int:
        """Matrix, scores and results together."""
        return self.matrix + self.scores + self.results


def plan_memory(
    matrix: PropagationMatrix,
    n_test: int,
    n_classes: int,
    n_results: int,
    options: PropagationOptions,
) -> MemoryPlan:
    """Choose the slice of classes, and say what will be held.

    Args:
        matrix: W, over N nodes.
        n_test: Test points T.
        n_classes: C.
        n_results: How many times T × C scores are returned.
        options: Options of the propagation, with a back end other than `auto`. Their budget is for
            everything, the matrix included; None: 80 % of the memory that is free now, and the
            matrix where it is held there already. On a GPU never more than that.

    Returns:
        The plan. A slice is never wider than 65536 classes.

    Raises:
        ValueError: For a budget in which a single class, or the slice asked for, does not fit.
    """
    backend, class_slice = options.backend, options.class_slice
    budget_bytes = options.memory_budget_bytes
    beside, per_class = backend_class(backend).bytes_held(matrix, options.precision)
    fixed = matrix.n_bytes + beside
    if on_gpu(backend):
        limits = [int(AVAILABLE_PART * free_bytes(backend)), budget_bytes]
        budget_bytes = min(limit for limit in limits if limit is not None)

    def plan(width: int) -> MemoryPlan:
        results = 4 * n_test * (n_results * n_classes + width)
        return MemoryPlan(width, fixed, per_class * width, results)

    widest = max(min(n_classes, MAX_SLICE), 1)
    if class_slice != "auto":
        chosen = plan(min(int(class_slice) or widest, widest))
        if budget_bytes is not None and chosen.total > budget_bytes:
            raise _too_small(chosen, budget_bytes)
        return chosen
    if budget_bytes is None:
        budget_bytes = int(AVAILABLE_PART * free_bytes(backend)) + matrix.n_bytes
    room = budget_bytes - plan(0).total
    width = min(room // (per_class + 4 * n_test), widest)
    if width < 1:
        raise _too_small(plan(1), budget_bytes)
    # Slices as equal as possible: the same number of them, with less memory.
    n_slices = -(-n_classes // width)
    return plan(max(-(-n_classes // n_slices), 1))


def _too_small(plan: MemoryPlan, budget_bytes: int) -> NotEnoughMemoryError:
    total, matrix, scores, results = map(
        format_bytes, (plan.total, plan.matrix, plan.scores, plan.results)
    )
    return NotEnoughMemoryError(
        parameter="memory_budget_bytes",
        found=budget_bytes,
        expected=f"at least {format_gigabytes(plan.total)}: {plan.class_slice} class(es) at a time "
        f"take {total}, of which matrix {matrix}, scores {scores}, test scores {results}",
    )
