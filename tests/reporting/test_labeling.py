import re

import numpy as np
import pytest
from matplotlib.colors import to_hex

from lowshot_kedro.reporting import (
    plot_confusion,
    plot_image_map,
    plot_reliability,
    print_labeling,
)
from lowshot_kedro.reporting.confusion import most_confused
from tests.labeling.exports.making import labeling_of


def a_bin(lower, n, confidence=None, accuracy=None, error=None):
    return {
        "lower": lower, "upper": lower + 0.1, "n": n, "confidence": confidence,
        "accuracy": accuracy, "error": error,
    }  # fmt: skip


def test_reliability_shows_accuracy_with_its_error_and_how_many_there_are():
    bins = [a_bin(0.5, 4, 0.55, 0.5, 0.25), a_bin(0.6, 0), a_bin(0.9, 40, 0.95, 0.9, 0.05)]
    figure = plot_reliability({"reliability": bins, "calibration_sentence": "about 90 % $ right"})
    axes, counts = figure.axes
    points = axes.containers[0].lines[0]
    np.testing.assert_allclose(points.get_xdata(orig=False), [0.55, 0.95])
    np.testing.assert_allclose(points.get_ydata(orig=False), [0.5, 0.9])
    (segments,) = axes.containers[0].lines[2]
    ends = [segment[:, 1].tolist() for segment in segments.get_segments()]
    np.testing.assert_allclose(ends, [[0.25, 0.75], [0.85, 0.95]])
    assert [bar.get_height() for bar in counts.patches] == [4, 40]
    np.testing.assert_allclose([bar.get_x() for bar in counts.patches], [0.5, 0.9])
    assert axes.get_title() == "about 90 % $ right"
    figure.canvas.draw()


@pytest.mark.parametrize("bins", [None, [], [a_bin(0.5, 0)]])
def test_reliability_without_held_out_labels_says_so(bins):
    figure = plot_reliability({"reliability": bins, "calibration_sentence": "too few to know"})
    assert [text.get_text() for text in figure.axes[0].texts] == ["too few to know"]
    figure.canvas.draw()


def classes_named(*names):
    return [{"name": name} for name in names]


def test_confusion_is_in_percent_of_each_class_with_counts_written_in():
    confusion = [[3, 1, 0], [0, 2, 0], [0, 0, 0]]
    report = {"classes": classes_named("cat", "$5_x", "owl"), "confusion": confusion}
    figure = plot_confusion(report)
    axes = figure.axes[0]
    shown = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shown, [[75, 25, 0], [0, 100, 0], [0, 0, 0]])
    written = {text.get_position()[::-1]: text.get_text() for text in axes.texts}
    assert written == {(0, 0): "3", (0, 1): "1", (1, 1): "2"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "$5_x", "owl"]
    assert axes.get_title() == "5 of 6 held-out labels are found again"
    figure.canvas.draw()


def test_of_many_classes_the_most_confused_are_shown():
    rng = np.random.default_rng(0)
    counts = np.diag(rng.integers(2, 9, 1000))
    pairs = rng.permutation(1000)[:30].reshape(15, 2)
    for first, second in pairs:
        counts[first, second] += 2
        counts[second, first] += 1
    np.testing.assert_array_equal(most_confused(counts, 30), np.sort(pairs.ravel()))
    names = classes_named(*(f"class {number}" for number in range(1000)))
    figure = plot_confusion({"classes": names, "confusion": counts.tolist()})
    axes = figure.axes[0]
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == [f"class {number}" for number in np.sort(pairs.ravel())]
    assert "30 classes of 1000" in axes.get_title()
    # Shares are those of all labels of a class, not of what is shown.
    first = np.sort(pairs.ravel())[0]
    share = np.asarray(axes.images[0].get_array())[0, 0]
    assert share == pytest.approx(100 * counts[first, first] / counts[first].sum())


def test_three_classes_of_a_pair_and_a_rest_are_three():
    counts = np.zeros((5, 5), int)
    counts[1, 4], counts[4, 3] = 5, 4
    assert most_confused(counts, 3).tolist() == [1, 3, 4]
    assert most_confused(counts, 2).tolist() == [1, 4]


@pytest.mark.parametrize("confusion", [None, [[0, 0], [0, 0]]])
def test_confusion_without_held_out_labels_says_so(confusion):
    figure = plot_confusion({"classes": classes_named("a", "b"), "confusion": confusion})
    assert "too few labels" in figure.axes[0].texts[0].get_text()


def points_of(axes):
    """The points drawn for each entry of the legend."""
    return {
        drawn.get_label(): np.asarray(drawn.get_offsets())
        for drawn in axes.collections
        if not drawn.get_label().startswith("_")
    }


def test_the_map_is_coloured_by_label_and_marks_given_ones():
    positions = np.arange(12, dtype=np.float32).reshape(6, 2)
    labeling = labeling_of(
        [0, 1, 1, 0, -1, 1],
        [0, -1, 1, -1, -1, -1],
        is_unknown=np.array([False] * 5 + [True]),
    )
    figure = plot_image_map(positions, labeling, unknown="?")
    (axes,) = figure.axes
    drawn = points_of(axes)
    assert {name: points.tolist() for name, points in drawn.items()} == {
        "?": positions[[4, 5]].tolist(),
        "cat": positions[[0, 3]].tolist(),
        "dog": positions[[1, 2]].tolist(),
    }
    marked = [each for each in axes.collections if each.get_label().startswith("_")]
    assert [each.get_offsets().tolist() for each in marked] == [[[0, 1]], [[4, 5]]]
    assert {to_hex(each.get_edgecolor()[0]) for each in marked} == {"#000000"}
    colors = {each.get_label(): to_hex(each.get_facecolor()[0]) for each in axes.collections}
    assert len({colors[name] for name in ("?", "cat", "dog")}) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["?", "cat", "dog"]
    figure.canvas.draw()


def test_of_many_images_given_ones_are_drawn_first():
    n = 1000
    rng = np.random.default_rng(0)
    labels, given = rng.integers(0, 2, n), np.full(n, -1)
    given[[5, 500, 999]] = labels[[5, 500, 999]]
    positions = rng.normal(size=(n, 2)).astype(np.float32)
    figure = plot_image_map(positions, labeling_of(labels, given), max_points=50)
    (axes,) = figure.axes
    drawn = np.concatenate(list(points_of(axes).values()))
    assert len(drawn) == 50
    for node in (5, 500, 999):
        assert (drawn == positions[node]).all(axis=1).any()
    assert "50 of them are drawn" in axes.get_title()


def test_names_of_many_classes_stand_in_their_middle_and_not_over_one_another():
    n_classes = 40
    rng = np.random.default_rng(0)
    centres = np.stack([np.arange(n_classes) % 5 * 10, np.arange(n_classes) // 5 * 10], 1)
    labels = rng.integers(0, n_classes, 2000)
    labels[:200] = 7
    positions = (centres[labels] + rng.normal(size=(2000, 2)) / 10).astype(np.float32)
    names = tuple(f"class {number:02d}" for number in range(n_classes))
    figure = plot_image_map(positions, labeling_of(labels, np.full(2000, -1), classes=names))
    (axes,) = figure.axes
    assert not figure.legends
    written = {text.get_text(): text.get_position() for text in axes.texts}
    assert "class 07" in written and len(written) > 5
    for name, place in written.items():
        np.testing.assert_allclose(place, centres[names.index(name)], atol=0.2)
    places = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for number, a in enumerate(places) for b in places[:number])


def test_a_map_of_nothing_says_so():
    figure = plot_image_map(np.empty((0, 2), np.float32), labeling_of([], []))
    assert figure.axes[0].texts[0].get_text() == "no images"


def report_of(classes, **others):
    return {
        "n_images": 100, "n_labeled": 7, "n_classes": len(classes), "n_unknown": 0,
        "n_unreached": 0, "reason": "chosen by chance", "calibration_sentence": "nobody knows",
        "notes": [], "classes": classes, **others,
    }  # fmt: skip


def class_of(name, n_given, n_labels, recall=None):
    return {"name": name, "n_given": n_given, "n_labels": n_labels, "recall": recall}


def test_the_terminal_shows_classes_sentences_and_the_page(capsys):
    classes = [class_of("[red]cat", 3, 30, 0.5), class_of("dog", 4, 60)]
    note = "owl has [one] image, and is a class with a story that is wider than the table"
    report = report_of(classes, n_unreached=10, n_broken=2, notes=[note])
    print_labeling(report, "out/labels.html")
    shown = capsys.readouterr().out
    assert "100 images, labels given for 7" in shown
    rows = [
        re.findall(r"[^│\s][^│]*[^│\s]|[^│\s]", line) for line in shown.splitlines() if "│" in line
    ]
    assert rows == [
        ["dog", "4", "60", "–"], ["[red]cat", "3", "30", "50.0"],
        ["not reached", "10"], ["cannot be read", "2"],
    ]  # fmt: skip
    for text in ("chosen by chance", "nobody knows", note[:70], "out/labels.html"):
        assert text in shown


def test_the_title_is_one_line_where_names_are_short(capsys):
    print_labeling(report_of([class_of("a", 1, 2), class_of("b", 1, 2)]))
    assert "100 images, labels given for 7" in capsys.readouterr().out


def test_the_terminal_adds_up_what_it_leaves_out(capsys):
    print_labeling(report_of([class_of(f"class {n}", 1, n) for n in range(30)]))
    shown = capsys.readouterr().out
    assert "class 29" in shown and "class 10" in shown and "class 9 " not in shown
    assert re.search(r"10 other classes +│ +10 │ +45 ", shown)
    assert "held out" not in shown
