"""Networks that learn without labels: by name, from released checkpoints, and in files of ours."""

import dataclasses
import logging

import pytest
import torch
from safetensors.torch import save_file

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks import VGG16, fold_sobel
from lowshot_kedro.networks.embedding import embedding_network
from lowshot_kedro.networks.embedding_file import EmbeddingDescription
from lowshot_kedro.networks.preprocessing import Preprocessing, resize_and_crop
from lowshot_kedro.networks.unsupervised import unsupervised_network
from lowshot_kedro.networks.unsupervised_file import (
    UnsupervisedDescription,
    read_unsupervised_network,
)
from lowshot_kedro.training.transforms import RECIPES
from tests.networks.helpers import RELEASED, noise, with_random_state, write_released


def description(network="small_vgg16", sobel=True, dimension=6, size=32):
    return RECIPES["imagenet"].describe_unsupervised(
        network, sobel, dimension, size, {"epoch": 3, "ä": [1.5, None]}
    )


def trained(sobel=True, size=32):
    """A small network none of whose tensors is as it was made."""
    network = VGG16(sobel, image_size=size, dimension=6, n_channels=8)
    filters = network.sobel
    network.sobel = None
    with_random_state(network)
    network.sobel = filters
    return network.eval()


def same(network, other):
    state, expected = network.state_dict(), other.state_dict()
    return list(state) == list(expected) and all(
        torch.equal(state[name], expected[name]) for name in state
    )


# --- by name


@pytest.mark.parametrize(
    ("name", "n_channels", "size", "n_values"),
    [("vgg16", 64, None, 25088), ("small_vgg16", 8, 32, 64)],
)
@pytest.mark.parametrize("sobel", [True, False])
def test_a_vgg_of_a_name(name, n_channels, size, n_values, sobel):
    with torch.device("meta"):
        network = unsupervised_network(name, sobel, 12, image_size=size)
    assert network.features[0].weight.shape == (n_channels, 2 if sobel else 3, 3, 3)
    assert network.classifier[0].weight.shape == (12, n_values)
    assert network.classifier[3].weight.shape == (12, 12)
    assert network.training


def test_another_network_is_without_unit_length():
    torch.manual_seed(4)
    network = unsupervised_network("small", False, 5)
    torch.manual_seed(4)
    assert same(network, embedding_network("small", 5).network)
    features = network(torch.randn(3, 3, 32, 32))
    assert features.shape == (3, 5) and (features.norm(dim=1) - 1).abs().min() > 1e-3


def test_random_weights_follow_from_the_default_generator():
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(unsupervised_network("small_vgg16", True, 6, image_size=32))
    assert same(made[0], made[1]) and not same(made[0], made[2])


@pytest.mark.parametrize(
    ("name", "sobel", "dimension", "weights", "size", "message"),
    [
        ("vgg19", True, 6, "none", 32, "name: got 'vgg19', expected one of: vgg16, small_vgg16,"),
        ("small", True, 6, "none", 32, "sobel: got True, expected false, or network = vgg16"),
        ("vgg16", True, 0, "none", 32, "dimension: got 0, expected an integer from 1 to 65536"),
        ("small_vgg16", True, 6, "none", 29, "image_size: got 29, expected an integer from 30"),
        ("small_vgg16", True, 6, "download", 32, "weights: got 'download', but nobody offers"),
        ("small_vgg16", True, 6, "absent.pth", 32, "weights: no file absent.pth"),
    ],
)
def test_what_there_is_not(name, sobel, dimension, weights, size, message):
    with pytest.raises(InputError) as caught:
        unsupervised_network(name, sobel, dimension, weights, size)
    assert str(caught.value).startswith(message)


# --- released checkpoints


@pytest.mark.parametrize("kind", RELEASED)
@pytest.mark.parametrize("sobel", [True, False])
def test_released_checkpoints(tmp_path, caplog, kind, sobel):
    caplog.set_level(logging.INFO)
    network = trained(sobel)
    path = write_released(tmp_path / "released.pth", network, kind)
    found = unsupervised_network("small_vgg16", sobel, 6, str(path), 32)
    assert same(found, network) and found.training
    heads = [record.getMessage() for record in caplog.records if "heads" in record.getMessage()]
    if kind == "body":
        assert heads == []
    else:
        layer = "top_layer" if kind == "deepcluster" else "pred_layer"
        assert heads == [f"{path}: heads are left out ({layer}.weight, {layer}.bias)"]


@pytest.mark.parametrize("prefix", ["body.module.", "module.body.module.", "module.module.body."])
def test_wrappers_before_and_after_other_prefixes(tmp_path, prefix):
    network = trained()
    state = {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    assert same(unsupervised_network("small_vgg16", True, 6, str(tmp_path / "a.pth"), 32), network)


def test_filters_are_the_same_whatever_a_file_has(tmp_path):
    network = trained()
    path = write_released(
        tmp_path / "a.pth", network, "body", more={"sobel.1.weight": torch.ones(2, 1, 3, 3)}
    )
    assert same(unsupervised_network("small_vgg16", True, 6, str(path), 32), network)
    filters = [name for name in network.state_dict() if name.startswith("sobel")]
    path = write_released(tmp_path / "b.pth", network, "rotnet", without=filters)
    assert same(unsupervised_network("small_vgg16", True, 6, str(path), 32), network)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vgg16", True, 6, 32), "network: got 'vgg16', but the first convolution of {path} has 8 "
         "channels; expected small_vgg16"),
        (("small_vgg16", False, 6, 32), "sobel: got False, but {path} begins with Sobel filters; "
         "expected true"),
        (("small_vgg16", True, 7, 32), "dimension: got 7, but features of {path} have 6 numbers; "
         "expected 6"),
        (("small_vgg16", True, 6, 64), "image_size: got 64, but the linear layers of {path} are "
         "for images of 32 pixels; expected 30 to 61"),
    ],
)  # fmt: skip
def test_a_file_of_another_network(tmp_path, arguments, message):
    path = write_released(tmp_path / "a.pth", trained(), "deepercluster")
    name, sobel, dimension, size = arguments
    with pytest.raises(InputError) as caught:
        unsupervised_network(name, sobel, dimension, str(path), size)
    assert str(caught.value) == message.format(path=path)


def test_a_file_with_colours_where_filters_are_wanted(tmp_path):
    path = write_released(tmp_path / "a.pth", trained(sobel=False), "rotnet")
    with pytest.raises(InputError, match=r"sobel: got True, but .* sees colours; expected f"):
        unsupervised_network("small_vgg16", True, 6, str(path), 32)


@pytest.mark.parametrize(
    ("without", "more", "message"),
    [
        (("features.3.weight", "features.44.bias", "features.41.bias"), {},
         "2 missing: features.3.weight, features.41.bias"),
        ((), {"module.body.features.44.weight": torch.zeros(1), "module.more": torch.zeros(1)},
         "2 unexpected: more, features.44.weight"),
        (("features.3.weight",), {"module.body.features.3.weight": torch.zeros(8, 8, 5, 5)},
         "1 of another shape or type: features.3.weight float32 (8, 8, 5, 5) → float32 "
         "(8, 8, 3, 3)"),
        ((), {"module.body.classifier.3.bias": torch.full((6,), torch.nan)},
         "classifier.3.bias holds NaN"),
        (("classifier.0.weight", "features.0.weight"), {},
         "holds no VGG16 (2 missing: features.0.weight, classifier.0.weight; found "),
        (("features.0.weight",), {"module.body.features.0.weight": torch.zeros(8, 4, 3, 3)},
         "features.0.weight has shape (8, 4, 3, 3); expected kernels 2×3×3"),
        (("features.0.weight",), {"module.body.features.0.weight": torch.zeros(0, 2, 3, 3)},
         "features.0.weight has shape (0, 2, 3, 3); expected kernels 2×3×3"),
        (("classifier.0.weight",), {"module.body.classifier.0.weight": torch.zeros(6, 128)},
         "classifier.0.weight has shape (6, 128), classifier.3.weight (6, 6); expected matrices"),
        (("classifier.0.weight",), {"module.body.classifier.0.weight": torch.zeros(64)},
         "classifier.0.weight has shape (64,), classifier.3.weight (6, 6); expected matrices"),
    ],
)  # fmt: skip
def test_tensors_of_something_else(tmp_path, without, more, message):
    path = write_released(
        tmp_path / "a.pth", trained(), "deepercluster", without=without, more=more
    )
    with pytest.raises(InputError) as caught:
        unsupervised_network("small_vgg16", True, 6, str(path), 32)
    text = str(caught.value)
    assert message in text and str(path) in text and "\n" not in text


def test_two_tensors_of_one_name_are_one_too_many(tmp_path):
    more = {"features.module.0.weight": torch.zeros(8, 2, 3, 3)}
    path = write_released(tmp_path / "a.pth", trained(), "body", more=more)
    with pytest.raises(InputError, match=r"1 unexpected: features\.module\.0\.weight"):
        unsupervised_network("small_vgg16", True, 6, str(path), 32)


# --- files of ours


@pytest.mark.parametrize("sobel", [True, False])
def test_a_network_comes_back_with_what_it_is(tmp_path, sobel):
    network, path = trained(sobel), tmp_path / "network.safetensors"
    save_file(network.state_dict(), path, description(sobel=sobel).to_metadata())
    before = torch.random.get_rng_state()
    found, described = read_unsupervised_network(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert described == UnsupervisedDescription.read(path) == description(sobel=sobel)
    assert same(found, network) and not found.training
    # It is also what a training begins with.
    assert same(unsupervised_network("small_vgg16", sobel, 6, str(path), 32), network)


def test_folded_filters_come_back(tmp_path):
    network, path = trained(), tmp_path / "network.safetensors"
    folded = fold_sobel(network)
    save_file(folded.state_dict(), path, description(sobel=False).to_metadata())
    found, _ = read_unsupervised_network(path)
    assert same(found, folded) and found.folded
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        for depth in (1, 13):
            expected = network.forward_features(images, depth)
            assert (found.forward_features(images, depth) - expected).abs().max() < 1e-5
        expected = network(images)
        assert (found(images) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert unsupervised_network("small_vgg16", False, 6, str(path), 32).folded


def test_another_network_comes_back(tmp_path):
    network = with_random_state(unsupervised_network("small", False, 6))
    path = tmp_path / "network.safetensors"
    save_file(network.state_dict(), path, description("small", sobel=False).to_metadata())
    found, _ = read_unsupervised_network(path)
    assert same(found, network) and not found.training


def test_the_preprocessing_is_that_of_the_recipe():
    described = description(size=224)
    assert (described.image_size, described.shorter_side) == (224, 256)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = Preprocessing(resize_and_crop(256, 224, "bilinear"), mean, std)
    image = noise((300, 270))
    assert torch.equal(described.preprocessing()(image), expected(image))


def header(**changed):
    found = {**description().to_metadata(), **changed}
    return {name: value for name, value in found.items() if value is not None}


EMBEDDING = EmbeddingDescription("small", 6, 32, 40, "bicubic", (0.5,) * 3, (0.2,) * 3)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "is no network that this project has trained: its header lacks format: lowshot-kedro "
         "unsupervised network"),
        (EMBEDDING.to_metadata(), "holds a network for the extractor snca; expected one for "
         "deepercluster"),
        (header(sobel=None), "its header lacks sobel; expected true or false"),
        (header(sobel="1"), "sobel: got 1, expected true or false"),
        (header(network='"small"'), "sobel: got True, expected false, or network = vgg16 or"),
        (header(network='"vgg19"'), "network: got 'vgg19', expected one of: vgg16, small_vgg16, "),
    ],
)  # fmt: skip
def test_a_header_of_something_else(tmp_path, metadata, message):
    path = tmp_path / "network.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata)
    with pytest.raises(InputError) as caught:
        read_unsupervised_network(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_tensors_of_another_network_than_the_header_says(tmp_path):
    path = tmp_path / "network.safetensors"
    for changed in ({"network": "vgg16"}, {"sobel": False}, {"dimension": 7}, {"image_size": 96}):
        told = dataclasses.replace(description(), **changed)
        save_file(trained().state_dict(), path, told.to_metadata())
        with pytest.raises(InputError, match=rf"{next(iter(changed))}: got .*, but .*{path}"):
            read_unsupervised_network(path)
    state = trained().state_dict()
    del state["features.0.bias"]
    save_file(state, path, description().to_metadata())
    with pytest.raises(InputError, match=r"1 missing: features\.0\.bias"):
        read_unsupervised_network(path)


def test_a_file_for_the_other_extractor(tmp_path):
    path = tmp_path / "network.safetensors"
    save_file({"a": torch.zeros(1)}, path, description().to_metadata())
    with pytest.raises(InputError) as caught:
        EmbeddingDescription.read(path)
    assert str(caught.value) == (
        f"{path}: holds a network for the extractor deepercluster; expected one for snca"
    )
