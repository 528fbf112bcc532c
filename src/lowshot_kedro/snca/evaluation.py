"""How well images are recognised by their nearest neighbours: the content of snca_metrics.

Base classes are those that a network was trained on: their test images are compared with the bank,
which remembers images as they were augmented up to an epoch ago, and with embeddings of the same
images computed afresh. Novel classes are told apart by a few labelled images each, the same ones
that the diffusion gets for the same seed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import FeatureMatrix, take_rows
from lowshot_kedro.errors import InputError
from lowshot_kedro.metrics import telling_top_k
from lowshot_kedro.parameters import distinct_values, refuse, require_integer, require_number
from lowshot_kedro.probes import TIES, Gallery
from lowshot_kedro.progress import logged_step
from lowshot_kedro.protocol import ClassSplit, select_images

logger = logging.getLogger(__name__)

TOP_K = (1, 5)


@dataclass(frozen=True)
class KnnEvaluation:
    """What is measured.

    Attributes:
        k: Numbers of neighbours. One is left out where the gallery has fewer rows.
        temperature: A neighbour weighs exp(similarity / temperature).
        n_labeled: Labelled images of every novel class.
        seeds: Seeds of their choice.
    """

    k: tuple[int, ...]
    temperature: float
    n_labeled: tuple[int, ...]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, minimum in (("k", 1), ("n_labeled", 1), ("seeds", 0)):
            check = partial(require_integer, minimum=minimum)
            values = distinct_values(name, getattr(self, name), check)
            object.__setattr__(self, name, tuple(sorted(values)))
        require_number("temperature", self.temperature, 0)
        if self.temperature == 0:
            raise refuse("temperature", self.temperature, "a number above 0")


@dataclass(frozen=True)
class Task:
    """Test images that are to be told apart, and the training images that they are compared with.

    Attributes:
        n_classes: Number of classes C.
        gallery: int64 (n,), rows of the training set.
        gallery_classes: int32 (n,), 0..C-1.
        test: int64 (t,), rows of the test set.
        test_classes: int32 (t,), 0..C-1.
        k: Numbers of neighbours, none above n.
    """

    n_classes: int
    gallery: NDArray[np.int64]
    gallery_classes: NDArray[np.int32]
    test: NDArray[np.int64]
    test_classes: NDArray[np.int32]
    k: tuple[int, ...]

    @property
    def top_k(self) -> tuple[int, ...]:
        """How many classes may be guessed, as far as that tells anything."""
        return telling_top_k(TOP_K, self.n_classes)


@dataclass(frozen=True)
class EvaluationPlan:
    """Which images are compared with which. It follows from labels alone.

    Attributes:
        settings: What is measured.
        base: The classes that a network is trained on.
        novel: For every n_labeled a task for every seed; empty where no class is novel, or none
            has as many training images.
    """

    settings: KnnEvaluation
    base: Task
    novel: Mapping[int, Sequence[Task]]


def plan_evaluation(
    split: ClassSplit | None,
    train_labels: NDArray[np.int32],
    test_labels: NDArray[np.int32],
    trained: NDArray[np.int64],
    settings: KnnEvaluation,
) -> EvaluationPlan:
    """Choose the images of an evaluation. Done before a training, it refuses what cannot be judged.

    Args:
        split: Base and novel classes; None: there are no novel ones.
        train_labels: int32 (n,), 0-based labels of the training set.
        test_labels: int32 (m,), 0-based labels of the test set.
        trained: int64, rows of the training set that a network is trained on, in the order of its
            bank.
        settings: What is measured.

    Raises:
        InputError: If no class has test images, k is larger than any gallery, or labels and class
            split do not go together.
    """
    classes = np.unique(train_labels[trained]).astype(np.int64)
    if len(classes) == 0:
        raise InputError("training images: none of the classes to train on; expected at least one")
    base = _task(classes, train_labels, test_labels, trained, settings.k)
    if split is None:
        return EvaluationPlan(settings, base, {})
    novel = np.setdiff1d(split.novel_classes, classes)
    if len(novel) < len(split.novel_classes):
        logger.info(
            "%d of %d novel classes were trained on, so nothing is measured of them",
            len(split.novel_classes) - len(novel),
            len(split.novel_classes),
        )
    if len(novel) == 0:
        return EvaluationPlan(settings, base, {})
    if not np.isin(test_labels, novel).any():
        logger.warning("no test images of novel classes, so nothing is measured of them")
        return EvaluationPlan(settings, base, {})
    largest = max(np.count_nonzero(train_labels == label) for label in novel)
    tasks: dict[int, list[Task]] = {}
    for n_labeled in settings.n_labeled:
        if n_labeled > largest > 0:
            logger.warning(
                "n_labeled: %d left out, as no novel class has more than %d training images",
                n_labeled,
                largest,
            )
            continue
        for seed in settings.seeds:
            chosen = select_images(split, train_labels, test_labels, n_labeled, seed)
            labels = chosen.classes[chosen.labeled_classes]
            rows = chosen.labeled_positions[np.isin(labels, novel)]
            # One neighbour always has something to say.
            ks = (1, *(k for k in settings.k if 1 < k <= len(rows)))
            task = _task(novel, train_labels, test_labels, rows, ks)
            tasks.setdefault(n_labeled, []).append(task)
    return EvaluationPlan(settings, base, tasks)


def evaluate(
    plan: EvaluationPlan,
    bank: NDArray[np.float32],
    train: FeatureMatrix | NDArray[np.float32],
    test: FeatureMatrix | NDArray[np.float32],
) -> dict[str, Any]:
    """All accuracies of a plan, as JSON holds them.

    Args:
        plan: Which images are compared.
        bank: float32 (N, d), a row for each image of the base task's gallery, in its order.
        train: float32 (n, d), embeddings of the training set, made with the transforms of testing.
        test: float32 (m, d), those of the test set.

    Returns:
        `k` and `temperature` as asked for; `ties`, a sentence; `base` as :func:`evaluate_base` and
        `novel` as :func:`evaluate_novel` returns them. In memory besides: twice the
        size of the bank, and the rows of the test set.

    Raises:
        InputError: For a bank of other images or columns, NaN, infinity, or a temperature so small
            that scores are no numbers.
    """
    return {
        "k": list(plan.settings.k),
        "temperature": plan.settings.temperature,
        "ties": TIES,
        "base": evaluate_base(plan, bank, train, test),
        "novel": evaluate_novel(plan, train, test),
    }


def evaluate_base(
    plan: EvaluationPlan,
    bank: NDArray[np.float32],
    train: FeatureMatrix | NDArray[np.float32],
    test: FeatureMatrix | NDArray[np.float32],
) -> dict[str, Any]:
    """Accuracies for the test images of the classes that a network was trained on.

    Args:
        plan: Which images are compared.
        bank: As for :func:`evaluate`.
        train: As for :func:`evaluate`.
        test: As for :func:`evaluate`.

    Returns:
        `n_classes`, `n_test`, and as `bank` and `fresh` lists with `k`, `top1` and `top5` for each
        number of neighbours; top5 is None with fewer than six classes.
    """
    task = plan.base
    if len(bank) != len(task.gallery):
        raise InputError(
            f"bank: {len(bank)} rows, expected one for each of {len(task.gallery)} images"
        )
    queries = _rows(test, task.test)
    found: dict[str, Any] = {"n_classes": task.n_classes, "n_test": len(task.test)}
    for name, gallery in (("bank", bank), ("fresh", _rows(train, task.gallery))):
        with logged_step(f"k-NN of {len(queries)} test images, {name}"):
            found[name] = _accuracies(task, gallery, queries, plan.settings.temperature)
    return found


def evaluate_novel(
    plan: EvaluationPlan,
    train: FeatureMatrix | NDArray[np.float32],
    test: FeatureMatrix | NDArray[np.float32],
) -> dict[str, Any] | None:
    """Accuracies for the test images of novel classes, told apart by a few labelled images.

    Args:
        plan: Which images are compared.
        train: As for :func:`evaluate`.
        test: As for :func:`evaluate`.

    Returns:
        `n_classes`, `n_test`, and `results`: for each n_labeled and k the `seeds`, and mean and
        deviation over them as top1_mean, top1_std, top5_mean, top5_std. The deviation is that of a
        sample, and None for a single seed; those of top5 are None with fewer than six classes. None
        where no class is novel.
    """
    if not plan.novel:
        return None
    any_task = next(iter(plan.novel.values()))[0]
    queries = _rows(test, any_task.test)
    results: list[dict[str, Any]] = []
    with logged_step(f"k-NN of {len(queries)} test images of novel classes"):
        for n_labeled, tasks in plan.novel.items():
            found = [
                _accuracies(task, _rows(train, task.gallery), queries, plan.settings.temperature)
                for task in tasks
            ]
            for of_one_k in zip(*found, strict=True):
                results.append(
                    {
                        "n_labeled": n_labeled,
                        "k": of_one_k[0]["k"],
                        "seeds": list(plan.settings.seeds),
                        **_over_seeds(of_one_k),
                    }
                )
    return {"n_classes": any_task.n_classes, "n_test": len(queries), "results": results}


def _task(
    classes: NDArray[np.int64],
    train_labels: NDArray[np.int32],
    test_labels: NDArray[np.int32],
    gallery: NDArray[np.int64],
    ks: Sequence[int],
) -> Task:
    test = np.flatnonzero(np.isin(test_labels, classes))
    if len(test) == 0:
        raise InputError(
            f"test images: none of the {len(classes)} classes trained on; expected at least one"
        )
    possible = tuple(k for k in ks if k <= len(gallery))
    if not possible:
        raise refuse("k", list(ks), f"one up to {len(gallery)}, the images to compare with")
    if len(possible) < len(ks):
        logger.warning(
            "k: %s left out, as there are only %d images to compare with",
            ", ".join(str(k) for k in ks if k not in possible),
            len(gallery),
        )
    return Task(
        len(classes),
        gallery,
        np.searchsorted(classes, train_labels[gallery]).astype(np.int32),
        test,
        np.searchsorted(classes, test_labels[test]).astype(np.int32),
        possible,
    )


def _rows(
    embeddings: FeatureMatrix | NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    if isinstance(embeddings, np.ndarray):
        chosen: NDArray[np.float32] = embeddings[rows]
        return chosen
    return take_rows(embeddings, rows)


def _accuracies(
    task: Task,
    gallery: NDArray[np.float32],
    queries: NDArray[np.float32],
    temperature: float,
) -> list[dict[str, Any]]:
    found = Gallery(gallery, task.gallery_classes, task.n_classes).accuracies(
        queries, task.test_classes, task.k, temperature, task.top_k
    )
    untold: dict[str, Any] = {f"top{guesses}": None for guesses in TOP_K}
    return [{"k": accuracies["k"], **untold, **accuracies} for accuracies in found]


def _over_seeds(found: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    result: dict[str, float | None] = {}
    for name in (f"top{guesses}" for guesses in TOP_K):
        values = [accuracies[name] for accuracies in found]
        told = values[0] is not None
        result[f"{name}_mean"] = float(np.mean(values)) if told else None
        several = told and len(values) > 1
        result[f"{name}_std"] = float(np.std(values, ddof=1)) if several else None
    return result
