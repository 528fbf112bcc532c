"""Which regions flow to which: against a linear-programming solver and adaptive pooling itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import linprog
from torch.nn.functional import adaptive_avg_pool2d

from lowshot_kedro.deepemd import emd_logits
from lowshot_kedro.deepemd.matching import explain_matches, map_boxes, region_image
from lowshot_kedro.deepemd.parameters import DeepEMDParameters
from lowshot_kedro.deepemd.regions import view_extractor
from lowshot_kedro.errors import InputError
from lowshot_kedro.networks import DenseExtractor, Preprocessing

N_WAY, N_QUERY, CHANNELS = 3, 4, 6


def episode(n_shot, shape=(2, 2), noise=1.0, seed=0):
    """Support (K·S, C, H, W), queries (K·Q, C, H, W) and their classes."""
    rng = np.random.default_rng(seed)
    classes = rng.standard_normal((N_WAY, CHANNELS, *shape))
    images = np.concatenate(
        [classes + noise * rng.standard_normal(classes.shape) for _ in range(n_shot + N_QUERY)]
    ).astype(np.float32)
    n_support = N_WAY * n_shot
    return images[:n_support], images[n_support:], np.arange(N_WAY * N_QUERY) % N_WAY


def cheapest_flow(query, support):
    """By scipy: flow of sum 1, both weights, similarities; from maps (C, H, W), in other words."""
    u, v = (maps.reshape(CHANNELS, -1).T.astype(np.float64) for maps in (query, support))
    a = np.maximum(0, u @ v.mean(0)) + 1e-3
    b = np.maximum(0, v @ u.mean(0)) + 1e-3
    a, b = a / a.sum(), b / b.sum()
    similarities = np.corrcoef(u, v)[: len(u), len(u) :]
    n, m = similarities.shape
    sums = np.vstack([np.kron(np.eye(n), np.ones((1, m))), np.kron(np.ones((1, n)), np.eye(m))])
    found = linprog(-similarities.ravel(), A_eq=sums, b_eq=np.concatenate([a, b]))
    return found.x.reshape(n, m), a, b, similarities


def test_with_one_image_a_class_the_flows_are_those_behind_the_logits():
    support, queries, classes = episode(1, noise=1.5)
    matches = explain_matches(queries, classes, support, support, n_queries=5, temperature=3)
    logits = emd_logits(torch.from_numpy(queries), torch.from_numpy(support), temperature=3).numpy()
    assert len(matches) == 5
    for match in matches:
        assert match.true_class == classes[match.query] and match.n_shot == 1
        by_rank = np.argsort(-logits[match.query])
        shares = np.exp(logits[match.query]) / np.exp(logits[match.query]).sum()
        for found, number in ((match.best, by_rank[0]), (match.second, by_rank[1])):
            assert found.class_number == found.support == number
            flow, a, b, similarities = cheapest_flow(queries[match.query], support[number])
            np.testing.assert_allclose(found.flow, flow, atol=1e-6)
            np.testing.assert_allclose(found.flow.sum(1), found.query_weights, atol=1e-9)
            np.testing.assert_allclose(found.flow.sum(0), found.support_weights, atol=1e-9)
            np.testing.assert_allclose(found.query_weights, a, atol=1e-6)
            np.testing.assert_allclose(found.support_weights, b, atol=1e-6)
            np.testing.assert_allclose(found.similarities, similarities, atol=1e-6)
            of_regions = 3 * (flow * similarities).sum(1)
            np.testing.assert_allclose(found.contributions, of_regions, atol=1e-5)
            assert [found.logit, found.support_logit] == pytest.approx(
                [of_regions.sum()] * 2, abs=1e-5
            )
            assert found.probability == pytest.approx(shares[number], abs=1e-6)


def test_with_more_images_the_prototype_decides_and_the_nearest_image_is_shown():
    support, queries, classes = episode(3, shape=(1, 3))
    prototypes = support.reshape(3, N_WAY, *support.shape[1:]).mean(0)
    (match,) = explain_matches(queries, classes, support, prototypes, n_queries=1)
    best = match.best
    to_prototype = cheapest_flow(queries[match.query], prototypes[best.class_number])
    of_class = 12.5 * (to_prototype[0] * to_prototype[3]).sum(1)
    np.testing.assert_allclose(best.contributions, of_class, atol=1e-4)
    assert best.logit == pytest.approx(of_class.sum(), abs=1e-4)
    alone = {}
    for number in range(best.class_number, 9, N_WAY):
        flow, *_, similarities = cheapest_flow(queries[match.query], support[number])
        alone[number] = 12.5 * (flow * similarities).sum(), flow
    nearest = max(alone, key=lambda number: alone[number][0])
    assert len(alone) == match.n_shot == 3 and best.support == nearest
    assert best.support_logit == pytest.approx(alone[nearest][0], abs=1e-4)
    np.testing.assert_allclose(best.flow, alone[nearest][1], atol=1e-6)


def test_half_of_the_queries_are_wrong_ones_and_the_same_each_time():
    support, queries, classes = episode(1, noise=2.5, seed=3)
    logits = emd_logits(torch.from_numpy(queries), torch.from_numpy(support)).numpy()
    is_right = logits.argmax(1) == classes
    assert 2 <= is_right.sum() <= len(classes) - 2
    found = explain_matches(queries, classes, support, support)
    assert [match.is_right for match in found] == [bool(is_right[m.query]) for m in found]
    assert sum(match.is_right for match in found) == 2
    assert [m.true_class for m in found] == sorted(m.true_class for m in found)
    again = explain_matches(
        torch.from_numpy(queries), classes.tolist(), support, torch.from_numpy(support)
    )
    assert [m.query for m in again] == [m.query for m in found]
    everything = explain_matches(queries, classes, support, support, n_queries=50)
    assert sorted(m.query for m in everything) == [*range(len(queries))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_classes": [0, 1]}, r"query_classes: .*\(2,\).*\(12,\)"),
        ({"query_classes": [3] * 12}, r"query_classes: .*3\.\.3.*0\.\.2"),
        ({"prototypes": np.ones((1, CHANNELS, 2, 2), np.float32)}, "at least two"),
        ({"prototypes": np.ones((2, CHANNELS, 2, 2), np.float32)}, "support: .*3 images"),
        ({"queries": np.ones((12, CHANNELS + 1, 2, 2), np.float32)}, "channels"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes, message):
    support, queries, classes = episode(1)
    given = {"queries": queries, "query_classes": classes, "support": support}
    with pytest.raises(InputError, match=message):
        explain_matches(**{**given, "prototypes": support, **changes})


@pytest.mark.parametrize(
    ("height", "width", "sides"), [(5, 5, (2, 3)), (4, 7, (1, 3, 5)), (1, 1, ())]
)
def test_boxes_are_what_pooling_looks_at(height, width, sides):
    # One pixel at a time: which regions see it?
    pixels = torch.eye(height * width).reshape(-1, 1, height, width)
    pooled = [adaptive_avg_pool2d(pixels, side).flatten(1) for side in sides]
    sees = torch.cat([*pooled, pixels.flatten(1)], 1).T.reshape(-1, height, width) > 0
    boxes = map_boxes(height, width, sides)
    assert boxes.shape == (len(sees), 4)
    for (left, top, right, bottom), region in zip(boxes, sees.numpy(), strict=True):
        rows, columns = np.nonzero(region)
        np.testing.assert_allclose(
            (left * width, top * height, right * width, bottom * height),
            (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1),
            atol=1e-9,
        )


def noise(n_rows=30, n_columns=60):
    """Every pixel is another one."""
    pixels = np.arange(n_rows * n_columns * 3, dtype=np.uint32).reshape(n_rows, n_columns, 3)
    return Image.fromarray((pixels * 37 % 251).astype(np.uint8))


class Means(torch.nn.Module):
    """A map of one cell, the means of the colours."""

    def forward(self, images):
        return images.mean((2, 3), keepdim=True)


def extractor_of(shape):
    middle = (15, 0, 45, 30)
    preprocess = Preprocessing(lambda i: i.crop(middle).resize((8, 8)), (0.0,) * 3, (1.0,) * 3)
    return DenseExtractor("means", Means(), preprocess, int(np.prod(shape)), Means(), shape)


def test_maps_are_shown_in_what_the_network_sees():
    image, extractor = noise(), extractor_of((3, 2, 3))
    shown = region_image(image, extractor, pyramid=(2,))
    assert shown.image == image.crop((15, 0, 45, 30)).resize((8, 8))
    np.testing.assert_array_equal(shown.boxes, map_boxes(2, 3, (2,)))
    np.testing.assert_array_equal(region_image(image, extractor).boxes, map_boxes(2, 3))


@pytest.mark.parametrize("view", ["grid", "sampling"])
def test_patches_are_shown_where_they_were_taken(view):
    image, dense = noise(), extractor_of((3, 1, 1))
    extractor = view_extractor(dense, view, DeepEMDParameters(n_patches=13, patch_list=(2, 3)), 5)
    shown = region_image(image, extractor)
    assert shown.image == image and shown.boxes.shape == (13, 4)
    maps = extractor.dense(extractor.preprocess(image)[None])[0, :, :, 0].T.numpy()
    for box, colors in zip(shown.boxes * (60, 30, 60, 30), maps, strict=True):
        np.testing.assert_allclose(box, box.round(), atol=1e-9)
        patch = image.crop(tuple(box.round().astype(int).tolist())).resize((8, 8), 2)
        np.testing.assert_allclose(np.asarray(patch).mean((0, 1)) / 255, colors, atol=1e-5)
