"""Training by SNCA: what comes out, and that stops and processes do not change it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks.embedding import embedding_network
from lowshot_kedro.networks.embedding_file import embedding_from_tensors
from lowshot_kedro.probes import Gallery
from lowshot_kedro.snca.loss import SNCALoss
from lowshot_kedro.snca.training import TrainedSNCA, train_snca
from lowshot_kedro.training.batches import BatchOrder, seed_of
from lowshot_kedro.training.processes import ProcessOptions, run_in_processes
from lowshot_kedro.training.transforms import RECIPES
from tests.snca.making import N_IMAGES, job
from tests.snca.together import train_whole_and_with_stops
from tests.training.making import Stop, stopped_after


def bank_of(trained: TrainedSNCA) -> np.ndarray:
    return np.concatenate([block.features for block in trained.bank.checked("bank")])


def test_it_is_the_loss_over_the_images(tmp_path: Path) -> None:
    made = job(tmp_path)
    found = train_snca(made)

    # The same, written apart.
    torch.manual_seed(0)
    network = embedding_network("small", 6)
    loss = SNCALoss(torch.from_numpy(made.classes), 6, temperature=0.05, momentum=0.5)
    optimizer = torch.optim.SGD(
        network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    recipe = RECIPES["shift"]
    augment, normalize = recipe.augment(16), recipe.preprocessing(16).normalize
    losses = []
    for epoch in range(2):
        optimizer.param_groups[0]["lr"] = [0.1, 0.01][epoch]
        loss.momentum = [0.5, 0.8][epoch]
        total = 0.0
        for _, places, numbers in BatchOrder(N_IMAGES, 8, seed=0).parts(epoch, 0):
            pixels = []
            for place, number in zip(places, numbers, strict=True):
                torch.manual_seed(seed_of(0, epoch, place))
                image = augment(made.images[number].image)
                pixels.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
            network.train()
            optimizer.zero_grad()
            value = loss(network(normalize(torch.stack(pixels))), torch.from_numpy(numbers))
            value.backward()
            optimizer.step()
            total += float(value.detach()) * len(numbers)
        losses.append(total / N_IMAGES)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(found.network[name], tensor, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bank_of(found), loss.bank.numpy(), atol=1e-5)
    assert [row["loss"] for row in found.table] == pytest.approx(losses, rel=1e-4)
    assert [row["bank_momentum"] for row in found.table] == [0.5, 0.8]

    # The last row of the table judges the bank.
    network.eval()
    tests = [made.test_images[number].image for number in range(len(made.test_images))]
    with torch.no_grad():
        queries = network(torch.stack([recipe.preprocessing(16)(image) for image in tests]))
    gallery = Gallery(loss.bank.numpy(), made.classes, 3)
    (expected,) = gallery.accuracies(queries.numpy(), made.test_classes, [3], 0.05, [1])
    assert found.table[-1]["bank_top1"] == pytest.approx(expected["top1"])


def test_the_bank_has_the_labels_of_its_images(tmp_path: Path) -> None:
    made = job(tmp_path)
    found = train_snca(made)
    labels = np.concatenate([block.labels for block in found.bank.checked("bank")])
    np.testing.assert_array_equal(labels, made.images.labels)
    assert labels.dtype == np.int32
    np.testing.assert_allclose(np.linalg.norm(bank_of(found), axis=1), 1, rtol=1e-6)


def test_the_network_is_described_so_that_it_can_be_used(tmp_path: Path) -> None:
    made = job(tmp_path)
    found = train_snca(made)
    description = found.description.from_metadata(found.description.to_metadata())
    network = embedding_from_tensors(description, found.network, "here")
    pixels = description.preprocessing()(made.images[0].image)
    assert pixels.shape == (3, 16, 16)
    with torch.no_grad():
        assert network(pixels[None]).norm() == pytest.approx(1, rel=1e-6)
    assert description.facts["images"] == made.images.describe()


def test_a_stop_changes_nothing(tmp_path: Path) -> None:
    expected = train_snca(job(tmp_path / "whole"))
    for n_batches in (2, 1, 2):
        with pytest.raises(Stop), stopped_after(n_batches):
            train_snca(job(tmp_path / "stopped"))
    found = train_snca(job(tmp_path / "stopped"))
    for name, tensor in expected.network.items():
        assert torch.equal(found.network[name], tensor), name
    np.testing.assert_array_equal(bank_of(found), bank_of(expected))
    assert found.table == expected.table


def test_who_does_the_work_and_how_it_is_judged_make_no_other_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_snca(job(tmp_path))
    with caplog.at_level(logging.INFO):
        train_snca(job(tmp_path, num_workers=1, eval_k=(1, 5), checkpoint_minutes=5))
    assert "trained already, from the same: kept" in caplog.text
    caplog.clear()
    train_snca(job(tmp_path, temperature=0.1))
    assert "kept" not in caplog.text
    assert len(list(tmp_path.glob("training-*"))) == 2


@pytest.mark.parametrize("classes", [[0] * N_IMAGES, range(N_IMAGES), []])
def test_what_cannot_be_backwardt_from_is_refused(tmp_path: Path, classes) -> None:
    made = job(tmp_path)
    changed = type(made)(**{**vars(made), "classes": np.array(classes, dtype=np.int64)})
    with pytest.raises(InputError, match="expected at least two classes, and two images of one"):
        train_snca(changed)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings by two processes."""
    folder = tmp_path_factory.mktemp("by_two")
    options = ProcessOptions(folder=folder / "processes", n_processes=2, device="cpu")
    run_in_processes(train_whole_and_with_stops, folder, options)
    return folder


def assert_near(found: TrainedSNCA, expected: TrainedSNCA) -> None:
    for name, tensor in expected.network.items():
        torch.testing.assert_close(found.network[name], tensor, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(bank_of(found), bank_of(expected), atol=1e-4)
    losses = [[row["loss"] for row in trained.table] for trained in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_two_processes_do_what_one_does(by_two: Path, tmp_path: Path) -> None:
    expected = train_snca(job(tmp_path))
    found = train_snca(job(by_two / "whole"))
    assert_near(found, expected)
    # Each has written its half of the bank.
    parts = sorted((by_two / "whole").glob("training-*/step-*/rows-*"))
    assert [part.name for part in parts] == [f"rows-{rank}-of-2.safetensors" for rank in range(2)]
    assert [len(load_file(part)["bank"]) for part in parts] == [10, 11]


def test_a_stop_of_two_processes_changes_nothing(by_two: Path) -> None:
    expected, found = (train_snca(job(by_two / name)) for name in ("whole", "stopped"))
    for name, tensor in expected.network.items():
        assert torch.equal(found.network[name], tensor), name
    np.testing.assert_array_equal(bank_of(found), bank_of(expected))
    assert found.table == expected.table


def test_one_process_continues_what_two_have_begun(by_two: Path, tmp_path: Path) -> None:
    (begun,) = (by_two / "begun").glob("training-*/step-*")
    assert begun.name == "step-000000000004", "in the second of two epochs with three batches"
    assert_near(train_snca(job(by_two / "begun")), train_snca(job(tmp_path)))


@pytest.mark.parametrize("lr", [1e6, 1e18])
def test_a_training_that_goes_wrong_says_so(tmp_path: Path, lr: float) -> None:
    with pytest.raises(InputError, match=r"the (loss is|network returns)") as caught:
        train_snca(job(tmp_path, lr=lr))
    assert caught.value.parameter == "lr"


def test_what_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="weights"):
        train_snca(job(tmp_path, weights="nowhere.pt"))
    assert not list(tmp_path.iterdir())
