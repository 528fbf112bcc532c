import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from lowshot_kedro.networks.preprocessing import Preprocessing, resize_and_crop
from tests.networks.helpers import noise

MEAN, STD = (0.5, 0.25, 0.125), (0.2, 0.4, 0.8)


def unchanged(image):
    return image


def test_pixels_are_the_bytes_of_the_image_channel_by_channel():
    image = noise((5, 3))
    pixels = Preprocessing(unchanged, MEAN, STD).pixels(image)
    assert (pixels.dtype, tuple(pixels.shape)) == (torch.uint8, (3, 3, 5))
    np.testing.assert_array_equal(pixels.permute(1, 2, 0), np.asarray(image))


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_colours_are_normalised_channel_by_channel(batch):
    pixels = torch.randint(0, 256, (*batch, 3, 6, 5), dtype=torch.uint8)
    found = Preprocessing(unchanged, MEAN, STD).normalize(pixels)
    scaled = pixels.numpy().astype(np.float64) / 255
    expected = (scaled - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_calling_it_does_both():
    preprocessing = Preprocessing(resize_and_crop(9, 7, "bilinear"), MEAN, STD)
    image = noise((30, 20))
    expected = preprocessing.normalize(preprocessing.pixels(image))
    assert torch.equal(preprocessing(image), expected)
    assert expected.shape == (3, 7, 7)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (50, 41), (20, 500), (40, 40)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_square_in_the_middle_of_the_resized_image(size, interpolation):
    image = noise(size)
    expected = transforms.Compose(
        [
            transforms.Resize(40, transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(35),
            transforms.PILToTensor(),
        ]
    )(image)
    resize = resize_and_crop(40, 35, interpolation)
    assert torch.equal(Preprocessing(resize, MEAN, STD).pixels(image), expected)


@pytest.mark.parametrize("is_upright", [True, False])
@pytest.mark.parametrize("shorter", [1, 2, 3])
def test_a_strip_takes_no_more_memory_than_its_middle(is_upright, shorter):
    """Resized as a whole it would have 40 × 800 000 pixels or more."""
    asked = []

    def resize(image):
        asked.append(image.size)
        return resize_and_crop(40, 35, "bilinear")(image)

    length = 20_001 * shorter
    strip = np.zeros((shorter, length, 3), np.uint8)
    # The middle is bright, as far as a square and what lies around it.
    middle = length // 2
    strip[:, middle - 2 * shorter : middle + 2 * shorter + 1] = 200
    image = Image.fromarray(strip.transpose(1, 0, 2) if is_upright else strip)
    found = Preprocessing(resize, MEAN, STD).pixels(image)
    ((width, height),) = asked
    assert max(width, height) <= 17 * shorter == 17 * min(width, height)
    assert found.shape == (3, 35, 35)
    assert (found == 200).all()


def test_a_long_image_is_no_strip():
    image = Image.effect_noise((256, 1), 60).convert("RGB")
    resize = resize_and_crop(8, 7, "bilinear")
    found = Preprocessing(resize, MEAN, STD).pixels(image)
    np.testing.assert_array_equal(found.permute(1, 2, 0), np.array(resize(image)))


def test_it_can_be_sent_to_workers():
    preprocessing = Preprocessing(resize_and_crop(40, 35, "bicubic"), MEAN, STD)
    copy = pickle.loads(pickle.dumps(preprocessing))
    image = noise((60, 50))
    assert torch.equal(copy(image), preprocessing(image))
