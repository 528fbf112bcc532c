"""Checkpoints of the original code: both kinds, in the formats of today, of 2020 and of 2018."""

import logging
import os
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from lowshot_kedro.datasets import HDF5FeaturesDataset, SafetensorsDataset
from lowshot_kedro.errors import InputError
from lowshot_kedro.networks import create_extractor
from lowshot_kedro.networks.embedding import embedding_network
from lowshot_kedro.networks.embedding_file import read_embedding_network
from lowshot_kedro.networks.weights import read_weights
from lowshot_kedro.snca.original_checkpoints import (
    nearest_row_agreement,
    read_original_checkpoint,
    require_images,
)
from tests.networks.helpers import photographs, with_random_state
from tests.snca.original import original_code, save

DIMENSION, N_IMAGES = 16, 60
LABELS = np.repeat(np.arange(4, dtype=np.int32), N_IMAGES // 4)
FORMS = ["zip", "legacy", "2018"]


class Images:
    """A source of images of which only the labels matter."""

    def __init__(self, labels):
        self.labels = np.asarray(labels, np.int32)

    def __len__(self):
        return len(self.labels)

    def __repr__(self):
        return "Images()"


def clustered_bank(seed=0):
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(4, DIMENSION, generator=generator)
    noise = torch.randn(N_IMAGES, DIMENSION, generator=generator)
    return nn.functional.normalize(means[torch.from_numpy(LABELS).long()] + 0.1 * noise)


def images_of(size):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Paths by kind and form, and what each network returns for two images of its size."""
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {}
    with original_code(folder / "code") as code, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for form in FORMS:
            bank = code.LinearAverage(DIMENSION, N_IMAGES, 0.07, 0.25)
            bank.memory.copy_(clustered_bank())
            network = with_random_state(
                code.cifar.ResNet(code.cifar.BasicBlock, (2, 2, 2, 2), DIMENSION)
            )
            with torch.no_grad():
                cifar_output = network(images_of(32))
            content = {"net": nn.DataParallel(network), "lemniscate": bank, "acc": 0.75, "epoch": 7}
            paths["cifar", form] = save(content, folder / f"ckpt_{form}.t7", form)

            resnet = with_random_state(models.resnet18(num_classes=DIMENSION))
            with torch.no_grad():
                imagenet_output = nn.functional.normalize(resnet(images_of(224)))
            parallel = nn.DataParallel(resnet)
            optimizer = torch.optim.SGD(parallel.parameters(), 0.1, momentum=0.9, nesterov=True)
            optimizer.zero_grad()
            parallel.module.fc(torch.ones(1, 512)).sum().backward()
            optimizer.step()
            resnet.fc.load_state_dict(with_random_state(resnet).fc.state_dict())
            content = {
                "epoch": 131,
                "arch": "resnet18",
                "state_dict": parallel.state_dict(),
                "lemniscate": bank,
                "best_prec1": 0.5,
                "optimizer": optimizer.state_dict(),
            }
            paths["imagenet", form] = save(content, folder / f"checkpoint_{form}.pth.tar", form)
    assert not {"lib", "models", "torch.nn.backends.thnn"} & set(sys.modules)
    return paths, {"cifar": cifar_output, "imagenet": imagenet_output}


KINDS = {
    "cifar": ("cifar_resnet18", 32, 7, 0.75, "linear"),
    "imagenet": ("torchvision/resnet18", 224, 131, 0.5, "fc"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_is_read_whole(checkpoints, kind, form):
    paths, outputs = checkpoints
    network, size, epoch, accuracy, _ = KINDS[kind]
    found = read_original_checkpoint(paths[kind, form])
    assert (found.network, found.dimension) == (network, DIMENSION)
    assert (found.epoch, found.accuracy, found.labels) == (epoch, accuracy, None)
    assert found.temperature == pytest.approx(0.07) and found.momentum == 0.25
    assert found.bank.dtype == torch.float32 and found.bank.device.type == "cpu"
    assert torch.equal(found.bank, clustered_bank())
    with torch.no_grad():
        embeddings = found.embedding_network()(images_of(size))
    torch.testing.assert_close(embeddings, outputs[kind], rtol=1e-5, atol=1e-6)
    assert found.description().image_size == size


@pytest.mark.parametrize(("kind", "form"), [("cifar", "2018"), ("imagenet", "zip")])
def test_a_checkpoint_is_converted_and_runs_from_the_new_file(checkpoints, tmp_path, kind, form):
    paths, _ = checkpoints
    name, size, epoch, *_ = KINDS[kind]
    checkpoint = read_original_checkpoint(paths[kind, form])
    file, bank = tmp_path / "network.safetensors", tmp_path / "bank.hdf5"
    SafetensorsDataset(filepath=str(file)).save(checkpoint.network_file())
    HDF5FeaturesDataset(filepath=str(bank)).save(checkpoint.bank_rows(Images(LABELS)))
    _, description = read_embedding_network(file)
    assert (description.network, description.facts["epoch"]) == (name, epoch)
    rows = HDF5FeaturesDataset(filepath=str(bank)).load()
    assert np.array_equal(rows.read(0, N_IMAGES), clustered_bank().numpy())
    assert np.array_equal(rows.labels, LABELS)
    # The same features from either file.
    found, expected = (
        create_extractor("snca", str(path), None) for path in (file, paths[kind, form])
    )
    image = photographs()[0]
    assert found.dimension == DIMENSION
    assert found.preprocess(image).shape == (3, size, size)
    assert found.describe() == expected.describe()


def test_images_are_prepared_as_the_original_prepares_test_images(checkpoints):
    extractor = create_extractor("snca", str(checkpoints[0]["imagenet", "zip"]), None)
    reference = models.ResNet18_Weights.DEFAULT.transforms()
    for image in photographs():
        torch.testing.assert_close(
            extractor.preprocess(image), reference(image), rtol=1e-5, atol=1e-5
        )
    extractor = create_extractor("snca", str(checkpoints[0]["cifar", "zip"]), 32)
    small = photographs()[0].resize((32, 32))
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1).double() / 255
    mean = torch.tensor([0.4914, 0.4822, 0.4465], dtype=torch.float64)[:, None, None]
    std = torch.tensor([0.2023, 0.1994, 0.2010], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(
        extractor.preprocess(small).double(), (pixels - mean) / std, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_to_be_trained_begins_with_all_but_the_head(checkpoints, kind):
    path = checkpoints[0][kind, "2018"]
    name, *_, head = KINDS[kind]
    torch.manual_seed(5)
    found = embedding_network(name, 8, weights=str(path)).state_dict()
    expected = read_weights(path)
    assert found[f"{head}.weight"].shape[0] == 8
    assert all(
        torch.equal(tensor, expected[tensor_name])
        for tensor_name, tensor in found.items()
        if not tensor_name.startswith(head)
    )


@pytest.mark.parametrize("depth", [34, 50])
def test_other_depths_are_told_by_their_tensors(tmp_path, depth):
    network = embedding_network(f"cifar_resnet{depth}", 4)
    path = tmp_path / "state.pth"
    torch.save(network.state_dict(), path)
    assert read_original_checkpoint(path).network == f"cifar_resnet{depth}"


@pytest.fixture(scope="module")
def state():
    return embedding_network("cifar_resnet18", DIMENSION).state_dict()


def saved(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize("form", ["beside", "among", "module state"])
def test_plain_tensors_with_a_bank_and_labels(tmp_path, state, form):
    bank, labels = clustered_bank(), torch.from_numpy(LABELS).long()
    content = {
        "beside": {"state_dict": state, "memory": bank, "labels": labels.tolist()},
        "among": {**state, "memory": bank, "labels": labels},
        "module state": {
            "model": {f"module.{name}": tensor for name, tensor in state.items()},
            "lemniscate": {"memory": bank, "params": torch.tensor([0.1, 0.9])},
            "targets": labels,
        },
    }[form]
    found = read_original_checkpoint(saved(tmp_path / "state.pth", content))
    assert torch.equal(found.bank, bank) and torch.equal(found.labels, labels)
    assert list(found.state) == list(state)
    assert found.temperature == (pytest.approx(0.1) if form == "module state" else None)
    (block,) = found.bank_rows(None)
    assert np.array_equal(block.labels, LABELS) and np.array_equal(block.features, bank.numpy())
    require_images(found, Images(LABELS))
    with pytest.raises(InputError, match=r"2 of its 60 labels differ .* row 14 \(0 and 1\)"):
        require_images(found, Images(LABELS + np.isin(np.arange(N_IMAGES), [14, 29])))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"memory": torch.zeros(5)}, "memory is no matrix of numbers"),
        ({"memory": torch.zeros(5, 3)}, "bank has 3 columns but its network returns 16 numbers"),
        ({"memory": torch.full((5, DIMENSION), torch.nan)}, "memory holds NaN or infinity"),
        ({"lemniscate": {"params": torch.ones(2)}}, "lemniscate.memory is no matrix"),
        ({"lemniscate": "bank"}, "lemniscate is no matrix"),
        ({"memory": torch.zeros(5, DIMENSION), "labels": [0, 1]}, "2 labels but a bank of 5 rows"),
        ({"labels": [0, -1]}, "its labels are no list of classes"),
        ({"labels": [0.5]}, "its labels are no list of classes"),
        ({"labels": "abc"}, "its labels are no list of classes"),
    ],
)
def test_a_bank_or_labels_that_are_none(tmp_path, state, changed, message):
    path = saved(tmp_path / "state.pth", {"state_dict": state, **changed})
    with pytest.raises(InputError) as caught:
        read_original_checkpoint(path)
    assert message in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_of_another_kind(tmp_path, state):
    path = saved(tmp_path / "state.pth", {"state_dict": {"fc.weight": torch.zeros(3, 2)}})
    with pytest.raises(InputError, match="holds no network of the original SNCA code; expected"):
        read_original_checkpoint(path)
    without = {name: tensor for name, tensor in state.items() if name != "layer2.0.bn1.bias"}
    checkpoint = read_original_checkpoint(saved(path, {"net": without}))
    with pytest.raises(InputError, match=r"does not fit cifar_resnet18 .*missing: layer2\.0\.bn1"):
        checkpoint.network_file()
    assert checkpoint.bank is None
    with pytest.raises(InputError, match="holds no bank, expected one under lemniscate"):
        checkpoint.bank_rows(Images(LABELS))


def test_a_checkpoint_says_no_classes(checkpoints):
    checkpoint = read_original_checkpoint(checkpoints[0]["cifar", "zip"])
    with pytest.raises(InputError, match="expected the images that the bank was made from"):
        checkpoint.bank_rows(None)


def test_another_number_of_images_is_refused_with_both(checkpoints):
    checkpoint = read_original_checkpoint(checkpoints[0]["cifar", "zip"])
    with pytest.raises(InputError) as caught:
        checkpoint.bank_rows(Images(LABELS[:-1]))
    message = str(caught.value)
    assert "its bank has 60 rows but Images() has 59 images" in message
    assert "sorted folders of classes" in message


def warned(caplog, checkpoint, labels):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        require_images(checkpoint, Images(labels))
    return "probably do not belong together" in caplog.text


def test_a_bank_whose_neighbours_are_of_any_class_is_warned_of(checkpoints, caplog):
    checkpoint = read_original_checkpoint(checkpoints[0]["cifar", "zip"])
    assert not warned(caplog, checkpoint, LABELS)
    assert warned(caplog, checkpoint, np.arange(N_IMAGES) % 4)
    assert str(checkpoint.path) in caplog.text


@pytest.mark.parametrize(("n_rows", "max_rows"), [(60, 1000), (60, 7), (2, 5), (40_000, 9)])
def test_nearest_rows_against_all_similarities(n_rows, max_rows):
    generator = np.random.default_rng(n_rows)
    bank = generator.standard_normal((n_rows, 5)) * generator.uniform(0.5, 2, (n_rows, 1))
    labels = generator.integers(0, 3, n_rows)
    n_compared, share, chance = nearest_row_agreement(
        torch.from_numpy(bank).float(), labels, max_rows
    )
    rows = np.linspace(0, n_rows, min(n_rows, max_rows), endpoint=False).astype(int)
    unit = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    similarities = unit[rows] @ unit.T
    similarities[np.arange(len(rows)), rows] = -np.inf
    assert n_compared == len(rows)
    assert share == np.mean(labels[similarities.argmax(1)] == labels[rows])
    others = [np.mean(np.delete(labels, row) == labels[row]) for row in rows]
    assert chance == pytest.approx(np.mean(others))


def test_there_is_nothing_to_compare_in_one_row():
    assert nearest_row_agreement(torch.ones(1, 3), np.zeros(1, int)) == (0, 0.0, 0.0)


class MakesFolder:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", FORMS)
def test_code_in_a_checkpoint_is_named_and_not_run(tmp_path, form):
    marker = tmp_path / "executed"
    with original_code(tmp_path / "code") as code, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bank = code.LinearAverage(DIMENSION, 5)
        content = {"lemniscate": bank, "args": MakesFolder(marker)}
        path = save(content, tmp_path / "checkpoint.pth.tar", form)
        with pytest.raises(InputError) as caught:
            read_original_checkpoint(path)
        assert not marker.exists()
        if form != "2018":
            torch.load(path, weights_only=False)
            assert marker.exists(), "the file would have executed code"
    message = str(caught.value)
    assert f"(it asks for {os.mkdir.__module__}.mkdir, but only tensors are loaded)" in message
    assert "\n" not in message


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_class_that_is_not_known_is_named(tmp_path, form):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = save({"net": Unknown()}, tmp_path / "ckpt.t7", form)
    with pytest.raises(InputError, match=r"it asks for tests\.snca\.\w+\.Unknown, but only"):
        read_original_checkpoint(path)


class Unknown(nn.Linear):
    def __init__(self):
        super().__init__(2, 2)


@pytest.mark.parametrize("kept", [0, 3, 100, 5000, -40, -4])
@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_that_is_cut_off(checkpoints, tmp_path, form, kept):
    whole = checkpoints[0]["cifar", form].read_bytes()
    path = tmp_path / "ckpt.t7"
    path.write_bytes(whole[:kept])
    with pytest.raises(InputError, match=r"cannot read [^\n]*ckpt\.t7 \([^\n]*\)$"):
        read_original_checkpoint(path)


def test_a_missing_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_original_checkpoint(tmp_path / "absent")
