import subprocess
import sys

import pytest
import torch

from lowshot_kedro.networks import EXTRACTORS, create_extractor, require_extractor
from tests.networks.helpers import features_of, noise

NAMES = [
    "efficientnet_lite0", "ResNet10", "ResNet18", "ResNet34", "ResNet50", "ResNet101",
    "ResNet12", "ResNet12_cifar_fs", "snca", "deepercluster",
]  # fmt: skip


def test_the_names_that_stand_alone():
    assert list(EXTRACTORS) == NAMES


@pytest.mark.parametrize(
    "name", [*NAMES, "timm/resnet50.a1_in1k", "torchvision/resnet50", "timm/x"]
)
def test_names_in_the_right_form_are_accepted(name):
    require_extractor(name)


@pytest.mark.parametrize(
    "name", ["resnet", "", "timm/", "timm", "vision/resnet50", "ResNet10/x", None, 18, ["ResNet10"]]
)
def test_any_other_name_is_refused_with_what_is_allowed(name):
    with pytest.raises(ValueError) as caught:
        require_extractor(name)
    message = str(caught.value)
    assert message.startswith(f"name: got {name!r}, expected one of: {NAMES[0]}, ")
    assert "ResNet12_cifar_fs, snca, deepercluster, timm/NAME or torchvision/NAME" in message
    with pytest.raises(ValueError, match=r"name: got"):
        create_extractor(name, "none", None)


@pytest.mark.parametrize(
    "name, near", [("resnet50", "ResNet50"), ("efficientnet-lite0", "efficientnet_lite0")]
)
def test_the_name_that_may_have_been_meant(name, near):
    with pytest.raises(ValueError, match=rf"\(did you mean {near}\?\)"):
        require_extractor(name)


def test_no_name_is_suggested_for_something_quite_different():
    with pytest.raises(ValueError) as caught:
        require_extractor("12345")
    assert "did you mean" not in str(caught.value)


def test_names_are_checked_without_loading_the_libraries():
    code = (
        "import sys; from lowshot_kedro.networks import require_extractor;"
        "require_extractor('timm/resnet50'); require_extractor('torchvision/resnet50');"
        "sys.exit('timm' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "name",
    ["efficientnet_lite0", "ResNet10", "ResNet12", "timm/test_vit", "torchvision/squeezenet1_1"],
)
def test_random_weights_are_always_the_same_and_leave_the_generator_alone(name):
    features = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = torch.rand(4)
        torch.manual_seed(seed)
        extractor = create_extractor(name, "none", 64)
        assert torch.equal(torch.rand(4), expected)
        assert not extractor.network.training
        assert extractor.name == name
        features.append(features_of(extractor, [noise((90, 70)), noise((70, 90), seed=1)]))
    assert torch.equal(*features)
    assert features[0].shape == (2, extractor.dimension)
    assert features[0].dtype == torch.float32
    assert not torch.allclose(features[0][0], features[0][1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["ResNet10", "timm/test_vit", "torchvision/squeezenet1_1"])
def test_a_package_that_carries_weights_is_known_for_one_network_only(name):
    with pytest.raises(ValueError, match=f"got 'package', but no Python package .* of {name};"):
        create_extractor(name, "package", 64)


@pytest.mark.parametrize("name", ["ResNet10", "efficientnet_lite0", "timm/test_coatnet"])
def test_networks_that_nobody_offers_for_download(name):
    with pytest.raises(ValueError, match=f"got 'download', but nobody offers weights of {name}"):
        create_extractor(name, "download", None)
