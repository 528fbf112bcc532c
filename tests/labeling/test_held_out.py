import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lowshot_kedro.diffusion import folds
from lowshot_kedro.labeling.held_out import deal_labels

labels = st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 6)), min_size=1, max_size=60)


@settings(deadline=None, max_examples=150)
@given(labels, st.integers(0, 5))
def test_groups_stay_together_and_no_class_is_lost(pairs, seed):
    classes, groups = np.array(pairs, np.int32).T
    dealt = deal_labels(classes, groups, seed)
    together = np.concatenate([*dealt, np.empty(0, int)])
    assert len(np.unique(together)) == len(together)
    fold_of = np.full(len(classes), -1)
    for number, fold in enumerate(dealt):
        assert len(fold)
        fold_of[fold] = number
        kept = np.delete(classes, fold)
        assert np.isin(classes[fold], kept).all()
    for group in range(7):
        assert len(np.setdiff1d(fold_of[groups == group], [-1])) <= 1
    for label in range(5):
        members = classes == label
        n_groups = len(np.unique(groups[members & (groups >= 0)])) + (groups[members] < 0).sum()
        if n_groups < 2:
            assert (fold_of[members] < 0).all()


def test_without_groups_they_are_those_that_the_diffusion_deals():
    classes = np.random.default_rng(0).integers(0, 4, 50).astype(np.int32)
    expected = list(folds(classes, 3))
    for groups in (None, np.full(50, -1, np.int32)):
        for fold, same in zip(deal_labels(classes, groups, 3), expected, strict=True):
            np.testing.assert_array_equal(fold, same)


def test_groups_of_a_class_are_spread_evenly():
    # Ten patients with eight images each of one class, and as many of another.
    groups = np.repeat(np.arange(20), 8).astype(np.int32)
    classes = (groups // 10).astype(np.int32)
    dealt = deal_labels(classes, groups, 0)
    assert [np.bincount(classes[fold]).tolist() for fold in dealt] == [[16, 16]] * 5


def test_a_class_with_few_labels_is_held_out_beside_one_with_many():
    classes = np.array([0] * 100 + [1] * 2 + [2], np.int32)
    dealt = deal_labels(classes, np.arange(103, dtype=np.int32) // 2, 0)
    held_out = np.concatenate(dealt)
    # Both labels of class 1 are in one group, and there is but one of class 2.
    np.testing.assert_array_equal(np.sort(held_out), np.arange(100))
    held_out = np.concatenate(deal_labels(classes, np.arange(103, dtype=np.int32), 0))
    np.testing.assert_array_equal(np.sort(held_out), np.arange(102))


def test_another_seed_deals_otherwise():
    classes, groups = np.zeros(40, np.int32), np.arange(40, dtype=np.int32) // 2
    first, same, other = (deal_labels(classes, groups, seed)[0].tolist() for seed in (0, 0, 1))
    assert first == same != other
