"""VGG16 gives what the original gives at every depth, and Sobel filters fold into it exactly."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks import VGG16, fold_sobel
from lowshot_kedro.networks.vgg import cells_of_side, sizes_of_cells
from tests.networks.helpers import with_random_state

# Of each convolution in `features`; normalisation and ReLU follow.
POSITIONS = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
DEPTHS = range(1, 14)


@pytest.fixture(scope="module")
def reference():
    with np.load(Path(__file__).with_name("reference_vgg.npz")) as file:
        return dict(file)


def drawn(rng, tensor, scale=1.0, offset=0.0):
    """Fill a tensor with values that follow from a seed, a few rows at a time."""
    rows = tensor.reshape(len(tensor), -1)
    for first in range(0, len(rows), 256):
        part = rows[first : first + 256]
        part.copy_(torch.from_numpy(offset + scale * rng.standard_normal(tuple(part.shape))))


def fill_body(network):
    """The weights that the reference was made with."""
    rng = np.random.RandomState(1234)
    for position in POSITIONS:
        convolution, norm = network.features[position], network.features[position + 1]
        drawn(rng, convolution.weight, math.sqrt(2 / (9 * convolution.out_channels)))
        drawn(rng, convolution.bias, 0.01)
        drawn(rng, norm.weight, 0.1, 1)
        drawn(rng, norm.bias, 0.1)
        drawn(rng, norm.running_mean, 0.1)
        drawn(rng, norm.running_var)
        norm.running_var.abs_().mul_(0.1).add_(1)
    rng = np.random.RandomState(4321)
    for layer in (network.classifier[0], network.classifier[3]):
        drawn(rng, layer.weight, 0.01)
        drawn(rng, layer.bias, 0.1)


@pytest.fixture(scope="module")
def outputs():
    """What the published network with the reference's weights makes of its images."""
    with torch.device("meta"):
        network = VGG16(sobel=True)
    network.to_empty(device="cpu")
    small = VGG16(sobel=True, n_channels=1, dimension=1)
    network.sobel = small.sobel
    images = np.random.RandomState(7).standard_normal((2, 3, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        fill_body(network)
        network.eval()
        maps, last = {}, []
        hooks = [
            network.features[position + 2].register_forward_hook(
                lambda _, __, output, depth=depth: maps.__setitem__(depth, output.clone())
            )
            for depth, position in zip(DEPTHS, POSITIONS, strict=True)
        ]
        hooks.append(
            network.features.register_forward_hook(lambda _, __, output: last.append(output))
        )
        features = network.embed(torch.from_numpy(images))
    return maps, last[0], features.numpy()


def test_maps_of_the_original(reference, outputs):
    maps, _, _ = outputs
    for number, depth in enumerate(DEPTHS):
        found = maps[depth]
        assert found.shape == tuple(reference["sobel_conv_shape"][number])
        values = found.double()
        stats = [
            values.mean(), values.std(correction=0), values.norm(), values.max(),
            (values > 0).double().mean(),
        ]  # fmt: skip
        np.testing.assert_allclose(stats, reference["sobel_conv_stats"][number], rtol=1e-4)
        probe = found[0, :4, 10, 10]
        np.testing.assert_allclose(probe, reference["sobel_conv_probe"][number], atol=1e-4)
        pooled = avg_pool2d(found, int(reference["probe_pool_kernel"][number])).flatten(1)
        assert pooled.shape[1] == reference["probe_dim"][number]
        ends = torch.cat([pooled[0, :16], pooled[1, -16:]])
        np.testing.assert_allclose(ends, reference["sobel_pool_head"][number], atol=1e-4)


def test_features_of_the_original(reference, outputs):
    _, last, features = outputs
    assert last.shape == (2, 512, 7, 7)
    norms = last.flatten(1).double().norm(dim=1)
    np.testing.assert_allclose(norms, reference["sobel_features_norm"], rtol=1e-4)
    np.testing.assert_allclose(features[:, :256], reference["sobel_fc7"], rtol=1e-4, atol=1e-4)
    stats = [[row.mean(), row.std(), np.linalg.norm(row)] for row in features.astype(np.float64)]
    np.testing.assert_allclose(stats, reference["sobel_fc7_stats"], rtol=1e-4)


def small_vgg(sobel, **others):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = VGG16(sobel, image_size=32, dimension=10, n_channels=4, **others)
    filters = None if network.sobel is None else network.sobel.state_dict()
    filters = {name: tensor.clone() for name, tensor in (filters or {}).items()}
    with_random_state(network)
    if filters:
        network.sobel.load_state_dict(filters)
    return network.requires_grad_(False)


@pytest.mark.parametrize("sobel", [True, False])
def test_every_depth_is_what_follows_its_relu(sobel):
    network = small_vgg(sobel)
    images = torch.randn(2, 3, 32, 32)
    # The original's definition, with layers that do not work in place.
    maps = nn.functional.pad(images, (2, 2, 2, 2) if sobel else (1, 1, 1, 1))
    maps = network.sobel(maps) if sobel else maps
    found = {depth: network.forward_features(images, depth) for depth in DEPTHS}
    depth = 0
    for layer in network.features:
        maps = maps.relu() if isinstance(layer, nn.ReLU) else layer(maps.clone())
        if isinstance(layer, nn.ReLU):
            depth += 1
            assert torch.equal(found[depth], maps)
    assert depth == 13 and torch.equal(network.forward_features(images), found[13])
    hidden = network.classifier[0](maps.flatten(1)).relu()
    expected = network.classifier[3](hidden)
    assert (expected < 0).any()
    for features in (network.embed(images), network(images)):
        torch.testing.assert_close(features, expected, rtol=0, atol=0)


def test_names_and_shapes_of_the_published_network():
    with torch.device("meta"):
        network = VGG16(sobel=True)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert len(shapes) == 13 * 7 + 4 + 4
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {f"features.{place}.{name}" for place in POSITIONS for name in ("weight", "bias")}
    expected |= {f"features.{place + 1}.{name}" for place in POSITIONS for name in norm}
    for part in ("classifier.0", "classifier.3", "sobel.0", "sobel.1"):
        expected |= {f"{part}.weight", f"{part}.bias"}
    assert set(shapes) == expected
    channels = [shapes[f"features.{place}.weight"][0] for place in POSITIONS]
    assert channels == [64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    assert shapes["features.0.weight"] == (64, 2, 3, 3)
    assert shapes["classifier.0.weight"] == (4096, 25088)
    assert shapes["classifier.3.weight"] == (4096, 4096)
    with torch.device("meta"):
        of_colors = VGG16(sobel=False, image_size=32, dimension=7, n_channels=8)
    assert of_colors.features[0].weight.shape == (8, 3, 3, 3)
    assert of_colors.classifier[0].weight.shape == (7, 64)
    assert of_colors.sobel is None


def test_random_weights():
    torch.manual_seed(5)
    network = VGG16(sobel=True, image_size=32, dimension=10, n_channels=16)
    after = torch.rand(1)
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            assert not layer.bias.any()
            spread = layer.weight.std().item() / math.sqrt(2 / (9 * layer.out_channels))
            assert 0.85 < spread < 1.15
    torch.manual_seed(5)
    again = VGG16(sobel=True, image_size=32, dimension=10, n_channels=16)
    assert torch.rand(1) == after
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_filters_are_those_of_the_original_and_do_not_learn(reference):
    network = VGG16(sobel=True, image_size=32, dimension=4, n_channels=1)
    images = torch.from_numpy(reference["sobel_in"])
    edges = network.sobel(nn.functional.pad(images, (2, 2, 2, 2)))
    np.testing.assert_allclose(edges, reference["sobel_out"], atol=1e-5)
    before = {name: tensor.clone() for name, tensor in network.sobel.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.5)
    network(images).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(before[name], network.sobel.state_dict()[name]) for name in before)
    assert all(parameter.grad is None for parameter in network.sobel.parameters())
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert len(learning) == 13 * 4 + 4
    assert all(parameter.grad is not None for parameter in learning)


def test_tensors_without_the_filters_are_whole():
    network, other = small_vgg(sobel=True), VGG16(True, image_size=32, dimension=10, n_channels=4)
    learnt = {n: tensor for n, tensor in network.state_dict().items() if not n.startswith("sobel")}
    other.load_state_dict(learnt)
    for name, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    assert len(learnt) == 13 * 7 + 4
    del learnt["features.0.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: .features\.0\.bias"):
        other.load_state_dict(learnt)


def test_dropout_is_for_training_alone():
    network = small_vgg(sobel=False)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network(images), network(images))
    network.train()
    assert not torch.equal(network(images), network(images))


@pytest.mark.parametrize("size", [30, 61, 224])
def test_sizes_of_maps(size):
    n_cells = cells_of_side(size)
    network = VGG16(sobel=True, image_size=size, dimension=3, n_channels=1)
    assert network.classifier[0].in_features == 8 * n_cells**2
    smallest, largest = sizes_of_cells(n_cells)
    assert smallest <= size <= largest
    for fitting in (smallest, largest):
        assert network(torch.zeros(2, 3, fitting, fitting)).shape == (2, 3)
    for other in ((largest + 1, size), (size, largest + 1), (smallest - 1, size)):
        with pytest.raises(InputError) as caught:
            network(torch.zeros(2, 3, *other))
        assert str(caught.value) == (
            f"images: got '{other[0]} × {other[1]} pixels', expected {size} × {size}"
        )
    assert network.forward_features(torch.zeros(1, 3, 64, 96), 3).shape == (1, 2, 33, 49)


@pytest.mark.parametrize("depth", [0, 14, 1.0, None])
def test_a_depth_that_there_is_not(depth):
    network = VGG16(sobel=False, image_size=32, dimension=3, n_channels=1)
    with pytest.raises(InputError, match=r"depth: got .*, expected an integer from 1 to 13"):
        network.forward_features(torch.zeros(1, 3, 32, 32), depth)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 29}, "image_size: got 29, expected an integer from 30 to"),
        ({"dimension": 0}, "dimension: got 0, expected an integer from 1"),
        ({"n_channels": 0}, "n_channels: got 0, expected an integer from 1"),
        ({"sobel": 2}, "sobel: got 2, expected true or false"),
        ({"folded": True}, "folded: got True, expected false with sobel = true"),
    ],
)
def test_arguments_of_no_use(arguments, message):
    with pytest.raises(InputError) as caught:
        VGG16(**{"sobel": True, **arguments})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("training", [True, False])
def test_folded_filters_change_nothing(training):
    network = small_vgg(sobel=True).train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = fold_sobel(network)
    assert folded.sobel is None and folded.folded and folded.training == training
    assert folded.features[0].weight.shape == (4, 3, 5, 5)
    assert all(parameter.requires_grad for parameter in folded.parameters())
    images = torch.randn(2, 3, 45, 37)
    for each in (network, folded):
        each.eval()
    with torch.no_grad():
        expected = network.features[0](network.sobel(nn.functional.pad(images, (2, 2, 2, 2))))
        found = folded.features[0](nn.functional.pad(images, (2, 2, 2, 2)))
        # The border too.
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
        for depth in DEPTHS:
            expected = network.forward_features(images, depth)
            found = folded.forward_features(images, depth)
            assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
        expected = network.embed(images)
        assert (folded.embed(images) - expected).abs().max() < 1e-5 * expected.abs().max()
    # Learning changes a copy.
    for parameter in folded.parameters():
        parameter.data.add_(1)
    assert all(torch.equal(before[name], network.state_dict()[name]) for name in before)


def test_the_folded_kernel_is_the_composition_of_both():
    network = small_vgg(sobel=True)
    kernel = fold_sobel(network).features[0].weight.numpy(force=True)
    horizontal = [[1, 0, -1], [2, 0, -2], [1, 0, -1]]
    filters = np.array([horizontal, -np.rot90(horizontal)])
    expected = np.zeros((4, 5, 5))
    for (output, edge, row, column), weight in np.ndenumerate(network.features[0].weight.numpy()):
        expected[output, row : row + 3, column : column + 3] += weight * filters[edge] / 3
    for color in range(3):
        np.testing.assert_allclose(kernel[:, color], expected, rtol=0, atol=1e-7)


def test_nothing_to_fold():
    with pytest.raises(InputError, match="vgg: got 'a network without Sobel filters', expected"):
        fold_sobel(VGG16(sobel=False, image_size=32, dimension=3, n_channels=1))
