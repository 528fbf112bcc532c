from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from lowshot_kedro.reporting import (
    compare_methods,
    plot_accuracy_per_step,
    plot_methods,
    print_comparison,
)

GROUPS = ("", "_novel", "_base")


def entry(iteration, *percents, top_k=(1,)):
    """Accuracies in the order all, novel, base for each k."""
    names = [f"top{k}{group}" for k in top_k for group in GROUPS]
    values = [None if percent is None else percent / 100 for percent in percents]
    return {"iteration": iteration, **dict(zip(names, values, strict=True))}


def metrics_of(*entries, n_classes=20):
    return {"n_classes": n_classes, "per_iteration": list(entries), "final": entries[-1]}


DIFFUSION = {
    **metrics_of(entry(0, 10, 12, 8), entry(1, 40, 50, 30), entry(2, 61.2, 70, 52.4)),
    "method": "diffusion", "experiment": {"diffusion": {}},
}  # fmt: skip
# As earlier versions wrote it.
BASELINE = {
    **metrics_of(entry(500, 20, 25, 15), entry(1000, 55, 45, 65)), "experiment": {"mode": "test"},
}  # fmt: skip


# --- table ---


def test_the_table_has_a_row_per_method_and_the_final_accuracies():
    entries = metrics_of(entry(3, 10, 20, 30, 40, 50, 60, top_k=(1, 5)))
    wide = DIFFUSION | entries
    other = metrics_of(entry(7, 1, None, 1, 2, None, 2, top_k=(1, 5)))
    table = compare_methods({"a": wide, "b": other}, [1, 5])
    assert list(table.columns) == [
        "method", "iteration", "top1", "top1_novel", "top1_base", "top5", "top5_novel", "top5_base",
    ]  # fmt: skip
    assert table.iloc[0].tolist() == ["a", 3, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert table["iteration"].tolist() == [3, 7]
    assert table["top1_novel"].isna().tolist() == [False, True]
    assert table["top5_base"].tolist() == [0.6, 0.02]


def test_the_table_takes_the_final_entry_only():
    table = compare_methods({"diffusion": DIFFUSION, "regression": BASELINE}, [1])
    assert table["top1"].tolist() == [0.612, 0.55]
    assert table["iteration"].tolist() == [2, 1000]


@pytest.mark.parametrize(
    "top_k",
    [(1,), (1, 5), (1, 2, 5, 10)],
)
def test_the_printed_table_shows_every_number(capsys, monkeypatch, top_k):
    monkeypatch.setenv("COLUMNS", "80")
    percents = np.linspace(11.1, 98.7, 3 * len(top_k)).round(1).tolist()
    metrics = {"diffusion": metrics_of(entry(29500, *percents, top_k=top_k))}
    experiment = {"mode": "val", "n_labeled": 2, "seed": 17}
    print_comparison(compare_methods(metrics, top_k), experiment)
    printed = capsys.readouterr().out
    for percent in percents:
        assert f"{percent / 100:.3f}" in printed
    for word in ("diffusion", "mode val", "2 labelled", "seed 17"):
        assert word in printed


def printed_table(capsys, table, n_labeled=1):
    print_comparison(table, {"mode": "test", "n_labeled": n_labeled, "seed": 1})
    printed = capsys.readouterr().out
    assert "nan" not in printed.lower()
    assert "none" not in printed.lower()
    return printed


def test_a_missing_accuracy_is_printed_as_a_dash(capsys):
    some = {"a": metrics_of(entry(1, 50.0, None, 25.0)), "b": metrics_of(entry(1, 50, 50, 25))}
    assert printed_table(capsys, compare_methods(some, [1])).count("–") == 1


# All classes are novel, or all are base: the other group would say the same as all classes.
ONE_SIDED = [(50, 50, None), (50, None, 50)]


@pytest.mark.parametrize("percents", ONE_SIDED)
def test_groups_without_test_images_have_no_column_and_no_bars(capsys, percents):
    metrics = {name: metrics_of(entry(1, *percents)) for name in "ab"}
    table = compare_methods(metrics, [1])
    group = ("_novel", "_base")[percents.index(None) - 2]
    assert list(table.columns) == ["method", "iteration", "top1", f"top1{group}"]
    printed = printed_table(capsys, table)
    assert "–" not in printed
    assert printed.count("0.500") == 2
    header = next(line for line in printed.splitlines() if "method" in line)
    assert "top-1" in header and "novel" not in header and "base" not in header
    assert bars(plot_methods(table, 1)) == [[50, 50]]


def test_equal_accuracies_of_all_groups_have_a_column_each(capsys):
    table = compare_methods({"a": metrics_of(entry(1, 50, 50, 50))}, [1])
    assert printed_table(capsys, table).count("0.500") == 3
    assert len(bars(plot_methods(table, 1))) == 3


@pytest.mark.parametrize(
    "n_classes, expected", [(6, (1, 5)), (5, (1,)), (4, (1,)), (2, (1,)), (1, (1,))]
)
def test_as_many_guesses_as_classes_say_nothing(n_classes, expected):
    wide = metrics_of(entry(3, 10, 20, 30, 40, 50, 60, top_k=(1, 5)), n_classes=n_classes)
    table = compare_methods({"a": wide}, [1, 5])
    found = [int(name[3:]) for name in table.columns if name[3:].isdigit()]
    assert tuple(found) == expected


@pytest.mark.parametrize(
    "n_labeled, words",
    [
        (None, "all labelled images, seed 1"), (1, "1 labelled image per novel class, seed 1"),
        (3, "3 labelled images per novel class, seed 1"),
    ],
)  # fmt: skip
def test_the_title_says_how_many_labels_there_are(capsys, monkeypatch, n_labeled, words):
    monkeypatch.setenv("COLUMNS", "120")
    table = compare_methods({"a": metrics_of(entry(1, 50, 50, 25))}, [1])
    assert words in " ".join(printed_table(capsys, table, n_labeled).split())


# --- plots ---


def lines_by_label(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_the_plot_per_step_shows_the_metrics():
    figure = plot_accuracy_per_step(DIFFUSION, BASELINE, 1)
    lines = lines_by_label(figure)
    assert len(lines) == 6
    expected = {"all": [10, 40, 61.2], "novel": [12, 50, 70], "base": [8, 30, 52.4]}
    baseline = {"all": 55, "novel": 45, "base": 65}
    for group, values in expected.items():
        curve = lines[f"diffusion, {group} classes"]
        np.testing.assert_array_equal(curve.get_xdata(), [0, 1, 2])
        np.testing.assert_allclose(curve.get_ydata(), values)
        level = lines[f"logistic regression, {group} classes"]
        np.testing.assert_allclose(level.get_ydata(), baseline[group])
        assert level.get_color() == curve.get_color()
    assert figure.axes[0].get_ylabel() == "top-1 accuracy (%)"
    assert len({to_hex(line.get_color()) for line in lines.values()}) == 3


def test_the_plot_per_step_marks_what_was_chosen():
    chosen = {
        "k": 10, "n_iterations": 2, "validation_accuracy": [0.1, 0.5, 0.75, 0.7],
        "validation_accuracy_per_k": {"5": 0.6, "10": 0.75},
    }  # fmt: skip
    lines = lines_by_label(plot_accuracy_per_step({**DIFFUSION, "chosen": chosen}, BASELINE, 1))
    assert len(lines) == 8
    assert set(lines["chosen: 2 steps, k = 10"].get_xdata()) == {2}
    np.testing.assert_allclose(lines["diffusion, held-out labels"].get_ydata(), [10, 50, 75, 70])
    none = {**chosen, "validation_accuracy": None, "n_iterations": 1}
    lines = lines_by_label(plot_accuracy_per_step({**DIFFUSION, "chosen": none}, BASELINE, 1))
    assert "chosen: 1 step, k = 10" in lines
    assert len(lines) == 7
    given = {**none, "validation_accuracy_per_k": {}}
    lines = lines_by_label(plot_accuracy_per_step({**DIFFUSION, "chosen": given}, BASELINE, 1))
    assert len(lines) == 6


@pytest.mark.parametrize("place", [1, 2])
def test_the_plot_per_step_leaves_out_what_was_not_measured(place):
    def one_sided(percent):
        return [percent, *(None if place == group else percent for group in (1, 2))]

    diffusion = DIFFUSION | metrics_of(entry(0, *one_sided(10)), entry(1, *one_sided(40)))
    baseline = BASELINE | metrics_of(entry(9, *one_sided(55)))
    lines = lines_by_label(plot_accuracy_per_step(diffusion, baseline, 1))
    assert set(lines) == {"diffusion, all classes", "logistic regression, all classes"}
    np.testing.assert_allclose(lines["diffusion, all classes"].get_ydata(), [10, 40])


def bars(figure):
    return [[bar.get_height() for bar in group] for group in figure.axes[0].containers]


def test_the_bars_are_the_final_accuracies(tmp_path):
    table = compare_methods({"regression": BASELINE, "diffusion": DIFFUSION}, [1])
    figure = plot_methods(table, 1)
    np.testing.assert_allclose(bars(figure), [[55, 61.2], [45, 70], [65, 52.4]])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["regression", "diffusion"]
    numbers = {text.get_text() for text in axes.texts}
    assert numbers == {"55.0", "61.2", "45.0", "70.0", "65.0", "52.4"}
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches)
    assert all(left[1] <= right[0] + 1e-9 for left, right in pairwise(edges))


def test_bars_for_missing_accuracies_are_empty(tmp_path):
    metrics = {"a": metrics_of(entry(1, 50, None, 25)), "b": metrics_of(entry(1, 50, 40, 25))}
    table = compare_methods(metrics, [1])
    table.to_csv(tmp_path / "table.csv", index=False)
    for source in (table, pd.read_csv(tmp_path / "table.csv")):
        figure = plot_methods(source, 1)
        heights = np.array(bars(figure))
        np.testing.assert_array_equal(np.isnan(heights[1]), [True, False])
        assert "nan" not in {text.get_text() for text in figure.axes[0].texts}


@pytest.mark.parametrize("k", [1, 5])
def test_plots_show_the_k_asked_for(k):
    entries = metrics_of(entry(3, 10, 20, 30, 40, 50, 60, top_k=(1, 5)))
    wide, baseline = DIFFUSION | entries, BASELINE | entries
    height = {1: 10, 5: 40}[k]
    figure = plot_accuracy_per_step(wide, baseline, k)
    assert lines_by_label(figure)["diffusion, all classes"].get_ydata() == pytest.approx([height])
    assert bars(plot_methods(compare_methods({"a": wide}, [1, 5]), k))[0] == pytest.approx([height])
