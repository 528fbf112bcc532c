"""What DeeperCluster learns: as the original, in any number of processes, whatever stops them."""

from __future__ import annotations

import random
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from lowshot_kedro.deepercluster.assignments import Clustering
from lowshot_kedro.deepercluster.heads import Heads
from lowshot_kedro.deepercluster.sampling import GroupedOrder
from lowshot_kedro.errors import InputError
from lowshot_kedro.training.batches import seed_of
from lowshot_kedro.training.transforms import RECIPES
from tests.deepercluster.making import (
    N_IMAGES,
    Job,
    last_of,
    network,
    parameters,
    tensors_of,
    train_made,
)
from tests.deepercluster.several import train_whole, train_whole_and_with_stops
from tests.training.making import ALONE, MadeImages, Stop, stopped_after
from tests.training.started import in_processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one training by each of 1, 2, 3 and 4 processes, and of 3 that were stopped."""
    made = Path(tmp_path_factory.mktemp("trainings"))
    train_whole(ALONE, made)
    in_processes(2, train_whole, made, made / "2")
    in_processes(3, train_whole_and_with_stops, made, made / "3")
    in_processes(4, train_whole, made, made / "4")
    return made


def assert_close(one: Job, other: Job) -> None:
    tensors, others = tensors_of(one), tensors_of(other)
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(others[name], tensor, rtol=1e-5, atol=1e-5, msg=name)
    tables = [last_of(each).state["table"] for each in (one, other)]
    for rows in zip(*tables, strict=True):
        assert rows[0].keys() == rows[1].keys()
        for name, value in rows[0].items():
            assert rows[1][name] == pytest.approx(value, rel=1e-5, abs=1e-5), name


def assert_same(one: Job, other: Job) -> None:
    tensors, others = tensors_of(one), tensors_of(other)
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(others[name], tensor), name
    assert last_of(one).state["table"] == last_of(other).state["table"]


@pytest.mark.parametrize("n_processes", [2, 3, 4])
def test_one_process_computes_what_several_do(folder: Path, n_processes: int) -> None:
    alone, several = (Job(parameters(), folder / f"whole-{n}") for n in (1, n_processes))
    assert_close(alone, several)


def test_a_stop_changes_nothing_in_several_processes(folder: Path) -> None:
    every_step = parameters(checkpoint_minutes=0)
    assert last_of(Job(every_step, folder / "begun")).state["epoch"] == 2
    assert_same(Job(parameters(), folder / "whole-3"), Job(every_step, folder / "stopped"))


def test_another_number_of_processes_goes_on(folder: Path) -> None:
    begun = Job(parameters(checkpoint_minutes=0), folder / "begun")
    assert last_of(begun).state["batch"] == 3
    train_made(ALONE, begun)
    assert_close(Job(parameters(), folder / "whole-1"), begun)


def test_a_stop_anywhere_changes_nothing(folder: Path, tmp_path: Path) -> None:
    rng, n_stops = random.Random(1), 0
    job = Job(parameters(checkpoint_minutes=0), tmp_path)
    while True:
        torch.manual_seed(rng.randrange(1000))
        try:
            with stopped_after(rng.randrange(1, 9)):
                train_made(ALONE, job)
            break
        except Stop:
            n_stops += 1
    assert n_stops > 3
    assert_same(Job(parameters(), folder / "whole-1"), job)


def test_the_table_tells_of_clusters_losses_and_accuracies(folder: Path) -> None:
    table = last_of(Job(parameters(), folder / "whole-1")).state["table"]
    assert ["n_empty_clusters" in row for row in table] == [True, False, True]
    assert ["normalized_mutual_information" in row for row in table] == [False, False, True]
    for row in table:
        assert row["loss"] == pytest.approx(row["loss_super_class"] + row["loss_sub_class"])
        assert 0 <= row["accuracy"] <= min(row["accuracy_super_class"], row["accuracy_sub_class"])


@pytest.mark.parametrize("accumulated", [1, 2])
def test_it_is_sgd_on_both_losses(tmp_path: Path, accumulated: int) -> None:
    settings = parameters(epochs=2, cluster_every=1, accumulated_batches=accumulated)
    job = Job(settings, tmp_path)
    train_made(ALONE, job, dropout=False)

    # The same, written apart: each head is learnt from the mean over the images of its group.
    expected, images = network(dropout=False), MadeImages(N_IMAGES)
    optimizer = torch.optim.SGD(expected.parameters(), 0.05, momentum=0.9, weight_decay=1e-5)
    recipe = RECIPES["shift"]
    augment, normalize = recipe.augment(8), recipe.preprocessing(8).normalize
    (folder,) = tmp_path.glob("training-*")
    table = []
    for epoch in range(2):
        clustering = Clustering(folder / f"clustering-{epoch:06d}")
        order = GroupedOrder(8, 4, 14, 16, settings.seed, ALONE)
        order.use_labels(clustering.super_labels, clustering.sub_labels)
        made = Heads(settings, order.own, ALONE)
        made.renew(epoch, np.diff(clustering.offsets).tolist())
        heads = {group: learnt.layer for group, learnt in made._sub.items()} | {
            -1: made._super.layer
        }
        of_heads = torch.optim.SGD(
            [each for head in heads.values() for each in head.parameters()],
            0.05,
            momentum=0.9,
            weight_decay=1e-5,
        )
        sums = np.zeros(5)
        for batch, part in enumerate(order.parts(epoch, 0)):
            expected.train()
            pixels = []
            for row, (place, number) in enumerate(zip(part.places, part.numbers, strict=True)):
                torch.manual_seed(seed_of(settings.seed, epoch, int(place)))
                image = np.array(augment(images[number].image))
                # Two places for each of eight groups, which are super-cluster and rotation.
                pixels.append(torch.from_numpy(np.rot90(image, row // 2 % 4).copy()))
                assert clustering.super_labels[number] == row // 2 // 4
            features = expected(normalize(torch.stack(pixels).permute(0, 3, 1, 2))).relu()
            groups = torch.arange(16) // 2
            labels = torch.from_numpy(clustering.sub_labels[part.numbers].astype(np.int64))
            scores = heads[-1](features)
            of_super = torch.nn.functional.cross_entropy(scores, groups)
            is_super_right = scores.argmax(1) == groups
            of_groups, is_sub_right = [], []
            for group in range(8):
                logits = heads[group](features[groups == group])
                own = labels[groups == group]
                of_groups.append(torch.nn.functional.cross_entropy(logits, own))
                is_sub_right.append(logits.argmax(1) == own)
            of_sub = torch.stack(of_groups).mean()
            ((of_super + of_sub) / accumulated).backward()
            rights = torch.cat(is_sub_right)
            sums += [
                of_super.item(),
                of_sub.item(),
                (is_super_right & rights).float().mean(),
                is_super_right.float().mean(),
                rights.float().mean(),
            ]
            if (batch + 1) % accumulated == 0:
                for group in range(8):
                    for each in heads[group].parameters():
                        each.grad *= 8
                for each in (optimizer, of_heads):
                    each.step()
                    each.zero_grad()
        optimizer.zero_grad()
        table.append(sums / 7)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(
            last_of(job).state["network"][name], tensor, rtol=1e-4, atol=1e-5, msg=name
        )
    names = (
        "loss_super_class", "loss_sub_class", "accuracy", "accuracy_super_class",
        "accuracy_sub_class",
    )  # fmt: skip
    found = [[row[name] for name in names] for row in last_of(job).state["table"]]
    np.testing.assert_allclose(found, table, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        # RotNet, and DeepCluster.
        {"n_super_classes": 4, "n_clusters": 1},
        {"n_super_classes": 1, "rotation": False, "n_clusters": 5},
        {"n_super_classes": 4, "n_clusters": 5},
        {"n_super_classes": 2, "rotation": False, "n_clusters": 2, "momentum": 0.0},
    ],
)
def test_special_cases_learn_and_stop(tmp_path: Path, changes: dict) -> None:
    whole, stopped = (
        Job(parameters(**changes, checkpoint_minutes=minutes), tmp_path / name)
        for name, minutes in (("whole", 1000), ("stopped", 0))
    )
    train_made(ALONE, whole)
    for n_batches in (3, 9, 99):
        with suppress(Stop), stopped_after(n_batches):
            train_made(ALONE, stopped)
    assert_same(whole, stopped)
    (row, *_), has_clusters = last_of(whole).state["table"], changes["n_clusters"] > 1
    assert ("n_clusters" in row) is has_clusters
    assert bool(list(tmp_path.glob("*/*/clustering-*"))) is has_clusters
    assert (row["loss_sub_class"] == 0) is (changes["n_clusters"] < 3)
    assert (row["loss_super_class"] == 0) is (changes["n_super_classes"] == 1)


def clusterings(job: Job) -> list[str]:
    return sorted(path.name for path in job.folder.glob("training-*/clustering-*"))


@pytest.mark.parametrize(("keep_every", "kept"), [(None, [4, 6]), (4, [2, 4, 6])])
def test_clusterings_stay_as_long_as_they_are_needed(
    tmp_path: Path, keep_every: int | None, kept: list[int]
) -> None:
    settings = parameters(epochs=7, images_per_epoch=16, keep_every=keep_every)
    job = Job(settings, tmp_path)
    train_made(ALONE, job)
    assert clusterings(job) == [f"clustering-{epoch:06d}" for epoch in kept]


def test_a_clustering_that_is_gone_is_named(tmp_path: Path) -> None:
    job = Job(parameters(checkpoint_minutes=0), tmp_path)
    with suppress(Stop), stopped_after(3):
        train_made(ALONE, job)
    (folder,) = tmp_path.glob("training-*/clustering-*")
    shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"clustering-000000: is not there, though the last"):
        train_made(ALONE, job)
