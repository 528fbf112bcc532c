"""Features of networks that were trained by DeeperCluster, or released."""

import pytest
import torch
from safetensors.torch import save_file

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks import VGG16, create_dense_network, create_extractor, fold_sobel
from lowshot_kedro.networks.preprocessing import Preprocessing, resize_and_crop
from lowshot_kedro.networks.unsupervised import unsupervised_network
from lowshot_kedro.training.transforms import RECIPES
from tests.networks.helpers import features_of, noise, with_random_state, write_released

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGES = [noise((50, 60), seed) for seed in range(3)]


@pytest.fixture(scope="module")
def network():
    """A small network with Sobel filters, as training leaves it: in training mode."""
    with torch.random.fork_rng():
        torch.manual_seed(8)
        network = VGG16(sobel=True, image_size=32, dimension=6, n_channels=8)
        images = torch.randn(16, 3, 32, 32)
    with torch.no_grad():
        network(images)
    return network


@pytest.fixture(scope="module")
def inputs():
    preprocessing = Preprocessing(resize_and_crop(37, 32, "bilinear"), *IMAGENET)
    return torch.stack([preprocessing(image) for image in IMAGES])


def outputs(network, inputs, depth=None):
    was_training = network.training
    with torch.no_grad():
        network.eval()
        found = network(inputs) if depth is None else network.forward_features(inputs, depth)
    network.train(was_training)
    return found


def write(path, network, name="small_vgg16", sobel=True, recipe="imagenet"):
    described = RECIPES[recipe].describe_unsupervised(name, sobel, 6, 32, {})
    save_file(network.state_dict(), path, described.to_metadata())
    return str(path)


def test_features_of_a_trained_network(network, inputs, tmp_path):
    weights = write(tmp_path / "network.safetensors", network)
    extractor = create_extractor("deepercluster", weights, None)
    assert (extractor.name, extractor.dimension) == ("deepercluster", 6)
    assert torch.equal(features_of(extractor, IMAGES), outputs(network, inputs))
    assert create_extractor("deepercluster", weights, 32).dimension == 6
    with pytest.raises(InputError) as caught:
        create_extractor("deepercluster", weights, 40)
    assert str(caught.value) == (
        f"image_size: got 40, but {weights} was trained at 32 pixels; expected 32, or null: the "
        "size that it was trained at"
    )


def test_the_recipe_says_what_images_undergo(network, tmp_path):
    weights = write(tmp_path / "network.safetensors", network, recipe="shift")
    preprocessing = create_extractor("deepercluster", weights, None).preprocess
    expected = Preprocessing(resize_and_crop(32, 32, "bilinear"), (0.5,) * 3, (0.5,) * 3)
    assert torch.equal(preprocessing(IMAGES[0]), expected(IMAGES[0]))


def test_features_with_folded_filters(network, inputs, tmp_path):
    weights = write(tmp_path / "network.safetensors", fold_sobel(network), sobel=False)
    found = features_of(create_extractor("deepercluster", weights, None), IMAGES)
    torch.testing.assert_close(found, outputs(network, inputs), rtol=1e-5, atol=1e-5)


def test_features_of_another_network(inputs, tmp_path):
    network = with_random_state(unsupervised_network("small", False, 6))
    weights = write(tmp_path / "network.safetensors", network, "small", sobel=False)
    found = features_of(create_extractor("deepercluster", weights, None), IMAGES)
    assert torch.equal(found, outputs(network, inputs))
    dense = create_dense_network("deepercluster", weights, None)
    assert dense.shape == (128, 2, 2)


def test_features_of_a_released_checkpoint(network, inputs, tmp_path):
    weights = str(write_released(tmp_path / "ours.pth", network, "deepercluster"))
    for image_size in (None, 32):
        extractor = create_extractor("deepercluster", weights, image_size)
        assert (extractor.name, extractor.dimension) == ("deepercluster", 6)
        assert torch.equal(features_of(extractor, IMAGES), outputs(network, inputs))
    # As large a last map.
    assert features_of(create_extractor("deepercluster", weights, 61), IMAGES).shape == (3, 6)
    with pytest.raises(InputError) as caught:
        create_extractor("deepercluster", weights, 62)
    assert str(caught.value) == (
        f"image_size: got 62, but the linear layers of {weights} are for images of 32 pixels; "
        "expected 30 to 61"
    )


def test_a_released_checkpoint_says_itself_what_it_is_of(tmp_path):
    network = VGG16(sobel=False, image_size=224, dimension=5, n_channels=2).eval()
    weights = str(write_released(tmp_path / "rotnet.pth", network, "rotnet"))
    extractor = create_extractor("deepercluster", weights, None)
    assert extractor.dimension == 5
    preprocessing = Preprocessing(resize_and_crop(256, 224, "bilinear"), *IMAGENET)
    inputs = torch.stack([preprocessing(image) for image in IMAGES])
    assert torch.equal(features_of(extractor, IMAGES), outputs(network, inputs))


@pytest.mark.parametrize("released", [True, False])
def test_the_dense_map_is_the_thirteenth(network, inputs, tmp_path, released):
    if released:
        weights = str(write_released(tmp_path / "ours.pth", network, "deepercluster"))
    else:
        weights = write(tmp_path / "network.safetensors", network)
    dense = create_dense_network("deepercluster", weights, None)
    assert dense.shape == (64, 2, 2) and dense.dimension == 256
    expected = outputs(network, inputs, depth=13)
    assert torch.equal(features_of(dense, IMAGES), expected.flatten(1))


@pytest.mark.parametrize("weights", ["none", "download", "package", "package:a/b"])
def test_features_need_a_trained_network(weights):
    with pytest.raises(InputError) as caught:
        create_extractor("deepercluster", weights, None)
    assert str(caught.value) == (
        f"weights: got {weights!r}, expected the file of a network trained by DeeperCluster, such "
        "as data/06_models/deepercluster_network.safetensors; the pipeline deepercluster makes it"
    )


def test_a_network_that_is_not_trained_yet(tmp_path):
    message = r"weights: no file .*absent.*pipeline deepercluster makes"
    with pytest.raises(FileNotFoundError, match=message):
        create_extractor("deepercluster", str(tmp_path / "absent"), None)


def test_files_of_something_else(tmp_path):
    path = tmp_path / "network.pth"
    torch.save({"state_dict": {"fc.weight": torch.zeros(2, 2)}}, path)
    with pytest.raises(InputError, match=r"holds no VGG16 \(3 missing: .* found fc\.weight\)"):
        create_extractor("deepercluster", str(path), None)
    path.write_bytes(b"text")
    with pytest.raises(InputError, match=f"weights: cannot read {path}"):
        create_extractor("deepercluster", str(path), None)
