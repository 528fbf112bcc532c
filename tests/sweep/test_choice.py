from fractions import Fraction
from itertools import product

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lowshot_kedro.sweep import Run, UnlabeledImages
from lowshot_kedro.sweep.choice import Hyperparameters, accuracies_of, choose, entries_of, entry_at

BACKGROUND, TRAIN = UnlabeledImages("background", 70), UnlabeledImages("train", 0)


def regression(seed, lr=0.1, n_labeled=1, mode="val"):
    settings = {"lr": lr, "weight_decay": 0, "batch_size": 16}
    return Run("logistic_regression", mode, n_labeled, seed, settings=settings)


def diffusion(seed, k=5, unlabeled=BACKGROUND, n_labeled=1, **settings):
    return Run("diffusion", "val", n_labeled, seed, unlabeled, {"k": k, **settings})


def metrics_of(accuracies, axis="iteration", places=None, name="top1"):
    places = range(len(accuracies)) if places is None else places
    entries = [
        {axis: place, name: accuracy} for place, accuracy in zip(places, accuracies, strict=True)
    ]
    return {f"per_{axis}": entries, "final": entries[-1]}


def functions(content):
    return {run.key: lambda metrics=metrics: metrics for run, metrics in content}


# --- the best ---


@st.composite
def measured_grids(draw):
    """Settings, seeds, places, and how many of n_test images were right."""
    n_test = draw(st.integers(1, 30))
    shape = [draw(st.integers(1, most)) for most in (4, 4, 4)]
    hits = {
        place: draw(st.integers(max(0, n_test - 4), n_test))
        for place in product(*(range(size) for size in shape))
    }
    return n_test, shape, hits


@given(measured_grids())
def test_the_choice_is_that_of_trying_everything(grid):
    n_test, (n_rates, n_seeds, n_places), hits = grid
    rates, iterations = [0.1, 1, 0.001, 0.01][:n_rates], [25, 50, 75, 80][:n_places]
    runs, content = [], []
    for rate, seed in product(range(n_rates), range(n_seeds)):
        runs.append(regression(seed, rates[rate]))
        accuracies = [hits[rate, seed, place] / n_test for place in range(n_places)]
        content.append((runs[-1], metrics_of(accuracies, places=iterations)))

    best, best_mean = None, Fraction(-1)
    for rate, place in product(range(n_rates), range(n_places)):
        mean = Fraction(sum(hits[rate, seed, place] for seed in range(n_seeds)), n_test * n_seeds)
        if mean > best_mean:
            best, best_mean = (rate, place), mean
    assert choose(runs, functions(content), "top1") == {
        "logistic_regression": {
            "nl1": {
                "lr": rates[best[0]], "weight_decay": 0, "batch_size": 16,
                "max_iterations": iterations[best[1]], "top1": round(float(best_mean), 6),
            }
        }
    }  # fmt: skip


def test_equal_means_are_equal_whatever_the_seeds_add_up_to():
    # 0.3 + 0.2 + 0.1 is less than 0.1 + 0.2 + 0.3 where rounding decides.
    assert sum([0.3, 0.2, 0.1]) < sum([0.1, 0.2, 0.3])
    content = [
        (regression(seed, lr), metrics_of([accuracy]))
        for lr, accuracies in ((0.1, [0.3, 0.2, 0.1]), (0.01, [0.1, 0.2, 0.3]))
        for seed, accuracy in enumerate(accuracies)
    ]
    chosen = choose([run for run, _ in content], functions(content), "top1")
    assert chosen["logistic_regression"]["nl1"]["lr"] == 0.1


def test_of_equals_the_first_of_the_grid_and_its_earliest_entry():
    content = [
        (diffusion(1, 10), metrics_of([0.1, 0.5, 0.5])),
        (diffusion(1, 5), metrics_of([0.5, 0.5, 0.2])),
    ]
    runs = [run for run, _ in content]
    place = ("diffusion", "nl1", "nbg70")
    best = {"k": 10, "edge_weight": "constant", "n_iterations": 1, "top1": 0.5}
    assert at(choose(runs, functions(content), "top1"), place) == best
    best = {"k": 5, "edge_weight": "constant", "n_iterations": 0, "top1": 0.5}
    assert at(choose(runs[::-1], functions(content), "top1"), place) == best


def at(content, names):
    for name in names:
        content = content[name]
    return content


def test_every_method_number_and_kind_of_images_has_a_choice_of_its_own():
    content = [
        (Run("nearest_neighbors", "val", 1, 1), metrics_of([0.2, 0.4, 0.3], "k", [1, 3, 10])),
        (Run("nearest_neighbors", "val", 5, 1), metrics_of([0.6, 0.4, 0.3], "k", [1, 3, 10])),
        (Run("label_spreading", "val", 1, 1, TRAIN, {"alpha": 0.2}), {"final": {"top1": 0.3}}),
        (Run("label_spreading", "val", 1, 1, TRAIN, {"alpha": 0.8}), {"final": {"top1": 0.4}}),
        (diffusion(1), metrics_of([0.1, 0.3])),
        (diffusion(1, edge_weight="gaussian"), metrics_of([0.1, 0.2])),
        (diffusion(1, unlabeled=TRAIN), metrics_of([0.3, 0.1])),
        (diffusion(1, unlabeled=TRAIN, edge_weight="gaussian"), metrics_of([0.1, 0.4])),
        (
            Run("combined", "val", 1, 1, BACKGROUND),
            metrics_of([0.1, 0.5, 0.2], "weight", [0, 0.25, 1]),
        ),
    ]
    assert choose([run for run, _ in content], functions(content), "top1") == {
        "nearest_neighbors": {"nl1": {"k": 3, "top1": 0.4}, "nl5": {"k": 1, "top1": 0.6}},
        "label_spreading": {"nl1": {"train": {"alpha": 0.8, "top1": 0.4}}},
        "diffusion": {
            "nl1": {
                "nbg70": {"k": 5, "edge_weight": "constant", "n_iterations": 1, "top1": 0.3},
                "train": {"k": 5, "edge_weight": "gaussian", "n_iterations": 1, "top1": 0.4},
            }
        },
        "combined": {"nl1": {"nbg70": {"combination_weight": 0.25, "top1": 0.5}}},
    }


def test_another_accuracy_can_decide():
    entries = [
        {"iteration": 1, "top1": 0.9, "top5_novel": 0.1},
        {"iteration": 2, "top1": 0.1, "top5_novel": 0.123456789},
    ]
    content = [(diffusion(1), {"per_iteration": entries, "final": entries[-1]})]
    chosen = choose([diffusion(1)], functions(content), "top5_novel")
    assert chosen["diffusion"]["nl1"]["nbg70"] == {
        "k": 5, "edge_weight": "constant", "n_iterations": 2, "top5_novel": 0.123457,
    }  # fmt: skip


def test_nothing_is_chosen_where_nothing_was_searched():
    assert choose([], {}, "top1") == {}


def test_a_run_that_is_missing_is_named():
    content = [(diffusion(1), metrics_of([0.1]))]
    with pytest.raises(
        ValueError,
        match=r"^diffusion/val/nl1/nbg70/k5/seed2: .* pipeline sweep_validation makes it$",
    ):
        choose([diffusion(1), diffusion(2)], functions(content), "top1")


@pytest.mark.parametrize("entry", [{"top1": None}, {"top5": 0.1}])
def test_an_accuracy_that_nobody_has_is_named(entry):
    entries = [{"iteration": 0, **entry}]
    content = [(diffusion(1), {"per_iteration": entries, "final": entries[-1]})]
    with pytest.raises(ValueError, match=r"^sweep.metric: got 'top1', but diffusion/val/.* none"):
        choose([diffusion(1)], functions(content), "top1")


# --- the file of the hyper-parameters ---


def test_a_choice_survives_its_file():
    content = [
        (regression(1, 1e-05), metrics_of([0.5], places=[80])),
        (diffusion(1, edge_weight="gaussian"), metrics_of([0.25, 0.5])),
    ]
    runs = [run for run, _ in content]
    written = yaml.safe_dump(choose(runs, functions(content), "top1"), sort_keys=False)
    chosen = Hyperparameters(yaml.safe_load(written))
    assert chosen.of("logistic_regression", 1) == {
        "lr": 1e-05, "weight_decay": 0, "batch_size": 16, "max_iterations": 80, "top1": 0.5,
    }  # fmt: skip
    assert chosen.of("diffusion", 1, BACKGROUND)["edge_weight"] == "gaussian"


@pytest.fixture
def content():
    return yaml.safe_load(
        """
        nearest_neighbors: {nl2: {k: 3}}
        label_spreading: {nl2: {nbg70: {alpha: 0.2}}}
        logistic_regression:
          nl2: {lr: 0.1, weight_decay: 0, batch_size: 16, max_iterations: 80}
        diffusion:
          nl2:
            nbg70: {k: 5, edge_weight: constant, n_iterations: 0}
        combined: {nl2: {nbg70: {combination_weight: 0}}}
        """
    )


METHODS = [
    ("nearest_neighbors", None),
    ("label_spreading", BACKGROUND),
    ("logistic_regression", None),
    ("diffusion", BACKGROUND),
    ("combined", BACKGROUND),
]


@pytest.mark.parametrize(("method", "unlabeled"), METHODS)
def test_values_are_found(content, method, unlabeled):
    place = (method, "nl2") if unlabeled is None else (method, "nl2", "nbg70")
    assert Hyperparameters(content).of(method, 2, unlabeled) == at(content, place)


@pytest.mark.parametrize(("method", "unlabeled"), METHODS)
def test_what_a_person_adds_does_no_harm(content, method, unlabeled):
    place = (method, "nl2") if unlabeled is None else (method, "nl2", "nbg70")
    expected = dict(at(content, place))
    content["notes"] = "tried by hand"
    at(content, place)["why"] = ["it is", "better"]
    found = Hyperparameters(content).of(method, 2, unlabeled)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("place", "missing"),
    [
        (("diffusion",), "diffusion"),
        (("diffusion", "nl2"), "diffusion.nl2"),
        (("diffusion", "nl2", "nbg70"), "diffusion.nl2.nbg70"),
    ],
)
@pytest.mark.parametrize("value", [..., None, 3, "text", []])
def test_a_section_that_is_missing_is_named(content, place, missing, value):
    section = at(content, place[:-1])
    if value is ...:
        del section[place[-1]]
        expected = f"^hyperparameters: {missing} is missing; "
    else:
        section[place[-1]] = value
        below = ("diffusion", "nl2", "nbg70")[len(place)] if len(place) < 3 else None
        is_missing = f"{missing}.{below} is missing; "
        expected = f"^hyperparameters: {is_missing if below else f'{missing} is .*names and va'}"
    with pytest.raises(ValueError, match=expected):
        Hyperparameters(content).of("diffusion", 2, BACKGROUND)


@pytest.mark.parametrize("content", [{}, None, [], "text"])
def test_a_file_without_sections_is_refused(content):
    with pytest.raises(ValueError, match=r"^hyperparameters: diffusion is missing"):
        Hyperparameters(content).of("diffusion", 2, BACKGROUND)


NONE_OF_THESE = [None, True, "3", [3], {}, float("nan"), -1, float("inf"), 1e300, 10**30]
NUMBERS = [
    ("nearest_neighbors", "k", "an integer from 1 to 2147483647", [0, 2.0, 2.5]),
    ("label_spreading", "alpha", "a number above 0 and below 1", [0, 1]),
    ("logistic_regression", "lr", "a number from 0 to 1e+18", []),
    ("logistic_regression", "weight_decay", "a number from 0 to 1e+18", []),
    ("logistic_regression", "batch_size", "an integer from 1 to 2147483647", [0, 16.0]),
    ("logistic_regression", "max_iterations", "an integer from 1 to 2147483647", [0, 80.0]),
    ("diffusion", "k", "an integer from 1 to 2147483647", [0, 5.0]),
    ("diffusion", "n_iterations", "an integer from 0 to 2147483647", [3.0]),
    ("combined", "combination_weight", "a number from 0 to 1e+18", []),
]
REFUSED = [
    *(
        (method, name, value, expected)
        for method, name, expected, more in NUMBERS
        for value in [*NONE_OF_THESE, *more]
    ),
    *(("diffusion", "edge_weight", value, "a name") for value in (None, 3, ["constant"], True)),
]


@pytest.mark.parametrize(("method", "name", "value", "expected"), REFUSED)
def test_a_value_that_cannot_be_used_is_refused_by_its_name(content, method, name, value, expected):
    unlabeled = dict(METHODS)[method]
    place = (method, "nl2") if unlabeled is None else (method, "nl2", "nbg70")
    at(content, place)[name] = value
    with pytest.raises(ValueError) as error:
        Hyperparameters(content).of(method, 2, unlabeled)
    where = ".".join((*place, name))
    assert str(error.value) == f"hyperparameters: {where} is {value!r}, expected {expected}"
    del at(content, place)[name]
    with pytest.raises(ValueError, match=f"^hyperparameters: {where} is None, expected "):
        Hyperparameters(content).of(method, 2, unlabeled)


# --- entries of runs ---


def test_the_entry_chosen_is_that_of_the_place_chosen(content):
    chosen = Hyperparameters(content)
    regressions = metrics_of([0.1, 0.2, 0.3], places=[40, 80, 120])
    assert entry_at(regression(1, n_labeled=2), regressions, chosen)["top1"] == 0.2
    run = diffusion(1, n_labeled=2)
    assert entry_at(run, metrics_of([0.4, 0.5]), chosen)["top1"] == 0.4
    neighbors = metrics_of([0.1, 0.2], "k", [1, 3])
    assert entry_at(Run("nearest_neighbors", "test", 2, 1), neighbors, chosen)["top1"] == 0.2
    # 0 and 0.0 are the same weight.
    combined = metrics_of([0.6, 0.7], "weight", [0.0, 1.0])
    assert entry_at(Run("combined", "test", 2, 1, BACKGROUND), combined, chosen)["top1"] == 0.6


@pytest.mark.parametrize(
    "run",
    [
        Run("nearest_class_mean", "test", 2, 1),
        Run("label_spreading", "test", 2, 1, BACKGROUND, {"alpha": 0.2}),
    ],
)
def test_a_method_without_places_has_one_entry(run):
    metrics = {"final": {"top1": 0.25}}
    assert entries_of(run, metrics) == [{"top1": 0.25}]
    assert entry_at(run, metrics, Hyperparameters({})) == {"top1": 0.25}


def test_a_place_that_was_not_run_is_named_with_those_that_were(content):
    content["logistic_regression"]["nl2"]["max_iterations"] = 90
    run = regression(1, n_labeled=2)
    with pytest.raises(ValueError) as error:
        entry_at(run, metrics_of([0.1, 0.2], places=[40, 80]), Hyperparameters(content))
    assert str(error.value) == (
        f"hyperparameters: logistic_regression max_iterations = 90 was not run; {run.key} has "
        "iteration 40 to 80"
    )


def test_accuracies_come_with_the_settings_that_are_chosen():
    run = diffusion(1, 10)
    metrics = functions([(run, metrics_of([0.25, 0.5]))])
    assert accuracies_of(run, metrics[run.key](), "top1") == [
        ({"k": 10, "edge_weight": "constant", "n_iterations": 0}, 0.25),
        ({"k": 10, "edge_weight": "constant", "n_iterations": 1}, 0.5),
    ]
    run = Run("combined", "val", 2, 1, BACKGROUND)
    metrics = functions([(run, metrics_of([0.25, 0.5], "weight", [0, 1]))])
    assert accuracies_of(run, metrics[run.key](), "top1") == [
        ({"combination_weight": 0}, 0.25), ({"combination_weight": 1}, 0.5),
    ]  # fmt: skip
