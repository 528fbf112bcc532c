import json
from itertools import product

import pytest

from lowshot_kedro.methods import METHODS
from lowshot_kedro.sweep import Run, UnlabeledImages, plan
from lowshot_kedro.sweep.choice import Hyperparameters
from lowshot_kedro.sweep.plan import ImageCounts

from .making import make_data, make_settings, make_sweep

BACKGROUND, ALL = UnlabeledImages("background", 70), UnlabeledImages("background", None)
TRAIN, BOTH = UnlabeledImages("train", 0), UnlabeledImages("both", 70)


def keys(runs):
    return [run.key for run in runs]


# --- the validation grid ---


def test_the_grid_is_the_product_of_the_lists():
    sweep = make_sweep(
        n_labeled=[1, 5],
        validation_seeds=[3, 4],
        unlabeled=["background", "train", "both"],
        n_background=[0, None],
        **{
            "logistic_regression.lr": [0.1, 0.01, 0.001],
            "logistic_regression.weight_decay": [0, 0.5],
            "logistic_regression.batch_size": [16, 32],
            "diffusion.k": [5, 10],
            "diffusion.edge_weight": ["constant", "gaussian"],
            "label_spreading.alpha": [0.2, 0.8],
        },
    )
    found = keys(plan.validation_runs(sweep, make_data()))
    images = ["nbg0", "nbgall", "train", "nbg0_train", "nbgall_train"]
    numbers, seeds = ["nl1", "nl5"], ["seed3", "seed4"]
    grids = {
        "nearest_neighbors": [numbers, seeds],
        "label_spreading": [numbers, images, ["alpha0.2", "alpha0.8"], seeds],
        "logistic_regression": [
            numbers, ["lr0.1", "lr0.01", "lr0.001"], ["wd0", "wd0.5"], ["bs16", "bs32"], seeds,
        ],
        "diffusion": [numbers, images, ["k5", "k10"], ["", "gaussian/"], seeds],
    }  # fmt: skip
    expected = set()
    for method, lists in grids.items():
        for parts in product(*lists):
            expected.add("/".join([method, "val", *parts]).replace("//", "/").replace("//", "/"))
    assert set(found) == expected
    assert len(found) == len(expected) == 4 + 2 * 5 * 2 * 2 + 2 * 12 * 2 + 2 * 5 * 4 * 2


@pytest.mark.parametrize(
    ("methods", "validated"),
    [
        (["nearest_class_mean"], set()),
        (["diffusion"], {"diffusion"}),
        (
            ["nearest_neighbors", "logistic_regression"],
            {"nearest_neighbors", "logistic_regression"},
        ),
        (
            ["logistic_regression", "diffusion", "combined"],
            {"logistic_regression", "diffusion"},
        ),
        (list(METHODS), set(METHODS) - {"nearest_class_mean", "combined"}),
    ],
)
def test_only_methods_that_are_asked_for_and_have_something_to_choose_are_validated(
    methods, validated
):
    runs = plan.validation_runs(make_sweep(methods=methods), make_data())
    assert {run.method for run in runs} == validated
    assert {run.mode for run in runs} <= {"val"}


@pytest.mark.parametrize("mode", ["val", "test"])
@pytest.mark.parametrize(
    ("unlabeled", "n_unlabeled"), [(BACKGROUND, 70), (TRAIN, 50), (BOTH, 120), (ALL, 200)]
)
@pytest.mark.parametrize("surplus", [0, 1])
def test_label_spreading_is_left_out_where_either_mode_has_too_many_images(
    mode, unlabeled, n_unlabeled, surplus
):
    # 100 labelled and 50 unlabelled training images, but more labelled ones in one mode.
    data = make_data({(mode, 2): ImageCounts(130, 50, 40, 10)})
    settings = {
        "methods": ["label_spreading", "diffusion"],
        "n_labeled": [2],
        "unlabeled": [unlabeled.kind],
        "n_background": [unlabeled.n_background],
        "label_spreading.max_images": 130 + n_unlabeled - surplus,
    }
    sweep = make_sweep(**settings)
    for runs in (
        plan.validation_runs(sweep, data),
        plan.chosen_runs(sweep, data, Hyperparameters(CHOSEN_ANYWHERE)),
    ):
        there = {run.method for run in runs}
        assert there == ({"diffusion"} if surplus else {"diffusion", "label_spreading"})


def test_label_spreading_is_left_out_for_the_sizes_that_do_not_fit_alone():
    data = make_data({("test", 5): ImageCounts(160, 50, 40, 10)})
    sweep = make_sweep(
        methods=["label_spreading"], n_labeled=[2, 5], n_background=[0, 70, None],
        validation_seeds=[1], **{"label_spreading.max_images": 200, "label_spreading.alpha": [0.2]},
    )  # fmt: skip
    assert keys(plan.validation_runs(sweep, data)) == [
        "label_spreading/val/nl2/nbg0/alpha0.2/seed1",
        "label_spreading/val/nl2/nbg70/alpha0.2/seed1",
        "label_spreading/val/nl5/nbg0/alpha0.2/seed1",
    ]


def possible(sweep, data, method):
    """The numbers of neighbours of the validation runs, by number of labels and background."""
    found = {}
    for run in plan.validation_runs(sweep, data):
        if run.method == method:
            name = run.key.split("/", 2)[2].rsplit("/", 2)[0]
            found.setdefault(name, []).append(run.settings["k"])
    return found


def test_no_more_neighbors_than_images_are_tried():
    # Four labels and sixty background images in mode val, one label more in mode test.
    few = {("val", 1): ImageCounts(4, 52, 8, 4), ("test", 1): ImageCounts(5, 52, 8, 4)}
    data = make_data(few, n_background={0: 0, 70: 2, None: 60})
    sweep = make_sweep(
        methods=["nearest_neighbors", "diffusion"], n_labeled=[1, 2], n_background=[0, 70, None],
        validation_seeds=[1], **{"diffusion.k": [4, 5, 6, 64, 65], "nearest_neighbors.k": [4, 5]},
    )  # fmt: skip
    assert possible(sweep, data, "diffusion") == {
        "nl1/nbg0": [4], "nl1/nbg70": [4, 5, 6], "nl1/nbgall": [4, 5, 6, 64],
        "nl2/nbg0": [4, 5, 6, 64, 65], "nl2/nbg70": [4, 5, 6, 64, 65],
        "nl2/nbgall": [4, 5, 6, 64, 65],
    }  # fmt: skip
    settings = make_settings(**{"sweep.nearest_neighbors.k": [4, 5], "sweep.diffusion.k": [4, 65]})
    for n_labeled, ks in ((1, [4]), (2, [4, 5])):
        run = Run("nearest_neighbors", "val", n_labeled, 1)
        assert plan.provenance(run, 0, settings, data)["k"] == ks
    for images, k in ((UnlabeledImages("background", 0), 4), (ALL, 4)):
        run = Run("diffusion", "val", 1, 1, images, {"k": 4})
        assert plan.provenance(run, 1, settings, data)["completed_k"] == k


@pytest.mark.parametrize("method", ["nearest_neighbors", "label_spreading", "diffusion"])
def test_a_method_is_left_out_where_no_number_of_neighbors_is_possible(method):
    few = {(mode, 1): ImageCounts(4, 52, 8, 4) for mode in ("val", "test")}
    data = make_data(few)
    sweep = make_sweep(
        methods=["logistic_regression", "combined", *{method, "diffusion"}], n_labeled=[1],
        n_background=[0, 70], unlabeled=["background"],
        **{"diffusion.k": [5], "nearest_neighbors.k": [5], "label_spreading.n_neighbors": 5},
    )  # fmt: skip
    expected = set() if method == "nearest_neighbors" else {"nbg70"}
    chosen = Hyperparameters(CHOSEN_ANYWHERE)
    for runs in (plan.validation_runs(sweep, data), plan.chosen_runs(sweep, data, chosen)):
        of_method = [run for run in runs if run.method == method]
        assert {run.unlabeled.name for run in of_method} == expected
    combined = plan.combined_runs(sweep, data, "test", chosen)
    assert {run.unlabeled.name for run in combined} == {"nbg70"}


# --- what was chosen ---

IMAGES = ["nbg0", "nbg70", "nbgall", "train", "nbg0_train", "nbg70_train", "nbgall_train"]
REGRESSION = {"lr": 0.1, "weight_decay": 0, "batch_size": 16, "max_iterations": 80}
DIFFUSION = {"k": 5, "edge_weight": "constant", "n_iterations": 3}
CHOSEN_ANYWHERE = {
    "nearest_neighbors": {f"nl{n}": {"k": 3} for n in (1, 2, 5)},
    "label_spreading": {f"nl{n}": {name: {"alpha": 0.8} for name in IMAGES} for n in (1, 2, 5)},
    "logistic_regression": {f"nl{n}": dict(REGRESSION) for n in (1, 2, 5)},
    "diffusion": {f"nl{n}": {name: dict(DIFFUSION) for name in IMAGES} for n in (1, 2, 5)},
    "combined": {
        f"nl{n}": {name: {"combination_weight": 0.5} for name in IMAGES} for n in (1, 2, 5)
    },
}


@pytest.fixture
def content():
    """One choice for all but two labelled images with 70 background images."""
    content = json.loads(json.dumps(CHOSEN_ANYWHERE))
    content["logistic_regression"]["nl2"] |= {"lr": 0.01, "batch_size": 32, "max_iterations": 40}
    content["diffusion"]["nl2"]["nbg70"] |= {
        "k": 10, "edge_weight": "gaussian", "n_iterations": 4,
    }  # fmt: skip
    return content


def test_test_runs_follow_what_was_chosen(content):
    sweep = make_sweep(n_labeled=[1, 2], seeds=[7, 8], n_background=[70])
    found = keys(plan.chosen_runs(sweep, make_data(), Hyperparameters(content)))
    expected = [
        "nearest_class_mean/test/nl1",
        "nearest_class_mean/test/nl2",
        "nearest_neighbors/test/nl1",
        "nearest_neighbors/test/nl2",
        "label_spreading/test/nl1/nbg70/alpha0.8",
        "label_spreading/test/nl2/nbg70/alpha0.8",
        "logistic_regression/test/nl1/lr0.1/wd0/bs16",
        "logistic_regression/test/nl2/lr0.01/wd0/bs32",
        "diffusion/test/nl1/nbg70/k5",
        "diffusion/test/nl2/nbg70/k10/gaussian",
    ]
    assert sorted(found) == sorted(f"{key}/seed{seed}" for key in expected for seed in (7, 8))


@pytest.mark.parametrize(("mode", "seeds"), [("val", [1, 2]), ("test", [1, 2, 3])])
def test_a_combination_for_all_unlabeled_images_and_seeds(content, mode, seeds):
    sweep = make_sweep(n_labeled=[2, 5], unlabeled=["background", "train"], n_background=[70])
    runs = plan.combined_runs(sweep, make_data(), mode, Hyperparameters(content))
    found = {(run.method, run.mode, run.n_labeled, run.unlabeled, run.seed) for run in runs}
    assert found == {
        ("combined", mode, n, images, seed)
        for n in (2, 5) for images in (BACKGROUND, TRAIN) for seed in seeds
    }  # fmt: skip
    assert len(set(keys(runs))) == len(runs) == len(found)


def test_no_combination_unless_it_is_asked_for(content):
    sweep = make_sweep(methods=["logistic_regression", "diffusion"])
    assert plan.combined_runs(sweep, make_data(), "test", Hyperparameters(content)) == []


def test_a_combination_consists_of_runs_on_the_same_images(content):
    chosen = Hyperparameters(content)
    sweep = make_sweep(n_labeled=[2], seeds=[4], n_background=[70])
    (combined,) = plan.combined_runs(sweep, make_data(), "test", chosen)
    parts = plan.parts_of(combined, chosen)
    assert {method: run.key for method, run in parts.items()} == {
        "logistic_regression": "logistic_regression/test/nl2/lr0.01/wd0/bs32/seed4",
        "diffusion": "diffusion/test/nl2/nbg70/k10/gaussian/seed4",
    }
    # They are among the runs that are tested anyway.
    tested = keys(plan.chosen_runs(sweep, make_data(), chosen))
    assert set(keys(parts.values())) <= set(tested)


def test_iterations_are_those_chosen(content):
    chosen = Hyperparameters(content)
    expected = {
        Run("logistic_regression", "test", 2, 1).key: 40,
        Run("logistic_regression", "test", 1, 1).key: 80,
        Run("diffusion", "test", 2, 1, BACKGROUND).key: 4,
        Run("diffusion", "test", 2, 1, TRAIN).key: 3,
        Run("nearest_class_mean", "test", 2, 1).key: 0,
        Run("label_spreading", "test", 2, 1, BACKGROUND).key: 0,
    }
    runs = [
        Run("logistic_regression", "test", 2, 1),
        Run("logistic_regression", "test", 1, 1),
        Run("diffusion", "test", 2, 1, BACKGROUND),
        Run("diffusion", "test", 2, 1, TRAIN),
        Run("nearest_class_mean", "test", 2, 1),
        Run("label_spreading", "test", 2, 1, BACKGROUND),
    ]
    assert {run.key: plan.steps_of(run, chosen) for run in runs} == expected


def test_more_neighbors_than_the_stored_graphs_have_are_refused(content):
    content["diffusion"]["nl2"]["nbg70"]["k"] = 64
    sweep = make_sweep(n_labeled=[2], n_background=[70])
    with pytest.raises(ValueError, match=r"^hyperparameters: diffusion.nl2.nbg70.k is 64, .* 10"):
        plan.chosen_runs(sweep, make_data(), Hyperparameters(content))


def test_what_was_not_chosen_is_named():
    with pytest.raises(ValueError, match=r"^hyperparameters: label_spreading is missing"):
        plan.chosen_runs(make_sweep(), make_data(), Hyperparameters({}))


# --- what results follow from ---

RUNS = {
    "nearest_class_mean": Run("nearest_class_mean", "test", 2, 1),
    "nearest_neighbors": Run("nearest_neighbors", "test", 2, 1),
    "label_spreading": Run("label_spreading", "test", 2, 1, BACKGROUND, {"alpha": 0.2}),
    "label_spreading_train": Run("label_spreading", "test", 2, 1, TRAIN, {"alpha": 0.2}),
    "logistic_regression": Run(
        "logistic_regression", "test", 2, 1,
        settings={"lr": 0.1, "weight_decay": 0, "batch_size": 16},
    ),
    "diffusion": Run("diffusion", "test", 2, 1, BACKGROUND, {"k": 5}),
    "diffusion_both": Run("diffusion", "test", 2, 1, BOTH, {"k": 5}),
    "diffusion_train": Run("diffusion", "test", 2, 1, TRAIN, {"k": 5}),
}  # fmt: skip
EVERY = set(RUNS)
DIFFUSIONS = {name for name in RUNS if name.startswith("diffusion")}
SPREADINGS = {"label_spreading", "label_spreading_train"}
WITH_BACKGROUND = {"label_spreading", "diffusion", "diffusion_both"}

PARAMETERS = [
    ("evaluation.top_k", [1, 2], EVERY),
    ("evaluation.combination_weight", 0.9, set()),
    ("evaluation.n_images", 9, set()),
    ("diffusion.sigma", 0.7, DIFFUSIONS),
    ("diffusion.local_neighbor", 3, DIFFUSIONS),
    ("diffusion.reciprocal", True, DIFFUSIONS),
    ("diffusion.sinkhorn_rounds", 2, DIFFUSIONS),
    ("diffusion.power", 2, DIFFUSIONS),
    ("diffusion.clamping", True, DIFFUSIONS),
    ("diffusion.class_prior", "labeled", DIFFUSIONS),
    ("diffusion.class_prior", [1, 2], DIFFUSIONS),
    ("diffusion.precision", "bfloat16", DIFFUSIONS),
    ("diffusion.backend", "scipy", DIFFUSIONS),
    # How it is computed, and what every run has its own of.
    ("diffusion.class_slice", 3, set()),
    ("diffusion.memory_budget_gb", 1, set()),
    ("diffusion.n_iterations", 9, set()),
    ("diffusion.edge_weight", "gaussian", set()),
    ("logistic_regression.momentum", 0.9, {"logistic_regression"}),
    ("logistic_regression.lr", 0.5, set()),
    ("logistic_regression.weight_decay", 0.5, set()),
    ("logistic_regression.batch_size", 5, set()),
    ("logistic_regression.max_iterations", 5, set()),
    ("logistic_regression.eval_every", 5, set()),
    ("graph.method", "ivf", {"diffusion_train"}),
    ("graph.target_recall", 0.5, {"diffusion_train"}),
    ("graph.k", 7, set()),
    ("graph.n_background", 7, set()),
    ("graph.memory_budget_gb", 7, set()),
    ("graph.recall_sample", 7, set()),
    ("sweep.logistic_regression.eval_every", 50, {"logistic_regression"}),
    ("sweep.nearest_neighbors.k", [1, 3, 10], {"nearest_neighbors"}),
    ("sweep.label_spreading.n_neighbors", 5, SPREADINGS),
    ("sweep.label_spreading.max_iterations", 5, SPREADINGS),
    # A larger grid, more seeds, other workers: the runs that are there stay.
    ("sweep.logistic_regression.lr", [0.1, 0.5], set()),
    ("sweep.logistic_regression.max_iterations", 50, set()),
    # Graphs are completed for the largest k, and an approximate search may then find others.
    ("sweep.diffusion.k", [5, 10, 20], DIFFUSIONS),
    ("sweep.diffusion.k", [10], set()),
    ("sweep.diffusion.edge_weight", ["constant", "gaussian"], set()),
    ("sweep.diffusion.n_iterations", 50, set()),
    ("sweep.label_spreading.alpha", [0.2, 0.5], set()),
    ("sweep.label_spreading.max_images", 2000, set()),
    ("sweep.methods", ["diffusion"], set()),
    ("sweep.n_labeled", [2, 20], set()),
    ("sweep.seeds", [1, 9], set()),
    ("sweep.validation_seeds", [1, 9], set()),
    ("sweep.metric", "top5", set()),
    ("sweep.unlabeled", ["train", "background", "both"], set()),
    ("sweep.n_background", [70], set()),
    ("sweep.combination_weights", [0.5], set()),
    ("sweep.n_workers", 2, set()),
    ("sweep.memory_budget_gb", 2, set()),
    ("sweep.max_tries", 2, set()),
]


def provenance(run, settings=None, data=None, n_iterations=100):
    settings, data = settings or make_settings(), data or make_data()
    # As it is compared with what stands in the files.
    return json.loads(json.dumps(plan.provenance(run, n_iterations, settings, data)))


def changed_by(**changes):
    return {name for name, run in RUNS.items() if provenance(run, **changes) != provenance(run)}


@pytest.mark.parametrize(
    ("name", "value", "expected"), PARAMETERS, ids=[f"{p[0]}={p[1]}" for p in PARAMETERS]
)
def test_a_run_is_repeated_when_and_only_when_a_parameter_that_matters_changes(
    name, value, expected
):
    assert changed_by(settings=make_settings(**{name: value})) == expected


def test_the_table_above_leaves_no_parameter_of_the_domain_out():
    named = {name for name, _, _ in PARAMETERS}
    sections = {"graph": {"stored_k"}, "diffusion": set(), "logistic_regression": set()}
    for section, left_out in sections.items():
        for name in vars(make_settings().sections[section]):
            assert name in left_out or f"{section}.{name}" in named


def test_other_numbers_of_iterations_matter_where_there_are_iterations():
    assert changed_by(n_iterations=101) == {"logistic_regression"} | DIFFUSIONS


@pytest.mark.parametrize("name", ["class_split", "train_features"])
def test_other_data_repeat_every_run(name):
    data = make_data()
    facts = dict(data.facts) | {name: "another"}
    assert changed_by(data=make_data(facts=facts)) == EVERY


@pytest.mark.parametrize(
    ("n_background", "part", "expected"),
    [
        (70, "vectors", WITH_BACKGROUND),
        (70, "graph", WITH_BACKGROUND - {"label_spreading"}),
        (70, "index", WITH_BACKGROUND - {"label_spreading"}),
        (None, "vectors", set()),
        (0, "vectors", set()),
    ],
)
def test_another_background_repeats_the_runs_over_it(n_background, part, expected):
    facts = dict(make_data().background_facts)
    facts[n_background] = {**facts[n_background], part: {"checksum": "another"}}
    assert changed_by(data=make_data(background_facts=facts)) == expected


def test_sizes_that_follow_from_the_facts_do_not_count_twice():
    assert changed_by(data=make_data(n_features=1, n_components=2)) == set()


@pytest.mark.parametrize("name", RUNS)
def test_another_run_is_made_from_something_else(name):
    run = RUNS[name]
    values = {"mode": "val", "n_labeled": 1, "seed": 2}
    if run.unlabeled is not None:
        values["unlabeled"] = UnlabeledImages("background", 0)
    if run.settings:
        first = next(iter(run.settings))
        values["settings"] = {**run.settings, first: 0.3}
    for attribute, value in values.items():
        other = Run(**{**vars(run), attribute: value})
        assert provenance(other) != provenance(run), attribute


def test_edge_weights_of_a_run_are_its_own():
    run = RUNS["diffusion"]
    weighted = Run(**{**vars(run), "settings": {"k": 5, "edge_weight": "gaussian"}})
    settings = make_settings(**{"diffusion.edge_weight": "locally_scaled"})
    assert provenance(run, settings)["diffusion"]["edge_weight"] == "constant"
    assert provenance(weighted, settings)["diffusion"]["edge_weight"] == "gaussian"


# --- scores and combinations ---


def test_scores_follow_from_their_iteration_and_not_from_how_they_are_measured():
    data = make_data()
    for name in DIFFUSIONS | {"logistic_regression"}:
        run = RUNS[name]

        def facts(iteration=3, run=run, **changes):
            return plan.scores_provenance(run, iteration, make_settings(**changes), data)

        assert facts() == facts(**{"evaluation.top_k": [1]})
        assert facts() == facts(**{"sweep.logistic_regression.eval_every": 50})
        assert facts() != facts(4)
        momentum = facts(**{"logistic_regression.momentum": 0.9}) != facts()
        sigma = facts(**{"diffusion.sigma": 0.9}) != facts()
        assert (momentum, sigma) == (name == "logistic_regression", name != "logistic_regression")
        assert json.loads(json.dumps(facts())) == facts()


CHOICES = [
    (("diffusion", "nl2", "nbg70", "k"), 5, True),
    (("diffusion", "nl2", "nbg70", "edge_weight"), "constant", True),
    (("diffusion", "nl2", "nbg70", "n_iterations"), 2, True),
    (("diffusion", "nl2", "nbg70", "top1"), 0.5, False),
    (("diffusion", "nl2", "train", "k"), 7, False),
    (("logistic_regression", "nl2", "lr"), 0.3, True),
    (("logistic_regression", "nl2", "weight_decay"), 0.3, True),
    (("logistic_regression", "nl2", "batch_size"), 3, True),
    (("logistic_regression", "nl2", "max_iterations"), 3, True),
    (("logistic_regression", "nl1", "lr"), 0.3, False),
    (("combined", "nl2", "nbg70", "combination_weight"), 0.3, False),
    (("nearest_neighbors", "nl2", "k"), 2, False),
]


@pytest.mark.parametrize(
    ("place", "value", "matters"), CHOICES, ids=[".".join(c[0]) for c in CHOICES]
)
def test_a_combination_follows_from_what_was_chosen_for_its_parts(content, place, value, matters):
    def facts():
        chosen = Hyperparameters(content)
        run = Run("combined", "test", 2, 1, BACKGROUND)
        return plan.combination_provenance(run, chosen, make_settings(), make_data())

    before = json.dumps(facts())
    section = content
    for name in place[:-1]:
        section = section[name]
    section[place[-1]] = value
    assert (json.dumps(facts()) != before) == matters


@pytest.mark.parametrize(
    ("name", "value", "matters"),
    [
        ("sweep.combination_weights", [0, 1], True),
        ("evaluation.top_k", [1], True),
        ("diffusion.sigma", 0.9, True),
        ("logistic_regression.momentum", 0.9, True),
        ("evaluation.combination_weight", 0.9, False),
        ("sweep.nearest_neighbors.k", [9], False),
        ("diffusion.class_slice", 2, False),
        ("sweep.n_workers", 2, False),
    ],
)
def test_a_combination_follows_from_parameters_of_its_parts(content, name, value, matters):
    chosen, data = Hyperparameters(content), make_data()
    run = Run("combined", "test", 2, 1, BACKGROUND)
    settings = make_settings(**{name: value})
    before = plan.combination_provenance(run, chosen, make_settings(), data)
    assert (plan.combination_provenance(run, chosen, settings, data) != before) == matters


def test_a_combination_follows_from_the_data(content):
    chosen, settings = Hyperparameters(content), make_settings()
    run = Run("combined", "test", 2, 1, BACKGROUND)
    background = dict(make_data().background_facts)
    background[70] = {**background[70], "vectors": "another"}
    found = [
        json.dumps(plan.combination_provenance(run, chosen, settings, data))
        for data in (
            make_data(), make_data(facts={"class_split": "0"}),
            make_data(background_facts=background),
        )
    ]  # fmt: skip
    assert len(set(found)) == 3


# --- groups ---


def test_every_run_is_in_one_group_with_those_that_share_its_work():
    sweep = make_sweep(
        unlabeled=["background", "train"],
        n_background=[0, 70],
        **{"diffusion.edge_weight": ["constant", "gaussian"]},
    )
    runs = plan.validation_runs(sweep, make_data())
    groups = plan.groups_of(runs)
    assert sorted(keys(run for group in groups for run in group)) == sorted(keys(runs))
    for group in groups:
        for name in ("method", "mode", "n_labeled", "seed", "unlabeled"):
            assert len({getattr(run, name) for run in group}) == 1
    sizes = {
        method: set()
        for method in ("nearest_neighbors", "label_spreading", "logistic_regression", "diffusion")
    }
    for group in groups:
        sizes[group[0].method].add(len(group))
    # Two k with two edge weights; two alphas; two rates with two decays, for a batch size.
    assert sizes == {
        "diffusion": {4},
        "label_spreading": {2},
        "logistic_regression": {4},
        "nearest_neighbors": {1},
    }
    for group in groups:
        assert len({run.settings.get("batch_size") for run in group}) == 1
    counts = {method: sum(group[0].method == method for group in groups) for method in sizes}
    n_numbers, n_seeds, n_images, n_batch_sizes = 2, 2, 3, 2
    assert counts == {
        "diffusion": n_numbers * n_seeds * n_images,
        "label_spreading": n_numbers * n_seeds * n_images,
        "logistic_regression": n_numbers * n_seeds * n_batch_sizes,
        "nearest_neighbors": n_numbers * n_seeds,
    }


def test_groups_come_in_the_order_of_their_first_runs():
    runs = [
        Run("diffusion", "val", 1, seed, ALL, {"k": k}) for k in (10, 5) for seed in (2, 1)
    ]  # fmt: skip
    groups = plan.groups_of(runs)
    assert [keys(group) for group in groups] == [
        ["diffusion/val/nl1/nbgall/k10/seed2", "diffusion/val/nl1/nbgall/k5/seed2"],
        ["diffusion/val/nl1/nbgall/k10/seed1", "diffusion/val/nl1/nbgall/k5/seed1"],
    ]
    assert plan.Group(groups[0]).name == "diffusion/val/nl1/nbgall/k10/seed2 and 1 more"
    assert plan.Group(groups[0][:1]).name == "diffusion/val/nl1/nbgall/k10/seed2"
    assert plan.groups_of([]) == []


# --- sizes ---


@pytest.mark.parametrize(
    ("unlabeled", "n_rows", "n_background"),
    [(BACKGROUND, 70, 70), (ALL, 200, 200), (TRAIN, 50, 0), (BOTH, 120, 70)],
)
def test_unlabeled_images_are_counted(unlabeled, n_rows, n_background):
    data = make_data({("val", 2): ImageCounts(100, 49, 40, 10)})
    assert data.rows_of(unlabeled, "test", 2) == n_rows
    assert data.rows_of(unlabeled, "val", 2) == n_rows - (unlabeled.kind != "background")
    assert data.background_rows(unlabeled) == n_background


def test_a_metric_that_is_not_evaluated_is_refused():
    with pytest.raises(ValueError, match=r"^sweep.metric: got 'top2_novel', .*\[1, 5\]; .* top1, "):
        make_settings(**{"sweep.metric": "top2_novel"})
    assert make_settings(**{"sweep.metric": "top5_base"}).sweep.metric == "top5_base"
