"""Recipes of augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from lowshot_kedro.training.parameters import AUGMENTATIONS
from lowshot_kedro.training.transforms import RECIPES


def image(width: int = 60, height: int = 40) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    channels = np.stack([rows * 6, columns * 4, rows * columns % 256], axis=-1)
    return Image.fromarray(channels.astype(np.uint8))


def test_the_parameter_knows_all_recipes() -> None:
    assert set(AUGMENTATIONS) == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("size", [16, 33])
def test_any_image_gets_the_size_of_the_network(name: str, size: int) -> None:
    recipe = RECIPES[name]
    for shape in [(60, 40), (7, 90), (size, size)]:
        assert recipe.augment(size)(image(*shape)).size == (size, size)
        assert recipe.preprocessing(size)(image(*shape)).shape == (3, size, size)


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "none"])
def test_the_same_seed_draws_the_same(name: str) -> None:
    augment = RECIPES[name].augment(16)

    def drawn(seed: int) -> bytes:
        torch.manual_seed(seed)
        return augment(image()).tobytes()

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(20)}) > 5


def test_the_original_recipes() -> None:
    crop, gray, jitter, flip = RECIPES["cifar"].random_steps(32)
    assert crop.size == (32, 32) and tuple(crop.scale) == (0.2, 1.0)
    assert crop.ratio == (3 / 4, 4 / 3)
    assert gray.p == 0.2 and flip.p == 0.5
    factors = (0.6, 1.4)
    assert (jitter.brightness, jitter.contrast, jitter.saturation) == (factors,) * 3
    assert jitter.hue == (-0.4, 0.4)
    crop, flip = RECIPES["imagenet"].random_steps(224)
    assert crop.size == (224, 224) and tuple(crop.scale) == (0.08, 1.0) and flip.p == 0.5


def test_what_a_trained_network_sees() -> None:
    # Written apart: resize 256, centre 224.
    whole = image(500, 375)
    expected = transforms.CenterCrop(224)(transforms.Resize(256)(whole))
    found = RECIPES["imagenet"].preprocessing(224)
    np.testing.assert_array_equal(
        found.pixels(whole).permute(1, 2, 0).numpy(), np.asarray(expected)
    )
    assert found.mean == (0.485, 0.456, 0.406) and found.std == (0.229, 0.224, 0.225)
    cifar = RECIPES["cifar"].preprocessing(32)
    small = image(32, 32)
    np.testing.assert_array_equal(cifar.pixels(small).permute(1, 2, 0).numpy(), np.asarray(small))
    assert cifar.mean == (0.4914, 0.4822, 0.4465) and cifar.std == (0.2023, 0.1994, 0.2010)
