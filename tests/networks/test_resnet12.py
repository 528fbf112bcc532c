"""ResNet12 gives what the original gives, and reads its files."""

import argparse
import logging
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import transforms

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks import ResNet12, create_extractor, resnet12
from lowshot_kedro.networks.resnet12 import advance_generator
from tests.networks.helpers import features_of, photographs, with_random_state

CHANNELS = slice(None, None, 16)


def reference_state(state):
    """Tensors that follow from a seed, in the order of their names."""
    rng = np.random.default_rng(0)
    made = {}
    for name in sorted(state):
        shape = tuple(state[name].shape)
        if name.endswith("num_batches_tracked"):
            made[name] = torch.zeros((), dtype=torch.int64)
            continue
        if len(shape) == 4:
            values = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
        elif name.endswith("running_var"):
            values = rng.uniform(0.5, 1.5, shape)
        elif name.endswith(".weight"):
            values = rng.uniform(0.8, 1.2, shape)
        else:
            values = 0.1 * rng.standard_normal(shape)
        made[name] = torch.from_numpy(values.astype(np.float32))
    return made


@pytest.fixture(scope="module")
def reference():
    with np.load(Path(__file__).with_name("reference_resnet12.npz")) as file:
        return dict(file)


@pytest.fixture(scope="module")
def network():
    made = ResNet12()
    made.load_state_dict(reference_state(made.state_dict()))
    return made.eval()


@pytest.fixture(scope="module")
def images():
    values = np.random.default_rng(1).standard_normal((2, 3, 84, 84))
    return torch.from_numpy(values.astype(np.float32))


def test_maps_of_the_original(network, images, reference):
    statistics = []

    def look(_, __, maps):
        numbers = (maps.mean(), maps.std(), maps.min(), maps.max())
        statistics.append([float(number) for number in numbers])

    layers = [network.get_submodule(f"layer{number}") for number in (1, 2, 3, 4)]
    hooks = [layer.register_forward_hook(look) for layer in layers]
    with torch.no_grad():
        maps = network(images)
    for hook in hooks:
        hook.remove()
    assert maps.shape == (2, 640, 5, 5)
    np.testing.assert_allclose(maps[:, CHANNELS], reference["resnet_out"], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(statistics, reference["resnet_layer_stats"], rtol=1e-4)
    pooled = maps.mean((2, 3), keepdim=True)
    np.testing.assert_allclose(pooled, reference["dense_false"], rtol=1e-4, atol=1e-4)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == reference["resnet_param_count"]


def test_maps_of_the_original_in_training(network, images, reference):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    with torch.no_grad():
        maps = network(images)
    expected = reference["resnet_out_train_mode"]
    np.testing.assert_allclose(maps[:, CHANNELS], expected, rtol=1e-3, atol=1e-3)
    assert int(network.layer4[0].bn3.num_batches_tracked) == 1
    network.load_state_dict(before)
    network.eval()


def test_names_of_tensors_are_those_of_the_original(network):
    layers = {
        "conv1": ["weight"], "conv2": ["weight"], "conv3": ["weight"], "downsample.0": ["weight"],
        **dict.fromkeys(
            ("bn1", "bn2", "bn3", "downsample.1"),
            ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
        ),
    }  # fmt: skip
    assert set(network.state_dict()) == {
        f"layer{number}.0.{layer}.{tensor}"
        for number in (1, 2, 3, 4)
        for layer, tensors in layers.items()
        for tensor in tensors
    }


@pytest.fixture
def narrow(monkeypatch):
    """The same with few channels, for what does not depend on how many they are."""
    monkeypatch.setattr(resnet12, "WIDTHS", (4, 8, 8, 16))


def test_random_weights_are_drawn_in_the_order_of_the_original(narrow):
    torch.manual_seed(3)
    found = ResNet12().state_dict()
    next_number = torch.rand(1)
    torch.manual_seed(3)
    order = ["downsample.0", "conv1", "conv2", "conv3"]
    widths = [(3, 4), (4, 8), (8, 8), (8, 16)]
    for n_in, n_out in widths:
        nn.Conv2d(n_in, n_out, 1, bias=False)
        for n_before in (n_in, n_out, n_out):
            nn.Conv2d(n_before, n_out, 3, bias=False)
    for number, (_, n_out) in enumerate(widths, start=1):
        for layer in (*order[1:], order[0]):
            weight = found[f"layer{number}.0.{layer}.weight"]
            n_positions = weight.shape[-1] ** 2
            expected = torch.empty(weight.shape).normal_(0, math.sqrt(2 / (n_out * n_positions)))
            torch.testing.assert_close(weight, expected)
    assert torch.equal(next_number, torch.rand(1))


def test_a_generator_goes_on_as_after_building_the_network():
    torch.manual_seed(8)
    ResNet12()
    expected = torch.rand(5)
    generator = torch.Generator()
    generator.manual_seed(8)
    before = torch.random.get_rng_state()
    advance_generator(generator)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(torch.rand(5, generator=generator), expected)
    torch.manual_seed(8)
    advance_generator(torch.default_generator)
    assert torch.equal(torch.rand(5), expected)


@pytest.mark.parametrize(
    "name, mean, std",
    [
        ("ResNet12", np.divide([125.3, 123.0, 113.9], 255), np.divide([63.0, 62.1, 66.7], 255)),
        ("ResNet12_cifar_fs", [0.5071, 0.4866, 0.4409], [0.2009, 0.1984, 0.2023]),
    ],
)
def test_images_are_prepared_as_the_original_prepares_test_images(narrow, name, mean, std):
    for image_size, resized, cropped in ((None, 92, 84), (42, 46, 42), (85, 93, 85)):
        preprocess = pickle.loads(
            pickle.dumps(create_extractor(name, "none", image_size).preprocess)
        )
        transform = transforms.Compose(
            [
                transforms.Resize([resized, resized]),
                transforms.CenterCrop(cropped),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )
        for image in photographs():
            torch.testing.assert_close(preprocess(image), transform(image), rtol=1e-5, atol=1e-5)


def state_of(seed=1):
    return with_random_state(ResNet12(), seed).state_dict()


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def load(path, content):
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return create_extractor("ResNet12", str(path), None)


@pytest.mark.parametrize("prefix", ["", "encoder.", "module.encoder.", "module."])
def test_files_of_the_original(narrow, tmp_path, prefix):
    state = state_of()
    extractor = load(tmp_path / "max_acc.pth", {"params": prefixed(prefix, state)})
    found = extractor.network.encoder.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    network = ResNet12()
    network.load_state_dict(state)
    inputs = torch.stack([extractor.preprocess(image) for image in photographs()])
    with torch.inference_mode():
        expected = network.eval()(inputs).mean((2, 3))
    torch.testing.assert_close(features_of(extractor, photographs()), expected)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_plain_tensors_and_a_classifier_that_is_left_out(narrow, tmp_path, suffix, caplog):
    state = state_of()
    classifier = {"fc.weight": torch.zeros(64, 16), "fc.bias": torch.zeros(64)}
    with caplog.at_level(logging.INFO):
        found = load(tmp_path / f"a{suffix}", {**prefixed("encoder.", state), **classifier})
    assert torch.equal(found.network.encoder.layer4[0].conv3.weight, state["layer4.0.conv3.weight"])
    expected = "ResNet12: the classifier of the file is left out (fc.weight, fc.bias)"
    assert expected in caplog.messages
    caplog.clear()
    with caplog.at_level(logging.INFO):
        load(tmp_path / f"b{suffix}", state)
    assert not caplog.messages


def test_missing_and_unknown_tensors_are_named(narrow, tmp_path):
    state = prefixed("encoder.", state_of())
    del state["encoder.layer2.0.bn2.bias"]
    state["encoder.layer5.0.conv1.weight"] = torch.zeros(1)
    state["encoder.layer1.0.conv1.weight"] = torch.zeros(4, 1, 3, 3)
    path = tmp_path / "weights.pth"
    with pytest.raises(InputError) as caught:
        load(path, {"params": state})
    message = str(caught.value)
    assert message.startswith(f"weights: {path} does not fit ResNet12 (")
    for fact in (
        "1 missing: layer2.0.bn2.bias",
        "1 unexpected: layer5.0.conv1.weight",
        "layer1.0.conv1.weight float32 (4, 1, 3, 3) → float32 (4, 3, 3, 3)",
    ):
        assert fact in message
    assert "\n" not in message


def test_two_tensors_of_one_name_are_not_mixed_up(narrow, tmp_path):
    state = state_of()
    path = tmp_path / "weights.pth"
    for content in (
        {**state, **prefixed("encoder.", state_of(2))},
        {**prefixed("encoder.", state_of(2)), **state},
    ):
        with pytest.raises(InputError, match=r"unexpected: encoder\.layer1\.0\."):
            load(path, content)


def test_other_files_of_the_original_are_no_weights(narrow, tmp_path):
    network = ResNet12()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True)
    network(torch.rand(2, 3, 16, 16)).sum().backward()
    optimizer.step()
    with pytest.raises(InputError, match=r"optimizer_best.pth holds a dictionary of 'state', "):
        load(tmp_path / "optimizer_best.pth", optimizer.state_dict())
    log = {"args": argparse.Namespace(way=5), "val_acc": [0.5]}
    with pytest.raises(InputError, match=r"it asks for argparse.Namespace, but only tensors"):
        load(tmp_path / "trlog", log)
    log["args"] = vars(log["args"])
    with pytest.raises(
        InputError, match=r"trlog holds a dictionary of 'args', 'val_acc'; expected"
    ):
        load(tmp_path / "trlog", log)


def test_an_input_that_is_too_small_for_four_halvings(narrow):
    with pytest.raises(InputError, match=re.escape("image_size: got 15, expected an integer from")):
        create_extractor("ResNet12", "none", 15)
    extractor = create_extractor("ResNet12", "none", 16)
    assert features_of(extractor, photographs()).shape == (2, 16)
