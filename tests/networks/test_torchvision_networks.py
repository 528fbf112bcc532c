import hashlib
import os
import pickle

import pytest
import torch
from torchvision import models

from lowshot_kedro.networks import create_extractor
from tests.networks.helpers import features_of, noise, photographs, with_random_state


def published(name, **options):
    """A network with its classifier, and weights of its own."""
    return with_random_state(models.get_model(name, weights=None, **options))


def saved(path, state):
    torch.save(state, path)
    return str(path)


def input_of(network, layer, images):
    """What a layer is given while the network runs."""
    inputs = []
    hook = network.get_submodule(layer).register_forward_pre_hook(
        lambda _, arguments: inputs.append(arguments[0])
    )
    with torch.inference_mode():
        network(images)
    hook.remove()
    return inputs[0]


@pytest.mark.parametrize(
    "name, layer, dimension",
    [
        ("resnet18", "fc", 512),
        ("mobilenet_v3_small", "classifier.3", 1024),
        ("shufflenet_v2_x0_5", "fc", 1024),
        ("mnasnet0_5", "classifier.1", 1280),
        ("densenet121", "classifier", 1024),
    ],
)
def test_features_are_what_the_classifier_is_given(tmp_path, name, layer, dimension):
    network = published(name)
    path = saved(tmp_path / "weights.pth", network.state_dict())
    extractor = create_extractor(f"torchvision/{name}", path, 64)
    images = photographs()
    inputs = torch.stack([extractor.preprocess(image) for image in images])
    expected = input_of(network, layer, inputs)
    found = features_of(extractor, images)
    assert found.shape == (2, dimension) == (2, extractor.dimension)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(expected[0], expected[1])
    assert not extractor.network.training


def test_a_network_whose_classifier_is_a_convolution(tmp_path):
    network = published("squeezenet1_1", num_classes=7)
    path = saved(tmp_path / "weights.pth", network.state_dict())
    extractor = create_extractor("torchvision/squeezenet1_1", path, 64)
    images = photographs()
    with torch.inference_mode():
        maps = network.features(torch.stack([extractor.preprocess(image) for image in images]))
    found = features_of(extractor, images)
    assert found.shape == (2, 512) == (2, extractor.dimension)
    torch.testing.assert_close(found, maps.mean((2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name, auxiliary", [("googlenet", {"aux1", "aux2"}), ("inception_v3", {"AuxLogits"})]
)
def test_auxiliary_classifiers_are_cut_off_and_colours_rescaled(tmp_path, name, auxiliary):
    # As torchvision builds them around the weights that it publishes.
    network = published(name, transform_input=True, init_weights=False)
    path = saved(tmp_path / "weights.pth", network.state_dict())
    extractor = create_extractor(f"torchvision/{name}", path, 96)
    inputs = torch.stack([extractor.preprocess(image) for image in photographs()])
    found = features_of(extractor, photographs())
    torch.testing.assert_close(found, input_of(network, "fc", inputs), rtol=1e-4, atol=1e-5)
    names = {name.partition(".")[0] for name in network.state_dict()}
    kept = {name.partition(".")[0] for name in extractor.network.state_dict()}
    assert names - kept == {"fc", *auxiliary}


def test_a_file_without_auxiliary_classifiers(tmp_path):
    network = published("googlenet", init_weights=False, aux_logits=False)
    path = saved(tmp_path / "weights.pth", network.state_dict())
    found = create_extractor("torchvision/googlenet", path, 64).network.state_dict()
    assert torch.equal(found["conv1.conv.weight"], network.state_dict()["conv1.conv.weight"])


# Their preprocessing differs: 256 and 224 bilinear; 342 and 299; 256 and 224 bicubic; 232 and 224.
@pytest.mark.parametrize(
    "name", ["resnet18", "inception_v3", "efficientnet_b0", "mobilenet_v3_large"]
)
def test_images_are_prepared_as_torchvision_prepares_them(name):
    preprocess = create_extractor(f"torchvision/{name}", "none", None).preprocess
    reference = models.get_model_weights(name).DEFAULT.transforms()
    for image in [*photographs(), noise((350, 400)), noise((60, 50))]:
        torch.testing.assert_close(preprocess(image), reference(image), rtol=1e-5, atol=1e-5)
    copy = pickle.loads(pickle.dumps(preprocess))
    assert torch.equal(copy(noise((90, 70))), preprocess(noise((90, 70))))


@pytest.mark.parametrize("image_size, resized", [(112, 128), (64, 73)])
def test_both_sizes_change_in_proportion(image_size, resized):
    preprocess = create_extractor("torchvision/resnet18", "none", image_size).preprocess
    reference = models.ResNet18_Weights.DEFAULT.transforms(
        crop_size=image_size, resize_size=resized
    )
    for image in photographs():
        torch.testing.assert_close(preprocess(image), reference(image), rtol=1e-5, atol=1e-5)


def test_a_vision_transformer_is_built_for_the_input_size():
    extractor = create_extractor("torchvision/vit_b_32", "none", 64)
    assert features_of(extractor, [noise((80, 80))]).shape == (1, 768) == (1, extractor.dimension)


@pytest.mark.parametrize("name", ["torchvision/inception_v3", "torchvision/maxvit_t"])
def test_an_input_size_that_the_network_does_not_take(name):
    with pytest.raises(ValueError) as caught:
        create_extractor(name, "none", 32)
    expected = f"image_size: {name} does not take images of 32×32 pixels ("
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    "name, near", [("resnet5O", "torchvision/resnet50"), ("x", "torchvision.list_models()")]
)
def test_an_unknown_model(name, near):
    with pytest.raises(ValueError) as caught:
        create_extractor(f"torchvision/{name}", "none", None)
    assert f"name: torchvision has no model {name!r}; " in str(caught.value)
    assert near in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["fcn_resnet50", "fasterrcnn_resnet50_fpn", "r3d_18", "raft_small", "quantized_resnet18"],
)
def test_a_model_that_does_not_classify_images(name):
    with pytest.raises(ValueError, match=f"name: torchvision/{name} is quantized or"):
        create_extractor(f"torchvision/{name}", "none", None)


def test_a_file_that_does_not_fit(tmp_path):
    state = published("shufflenet_v2_x0_5").state_dict()
    del state["conv1.0.weight"]
    state["conv5.0.weight"] = torch.zeros(7, 192, 1, 1)
    state["head.weight"] = torch.zeros(3)
    path = saved(tmp_path / "weights.pth", state)
    with pytest.raises(ValueError) as caught:
        create_extractor("torchvision/shufflenet_v2_x0_5", path, 64)
    for fact in (
        f"weights: {path} does not fit torchvision/shufflenet_v2_x0_5",
        "1 missing: conv1.0.weight; 1 unexpected: head.weight; ",
        "conv5.0.weight float32 (7, 192, 1, 1) → float32 (1024, 192, 1, 1)",
    ):
        assert fact in str(caught.value)


def test_the_names_in_the_published_files_of_densenet(tmp_path):
    network = published("densenet121")
    old = {}
    for name, tensor in network.state_dict().items():
        for kind in ("norm", "conv"):
            for number in ("1", "2"):
                if "denselayer" in name:
                    name = name.replace(f".{kind}{number}.", f".{kind}.{number}.")
        old[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    path = saved(tmp_path / "weights.pth", old)
    found = create_extractor("torchvision/densenet121", path, 64).network.state_dict()
    expected = network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.fixture
def default(monkeypatch):
    """The published weights of a small network, whose address a test may change."""
    weights = models.ShuffleNet_V2_X0_5_Weights.DEFAULT.value
    return lambda address: monkeypatch.setattr(weights, "url", address)


def served(folder, content):
    """A file whose name says how its checksum begins, as torchvision wants it."""
    path = folder / "weights.pth"
    torch.save(content, path)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    return path.rename(folder / f"weights-{checksum[:8]}.pth").name


def test_weights_are_downloaded(default, web_server):
    folder, address = web_server
    network = published("shufflenet_v2_x0_5")
    default(f"{address}/{served(folder, network.state_dict())}")
    extractor = create_extractor("torchvision/shufflenet_v2_x0_5", "download", 64)
    found, expected = extractor.network.state_dict(), network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    assert set(expected) - set(found) == {"fc.weight", "fc.bias"}


def test_a_download_that_does_not_fit(default, web_server):
    folder, address = web_server
    default(f"{address}/{served(folder, {'a': torch.zeros(3)})}")
    with pytest.raises(ValueError, match=f"{address}.* does not fit .*1 unexpected: a"):
        create_extractor("torchvision/shufflenet_v2_x0_5", "download", 64)


def test_a_download_with_another_checksum(default, web_server):
    folder, address = web_server
    name = served(folder, published("shufflenet_v2_x0_5").state_dict())
    (folder / name).rename(folder / "weights-00000000.pth")
    default(f"{address}/weights-00000000.pth")
    with pytest.raises(ValueError, match=r"cannot download the weights of .*invalid hash value"):
        create_extractor("torchvision/shufflenet_v2_x0_5", "download", 64)


class MakesFolder:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_download_is_not_run(tmp_path, default, web_server):
    folder, address = web_server
    default(f"{address}/{served(folder, MakesFolder(tmp_path / 'made'))}")
    with pytest.raises(ValueError, match="cannot download"):
        create_extractor("torchvision/shufflenet_v2_x0_5", "download", 64)
    assert not (tmp_path / "made").exists()


def test_a_download_that_fails(default, unreachable_server):
    default(f"{unreachable_server}/weights-01234567.pth")
    with pytest.raises(ValueError) as caught:
        create_extractor("torchvision/shufflenet_v2_x0_5", "download", 64)
    message = str(caught.value)
    name = "torchvision/shufflenet_v2_x0_5"
    assert message.startswith(f"weights: cannot download the weights of {name} (URLError")
    assert "refused" in message
    assert message.endswith("bring the file to this machine and give its path")
