import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lowshot_kedro.errors import InputError
from lowshot_kedro.protocol import ClassSplit, read_class_split, select_images

CONTENT = {
    "label_names": ["ant", "bee", "cat", "dog", "eel", "fox"],
    "base_classes_1": [5, 1],
    "novel_classes_1": [3],
    "base_classes_2": [6, 2],
    "novel_classes_2": [4, 1],
}


def split_of(base, novel, names=()):
    return ClassSplit(np.array(base, dtype=np.int64), np.array(novel, dtype=np.int64), tuple(names))


def labels(*values):
    return np.array(values, dtype=np.int32)


# --- class split file ---


@pytest.mark.parametrize(
    ("mode", "base", "novel"), [("val", [0, 4], [2]), ("test", [1, 5], [0, 3])]
)
def test_classes_of_a_mode_are_zero_based_and_increasing(mode, base, novel):
    split = read_class_split(CONTENT, mode)
    assert split.base_classes.tolist() == base
    assert split.novel_classes.tolist() == novel
    assert split.class_names == ("ant", "bee", "cat", "dog", "eel", "fox")


def test_a_split_without_names_or_base_classes_is_fine():
    split = read_class_split({"base_classes_2": [], "novel_classes_2": [7]}, "test")
    assert (split.base_classes.tolist(), split.novel_classes.tolist()) == ([], [6])
    assert split.class_names == ()


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        ({"base_classes_2": [6, 7]}, "base_classes_2 holds 7", "integers from 1 to 6"),
        ({"novel_classes_2": [0]}, "novel_classes_2 holds 0", "integers from 1 to 6"),
        ({"novel_classes_2": [-2]}, "novel_classes_2 holds -2", "1-based labels"),
        ({"novel_classes_2": [1.0]}, "novel_classes_2 holds 1.0", "integers from 1"),
        ({"novel_classes_2": ["1"]}, "novel_classes_2 holds '1'", "integers from 1"),
        ({"novel_classes_2": [2**32 + 3]}, "novel_classes_2 holds 4294967299", "from 1 to 6"),
        ({"novel_classes_2": [10**30]}, f"novel_classes_2 holds {10**30}", "integers from 1 to 6"),
        ({"base_classes_2": [float("nan")]}, "base_classes_2 holds nan", "integers from 1 to 6"),
        ({"base_classes_2": [[1]]}, "base_classes_2 holds [1]", "integers from 1 to 6"),
        ({"label_names": [["a"]] * 6}, "label_names holds ['a']", "names"),
        ({"novel_classes_2": [True]}, "novel_classes_2 holds True", "integers from 1"),
        ({"novel_classes_2": [4, 2]}, "class 2 is both base and novel in mode test", "disjoint"),
        ({"novel_classes_2": []}, "novel_classes_2 is empty", ""),
    ],
)
def test_a_wrong_split_is_named(change, found, expected):
    with pytest.raises(ValueError) as error:
        read_class_split(CONTENT | change, "test")
    assert "class_split" in str(error.value)
    assert found in str(error.value)
    assert expected in str(error.value)


@pytest.mark.parametrize("key", ["base_classes_2", "novel_classes_2", "label_names"])
@pytest.mark.parametrize("value", [5, None])
def test_what_is_no_list_is_named(key, value):
    with pytest.raises(ValueError, match=rf"class_split: {key}"):
        read_class_split(CONTENT | {key: value}, "test")


def test_without_names_labels_go_as_far_as_they_are_stored():
    split = read_class_split({"base_classes_2": [1], "novel_classes_2": [4000, 2**31]}, "test")
    assert split.novel_classes.tolist() == [3999, 2**31 - 1]
    for number in (0, 2**31 + 1, 2**32 + 3, 10**30):
        with pytest.raises(InputError, match=rf"holds {number}; .* from 1 to 2147483648$"):
            read_class_split({"base_classes_2": [1], "novel_classes_2": [number]}, "test")


@pytest.mark.parametrize("missing", ["base_classes_1", "novel_classes_1"])
def test_a_missing_list_is_named_with_what_was_found(missing):
    content = {key: value for key, value in CONTENT.items() if key != missing}
    with pytest.raises(ValueError, match=f"{missing} is missing; found label_names, .*classes_2"):
        read_class_split(content, "val")


def test_only_the_lists_of_the_mode_matter():
    content = {key: value for key, value in CONTENT.items() if not key.endswith("_1")}
    assert read_class_split(content, "test").novel_classes.tolist() == [0, 3]


# --- choice of images ---


def restated_selection(base, novel, train_labels, n_labeled, seed):
    """The published choice, written down a second time: positions and original labels."""
    random_state = np.random.RandomState(seed)
    of_base, of_novel, left = [], [], []
    for label in range(max([*base, *novel]) + 1):
        positions = [row for row, value in enumerate(train_labels) if value == label]
        if label in base:
            of_base += [(row, label) for row in positions]
        elif label in novel:
            shuffled = np.array(positions)
            random_state.shuffle(shuffled)
            of_novel += [(row, label) for row in shuffled[:n_labeled].tolist()]
            left += shuffled[n_labeled:].tolist()
    return of_base + of_novel, left


@st.composite
def experiments(draw):
    n_labels = draw(st.integers(1, 8))
    kinds = draw(st.lists(st.sampled_from("bnu"), min_size=n_labels, max_size=n_labels))
    assume("n" in kinds)
    n_labeled = draw(st.integers(1, 4))
    counts = [n_labeled + draw(st.integers(0, 6)) for _ in kinds]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    train_labels = rng.permutation(np.repeat(np.arange(n_labels), counts)).astype(np.int32)
    test_labels = np.append(rng.integers(0, n_labels, 20), kinds.index("n")).astype(np.int32)
    base, novel = ([i for i, kind in enumerate(kinds) if kind == wanted] for wanted in "bn")
    return base, novel, train_labels, test_labels, n_labeled


@settings(deadline=None, max_examples=60)
@given(experiments(), st.integers(0, 2**31 - 1))
def test_the_choice_is_the_published_one(experiment, seed):
    base, novel, train_labels, test_labels, n_labeled = experiment
    chosen = select_images(split_of(base, novel), train_labels, test_labels, n_labeled, seed)

    expected, left = restated_selection(base, novel, train_labels, n_labeled, seed)
    assert chosen.labeled_positions.tolist() == [row for row, _ in expected]
    assert chosen.classes[chosen.labeled_classes].tolist() == [label for _, label in expected]
    assert chosen.unlabeled_positions.tolist() == left
    assert chosen.classes.tolist() == sorted(base + novel)
    assert chosen.classes[chosen.is_novel].tolist() == novel
    wanted = [row for row, label in enumerate(test_labels) if label in base + novel]
    assert chosen.test_positions.tolist() == wanted
    assert chosen.classes[chosen.test_classes].tolist() == test_labels[wanted].tolist()
    assert chosen.n_classes == len(base) + len(novel)
    assert chosen.labeled_classes.dtype == chosen.test_classes.dtype == np.int32


def test_a_choice_worked_out_by_hand():
    # RandomState(1).shuffle brings five things into the order 2, 1, 4, 0, 3.
    # Class 1 is base and draws nothing. Class 2 is novel, at rows 1, 3, 4, 6, 9. Class 5 is unused.
    train_labels = labels(1, 2, 5, 2, 2, 1, 2, 5, 1, 2)
    chosen = select_images(split_of([1], [2]), train_labels, labels(2, 5, 1), 2, seed=1)
    assert chosen.labeled_positions.tolist() == [0, 5, 8, 4, 3]
    assert chosen.labeled_classes.tolist() == [0, 0, 0, 1, 1]
    assert chosen.unlabeled_positions.tolist() == [9, 1, 6]
    assert chosen.test_positions.tolist() == [0, 2]
    assert chosen.test_classes.tolist() == [1, 0]


def test_novel_classes_draw_from_one_stream_and_follow_all_base_classes():
    # RandomState(1) shuffles a first five into 2, 1, 4, 0, 3 and a second five into 0, 2, 4, 3, 1.
    train_labels = labels(*[0] * 5, *[1] * 2, *[2] * 5)
    chosen = select_images(split_of([1], [0, 2]), train_labels, labels(0), 2, seed=1)
    assert chosen.labeled_positions.tolist() == [5, 6, 2, 1, 7, 9]
    assert chosen.labeled_classes.tolist() == [1, 1, 0, 0, 2, 2]


@settings(deadline=None, max_examples=40)
@given(experiments(), st.integers(1, 12), st.integers(0, 2**31 - 1))
def test_classes_with_fewer_images_give_all_they_have(experiment, n_labeled, seed):
    base, novel, train_labels, test_labels, _ = experiment
    assume(n_labeled <= max((train_labels == label).sum() for label in novel))
    chosen = select_images(split_of(base, novel), train_labels, test_labels, n_labeled, seed)
    expected, left = restated_selection(base, novel, train_labels, n_labeled, seed)
    assert chosen.labeled_positions.tolist() == [row for row, _ in expected]
    assert chosen.unlabeled_positions.tolist() == left
    counts = np.bincount(chosen.labeled_classes)[chosen.is_novel]
    of_class = np.array([(train_labels == label).sum() for label in novel])
    assert counts.tolist() == np.minimum(of_class, n_labeled).tolist()


def test_more_labels_than_the_largest_novel_class_has_are_refused():
    split = split_of([0], [1, 2], ["ant", "bee", "cat"])
    train_labels = labels(0, 0, 0, 0, 0, 1, 2, 2, 2)
    for n_labeled in (1, 2, 3, None):
        select_images(split, train_labels, labels(1), n_labeled, 1)
    message = r"got 4, but class 2 \(cat\) has only 3 training images, and no .* more; .*all"
    with pytest.raises(ValueError, match=message):
        select_images(split, train_labels, labels(1), 4, 1)


@settings(deadline=None, max_examples=40)
@given(experiments(), st.integers(0, 2**31 - 1))
def test_without_a_number_all_images_of_all_classes_are_labelled(experiment, seed):
    base, novel, train_labels, test_labels, _ = experiment
    chosen = select_images(split_of(base, novel), train_labels, test_labels, None, seed)
    expected = [row for label in [*base, *novel] for row in np.flatnonzero(train_labels == label)]
    assert chosen.labeled_positions.tolist() == expected
    assert chosen.classes[chosen.labeled_classes].tolist() == train_labels[expected].tolist()
    assert len(chosen.unlabeled_positions) == 0


def test_class_names_follow_the_classes():
    names = ["ant", "bee", "cat", "dog"]
    chosen = select_images(split_of([3], [1], names), labels(1, 3), labels(1), 1, seed=0)
    assert chosen.class_names == ("bee", "dog")
    unnamed = select_images(split_of([3], [1]), labels(1, 3), labels(1), 1, seed=0)
    assert unnamed.class_names == ("1", "3")


@pytest.mark.parametrize(
    ("train", "test", "n_labeled", "message"),
    [
        ((0, 1, 4), (0,), 1, "train_features: label 4 in row 2 is out of range; expected 0..3"),
        ((0, 1), (1, -1), 1, "test_features: label -1 in row 1 is out of range; expected 0..3"),
        ((1, 1), (1,), 1, "train_features: no images of class 0 (ant)"),
        ((0, 0), (1,), 1, "train_features: no images of class 1 (bee)"),
        ((0, 1, 1), (1,), 3, "n_labeled: got 3, but class 1 (bee) has only 2 training images"),
        ((0, 1), (2, 3), 1, "test_features: no images of the classes"),
    ],
)
def test_what_cannot_be_chosen_from_is_named(train, test, n_labeled, message):
    split = split_of([0], [1], ["ant", "bee", "cat", "dog"])
    with pytest.raises(ValueError) as error:
        select_images(split, labels(*train), labels(*test), n_labeled, seed=1)
    assert message in str(error.value)


def test_a_selection_cannot_be_changed():
    chosen = select_images(split_of([0], [1]), labels(0, 1), labels(1), 1, seed=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        chosen.classes = np.zeros(2)
