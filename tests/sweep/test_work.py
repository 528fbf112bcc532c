"""Runs, each beside the same computation by other means."""

import json
import warnings
from functools import cache

import faiss
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.semi_supervised import LabelSpreading

from lowshot_kedro.classifiers import LogisticRegression, logistic_regression
from lowshot_kedro.sweep import Run, UnlabeledImages
from lowshot_kedro.sweep.choice import Hyperparameters
from lowshot_kedro.sweep.plan import Group, ImageCounts, groups_of, provenance, scores_provenance
from lowshot_kedro.sweep.preparation import describe_data
from lowshot_kedro.sweep.work import experiment_of, memory_bytes, run_combination, run_group
from tests.diffusion.truth import dense_matrix, dense_scores, relative_difference
from tests.graph.truth import dense_graph, similarities_of, unit

from .data import SPLIT, MemoryInputs, MemoryStore
from .making import make_data, make_settings

BACKGROUND, ALL = UnlabeledImages("background", 70), UnlabeledImages("background", None)
NONE, TRAIN, BOTH = (
    UnlabeledImages("background", 0), UnlabeledImages("train", 0), UnlabeledImages("both", 70),
)  # fmt: skip
SEED = 3
REGRESSION = Run(
    "logistic_regression", "test", 2, SEED,
    settings={"lr": 0.1, "weight_decay": 0.01, "batch_size": 16},
)  # fmt: skip
DIFFUSION = Run("diffusion", "test", 2, SEED, BACKGROUND, {"k": 5})


@cache
def inputs_in_memory():
    return MemoryInputs()


@pytest.fixture
def inputs():
    inputs = inputs_in_memory()
    inputs.opened.clear()
    return inputs


@pytest.fixture
def store():
    return MemoryStore()


def settings_with(**changes):
    return make_settings(**{"sweep.n_background": [0, 70, None]} | changes)


def data_of(inputs, settings):
    return describe_data(
        inputs.class_split,
        inputs.train_features,
        inputs.test_features,
        inputs.pca_transform,
        inputs.backgrounds,
        settings,
    )


def run_measured(runs, inputs, settings, store=None, n_iterations=0, kept=None):
    group = Group(tuple(runs), n_iterations, frozenset(run.key for run in runs), kept or {})
    return run_group(group, inputs, settings, data_of(inputs, settings), store or MemoryStore())


# --- the images of a run, chosen here once more ---


class Images:
    def __init__(self, inputs, mode, n_labeled=2, seed=SEED):
        number = {"val": 1, "test": 2}[mode]
        base = [label - 1 for label in SPLIT[f"base_classes_{number}"]]
        novel = [label - 1 for label in SPLIT[f"novel_classes_{number}"]]
        self.classes = sorted(base + novel)
        train, test = inputs.train_features.labels, inputs.test_features.labels
        random_state = np.random.RandomState(seed)
        labeled, chosen, self.others = [], [], []
        for label in self.classes:
            positions = np.flatnonzero(train == label)
            if label in base:
                labeled += positions.tolist()
            else:
                random_state.shuffle(positions)
                chosen += positions[:n_labeled].tolist()
                self.others += positions[n_labeled:].tolist()
        self.labeled = labeled + chosen
        self.labels = np.array([self.classes.index(train[p]) for p in self.labeled], np.int32)
        self.test = [p for p, label in enumerate(test) if label in self.classes]
        self.truth = np.array([self.classes.index(test[p]) for p in self.test])
        self.is_novel = np.isin([self.classes[number] for number in self.truth], novel)
        self.inputs = inputs

    def features(self, collection, positions):
        return getattr(self.inputs, f"{collection}_features").array[positions]

    def vectors(self, collection, positions):
        transform = self.inputs.pca_transform
        matrix = faiss.vector_to_array(transform.A).reshape(transform.d_out, transform.d_in)
        return self.features(collection, positions) @ matrix.T + faiss.vector_to_array(transform.b)

    def nodes(self, unlabeled):
        parts = [self.vectors("train", self.labeled)]
        if unlabeled.kind != "background":
            parts.append(self.vectors("train", self.others))
        if unlabeled.kind != "train":
            parts.append(self.inputs.backgrounds[unlabeled.n_background].vectors)
        return np.concatenate(parts)

    def accuracies(self, scores):
        """Of equal scores the lower class is guessed first."""
        ranks = np.argsort(-np.asarray(scores), axis=1, kind="stable")
        found = {}
        for k in (1, 5):
            hits = (ranks[:, :k] == self.truth[:, None]).any(axis=1)
            groups = {"": hits, "_novel": hits[self.is_novel], "_base": hits[~self.is_novel]}
            found |= {f"top{k}{name}": float(members.mean()) for name, members in groups.items()}
        return found


def without(entry, *names):
    return {name: value for name, value in entry.items() if name not in names}


def assert_useful(accuracy):
    """Data on which a classifier is neither blind nor perfect."""
    assert 0.3 < accuracy < 0.99


# --- methods ---


@pytest.mark.parametrize("mode", ["val", "test"])
@pytest.mark.parametrize("n_labeled", [1, 5])
def test_nearest_class_mean(inputs, mode, n_labeled):
    run = Run("nearest_class_mean", mode, n_labeled, SEED)
    settings = settings_with(**{"sweep.n_labeled": [n_labeled]})
    found = run_measured([run], inputs, settings)
    images = Images(inputs, mode, n_labeled)
    features = unit(images.features("train", images.labeled))
    means = unit(
        [features[images.labels == number].mean(axis=0) for number in range(len(images.classes))]
    )
    expected = images.accuracies(unit(images.features("test", images.test)) @ means.T)
    assert found.keys() == {run.key}
    content = found[run.key]
    assert content["final"] == pytest.approx(expected)
    assert_useful(expected["top1"])
    assert not [name for name in content if name.startswith("per_")]
    assert content["n_test"] == len(images.test) == 80
    assert (content["n_classes"], content["n_novel"], content["n_nodes"]) == (4, 2, None)
    assert content["experiment"] == {"mode": mode, "n_labeled": n_labeled, "seed": SEED}
    assert content["peak_rss_bytes"] > 10**6
    assert all(seconds >= 0 for seconds in content["seconds"].values())
    json.dumps(content)


def test_nearest_neighbors_with_every_k(inputs):
    run = Run("nearest_neighbors", "test", 2, SEED)
    found = run_measured([run], inputs, settings_with(**{"sweep.nearest_neighbors.k": [7, 1, 3]}))
    images = Images(inputs, "test")
    similarities = similarities_of(
        images.features("test", images.test), images.features("train", images.labeled)
    )
    order = np.argsort(-similarities, axis=1)
    entries = found[run.key]["per_k"]
    assert [entry["k"] for entry in entries] == [7, 1, 3]
    for entry in entries:
        votes = np.zeros((len(images.test), 4))
        for point, nearest in enumerate(order[:, : entry["k"]]):
            for node in nearest:
                votes[point, images.labels[node]] += max(similarities[point, node], 0)
        assert without(entry, "k") == pytest.approx(images.accuracies(votes))
    assert found[run.key]["final"] == entries[-1]
    assert len({tuple(without(entry, "k").values()) for entry in entries}) == 3


@pytest.mark.parametrize("unlabeled", [BACKGROUND, ALL, NONE, TRAIN, BOTH], ids=lambda u: u.name)
def test_label_spreading(inputs, unlabeled):
    runs = [
        Run("label_spreading", "test", 2, SEED, unlabeled, {"alpha": alpha})
        for alpha in (0.2, 0.9)
    ]  # fmt: skip
    found = run_measured(runs, inputs, settings_with())
    images = Images(inputs, "test")
    nodes = unit(images.nodes(unlabeled))
    labels = np.full(len(nodes), -1)
    labels[: len(images.labeled)] = images.labels
    for run in runs:
        model = LabelSpreading(
            kernel="knn", n_neighbors=7, alpha=run.settings["alpha"], max_iter=30
        )
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(nodes, labels)
            found_by_sklearn = model.predict_proba(unit(images.vectors("test", images.test)))
        scores = np.nan_to_num(found_by_sklearn)
        content = found[run.key]
        assert content["final"] == pytest.approx(images.accuracies(np.round(scores, 6)))
        assert_useful(content["final"]["top1"])
        assert content["n_nodes"] == len(nodes)
        assert content["experiment"]["n_background"] == data_of(
            inputs, settings_with()
        ).background_rows(unlabeled)
    assert found.keys() == {run.key for run in runs}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_logistic_regressions_side_by_side_are_those_one_by_one(inputs, store, momentum):
    runs = [
        Run(
            "logistic_regression", "val", 2, SEED,
            settings={"lr": lr, "weight_decay": decay, "batch_size": 16},
        )
        for lr, decay in ((0.1, 0), (0.003, 0.3), (0.02, 0.1))
    ]  # fmt: skip
    settings = settings_with(**{"logistic_regression.momentum": momentum})
    kept = {runs[1].key: 80}
    found = run_measured(runs, inputs, settings, store, n_iterations=100, kept=kept)
    images = Images(inputs, "val")
    test = images.features("test", images.test)
    finals = set()
    for run in runs:
        scores = {}
        alone = LogisticRegression(
            4, lr=run.settings["lr"], weight_decay=run.settings["weight_decay"], batch_size=16,
            max_iterations=100, momentum=momentum, seed=SEED,
        )  # fmt: skip

        def evaluate(iteration, alone=alone, scores=scores):
            scores[iteration] = alone.scores(test)

        alone.fit(
            images.features("train", images.labeled),
            images.labels,
            evaluate=evaluate,
            eval_every=40,
        )
        content = found[run.key]
        assert [entry["iteration"] for entry in content["per_iteration"]] == [40, 80, 100]
        for entry in content["per_iteration"]:
            expected = images.accuracies(scores[entry["iteration"]])
            assert without(entry, "iteration") == pytest.approx(expected)
        assert content["final"] == content["per_iteration"][-1]
        finals.add(tuple(content["final"].values()))
        if run is runs[1]:
            np.testing.assert_allclose(store.of(run.key), scores[80], atol=1e-5)
        described = content["experiment"]["logistic_regression"]
        assert without(described, "trained_side_by_side") == {
            **run.settings, "momentum": momentum, "max_iterations": 100,
        }  # fmt: skip
        assert "unlabeled" not in content["experiment"]
    assert len(finals) == 3
    assert {key for key, _ in store.content} == {runs[1].key}


@pytest.fixture
def interrupted(inputs, store, monkeypatch):
    """What a training that was stopped after 40 of 120 iterations has left."""
    monkeypatch.setattr(logistic_regression, "_SECONDS_BETWEEN_CHECKPOINTS", 0)

    def stop(*arguments):
        raise KeyboardInterrupt

    write, store.write = store.write, stop
    with pytest.raises(KeyboardInterrupt):
        run_measured([REGRESSION], inputs, settings_with(), store, 120, {REGRESSION.key: 80})
    store.write = write
    with store.unfinished(REGRESSION.key) as checkpoint:
        assert checkpoint.is_file()
    return store


@pytest.mark.parametrize(
    "changes", [{}, {"evaluation.top_k": [1, 2]}, {"logistic_regression.momentum": 0.5}]
)
@pytest.mark.parametrize("n_iterations", [120, 100, 40])
def test_a_training_that_was_stopped_goes_on_with_the_same_result(
    inputs, interrupted, changes, n_iterations
):
    settings = settings_with(**changes)
    whole = run_measured([REGRESSION], inputs, settings, MemoryStore(), n_iterations)
    after = run_measured([REGRESSION], inputs, settings, interrupted, n_iterations)
    name = REGRESSION.key
    assert after[name]["per_iteration"] == whole[name]["per_iteration"]
    assert after[name]["final"] == whole[name]["final"]
    with interrupted.unfinished(name) as checkpoint:
        assert not checkpoint.exists()


def test_a_training_that_goes_on_does_not_begin_anew(inputs, interrupted, caplog):
    caplog.set_level("INFO")
    run_measured([REGRESSION], inputs, settings_with(), interrupted, 120)
    assert "goes on after iteration 40" in caplog.text


def test_what_was_measured_on_other_test_images_does_not_count(interrupted):
    changed = MemoryInputs()
    changed.test_features.array[:] = changed.test_features.array[::-1].copy()
    whole = run_measured([REGRESSION], changed, settings_with(), MemoryStore(), 120)
    after = run_measured([REGRESSION], changed, settings_with(), interrupted, 120)
    assert after[REGRESSION.key]["per_iteration"] == whole[REGRESSION.key]["per_iteration"]


@pytest.mark.parametrize("unlabeled", [BACKGROUND, ALL, NONE, TRAIN, BOTH], ids=lambda u: u.name)
@pytest.mark.parametrize("edge_weight", ["constant", "gaussian"])
def test_diffusion_for_several_k_is_the_dense_one(inputs, store, unlabeled, edge_weight):
    weight = {} if edge_weight == "constant" else {"edge_weight": edge_weight}
    runs = [
        Run("diffusion", "test", 2, SEED, unlabeled, {"k": k} | weight) for k in (4, 10, 7)
    ]  # fmt: skip
    kept = {runs[0].key: 2, runs[2].key: 0}
    # The edge weight of the single experiment is not that of these runs.
    settings = settings_with(**{"diffusion.edge_weight": "locally_scaled", "diffusion.sigma": 0.9})
    found = run_measured(runs, inputs, settings, store, n_iterations=4, kept=kept)
    images = Images(inputs, "test")
    nodes, tests = images.nodes(unlabeled), images.vectors("test", images.test)
    nearest = np.argsort(-similarities_of(tests, nodes), axis=1)
    assert found.keys() == {run.key for run in runs}
    finals = set()
    for run in runs:
        k = run.settings["k"]
        graph = dense_graph(nodes, k)
        matrix = dense_matrix(graph.indices, graph.similarities, edge_weight, sigma=0.9)
        scores = dense_scores(matrix, images.labels, nearest[:, :k], 4, 4)
        content = found[run.key]
        assert [entry["iteration"] for entry in content["per_iteration"]] == [0, 1, 2, 3, 4]
        for entry in content["per_iteration"]:
            expected = images.accuracies(np.round(scores[entry["iteration"]], 9))
            assert without(entry, "iteration") == pytest.approx(expected)
        assert_useful(content["final"]["top1"])
        assert content["final"] == content["per_iteration"][-1]
        assert content["n_nodes"] == len(nodes)
        assert content["experiment"]["graph"]["k"] == k
        assert content["experiment"]["diffusion"]["edge_weight"] == edge_weight
        finals.add(tuple(entry["top1"] for entry in content["per_iteration"]))
        if run.key in kept:
            found_scores = store.of(run.key)
            assert relative_difference(found_scores[None], scores[[kept[run.key]]]) < 1e-5
        json.dumps(content)
    assert len(finals) == 3
    assert {key for key, _ in store.content} == set(kept)


@pytest.mark.parametrize("unlabeled", [BACKGROUND, TRAIN, BOTH], ids=lambda u: u.name)
def test_runs_are_the_same_alone_and_with_others(inputs, unlabeled):
    runs = [
        Run("diffusion", "val", 2, SEED, unlabeled, settings)
        for settings in ({"k": 4}, {"k": 10}, {"k": 4, "edge_weight": "locally_scaled"})
    ]
    settings = settings_with()
    together = run_measured(runs, inputs, settings, n_iterations=3)
    for run in runs:
        alone = run_measured([run], inputs, settings, n_iterations=3)[run.key]
        assert alone["per_iteration"] == together[run.key]["per_iteration"]


def test_fewer_steps_are_the_first_of_more(inputs, store):
    run = Run("diffusion", "test", 2, SEED, BACKGROUND, {"k": 5})
    many = run_measured([run], inputs, settings_with(), store, 4, {run.key: 2})[run.key]
    other = MemoryStore()
    few = run_measured([run], inputs, settings_with(), other, 2, {run.key: 2})[run.key]
    assert few["per_iteration"] == many["per_iteration"][:3]
    np.testing.assert_allclose(other.of(run.key), store.of(run.key), rtol=1e-5)


def test_the_background_is_opened_as_it_was_stored_for_the_sweep(inputs):
    # Graphs are stored for the largest k of the grid; there are none for the others.
    settings = settings_with(**{"sweep.diffusion.k": [5, 12]})
    for runs in (
        [Run("diffusion", "test", 2, SEED, BACKGROUND, {"k": 5})],
        [Run("diffusion", "test", 2, SEED, BOTH, {"k": 12})],
        [Run("label_spreading", "test", 2, SEED, BACKGROUND, {"alpha": 0.2})],
    ):
        inputs.opened.clear()
        run_measured(runs, inputs, settings, n_iterations=1)
        assert inputs.opened == [(70, 12)]


def test_training_images_alone_open_no_background(inputs):
    run_measured([Run("diffusion", "test", 2, SEED, TRAIN, {"k": 5})], inputs, settings_with())
    assert inputs.opened == []


def test_another_seed_gives_another_result(inputs):
    settings = settings_with()
    for method, unlabeled, values in (
        ("nearest_class_mean", None, {}),
        ("diffusion", BACKGROUND, {"k": 5}),
        ("logistic_regression", None, {"lr": 0.1, "weight_decay": 0, "batch_size": 16}),
    ):
        finals = []
        for seed in (1, 2, 1):
            run = Run(method, "test", 1, seed, unlabeled, values)
            content = run_measured([run], inputs, settings, n_iterations=3)[run.key]
            finals.append(content["final"])
        assert finals[0] == finals[2] != finals[1]


# --- what is kept and what is measured ---


@pytest.mark.parametrize("run", [REGRESSION, DIFFUSION], ids=lambda run: run.method)
def test_runs_of_which_scores_alone_are_wanted_have_no_metrics(inputs, run):
    settings = settings_with()
    data = data_of(inputs, settings)
    measuring, keeping = MemoryStore(), MemoryStore()
    run_measured([run], inputs, settings, measuring, 80, {run.key: 80})
    group = Group((run,), 80, kept={run.key: 80})
    assert run_group(group, inputs, settings, data, keeping) == {}
    assert keeping.content.keys() == measuring.content.keys()
    np.testing.assert_allclose(keeping.of(run.key), measuring.of(run.key), rtol=1e-4, atol=1e-6)
    assert keeping.has(run.key, scores_provenance(run, 80, settings, data))
    assert not keeping.has(run.key, scores_provenance(run, 79, settings, data))


def test_runs_measured_and_runs_kept_may_be_different_ones(inputs, store):
    runs = [DIFFUSION, Run(**{**vars(DIFFUSION), "settings": {"k": 9}})]
    settings = settings_with()
    group = Group(tuple(runs), 3, frozenset([runs[0].key]), {runs[1].key: 2})
    found = run_group(group, inputs, settings, data_of(inputs, settings), store)
    assert found.keys() == {runs[0].key}
    alone = MemoryStore()
    run_measured([runs[1]], inputs, settings, alone, 2, {runs[1].key: 2})
    np.testing.assert_allclose(store.of(runs[1].key), alone.of(runs[1].key), rtol=1e-5)
    assert {key for key, _ in store.content} == {runs[1].key}


def test_the_same_run_is_made_from_the_same(inputs):
    settings = settings_with()
    one, other = data_of(inputs, settings), data_of(MemoryInputs(), settings)
    for run in (REGRESSION, DIFFUSION):
        assert provenance(run, 5, settings, one) == provenance(run, 5, settings, other)


# --- combination ---

CHOSEN = Hyperparameters(
    {
        "logistic_regression": {
            "nl2": {"lr": 0.1, "weight_decay": 0.01, "batch_size": 16, "max_iterations": 80}
        },
        "diffusion": {"nl2": {"nbg70": {"k": 5, "edge_weight": "constant", "n_iterations": 2}}},
    }
)
COMBINED = Run("combined", "test", 2, SEED, BACKGROUND)


@pytest.fixture
def parts(inputs, store):
    settings = settings_with()
    run_measured([REGRESSION], inputs, settings, store, 100, {REGRESSION.key: 80})
    run_measured([DIFFUSION], inputs, settings, store, 4, {DIFFUSION.key: 2})
    return store


def test_a_combination_is_the_weighted_mean_of_probabilities(inputs, parts):
    settings = settings_with(**{"sweep.combination_weights": [1, 0, 0.3, 0.7]})
    data = data_of(inputs, settings)
    found = run_combination(COMBINED, inputs, settings, data, parts, CHOSEN)
    assert found.keys() == {COMBINED.key}
    content = found[COMBINED.key]
    images = Images(inputs, "test")
    diffusion = parts.of(DIFFUSION.key).astype(np.float64)
    diffusion = diffusion / diffusion.sum(axis=1, keepdims=True)
    regression = np.exp(parts.of(REGRESSION.key).astype(np.float64))
    assert [entry["weight"] for entry in content["per_weight"]] == [1, 0, 0.3, 0.7]
    for entry in content["per_weight"]:
        weight = entry["weight"]
        expected = images.accuracies(weight * diffusion + (1 - weight) * regression)
        assert without(entry, "weight") == pytest.approx(expected)
    assert len({entry["top1"] for entry in content["per_weight"]}) > 2
    assert content["final"] == content["per_weight"][-1]
    assert content["n_nodes"] == 54 + 70
    experiment = content["experiment"]
    assert (experiment["unlabeled"], experiment["n_background"]) == ("background", 70)
    assert experiment["diffusion"] == {"k": 5, "n_iterations": 2}
    assert experiment["logistic_regression"] == {**REGRESSION.settings, "n_iterations": 80}
    json.dumps(content)


def test_the_ends_of_a_combination_are_its_parts(inputs, parts):
    settings = settings_with(**{"sweep.combination_weights": [0, 1]})
    data = data_of(inputs, settings)
    found = run_combination(COMBINED, inputs, settings, data, parts, CHOSEN)
    entries = found[COMBINED.key]["per_weight"]
    for run, iteration, entry in ((REGRESSION, 80, entries[0]), (DIFFUSION, 2, entries[1])):
        alone = run_measured([run], inputs, settings, n_iterations=iteration)[run.key]["final"]
        assert without(entry, "weight") == pytest.approx(without(alone, "iteration"))


@pytest.mark.parametrize("run", [REGRESSION, DIFFUSION], ids=lambda run: run.method)
def test_a_combination_without_one_of_its_parts_says_which(inputs, parts, run):
    for key in list(parts.content):
        if key[0] == run.key:
            del parts.content[key]
    settings = settings_with()
    with pytest.raises(RuntimeError, match=f"^{COMBINED.key}: the scores of {run.key} are missing"):
        run_combination(COMBINED, inputs, settings, data_of(inputs, settings), parts, CHOSEN)


def test_scores_made_from_other_parameters_are_not_combined(inputs, parts):
    settings = settings_with(**{"diffusion.sigma": 0.7})
    with pytest.raises(RuntimeError, match=f"the scores of {DIFFUSION.key} are missing"):
        run_combination(COMBINED, inputs, settings, data_of(inputs, settings), parts, CHOSEN)


def test_the_images_of_a_run_are_chosen_by_its_mode_number_and_seed():
    assert vars(experiment_of(DIFFUSION)) == {
        "mode": "test", "n_labeled": 2, "seed": SEED, "unlabeled": "background",
    }  # fmt: skip
    assert experiment_of(REGRESSION).unlabeled == "none"


# --- memory ---

PUBLISHED = {
    "counts": {("test", 20): ImageCounts(250_000, 300_000, 25_000, 500)},
    "n_background": {0: 0, 10**6: 10**6, 10**8: 10**8},
    "n_features": 2048,
    "n_components": 256,
}


def estimate(method, unlabeled=None, n_iterations=0, n_runs=1, data=None, changes=None, **settings):
    runs = tuple(
        Run(method, "test", 20, seed, unlabeled, settings) for seed in range(n_runs)
    )  # fmt: skip
    described = dict(PUBLISHED)
    counts = described["counts"]["test", 20]
    for name, value in (data or {}).items():
        if hasattr(counts, name):
            values = {**vars(counts), name: value}
            described["counts"] = {("test", 20): ImageCounts(**values)}
        else:
            described[name] = value
    group = Group(runs, n_iterations)
    # Graphs are completed for the largest k of the grid.
    grid = {"sweep.diffusion.k": [settings["k"]]} if "k" in settings else {}
    return memory_bytes(group, make_settings(**grid, **changes or {}), make_data(**described))


MILLION = UnlabeledImages("background", 10**6)


def test_the_memory_of_the_published_diffusion_is_what_its_arrays_take():
    found = estimate("diffusion", MILLION, 40, k=30)
    n_nodes, k, n_classes, n_test = 1_250_000, 30, 500, 25_000
    arrays = {
        "libraries": 1e9,
        "labelled vectors, and again in their index": 2 * 250_000 * 256 * 4,
        "test vectors": n_test * 256 * 4,
        "neighbours": n_nodes * k * 4,
        "neighbours and similarities of test images": n_test * k * 8,
        "W: at most twice as many neighbours": n_nodes * (2 * k * 4 + 24),
        "two matrices of scores": 2 * n_nodes * n_classes * 4,
        "test scores of 41 steps": 41 * n_test * n_classes * 4,
        "test scores of a slice": n_test * n_classes * 4,
    }
    # 9.1 GB, and the neighbours once more while they are numbered.
    assert 9.0e9 < sum(arrays.values()) < 9.2e9
    assert sum(arrays.values()) < found < 1.05 * sum(arrays.values())


def test_the_memory_of_the_published_regression_is_what_its_arrays_take():
    runs = {"lr": 0.1, "weight_decay": 0, "batch_size": 128}
    found = estimate("logistic_regression", None, 75_000, n_runs=9, **runs)
    features = (250_000 + 25_000) * 2048 * 4
    weights = 9 * 500 * 2049 * 4
    test_scores = 25_000 * 500 * 4
    assert features + weights + 2 * test_scores < 2.5e9
    assert 1e9 + features + weights + 2 * test_scores < found < 8e9


def test_a_hundred_million_images_take_so_much_that_they_run_alone():
    hundred = UnlabeledImages("background", 10**8)
    assert 4e11 < estimate("diffusion", hundred, 40, k=30) < 6e11
    # As wide as a slice of ten classes: neighbours, W, and two matrices of 10 columns.
    narrow = estimate("diffusion", hundred, 40, k=30, changes={"diffusion.class_slice": 10})
    assert 100e6 * (480 + 24 + 80) < narrow < 100e6 * (480 + 24 + 80) + 5e9


GROWING = {
    "diffusion": [
        {"data": {"n_labeled": 300_000}}, {"data": {"n_test": 30_000}},
        {"data": {"n_classes": 600}}, {"data": {"n_components": 300}},
        {"unlabeled": UnlabeledImages("background", 10**8)},
        {"unlabeled": UnlabeledImages("both", 10**6)}, {"n_iterations": 41}, {"k": 31},
        {"edge_weight": "gaussian"}, {"edge_weight": "locally_scaled"},
    ],
    "label_spreading": [
        {"data": {"n_labeled": 300_000}}, {"data": {"n_test": 30_000}},
        {"data": {"n_classes": 600}}, {"data": {"n_components": 300}},
        {"unlabeled": UnlabeledImages("background", 10**8)},
        {"unlabeled": UnlabeledImages("both", 10**6)},
        {"changes": {"sweep.label_spreading.n_neighbors": 8}},
    ],
    "logistic_regression": [
        {"data": {"n_labeled": 300_000}}, {"data": {"n_test": 30_000}},
        {"data": {"n_classes": 600}}, {"data": {"n_features": 3000}}, {"n_runs": 2},
    ],
    "nearest_class_mean": [
        {"data": {"n_labeled": 300_000}}, {"data": {"n_test": 30_000}},
        {"data": {"n_classes": 600}}, {"data": {"n_features": 3000}},
    ],
    "nearest_neighbors": [
        {"data": {"n_labeled": 300_000}}, {"data": {"n_test": 30_000}},
        {"data": {"n_classes": 600}}, {"data": {"n_features": 3000}},
    ],
    "combined": [{"data": {"n_test": 30_000}}, {"data": {"n_classes": 600}}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "change"), [(method, change) for method, all_ in GROWING.items() for change in all_]
)
def test_more_of_what_is_held_takes_more_memory(method, change):
    base = {"n_iterations": 40}
    if method in ("diffusion", "label_spreading", "combined"):
        base["unlabeled"] = MILLION
    if method == "diffusion":
        base["k"] = 30
    assert estimate(method, **base | change) > estimate(method, **base) > 1e9


@pytest.mark.parametrize("class_slice", [0, "auto", 500, 10_000])
def test_no_slice_is_wider_than_all_classes(class_slice):
    changes = {"diffusion.class_slice": class_slice}
    found = estimate("diffusion", MILLION, 40, k=30, changes=changes)
    assert found == estimate("diffusion", MILLION, 40, k=30)
    narrow = {"diffusion.class_slice": 50}
    assert estimate("diffusion", MILLION, 40, k=30, changes=narrow) < 0.6 * found


def test_training_images_of_their_own_graph_take_no_codes():
    train = estimate("diffusion", TRAIN, 40, k=30)
    assert train < estimate("diffusion", UnlabeledImages("both", 10**6), 40, k=30)
    assert train > estimate("diffusion", UnlabeledImages("background", 0), 40, k=30)


def test_groups_of_a_plan_can_be_run(inputs):
    """One group of each kind, as a sweep makes them."""
    settings = settings_with(**{"sweep.n_background": [70], "sweep.n_labeled": [2]})
    runs = [
        Run("nearest_class_mean", "val", 2, 1),
        Run("nearest_neighbors", "val", 2, 1),
        Run("label_spreading", "val", 2, 1, BACKGROUND, {"alpha": 0.2}),
        Run("label_spreading", "val", 2, 1, BACKGROUND, {"alpha": 0.8}),
        Run(**{**vars(REGRESSION), "mode": "val"}),
        Run(**{**vars(DIFFUSION), "mode": "val"}),
        Run(**{**vars(DIFFUSION), "mode": "val", "settings": {"k": 9}}),
    ]
    groups = groups_of(runs)
    assert [len(group) for group in groups] == [1, 1, 2, 1, 2]
    found = {}
    for group in groups:
        found |= run_measured(group, inputs, settings, n_iterations=3)
    assert found.keys() == {run.key for run in runs}
