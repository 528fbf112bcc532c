"""From an image to the input of a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

Colors = tuple[float, float, float]

_MAX_ASPECT_RATIO = 256
_STRIP_SQUARES = 16


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before the network sees it: first its size, then its colours.

    Workers do the first and send 8-bit pixels, a quarter of the bytes; the device does the second.

    Attributes:
        resize: Turns an RGB image of any size into one of the network's input size. Can be sent
            to other processes.
        mean: Mean of red, green and blue, in units of the full scale 0..1; subtracted.
        std: Standard deviation of red, green and blue, in the same units; divided by.
    """

    resize: Callable[[Image.Image], Image.Image]
    mean: Colors
    std: Colors

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """The image at input size, uint8 (3, height, width), in memory pixel after pixel.

        Of an image that is more than 256 times as long as wide only the middle is looked at.
        """
        return as_pixels(self.resize(middle_of_strip(image))).permute(2, 0, 1)

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Network input from uint8 (…, 3, height, width), float32, where the pixels are."""
        scale, offset = (
            torch.tensor(values, device=pixels.device)[:, None, None]
            for values in ([255 * std for std in self.std], [255 * mean for mean in self.mean])
        )
        return (pixels.float() - offset) / scale

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Network input for one image, float32 (3, height, width)."""
        return self.normalize(self.pixels(image))


def as_pixels(image: Image.Image) -> torch.Tensor:
    """An RGB image as uint8 (height, width, 3)."""
    return torch.from_numpy(np.array(image, dtype=np.uint8))


def middle_of_strip(image: Image.Image) -> Image.Image:
    """The middle of an image whose whole length would take gigabytes at a network's width.

    Networks crop a square from the middle of the resized image; a few squares are left to it.
    """
    shorter, longer = sorted(image.size)
    if longer <= _MAX_ASPECT_RATIO * shorter:
        return image
    # As much on either side, so that the middle stays where it is.
    cut = (longer - _STRIP_SQUARES * shorter) // 2
    left, top = (cut, 0) if image.width == longer else (0, cut)
    return image.crop((left, top, image.width - left, image.height - top))


def resize_and_crop(
    shorter_side: int, crop: int, interpolation: str
) -> Callable[[Image.Image], Image.Image]:
    """What most networks want: the image at another size, and of that the central square.

    Args:
        shorter_side: Pixels of the image's shorter side before the crop; its aspect ratio stays.
        crop: Width and height of the square.
        interpolation: A value of torchvision's InterpolationMode, such as bilinear.
    """
    # Loading torchvision takes a second that commands without images should not pay.
    from torchvision import transforms

    mode = transforms.InterpolationMode(interpolation)
    steps: Callable[[Image.Image], Image.Image] = transforms.Compose(
        [transforms.Resize(shorter_side, mode), transforms.CenterCrop(crop)]
    )
    return steps
