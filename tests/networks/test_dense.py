"""Dense maps of every kind of network: what is before the pooling, in its place."""

from functools import partial

import pytest
import timm
import torch
from torch import nn

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks import create_dense_network, create_extractor
from lowshot_kedro.networks.dense import dense_extractor
from lowshot_kedro.networks.embedding import embedding_network
from lowshot_kedro.networks.extractor import Extractor
from lowshot_kedro.networks.preprocessing import Preprocessing, resize_and_crop
from tests.networks import test_embedding_file as embedding_files
from tests.networks.helpers import noise, photographs, with_random_state


def inputs_of(extractor):
    images = [*photographs(), noise((90, 70))]
    return torch.stack([extractor.preprocess(image) for image in images])


def dense_and_pooled(name, image_size):
    """A network, its dense form, and what both give for the same images."""
    extractor = create_extractor(name, "none", image_size)
    with_random_state(extractor.network)
    dense = dense_extractor(extractor)
    inputs = inputs_of(extractor)
    with torch.inference_mode():
        return extractor, dense, dense.dense(inputs), extractor.network(inputs)


@pytest.mark.parametrize(
    "name, image_size, shape",
    [
        ("efficientnet_lite0", 64, (1280, 2, 2)),
        ("ResNet10", 96, (512, 3, 3)),
        ("ResNet12", 32, (640, 2, 2)),
        ("timm/test_resnet", None, (96, 5, 5)),
        ("timm/test_efficientnet", 96, (256, 3, 3)),
        ("torchvision/squeezenet1_1", 96, (512, 5, 5)),
        ("torchvision/shufflenet_v2_x0_5", 64, (1024, 2, 2)),
        ("torchvision/mobilenet_v2", 64, (1280, 2, 2)),
        ("torchvision/densenet121", 64, (1024, 2, 2)),
    ],
)
def test_the_mean_of_a_map_is_the_feature_where_networks_pool_by_a_mean(name, image_size, shape):
    extractor, dense, maps, pooled = dense_and_pooled(name, image_size)
    assert dense.shape == maps.shape[1:] == shape
    assert dense.name == name
    torch.testing.assert_close(maps.mean((2, 3)), pooled, rtol=1e-3, atol=1e-4)
    # Positions differ, and so do images: a map of one vector everywhere would pass as well.
    assert (maps - maps.mean((2, 3), keepdim=True)).abs().max() > 1e-3 * maps.abs().max()
    assert (maps[0] - maps[1]).abs().max() > 1e-3 * maps.abs().max()
    assert extractor.describe() != dense.describe()


@pytest.mark.parametrize(
    "name, n_prefix", [("test_vit", 1), ("test_vit3", 1), ("deit_tiny_distilled_patch16_224", 2)]
)
def test_tokens_stand_where_their_patches_are(monkeypatch, name, n_prefix):
    created = partial(timm.create_model, img_size=(64, 64))
    monkeypatch.setattr(timm, "create_model", created)
    _, dense, maps, _ = dense_and_pooled(f"timm/{name}", 64)
    network = dense.dense.network
    assert network.num_prefix_tokens == n_prefix
    with torch.inference_mode():
        tokens = network.forward_features(inputs_of(dense))
    channels, height, width = dense.shape
    assert tokens.shape == (3, n_prefix + height * width, channels)
    for row in range(height):
        for column in range(width):
            token = tokens[:, n_prefix + row * width + column]
            torch.testing.assert_close(maps[:, :, row, column], token, rtol=1e-4, atol=1e-5)


def test_channels_that_are_the_last_axis():
    _, dense, maps, _ = dense_and_pooled("timm/test_mambaout", 96)
    network = dense.dense.network
    assert dense.shape == (64, 3, 3)
    with torch.inference_mode():
        expected = network.forward_features(inputs_of(dense))
    torch.testing.assert_close(maps.permute(0, 2, 3, 1), expected)


def test_rows_are_flattened_maps():
    dense = create_dense_network("timm/test_resnet", "none", 96)
    inputs = inputs_of(dense)
    assert dense.dimension == 96 * 3 * 3
    assert not dense.network.training
    with torch.inference_mode():
        rows, maps = dense.network(inputs), dense.dense(inputs)
    assert torch.equal(rows.reshape(-1, *dense.shape), maps)
    assert dense.describe()["shape"] == [96, 3, 3]


def test_a_map_of_another_size_is_another_network():
    small, large = (create_dense_network("timm/test_resnet", "none", size) for size in (64, 96))
    assert small.shape == (96, 2, 2)
    assert small.describe() != large.describe()


@pytest.mark.parametrize("network", ["small", "cifar_resnet18", "timm/test_resnet"])
def test_the_network_of_an_snca_file(tmp_path, network):
    path = tmp_path / "network.safetensors"
    description = embedding_files.DESCRIPTION
    trained = with_random_state(embedding_network(network, 6, image_size=32))
    with pytest.MonkeyPatch.context() as patch:
        changed = type(description)(**{**vars(description), "network": network})
        patch.setattr(embedding_files, "DESCRIPTION", changed)
        patch.setattr(embedding_files, "embedding_network", lambda *_: trained)
        embedding_files.write(path)
    dense = create_dense_network("snca", str(path), None)
    inputs = inputs_of(dense)
    head = trained.network.get_classifier() if "/" in network else trained.network.linear
    with torch.inference_mode():
        embedded = torch.nn.functional.normalize(head(dense.dense(inputs).mean((2, 3))))
        expected = trained(inputs)
    torch.testing.assert_close(embedded, expected, rtol=1e-4, atol=1e-5)


NO_MAP = "this network has no dense map: it"
WITH_MAP = "such as ResNet12, timm/resnet18 or timm/vit_tiny_patch16_224"


class Branching(nn.Module):
    def forward(self, images):
        return images if images.sum() > 0 else -images


@pytest.mark.parametrize(
    "network, reason",
    [
        (nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.Flatten()), "has no mean over positions"),
        (Branching(), "cannot be taken apart (TraceError: "),
        (nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, -1)), nn.AdaptiveAvgPool2d(1)),
         "returns an array of shape (1, 3, 256) for one image"),
    ],
)  # fmt: skip
def test_a_network_without_a_map_before_a_mean(network, reason):
    preprocess = Preprocessing(resize_and_crop(16, 16, "bilinear"), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(InputError) as caught:
        dense_extractor(Extractor("mine", network.eval(), preprocess, 16))
    message = str(caught.value)
    assert message.startswith(f"name: got 'mine', but {NO_MAP} {reason}")
    assert message.endswith(WITH_MAP)


@pytest.mark.parametrize("places_tokens", [True, False])
def test_a_network_that_says_of_no_token_where_it_is(monkeypatch, places_tokens):
    extractor = create_extractor("timm/test_vit", "none", None)
    network = extractor.network
    if places_tokens:
        answer, found = [torch.zeros(1, 101, 64)], "an array of shape (1, 101, 64)"
        monkeypatch.setattr(network, "forward_intermediates", lambda *_, **__: answer)
    else:
        monkeypatch.delattr(type(network), "forward_intermediates")
        found = "AttributeError: "
    with pytest.raises(InputError) as caught:
        dense_extractor(extractor)
    reason = f"does not say which token belongs to which region ({found}"
    assert f"name: got 'timm/test_vit', but {NO_MAP} {reason}" in str(caught.value)
    assert str(caught.value).endswith(WITH_MAP)


def test_names_and_sizes_that_are_refused_as_elsewhere():
    with pytest.raises(InputError, match=r"name: got 'ResNet13', expected one of: .*ResNet12"):
        create_dense_network("ResNet13", "none", None)
    with pytest.raises(InputError, match="timm/test_vit does not take images of 90×90 pixels"):
        create_dense_network("timm/test_vit", "none", 90)
