import pytest

from lowshot_kedro.reporting import knn_accuracy_rows, print_knn_accuracies


def entry(k, top1, top5):
    return {"k": k, "top1": top1, "top5": top5}


def novel_entry(n_labeled, k, top1, seeds=(1, 2)):
    return {
        "n_labeled": n_labeled, "k": k, "seeds": list(seeds), "top1_mean": top1, "top5_mean": None,
        "top1_std": 0.0321 if len(seeds) > 1 else None, "top5_std": None,
    }  # fmt: skip


def metrics(novel=None, base_top5=0.98765):
    bank, fresh = ([entry(k, top1, base_top5) for k in (1, 30)] for top1 in (0.5, 0.625))
    base = {"n_classes": 6, "n_test": 80, "bank": bank, "fresh": fresh}
    return {"k": [1, 30], "temperature": 0.05, "ties": "ties go down", "base": base, "novel": novel}


NOVEL = {"n_classes": 3, "n_test": 7, "results": [novel_entry(1, 1, 0.5), novel_entry(5, 1, 0.75)]}


def test_rows_are_those_of_base_and_novel_classes_in_percent():
    rows = [list(row.values()) for row in knn_accuracy_rows(metrics(NOVEL))]
    assert rows == [
        ["6 base classes", "bank", "1", "50.0", "98.8"],
        ["6 base classes", "bank", "30", "50.0", "98.8"],
        ["6 base classes", "training images, afresh", "1", "62.5", "98.8"],
        ["6 base classes", "training images, afresh", "30", "62.5", "98.8"],
        ["3 novel classes", "1 labelled image a class", "1", "50.0 ± 3.2", "–"],
        ["3 novel classes", "5 labelled images a class", "1", "75.0 ± 3.2", "–"],
    ]


def test_what_is_nowhere_measured_has_no_column():
    one_seed = {**NOVEL, "results": [novel_entry(1, 1, 0.5, (3,))]}
    *_, last = knn_accuracy_rows(metrics(one_seed, None))
    assert list(last) == ["classes", "compared with", "k", "top-1"]
    assert last["top-1"] == "50.0"
    assert len(knn_accuracy_rows(metrics(None))) == 4


@pytest.mark.parametrize("novel", [None, NOVEL])
def test_the_printed_table_has_every_number_and_what_it_is(novel, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    print_knn_accuracies(metrics(novel))
    printed = " ".join(capsys.readouterr().out.split())
    for row in knn_accuracy_rows(metrics(novel)):
        assert row["compared with"] in printed
        assert f"{row['k']} │ {row['top-1']} │ {row['top-5']}" in printed
    assert "temperature 0.05" in printed
    assert "ties go down" in printed
    assert ("over 2 choices" in printed) is (novel is not None)
