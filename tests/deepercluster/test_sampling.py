"""Which images an epoch learns from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lowshot_kedro.deepercluster.sampling import GroupedOrder, uniform_label_sample
from lowshot_kedro.errors import InputError
from lowshot_kedro.training.processes import Processes

REFERENCE = np.load(Path(__file__).parent / "training.npz")
CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_samples_are_those_of_the_original(dtype: type) -> None:
    labels = REFERENCE["sampler_labels"].astype(dtype)
    parts = [uniform_label_sample(labels, 96, 5, rank, 2) for rank in range(2)]
    for rank, part in enumerate(parts):
        np.testing.assert_array_equal(part, REFERENCE[f"sampler_a_rank{rank}"])
    counts = np.bincount(labels[np.concatenate(parts)])
    np.testing.assert_array_equal(counts, REFERENCE["sampler_a_counts"])
    whole = uniform_label_sample(labels, 96, 5)
    np.testing.assert_array_equal(whole[::2], parts[0])


def test_images_are_drawn_again_only_where_a_label_has_too_few() -> None:
    labels = np.repeat([0, 1], [4, 40])
    drawn = uniform_label_sample(labels, 20, 1)
    assert len(drawn) == 20
    of_second = drawn[labels[drawn] == 1]
    assert len(set(of_second)) == len(of_second) > 4
    assert len(uniform_label_sample(labels, 0, 1)) == 0


def test_images_without_a_label_are_left_out() -> None:
    labels = np.array([1, -1, 0, -100, 1, 0])
    with_others = uniform_label_sample(labels, 50, 3)
    assert set(with_others) == {0, 2, 4, 5}
    chosen = np.flatnonzero(labels >= 0)
    np.testing.assert_array_equal(with_others, chosen[uniform_label_sample(labels[chosen], 50, 3)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.array([0.5]), 3, 0), r"labels: got 'float64 \(1,\)', expected integers"),
        ((np.array([-1, -1]), 3, 0), "labels: got '2 of them', expected a label that is not neg"),
        ((np.array([1]), -1, 0), "total: got -1"),
        ((np.array([1]), 3, 2**32), "seed: got 4294967296"),
        ((np.array([1]), 3, 0, 2, 2), "rank: got 2"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        uniform_label_sample(*arguments)


def order(rank: int = 0, n_processes: int = 1) -> GroupedOrder:
    """Batches of 12, 3 for each of 4 groups, which are two super-clusters in two rotations."""
    made = GroupedOrder(4, 2, 9, 12, 5, Processes(rank, n_processes, CPU))
    super_labels = (np.arange(60) % 3 == 0).astype(np.int32)
    made.use_labels(super_labels, (np.arange(60) // 3 % 4).astype(np.int32))
    return made


def test_batches_have_as_many_places_for_each_group() -> None:
    made = order()
    assert (made.n_images, len(made), made.size(2)) == (36, 3, 12)
    parts = list(made.parts(epoch=2, first_batch=0))
    assert [part.places.tolist() for part in parts] == [
        list(range(first, first + 12)) for first in (0, 12, 24)
    ]
    numbers = np.array([part.numbers for part in parts]).reshape(3, 4, 3)
    np.testing.assert_array_equal(
        numbers % 3 == 0, np.broadcast_to([[False], [False], [True], [True]], (3, 4, 3))
    )
    of_groups = numbers.transpose(1, 0, 2).reshape(4, 9)
    for images in of_groups:
        # 9 images of 4 clusters: three of each are drawn, and the last three dropped.
        assert np.bincount(images // 3 % 4, minlength=4).max() <= 3
    # The rotations of a super-cluster draw different images.
    assert sorted(of_groups[0]) != sorted(of_groups[1])
    # A stop does not change what comes.
    (last,) = made.parts(2, 2)
    np.testing.assert_array_equal(last.numbers, parts[2].numbers)


def test_no_group_draws_what_another_has_drawn_in_another_epoch() -> None:
    made = order()
    drawn = {
        tuple(
            np.array([p.numbers for p in made.parts(epoch, 0)]).reshape(3, 4, 3)[:, group].ravel()
        )
        for epoch in range(3)
        for group in range(2)
    }
    assert len(drawn) == 6


@pytest.mark.parametrize("n_processes", [2, 3, 5, 12])
def test_processes_share_the_batch_of_one(n_processes: int) -> None:
    expected = list(order().parts(1, 1))
    parts = [list(order(rank, n_processes).parts(1, 1)) for rank in range(n_processes)]
    for number, whole in enumerate(expected):
        for name in ("numbers", "places"):
            found = np.concatenate([getattr(each[number], name) for each in parts])
            np.testing.assert_array_equal(found, getattr(whole, name))


def test_more_processes_than_places_are_refused() -> None:
    with pytest.raises(InputError, match="batch_size: got 12, expected at least 13"):
        order(0, 13)


def test_a_super_cluster_without_images_is_named() -> None:
    made = order()
    made.use_labels(np.zeros(60, np.int32), np.zeros(60, np.int32))
    with pytest.raises(InputError, match="super-cluster 1 has no image to learn from"):
        list(made.parts(0, 0))
