"""The loop: what it computes, and that no stop changes that."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lowshot_kedro.errors import InputError
from lowshot_kedro.training.batches import BatchOrder, LearntBatch, seed_of
from lowshot_kedro.training.checkpoints import Checkpoint
from lowshot_kedro.training.loop import train, train_in_processes
from lowshot_kedro.training.transforms import RECIPES
from tests.training.making import (
    ALONE,
    MadeImages,
    Stop,
    Targets,
    checkpoints,
    network,
    parameters,
    stopped_after,
)

N_IMAGES = 22


def train_here(folder: Path, objective: Targets, images: MadeImages, **changes) -> Checkpoint:
    """The last checkpoint of a training."""
    kept = checkpoints(folder)
    net = network(changes.pop("dropout", 0.5))
    train(net, objective, images, parameters(**changes), kept, ALONE)
    last = kept.latest()
    assert last is not None
    return last


def trained(folder: Path, **changes) -> Checkpoint:
    return train_here(folder, Targets(N_IMAGES), MadeImages(N_IMAGES), **changes)


def same(one: Checkpoint, other: Checkpoint) -> bool:
    networks = one.state["network"], other.state["network"]
    assert networks[0].keys() == networks[1].keys()
    return (
        all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])
        and one.state["table"] == other.state["table"]
        and torch.equal(*(each.read_rows("targets", 0, N_IMAGES) for each in (one, other)))
    )


@pytest.mark.parametrize("accumulated", [1, 2, 4])
def test_it_is_sgd_over_the_batches_of_the_order(tmp_path: Path, accumulated: int) -> None:
    objective, images = Targets(N_IMAGES), MadeImages(N_IMAGES)
    state = train_here(
        tmp_path, objective, images, dropout=0.0, accumulated_batches=accumulated
    ).state

    # The same, written apart.
    expected, targets, losses = network(), Targets(N_IMAGES), []
    optimizer = torch.optim.SGD(
        expected.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=0.001
    )
    recipe = RECIPES["shift"]
    augment, normalize = recipe.augment(8), recipe.preprocessing(8).normalize
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = [0.01, 0.01, 0.001][epoch]
        order = np.random.default_rng([3, epoch]).permutation(N_IMAGES)
        batches = [order[first : first + 4] for first in range(0, N_IMAGES, 4)]
        total = 0.0
        optimizer.zero_grad()
        for number, batch in enumerate(batches, start=1):
            pixels = []
            for place, image in enumerate(batch, start=4 * (number - 1)):
                torch.manual_seed(seed_of(3, epoch, place))
                pixels.append(torch.from_numpy(np.array(augment(images[image].image))))
            inputs = normalize(torch.stack(pixels).permute(0, 3, 1, 2))
            expected.train()
            numbers = torch.from_numpy(batch)
            loss = targets(expected(inputs), LearntBatch(numbers, numbers))
            (loss / accumulated).backward()
            total += float(loss.detach()) * len(batch)
            if number % accumulated == 0:
                optimizer.step()
                optimizer.zero_grad()
        losses.append(total / N_IMAGES)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(state["network"][name], tensor, rtol=1e-5, atol=1e-6)
    assert [row["loss"] for row in state["table"]] == pytest.approx(losses, rel=1e-5)
    assert [row["epoch"] for row in state["table"]] == [1, 2, 3]
    assert [row["learning_rate"] for row in state["table"]] == pytest.approx([0.01, 0.01, 0.001])
    assert [row["part"] for row in state["table"]] == [0, 0.1, 0.2]
    assert objective.batches == targets.batches
    # Each image once an epoch, in another order each time.
    for epoch in range(3):
        of_epoch = np.concatenate(objective.batches[6 * epoch : 6 * epoch + 6])
        assert sorted(of_epoch) == list(range(N_IMAGES))
    assert objective.batches[:6] != objective.batches[6:12]


def test_workers_change_nothing(tmp_path: Path) -> None:
    one, two = trained(tmp_path / "0"), trained(tmp_path / "2", num_workers=2)
    assert same(one, two)
    assert not same(one, trained(tmp_path / "other", seed=4))


def test_a_stop_at_any_batch_changes_nothing(tmp_path: Path) -> None:
    expected = trained(tmp_path / "whole", accumulated_batches=2, checkpoint_minutes=0)
    folder = tmp_path / "stopped"
    n_stops = 0
    rng = random.Random(1)
    while True:
        n_batches = rng.randrange(2, 6)
        # What the process draws elsewhere has no say.
        torch.manual_seed(rng.randrange(1000))
        try:
            with stopped_after(n_batches):
                found = trained(folder, accumulated_batches=2, checkpoint_minutes=0)
            break
        except Stop:
            n_stops += 1
    assert n_stops > 3
    assert same(found, expected)


def train_in_new_process(folder: Path) -> None:
    torch.set_num_threads(1)
    trained(folder, epochs=40, checkpoint_minutes=0)


def test_a_kill_changes_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.test_loop"])
    folder, rng = tmp_path / "killed", random.Random(2)
    n_kills = 0
    while True:
        process = context.Process(target=train_in_new_process, args=(folder,))
        process.start()
        if n_kills < 4:
            # From the first checkpoint on, at a random moment.
            while not list(folder.glob("training-*/step-*")) and process.is_alive():
                time.sleep(0.01)
            time.sleep(rng.random() / 2)
            os.kill(process.pid, signal.SIGKILL)
            n_kills += 1
        process.join()
        if process.exitcode == 0:
            break
    assert n_kills
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = trained(tmp_path / "whole", epochs=40)
        found = trained(folder, epochs=40)
    finally:
        torch.set_num_threads(threads)
    assert same(found, expected)
    (kept,) = folder.glob("training-*")
    assert sorted(path.name for path in kept.iterdir()) == ["step-000000000240", "training.json"]


def test_a_training_that_is_done_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = trained(tmp_path)
    objective = Targets(N_IMAGES)
    assert same(first, train_here(tmp_path, objective, MadeImages(N_IMAGES)))
    assert not objective.batches
    with caplog.at_level(logging.INFO):
        kept = train_in_processes(no_work, None, parameters(), checkpoints(tmp_path))
    assert same(first, kept) and "trained already, from the same: kept" in caplog.text


def no_work(processes, job):
    raise AssertionError


def test_another_training_has_a_folder_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(network(), Targets(5), MadeImages(5), parameters(), checkpoints(tmp_path, a=1), ALONE)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        checkpoints(tmp_path, a=3)  # leaves no checkpoint
        other = checkpoints(tmp_path, a=2)
        assert other.latest() is None
        # Every process has the checkpoints; one of them says this.
        assert not caplog.text
        other.name_others()
    assert "checkpoints of 1 other training take" in caplog.text
    assert checkpoints(tmp_path, a=1).latest() is not None


def test_evaluations_are_as_rare_as_wanted_and_the_last_epoch_has_one(tmp_path: Path) -> None:
    table = trained(tmp_path, epochs=5, eval_every=2).state["table"]
    assert ["weight" in row for row in table] == [False, True, False, True, True]


def test_an_epoch_is_a_line_that_says_what_has_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        trained(tmp_path)
    lines = [line for line in caplog.messages if line.startswith("epoch ")]
    assert [line.partition(":")[0] for line in lines] == [f"epoch {n} of 3" for n in (1, 2, 3)]
    assert all("images a second" in line and "loss " in line for line in lines)
    assert ["learning rate" in line for line in lines] == [True, False, True]


def test_the_random_state_of_the_caller_stays(tmp_path: Path) -> None:
    images, objective, net = MadeImages(N_IMAGES), Targets(N_IMAGES), network(0.5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    train(net, objective, images, parameters(), checkpoints(tmp_path), ALONE)
    assert torch.equal(torch.get_rng_state(), before)


def test_blank_images_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = MadeImages(N_IMAGES, blank=[3, 7])
    train(network(), Targets(N_IMAGES), images, parameters(), checkpoints(tmp_path), ALONE)
    lines = [record.getMessage() for record in caplog.records if "blank" in record.getMessage()]
    assert sorted(lines) == [
        f"image {number} is blank, and learnt as it is: {number}: is not there" for number in (3, 7)
    ]
    assert caplog.text.count("2 of 22 images missing or unreadable") == 1


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lr: got 1e\+18, the loss is (nan|inf) in epoch \d") as e:
        trained(tmp_path, lr=1e18, checkpoint_minutes=0, epochs=4, lr_gamma=1.0)
    assert e.value.parameter == "lr"
    # What is kept is from before.
    found = checkpoints(tmp_path).latest()
    assert found is None or np.isfinite(found.state["sum_of_losses"])


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    trained(tmp_path)
    (state,) = tmp_path.glob("training-*/step-*/state.pt")
    content = state.read_bytes()
    state.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"not a readable checkpoint .*remove the folder"):
        trained(tmp_path)
    state.write_bytes(content)
    (rows,) = tmp_path.glob("training-*/step-*/rows-*")
    rows.write_bytes(rows.read_bytes()[:-9])
    with pytest.raises(InputError, match="not readable"):
        trained(tmp_path, epochs=3)


def test_parts_of_a_batch_make_up_the_batch() -> None:
    whole = list(BatchOrder(23, 5, seed=1).parts(epoch=2, first_batch=1))
    parts = [list(BatchOrder(23, 5, 1, rank, 3).parts(2, 1)) for rank in range(3)]
    for number, batch in enumerate(whole):
        for name in ("numbers", "places"):
            found = np.concatenate([getattr(part[number], name) for part in parts])
            np.testing.assert_array_equal(found, getattr(batch, name))
    assert [len(batch.numbers) for batch in whole] == [5, 5, 5, 3]
    places = np.concatenate([batch.places for batch in whole])
    np.testing.assert_array_equal(places, np.arange(5, 23))


def test_batches_of_which_nothing_is_learnt_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^accumulated_batches: got 99, expected at most \d+, the"
    ):
        trained(tmp_path, accumulated_batches=99)
    assert not list(tmp_path.iterdir())


def test_a_last_batch_of_one_image_is_refused_where_the_network_fails(tmp_path: Path) -> None:
    images = MadeImages(5)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.BatchNorm1d(2))
    with pytest.raises(InputError, match=r"^batch_size: got 4, expected .* leave 1 of 5 images"):
        train(flat, Targets(5), images, parameters(), checkpoints(tmp_path), ALONE)
    assert not list(tmp_path.iterdir())
    # Others take it.
    train(network(), Targets(5), images, parameters(), checkpoints(tmp_path), ALONE)


def test_every_so_many_epochs_a_checkpoint_is_kept(tmp_path: Path) -> None:
    trained(tmp_path, epochs=5, keep_every=2, checkpoint_minutes=0)
    kept = [Checkpoint(path).state for path in sorted(tmp_path.glob("training-*/step-*"))]
    assert [(state["epoch"], state["batch"]) for state in kept] == [(2, 0), (4, 0), (5, 0)]
