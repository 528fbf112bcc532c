import pickle
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowshot_kedro.methods import METHODS
from lowshot_kedro.sweep import Run, UnlabeledImages

BACKGROUND = UnlabeledImages("background", 1_000_000)

NAMED = [
    (
        Run("diffusion", "test", 2, 1, BACKGROUND, {"k": 30}),
        "diffusion/test/nl2/nbg1000000/k30/seed1",
    ),
    (
        Run("diffusion", "val", 20, 0, UnlabeledImages("train", 0), {"k": 5}),
        "diffusion/val/nl20/train/k5/seed0",
    ),
    (
        Run(
            "diffusion", "val", 1, 3, UnlabeledImages("both", None),
            {"k": 10, "edge_weight": "gaussian"},
        ),
        "diffusion/val/nl1/nbgall_train/k10/gaussian/seed3",
    ),
    (
        Run("label_spreading", "test", 5, 2, UnlabeledImages("both", 0), {"alpha": 0.2}),
        "label_spreading/test/nl5/nbg0_train/alpha0.2/seed2",
    ),
    (
        Run(
            "logistic_regression", "val", 1, 3,
            settings={"lr": 0.001, "weight_decay": 0, "batch_size": 128},
        ),
        "logistic_regression/val/nl1/lr0.001/wd0/bs128/seed3",
    ),
    (Run("nearest_class_mean", "test", 10, 5), "nearest_class_mean/test/nl10/seed5"),
    (Run("nearest_class_mean", "test", None, 5), "nearest_class_mean/test/nlall/seed5"),
]  # fmt: skip


@pytest.mark.parametrize(("run", "key"), NAMED, ids=[key for _, key in NAMED])
def test_a_run_has_a_name_that_people_can_read(run, key):
    assert run.key == key


# Few values, so that two runs are often the same in all but one thing; and any others.
sizes = st.one_of(st.integers(1, 3), st.integers(1, 10**8))
rates = st.one_of(
    st.sampled_from([0, 0.0, 1, 1.0, 10, 0.1, 0.01, 1e-5, 1e-10]),
    st.floats(0, allow_nan=False, allow_infinity=False),
)
unlabeled_images = st.one_of(
    st.just(UnlabeledImages("train", 0)),
    st.builds(
        UnlabeledImages,
        st.sampled_from(["background", "both"]),
        st.one_of(st.none(), st.integers(0, 2), st.integers(0, 10**9)),
    ),
)


def settings_of(method):
    if method == "logistic_regression":
        return st.fixed_dictionaries({"lr": rates, "weight_decay": rates, "batch_size": sizes})
    if method == "label_spreading":
        return st.fixed_dictionaries({"alpha": rates})
    if method in ("diffusion", "combined"):
        weights = st.sampled_from(["gaussian", "locally_scaled"])
        return st.fixed_dictionaries({"k": sizes}, optional={"edge_weight": weights})
    return st.just({})


@st.composite
def runs(draw):
    method = draw(st.sampled_from(list(METHODS)))
    return Run(
        method,
        draw(st.sampled_from(["val", "test"])),
        draw(sizes),
        draw(st.integers(0, 3)),
        draw(unlabeled_images) if method in ("label_spreading", "diffusion", "combined") else None,
        draw(settings_of(method)),
    )


@given(runs(), runs())
def test_different_runs_have_different_names(one, other):
    assert (one.key == other.key) == (one == other)


@given(runs(), st.data())
def test_a_run_that_differs_in_one_thing_has_another_name(run, data):
    name = data.draw(st.sampled_from(["mode", "n_labeled", "seed", "unlabeled", "settings"]))
    values = {
        "mode": st.sampled_from(["val", "test"]),
        "n_labeled": sizes,
        "seed": st.integers(0, 3),
        "unlabeled": st.just(None) if run.unlabeled is None else unlabeled_images,
        "settings": settings_of(run.method),
    }
    other = Run(**{**vars(run), name: data.draw(values[name])})
    assert (run.key == other.key) == (run == other)


@given(runs())
def test_names_belong_to_one_method_and_mode_and_are_paths(run):
    for mode in ("val", "test"):
        assert fnmatchcase(run.key, f"*/{mode}/*") == (run.mode == mode)
    assert [fnmatchcase(run.key, f"{method}/*") for method in METHODS].count(True) == 1
    parts = run.key.split("/")
    assert all(part and not part.startswith(".") and part.isascii() for part in parts)
    assert not set(run.key) & set(' \\:*?"<>|')


@given(runs())
def test_a_run_can_be_sent_to_another_process(run):
    copy = pickle.loads(pickle.dumps(run))
    assert (copy, copy.key) == (run, run.key)
