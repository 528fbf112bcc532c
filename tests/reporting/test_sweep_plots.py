import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from lowshot_kedro.reporting import (
    plot_accuracy_per_background,
    plot_accuracy_per_n_labeled,
    plot_accuracy_per_step_over_seeds,
    summarize,
)

PUBLISHED_SIZES = (0, 100_000, 1_000_000, 10_000_000, 100_000_000)


def summary_of(rows):
    """From (method, unlabeled, n_background, n_labeled, percent, deviation) of all classes.

    Novel classes have ten percent less and twice the deviation; top-5 has 20 percent more.
    """
    records = []
    for method, unlabeled, n_background, n_labeled, percent, deviation in rows:
        record = {
            "method": method, "unlabeled": unlabeled, "n_background": n_background,
            "n_labeled": n_labeled, "n_seeds": 3,
        }  # fmt: skip
        for k, more in ((1, 0), (5, 20)):
            for group, less, times in (("", 0, 1), ("_novel", 10, 2), ("_base", 0, 1)):
                record[f"top{k}{group}_mean"] = (percent + more - less) / 100
                record[f"top{k}{group}_std"] = times * deviation / 100
        records.append(record)
    return pd.DataFrame(records)


def error_bars(axes):
    """By label: x, y, and the lower and upper ends of the bars."""
    found = {}
    for container in axes.containers:
        line, _, (bars,) = container.lines
        ends = np.array([segment[:, 1] for segment in bars.get_segments() if len(segment)])
        found[container.get_label()] = (line.get_xdata(), line.get_ydata(), ends, line)
    return found


def labels_of(legend):
    return [text.get_text() for text in legend.get_texts() if text.get_text().strip()]


def assert_nothing_is_covered_or_cut(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    whole = figure.bbox
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    legends = [legend.get_window_extent() for legend in figure.legends]
    title = figure._suptitle.get_window_extent()
    assert title.x0 >= 0 and title.x1 <= whole.x1
    for box in [*boxes, *legends]:
        assert box.x0 >= -1 and box.y0 >= -1
        assert box.x1 <= whole.x1 + 1 and box.y1 <= whole.y1 + 1
    everything = [*boxes, *legends]
    for number, box in enumerate(everything):
        assert not any(box.overlaps(other) for other in everything[:number])


# --- accuracy against n_labeled ---

NUMBERS = (1, 2, 5)
SUMMARY = summary_of(
    [
        *(("logistic_regression", "", math.nan, n, 40 + n, 1) for n in NUMBERS),
        *(("diffusion", "nbg0", 0, n, 30 + n, 2) for n in NUMBERS),
        *(("diffusion", "nbgall", 1200, n, 35 + n, 3) for n in NUMBERS),
    ]
)


@pytest.mark.parametrize(("k", "more"), [(1, 0), (5, 20)])
def test_a_curve_per_method_shows_means_and_deviations(k, more):
    figure = plot_accuracy_per_n_labeled(SUMMARY, k)
    all_classes, novel_classes = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["all classes", "novel classes"]
    assert all_classes.get_ylabel() == f"top-{k} accuracy (%)"
    expected = {
        "logistic regression": (40, 1),
        "diffusion, no background": (30, 2),
        "diffusion, all 1200 background": (35, 3),
    }
    for axes, less, times in ((all_classes, 0, 1), (novel_classes, 10, 2)):
        found = error_bars(axes)
        assert list(found) == list(expected)
        for label, (percent, deviation) in expected.items():
            means = np.array([percent + n + more - less for n in NUMBERS])
            _, y, ends, _ = found[label]
            np.testing.assert_allclose(y, means)
            np.testing.assert_allclose(ends[:, 0], means - times * deviation)
            np.testing.assert_allclose(ends[:, 1], means + times * deviation)


def test_points_of_one_n_labeled_stand_beside_each_other_at_its_tick():
    axes = plot_accuracy_per_n_labeled(SUMMARY, 1).axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_xticks().tolist() == list(NUMBERS)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "5"]
    assert len(axes.get_xticks(minor=True)) == 0
    x = np.array([curve[0] for curve in error_bars(axes).values()])
    ratios = x / np.array(NUMBERS)
    assert len(set(ratios[:, 0].round(6))) == 3
    np.testing.assert_allclose(ratios, np.repeat(ratios[:, :1], 3, axis=1))
    # The neighbour tick is a factor of two away.
    assert (ratios > 0.85).all() and (ratios < 1.18).all()


def test_curves_of_a_method_have_its_colour_and_lines_of_their_own():
    curves = error_bars(plot_accuracy_per_n_labeled(SUMMARY, 1).axes[0])
    lines = {label: curve[3] for label, curve in curves.items()}
    colors = [to_hex(line.get_color()) for line in lines.values()]
    assert colors[1] == colors[2] != colors[0]
    assert lines["diffusion, all 1200 background"].get_linestyle() == "-"
    assert lines["diffusion, no background"].get_linestyle() != "-"


def published_summary(kinds=("", "train")):
    numbers = (1, 2, 5, 10, 20)
    rows = [("logistic_regression", "", math.nan, n, 40 + n, 1) for n in numbers]
    for method, percent in (("diffusion", 40), ("combined", 50)):
        for n in numbers:
            for size in PUBLISHED_SIZES:
                if "" in kinds:
                    rows.append((method, f"nbg{size}", size, n, percent + n, 1))
                if "both" in kinds:
                    rows.append((method, f"nbg{size}_train", size, n, percent + n + 3, 1))
            if "train" in kinds:
                rows.append((method, "train", math.nan, n, percent + n, 2))
    return summary_of(rows)


@pytest.mark.parametrize(
    ("kinds", "drawn"),
    [
        (("", "train"), ["no background", "100M background", "training images"]),
        (("",), ["no background", "100M background"]),
        (
            ("", "train", "both"),
            [
                "no background", "100M background", "training images",
                "100M background + training images",
            ],
        ),
    ],
)  # fmt: skip
def test_of_many_unlabelled_sets_the_largest_and_none_are_drawn(kinds, drawn):
    figure = plot_accuracy_per_n_labeled(published_summary(kinds), 1)
    curves = error_bars(figure.axes[0])
    methods = ("diffusion", "combined")
    expected = [
        "logistic regression",
        *(f"{method}, {name}" for method in methods for name in drawn),
    ]
    assert sorted(curves) == sorted(expected)
    for method in methods:
        styles = [curve[3].get_linestyle() for label, curve in curves.items() if method in label]
        assert len(set(styles)) == len(drawn)


def test_three_unlabelled_sets_are_all_drawn():
    rows = [("diffusion", f"nbg{size}", size, 1, 40, 1) for size in (0, 300, 1200)]
    curves = error_bars(plot_accuracy_per_n_labeled(summary_of(rows), 1).axes[0])
    assert len(curves) == 3


@pytest.mark.parametrize("kinds", [("", "train"), ("", "train", "both")])
def test_legends_cover_nothing_and_nothing_is_cut(kinds):
    summary = published_summary(kinds)
    assert_nothing_is_covered_or_cut(plot_accuracy_per_n_labeled(summary, 1))
    assert_nothing_is_covered_or_cut(plot_accuracy_per_background(summary, 1))
    assert_nothing_is_covered_or_cut(plot_accuracy_per_step_over_seeds(steps_of(range(41)), 1))


# --- accuracy against steps ---


def steps_of(iterations, seeds=(1, 2), unlabeled=(("nbg300", 300), ("nbg1200", 1200)), chosen=1):
    """Seed s, step t, n labelled: 10 n + 2 s + t percent, novel classes half of it."""
    records = []
    for name, n_background in unlabeled:
        for n_labeled in (1, 2):
            for seed in seeds:
                for iteration in iterations:
                    percent = 10 * n_labeled + 2 * seed + iteration + (n_background == 300)
                    records.append(
                        {
                            "method": "diffusion", "unlabeled": name,
                            "n_background": n_background, "seed": seed,
                            "n_labeled": n_labeled, "iteration": iteration,
                            "chosen": iteration == chosen + n_labeled,
                            "top1": percent / 100, "top1_novel": percent / 200,
                        }
                    )  # fmt: skip
    return pd.DataFrame(records)


def lines_by_label(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_the_curve_per_step_is_the_mean_and_its_shade_the_deviation():
    figure = plot_accuracy_per_step_over_seeds(steps_of(range(5)), 1)
    for axes, part in zip(figure.axes, (1, 0.5), strict=True):
        lines = lines_by_label(axes)
        shades = axes.collections
        assert len(shades) == 2
        for shade, n_labeled in zip(shades, (1, 2), strict=True):
            # Seeds 1 and 2: 2 and 4 percent more, mean 3, deviation the root of two.
            means = part * (10 * n_labeled + 3 + np.arange(5))
            line = lines[f"n={n_labeled}"]
            np.testing.assert_array_equal(line.get_xdata(), range(5))
            np.testing.assert_allclose(line.get_ydata(), means)
            corners = shade.get_paths()[0].vertices
            for step, mean in enumerate(means):
                ends = corners[corners[:, 0] == step, 1]
                assert ends.min() == pytest.approx(mean - part * math.sqrt(2))
                assert ends.max() == pytest.approx(mean + part * math.sqrt(2))


def test_the_chosen_step_is_marked_on_each_curve():
    axes = plot_accuracy_per_step_over_seeds(steps_of(range(5), chosen=2), 1).axes[0]
    lines = lines_by_label(axes)
    for n_labeled, step in ((1, 3), (2, 4)):
        mark = lines[f"n={n_labeled}, chosen"]
        assert mark.get_xdata().tolist() == [step]
        np.testing.assert_allclose(mark.get_ydata(), [10 * n_labeled + 3 + step])
        assert mark.get_marker() == "D"
        assert to_hex(mark.get_color()) == to_hex(lines[f"n={n_labeled}"].get_color())


@pytest.mark.parametrize(
    ("unlabeled", "name"),
    [
        ((("nbg1200", 1200), ("nbg300", 300), ("train", math.nan)), "1200 background"),
        ((("nbg300", 300), ("nbgall", 1200)), "all 1200 background"),
        ((("train", math.nan), ("nbg300_train", 300)), "300 background + training images"),
        ((("train", math.nan),), "training images"),
    ],
)
def test_the_largest_background_is_shown_per_step(unlabeled, name):
    figure = plot_accuracy_per_step_over_seeds(steps_of(range(3), unlabeled=unlabeled), 1)
    assert f"Diffusion, {name}:" in figure.get_suptitle()
    # Every curve has a point per step: runs of other unlabelled images are not mixed in.
    assert {len(line.get_xdata()) for line in figure.axes[0].get_lines()[::2]} == {3}


# --- accuracy against background size ---


def test_the_sizes_of_the_background_stand_in_order():
    rows = [
        *(
            ("diffusion", name, size, n, percent + n, 2)
            for name, size, percent in (("nbg0", 0, 30), ("nbgall", 1200, 50), ("nbg300", 300, 40))
            for n in (1, 2)
        ),
        ("combined", "nbg0", 0, 1, 60, 1),
        ("combined", "nbgall", 1200, 1, 70, 1),
        ("diffusion", "train", math.nan, 1, 99, 1),
        ("logistic_regression", "", math.nan, 1, 45, 1),
        ("nearest_class_mean", "", math.nan, 1, 98, 1),
    ]
    figure = plot_accuracy_per_background(summary_of(rows), 1)
    for axes, less, times in zip(figure.axes, (0, 10), (1, 2), strict=True):
        assert axes.get_xticks().tolist() == [0, 1, 2]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "300", "1200"]
        curves = error_bars(axes)
        assert list(curves) == ["diffusion, n=1", "diffusion, n=2", "combined, n=1"]
        for label, means, positions, deviation in (
            ("diffusion, n=1", [31, 41, 51], [0, 1, 2], 2),
            ("diffusion, n=2", [32, 42, 52], [0, 1, 2], 2),
            ("combined, n=1", [60, 70], [0, 2], 1),
        ):
            x, y, ends, _ = curves[label]
            np.testing.assert_allclose(x, positions, atol=0.2)
            np.testing.assert_allclose(y, np.array(means) - less)
            np.testing.assert_allclose(ends[:, 1] - ends[:, 0], 2 * times * deviation)
        level = lines_by_label(axes)["logistic regression, n=1"]
        np.testing.assert_allclose(level.get_ydata(), 45 - less)
        lines = {label: curve[3] for label, curve in curves.items()}
        assert lines["diffusion, n=1"].get_linestyle() == "-"
        assert lines["combined, n=1"].get_linestyle() == "--"
        colors = {label: to_hex(line.get_color()) for label, line in lines.items()}
        assert colors["diffusion, n=1"] == colors["combined, n=1"] == to_hex(level.get_color())
        assert colors["diffusion, n=2"] != colors["diffusion, n=1"]
    (legend,) = figure.legends
    assert sorted(labels_of(legend)) == [
        "combined", "diffusion", "logistic regression", "n=1", "n=2",
    ]  # fmt: skip


def test_backgrounds_with_training_images_are_curves_of_their_own():
    figure = plot_accuracy_per_background(published_summary(("", "both")), 1)
    curves = error_bars(figure.axes[0])
    assert len(curves) == 2 * 2 * 5
    np.testing.assert_allclose(curves["diffusion, n=2"][1], [42] * 5)
    np.testing.assert_allclose(curves["diffusion + training images, n=2"][1], [45] * 5)
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == ["0", "100k", "1M", "10M", "100M"]


# --- little or nothing to draw ---


def message_of(figure):
    (axes,) = figure.axes
    return axes.texts[0].get_text()


def test_without_runs_the_figure_says_so():
    nothing = summarize(pd.DataFrame(), [1])
    assert message_of(plot_accuracy_per_n_labeled(nothing, 1)) == "No test runs"
    no_background = "No test runs with background images"
    assert message_of(plot_accuracy_per_background(nothing, 1)) == no_background
    no_diffusion = summary_of([("logistic_regression", "", math.nan, 1, 45, 1)])
    assert message_of(plot_accuracy_per_background(no_diffusion, 1)) == no_background
    steps = plot_accuracy_per_step_over_seeds(pd.DataFrame(), 1)
    assert message_of(steps) == "No test runs with steps"


@pytest.mark.filterwarnings("error")
def test_one_seed_and_one_n_labeled_are_drawn_without_bars():
    row = ("diffusion", "nbg300", 300, 2, 40, math.nan)
    for plot in (plot_accuracy_per_n_labeled, plot_accuracy_per_background):
        figure = plot(summary_of([row]), 1)
        ((x, y, ends, _),) = error_bars(figure.axes[0]).values()
        np.testing.assert_allclose(y, [40])
        assert len(x) == 1 and not np.isfinite(ends).any()
        lowest, highest = figure.axes[0].get_xlim()
        assert lowest < x[0] < highest
        assert_nothing_is_covered_or_cut(figure)
    figure = plot_accuracy_per_step_over_seeds(steps_of([0], seeds=(1,)), 1)
    np.testing.assert_allclose(lines_by_label(figure.axes[0])["n=2"].get_ydata(), [22])
    assert_nothing_is_covered_or_cut(figure)


@pytest.mark.filterwarnings("error")
def without_base(frame, suffixes=("_mean", "_std")):
    """All classes are novel."""
    novel = {f"top1_novel{suffix}": frame[f"top1{suffix}"] for suffix in suffixes}
    base = [name for name in frame.columns if "_base" in name]
    return frame.assign(**novel).drop(columns=base)


def without_novel(frame, suffixes=("_mean", "_std")):
    """All classes of the test images are base classes."""
    return frame.assign(**{f"top1_novel{suffix}": math.nan for suffix in suffixes})


@pytest.mark.parametrize("one_sided", [without_base, without_novel])
def test_a_panel_that_says_nothing_more_is_not_drawn(one_sided):
    for plot in (plot_accuracy_per_n_labeled, plot_accuracy_per_background):
        figure = plot(one_sided(SUMMARY), 1)
        (axes,) = figure.axes
        assert axes.get_title() == "all classes"
        assert error_bars(axes)
        assert_nothing_is_covered_or_cut(figure)
    figure = plot_accuracy_per_step_over_seeds(one_sided(steps_of(range(3)), [""]), 1)
    assert len(figure.axes) == 1
    assert_nothing_is_covered_or_cut(figure)


def test_all_given_labels_stand_behind_the_largest_number(tmp_path):
    rows = [("diffusion", "nbgall", 60, n, 50 + i, 1) for i, n in enumerate((1, 2, 5, "all"))]
    summary = summary_of(rows)
    summary.to_csv(tmp_path / "table.csv", index=False)
    for source in (summary, pd.read_csv(tmp_path / "table.csv")):
        figure = plot_accuracy_per_n_labeled(source, 1)
        axes = figure.axes[0]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "5", "all"]
        ((x, y, _, _),) = error_bars(axes).values()
        assert (np.diff(x) > 0).all()
        np.testing.assert_allclose(y, [50, 51, 52, 53])
        figure = plot_accuracy_per_background(source, 1)
        assert "n=all" in labels_of(figure.legends[0])
    alone = plot_accuracy_per_n_labeled(summary_of([("combined", "nbg0", 0, "all", 50, 1)]), 1)
    assert [label.get_text() for label in alone.axes[0].get_xticklabels()] == ["all"]
    steps = steps_of(range(3)).assign(n_labeled="all").drop_duplicates(["seed", "iteration"])
    assert "n=all" in lines_by_label(plot_accuracy_per_step_over_seeds(steps, 1).axes[0])


def test_plots_are_the_same_after_a_round_trip_through_csv(tmp_path):
    SUMMARY.to_csv(tmp_path / "summary.csv", index=False)
    curves = [
        error_bars(plot_accuracy_per_n_labeled(summary, 1).axes[0])
        for summary in (SUMMARY, pd.read_csv(tmp_path / "summary.csv"))
    ]
    assert list(curves[0]) == list(curves[1])
    for label, (_, y, _, _) in curves[0].items():
        np.testing.assert_allclose(curves[1][label][1], y)
