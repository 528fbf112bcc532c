"""Which given labels are held out together, to be predicted from the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.diffusion import folds

N_FOLDS = 5


def deal_labels(
    classes: NDArray[np.int32], groups: NDArray[np.int32] | None, seed: int
) -> list[NDArray[np.int64]]:
    """Deal the labels of each class over up to five folds, those of a group into the same.

    Without groups these are the folds of :func:`lowshot_kedro.diffusion.folds`. With groups, the
    largest come first, each into the fold that has the smallest part of its classes so far: the
    greedy rule of scikit-learn's StratifiedGroupKFold, for classes of which some have fewer groups
    than there are folds.

    Args:
        classes: int32 (L,), 0..C-1.
        groups: int32 (L,), -1 for a label that is a group of its own; None: all are.
        seed: Seed of the order of groups of one size.

    Returns:
        Positions 0..L-1 for each fold, increasing, at least one. Of each class with two labels in
        different groups, at least one fold holds out some; no fold holds out all of them. Labels
        of a class that has none in another fold are in no fold.
    """
    if groups is None or (groups < 0).all():
        return list(folds(classes, seed))
    n_labels, n_classes = len(classes), int(classes.max(initial=-1)) + 1
    single = groups < 0
    numbers = groups.astype(np.int64)
    numbers[single] = numbers.max(initial=-1) + 1 + np.arange(int(single.sum()))
    _, numbers = np.unique(numbers, return_inverse=True)
    fold_of = _dealt_groups(classes, numbers, n_classes, seed)[numbers]
    counts = np.zeros((N_FOLDS, n_classes), np.int64)
    np.add.at(counts, (fold_of, classes), 1)
    is_all = counts == counts.sum(axis=0)
    is_dealt = ~is_all[fold_of, classes] if n_labels else np.empty(0, np.bool_)
    dealt = [np.flatnonzero((fold_of == fold) & is_dealt) for fold in range(N_FOLDS)]
    return [fold for fold in dealt if len(fold)]


def _dealt_groups(
    classes: NDArray[np.int32], numbers: NDArray[np.int64], n_classes: int, seed: int
) -> NDArray[np.int64]:
    """The fold of each group, int64 (G,)."""
    rng = np.random.RandomState(seed)
    order = np.argsort(numbers, kind="stable")
    members = np.split(classes[order], np.flatnonzero(np.diff(numbers[order])) + 1)
    shuffled = rng.permutation(len(members))
    sizes = np.array([len(each) for each in members])
    totals = np.bincount(classes, minlength=n_classes)
    parts = np.zeros((N_FOLDS, n_classes))
    loads = np.zeros(N_FOLDS)
    fold_of = np.empty(len(members), np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        present, counts = np.unique(members[group], return_counts=True)
        added = counts / totals[present]
        overlap = parts[:, present] @ added
        fold = np.lexsort((loads, overlap.round(12)))[0]
        parts[fold, present] += added
        loads[fold] += sizes[group]
        fold_of[group] = fold
    return fold_of
