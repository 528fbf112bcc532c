"""The file of a trained network."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks import create_extractor
from lowshot_kedro.networks.embedding import embedding_network
from lowshot_kedro.networks.embedding_file import (
    EmbeddingDescription,
    read_embedding_network,
)
from lowshot_kedro.networks.preprocessing import Preprocessing, resize_and_crop
from tests.networks.helpers import features_of, noise, with_random_state

DESCRIPTION = EmbeddingDescription(
    "small", 6, 32, 40, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.25), {"epoch": 3, "ä": [1.5, None]}
)


def write(path, metadata=None, **changed):
    network = with_random_state(embedding_network("small", 6))
    tensors = {**network.state_dict(), **changed}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(tensors, path, DESCRIPTION.to_metadata() if metadata is None else metadata)
    return network


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.safetensors"


def test_a_network_comes_back_with_what_it_is(path):
    torch.manual_seed(11)
    expected = write(path).eval()
    before = torch.random.get_rng_state()
    network, description = read_embedding_network(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert description == EmbeddingDescription.read(path) == DESCRIPTION
    assert not network.training
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(images), expected(images))


def test_the_preprocessing_is_what_the_header_says():
    preprocessing = DESCRIPTION.preprocessing()
    expected = Preprocessing(resize_and_crop(40, 32, "bicubic"), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    image = noise((70, 50))
    assert torch.equal(preprocessing(image), expected(image))


def test_a_header_is_text_that_others_can_read(path):
    header = DESCRIPTION.to_metadata()
    assert all(isinstance(value, str) for value in header.values())
    assert json.loads(header["mean"]) == [0.5, 0.4, 0.3]
    assert EmbeddingDescription.from_metadata(header) == DESCRIPTION


def header(**changed):
    found = {**DESCRIPTION.to_metadata(), **changed}
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "is no network that this project has trained: its header lacks format: lowshot-kedro"),
        (header(format="pt"), "is no network that this project has trained"),
        (header(format_version="2"), "format_version: got '2', expected 1"),
        (header(network=None), "its header lacks network; expected the name of a network"),
        (header(network='"resnet18"'), "network: got 'resnet18', expected one of: small, "),
        (header(network="small"), "network: got 'small', expected the name of a network"),
        (header(dimension="0"), "dimension: got 0, expected an integer from 1"),
        (header(dimension='"6"'), "dimension: got '6', expected an integer from 1"),
        (header(image_size="null"), "image_size: got None, expected an integer from 1"),
        (header(shorter_side="[" * 100_000), "shorter_side: got '[[["),
        (header(interpolation='"area"'), "interpolation: got 'area', expected one of: nearest, "),
        (header(mean="[1, 2]"), "mean: got [1, 2], expected three numbers"),
        (header(mean="[1, 2, NaN]"), "mean: got [1, 2, nan], expected three numbers"),
        (header(std="[1, 1, 0]"), "std: got [1, 1, 0], expected three numbers above 0"),
        (header(facts="[]"), "facts: got [], expected a mapping"),
    ],
)
def test_a_header_of_something_else(path, metadata, message):
    write(path, metadata)
    with pytest.raises(InputError) as caught:
        read_embedding_network(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"linear.weight": None}, "1 missing: linear.weight"),
        (
            {"linear.weight": torch.zeros(7, 128)},
            "linear.weight float32 (7, 128) → float32 (6, 128)",
        ),
        ({"more": torch.zeros(1)}, "1 unexpected: more"),
        ({"linear.bias": torch.full((6,), torch.nan)}, "linear.bias holds NaN"),
    ],
)
def test_tensors_of_something_else(path, changed, message):
    write(path, **changed)
    with pytest.raises(InputError) as caught:
        read_embedding_network(path)
    assert str(path) in str(caught.value) and message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text", bytes(1000), None])
def test_a_file_of_another_kind_or_cut_off(path, content):
    if content is None:
        write(path)
        content = path.read_bytes()[:-5]
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable safetensors file; is it cut off"):
        read_embedding_network(path)


def test_a_missing_file(path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_embedding_network(path)


def test_features_are_the_unit_embeddings(path):
    network = write(path).eval()
    extractor = create_extractor("snca", str(path), None)
    assert (extractor.name, extractor.dimension) == ("snca", 6)
    images = [noise((50, 60), seed) for seed in range(3)]
    inputs = torch.stack([DESCRIPTION.preprocessing()(image) for image in images])
    with torch.no_grad():
        expected = network(inputs)
    assert torch.equal(features_of(extractor, images), expected)


@pytest.mark.parametrize("weights", ["none", "download", "package", "package:a/b"])
def test_features_need_a_trained_network(weights):
    with pytest.raises(InputError) as caught:
        create_extractor("snca", weights, None)
    assert str(caught.value) == (
        f"weights: got {weights!r}, expected the file of a network trained by SNCA, such as "
        "data/06_models/snca_network.safetensors; the pipeline snca makes it"
    )
    assert caught.value.made_by == "snca"


def test_a_network_that_is_not_trained_yet(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights: no file .*absent.*pipeline snca makes"):
        create_extractor("snca", str(tmp_path / "absent"), None)


def test_the_size_is_that_of_the_training(path):
    write(path)
    assert create_extractor("snca", str(path), 32).dimension == 6
    with pytest.raises(InputError) as caught:
        create_extractor("snca", str(path), 96)
    assert str(caught.value) == (
        f"image_size: got 96, but {path} was trained at 32 pixels; expected 32, or null: the size "
        "that it was trained at"
    )


def test_what_cannot_be_said_in_json():
    with pytest.raises(TypeError):
        dataclasses.replace(DESCRIPTION, facts={"a": object()}).to_metadata()
