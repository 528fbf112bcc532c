"""k-means in two levels: super-clusters of all rows, and clusters of each super-cluster's rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowshot_kedro.deepercluster.lloyd import (
    KMeansSettings,
    ShareKMeans,
    checked_settings,
    gathered,
    kmeans_of,
    min_bytes,
    processes_or_default,
    require_same,
)
from lowshot_kedro.deepercluster.parameters import SHARES
from lowshot_kedro.deepercluster.rows import ArrayRows, Share, read_blocks, share_of
from lowshot_kedro.errors import InputError, NotEnoughMemoryError
from lowshot_kedro.parameters import refuse, require_integer, require_one_of
from lowshot_kedro.training.processes import Processes

# Rows of super-clusters that are held in memory where no budget is stated.
_GATHERED_BYTES = 2**29
# As much as k-means itself has for a block at least.
_MIN_READ_ROWS, _READ_BYTES = 256, 2**20


class HierarchicalKMeans(NamedTuple):
    """A clustering in two levels.

    Attributes:
        super_labels: int64 (N,), the super-cluster of each row.
        sub_labels: int64 (N,), its cluster there, from 0 in every super-cluster.
    """

    super_labels: NDArray[np.int64]
    sub_labels: NDArray[np.int64]


def hierarchical_kmeans(
    features: ArrayLike,
    n_super: int,
    k: int,
    *,
    n_iterations: int = 10,
    seed: int = 0,
    clusters_per_super: str = "fixed",
    memory_budget_gb: float | None = None,
    processes: Processes | None = None,
) -> HierarchicalKMeans:
    """Cluster rows by k-means, and the rows of each cluster by k-means once more.

    Every row gets both labels. Results have the same bits for any number of threads and processes.
    Two levels take less time than one of as many clusters, for a larger mean squared distance.

    Args:
        features: As for :func:`~lowshot_kedro.deepercluster.kmeans`.
        n_super: Super-clusters; with one there is nothing to find on the first level.
        k: Clusters of all super-clusters together, at most N.
        n_iterations: Updates of the centroids on each level.
        seed: Of the first centroids.
        clusters_per_super: `fixed`: each super-cluster has k / n_super clusters; `proportional`: as
            its share of the rows is, one at least. None has more clusters than rows.
        memory_budget_gb: Memory beside the features and 32 bytes for each of them; in GB.
        processes: Those that work together: each passes all rows and gets all labels; None: the
            default group of torch.distributed, or this one.

    Returns:
        The super-cluster of each row, and its cluster among those of the super-cluster, from 0;
        int64 (N,) each.

    Raises:
        InputError: If an argument cannot be used.
        NotEnoughMemoryError: If the budget is too small for k and d.
    """
    processes = processes_or_default(processes)
    settings = checked_settings(n_iterations, seed, memory_budget_gb, processes.device.type)
    share = share_of(features, processes)
    require_levels(n_super, k, clusters_per_super)
    require_same(features, (n_super, k, clusters_per_super, settings), processes)
    if share.n_rows < k:
        raise InputError(
            f"features: found {share.n_rows} rows, expected at least as many as clusters, {k}"
        )
    try:
        first = first_level(share, n_super, settings)
        n_clusters = numbers_of_clusters(first.report.sizes, k, clusters_per_super)
        sub_labels = np.zeros(share.rows.n_rows, np.int32)
        for _, members, found in second_level(share, first.labels, n_clusters, settings):
            sub_labels[members] = found.labels
    except NotEnoughMemoryError as error:
        raise error.renamed("memory_budget_gb") from error
    both = (gathered(labels, processes) for labels in (first.labels, sub_labels))
    return HierarchicalKMeans(*(labels.astype(np.int64) for labels in both))


def require_levels(n_super: int, k: int, clusters_per_super: str) -> None:
    """Refuse numbers of clusters that do not go together.

    Raises:
        InputError: Naming the argument.
    """
    require_integer("n_super", n_super, 1)
    require_integer("k", k, n_super)
    require_one_of("clusters_per_super", clusters_per_super, SHARES)
    if clusters_per_super == "fixed" and k % n_super:
        expected = f"a multiple of n_super, {n_super}, or clusters_per_super = proportional"
        raise refuse("k", k, expected)


def numbers_of_clusters(sizes: NDArray[np.int64], k: int, clusters_per_super: str) -> list[int]:
    """How many clusters each super-cluster is to have.

    Args:
        sizes: (n_super,), rows of each super-cluster.
        k: Clusters of all together.
        clusters_per_super: `fixed` or `proportional`, by largest remainders.

    Returns:
        (n_super,) numbers, at most as many as there are rows.
    """
    if clusters_per_super == "fixed":
        return [min(int(size), k // len(sizes)) for size in sizes]
    n_rows = int(sizes.sum())
    shares = [k * int(size) for size in sizes]
    numbers = [
        min(int(size), max(1, each // n_rows)) for size, each in zip(sizes, shares, strict=True)
    ]
    by_remainder = sorted(range(len(sizes)), key=lambda number: -(shares[number] % n_rows))
    left = min(k, n_rows) - sum(numbers)
    while left:
        # Too many only where somebody has one who would have none.
        step = 1 if left > 0 else -1
        for number in by_remainder[::step]:
            changed = numbers[number] + step
            if left and 1 <= changed <= sizes[number]:
                numbers[number] = changed
                left -= step
    return numbers


def first_level(share: Share, n_super: int, settings: KMeansSettings) -> ShareKMeans:
    """Super-clusters of all rows; with one of them, all rows have label 0.

    In memory: 12 bytes for each own row, and what `settings` allows. All processes call together.
    """
    if n_super == 1:
        # The mean, and distances from it: one update finds it, from anywhere.
        settings = replace(settings, n_iterations=1)
    return kmeans_of(share, n_super, settings, name="super-clusters")


def second_level(
    share: Share,
    super_labels: NDArray[np.int32],
    n_clusters: Sequence[int],
    settings: KMeansSettings,
    supers: Iterable[int] | None = None,
) -> Iterator[tuple[int, NDArray[np.int64], ShareKMeans]]:
    """Clusters in each super-cluster, one super-cluster after the other.

    All processes iterate together. In memory: 20 bytes for each own row of a super-cluster, and
    what `settings` allows.

    Args:
        share: The rows of this process.
        super_labels: (n,), the super-cluster of each of them.
        n_clusters: Clusters of each super-cluster; those that are to have none are left out.
        settings: How. Each super-cluster has a seed of its own that follows from the one there.
        supers: Numbers of the super-clusters that are wanted; None: all.

    Yields:
        The number of the super-cluster, the numbers of own rows that are in it, and the clusters.
    """
    numbers = range(len(n_clusters)) if supers is None else supers
    wanted = [number for number in numbers if n_clusters[number]]
    budget = settings.memory_budget_bytes
    gathered_here: dict[int, NDArray[np.float32]] = {}
    for place, number in enumerate(wanted):
        members = np.flatnonzero(super_labels == number)
        if number not in gathered_here:
            gathered_here = _gather(share, super_labels, wanted[place:], n_clusters, settings)
        held = sum(rows.nbytes for rows in gathered_here.values())
        rows = gathered_here.pop(number, None)
        own = replace(
            settings,
            seed=_seed_of(settings.seed, number),
            memory_budget_bytes=None if budget is None else budget - held,
        )
        here = share if rows is None else replace(share, rows=ArrayRows(rows))
        found = kmeans_of(
            here,
            n_clusters[number],
            own,
            members=members if rows is None else None,
            name=f"clusters of super-cluster {number}",
        )
        # Or it would be there beside those that are read next.
        del rows, here
        yield number, members, found


def _gather(
    share: Share,
    super_labels: NDArray[np.int32],
    supers: Sequence[int],
    n_clusters: Sequence[int],
    settings: KMeansSettings,
) -> dict[int, NDArray[np.float32]]:
    """The rows of as many of the first super-clusters as memory holds, read in one go.

    Rows of one super-cluster are scattered over all of them, and wanted in every pass.
    """
    n_columns, budget = share.rows.n_columns, settings.memory_budget_bytes
    sizes = np.bincount(super_labels, minlength=len(n_clusters))
    left = _GATHERED_BYTES
    if budget is not None:
        left = budget - max(min_bytes(n_clusters[number], n_columns) for number in supers)
    gathered_here: dict[int, NDArray[np.float32]] = {}
    for number in supers:
        left -= 4 * n_columns * int(sizes[number])
        if left < 0:
            break
        gathered_here[number] = np.empty((int(sizes[number]), n_columns), np.float32)
    if not gathered_here:
        return {}
    ends = dict.fromkeys(gathered_here, 0)
    room = np.empty((max(_MIN_READ_ROWS, _READ_BYTES // (4 * n_columns)), n_columns), np.float32)
    for first, rows in read_blocks(share.rows, room):
        labels = super_labels[first : first + len(rows)]
        for number, into in gathered_here.items():
            found = np.flatnonzero(labels == number)
            begin = ends[number]
            ends[number] = begin + len(found)
            # Without "clip" numpy would make a copy, lest there be a number that is no row.
            np.take(rows, found, 0, into[begin : ends[number]], "clip")
    return gathered_here


def _seed_of(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, 1 + number]).generate_state(1, np.uint64)[0])
