import pickle
from functools import partial
from http.client import HTTPException

import httpx
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from timm.data.transforms import MaybePILToTensor
from timm.models import register_model

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks import create_extractor
from tests.networks.helpers import features_of, noise, photographs, with_random_state


def timm_network(name="test_resnet", seed=0, **options):
    return with_random_state(timm.create_model(name, **options), seed)


def pixels_of(transform, image):
    *geometry, last = transform.transforms
    assert isinstance(last, MaybePILToTensor)
    for step in geometry:
        image = step(image)
    return MaybePILToTensor()(image)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_the_pooled_features_of_a_file(tmp_path, name):
    network = timm_network(name)
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    extractor = create_extractor(f"timm/{name}", str(path), None)
    transform = create_transform(**resolve_model_data_config(network))
    inputs = torch.stack([transform(image) for image in photographs()])
    with torch.inference_mode():
        expected = network.forward_head(network.forward_features(inputs), pre_logits=True)
        classes = network(inputs)
        found = features_of(extractor, photographs())
        found_classes = network.get_classifier()(found)
    assert found.shape == (2, extractor.dimension) == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found_classes, classes, rtol=1e-4, atol=1e-4)
    assert (expected[0] - expected[1]).abs().max() > 1e-3


CONFIGURATIONS = [
    {},
    {"crop_pct": 0.875, "interpolation": "bilinear"},
    {"crop_pct": 1.0, "crop_mode": "squash"},
    {"crop_pct": 0.8, "crop_mode": "squash", "mean": (0.1, 0.2, 0.3), "std": (0.3, 0.2, 0.1)},
    {"crop_pct": 0.9, "crop_mode": "border", "mean": (0.1, 0.2, 0.3)},
    {"input_size": (3, 96, 128), "crop_pct": 0.9},
]


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("image_size", [None, 64])
def test_images_are_prepared_as_timm_prepares_them(monkeypatch, configuration, image_size):
    created = partial(timm.create_model, pretrained_cfg_overlay=configuration)
    monkeypatch.setattr(timm, "create_model", created)
    preprocess = create_extractor("timm/test_resnet", "none", image_size).preprocess
    config = resolve_model_data_config(created("test_resnet"))
    assert configuration.items() <= config.items()
    if image_size:
        config["input_size"] = (3, image_size, image_size)
    for image in [*photographs(), noise((50, 41)), noise((33, 80))]:
        expected = pixels_of(create_transform(**config, normalize=False), image)
        assert torch.equal(preprocess.pixels(image), expected)
        torch.testing.assert_close(
            preprocess(image), create_transform(**config)(image), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_the_preprocessing_can_be_sent_to_workers(monkeypatch, crop_mode):
    created = partial(timm.create_model, pretrained_cfg_overlay={"crop_mode": crop_mode})
    monkeypatch.setattr(timm, "create_model", created)
    preprocess = create_extractor("timm/test_resnet", "none", 64).preprocess
    copy = pickle.loads(pickle.dumps(preprocess))
    assert torch.equal(copy(noise((90, 70))), preprocess(noise((90, 70))))


def test_the_tag_chooses_the_preprocessing():
    def size(name):
        return tuple(create_extractor(name, "none", None).preprocess(noise((50, 50))).shape)

    assert size("timm/resnet10t.c3_in1k") == (3, 176, 176)
    assert size("timm/vit_tiny_patch16_224.augreg_in21k") == (3, 224, 224)


def test_a_network_of_fixed_size_gets_its_weights_before_it_is_changed(tmp_path):
    name = "vit_tiny_patch16_224"
    # timm itself interpolates the positions of this one while it runs.
    network = timm_network(name, dynamic_img_size=True)
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    extractor = create_extractor(f"timm/{name}", str(path), 96)
    assert tuple(extractor.network.pos_embed.shape) == (1, 1 + 6 * 6, 192)
    images = photographs()
    inputs = torch.stack([extractor.preprocess(image) for image in images])
    assert inputs.shape == (2, 3, 96, 96)
    with torch.inference_mode():
        expected = network.forward_head(network.forward_features(inputs), pre_logits=True)
    torch.testing.assert_close(features_of(extractor, images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name, image_size", [("timm/levit_128s", 64), ("timm/test_vit", 90), ("timm/resmlp_12_224", 32)]
)
def test_an_input_size_that_the_network_does_not_take(name, image_size):
    size = f"{image_size}×{image_size}"
    with pytest.raises(ValueError) as caught:
        create_extractor(name, "none", image_size)
    expected = f"image_size: {name} does not take images of {size} pixels ("
    assert str(caught.value).startswith(expected)
    assert str(caught.value).endswith("; without a number, its own size is taken")


@pytest.mark.parametrize(
    "name, near",
    [
        ("resnet5O", "timm/resnet50"),
        ("resnet50.a1_in1", "timm/resnet50.a1_in1k"),
        ("hf-hub:timm/resnet50.a1_in1k", "timm/resnet50.a1_in1k"),
        ("resnet*", "timm/resnet"),
        ("../x", "timm.list_models()"),
    ],
)
def test_an_unknown_model(name, near):
    with pytest.raises(ValueError) as caught:
        create_extractor(f"timm/{name}", "none", None)
    assert f"name: timm has no model {name!r}; " in str(caught.value)
    assert near in str(caught.value)


def test_an_encoder_that_does_not_classify():
    with pytest.raises(ValueError, match="timm/qwen3_vit_88m_enc has no classifier to cut off"):
        create_extractor("timm/qwen3_vit_88m_enc", "none", None)


def test_a_network_that_returns_no_vector(monkeypatch):
    created = partial(timm.create_model, global_pool="")
    monkeypatch.setattr(timm, "create_model", created)
    with pytest.raises(ValueError, match=r"test_resnet returns an array of shape \(1, \d+, 2, 2\)"):
        create_extractor("timm/test_resnet", "none", 64)


def test_the_classifier_may_be_of_another_size_or_absent(tmp_path):
    path = tmp_path / "weights.pth"
    for options in ({"num_classes": 7}, {"num_classes": 0}):
        # A classifier with layers of its own, not one linear layer.
        network = timm_network("efficientvit_m0", **options)
        torch.save(network.state_dict(), path)
        found = create_extractor("timm/efficientvit_m0", str(path), None).network.state_dict()
        expected = network.state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
        assert not any(name.startswith("head") for name in found)


def test_a_classifier_for_a_network_without_one(tmp_path, monkeypatch):
    network = timm_network("test_resnet", num_classes=7)
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, num_classes=0))
    found = create_extractor("timm/test_resnet", str(path), 64).network.state_dict()
    assert set(network.state_dict()) - set(found) == {"fc.weight", "fc.bias"}


def test_a_file_that_timm_would_convert(tmp_path):
    # The names that the authors of ConvNeXt published their weights under.
    network = timm_network("test_convnext")
    renamed = {}
    for name, tensor in network.state_dict().items():
        for new, old in (
            ("stem.", "downsample_layers.0."), ("mlp.fc1", "pwconv1"), ("mlp.fc2", "pwconv2"),
            ("conv_dw", "dwconv"), ("head.norm", "norm"), ("head.fc", "head"), (".blocks.", "."),
        ):  # fmt: skip
            name = name.replace(new, old)
        parts = name.split(".")
        if parts[0] == "stages" and parts[2] == "downsample":
            parts = ["downsample_layers", *parts[1:2], *parts[3:]]
        renamed[".".join(parts)] = tensor
    path = tmp_path / "weights.pth"
    torch.save({"model": renamed}, path)
    extractor = create_extractor("timm/test_convnext", str(path), None)
    found, expected = extractor.network.state_dict(), network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
def test_a_file_of_another_network(tmp_path, name):
    path = tmp_path / "weights.pth"
    torch.save({"trunk.0.weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError) as caught:
        create_extractor(f"timm/{name}", str(path), None)
    for fact in (
        f"{path} does not fit timm/{name} (",
        " missing: ",
        "1 unexpected: trunk.0.weight",
    ):
        assert fact in str(caught.value)


def test_shapes_of_another_network_are_named(tmp_path):
    path = tmp_path / "weights.pth"
    state = timm_network("test_resnet").state_dict()
    torch.save({**state, "conv1.0.weight": torch.zeros(5, 3, 3, 3)}, path)
    with pytest.raises(ValueError, match=r"conv1\.0\.weight float32 \(5, 3, 3, 3\) → float32 \("):
        create_extractor("timm/test_resnet", str(path), None)


def from_address(monkeypatch, address):
    overlay = {"url": address, "hf_hub_id": None}
    created = partial(timm.create_model, pretrained_cfg_overlay=overlay)
    monkeypatch.setattr(timm, "create_model", created)


def test_weights_are_downloaded(monkeypatch, web_server):
    folder, address = web_server
    network = timm_network("test_resnet")
    torch.save(network.state_dict(), folder / "resnet.pth")
    from_address(monkeypatch, f"{address}/resnet.pth")
    found = create_extractor("timm/test_resnet", "download", 64).network.state_dict()
    expected = network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    assert set(expected) - set(found) == {"fc.weight", "fc.bias"}


def test_a_download_that_fails(monkeypatch, unreachable_server):
    from_address(monkeypatch, f"{unreachable_server}/resnet.pth")
    with pytest.raises(ValueError) as caught:
        create_extractor("timm/test_resnet", "download", 64)
    message = str(caught.value)
    start = "weights: cannot download the weights of timm/test_resnet (URLError: "
    assert message.startswith(start)
    assert "refused" in message
    assert message.endswith("bring the file to this machine and give its path")
    assert "\n" not in message


class Broken(torch.nn.Module):
    """Has an error of its own, while it is built or while it is used."""

    def __init__(self, error, while_used):
        super().__init__()
        self.error, self.while_used = error, while_used
        self.pretrained_cfg = {"input_size": (3, 32, 32), "classifier": "fc"}
        self.fc = torch.nn.Linear(3, 2)
        if not while_used:
            raise error

    def reset_classifier(self, n_classes):
        self.fc = torch.nn.Identity()

    def forward(self, images):
        raise self.error


WHAT_BREAKS = {}


@register_model
def lowshot_broken(pretrained=False, **options):
    return Broken(**WHAT_BREAKS)


@pytest.fixture
def broken(monkeypatch):
    def set_up(error, while_used):
        monkeypatch.setitem(WHAT_BREAKS, "error", error)
        monkeypatch.setitem(WHAT_BREAKS, "while_used", while_used)

    return set_up


@pytest.mark.parametrize("error", [KeyError("bug"), RuntimeError("bug"), NameError("bug")])
@pytest.mark.parametrize("image_size", [None, 64])
def test_a_defect_of_a_constructor_is_no_wrong_parameter(broken, error, image_size):
    broken(error, while_used=False)
    with pytest.raises(type(error)) as caught:
        create_extractor("timm/lowshot_broken", "none", image_size)
    assert caught.value is error


@pytest.mark.parametrize(
    "error, image_size",
    [
        (KeyError("bug"), 64),
        (TypeError("bug"), 64),
        (KeyError("bug"), None),
        # A layer that does not take the network's own size is not to be mended by another one.
        (RuntimeError("bug"), None),
        (AssertionError("bug"), None),
    ],
)
def test_a_defect_of_a_network_is_no_wrong_size(broken, error, image_size):
    broken(error, while_used=True)
    with pytest.raises(type(error)) as caught:
        create_extractor("timm/lowshot_broken", "none", image_size)
    assert caught.value is error


@pytest.mark.parametrize("error", [KeyError("bug"), RuntimeError("bug"), TypeError("bug")])
def test_a_defect_is_no_failed_download(monkeypatch, error):
    def create_model(name, pretrained):
        raise error

    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(type(error)) as caught:
        create_extractor("timm/resnet50.a1_in1k", "download", None)
    assert caught.value is error


@pytest.mark.parametrize(
    "error",
    [
        HTTPException("cut"),
        ConnectionResetError("cut"),
        httpx.ReadTimeout("cut"),
        EntryNotFoundError("cut"),
        SafetensorError("cut"),
        pickle.UnpicklingError("cut"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_transfer_ends_in_is_a_failed_download(monkeypatch, error):
    def create_model(name, pretrained):
        raise error

    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(InputError, match=r"^weights: cannot download the weights of timm/resnet50"):
        create_extractor("timm/resnet50.a1_in1k", "download", None)
