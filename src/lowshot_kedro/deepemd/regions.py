"""What stands for the regions of an image: positions of its map, or patches.

Maps may be extended by coarser ones, a pyramid; patches come from grids, or from random places.
C. Zhang, Y. Cai, G. Lin and C. Shen, "DeepEMD: Differentiable Earth Mover's Distance for Few-Shot
Learning", IEEE Transactions on Pattern Analysis and Machine Intelligence, 2023.

Patches of an image travel as one tall image, in which they stand below one another: so they come
from whatever prepares images, and go through whatever runs networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from lowshot_kedro.blocks import VIEWS, View
from lowshot_kedro.deepemd.parameters import DeepEMDParameters
from lowshot_kedro.errors import InputError
from lowshot_kedro.networks.dense import DenseExtractor, FlatMaps, form_of
from lowshot_kedro.networks.preprocessing import Colors, Preprocessing, middle_of_strip
from lowshot_kedro.networks.resnet12 import COLORS
from lowshot_kedro.parameters import require_integer, require_one_of

# Left, upper, right and lower side in pixels; the last two are outside.
Box = tuple[int, int, int, int]

# Patches that go through a network at a time. On a CPU more do not stay in its cache; on a GPU of
# 84 pixels they take 2 GB.
_PATCHES_ON_CPU = 16
_PATCHES_ON_GPU = 256

# Area of a random crop as a part of the image, and its width by its height.
_AREAS = (0.08, 1.0)
_ASPECT_RATIOS = (3 / 4, 4 / 3)
_ATTEMPTS = 10


def with_pyramid(maps: torch.Tensor, sides: Sequence[int]) -> torch.Tensor:
    """The nodes of a feature pyramid: means over the cells of coarser grids, then the map itself.

    Args:
        maps: (n, C, h, w).
        sides: Of the grids. Each grid gives side² nodes, row by row.

    Returns:
        (n, C, 1, nodes), the grids in the order of their sides.
    """
    height, width = maps.shape[2:]
    nodes = torch.flatten(maps, 2)
    # Pooling is linear, and one product with what it makes of each position is much faster.
    positions = torch.eye(height * width, dtype=maps.dtype, device=maps.device)
    positions = positions.reshape(-1, 1, height, width)
    pooled = [nodes @ torch.flatten(adaptive_avg_pool2d(positions, side), 1) for side in sides]
    return torch.cat([*pooled, nodes], dim=2).unsqueeze(2)


def grid_boxes(width: int, height: int, side: int, ratio: float) -> Iterator[Box]:
    """The patches of an image on a grid of side × side cells, row by row.

    A patch has the centre of its cell and is larger; at the border it is cut off. Pixels that are
    left over where sides are no multiples of the number of cells are on the right and below.

    Args:
        width: Of the image, in pixels.
        height: Of the image.
        side: Cells per row and per column.
        ratio: How much larger than a cell a patch is, in width and in height.
    """
    columns, rows = _spans(width, side, ratio), _spans(height, side, ratio)
    return ((left, upper, right, lower) for upper, lower in rows for left, right in columns)


def _spans(length: int, n_cells: int, ratio: float) -> list[tuple[int, int]]:
    step, half = length // n_cells, int(length / n_cells * ratio) // 2
    spans = []
    for number in range(n_cells):
        # The original has no patches of images with fewer pixels than cells.
        center = step // 2 + number * step if step else number * length // n_cells
        first, last = max(0, center - half), min(length, center + half)
        spans.append((first, last) if first < last else (center, center + 1))
    return spans


def random_box(width: int, height: int, rng: np.random.Generator) -> Box:
    """A random box, with the distribution of torchvision's RandomResizedCrop.

    That one draws from the generator that all of PyTorch shares.

    Args:
        width: Of the image, in pixels.
        height: Of the image.
        rng: What draws.
    """
    low, high = map(math.log, _ASPECT_RATIOS)
    for _ in range(_ATTEMPTS):
        area = width * height * rng.uniform(*_AREAS)
        aspect_ratio = math.exp(rng.uniform(low, high))
        box_width = round(math.sqrt(area * aspect_ratio))
        box_height = round(math.sqrt(area / aspect_ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(rng.integers(width - box_width + 1))
            upper = int(rng.integers(height - box_height + 1))
            return left, upper, left + box_width, upper + box_height
    # Of a long image, the largest box in its middle whose aspect ratio is allowed.
    shape = width / height
    nearest = min(max(shape, _ASPECT_RATIOS[0]), _ASPECT_RATIOS[1])
    box_width = min(width, max(1, round(height * nearest)))
    box_height = min(height, max(1, round(width / nearest)))
    left, upper = (width - box_width) // 2, (height - box_height) // 2
    return left, upper, left + box_width, upper + box_height


@dataclass(frozen=True)
class GridPatches:
    """The patches of an image on grids.

    Attributes:
        sides: Cells per row and column of each grid.
        ratio: As for :func:`grid_boxes`.
        resize: Turns a patch into network input.
    """

    sides: tuple[int, ...]
    ratio: float
    resize: Callable[[Image.Image], Image.Image]

    @property
    def count(self) -> int:
        """Patches of an image."""
        return sum(side**2 for side in self.sides)

    def boxes(self, image: Image.Image) -> list[Box]:
        """Where the patches of an image are."""
        return [box for side in self.sides for box in grid_boxes(*image.size, side, self.ratio)]

    def __call__(self, image: Image.Image) -> Image.Image:
        """All patches of an RGB image, below one another."""
        return _below_one_another([self.resize(image.crop(box)) for box in self.boxes(image)])


@dataclass(frozen=True)
class RandomPatches:
    """Patches of an image at random places, of random size, half of them mirrored.

    What is drawn follows from a seed and the pixels of the image: it is the same whenever and
    wherever that image is looked at, and for copies of it.

    Attributes:
        count: Patches of an image.
        seed: Of the generator.
        resize: Turns a patch into network input.
    """

    count: int
    seed: int
    resize: Callable[[Image.Image], Image.Image]

    def boxes(self, image: Image.Image) -> list[Box]:
        """Where the patches of an RGB image are."""
        return [box for box, _ in self._drawn(image)]

    def __call__(self, image: Image.Image) -> Image.Image:
        """All patches of an RGB image, below one another."""
        patches = []
        for box, is_mirrored in self._drawn(image):
            patch = self.resize(image.crop(box))
            flip = Image.Transpose.FLIP_LEFT_RIGHT
            patches.append(patch.transpose(flip) if is_mirrored else patch)
        return _below_one_another(patches)

    def _drawn(self, image: Image.Image) -> Iterator[tuple[Box, bool]]:
        """The box of each patch, and whether the patch is mirrored."""
        digest = blake2b(f"{image.size}".encode(), digest_size=16)
        digest.update(image.tobytes())
        rng = np.random.default_rng([self.seed, *np.frombuffer(digest.digest(), np.uint32)])
        for _ in range(self.count):
            box = random_box(*image.size, rng)
            yield box, bool(rng.random() < 0.5)


def _below_one_another(patches: Sequence[Image.Image]) -> Image.Image:
    width, height = patches[0].size
    tall = Image.new("RGB", (width, height * len(patches)))
    for number, patch in enumerate(patches):
        tall.paste(patch, (0, number * height))
    return tall


@dataclass(frozen=True)
class PatchPreparation:
    """What happens to a patch before the network sees it.

    Attributes:
        is_squashed: Whether a patch becomes an image of the network's input size as a whole;
            otherwise it undergoes what a whole image does, which may crop it.
        colors: Mean and standard deviation of red, green and blue; None: those of the network.
    """

    is_squashed: bool = True
    colors: tuple[Colors, Colors] | None = None


# How the original treats patches of CIFAR-FS: as whole images on a grid, and at random places with
# the colours of other data sets.
_PREPARATIONS: dict[tuple[str, View], PatchPreparation] = {
    ("ResNet12_cifar_fs", "grid"): PatchPreparation(is_squashed=False),
    ("ResNet12_cifar_fs", "sampling"): PatchPreparation(colors=COLORS),
}


def view_extractor(
    dense: DenseExtractor,
    view: View,
    parameters: DeepEMDParameters,
    seed: int = 0,
    preparation: PatchPreparation | None = None,
) -> DenseExtractor:
    """A network whose rows are the regions of images in one view.

    For patches it takes the patches of an image as one tall image, and its map is (C, patches, 1),
    the mean of each patch's own map. Not more than 16 patches, on a GPU 256, go through the network
    at a time, however many images do; for the patches themselves, see :func:`images_per_pass`.

    Args:
        dense: The network.
        view: `map`: its dense map, as it is; `grid`: patches on grids of `parameters.patch_list`
            cells, larger than these by `parameters.patch_ratio`; `sampling`:
            `parameters.n_patches` random ones.
        parameters: How patches are taken.
        seed: Together with the pixels of an image decides which patches are drawn.
        preparation: What happens to patches; None: as in the original for this network.

    Raises:
        InputError: For an unknown view, or a seed that is none.
    """
    require_one_of("view", view, VIEWS)
    if view == "map":
        return dense
    patches, preprocess = _patches_of(dense, view, parameters, seed, preparation)
    regions = PatchRegions(dense.dense, patches.count)
    channels = dense.shape[0]
    return DenseExtractor(
        name=f"{dense.name}, {view}",
        network=FlatMaps(regions).eval(),
        preprocess=preprocess,
        dimension=channels * patches.count,
        dense=regions.eval(),
        shape=(channels, patches.count, 1),
    )


def images_per_pass(extractor: DenseExtractor, view: View, batch_size: int) -> int:
    """How many images are extracted at a time, so that there are not more inputs than wanted.

    Args:
        extractor: What :func:`view_extractor` returns for the view.
        view: The view.
        batch_size: Images, or patches, that are in memory at a time; of one image all patches are.
    """
    return batch_size if view == "map" else max(1, batch_size // extractor.shape[1])


def view_transform(
    dense: DenseExtractor,
    view: View,
    parameters: DeepEMDParameters | None = None,
    seed: int = 0,
    preparation: PatchPreparation | None = None,
) -> Callable[[Image.Image], torch.Tensor]:
    """What turns an RGB image into the input of :class:`~lowshot_kedro.deepemd.DeepEMD`.

    It can be sent to the workers of a DataLoader.

    Args:
        dense: The network, of which only the preprocessing is looked at.
        view: `map` for the variants fcn and pyramid, otherwise as the variant is called.
        parameters: How patches are taken; None: as the original does by default.
        seed: As for :func:`view_extractor`.
        preparation: As for :func:`view_extractor`.

    Returns:
        A function to float32 (3, height, width), or (patches, 3, height, width).

    Raises:
        InputError: As :func:`view_extractor`.
    """
    require_one_of("view", view, VIEWS)
    if view == "map":
        return dense.preprocess
    parameters = parameters or DeepEMDParameters()
    patches, preprocess = _patches_of(dense, view, parameters, seed, preparation)
    return partial(_patch_input, preprocess, patches.count)


def _patch_input(preprocess: Preprocessing, count: int, image: Image.Image) -> torch.Tensor:
    return _apart(preprocess(image)[None], count)[0]


def _patches_of(
    dense: DenseExtractor,
    view: View,
    parameters: DeepEMDParameters,
    seed: int,
    preparation: PatchPreparation | None,
) -> tuple[GridPatches | RandomPatches, Preprocessing]:
    require_integer("seed", seed, 0)
    preparation = preparation or _PREPARATIONS.get((dense.name, view), PatchPreparation())
    own = dense.preprocess
    if preparation.is_squashed:
        _, height, width = own.pixels(Image.new("RGB", (64, 64))).shape
        resize: Callable[[Image.Image], Image.Image] = partial(_squash, (width, height))
    else:
        resize = partial(_as_whole_image, own.resize)
    patches: GridPatches | RandomPatches
    if view == "grid":
        patches = GridPatches(parameters.patch_list, parameters.patch_ratio, resize)
    else:
        patches = RandomPatches(parameters.n_patches, seed, resize)
    mean, std = preparation.colors or (own.mean, own.std)
    return patches, Preprocessing(patches, mean, std)


def _squash(size: tuple[int, int], image: Image.Image) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR)


def _as_whole_image(
    resize: Callable[[Image.Image], Image.Image], image: Image.Image
) -> Image.Image:
    return resize(middle_of_strip(image))


class PatchRegions(nn.Module):
    """A network with a region for every patch of a tall image.

    Args:
        dense: Maps float32 (n, 3, height, width) to float32 (n, C, h, w).
        count: Patches of an image.
    """

    def __init__(self, dense: nn.Module, count: int) -> None:
        super().__init__()
        self.dense = dense
        self.count = count

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, 3, count · height, width) to float32 (n, C, count, 1)."""
        return encode_patches(self.dense, _apart(images, self.count))


def _apart(images: torch.Tensor, count: int) -> torch.Tensor:
    """(n, 3, count · height, width) → (n, count, 3, height, width)."""
    n_images, channels, height, width = images.shape
    return images.reshape(n_images, channels, count, height // count, width).transpose(1, 2)


def encode_patches(network: nn.Module, patches: torch.Tensor) -> torch.Tensor:
    """The regions of images that are given as patches.

    Args:
        network: Maps float32 (n, 3, height, width) to (n, C, h, w), or to (n, C), which is pooled
            already. In evaluation mode not more than 16 patches, on a GPU 256, go through it at a
            time; in training all do, so that batch norms see all of them.
        patches: float32 (n, P, 3, height, width).

    Returns:
        (n, C, P, 1): the mean of every patch's map.

    Raises:
        InputError: If the network returns something else.
    """
    n_images, count = patches.shape[:2]
    flat = patches.flatten(0, 1)
    at_a_time = _PATCHES_ON_CPU if flat.device.type == "cpu" else _PATCHES_ON_GPU
    parts = [flat] if network.training else torch.split(flat, at_a_time)
    vectors = torch.cat([_pooled(network(part)) for part in parts])
    return vectors.reshape(n_images, count, -1).transpose(1, 2).unsqueeze(3)


def _pooled(output: Any) -> torch.Tensor:
    if isinstance(output, torch.Tensor):
        if output.ndim == 4:
            return output.mean((2, 3))
        if output.ndim == 2:
            return output
    raise InputError(
        f"returns {form_of(output)}",
        parameter="backbone",
        expected="maps (patches, channels, height, width) or vectors (patches, channels)",
    )
