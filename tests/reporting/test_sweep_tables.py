import math

import pandas as pd
import pytest

from lowshot_kedro.errors import InputError
from lowshot_kedro.reporting import (
    comparison_table,
    print_resources,
    print_summary,
    run_resources,
    summarize,
    to_markdown,
)

CONTEXT = {"mode": "test", "seeds": [1, 2, 3]}


def final(method, unlabeled, n_labeled, seed, percents, n_background=math.nan):
    """Top-1 in the order all, novel, base; top-5 is ten more."""
    accuracies = {}
    for group, percent in zip(("", "_novel", "_base"), percents, strict=True):
        accuracies[f"top1{group}"] = None if percent is None else percent / 100
        accuracies[f"top5{group}"] = None if percent is None else (percent + 10) / 100
    return {
        "method": method, "unlabeled": unlabeled, "n_background": n_background,
        "n_labeled": n_labeled, "seed": seed, **accuracies, "seconds": 1.0,
        "peak_rss_bytes": 2**20, "key": f"{method}/test/nl{n_labeled}/{unlabeled}/seed{seed}",
    }  # fmt: skip


# Of 60, 66, 72: mean 66; differences -6, 0, 6; variance (36 + 36) / 2 = 36.
# Of 40, 41, 45: mean 42; differences -2, -1, 3; variance (4 + 1 + 9) / 2 = 7, whose root is 2.6458.
FINALS = pd.DataFrame(
    [
        final("diffusion", "nbg300", 2, 1, (60, 40, 80), 300),
        final("diffusion", "nbg300", 2, 2, (66, 41, 80), 300),
        final("diffusion", "nbg300", 2, 3, (72, 45, 80), 300),
        final("diffusion", "nbg300", 10, 1, (90, None, 90), 300),
        final("logistic_regression", "", 2, 2, (50, 30, 70)),
        final("logistic_regression", "", 2, 1, (52, 34, 70)),
    ]
)


def row_of(summary, method, n_labeled):
    (row,) = summary[(summary["method"] == method) & (summary["n_labeled"] == n_labeled)].to_dict(
        "records"
    )
    return row


def test_the_summary_is_what_one_computes_by_hand():
    summary = summarize(FINALS, [1, 5])
    assert list(summary.columns) == [
        "method", "unlabeled", "n_background", "n_labeled", "n_seeds",
        "top1_mean", "top1_std", "top1_novel_mean", "top1_novel_std", "top1_base_mean",
        "top1_base_std", "top5_mean", "top5_std", "top5_novel_mean", "top5_novel_std",
        "top5_base_mean", "top5_base_std",
    ]  # fmt: skip
    assert summary["method"].tolist() == ["logistic_regression", "diffusion", "diffusion"]
    diffusion = row_of(summary, "diffusion", 2)
    assert (diffusion["unlabeled"], diffusion["n_background"]) == ("nbg300", 300)
    assert diffusion["n_seeds"] == 3
    assert diffusion["top1_mean"] == pytest.approx(0.66)
    assert diffusion["top1_std"] == pytest.approx(0.06)
    assert diffusion["top1_novel_mean"] == pytest.approx(0.42)
    assert diffusion["top1_novel_std"] == pytest.approx(0.026458, abs=1e-6)
    assert (diffusion["top1_base_mean"], diffusion["top1_base_std"]) == pytest.approx((0.8, 0))
    assert (diffusion["top5_mean"], diffusion["top5_std"]) == pytest.approx((0.76, 0.06))
    # Two values: their distance divided by the root of two.
    regression = row_of(summary, "logistic_regression", 2)
    assert (regression["n_seeds"], regression["unlabeled"]) == (2, "")
    assert regression["top1_novel_std"] == pytest.approx(0.04 / 1.414214, abs=1e-7)


def test_one_seed_has_no_deviation_and_an_empty_group_no_mean():
    row = row_of(summarize(FINALS, [1]), "diffusion", 10)
    assert row["top1_mean"] == pytest.approx(0.9)
    assert all(math.isnan(row[name]) for name in ("top1_std", "top1_novel_mean", "top1_novel_std"))


# All classes are novel, and the largest number of labelled images is all that are given.
ALL_NOVEL = pd.DataFrame(
    [
        final("diffusion", "nbgall", n_labeled, seed, (percent + seed, percent + seed, None), 60)
        for n_labeled, percent in (("all", 80), (1, 40), (5, 60))
        for seed in (1, 2, 3)
    ]
)


def test_all_given_labels_come_behind_all_numbers(tmp_path):
    summary = summarize(ALL_NOVEL, [1])
    assert summary["n_labeled"].tolist() == [1, 5, "all"]
    summary.to_csv(tmp_path / "table.csv", index=False)
    for source in (summary, pd.read_csv(tmp_path / "table.csv")):
        table = comparison_table(source, 1)
        assert list(table.columns) == ["method", "all n=1", "all n=5", "all n=all"]
        assert table.iloc[0].tolist()[1:] == ["42.0 ± 1.0", "62.0 ± 1.0", "82.0 ± 1.0"]
        text = to_markdown(source, [1], CONTEXT)
        assert "all: as many as there are, the same for every seed." in text
    assert "as many as there are" not in to_markdown(summarize(FINALS, [1]), [1], CONTEXT)


def test_groups_without_test_images_have_no_columns_and_no_table(capsys):
    summary = summarize(ALL_NOVEL, [1, 5])
    assert not [column for column in summary.columns if "base" in column]
    assert not summary.isna().any().any()
    assert list(parse_markdown(to_markdown(summary, [1, 5], CONTEXT))) == [
        "Top-1, all classes", "Top-5, all classes",
    ]  # fmt: skip
    print_summary(summary, 1, CONTEXT)
    assert "novel classes" not in capsys.readouterr().out
    # Of a single seed the deviation alone is not known.
    assert "top1_novel_std" in summarize(ALL_NOVEL.iloc[:1], [1]).columns


def test_rows_are_ordered_by_method_then_unlabelled_images_then_n_labeled():
    expected = [
        ("nearest_class_mean", "", 5),
        ("logistic_regression", "", 1),
        ("logistic_regression", "", 20),
        *(
            ("diffusion", unlabeled, 1)
            for unlabeled in (
                "nbg0", "nbg900", "nbg10000", "nbgall", "train", "nbg0_train", "nbg900_train",
                "nbgall_train",
            )
        ),
        ("combined", "nbg900", 2),
        ("combined", "nbg900", 10),
    ]  # fmt: skip
    shuffled = [expected[(7 * position) % len(expected)] for position in range(len(expected))]
    assert sorted(shuffled) == sorted(expected)
    summary = summarize(pd.DataFrame([final(*row, 1, (1, 2, 3)) for row in shuffled]), [1])
    found = list(zip(summary["method"], summary["unlabeled"], summary["n_labeled"], strict=True))
    assert found == expected


def test_two_runs_of_one_seed_are_refused():
    twice = pd.concat([FINALS, FINALS.iloc[[1]].assign(key="another/key")])
    with pytest.raises(InputError, match=r"diffusion/test/nl2/nbg300/seed2 and another/key"):
        summarize(twice, [1])


def test_tables_say_the_same_after_a_round_trip_through_csv(tmp_path):
    summary = summarize(FINALS, [1, 5])
    FINALS.to_csv(tmp_path / "finals.csv", index=False)
    summary.to_csv(tmp_path / "summary.csv", index=False)
    again = pd.read_csv(tmp_path / "summary.csv")
    pd.testing.assert_frame_equal(summarize(pd.read_csv(tmp_path / "finals.csv"), [1, 5]), summary)
    pd.testing.assert_frame_equal(comparison_table(again, 1), comparison_table(summary, 1))
    assert to_markdown(again, [1, 5], CONTEXT) == to_markdown(summary, [1, 5], CONTEXT)


def test_the_table_for_reading_shows_percent_and_deviation():
    table = comparison_table(summarize(FINALS, [1, 5]), 1)
    assert list(table.columns) == ["method", "all n=2", "all n=10", "novel n=2", "novel n=10"]
    assert table.to_numpy().tolist() == [
        ["logistic regression", "51.0 ± 1.4", "–", "32.0 ± 2.8", "–"],
        ["diffusion, 300 background", "66.0 ± 6.0", "90.0", "42.0 ± 2.6", "–"],
    ]
    assert comparison_table(summarize(FINALS, [1, 5]), 5).iloc[1, 1] == "76.0 ± 6.0"


@pytest.mark.parametrize(
    ("method", "unlabeled", "n_background", "name"),
    [
        ("nearest_neighbors", "", math.nan, "nearest neighbours"),
        ("diffusion", "nbg0", 0, "diffusion, no background"),
        ("diffusion", "nbg1797", 1797, "diffusion, 1797 background"),
        ("diffusion", "nbg100000", 1e5, "diffusion, 100k background"),
        ("diffusion", "nbg1000000", 1e6, "diffusion, 1M background"),
        ("diffusion", "nbg1500000", 1.5e6, "diffusion, 1500k background"),
        ("diffusion", "nbg100000000", 1e8, "diffusion, 100M background"),
        ("diffusion", "nbgall", 40_000, "diffusion, all 40k background"),
        ("diffusion", "nbgall", math.nan, "diffusion, all background"),
        ("combined", "train", math.nan, "combined, training images"),
        ("combined", "nbg1000000_train", 1e6, "combined, 1M background + training images"),
        ("combined", "nbg0_train", 0, "combined, no background + training images"),
    ],
)
def test_methods_have_names_that_people_read(method, unlabeled, n_background, name):
    finals = pd.DataFrame([final(method, unlabeled, 1, 1, (1, 2, 3), n_background)])
    assert comparison_table(summarize(finals, [1]), 1)["method"].tolist() == [name]


def parse_markdown(text):
    """Tables by heading, each a list of rows of cells."""
    tables, heading = {}, None
    for line in text.splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("|"):
            assert line.endswith("|")
            cells = [cell.strip() for cell in line[1:-1].split("|")]
            tables.setdefault(heading, []).append(cells)
    return tables


def test_the_markdown_document_holds_a_table_per_k_and_group():
    text = to_markdown(summarize(FINALS, [1, 5]), [1, 5], CONTEXT)
    tables = parse_markdown(text)
    assert list(tables) == [
        "Top-1, all classes", "Top-1, novel classes", "Top-5, all classes", "Top-5, novel classes",
    ]  # fmt: skip
    header, rule, *rows = tables["Top-5, novel classes"]
    assert header == ["method", "n=2", "n=10"]
    # A colon behind the dashes aligns to the right.
    assert set(rule[0]) == {"-"}
    assert all(set(cell[:-1]) == {"-"} and cell[-1] == ":" for cell in rule[1:])
    assert rows == [
        ["logistic regression", "42.0 ± 2.8", "–"],
        ["diffusion, 300 background", "52.0 ± 2.6", "–"],
    ]
    assert tables["Top-1, all classes"][3] == ["diffusion, 300 background", "66.0 ± 6.0", "90.0"]
    for table in text.split("## ")[1:]:
        assert len({len(line) for line in table.splitlines() if line.startswith("|")}) == 1
    # A table needs an empty line before it.
    lines = text.splitlines()
    for position, line in enumerate(lines):
        if line.startswith("| method"):
            assert lines[position - 1] == ""


def test_the_document_says_what_the_numbers_are_and_which_seeds_are_missing():
    text = to_markdown(summarize(FINALS, [1]), [1], CONTEXT)
    assert "Mode test, seeds 1, 2, 3." in text
    assert "± is the sample standard deviation" in text
    missing = "logistic regression, n=2: 2 of 3; diffusion, 300 background, n=10: 1 of 3."
    assert f"Seeds are missing: {missing}" in text
    complete = to_markdown(summarize(FINALS.iloc[:3], [1]), [1], CONTEXT)
    assert "missing" not in complete
    one = to_markdown(summarize(FINALS.iloc[:1], [1]), [1], {"mode": "val", "seeds": [7]})
    assert "Mode val, seed 7." in one
    assert "±" not in one


@pytest.mark.parametrize("columns", ["20", "80", "200"])
def test_the_printed_table_shows_every_number(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    numbers = (1, 2, 5, 10, 20)
    finals = pd.DataFrame(
        [
            final("diffusion", "nbg100000000", n, seed, (40 + n + seed, 20 + n - seed, 70), 1e8)
            for n in numbers
            for seed in (1, 2, 3)
        ]
    )
    print_summary(summarize(finals, [1, 5]), 5, CONTEXT)
    printed = capsys.readouterr().out
    all_classes, novel_classes = (
        next(line for line in part.splitlines() if "diffusion, 100M background" in line)
        for part in printed.split("novel classes")[:2]
    )
    for n in numbers:
        assert f"n={n} " in printed
        assert f" {52 + n}.0 ± 1.0 " in all_classes
        assert f" {28 + n}.0 ± 1.0 " in novel_classes
    flat = " ".join(printed.split())
    assert "Top-5 accuracy over seeds" in flat
    assert "Mode test, seeds 1, 2, 3" in flat


RUNS = pd.DataFrame(
    [
        ("diffusion/test/nl2/nbg300/k30/seed1", "diffusion", "test", 10.5, 3 * 2**20),
        ("combined/test/nl2/nbg300/seed1", "combined", "test", 1.0, 2**30),
        ("diffusion/val/nl1/nbg300/k30/seed1", "diffusion", "val", 0.25, 5 * 2**19),
    ],
    columns=["key", "method", "mode", "seconds", "peak_rss_bytes"],
).assign(n_labeled=1)


def test_the_table_of_time_and_memory_has_a_row_per_run():
    table = run_resources(RUNS)
    assert list(table.columns) == ["key", "method", "mode", "seconds", "peak_mib"]
    assert table.to_numpy().tolist() == [
        ["combined/test/nl2/nbg300/seed1", "combined", "test", 1.0, 1024.0],
        ["diffusion/test/nl2/nbg300/k30/seed1", "diffusion", "test", 10.5, 3.0],
        ["diffusion/val/nl1/nbg300/k30/seed1", "diffusion", "val", 0.25, 2.5],
    ]


def test_time_and_memory_are_printed_per_method(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    print_resources(run_resources(RUNS))
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["diffusion", "2", "10.8", "3.0 MiB"],
        ["combined", "1", "1.0", "1.0 GiB"],
    ]


def test_nothing_measured_gives_empty_tables(tmp_path, capsys):
    summary = summarize(pd.DataFrame(), [1, 5])
    assert list(summary.columns) == list(summarize(FINALS, [1, 5]).columns)
    summary.to_csv(tmp_path / "summary.csv", index=False)
    for table in (summary, pd.read_csv(tmp_path / "summary.csv")):
        assert len(comparison_table(table, 5)) == 0
        assert "No test runs." in to_markdown(table, [1, 5], CONTEXT)
        print_summary(table, 1, CONTEXT)
    assert list(run_resources(pd.DataFrame()).columns) == list(run_resources(RUNS).columns)
    print_resources(run_resources(pd.DataFrame()))
    assert "largest peak" in capsys.readouterr().out
