import faiss
import numpy as np
import pytest

from lowshot_kedro import graph
from lowshot_kedro.diffusion import adjustments, propagate, propagation_matrix
from lowshot_kedro.diffusion.parameters import DiffusionParameters
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.parameters import GraphParameters
from lowshot_kedro.methods import diffusion as diffusion_method
from lowshot_kedro.methods.diffusion import (
    choose_parameters,
    chosen_scores,
    diffusion_scores,
    searched_neighbors,
)
from lowshot_kedro.methods.images import training_vectors, unlabeled_training_images, vectors_of
from lowshot_kedro.protocol import ExperimentParameters, choose_images, log_choice
from tests.diffusion.truth import dense_matrix, dense_scores, relative_difference
from tests.features import MemoryFeatures
from tests.graph.truth import assert_nearest, dense_graph, similarities_of, unit
from tests.test_parameters import VALID

K = 6
SPLIT = {
    "base_classes_1": [2],
    "novel_classes_1": [1, 4],
    "base_classes_2": [1, 4],
    "novel_classes_2": [2, 3],
    "label_names": ["a", "b", "c", "d"],
}
N_COLUMNS, N_COMPONENTS = 12, 7


def features_of(n, seed, name):
    """Around a centre for each of four classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n).astype(np.int32)
    centres = 2 * np.eye(4, N_COLUMNS)
    features = MemoryFeatures(centres[labels] + rng.standard_normal((n, N_COLUMNS)), name)
    features.labels = labels
    return features


@pytest.fixture(scope="module")
def train():
    return features_of(90, 0, "train_features")


@pytest.fixture(scope="module")
def test():
    return features_of(50, 1, "test_features")


@pytest.fixture(scope="module")
def transform(train):
    pca = faiss.PCAMatrix(N_COLUMNS, N_COMPONENTS, 0, True)
    pca.train(train.array)
    return pca


@pytest.fixture(scope="module")
def selection(train, test):
    return choose_images(SPLIT, train, test, ExperimentParameters("test", 2, 5, "both"))


def parameters(**changes):
    return GraphParameters(**(VALID["graph"] | {"k": K, "method": "exact"} | changes))


def reduced(features, transform):
    """Centred and multiplied with the matrix of the transform, in double precision."""
    matrix = faiss.vector_to_array(transform.A).reshape(transform.d_out, transform.d_in)
    offset = faiss.vector_to_array(transform.b)
    return features.array.astype(np.float64) @ matrix.T.astype(np.float64) + offset


def test_images_are_those_of_the_mode_and_the_seed(train, test):
    found = choose_images(SPLIT, train, test, ExperimentParameters("val", 1, 5, "none"))
    assert found.classes.tolist() == [0, 1, 3]
    assert found.is_novel.tolist() == [True, False, True]
    random_state = np.random.RandomState(5)
    chosen = []
    for label in (0, 3):
        positions = np.flatnonzero(train.labels == label)
        random_state.shuffle(positions)
        chosen.append(positions[0])
    base = np.flatnonzero(train.labels == 1)
    assert found.labeled_positions.tolist() == [*base, *chosen]


def test_more_images_than_any_class_has_are_refused(train, test):
    with pytest.raises(ValueError, match=r"n_labeled: got 80, but class \d \(\w\) has only"):
        choose_images(SPLIT, train, test, ExperimentParameters("test", 80, 5, "none"))


UNEVEN = {"base_classes_2": [], "novel_classes_2": [1, 2, 3, 4], "label_names": list("abcdef")}


def labeled(*counts):
    """Training images, so many of each class."""
    features = MemoryFeatures(np.zeros((sum(counts), 2)), "train_features")
    features.labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return features


@pytest.mark.parametrize(
    ("n_labeled", "unlabeled", "split", "expected", "level"),
    [
        (None, "background", {}, "56 of 56 labelled images are used, of 4 classes", "INFO"),
        (
            2, "background", {},
            "7 of 56 labelled images are used, of 4 classes; 49 left out, as "
            "n_labeled = 2 for every novel class (null: all); fewer than "
            "n_labeled = 2 have d (1)", "WARNING",
        ),
        (
            1, "both", {"base_classes_2": [4], "novel_classes_2": [1, 2]},
            "3 of 56 labelled images are used, of 3 classes; 13 without their labels, as "
            "n_labeled = 1 for every novel class (null: all); 40 of classes that "
            "mode test does not have", "INFO",
        ),
        (
            40, "train", {},
            "56 of 56 labelled images are used, of 4 classes; fewer than n_labeled = "
            "40 have a (3), b (12), d (1)", "WARNING",
        ),
    ],
)  # fmt: skip
def test_one_line_says_how_many_labels_are_used_and_why(
    caplog, n_labeled, unlabeled, split, expected, level
):
    caplog.set_level("INFO")
    train, test = labeled(3, 12, 40, 1), labeled(1, 1, 1, 1)
    experiment = ExperimentParameters("test", n_labeled, 1, unlabeled)
    log_choice(choose_images(UNEVEN | split, train, test, experiment), 56, experiment)
    assert [(record.message, record.levelname) for record in caplog.records] == [(expected, level)]


def test_no_more_than_five_classes_with_few_labels_are_named(caplog):
    split = UNEVEN | {}
    experiment = ExperimentParameters("test", 2, 1, "none")
    train = labeled(1, 1, 1, 1, 1, 1, 2)
    split["novel_classes_2"] = [1, 2, 3, 4, 5, 6, 7]
    split["label_names"] = list("abcdefg")
    log_choice(choose_images(split, train, train, experiment), 8, experiment)
    assert caplog.messages[0].endswith("have a (1), b (1), c (1), d (1), e (1) and 1 more")


def test_vectors_are_transformed_and_of_length_one_in_the_order_asked_for(test, transform):
    positions = np.array([7, 3, 3, 49, 0])
    found = vectors_of(test, positions, transform, "vectors")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, unit(reduced(test, transform)[positions]), atol=2e-6)


def test_other_dimensions_than_those_of_the_transform_are_refused(transform):
    wide = MemoryFeatures(np.ones((3, N_COLUMNS + 1)), "wide_features")
    with pytest.raises(ValueError, match=r"^wide_features: 13 columns, but pca_transform expects"):
        vectors_of(wide, np.arange(3), transform, "vectors")


def test_rows_that_overflow_are_named_as_in_the_file():
    features = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
    transform = faiss.PCAMatrix(6, 4)
    transform.train(features)
    faiss.copy_array_to_vector(np.full(24, 10, np.float32), transform.A)
    features[50] = 1e38
    positions = np.array([7, 50, 3])
    with pytest.raises(InputError, match=r"^train after pca_transform: .* 1 row.*, numbers 50;"):
        vectors_of(MemoryFeatures(features, "train"), positions, transform, "vectors")


@pytest.mark.parametrize("unlabeled", ["none", "background", "train"])
def test_labeled_images_alone_stand_before_a_stored_graph(train, transform, selection, unlabeled):
    found = training_vectors(selection, train, transform, unlabeled)
    expected = unit(reduced(train, transform)[selection.labeled_positions])
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_with_both_the_other_training_images_follow_them(train, transform, selection):
    found = training_vectors(selection, train, transform, "both")
    positions = [*selection.labeled_positions, *selection.unlabeled_positions]
    # All images of the four classes, each once.
    assert sorted(positions) == list(range(90))
    np.testing.assert_allclose(found, unit(reduced(train, transform)[positions]), atol=2e-6)


@pytest.mark.parametrize("unlabeled", ["background", "both"])
def test_vectors_that_hold_nan_are_named(train, transform, selection, unlabeled):
    broken = MemoryFeatures(train.array.copy(), "train_features")
    broken.labels = train.labels
    row = selection.labeled_positions[0]
    broken.array[row, 3] = np.nan
    with pytest.raises(ValueError, match=f"^train_features: .* numbers {row};"):
        training_vectors(selection, broken, transform, unlabeled)


def test_training_images_without_a_label_are_a_background_of_their_own(train, transform, selection):
    nodes = unlabeled_training_images(selection, train, transform, parameters())
    expected = reduced(train, transform)[selection.unlabeled_positions]
    np.testing.assert_allclose(nodes.vectors, expected, atol=1e-4)
    assert nodes.search_index.ntotal == len(expected)
    assert_nearest(nodes.neighbors.indices, similarities_of(expected, expected), K)
    dense = dense_graph(expected, K)
    np.testing.assert_allclose(nodes.neighbors.similarities, dense.similarities, atol=2e-6)


@pytest.mark.parametrize("n_background", [0, 3, 60])
def test_the_graph_of_both_is_that_over_all_images(train, test, transform, selection, n_background):
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((n_background, N_COMPONENTS)).astype(np.float32)
    background = graph.unlabeled_nodes(vectors, K, "exact", "background_vectors")
    completed = graph.insert_labeled_nodes(
        training_vectors(selection, train, transform, "both"),
        vectors_of(test, selection.test_positions, transform, "test"),
        background,
        k=K,
        keep_similarities=True,
    )
    labeled, others, tests = (
        reduced(features, transform)[positions]
        for features, positions in (
            (train, selection.labeled_positions),
            (train, selection.unlabeled_positions),
            (test, selection.test_positions),
        )
    )
    nodes = np.concatenate([labeled, others, vectors])
    similarities = similarities_of(nodes, nodes)
    assert_nearest(completed.neighbors, similarities, K)
    np.testing.assert_allclose(
        completed.similarities, dense_graph(nodes, K).similarities, atol=2e-6
    )
    assert_nearest(completed.test_neighbors.indices, similarities_of(tests, nodes), K)

    # Labels sit on the labelled images, which are the first nodes.
    found = diffusion_scores(
        completed.neighbors, None, completed.test_neighbors.indices, selection, diffusion(4)
    )
    exact = dense_graph(nodes, K)
    labels = [int(np.searchsorted(selection.classes, train.labels[position]))
              for position in selection.labeled_positions]  # fmt: skip
    nearest = np.argsort(-similarities_of(tests, nodes), axis=1)[:, :K]
    expected = dense_scores(dense_matrix(exact.indices), np.array(labels), nearest, 4, 4)
    assert relative_difference(found.scores_per_iteration, expected) < 1e-5
    assert found.iterations.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(found.test_classes, test.labels[selection.test_positions])


def diffusion(n_iterations, **changes):
    return DiffusionParameters(**(VALID["diffusion"] | {"n_iterations": n_iterations} | changes))


@pytest.mark.parametrize("n_unlabeled", [0, 1, K - 1, K])
def test_few_images_without_a_label_are_no_obstacle(train, test, transform, n_unlabeled):
    """As many novel images as are labelled, and a few more."""
    novel = np.flatnonzero(np.isin(train.labels, [1, 2]))
    of_class = {label: novel[train.labels[novel] == label] for label in (1, 2)}
    kept = np.concatenate([of_class[1][: 2 + n_unlabeled], of_class[2][:2]])
    rows = np.union1d(np.flatnonzero(np.isin(train.labels, [0, 3])), kept)
    small = MemoryFeatures(train.array[rows], "train_features")
    small.labels = train.labels[rows]
    selection = choose_images(SPLIT, small, test, ExperimentParameters("test", 2, 5, "train"))
    assert len(selection.unlabeled_positions) == n_unlabeled
    nodes = unlabeled_training_images(selection, small, transform, parameters())
    tests = vectors_of(test, selection.test_positions, transform, "test")
    labeled = training_vectors(selection, small, transform, "train")
    completed = graph.insert_labeled_nodes(labeled, tests, nodes, k=K)
    everything = reduced(small, transform)[
        [*selection.labeled_positions, *selection.unlabeled_positions]
    ]
    assert_nearest(completed.neighbors, similarities_of(everything, everything), K)


@pytest.mark.parametrize("edge_weight", ["constant", "gaussian", "locally_scaled"])
@pytest.mark.parametrize("every_step", [True, False])
def test_scores_are_those_of_the_procedure_with_the_parameters_given(
    train, test, transform, selection, edge_weight, every_step
):
    nodes = reduced(train, transform)[
        [*selection.labeled_positions, *selection.unlabeled_positions]
    ]
    exact = dense_graph(nodes, K)
    tests = reduced(test, transform)[selection.test_positions]
    nearest = np.argsort(-similarities_of(tests, nodes), axis=1)[:, :K].astype(np.int32)
    changes = {"sigma": 0.8, "local_neighbor": 3, "reciprocal": True, "sinkhorn_rounds": 1}
    steps = {"power": 1.5, "clamping": True, "class_prior": "labeled"}
    found = diffusion_scores(
        exact.indices, exact.similarities, nearest, selection,
        diffusion(3, edge_weight=edge_weight, **changes, **steps), every_step=every_step,
    )  # fmt: skip
    matrix = dense_matrix(exact.indices, exact.similarities, edge_weight, **changes)
    expected = dense_scores(matrix, selection.labeled_classes, nearest, 4, 3, **steps)
    expected = expected if every_step else expected[-1:]
    assert relative_difference(found.scores_per_iteration, expected) < 1e-4
    assert found.iterations.tolist() == ([0, 1, 2, 3] if every_step else [3])


# --- numbers that follow from the data ---


@pytest.fixture(scope="module")
def completed(train, test, transform):
    """All images of the training set: novel ones without a label follow the labelled ones."""
    selection = choose_images(SPLIT, train, test, ExperimentParameters("test", 4, 5, "both"))
    rows = [*selection.labeled_positions, *selection.unlabeled_positions]
    nodes = reduced(train, transform)[rows]
    exact = dense_graph(nodes, 20)
    tests = reduced(test, transform)[selection.test_positions]
    nearest = np.argsort(-similarities_of(tests, nodes), axis=1)[:, :20].astype(np.int32)
    return exact.indices, exact.similarities, nearest, selection


def graph_of(k):
    return GraphParameters(**(VALID["graph"] | {"k": k}))


def test_numbers_mean_what_they_say_to_the_last_bit(completed):
    neighbors, similarities, nearest, selection = completed
    scores, chosen = chosen_scores(
        neighbors, similarities, nearest, selection, graph_of(20), diffusion(3)
    )
    expected = propagate(
        propagation_matrix(neighbors, node_ordering="given"),
        selection.labeled_classes, nearest, selection.n_classes, 3,
    )  # fmt: skip
    np.testing.assert_array_equal(scores.scores_per_iteration, expected)
    assert chosen.as_metrics() == {
        "k": 20, "n_iterations": 3, "validation_accuracy": None, "validation_accuracy_per_k": {},
    }  # fmt: skip


VARIANTS = [
    {},
    {"edge_weight": "gaussian", "sigma": 0.8},
    {"edge_weight": "locally_scaled", "local_neighbor": 3},
    {"reciprocal": True, "sinkhorn_rounds": 2},
    {"power": 1.5, "clamping": True, "class_prior": "labeled"},
    {"class_prior": [1, 2, 3, 4]},
]


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize(
    ("k", "n_iterations"), [("auto", "auto"), ("auto", 2), (10, "auto"), ("auto", 0)]
)
def test_what_is_chosen_gives_the_scores_of_these_numbers(completed, changes, k, n_iterations):
    neighbors, similarities, nearest, selection = completed
    arguments = (neighbors[:, : 10 if k == 10 else 20], similarities, nearest, selection)
    scores, chosen = chosen_scores(*arguments, graph_of(k), diffusion(n_iterations, **changes))
    assert chosen.k in ((5, 10, 20) if k == "auto" else (10,))
    n_steps = chosen.steps.n_iterations
    assert n_steps == n_iterations if n_iterations != "auto" else n_steps >= 1
    assert scores.iterations.tolist() == list(range(n_steps + 1))
    expected = diffusion_scores(
        *(np.ascontiguousarray(array[:, : chosen.k]) for array in arguments[:3]),
        selection,
        diffusion(n_steps, **changes),
    )
    np.testing.assert_array_equal(scores.scores_per_iteration, expected.scores_per_iteration)


@pytest.mark.parametrize("changes", VARIANTS)
def test_the_choice_sees_the_variant(completed, monkeypatch, changes):
    neighbors, similarities, _, selection = completed
    seen = {}

    def record(matrix_of, *arguments, **_):
        seen.update(vars(arguments[-1]), matrix=matrix_of(10).to_scipy().toarray())

    monkeypatch.setattr(diffusion_method, "choose_diffusion", record)
    choose_parameters(
        neighbors, similarities, selection, graph_of("auto"), diffusion("auto", **changes)
    )
    kinds = ("edge_weight", "sigma", "local_neighbor", "reciprocal", "sinkhorn_rounds")
    of_matrix = {name: changes[name] for name in kinds if name in changes}
    expected = dense_matrix(neighbors[:, :10], similarities[:, :10], **of_matrix)
    np.testing.assert_allclose(seen["matrix"], expected, rtol=1e-4, atol=1e-6)
    adjusted = adjustments(changes.get("power", 1), changes.get("clamping", False))
    assert seen["adjustments"] == adjusted
    prior = changes.get("class_prior", "uniform")
    assert seen["class_prior"] == (prior if isinstance(prior, str) else tuple(prior))


@pytest.mark.parametrize(
    ("k", "stored_k", "n_nodes", "expected"),
    [("auto", 32, 1000, 30), ("auto", 16, 1000, 10), ("auto", 32, 7, 7), (40, 32, 7, 40)],
)
def test_no_more_neighbors_are_looked_for_than_there_are(k, stored_k, n_nodes, expected):
    found = GraphParameters(**(VALID["graph"] | {"k": k, "stored_k": stored_k}))
    # A number that is too large is refused elsewhere.
    assert searched_neighbors(found, n_nodes) == expected
