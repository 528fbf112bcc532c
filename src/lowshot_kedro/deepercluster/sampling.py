"""Which images an epoch of DeeperCluster learns from: as many of each cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowshot_kedro.deepercluster.groups import OwnRows, own_rows_of_groups
from lowshot_kedro.errors import InputError
from lowshot_kedro.parameters import refuse, require_integer
from lowshot_kedro.training.batches import Part, seed_of
from lowshot_kedro.training.processes import Processes

_MAX_SEED = 2**32 - 1


def uniform_label_sample(
    labels: ArrayLike, total: int, seed: int, rank: int = 0, n_ranks: int = 1
) -> NDArray[np.int64]:
    """Draw images such that each label has as many, and take every n-th of them.

    Of each label that there is total // (number of labels) + 1 images are drawn, with replacement
    only where it has no more than that; all of them are shuffled, and the first `total` are kept.
    The draws are those of the original DeeperCluster. In memory are three integers of 64 bits for
    each image and two for each draw.

    Args:
        labels: Integers (N,), the label of each image. Images of negative labels are left out.
        total: Images that are drawn for all ranks together.
        seed: Of the draws, 0..2³² - 1.
        rank: Which of the parts is returned.
        n_ranks: How many parts there are.

    Returns:
        int64 (n,), numbers of images: those at the places rank, rank + n_ranks, … of the draws.

    Raises:
        InputError: If an argument cannot be used, or no image has a label.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        found = f"{labels.dtype} {labels.shape}"
        raise InputError(parameter="labels", found=found, expected="integers, one for each image")
    require_integer("total", total, 0)
    require_integer("seed", seed, 0, _MAX_SEED)
    require_integer("n_ranks", n_ranks, 1)
    require_integer("rank", rank, 0, n_ranks - 1)
    order = np.argsort(labels, kind="stable")
    order = order[np.searchsorted(labels[order], 0) :] if labels.dtype.kind == "i" else order
    if len(order) == 0:
        raise refuse("labels", f"{len(labels)} of them", "a label that is not negative")
    in_order = labels[order]
    starts = np.flatnonzero(np.diff(in_order, prepend=in_order[:1] - 1))
    of_labels = np.split(order, starts[1:])
    n_each = total // len(of_labels) + 1
    random = np.random.RandomState(seed)
    drawn = np.concatenate(
        [random.choice(each, n_each, replace=len(each) <= n_each) for each in of_labels]
    )
    random.shuffle(drawn)
    return drawn[:total][rank::n_ranks].astype(np.int64)


class GroupedOrder:
    """Batches that have as many places for each training group, group after group.

    Group g has images of super-cluster g // n_rotations, as many of each cluster as
    :func:`uniform_label_sample` draws. In memory: 4 bytes for each image of an epoch of the groups
    of which this process has places, and what a draw takes.

    Args:
        n_groups: Training groups.
        n_rotations: Training groups of a super-cluster.
        images_per_group: Images of an epoch for each group, a multiple of its places in a batch.
        batch_size: Images of a batch, of all processes together; a multiple of the groups.
        seed: Of the draws.
        processes: Those that share a batch.

    Attributes:
        n_images: Images of an epoch.
        batch_size: As given.
        own: What this process has of each batch.
    """

    def __init__(
        self,
        n_groups: int,
        n_rotations: int,
        images_per_group: int,
        batch_size: int,
        seed: int,
        processes: Processes,
    ) -> None:
        self.n_images, self.batch_size = n_groups * images_per_group, batch_size
        if processes.n_processes > batch_size:
            raise refuse("batch_size", batch_size, f"at least {processes.n_processes}, processes")
        self.own: list[OwnRows] = own_rows_of_groups(
            batch_size, n_groups, processes.rank, processes.n_processes
        )
        self._n_groups, self._n_rotations, self._seed = n_groups, n_rotations, seed
        self._labels: _Labels | None = None

    def __len__(self) -> int:
        return self.n_images // self.batch_size

    def size(self, batch: int) -> int:
        """Images of a batch, of all processes together."""
        return self.batch_size

    def use_labels(
        self, super_labels: NDArray[np.integer], sub_labels: NDArray[np.integer]
    ) -> None:
        """Draw from these clusters from the next epoch on.

        Args:
            super_labels: Integers (N,), the super-cluster of each image.
            sub_labels: Integers (N,), its cluster in that.
        """
        self._labels = _Labels(super_labels, sub_labels)

    def parts(self, epoch: int, first_batch: int) -> Iterator[Part]:
        """What this process gets of each batch from one on."""
        per_group = self.batch_size // self._n_groups
        orders = self._orders(epoch)
        for batch in range(first_batch, len(self)):
            first = batch * per_group
            numbers = [
                order[first + rows.first : first + rows.last]
                for rows, order in zip(self.own, orders, strict=True)
            ]
            start = batch * self.batch_size + self.own[0].group * per_group + self.own[0].first
            joined = np.concatenate(numbers).astype(np.int64)
            yield Part(epoch, np.arange(start, start + len(joined)), joined)

    def _orders(self, epoch: int) -> list[NDArray[np.int32]]:
        """For each group of which this process has places, its images of an epoch in order."""
        assert self._labels is not None, "use_labels comes first"
        orders, total = [], self.n_images // self._n_groups
        super_cluster, members, labels = -1, np.empty(0, np.int64), np.empty(0, np.int32)
        for group, _, _ in self.own:
            if super_cluster != group // self._n_rotations:
                super_cluster = group // self._n_rotations
                members = np.flatnonzero(self._labels.super_labels == super_cluster)
                labels = np.asarray(self._labels.sub_labels)[members]
            if len(members) == 0:
                raise InputError(
                    f"super-cluster {super_cluster} has no image to learn from",
                    parameter="n_super_classes",
                    found=self._n_groups,
                    expected="fewer",
                )
            # The original's epoch + group has group g + 1 draw in one epoch what group g draws in
            # the next, where both have the same labels.
            seed = seed_of(self._seed, epoch, group) % (_MAX_SEED + 1)
            orders.append(members[uniform_label_sample(labels, total, seed)].astype(np.int32))
        return orders


class _Labels(NamedTuple):
    super_labels: NDArray[np.integer]
    sub_labels: NDArray[np.integer]
