import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision import transforms

from lowshot_kedro.networks import create_extractor
from tests.networks.helpers import features_of, photographs, write_2017_checkpoint

# Blocks per stage and channels of the last one, as published.
REPEATS = {10: [1, 1, 1, 1], 18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3],
           101: [3, 4, 23, 3]}  # fmt: skip
DIMENSION = {10: 512, 18: 512, 34: 512, 50: 2048, 101: 2048}


class Checkpoint:
    """The tensors of a published network, drawn at random, under their published names."""

    def __init__(self, depth):
        self.generator = torch.Generator().manual_seed(depth)
        self.tensors = {}
        self.convolution("trunk.0", 64, 3, 7)
        self.norm("trunk.1", 64)
        bottleneck = depth >= 50
        number, width = 4, 64
        for stage, n_blocks in enumerate(REPEATS[depth]):
            outer = (256 if bottleneck else 64) * 2**stage
            for _ in range(n_blocks):
                self.block(f"trunk.{number}", width, outer, bottleneck)
                number, width = number + 1, outer
        self.tensors["classifier.weight"] = self.draw(1000, width)

    def draw(self, *shape, scale=1.0):
        return torch.randn(*shape, generator=self.generator) * scale

    def convolution(self, name, n_out, n_in, size, bias=False):
        scale = (2 / (n_in * size * size)) ** 0.5
        self.tensors[f"{name}.weight"] = self.draw(n_out, n_in, size, size, scale=scale)
        if bias:
            self.tensors[f"{name}.bias"] = self.draw(n_out, scale=0.5)

    def norm(self, name, width):
        self.tensors[f"{name}.weight"] = 1 + 0.1 * self.draw(width)
        self.tensors[f"{name}.bias"] = self.draw(width, scale=0.1)
        self.tensors[f"{name}.running_mean"] = self.draw(width, scale=0.1)
        self.tensors[f"{name}.running_var"] = 1 + 0.5 * self.draw(width).abs()

    def block(self, name, n_in, n_out, bottleneck):
        if bottleneck:
            self.convolution(f"{name}.C1", n_out // 4, n_in, 1)
            self.norm(f"{name}.BN1", n_out // 4)
            self.convolution(f"{name}.C2", n_out // 4, n_out // 4, 3, bias=True)
            self.norm(f"{name}.BN2", n_out // 4)
            self.convolution(f"{name}.C3", n_out, n_out // 4, 1, bias=True)
            self.norm(f"{name}.BN3", n_out)
        else:
            self.convolution(f"{name}.C1", n_out, n_in, 3)
            self.norm(f"{name}.BN1", n_out)
            self.convolution(f"{name}.C2", n_out, n_out, 3)
            self.norm(f"{name}.BN2", n_out)
        if n_in != n_out:
            self.convolution(f"{name}.shortcut", n_out, n_in, 1)
            if not bottleneck:
                self.norm(f"{name}.BNshortcut", n_out)


def plain_features(tensors, depth, images):
    """The published network, one function call after the other."""

    def convolve(x, name, stride=1, padding=0):
        weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
        return functional.conv2d(x, weight, bias, stride, padding)

    def normalize(x, name):
        mean, var, weight, bias = (
            tensors[f"{name}.{kind}"][:, None, None]
            for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def clip(x):
        return x.clamp(min=0)

    x = clip(normalize(convolve(images, "trunk.0", 2, 3), "trunk.1"))
    x = functional.max_pool2d(x, 3, 2, 1)
    number = 4
    for stage, n_blocks in enumerate(REPEATS[depth]):
        for position in range(n_blocks):
            name = f"trunk.{number}"
            stride = 2 if stage > 0 and position == 0 else 1
            if depth >= 50:
                y = clip(normalize(convolve(x, f"{name}.C1"), f"{name}.BN1"))
                y = clip(normalize(convolve(y, f"{name}.C2", stride, 1), f"{name}.BN2"))
                y = normalize(convolve(y, f"{name}.C3"), f"{name}.BN3")
            else:
                y = clip(normalize(convolve(x, f"{name}.C1", stride, 1), f"{name}.BN1"))
                y = normalize(convolve(y, f"{name}.C2", 1, 1), f"{name}.BN2")
            if f"{name}.shortcut.weight" in tensors:
                x = convolve(x, f"{name}.shortcut", stride)
                if depth < 50:
                    x = normalize(x, f"{name}.BNshortcut")
            x = clip(x + y)
            number += 1
    return functional.avg_pool2d(x, 7).flatten(1)


def saved(path, tensors, written="zip", **others):
    state = {f"module.{name}": tensor for name, tensor in tensors.items()}
    if written == "2017":
        write_2017_checkpoint(path, state, **others)
    else:
        is_zip = written == "zip"
        torch.save({**others, "state": state}, path, _use_new_zipfile_serialization=is_zip)
    return str(path)


@pytest.fixture(scope="module")
def inputs():
    """A photograph each way up, prepared by torchvision's own transforms."""
    prepare = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    return torch.stack([prepare(image) for image in photographs()])


@pytest.mark.parametrize(
    "depth, written", [(10, "zip"), (10, "legacy"), (18, "2017"), (50, "2017")]
)
def test_the_features_of_a_published_checkpoint(tmp_path, inputs, depth, written):
    tensors = Checkpoint(depth).tensors
    path = saved(tmp_path / "checkpoint.tar", tensors, written, epoch=90)
    extractor = create_extractor(f"ResNet{depth}", path, None)
    found = features_of(extractor, photographs())
    expected = plain_features(tensors, depth, inputs)
    assert expected.shape == (2, DIMENSION[depth]) == (2, extractor.dimension)
    assert (expected[0] - expected[1]).abs().mean() > 0.02
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("depth", [10, 18, 34, 50, 101])
def test_names_and_shapes_of_the_published_checkpoints(depth):
    network = create_extractor(f"ResNet{depth}", "none", 32).network
    found = {
        name: tuple(tensor.shape)
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    tensors = Checkpoint(depth).tensors
    del tensors["classifier.weight"]
    assert found == {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize("extra", [{}, {"classifier.bias": torch.zeros(1000)}])
def test_the_classifier_may_have_a_bias_or_be_absent(tmp_path, extra):
    tensors = {**Checkpoint(10).tensors, **extra}
    if not extra:
        del tensors["classifier.weight"]
    path = saved(tmp_path / "checkpoint.tar", tensors)
    network = create_extractor("ResNet10", path, 32).network
    assert torch.equal(network.state_dict()["trunk.7.C2.weight"], tensors["trunk.7.C2.weight"])
    assert not any(name.startswith("classifier") for name in network.state_dict())


def test_an_absent_bias_of_the_last_convolution_is_zero(tmp_path):
    tensors = Checkpoint(50).tensors
    absent = [name for name in tensors if name.endswith(".C3.bias")]
    assert len(absent) == 16
    kept = {name: tensor for name, tensor in tensors.items() if name not in absent[1:]}
    network = create_extractor("ResNet50", saved(tmp_path / "a.tar", kept), 64).network
    state = network.state_dict()
    assert torch.equal(state[absent[0]], tensors[absent[0]])
    assert not any(state[name].any() for name in absent[1:])


def test_any_other_absent_tensor_is_an_error(tmp_path):
    tensors = Checkpoint(50).tensors
    del tensors["trunk.4.C2.bias"]
    del tensors["trunk.19.BN3.running_mean"]
    path = saved(tmp_path / "checkpoint.tar", tensors)
    with pytest.raises(ValueError) as caught:
        create_extractor("ResNet50", path, 64)
    assert f"weights: {path} does not fit ResNet50" in str(caught.value)
    assert "2 missing: trunk.4.C2.bias, trunk.19.BN3.running_mean" in str(caught.value)


def test_a_checkpoint_of_another_depth(tmp_path):
    path = saved(tmp_path / "checkpoint.tar", Checkpoint(10).tensors)
    with pytest.raises(ValueError) as caught:
        create_extractor("ResNet18", path, 64)
    message = str(caught.value)
    assert "does not fit ResNet18" in message
    assert "trunk.8.C1.weight" in message
    shapes = "trunk.5.C1.weight float32 (128, 64, 3, 3) → float32 (64, 64, 3, 3)"
    assert shapes in message
    assert "unexpected: trunk.5.shortcut.weight" in message


@pytest.mark.parametrize("image_size, resized", [(None, 256), (224, 256), (112, 128), (96, 110)])
def test_images_are_resized_and_cropped(image_size, resized):
    preprocess = create_extractor("ResNet10", "none", image_size).preprocess
    crop = image_size or 224
    for image in photographs():
        # torchvision drops the fraction of a pixel of the longer side.
        size = [int(resized * side / min(image.size)) for side in image.size]
        left, top = (round((side - crop) / 2) for side in size)
        small = image.resize(size, Image.Resampling.BILINEAR)
        expected = np.asarray(small.crop((left, top, left + crop, top + crop)))
        np.testing.assert_array_equal(preprocess.pixels(image).permute(1, 2, 0), expected)
    white = preprocess(Image.new("RGB", (300, 300), (255, 255, 255)))[:, 3, 3]
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert white.tolist() == pytest.approx(expected, rel=1e-5)
