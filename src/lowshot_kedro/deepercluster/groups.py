"""Training groups and clustering groups: who learns which super-class, and from how many images.

A training group learns from the images of one super-class, (super-cluster, rotation). In the
original it is a number of processes. Here it is a number of places in each batch, whoever computes
them, so that results do not depend on the number of processes; where the original runs too, each
process has the places of its training group.
"""

from __future__ import annotations

from typing import NamedTuple

from lowshot_kedro.deepercluster.parameters import N_ROTATIONS, DeeperClusterParameters
from lowshot_kedro.errors import InputError
from lowshot_kedro.parameters import refuse, require_integer, truth_of
from lowshot_kedro.training.batches import own_rows

# Images of YFCC100M without those that are missing or of one colour.
PUBLISHED_N_IMAGES = 95_920_149
# The original divides by the rotations also where there are none.
_PARTS_OF_EPOCH = 4


class ProcessGroup(NamedTuple):
    """Which groups a process of the original belongs to.

    Attributes:
        rank: The process.
        training_size: Processes of a training group.
        training_group: The training group, which is the super-class of its images.
        training_rank: The place of the process in it.
        n_super_clusters: Clustering groups.
        clustering_size: Processes of a clustering group.
        clustering_group: The clustering group, which is the super-cluster of its images.
        clustering_rank: The place of the process in it.
        rotation: Quarter turns of its images, counter-clockwise.
    """

    rank: int
    training_size: int
    training_group: int
    training_rank: int
    n_super_clusters: int
    clustering_size: int
    clustering_group: int
    clustering_rank: int
    rotation: int


class PublishedSizes(NamedTuple):
    """How many images and clusters the original takes.

    Attributes:
        n_images: Images that are clustered.
        images_per_group: Images of an epoch, for each training group.
        clusters_per_super: Clusters of a super-cluster.
    """

    n_images: int
    images_per_group: int
    clusters_per_super: int


class OwnRows(NamedTuple):
    """What a process has of a training group's places in a batch.

    Attributes:
        group: The training group.
        first: Its first place there, counted from the group's first one.
        last: The one after the last.
    """

    group: int
    first: int
    last: int


def process_groups(world_size: int, n_super_classes: int, rotation: bool) -> list[ProcessGroup]:
    """The groups of the original, for each of its processes.

    Args:
        world_size: How many processes there are, a multiple of the super-classes.
        n_super_classes: Super-clusters, times 4 with rotation.
        rotation: Whether images are turned; NumPy's booleans, 1 and 0 will do, too.

    Raises:
        InputError: If the numbers do not fit together.
    """
    require_integer("world_size", world_size, 1)
    require_integer("n_super_classes", n_super_classes, 1)
    rotation = truth_of("rotation", rotation)
    n_rotations = N_ROTATIONS if rotation else 1
    if n_super_classes % n_rotations:
        expected = "a multiple of 4, the rotations, or rotation = false"
        raise refuse("n_super_classes", n_super_classes, expected)
    if world_size % n_super_classes:
        expected = f"a multiple of n_super_classes, {n_super_classes}"
        raise refuse("world_size", world_size, expected)
    training, n_super_clusters = world_size // n_super_classes, n_super_classes // n_rotations
    clustering = training * n_rotations
    return [
        ProcessGroup(
            rank,
            training,
            rank // training,
            rank % training,
            n_super_clusters,
            clustering,
            rank // clustering,
            rank % clustering,
            rank % clustering // training,
        )
        for rank in range(world_size)
    ]


def published_sizes(
    n_images: int,
    world_size: int,
    batch_size: int,
    n_super_classes: int,
    rotation: bool,
    n_clusters: int,
) -> PublishedSizes:
    """How many images and clusters the original takes; images that are left over it drops.

    Args:
        n_images: Images that there are.
        world_size: Processes.
        batch_size: Images of a batch, for each process.
        n_super_classes: As for :func:`process_groups`.
        rotation: Likewise.
        n_clusters: Clusters of all super-clusters together.

    Raises:
        InputError: As :func:`process_groups`.
    """
    n_super_clusters = process_groups(world_size, n_super_classes, rotation)[0].n_super_clusters
    batch = batch_size * world_size
    size = _floored(min(n_images, PUBLISHED_N_IMAGES), batch)
    return PublishedSizes(
        size, _images_of_epoch(size, n_super_clusters, batch), n_clusters // n_super_clusters
    )


def images_per_group(n_images: int, parameters: DeeperClusterParameters) -> int:
    """Images of an epoch for each training group.

    As published, a quarter of the super-cluster's images if these were of one size, as far as they
    make up whole batches for each process of a group; where that is none, whole batches.

    Args:
        n_images: Images that there are.
        parameters: `images_per_epoch` is taken where it is given.

    Raises:
        InputError: If there is no batch in an epoch.
    """
    n_groups, batch = parameters.n_super_classes, parameters.batch_size
    wanted = parameters.images_per_epoch
    if wanted is not None:
        found = _floored(wanted // n_groups, batch // n_groups)
        if found == 0:
            expected = f"at least {batch}, batch_size"
            raise refuse("images_per_epoch", wanted, expected)
        return found
    found = _images_of_epoch(n_images, parameters.n_super_clusters, batch)
    if found == 0:
        available = _images_of_epoch(n_images, parameters.n_super_clusters, 1)
        found = _floored(available, batch // n_groups)
        if found == 0:
            raise refuse(
                "batch_size",
                batch,
                f"at most {n_groups * available}, what an epoch of {n_images} images has for "
                f"{n_groups} super-class(es), or more of images_per_epoch",
            )
    return found


def require_sizes(n_images: int, parameters: DeeperClusterParameters) -> None:
    """Refuse sizes with which nothing would be learnt, before anything runs.

    Args:
        n_images: Images that there are.
        parameters: How a network is trained.

    Raises:
        InputError: For fewer images than clusters, and an epoch without a batch.
    """
    if n_images < 1:
        raise InputError("there are no images; expected some to learn from")
    if parameters.n_super_classes == parameters.n_clusters == 1:
        expected = "more than 1 where n_super_classes is 1: there would be nothing to learn"
        raise refuse("n_clusters", 1, expected)
    if parameters.n_super_clusters > n_images:
        raise refuse(
            "n_super_classes",
            parameters.n_super_classes,
            f"at most {n_images * parameters.n_rotations}: there are {n_images} images",
        )
    if parameters.n_clusters > n_images:
        expected = f"at most {n_images}, the images"
        raise refuse("n_clusters", parameters.n_clusters, expected)
    images_per_group(n_images, parameters)


def own_rows_of_groups(
    batch_size: int, n_groups: int, rank: int, n_processes: int
) -> list[OwnRows]:
    """What a process has of the training groups' places in a batch, group after group.

    Args:
        batch_size: Places of a batch, a multiple of the groups.
        n_groups: Training groups, which follow each other in a batch with as many places each.
        rank: The process.
        n_processes: How many share the batch.
    """
    rows, size = own_rows(batch_size, rank, n_processes), batch_size // n_groups
    return [
        OwnRows(group, max(rows.start - group * size, 0), min(rows.stop - group * size, size))
        for group in range(rows.start // size, -(-rows.stop // size))
        if len(rows)
    ]


def _floored(number: int, multiple: int) -> int:
    return number - number % multiple


def _images_of_epoch(n_images: int, n_super_clusters: int, multiple: int) -> int:
    return _floored(n_images // n_super_clusters // _PARTS_OF_EPOCH, multiple)
