"""Groups, and sizes that can be learnt from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lowshot_kedro.deepercluster.groups import (
    images_per_group,
    own_rows_of_groups,
    process_groups,
    published_sizes,
    require_sizes,
)
from lowshot_kedro.deepercluster.parameters import DeeperClusterParameters
from lowshot_kedro.errors import InputError

# Of the original: a row for each process, and one for each choice of sizes.
REFERENCE = np.load(Path(__file__).parent / "training.npz")


def parameters(**changes) -> DeeperClusterParameters:
    values = {"batch_size": 16, "n_super_classes": 8, "n_clusters": 6, "rotation": True}
    return DeeperClusterParameters(**{**values, **changes})


def test_groups_are_those_of_the_original() -> None:
    expected = REFERENCE["groups"]
    worlds = np.unique(expected[:, :3], axis=0)
    assert len(expected) == 106 and len(worlds) == 6
    found = [
        (world_size, n_super_classes, rotation, *group)
        for world_size, n_super_classes, rotation in worlds.tolist()
        for group in process_groups(world_size, n_super_classes, rotation)
    ]
    assert sorted(found) == sorted(map(tuple, expected.tolist()))


def test_sizes_are_those_of_the_original() -> None:
    for world_size, n_super_classes, rotation, n_images, batch, k, *expected in REFERENCE[
        "sizes"
    ].tolist():
        found = published_sizes(n_images, world_size, batch, n_super_classes, bool(rotation), k)
        assert list(found) == expected
        # Ours are the same where the original has a batch.
        ours = parameters(
            batch_size=batch * world_size,
            n_super_classes=n_super_classes,
            rotation=bool(rotation),
            n_clusters=k,
        )
        assert images_per_group(min(n_images, 95_920_149), ours) == found.images_per_group


def test_groups_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="world_size: got 6, expected a multiple of n_super_cl"):
        process_groups(6, 4, True)
    with pytest.raises(InputError, match="n_super_classes: got 6, expected a multiple of 4"):
        process_groups(6, 6, True)
    assert len(process_groups(6, 6, False)) == 6


def test_places_of_a_batch_are_those_of_the_groups_of_the_original() -> None:
    for rank, group in enumerate(process_groups(16, 8, True)):
        ((found, first, last),) = own_rows_of_groups(48, 8, rank, 16)
        assert found == group.training_group
        assert (first, last) == (3 * group.training_rank, 3 * group.training_rank + 3)


@pytest.mark.parametrize("n_processes", [1, 2, 3, 5, 12, 14])
def test_each_place_belongs_to_one_process(n_processes: int) -> None:
    found = [
        (group, place)
        for rank in range(n_processes)
        for group, first, last in own_rows_of_groups(12, 4, rank, n_processes)
        for place in range(first, last)
    ]
    assert found == [(group, place) for group in range(4) for place in range(3)]


def test_few_images_make_an_epoch_of_whole_batches() -> None:
    # 100 images in 2 super-clusters: 12 for each group, of which a batch has 2.
    assert images_per_group(100, parameters()) == 12
    assert images_per_group(7000, parameters()) == 875 // 16 * 16
    assert images_per_group(100, parameters(images_per_epoch=70)) == 8


@pytest.mark.parametrize(
    ("n_images", "changes", "message"),
    [
        (0, {}, "there are no images"),
        (5, {}, r"n_clusters: got 6, expected at most 5, the images"),
        (
            1,
            {"n_clusters": 2},
            r"n_super_classes: got 8, expected at most 4: there are 1 images",
        ),
        (10, {}, r"batch_size: got 16, expected at most 8, what an epoch of 10 images has for 8"),
        (9, {"n_super_classes": 1, "rotation": False, "n_clusters": 1}, "n_clusters: got 1, exp"),
        (100, {"images_per_epoch": 15}, "images_per_epoch: got 15, expected at least 16, batch_si"),
    ],
)
def test_sizes_that_cannot_work_are_named(n_images: int, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        require_sizes(n_images, parameters(**changes))


def test_the_smallest_sizes_that_work_are_taken() -> None:
    require_sizes(16, parameters())
    require_sizes(6, parameters(images_per_epoch=16))
