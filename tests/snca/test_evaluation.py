import json
import logging

import numpy as np
import pytest

from lowshot_kedro.errors import InputError
from lowshot_kedro.protocol import ClassSplit, select_images
from lowshot_kedro.reporting import knn_accuracy_rows
from lowshot_kedro.snca.evaluation import KnnEvaluation, evaluate, plan_evaluation
from tests.features import MemoryFeatures

SETTINGS = KnnEvaluation((1, 3, 500, 8), 0.1, (2, 1), (7, 1, 4))
# Class 8 belongs to nobody.
BASE, NOVEL = [0, 2, 3, 5, 6, 7], [1, 4]
SPLIT = ClassSplit(np.array(BASE), np.array(NOVEL), ())


def unit_rows(n, seed, d=6):
    rows = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1)[:, None]


def labels_of(n, seed):
    return np.random.default_rng(seed).permutation(np.arange(n) % 9).astype(np.int32)


TRAIN, TRAIN_LABELS = unit_rows(90, 0), labels_of(90, 1)
TEST, TEST_LABELS = unit_rows(70, 2), labels_of(70, 3)
# The order of a bank need not be that of the training set.
TRAINED = np.random.default_rng(4).permutation(np.flatnonzero(np.isin(TRAIN_LABELS, BASE)))
BANK = unit_rows(len(TRAINED), 5)


def accuracy(gallery, gallery_labels, queries, query_labels, k, guesses):
    """In plain Python: exp of products over the k nearest, summed by label."""
    hits = 0
    for query, label in zip(queries.astype(float), query_labels, strict=True):
        products = gallery.astype(float) @ query
        sums = {}
        for row in sorted(range(len(gallery)), key=lambda row: -products[row])[:k]:
            sums[gallery_labels[row]] = sums.get(gallery_labels[row], 0) + np.exp(
                products[row] / 0.1
            )
        hits += label in sorted(sums, key=lambda label: -sums[label])[:guesses]
    return hits / len(queries)


def evaluated(train=TRAIN, test=TEST, split=SPLIT, trained=TRAINED, bank=BANK, settings=SETTINGS):
    plan = plan_evaluation(split, TRAIN_LABELS, TEST_LABELS, trained, settings)
    return evaluate(plan, bank, train, test)


def test_base_classes_are_compared_with_the_bank_and_with_images_afresh(caplog):
    caplog.set_level(logging.INFO)
    found = evaluated()
    tested = np.isin(TEST_LABELS, BASE)
    base = found["base"]
    assert (base["n_classes"], base["n_test"]) == (6, tested.sum())
    for name, gallery in (("bank", BANK), ("fresh", TRAIN[TRAINED])):
        assert [entry["k"] for entry in base[name]] == [1, 3, 8]
        for entry in base[name]:
            for guesses in (1, 5):
                expected = accuracy(
                    gallery, TRAIN_LABELS[TRAINED], TEST[tested], TEST_LABELS[tested], entry["k"],
                    guesses,
                )  # fmt: skip
                assert entry[f"top{guesses}"] == pytest.approx(expected, abs=1e-12)
    assert f"k: 500 left out, as there are only {len(TRAINED)} images" in caplog.text
    assert (found["k"], found["temperature"]) == ([1, 3, 8, 500], 0.1)
    assert "comes first" in found["ties"]
    json.dumps(found, allow_nan=False)


def test_novel_classes_are_told_apart_by_the_images_that_the_diffusion_gets():
    found = evaluated()["novel"]
    tested = np.isin(TEST_LABELS, NOVEL)
    assert (found["n_classes"], found["n_test"]) == (2, tested.sum())
    # Two or four images are labelled.
    results = {(entry["n_labeled"], entry["k"]): entry for entry in found["results"]}
    assert list(results) == [(1, 1), (2, 1), (2, 3)]
    for (n_labeled, k), entry in results.items():
        assert entry["seeds"] == [1, 4, 7]
        values = []
        for seed in (1, 4, 7):
            chosen = select_images(SPLIT, TRAIN_LABELS, TEST_LABELS, n_labeled, seed)
            rows = chosen.labeled_positions[chosen.is_novel[chosen.labeled_classes]]
            assert len(rows) == 2 * n_labeled
            values.append(
                accuracy(TRAIN[rows], TRAIN_LABELS[rows], TEST[tested], TEST_LABELS[tested], k, 1)
            )
        assert entry["top1_mean"] == pytest.approx(np.mean(values), abs=1e-12)
        assert entry["top1_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        # With two classes, five guesses are always right.
        assert entry["top5_mean"] is entry["top5_std"] is None
    assert len({entry["top1_mean"] for entry in results.values()}) > 1


def test_the_table_for_reading_has_a_row_for_each_number_of_neighbours():
    found = evaluated()
    rows = knn_accuracy_rows(found)
    assert [row["k"] for row in rows] == ["1", "3", "8"] * 2 + ["1", "1", "3"]
    fresh = found["base"]["fresh"][1]
    assert (rows[4]["top-1"], rows[4]["top-5"]) == tuple(
        f"{100 * fresh[name]:.1f}" for name in ("top1", "top5")
    )


def test_one_seed_has_no_deviation():
    settings = KnnEvaluation((1,), 0.1, (1,), (3,))
    (entry,) = evaluated(settings=settings)["novel"]["results"]
    assert entry["top1_mean"] is not None
    assert entry["top1_std"] is None


def test_features_on_disk_give_the_same():
    train, test = MemoryFeatures(TRAIN, "train"), MemoryFeatures(TEST, "test")
    assert evaluated(train, test) == evaluated()


def test_few_classes_have_no_top_5():
    trained = np.flatnonzero(np.isin(TRAIN_LABELS, BASE[:5]))
    found = evaluated(trained=trained, bank=BANK[: len(trained)])
    assert {entry["top5"] for entry in found["base"]["fresh"]} == {None}


def test_of_classes_that_were_trained_on_nothing_novel_is_said(caplog):
    caplog.set_level(logging.INFO)
    every = np.arange(90)
    assert evaluated(trained=every, bank=unit_rows(90, 6))["novel"] is None
    assert "2 of 2 novel classes were trained on" in caplog.text
    assert evaluated(split=None)["novel"] is None
    # The other one gets the images that it gets otherwise.
    trained = np.flatnonzero(TRAIN_LABELS == 1)
    plan = plan_evaluation(SPLIT, TRAIN_LABELS, TEST_LABELS, trained, SETTINGS)
    usual = plan_evaluation(SPLIT, TRAIN_LABELS, TEST_LABELS, TRAINED, SETTINGS)
    for task, other in zip(plan.novel[2], usual.novel[2], strict=True):
        expected = [row for row in other.gallery if TRAIN_LABELS[row] == 4]
        assert task.gallery.tolist() == expected
        assert task.n_classes == 1


def test_more_labels_than_any_novel_class_has_are_left_out(caplog):
    settings = KnnEvaluation((1,), 0.1, (1, 11), (1,))
    found = evaluated(settings=settings)
    assert [entry["n_labeled"] for entry in found["novel"]["results"]] == [1]
    assert "n_labeled: 11 left out, as no novel class has more than 10" in caplog.text


# --- faults, before anything is trained ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": ()}, "k: got [], expected a list with at least one entry"),
        ({"k": (0,)}, "k: got 0, expected an integer from 1"),
        ({"temperature": 0}, "temperature: got 0, expected a number above 0"),
        ({"n_labeled": (1, 0)}, "n_labeled: got 0, expected an integer from 1"),
        ({"seeds": 3}, "seeds: got 3, expected a list"),
    ],
)
def test_settings_say_what_is_wrong_with_them(change, message):
    given = {"k": (1,), "temperature": 0.1, "n_labeled": (1,), "seeds": (1,)}
    with pytest.raises(InputError) as caught:
        KnnEvaluation(**{**given, **change})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": KnnEvaluation((99, 100), 0.1, (1,), (1,))},
         "k: got [99, 100], expected one up to 60, the images to compare with"),
        ({"trained": TRAINED[:0]}, "training images: none of the classes"),
        ({"test_labels": TEST_LABELS * 0 + 8}, "test images: none of the 6 classes"),
        ({"train_labels": np.where(np.isin(TRAIN_LABELS, NOVEL), 0, TRAIN_LABELS)},
         "train_features: no images of class 1 (1), which class_split lists"),
    ],
)  # fmt: skip
def test_a_plan_refuses_what_cannot_be_judged(change, message):
    given = {
        "split": SPLIT, "train_labels": TRAIN_LABELS, "test_labels": TEST_LABELS,
        "trained": TRAINED, "settings": SETTINGS,
    }  # fmt: skip
    with pytest.raises(InputError) as caught:
        plan_evaluation(**{**given, **change})
    assert message in str(caught.value)


def test_a_bank_of_other_images_is_refused():
    with pytest.raises(InputError, match=r"^bank: 59 rows, expected one for each of 60 images"):
        evaluated(bank=BANK[1:])
