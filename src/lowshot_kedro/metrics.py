"""Accuracy, and the scores it is computed from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.errors import InputError
from lowshot_kedro.parameters import is_list, refuse, require_integer, require_part
from lowshot_kedro.protocol import ImageSelection

logger = logging.getLogger(__name__)

# What the names of accuracies end with: over all test images, those of novel and of base classes.
GROUPS = ("", "_novel", "_base")

_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class EvaluationParameters:
    """Which accuracies are reported, and how the two methods are combined.

    Section `evaluation` of the parameters.
    """

    top_k: tuple[int, ...]
    combination_weight: float
    n_images: int

    def __post_init__(self) -> None:
        if not is_list(self.top_k) or not tuple(self.top_k):
            raise refuse("top_k", self.top_k, "a list of integers, such as [1, 5]")
        for k in self.top_k:
            require_integer("top_k", k, 1)
        object.__setattr__(self, "top_k", tuple(sorted(set(self.top_k))))
        require_part("combination_weight", self.combination_weight)
        require_integer("n_images", self.n_images, 1, 100)


@dataclass(frozen=True)
class Scores:
    """What a classifier says of the test images, after each of its iterations or at the end.

    Attributes:
        scores_per_iteration: float32 (S, T, C), larger is more likely; S = 1 where only the last
            iteration was kept.
        iterations: int64 (S,), the iterations these belong to.
        test_classes: int32 (T,), true class 0..C-1.
        classes: int64 (C,), original label of each class.
        is_novel: bool (C,).
    """

    scores_per_iteration: NDArray[np.float32]
    iterations: NDArray[np.int64]
    test_classes: NDArray[np.int32]
    classes: NDArray[np.int64]
    is_novel: NDArray[np.bool_]

    @classmethod
    def of_selection(
        cls,
        scores_per_iteration: NDArray[np.float32],
        iterations: Sequence[int],
        selection: ImageSelection,
    ) -> Scores:
        """Scores of a selection's test images."""
        return cls(
            scores_per_iteration,
            np.asarray(iterations, dtype=np.int64),
            selection.test_classes,
            selection.classes,
            selection.is_novel,
        )

    @property
    def scores(self) -> NDArray[np.float32]:
        """The scores after the last iteration, float32 (T, C)."""
        last: NDArray[np.float32] = self.scores_per_iteration[-1]
        return last

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, as they are written to disk."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"scores": self.scores, **arrays}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], name: str = "scores") -> Scores:
        """The inverse of :meth:`to_arrays`.

        Args:
            arrays: Arrays as :meth:`to_arrays` has returned them.
            name: What an error message calls them.

        Raises:
            ValueError: If one is missing, or their shapes do not fit together.
        """
        expected = [field.name for field in fields(cls)]
        missing = [array for array in expected if array not in arrays]
        if missing:
            raise InputError(
                f"{name}: no array {missing[0]}; found {', '.join(arrays) or 'none'}, expected "
                f"{', '.join(expected)}"
            )
        scores = cls(**{array: arrays[array] for array in expected})
        shape = (len(scores.iterations), len(scores.test_classes), len(scores.classes))
        if scores.scores_per_iteration.shape != shape:
            raise InputError(
                f"{name}: scores_per_iteration has shape {scores.scores_per_iteration.shape}, "
                f"expected {shape} as iterations, test_classes and classes have it"
            )
        return scores


def top_k_hits(
    scores: NDArray[np.float32], test_classes: NDArray[np.int32], k: int
) -> NDArray[np.bool_]:
    """Whether the true class is among the k best. Ties go to the lowest class number.

    Args:
        scores: float32 (T, C).
        test_classes: int32 (T,), 0..C-1.
        k: How many classes may be guessed.

    Returns:
        bool (T,).

    Raises:
        ValueError: For NaN scores, or a class out of range.
    """
    n_images, n_classes = scores.shape
    if len(test_classes) != n_images:
        raise InputError(f"scores: {n_images} rows, but {len(test_classes)} true classes")
    if n_images and not 0 <= test_classes.min() <= test_classes.max() < n_classes:
        raise InputError(
            f"test_classes: found {test_classes.min()}..{test_classes.max()}, "
            f"expected 0..{n_classes - 1}"
        )
    hits = np.empty(n_images, dtype=bool)
    numbers = np.arange(n_classes)
    for first, last in row_ranges(n_images, _BLOCK_ROWS):
        block = scores[first:last]
        if np.isnan(block).any():
            row = first + int(np.flatnonzero(np.isnan(block).any(axis=1))[0])
            raise InputError(f"scores: found NaN in row {row}; expected numbers")
        true = test_classes[first:last, None]
        true_score = np.take_along_axis(block, true, axis=1)
        ahead = (block > true_score) | ((block == true_score) & (numbers < true))
        hits[first:last] = ahead.sum(axis=1) < k
    return hits


def right_and_wrong(
    correct: NDArray[np.bool_], classes: NDArray[np.int32], n_images: int
) -> NDArray[np.int64]:
    """Positions of some images: half recognised, half not, spread over the classes.

    Args:
        correct: bool (T,), whether images are recognised.
        classes: int32 (T,), their true classes.
        n_images: How many.

    Returns:
        int64 (at most n_images,), in class order.
    """
    by_class = np.argsort(classes, kind="stable")
    wrong, right = by_class[~correct[by_class]], by_class[correct[by_class]]
    n_wrong = min(len(wrong), max(n_images // 2, n_images - len(right)))
    n_right = min(len(right), n_images - n_wrong)
    chosen = np.concatenate(
        [
            group[np.linspace(0, len(group) - 1, n).round().astype(np.int64)]
            for group, n in ((wrong, n_wrong), (right, n_right))
            if n
        ]
        or [np.empty(0, dtype=np.int64)]
    )
    return chosen[np.argsort(classes[chosen], kind="stable")]


def accuracies(
    scores: NDArray[np.float32],
    test_classes: NDArray[np.int32],
    is_novel: NDArray[np.bool_],
    top_k: Sequence[int],
) -> dict[str, float | None]:
    """Top-k accuracies over all test images, those of novel and those of base classes.

    Args:
        scores: float32 (T, C).
        test_classes: int32 (T,).
        is_novel: bool (C,).
        top_k: Values of k.

    Returns:
        Fractions named top1, top5, …, top1_novel, …, top1_base, …; None where no test image
        belongs to the group.
    """
    hits = {k: top_k_hits(scores, test_classes, k) for k in top_k}
    novel_images = is_novel[test_classes]
    members_of = (np.ones_like(novel_images), novel_images, ~novel_images)
    groups = dict(zip(GROUPS, members_of, strict=True))
    return {
        f"top{k}{group}": float(hits[k][members].mean()) if members.any() else None
        for group, members in groups.items()
        for k in top_k
    }


def telling_top_k(top_k: Sequence[int], n_classes: int) -> tuple[int, ...]:
    """The values of k whose accuracy says something.

    With as many guesses as there are classes one of them is always right: metrics files hold such
    an accuracy where it is asked for, tables and plots leave it out.

    Args:
        top_k: Values of k.
        n_classes: Number of classes C.

    Returns:
        Those below C, or the smallest if there is none.
    """
    return tuple(k for k in top_k if k < n_classes) or (min(top_k),)


def log_top_k_left_out(top_k: Sequence[int], n_classes: int) -> None:
    """Say which values of k tables and plots leave out, if any, or that none says anything."""
    telling = telling_top_k(top_k, n_classes)
    left_out = [f"top-{k}" for k in top_k if k not in telling]
    if telling[0] >= n_classes:
        logger.warning(
            "top_k: %s, but with %d classes so many guesses are always right; expected a k below",
            list(top_k),
            n_classes,
        )
    elif left_out:
        logger.info(
            "%s left out of tables and plots: with %d classes so many guesses are always right",
            ", ".join(left_out),
            n_classes,
        )


def accuracies_per_iteration(scores: Scores, top_k: Sequence[int]) -> list[dict[str, Any]]:
    """The :func:`accuracies` after each iteration that `scores` holds."""
    return [
        {
            "iteration": int(iteration),
            **accuracies(iteration_scores, scores.test_classes, scores.is_novel, top_k),
        }
        for iteration, iteration_scores in zip(
            scores.iterations, scores.scores_per_iteration, strict=True
        )
    ]


def build_metrics(
    scores: Scores,
    per_iteration: Sequence[Mapping[str, Any]],
    experiment: Mapping[str, Any],
    n_nodes: int | None,
    seconds: Mapping[str, float],
    peak_rss_bytes: int,
) -> dict[str, Any]:
    """What a pipeline reports of its run: the content of a *_metrics.json file.

    Args:
        scores: Scores of the test images.
        per_iteration: Accuracies after each iteration that was evaluated.
        experiment: The parameters used.
        n_nodes: Nodes of the graph, None for a method without one.
        seconds: Time of each phase.
        peak_rss_bytes: Largest resident memory of the process so far.
    """
    return {
        "experiment": dict(experiment),
        "n_classes": len(scores.classes),
        "n_novel": int(scores.is_novel.sum()),
        "n_test": len(scores.test_classes),
        "n_nodes": n_nodes,
        "per_iteration": [dict(entry) for entry in per_iteration],
        "final": dict(per_iteration[-1]),
        "seconds": dict(seconds),
        "peak_rss_bytes": peak_rss_bytes,
    }
