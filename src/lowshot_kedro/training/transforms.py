"""How images are changed at random before a network learns from them.

A recipe says that, and what the same network sees later: the size and the scale of colours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from lowshot_kedro.networks.embedding_file import EmbeddingDescription
from lowshot_kedro.networks.preprocessing import Colors, Preprocessing, resize_and_crop
from lowshot_kedro.networks.resnet import IMAGENET_MEAN, IMAGENET_STD
from lowshot_kedro.networks.unsupervised_file import UnsupervisedDescription

ImageTransform = Callable[[Image.Image], Image.Image]

_INTERPOLATION = "bilinear"


@dataclass(frozen=True)
class Recipe:
    """One way of augmentation.

    Attributes:
        random_steps: For an image size the steps, of torchvision, that draw at random.
        shorter_side: Pixels of the shorter side of an image before the central square of an image
            size is taken, where nothing is random, in units of that size.
        mean: Mean of red, green and blue, as in :class:`Preprocessing`.
        std: Standard deviation of red, green and blue.
    """

    random_steps: Callable[[int], list[Any]]
    shorter_side: float
    mean: Colors
    std: Colors

    def augment(self, image_size: int) -> ImageTransform:
        """Turns an RGB image into a random one of the network's input size.

        What it draws comes from PyTorch's default generator.
        """
        from torchvision import transforms

        steps: ImageTransform = transforms.Compose(self.random_steps(image_size))
        return steps

    def preprocessing(self, image_size: int) -> Preprocessing:
        """What an image undergoes where nothing is random."""
        resize = resize_and_crop(self._shorter_side(image_size), image_size, _INTERPOLATION)
        return Preprocessing(resize, self.mean, self.std)

    def describe(
        self, network: str, dimension: int, image_size: int, facts: Mapping[str, Any]
    ) -> EmbeddingDescription:
        """A network that was trained so, for its file.

        Args:
            network: Its name.
            dimension: Length of an embedding.
            image_size: Width and height in pixels of the images that it was trained on.
            facts: What else is to be known about it.
        """
        return EmbeddingDescription(
            network=network, dimension=dimension, facts=facts, **self._seen(image_size)
        )

    def describe_unsupervised(
        self, network: str, sobel: bool, dimension: int, image_size: int, facts: Mapping[str, Any]
    ) -> UnsupervisedDescription:
        """A network that was trained so without labels, for its file.

        Args:
            network: Its name.
            sobel: Whether it begins with Sobel filters.
            dimension: Length of a feature.
            image_size: Width and height in pixels of the images that it was trained on.
            facts: What else is to be known about it.
        """
        return UnsupervisedDescription(
            network=network, sobel=sobel, dimension=dimension, facts=facts, **self._seen(image_size)
        )

    def _seen(self, image_size: int) -> dict[str, Any]:
        return {
            "image_size": image_size,
            "shorter_side": self._shorter_side(image_size),
            "interpolation": _INTERPOLATION,
            "mean": self.mean,
            "std": self.std,
        }

    def _shorter_side(self, image_size: int) -> int:
        return round(self.shorter_side * image_size)


def _imagenet(size: int) -> list[Any]:
    from torchvision import transforms

    return [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]


def _cifar(size: int) -> list[Any]:
    from torchvision import transforms

    return [
        transforms.RandomResizedCrop(size, scale=(0.2, 1.0)),
        transforms.RandomGrayscale(p=0.2),
        transforms.ColorJitter(0.4, 0.4, 0.4, 0.4),
        transforms.RandomHorizontalFlip(),
    ]


def _shift(size: int) -> list[Any]:
    from torchvision import transforms

    # The margins repeat the border, since digits are white on black and photographs are not.
    padding = max(1, size // 8)
    return [
        resize_and_crop(size, size, "bilinear"),
        transforms.RandomCrop(size, padding, padding_mode="edge"),
    ]


def _shift_and_flip(size: int) -> list[Any]:
    from torchvision import transforms

    return [*_shift(size), transforms.RandomHorizontalFlip()]


def _none(size: int) -> list[Any]:
    return [resize_and_crop(size, size, "bilinear")]


_IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
_CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

# By the value of `augmentation`; the first two are those of the original SNCA.
RECIPES = {
    "imagenet": Recipe(_imagenet, 256 / 224, *_IMAGENET),
    "cifar": Recipe(_cifar, 1, *_CIFAR),
    "shift": Recipe(_shift, 1, *_HALF),
    "shift_and_flip": Recipe(_shift_and_flip, 1, *_HALF),
    "none": Recipe(_none, 1, *_HALF),
}
