"""Old names of Python: they are the new ones, and a warning says which."""

import importlib
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

import lowshot_kedro
from lowshot_kedro import deprecated, diffusion, graph
from lowshot_kedro.diffusion import (
    Clamping,
    PropagationOptions,
    adjustments,
    choose_diffusion,
    choose_steps,
    expected_steps,
    propagate,
    propagation_matrix,
    scores_per_step,
    scores_when_reached,
)
from lowshot_kedro.graph import insert_labeled_nodes, normalize

# What stood in examples and tests of version 0.1, written out.
OLD_MODULES = {
    "estimator": "estimators.label_diffusion",
    "extractors": "networks",
    "extractors.resnet": "networks.resnet",
    "hooks": "project.hooks",
    "commands": "project.commands",
    "config": "project.config",
    "dataset_statistics": "project.dataset_statistics",
    "results": "project.results",
    "telemetry": "project.telemetry",
    "matrices": "blocks",
    "parallel": "threads",
    "resources": "progress",
}
OLD_NAMES = {
    ("diffusion", "MOST_COLUMNS"): ("diffusion", "MAX_COLUMNS"),
    ("diffusion", "MOST_STEPS"): ("diffusion", "MAX_STEPS"),
    ("diffusion", "NUMBERINGS"): ("diffusion", "NODE_ORDERINGS"),
    ("diffusion", "RestoreLabeled"): ("diffusion", "Clamping"),
    ("diffusion", "numbering_for"): ("diffusion", "choose_node_ordering"),
    ("graph", "CompletedGraph"): ("graph", "ExtendedGraph"),
    ("graph", "node_graph"): ("graph", "build_knn_graph"),
    ("images", "AbsentPictures"): ("images", "AbsentImages"),
    ("images", "Picture"): ("images", "LoadedImage"),
    ("images", "PictureFolder"): ("images", "ImageFolder"),
    ("images", "TorchvisionPictures"): ("images", "TorchvisionImages"),
    ("progress", "available_bytes"): ("memory", "available_bytes"),
    ("progress", "recent_peak_rss_bytes"): ("memory", "recent_peak_rss_bytes"),
    ("progress", "restart_peak"): ("memory", "restart_peak"),
    ("threads", "ahead"): ("threads", "prefetch"),
    ("threads", "map_ahead"): ("threads", "map_in_threads"),
}


@pytest.fixture
def forgotten():
    """Modules of old names as before the first import of them."""

    def forget():
        for old in OLD_MODULES:
            sys.modules.pop(f"lowshot_kedro.{old}", None)
            vars(lowshot_kedro).pop(old, None)

    forget()
    yield
    forget()


@pytest.mark.parametrize("old", OLD_MODULES)
@pytest.mark.usefixtures("forgotten")
def test_a_module_is_found_by_its_old_name_and_is_the_same(old):
    new = f"lowshot_kedro.{OLD_MODULES[old]}"
    moved = importlib.import_module(new)
    top, *_ = old.split(".")
    message = f"lowshot_kedro.{top} is now lowshot_kedro.{OLD_MODULES[top]}; the old name"
    with pytest.warns(FutureWarning, match=re.escape(message)) as caught:
        found = importlib.import_module(f"lowshot_kedro.{old}")
    assert found is moved
    assert moved.__spec__.name == moved.__name__ == new
    assert len(caught) == 1


@pytest.mark.usefixtures("forgotten")
def test_the_estimator_is_found_where_it_was():
    with pytest.warns(FutureWarning) as caught:
        from lowshot_kedro.estimator import LabelDiffusion
    assert LabelDiffusion is lowshot_kedro.LabelDiffusion
    # It names the line to change.
    assert caught[0].filename == __file__


def test_a_module_that_there_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"lowshot_kedro\.estimator_of_mine"):
        importlib.import_module("lowshot_kedro.estimator_of_mine")


@pytest.mark.parametrize(("module", "old"), OLD_NAMES)
def test_a_name_of_old_is_the_same_object(module, old):
    new_module, new = OLD_NAMES[module, old]
    message = f"lowshot_kedro.{module}.{old} is now lowshot_kedro.{new_module}.{new}; the old name"
    with pytest.warns(FutureWarning, match=re.escape(message)) as caught:
        found = getattr(importlib.import_module(f"lowshot_kedro.{module}"), old)
    assert found is getattr(importlib.import_module(f"lowshot_kedro.{new_module}"), new)
    assert caught[0].filename == __file__


def test_every_name_in_the_table_is_tested():
    of_table = {(m.split(".")[1], name) for m, names in deprecated.NAMES.items() for name in names}
    assert of_table == {*OLD_NAMES, ("graph", "complete_graph")}
    modules = {f"lowshot_kedro.{old}" for old in OLD_MODULES if "." not in old}
    assert modules == {*deprecated.MODULES}


@pytest.mark.parametrize("module", ["graph", "diffusion", "images", "progress", "threads"])
def test_a_name_that_there_never_was_is_refused_as_ever(module):
    message = f"module 'lowshot_kedro.{module}' has no attribute 'nothing'"
    with pytest.raises(AttributeError, match=message):
        importlib.import_module(f"lowshot_kedro.{module}").nothing  # noqa: B018


def test_the_package_warns_of_nothing_by_itself():
    code = "import lowshot_kedro, lowshot_kedro.graph, lowshot_kedro.diffusion"
    subprocess.run([sys.executable, "-W", "error::FutureWarning", "-c", code], check=True)


# --- calls ---


def vectors(n_rows, seed=0):
    return np.random.default_rng(seed).standard_normal((n_rows, 8)).astype(np.float32)


def test_the_unlabelled_nodes_may_still_come_one_by_one():
    labeled, test = normalize(vectors(5), 0, "labelled"), normalize(vectors(4, 1), 0, "test")
    nodes = graph.unlabeled_nodes(vectors(30, 2), 4, "exact", "background")
    with pytest.warns(FutureWarning, match=r"graph.complete_graph is now .*insert_labeled_nodes"):
        complete_graph = graph.complete_graph
    expected = insert_labeled_nodes(labeled, test, nodes, 4, True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calls = [
            complete_graph(labeled, test, *nodes, 4, True),
            complete_graph(
                labeled_vectors=labeled, test_vectors=test, background_vectors=nodes.vectors,
                background_index=nodes.search_index, background_neighbors=nodes.neighbors, k=4,
                keep_similarities=True,
            ),
        ]  # fmt: skip
    for found in calls:
        np.testing.assert_array_equal(found.neighbors, expected.neighbors)
        np.testing.assert_array_equal(found.similarities, expected.similarities)
        np.testing.assert_array_equal(found.test_neighbors.indices, expected.test_neighbors.indices)


def test_old_keywords_are_those_of_today():
    with pytest.warns(FutureWarning, match="restore_labeled of adjustments is now clamping") as c:
        assert adjustments(restore_labeled=True) == (Clamping(),)
    assert c[0].filename == __file__
    neighbors = np.roll(np.arange(40, dtype=np.int32), 7)[:, None]
    with pytest.warns(FutureWarning, match="numbering of propagation_matrix is now node_ordering"):
        matrix = propagation_matrix(neighbors, numbering="clustered")
    expected = propagation_matrix(neighbors, node_ordering="clustered")
    np.testing.assert_array_equal(matrix.rank, expected.rank)


def test_a_budget_for_memory_is_known_by_its_old_name():
    rows, first = vectors(30), normalize(vectors(5, 1), 0, "first")
    index = graph.index_in_memory(rows, "exact")
    nodes = graph.unlabeled_nodes(rows, 4, "exact", "background")
    for function, arguments in (
        (graph.build_index, (rows,)),
        (graph.index_in_memory, (rows, "exact")),
        (graph.background_graph, (index, rows, 4)),
        (graph.unlabeled_nodes, (rows, 4, "exact", "background")),
        (graph.build_knn_graph, (rows, 4)),
        (graph.insert_labeled_nodes, (first, first, nodes, 4)),
    ):
        message = f"memory_budget of {function.__name__} is now memory_budget_bytes"
        with pytest.warns(FutureWarning, match=message):
            function(*arguments, memory_budget=10**12)
        with pytest.raises(TypeError, match="both 'memory_budget_bytes' and its old name"):
            function(*arguments, memory_budget=10**12, memory_budget_bytes=10**12)


NEIGHBORS = np.stack([np.arange(40), np.roll(np.arange(40), 7)], axis=1).astype(np.int32)
NODES, CLASSES = np.arange(8, dtype=np.int32), np.arange(8, dtype=np.int32) % 2


def matrix_of(k):
    return propagation_matrix(np.ascontiguousarray(NEIGHBORS[:, :k]))


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (propagate, (CLASSES, NEIGHBORS, 2, 3)),
        (scores_per_step, (CLASSES, NEIGHBORS, 2)),
        (scores_when_reached, (CLASSES, NODES[-2:], 2, 0, 5)),
        (choose_steps, (NODES, CLASSES, 2)),
        (expected_steps, (NODES, CLASSES, 2)),
        (choose_diffusion, (NEIGHBORS, (2,), CLASSES, np.array([True, False]))),
    ],
)
def test_options_may_still_come_by_name(function, arguments):
    first = matrix_of if function is choose_diffusion else matrix_of(2)
    old = {"precision": "bfloat16", "backend": "native"}
    name = function.__name__
    message = f"backend, precision of {name} is now options=PropagationOptions(backend, precision)"
    with pytest.warns(FutureWarning, match=re.escape(message)) as caught:
        found = function(first, *arguments, **old)
    assert caught[0].filename == __file__
    expected = function(first, *arguments, PropagationOptions(**old))
    if function is scores_per_step:
        found, expected = ([next(steps) for _ in range(3)] for steps in (found, expected))
    if function in (choose_steps, choose_diffusion):
        found, expected = repr(found), repr(expected)
    np.testing.assert_array_equal(found, expected)


def test_names_and_options_are_put_together():
    arguments = matrix_of(2), CLASSES, NEIGHBORS, 2, 3
    with pytest.warns(FutureWarning):
        found = propagate(
            *arguments, options=PropagationOptions(class_prior=[1, 3]), precision="bfloat16"
        )
    expected = propagate(*arguments, PropagationOptions(precision="bfloat16", class_prior=[1, 3]))
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(TypeError, match="unexpected keyword argument 'presision'"):
        propagate(*arguments, presision="bfloat16")


def test_options_by_position_are_told_of():
    matrix = diffusion.propagation_matrix(np.zeros((2, 1), np.int32))
    arguments = (matrix, np.zeros(1, np.int32), np.zeros((1, 1), np.int32), 1, 1)
    with pytest.raises(TypeError, match=r"propagate\(\): got 0 for options, expected Propagation"):
        diffusion.propagate(*arguments, 0)
