"""Networks that are trained to return embeddings, by name."""

import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torchvision import models

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks.embedding import (
    EMBEDDING_NETWORKS,
    embedding_network,
    require_embedding_network,
)
from lowshot_kedro.networks.weights import read_weights
from tests.networks.helpers import with_random_state

NAMES = ["small", *(f"cifar_resnet{depth}" for depth in (18, 34, 50, 101, 152))]


def images(size, n=3):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def n_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_names_that_stand_alone():
    assert list(EMBEDDING_NETWORKS) == NAMES


@pytest.mark.parametrize("name", [*NAMES, "timm/resnet18", "torchvision/resnet50", "timm/x"])
def test_names_in_the_right_form_are_accepted(name):
    require_embedding_network(name)


@pytest.mark.parametrize("name", ["resnet", "", "timm/", "timm", "a/b", None, 18, ["small"]])
def test_any_other_name_is_refused_with_what_is_allowed(name):
    with pytest.raises(InputError) as caught:
        require_embedding_network(name)
    message = str(caught.value)
    assert message.startswith(f"network: got {name!r}, expected one of: small, cifar_resnet18, ")
    assert "cifar_resnet152, timm/NAME or torchvision/NAME" in message


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Small", "small"),
        ("cifar-resnet18", "cifar_resnet18"),
        ("resnet18", "torchvision/resnet18"),
        ("ResNet50", "torchvision/resnet50"),
    ],
)
def test_the_name_that_may_have_been_meant(name, near):
    with pytest.raises(InputError, match=rf"\(did you mean {near}"):
        require_embedding_network(name)


def test_names_are_checked_without_loading_pytorch():
    code = (
        "import sys; from lowshot_kedro.networks.embedding import require_embedding_network;"
        "require_embedding_network('timm/resnet50');"
        "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The ImageNet networks are those of the original SNCA code, the CIFAR one too.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torchvision/resnet18", 11_242_176),
        ("torchvision/resnet34", 21_350_336),
        ("torchvision/resnet50", 23_770_304),
        ("torchvision/resnet101", 42_762_432),
        ("timm/resnet18", 11_242_176),
        ("cifar_resnet18", 11_234_496),
    ],
)
def test_numbers_of_parameters_at_128_numbers(name, expected):
    assert n_parameters(embedding_network(name, 128)) == expected


def test_the_small_network_is_small():
    assert 100_000 <= n_parameters(embedding_network("small", 64)) <= 300_000


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("small", 32),
        ("small", 17),
        ("cifar_resnet18", 32),
        ("cifar_resnet50", 16),
        ("torchvision/resnet18", 64),
        ("torchvision/googlenet", 64),
        ("torchvision/vit_b_32", 64),
        ("timm/test_vit", 32),
        ("timm/test_efficientnet", 32),
    ],
)
def test_rows_have_unit_length_in_training_and_after_it(name, size):
    network = embedding_network(name, 7, image_size=size)
    assert network.training and network.dimension == 7
    for rows in (network(images(size)), network.eval()(images(size))):
        assert rows.shape == (3, 7) and rows.dtype == torch.float32
        np.testing.assert_allclose(rows.detach().double().norm(dim=1).numpy(), 1, rtol=1e-6)
    rows.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_output_under_autocast_has_single_precision():
    network = embedding_network("small", 7)
    with torch.autocast("cpu", torch.bfloat16):
        rows = network(images(32))
    assert rows.dtype == torch.float32
    np.testing.assert_allclose(rows.detach().double().norm(dim=1).numpy(), 1, rtol=1e-6)
    assert network.double()(images(32).double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("torchvision/resnet18", lambda: models.resnet18(num_classes=7)),
        ("timm/resnet18", lambda: timm.create_model("resnet18", num_classes=7)),
        ("timm/test_vit", lambda: timm.create_model("test_vit", num_classes=7)),
    ],
)
def test_tensors_go_to_and_from_the_library_under_its_names(name, made):
    theirs = with_random_state(made())
    ours = embedding_network(name, 7)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    size = 160 if "vit" in name else 64
    with torch.no_grad():
        expected = theirs(images(size)).double().numpy()
        found = ours.eval()(images(size)).double().numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    theirs.load_state_dict(ours.state_dict())


@pytest.mark.parametrize(
    "name", ["small", "cifar_resnet18", "torchvision/resnet18", "timm/test_vit"]
)
def test_random_weights_follow_from_the_current_generator(name):
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(embedding_network(name, 5).state_dict())
    first, again, other = states
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_the_initial_weights_of_a_resnet_are_those_of_its_publication():
    torch.manual_seed(0)
    network = embedding_network("torchvision/resnet18", 128).network
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            side, n_out = module.kernel_size[0], module.out_channels
            expected = np.sqrt(2 / (side * side * n_out))
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05), name
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
    assert network.fc.weight.abs().max().item() == pytest.approx(1 / np.sqrt(512), rel=0.01)


def test_other_sizes_than_32_pixels_are_the_mean_over_all_positions():
    network = embedding_network("cifar_resnet18", 5).eval()
    maps = []
    network.network.layer4.register_forward_hook(lambda *arguments: maps.append(arguments[2]))
    with torch.no_grad():
        for size, side in ((32, 4), (48, 6)):
            found = network(images(size))
            assert maps[-1].shape == (3, 512, side, side)
            linear = network.network.linear
            expected = linear(nn.functional.avg_pool2d(maps[-1], side).flatten(1))
            expected = nn.functional.normalize(expected)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("small", "linear"),
        ("cifar_resnet18", "linear"),
        ("torchvision/resnet18", "fc"),
        ("timm/test_vit", "head"),
    ],
)
def test_all_but_the_head_comes_from_a_file(tmp_path, name, head):
    path = tmp_path / "weights.pth"
    torch.save(with_random_state(embedding_network(name, 9)).state_dict(), path)
    expected = read_weights(path)
    torch.manual_seed(3)
    found = embedding_network(name, 5, weights=str(path)).state_dict()
    torch.manual_seed(4)
    other = embedding_network(name, 5, weights=str(path)).state_dict()
    for key, tensor in found.items():
        if key.startswith(f"{head}."):
            assert tensor.shape[0] == 5 and not torch.equal(tensor, other[key])
        else:
            assert torch.equal(tensor, expected[key])


@pytest.mark.parametrize("name", ["small", "cifar_resnet18"])
def test_nobody_offers_weights_of_our_own_networks(name):
    with pytest.raises(InputError, match="weights: got 'download', but nobody offers weights of"):
        embedding_network(name, 5, weights="download")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("torchvision/resnet5O", {}, "network: torchvision has no model 'resnet5O'; did you mean"),
        ("timm/resnet5O", {}, "network: timm has no model 'resnet5O'; did you mean"),
        ("torchvision/squeezenet1_1", {}, "network: torchvision/squeezenet1_1 has no linear class"),
        ("torchvision/vit_b_32", {"image_size": 33}, "image_size: torchvision/vit_b_32 does not"),
        ("small", {"weights": "absent.pth"}, "weights: no file absent.pth"),
        ("torchvision/resnet18", {"weights": "absent.pth"}, "weights: no file absent.pth"),
        ("resnet18", {}, "network: got 'resnet18', expected one of"),
        ("small", {"dimension": 0}, "dimension: got 0, expected an integer from 1 to 65536"),
        ("small", {"dimension": 2.5}, "dimension: got 2.5, expected an integer"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(name, options, message):
    with pytest.raises(InputError) as caught:
        embedding_network(name, **{"dimension": 5, **options})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
