"""The figure says what the matches say: lines, shades, captions."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from torch.nn import Identity

from lowshot_kedro.blocks import RegionFeatures
from lowshot_kedro.deepemd.matching import ClassMatch, QueryMatch, RegionImage, map_boxes
from lowshot_kedro.deepemd.parameters import DeepEMDParameters
from lowshot_kedro.episodes.episode import Episode
from lowshot_kedro.episodes.methods import MethodOptions
from lowshot_kedro.episodes.methods.deepemd_fcn import DeepEMDFCN
from lowshot_kedro.episodes.methods.deepemd_pyramid import DeepEMDPyramid
from lowshot_kedro.images import LoadedImage
from lowshot_kedro.networks import DenseExtractor, Preprocessing
from lowshot_kedro.reporting import frame_color, plot_episode_matching, plot_matching
from lowshot_kedro.reporting.matching import heat_map, strongest_flows
from tests.features import MemoryFeatures

NAMES = ["ant", "bee", "a class with a very long name"]


def class_match(number, flow, logit=2.0, similarity=0.5):
    flow = np.array(flow, float) / np.sum(flow)
    return ClassMatch(
        class_number=number,
        logit=logit,
        probability=0.25,
        contributions=logit * flow.sum(1),
        support=number,
        support_logit=1.25,
        flow=flow,
        query_weights=flow.sum(1),
        support_weights=flow.sum(0),
        similarities=np.full(flow.shape, similarity),
    )


def image_of(boxes):
    return lambda number: RegionImage(Image.new("RGB", (20, 10), (number, 0, 0)), boxes)


def texts(axes):
    return [text.get_text() for text in axes.texts]


# Three regions side by side.
BOXES = map_boxes(1, 3)
DIAGONAL, ONE_TO_ALL = np.diag([3, 2, 1]), [[2, 1, 1], [0, 0, 0], [0, 0, 0]]


@pytest.fixture(scope="module")
def figure():
    right = QueryMatch(4, 0, class_match(0, DIAGONAL, 3.5), class_match(1, ONE_TO_ALL), 1)
    wrong = QueryMatch(5, 2, class_match(1, ONE_TO_ALL), class_match(2, DIAGONAL, 1.0, 0.9), 5)
    return plot_matching([right, wrong], image_of(BOXES), image_of(BOXES), NAMES)


def rows_of(figure):
    return [axes for axes in figure.axes if axes.texts]


def test_one_line_is_one():
    whole = class_match(0, [[1]])
    figure = plot_matching(
        [QueryMatch(0, 0, whole, whole, 1)], image_of(map_boxes(1, 1)), image_of(map_boxes(1, 1)),
        NAMES,
    )  # fmt: skip
    assert texts(rows_of(figure)[0])[2] == "1 line carries 100%"


def test_a_row_says_whether_a_query_is_right_and_what_is_compared(figure):
    right, wrong = rows_of(figure)
    assert texts(right) == [
        "query: ant\nrecognised ✓", "best: ant ✓\nlogit 3.50, 25%", "2 lines carry 83%",
        "same query: ant\nrecognised ✓", "second: bee ✗\nlogit 2.00, 25%", "3 lines carry 100%",
        "best or second?\nlogits differ by 1.50",
    ]  # fmt: skip
    assert texts(wrong)[0] == "query: a class with a ve…\ntaken for bee ✗"
    assert texts(wrong)[4] == "second: a class with a ve… ✓\nlogit 1.00, 25%"
    assert texts(wrong)[2] == "3 lines carry 100%; best match of 5 images: logit 1.25 alone"
    colors = [
        [to_hex(patch.get_edgecolor()).upper() for patch in axes.patches] for axes in (right, wrong)
    ]
    true, other, black = frame_color(0, 0), frame_color(1, 0), "#000000"
    assert colors == [[black, true, black, other, black], [black, other, black, true, black]]


def test_images_stand_in_the_order_of_the_captions(figure):
    for axes, query, best, second in zip(rows_of(figure), (4, 5), (0, 1), (1, 2), strict=True):
        shown = [image.get_array() for image in axes.images if image.get_array().ndim == 3]
        # An image, and then a veil over it.
        assert [int(image[0, 0, 0]) for image in shown[:8:2]] == [query, best, query, second]
        assert all(image.get_extent()[2] - image.get_extent()[3] == 0.5 for image in axes.images)


def test_lines_lead_from_region_to_region_the_strongest_is_the_widest(figure):
    right, wrong = rows_of(figure)
    assert [len(axes.lines) for axes in (right, wrong)] == [5, 5]
    # The strongest comes last, above the others.
    second, first = right.lines[:2]
    left = right.images[0].get_extent()[0], right.images[2].get_extent()[0]
    for line, region in ((first, 0), (second, 1)):
        assert line.get_xdata() == pytest.approx([x + (region + 0.5) / 3 for x in left])
    assert first.get_linewidth() > second.get_linewidth()
    widths = [line.get_linewidth() for line in right.lines[2:]]
    assert widths[0] == widths[1] < widths[2]
    # All of one region, to three.
    assert len({line.get_xdata()[0] for line in right.lines[2:]}) == 1
    assert len({line.get_xdata()[1] for line in right.lines[2:]}) == 3
    # More similar is darker.
    similar, other = (np.mean(axes.lines[-1].get_color()[:3]) for axes in (wrong, right))
    assert similar < other


def test_what_weighs_less_has_more_of_a_veil(figure):
    right = rows_of(figure)[0]
    veil = right.images[1].get_array()[0, :, 3]
    of_regions = [set(part.round(6)) for part in np.split(veil, 3)]
    assert all(len(values) == 1 for values in of_regions)
    first, second, third = (values.pop() for values in of_regions)
    assert first == 0 and third == pytest.approx(2 * second, abs=1e-5)


def test_the_last_image_says_which_regions_speak_for_which_class(figure):
    tint = rows_of(figure)[0].images[-1].get_array()[0]
    # The best gets 7/4, 7/6, 7/12 from the regions, the second 2, 0, 0.
    of_regions = tint[[10, 60, 110]]
    assert to_hex(of_regions[0, :3]) != to_hex(of_regions[1, :3]) == to_hex(of_regions[2, :3])
    alphas = of_regions[:, 3] / of_regions[1, 3]
    np.testing.assert_allclose(alphas, [0.25 / (7 / 6), 1, 0.5], atol=1e-6)


def test_few_lines_carry_most_and_none_carries_nothing():
    assert strongest_flows(np.diag([4.0, 3, 2, 1])) == [(0, 0), (1, 1), (2, 2)]
    assert strongest_flows(np.diag([4.0, 3, 2, 1]), part=1) == [(i, i) for i in range(4)]
    assert strongest_flows(np.diag([4.0, 3, 2, 1]), part=0.7) == [(0, 0), (1, 1)]
    assert strongest_flows(np.ones((1, 1))) == [(0, 0)]
    many = strongest_flows(np.ones((7, 7)))
    assert many == [(0, j) for j in range(7)] + [(1, j) for j in range(5)]


def test_a_heat_map_keeps_what_it_spreads():
    boxes = map_boxes(5, 5, (2, 1))
    values = np.random.default_rng(0).standard_normal(len(boxes))
    assert heat_map(values, boxes, (12, 9)).sum() == pytest.approx(values.sum())
    # A third of the second row of pixels, and all of it.
    box = np.array([[0, 0.25, 1 / 3, 0.5], [0, 0.25, 1, 0.5]])
    np.testing.assert_allclose(
        heat_map(np.array([1.0, 3.0]), box, (4, 3)), [[0, 0, 0], [2, 1, 1], [0, 0, 0], [0, 0, 0]]
    )
    # A box inside of a pixel.
    inside = heat_map(np.ones(1), np.array([[0.4, 0.6, 0.45, 0.7]]), (2, 2))
    np.testing.assert_allclose(inside, [[0, 0], [1, 0]])


def test_regions_of_several_sizes_are_outlined_where_lines_end():
    boxes = map_boxes(1, 2, (1,))
    match = class_match(0, np.diag([2, 1, 1]))
    query = QueryMatch(0, 0, match, class_match(1, np.diag([1, 0, 0])), 1)
    (axes,) = rows_of(plot_matching([query], image_of(boxes), image_of(boxes), NAMES))
    # Two outlines of a line, five frames.
    assert len(axes.patches) == 2 * (3 + 1) + 5
    widths = sorted({round(patch.get_width(), 6) for patch in axes.patches})
    assert widths == [0.5, 1]


def test_class_names_are_taken_as_they_are():
    names = ["$5", "$x_1", "東京"]
    match = QueryMatch(0, 0, class_match(0, [[1]]), class_match(1, [[1]]), 1)
    figure = plot_matching([match], image_of(map_boxes(1, 1)), image_of(map_boxes(1, 1)), names)
    figure.canvas.draw()
    assert texts(rows_of(figure)[0])[0] == "query: $5\nrecognised ✓"


def test_without_queries_the_figure_says_so():
    (axes,) = plot_matching([], image_of(BOXES), image_of(BOXES), NAMES).axes
    assert texts(axes) == ["no queries"]


class Numbered:
    """Image i is all i; labels come again and again."""

    labels = np.arange(12, dtype=np.int32) % 3

    def __len__(self):
        return 12

    def __getitem__(self, number):
        return LoadedImage(Image.new("RGB", (12, 12), (20 * number, 0, 0)), 0, None)


@pytest.mark.parametrize(("method", "n_regions"), [(DeepEMDFCN, 4), (DeepEMDPyramid, 5)])
def test_an_episode_is_shown_with_its_own_images_and_names(method, n_regions):
    maps = np.random.default_rng(0).standard_normal((12, 6, 2, 2)).astype(np.float32)
    # Images are most like those three before them. Labels 1 and 0 are classes 0 and 1.
    maps[9:] = maps[6:9] + 0.1 * maps[:3]
    views = {"map": RegionFeatures(MemoryFeatures(maps.reshape(12, -1), "maps"), (6, 2, 2))}
    episode = Episode(0, np.array([7, 6]), np.array([10, 9]), 2, views)
    preprocess = Preprocessing(lambda image: image.resize((6, 6)), (0.5,) * 3, (0.5,) * 3)
    extractor = DenseExtractor("mine", Identity(), preprocess, 24, Identity(), (6, 2, 2))
    options = MethodOptions(deepemd=DeepEMDParameters(feature_pyramid=(1,)))
    inputs = method(options), episode, Numbered(), extractor
    figure = plot_episode_matching(*inputs, lambda label: NAMES[label])
    for axes, red, names in zip(
        rows_of(figure), ((10, 7, 10, 6), (9, 6, 9, 7)), ("bee", "ant"), strict=True
    ):
        assert texts(axes)[0] == f"query: {names}\nrecognised ✓"
        shown = [image.get_array() for image in axes.images if image.get_array().ndim == 3]
        assert [image[0, 0, 0] // 20 for image in shown[:8:2]] == list(red)
        assert shown[0].shape == (6, 6, 3)
    (match, _) = method(options).matches(episode, 2)
    assert match.best.flow.shape == (n_regions, n_regions)
    unnamed = plot_episode_matching(*inputs, n_queries=1)
    assert [texts(axes)[0] for axes in rows_of(unnamed)] == ["query: 1\nrecognised ✓"]
