"""Regions of images: boxes worked out by hand, patches one by one, pyramids cell by cell."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from lowshot_kedro.deepemd import regions
from lowshot_kedro.deepemd.parameters import DeepEMDParameters
from lowshot_kedro.deepemd.regions import (
    PatchPreparation,
    encode_patches,
    grid_boxes,
    images_per_pass,
    random_box,
    view_extractor,
    view_transform,
    with_pyramid,
)
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import LoadedImage
from lowshot_kedro.networks import (
    DenseExtractor,
    ResNet12,
    create_dense_network,
    extract_features,
    resnet12,
)
from lowshot_kedro.networks.preprocessing import Preprocessing, resize_and_crop
from tests.networks.helpers import noise, with_random_state

PARAMETERS = DeepEMDParameters()
SIZES = [(100, 75), (61, 90), (33, 30), (90, 61), (40, 40)]
WHITE_MEAN, WHITE_STD = (0.4, 0.5, 0.6), (0.3, 0.2, 0.1)


class Noise:
    """Images of several sizes."""

    def __init__(self, numbers):
        self.numbers = numbers
        self.labels = np.zeros(len(numbers), np.int32)

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, number):
        seed = self.numbers[number]
        return LoadedImage(noise(SIZES[seed], seed), 0, None)

    def describe(self):
        return {"kind": "noise"}


@pytest.fixture(scope="module")
def dense():
    """A small network of 32 pixels with maps of 2 × 2, which sees the central part of an image."""
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 6, 3, stride=4, padding=1),
    )  # fmt: skip
    network = with_random_state(layers)
    preprocess = Preprocessing(resize_and_crop(40, 32, "bilinear"), WHITE_MEAN, WHITE_STD)
    return DenseExtractor("mine", nn.Flatten(), preprocess, 24, network, (6, 2, 2))


def rows_of(extractor, numbers, batch_size=2, num_workers=0):
    blocks = extract_features(
        extractor, Noise(numbers), batch_size=batch_size, num_workers=num_workers, device="cpu"
    )
    return np.concatenate([block.features for block in blocks.begin(Path()).starting_at(0)])


@pytest.mark.parametrize(
    "length, cells, ratio, spans",
    [
        (100, 1, 2.0, [(0, 100)]),
        (100, 2, 2.0, [(0, 75), (25, 100)]),
        (75, 2, 2.0, [(0, 55), (18, 75)]),
        (100, 3, 2.0, [(0, 49), (16, 82), (49, 100)]),
        (7, 2, 2.0, [(0, 4), (1, 7)]),
        # Cells of two pixels; the seventh is left over.
        (7, 3, 1.0, [(0, 2), (2, 4), (4, 6)]),
        (84, 2, 1.5, [(0, 52), (32, 84)]),
        (10, 2, 0.5, [(1, 3), (6, 8)]),
        # Patches are never empty: of one pixel where cells are that small, or smaller.
        (5, 5, 1.0, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]),
        (2, 3, 2.0, [(0, 1), (0, 1), (1, 2)]),
        (1, 2, 2.0, [(0, 1), (0, 1)]),
        (10, 2, 0.01, [(2, 3), (7, 8)]),
    ],
)
def test_where_patches_of_a_grid_begin_and_end(length, cells, ratio, spans):
    assert [box[0::2] for box in grid_boxes(length, 1, cells, ratio)][:cells] == spans
    assert [box[1::2] for box in grid_boxes(1, length, cells, ratio)][::cells] == spans


def test_patches_of_a_grid_are_listed_row_by_row():
    assert list(grid_boxes(100, 75, 2, 2.0)) == [
        (0, 0, 75, 55), (25, 0, 100, 55), (0, 18, 75, 75), (25, 18, 100, 75),
    ]  # fmt: skip


@pytest.mark.parametrize("size", [(50, 40), (120, 40), (30, 90)])
def test_random_boxes_have_the_distribution_of_torchvision(size):
    width, height = size
    rng = np.random.default_rng(1)
    found = np.array([random_box(width, height, rng) for _ in range(1500)])
    crop = transforms.RandomResizedCrop(8)
    image = torch.zeros(3, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        drawn = [crop.get_params(image, crop.scale, crop.ratio) for _ in range(1500)]
    expected = np.array([(x, y, x + w, y + h) for y, x, h, w in drawn])
    for boxes in (found, expected):
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= size).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()

    def statistics(boxes):
        x, y, right, lower = boxes.T
        w, h = right - x, lower - y
        values = np.stack([w * h / (width * height), np.log(w / h), x / width, y / height])
        return np.concatenate([values.mean(1), values.std(1)])

    # Each is known to about 0.01.
    np.testing.assert_allclose(statistics(found), statistics(expected), atol=0.04)


@pytest.mark.parametrize(
    "size, box",
    [((400, 10), (193, 0, 206, 10)), ((10, 400), (0, 193, 10, 206)), ((1, 1), (0, 0, 1, 1))],
)
def test_random_boxes_of_images_in_which_hardly_one_fits(size, box):
    rng = np.random.default_rng(0)
    boxes = {random_box(*size, rng) for _ in range(200)}
    assert box in boxes
    widths, heights = zip(*[(right - x, lower - y) for x, y, right, lower in boxes], strict=True)
    assert 1 <= min(*widths, *heights) <= max(*widths, *heights) <= 13


def test_a_pyramid_has_its_coarse_cells_first_and_then_the_map():
    maps = torch.arange(2 * 3 * 25, dtype=torch.float32).reshape(2, 3, 5, 5) ** 1.5
    nodes = with_pyramid(maps, (2, 3))
    assert nodes.shape == (2, 3, 1, 38)
    # Cells of adaptive pooling: of five positions two cells of three, three of two, three and two.
    spans = {2: [(0, 3), (2, 5)], 3: [(0, 2), (1, 4), (3, 5)]}
    expected = [
        maps[:, :, top:bottom, left:right].mean((2, 3))
        for side in (2, 3)
        for top, bottom in spans[side]
        for left, right in spans[side]
    ]
    torch.testing.assert_close(nodes[:, :, 0, :13], torch.stack(expected, dim=2))
    assert torch.equal(nodes[:, :, 0, 13:], maps.flatten(2))
    assert with_pyramid(maps, (5, 2, 1)).shape == (2, 3, 1, 55)
    assert torch.equal(with_pyramid(maps, ())[:, :, 0], maps.flatten(2))


def test_patches_are_encoded_one_by_one_in_their_order():
    network = ResNet12().eval()
    values = np.random.default_rng(2).standard_normal((2, 3, 3, 84, 84))
    patches = torch.from_numpy(values.astype(np.float32))[..., ::2, ::2].contiguous()
    with torch.inference_mode():
        encoded = encode_patches(network, patches)
        assert encoded.shape == (2, 640, 3, 1)
        for image in range(2):
            for number in range(3):
                expected = network(patches[image, number][None]).mean((2, 3))[0]
                torch.testing.assert_close(
                    encoded[image, :, number, 0], expected, rtol=1e-3, atol=1e-4
                )


def test_how_many_patches_go_through_a_network_at_a_time(monkeypatch):
    seen = []

    class Watching(nn.Module):
        def forward(self, images):
            seen.append(len(images))
            return images[:, :, :1, :1]

    network, patches = Watching(), torch.rand(5, 7, 3, 4, 4)
    monkeypatch.setattr(regions, "_PATCHES_ON_CPU", 16)
    expected = patches[..., 0, 0].transpose(1, 2)[..., None]
    assert torch.equal(encode_patches(network.eval(), patches), expected)
    assert seen == [16, 16, 3]
    seen.clear()
    # Batch norms are to see all of them.
    assert torch.equal(encode_patches(network.train(), patches), expected)
    assert seen == [35]


def test_what_a_network_of_patches_may_return():
    patches = torch.rand(2, 3, 3, 4, 4)
    vectors = encode_patches(nn.Flatten().eval(), patches)
    assert torch.equal(vectors[1, :, 2, 0], patches[1, 2].flatten())
    network = nn.Flatten(2)
    with pytest.raises(
        InputError, match=r"backbone: returns an array of shape \(6, 3, 16\); expected"
    ):
        encode_patches(network.eval(), patches)


def expected_regions(dense, image, boxes, prepare, mean=WHITE_MEAN, std=WHITE_STD):
    """Regions by torchvision's own steps, patch by patch."""
    steps = [*prepare, transforms.ToTensor(), transforms.Normalize(mean, std)]
    prepared = transforms.Compose(steps)
    with torch.inference_mode():
        vectors = [dense.dense(prepared(image.crop(box))[None]).mean((2, 3))[0] for box in boxes]
    return torch.stack(vectors, dim=1)[..., None].numpy()


def test_rows_of_the_grid(dense):
    extractor = view_extractor(dense, "grid", PARAMETERS, 0)
    assert extractor.shape == (6, 13, 1)
    assert extractor.dimension == 6 * 13
    rows = rows_of(extractor, [0, 1, 2])
    for number in range(3):
        boxes = [box for side in (2, 3) for box in grid_boxes(*SIZES[number], side, ratio=2.0)]
        prepare = [transforms.Resize([32, 32])]
        expected = expected_regions(dense, noise(SIZES[number], number), boxes, prepare)
        np.testing.assert_allclose(rows[number].reshape(6, 13, 1), expected, rtol=1e-4, atol=1e-4)


def test_patches_that_are_prepared_as_whole_images_with_other_colours(dense):
    preparation = PatchPreparation(is_squashed=False, colors=((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))
    parameters = DeepEMDParameters(patch_list=(2,), patch_ratio=1.5)
    extractor = view_extractor(dense, "grid", parameters, 0, preparation)
    rows = rows_of(extractor, [0])
    boxes = list(grid_boxes(*SIZES[0], 2, 1.5))
    prepare = [transforms.Resize(40), transforms.CenterCrop(32)]
    expected = expected_regions(dense, noise(SIZES[0]), boxes, prepare, *preparation.colors)
    np.testing.assert_allclose(rows[0].reshape(6, 4, 1), expected, rtol=1e-4, atol=1e-4)


def test_rows_of_random_patches(dense):
    extractor = view_extractor(dense, "sampling", DeepEMDParameters(n_patches=4), 3)
    assert extractor.shape == (6, 4, 1)
    rows = rows_of(extractor, [0, 1, 2, 3, 4])
    # Neither the order nor the batch nor the worker decides what is drawn.
    np.testing.assert_allclose(rows_of(extractor, [3, 1], batch_size=1), rows[[3, 1]], rtol=1e-5)
    np.testing.assert_allclose(rows_of(extractor, [2, 4, 0], 3, 2), rows[[2, 4, 0]], rtol=1e-5)
    assert np.ptp(rows.reshape(5, 6, 4), axis=2).max(axis=1).min() > 1e-3
    again = view_extractor(dense, "sampling", DeepEMDParameters(n_patches=4), 3)
    other = view_extractor(dense, "sampling", DeepEMDParameters(n_patches=4), 4)
    assert again.describe() == extractor.describe()
    assert other.describe() != extractor.describe()
    assert np.abs(rows_of(other, [0]) - rows[:1]).max() > 1e-3


def test_random_patches_are_parts_of_the_image_and_half_of_them_mirrored(dense):
    # Red says where a pixel is in its row, green in its column.
    columns, rows = np.meshgrid(np.arange(200), np.arange(200))
    image = Image.fromarray(np.stack([columns, rows, 0 * rows], axis=2).astype(np.uint8))
    transform = view_transform(dense, "sampling", DeepEMDParameters(n_patches=200), 0)
    patches = transform(image)
    assert patches.shape == (200, 3, 32, 32)
    mean, std = (torch.tensor(values)[:, None, None] for values in (WHITE_MEAN, WHITE_STD))
    red, green, _ = (255 * (patches * std + mean)).unbind(1)
    steps = red[:, 16, -1] - red[:, 16, 0]
    assert 70 < int((steps < 0).sum()) < 130
    assert bool((green[:, -1, 16] > green[:, 0, 16]).all())
    width, height = steps.abs() * 32 / 31, (green[:, -1, 16] - green[:, 0, 16]) * 32 / 31
    areas = width * height / 200**2
    assert 0.06 < float(areas.min()) < 0.2 < 0.85 < float(areas.max()) < 1.02


@pytest.mark.parametrize("view", ["grid", "sampling"])
def test_what_classifiers_get_are_the_patches_of_the_rows(dense, view):
    extractor = view_extractor(dense, view, PARAMETERS, 1)
    transform = pickle.loads(pickle.dumps(view_transform(dense, view, PARAMETERS, 1)))
    patches = torch.stack([transform(noise(SIZES[number], number)) for number in (0, 1)])
    assert patches.shape == (2, extractor.shape[1], 3, 32, 32)
    with torch.inference_mode():
        encoded = encode_patches(dense.dense, patches)
        by_network = extractor.dense(
            torch.stack([extractor.preprocess(noise(SIZES[number], number)) for number in (0, 1)])
        )
    torch.testing.assert_close(encoded, by_network)
    rows = rows_of(extractor, [0, 1]).reshape(2, *extractor.shape)
    np.testing.assert_allclose(encoded.numpy(), rows, rtol=1e-4, atol=1e-5)


def test_the_map_is_the_network_as_it_is(dense):
    assert view_extractor(dense, "map", PARAMETERS, 0) is dense
    image = noise((50, 60))
    assert torch.equal(view_transform(dense, "map")(image), dense.preprocess(image))


def test_a_pass_has_as_many_patches_as_it_would_have_images(dense):
    grid = view_extractor(dense, "grid", PARAMETERS)
    found = [images_per_pass(grid, "grid", size) for size in (64, 26, 25, 5)]
    assert found == [4, 2, 1, 1]
    assert images_per_pass(dense, "map", 64) == 64


def test_cifar_fs_is_treated_as_the_original_treats_it(monkeypatch):
    monkeypatch.setattr(resnet12, "WIDTHS", (2, 2, 2, 2))
    of_cifar_fs = create_dense_network("ResNet12_cifar_fs", "none", None)
    of_others = create_dense_network("ResNet12", "none", None)
    image = noise((32, 32))
    whole = [transforms.Resize([92, 92]), transforms.CenterCrop(84)]
    squashed = [transforms.Resize([84, 84])]
    first_box = next(grid_boxes(32, 32, 2, 2.0))
    for dense, prepare in ((of_cifar_fs, whole), (of_others, squashed)):
        found = view_transform(dense, "grid")(image)
        own = dense.preprocess
        steps = [*prepare, transforms.ToTensor(), transforms.Normalize(own.mean, own.std)]
        expected = transforms.Compose(steps)(image.crop(first_box))
        assert found.shape == (13, 3, 84, 84)
        torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-5)
    patches = [view_transform(dense, "sampling")(image) for dense in (of_cifar_fs, of_others)]
    assert torch.equal(*patches)
    assert not torch.equal(of_cifar_fs.preprocess(image), of_others.preprocess(image))
    assert patches[0].shape == (9, 3, 84, 84)


def test_views_and_seeds_that_are_refused(dense):
    for make in (view_extractor, view_transform):
        with pytest.raises(InputError, match="view: got 'maps', expected one of: map, grid, sampl"):
            make(dense, "maps", PARAMETERS, 0)
        with pytest.raises(InputError, match="seed: got -1, expected an integer from 0"):
            make(dense, "sampling", PARAMETERS, -1)


def test_images_as_long_as_they_are_narrow(dense):
    image = noise((1200, 2))
    for view in ("grid", "sampling"):
        for preparation in (PatchPreparation(), PatchPreparation(is_squashed=False)):
            patches = view_transform(dense, view, PARAMETERS, 0, preparation)(image)
            assert patches.shape[1:] == (3, 32, 32)
            assert bool(patches.isfinite().all())
    assert math.isfinite(float(dense.preprocess(image).sum()))
