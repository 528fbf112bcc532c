"""What DeeperCluster learns: as the original, in any number of processes, whatever stops them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from tests.deepercluster.making import Job, last_of, parameters, tensors_of, train_made
from tests.deepercluster.several import train_whole, train_whole_and_with_stops
from tests.training.making import ALONE, Stop, stopped_after
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
