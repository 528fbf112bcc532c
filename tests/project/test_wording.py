"""What packages refuse in their own names, and what a run says of it in those that are typed."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import lowshot_kedro
from lowshot_kedro import diffusion, graph, networks, pca, protocol
from lowshot_kedro.classifiers import LabelSpreading, LogisticRegression, NearestNeighbors
from lowshot_kedro.devices import choose_device
from lowshot_kedro.download.published import select_files
from lowshot_kedro.errors import InputError, MissingFileError
from lowshot_kedro.images import TorchvisionImages
from lowshot_kedro.project.commands import Invocation
from lowshot_kedro.project.parameters import SECTIONS
from lowshot_kedro.project.wording import Wording
from tests.features import MemoryFeatures

SOURCES = Path(lowshot_kedro.__file__).parent
CONF = Path(__file__).parents[2] / "conf" / "base"

ROWS = np.eye(20, 8, dtype=np.float32) + 1
CLASSES = np.arange(20, dtype=np.int32) % 2
NEIGHBORS = np.zeros((3, 1), np.int32)


@pytest.fixture(scope="module")
def parameters() -> dict[str, Any]:
    """All parameters as conf/base has them."""
    found: dict[str, Any] = {}
    for path in CONF.glob("parameters*.yml"):
        found.update(yaml.safe_load(path.read_text()))
    return found


def propagate(**options: Any) -> None:
    matrix = diffusion.propagation_matrix(NEIGHBORS)
    diffusion.propagate(matrix, CLASSES[:2], NEIGHBORS, 2, 1, **options)


def train(**changed: float) -> None:
    settings: dict[str, Any] = {
        "lr": 0.1, "weight_decay": 0.0, "batch_size": 4, "max_iterations": 50, "momentum": 0.9,
        "device": torch.device("cpu"),
    } | changed  # fmt: skip
    LogisticRegression(2, seed=0, **settings).fit(100 * ROWS, CLASSES)


def select(n_labeled: int) -> None:
    labels = np.array([0, 1], np.int32)
    split = protocol.ClassSplit(np.array([0]), np.array([1]), ("ant", "bee"))
    protocol.select_images(split, labels, labels, n_labeled, 1)


# What is called, the argument it refuses, what Kedro users type for that, in a run and in a sweep
# where it is another, and what they are told of it.
REFUSED: dict[str, tuple[Callable[[], Any], str, str | None, str | None, str]] = {
    "graph memory": (
        lambda: graph.build_knn_graph(ROWS, 3, memory_budget_bytes=10**6),
        "memory_budget_bytes", "graph.memory_budget_gb", None, "got 0.001 GB, expected at least ",
    ),
    "graph method": (
        lambda: graph.require_method("hnsw", 8),
        "method", "graph.method", None, "got 'hnsw', expected one of: auto, exact, ",
    ),
    "graph k": (
        lambda: graph.build_knn_graph(ROWS, 0),
        "k", "graph.k", "sweep.diffusion.k", "got 0, expected 1..8192 neighbours",
    ),
    "graph metric": (
        lambda: graph.build_knn_graph(ROWS, 3, metric="hamming"),
        "metric", None, None, "got 'hamming', expected one of: cosine, euclidean",
    ),
    "diffusion memory": (
        lambda: propagate(memory_budget_bytes=10),
        "memory_budget_bytes", "diffusion.memory_budget_gb", None,
        "got 1e-08 GB, expected at least ",
    ),
    "diffusion slice": (
        lambda: propagate(class_slice=-1),
        "class_slice", "diffusion.class_slice", None, "got -1, expected an integer of at least 0",
    ),
    "diffusion weight": (
        lambda: diffusion.propagation_matrix(NEIGHBORS, edge_weight="flat"),
        "edge_weight", "diffusion.edge_weight", "sweep.diffusion.edge_weight",
        "got 'flat', expected one of: constant, ",
    ),
    "diffusion backend": (
        lambda: propagate(backend="gpu"),
        "backend", "diffusion.backend", None, "got 'gpu', expected one of: auto, native, ",
    ),
    "pca columns": (
        lambda: pca.train_pca(MemoryFeatures(ROWS, "f"), 9, True),
        "n_components", "pca.n_components", None,
        "got 9, but f has only 8 columns to train on; expected at most 8",
    ),
    "networks name": (
        lambda: networks.create_extractor("timm/resnet5O", "none", None),
        "name", "features.extractor", None, "timm has no model 'resnet5O'; did you mean ",
    ),
    "networks weights": (
        lambda: networks.create_extractor("ResNet10", "absent.pth", None),
        "weights", "features.weights", None, "no file absent.pth; expected none, package:",
    ),
    "networks size": (
        lambda: networks.create_extractor("timm/test_vit", "none", 90),
        "image_size", "features.image_size", None,
        "timm/test_vit does not take images of 90×90 pixels (",
    ),
    "trained network": (
        lambda: networks.create_extractor("snca", "package", None),
        "weights", "features.weights", None, "got 'package', expected the file of a network",
    ),
    "device": (
        lambda: choose_device("cuda"),
        "device", "features.device", None, "got 'cuda', but PyTorch finds no GPU",
    ),
    "protocol": (
        lambda: select(2),
        "n_labeled", "experiment.n_labeled", None, "got 2, but class 1 (bee) has only 1 training ",
    ),
    "logistic regression": (
        lambda: train(lr=1e36),
        "lr", "logistic_regression.lr", "sweep.logistic_regression.lr", "1e+36 is too large, ",
    ),
    "nearest neighbours": (
        lambda: NearestNeighbors(2, k=21).fit(ROWS, CLASSES),
        "k", None, "sweep.nearest_neighbors.k", "got 21, but there are only 20 labelled images",
    ),
    "label spreading": (
        lambda: LabelSpreading(
            2, alpha=0.5, n_neighbors=3, max_iterations=9, max_images=19, unlabeled=ROWS[:0]
        ).fit(ROWS, CLASSES),
        "max_images", None, "sweep.label_spreading.max_images",
        "got 19, but there are 20 images ",
    ),
    "images": (
        lambda: TorchvisionImages("FashonMNIST", Path()),
        "name", None, None, "got 'FashonMNIST', expected a class of torchvision.datasets (did ",
    ),
    "download": (
        lambda: select_files([0], ["concatenated_PCAR256.raw"], False),
        "n_background", None, None, "got 0, expected at least 1 to fetch vectors",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_parameter_is_named_as_it_was_given(
    case: str, parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    call, argument, in_run, in_sweep, text = REFUSED[case]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError) as caught:
        call()
    error = caught.value
    assert error.parameter == argument
    assert str(error).startswith(f"{argument}: {text}")
    for is_sweep, typed in ((False, in_run), (True, in_sweep or in_run)):
        shown = Wording(parameters, is_sweep).user_error(error)
        assert str(shown).startswith(f"{typed or argument}: {text}")
        assert (shown.parameter, shown.found) == (typed or argument, error.found)
        # The rest is the same text.
        assert str(shown).partition(": ")[2] == str(error).partition(": ")[2]


def test_an_error_from_another_process_is_named_alike(parameters: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        graph.build_knn_graph(ROWS, 0)
    sent = pickle.loads(pickle.dumps(caught.value))
    summed_up = InputError("1 of 2 runs failed", details={"diffusion/test": sent})
    assert Wording(parameters, is_sweep=True).message(summed_up) == (
        "1 of 2 runs failed: diffusion/test: sweep.diffusion.k: got 0, expected 1..8192 neighbours"
    )


def test_a_name_that_is_complete_stays(parameters: dict[str, Any]) -> None:
    error = InputError(parameter="graph.k", found=0, expected="more")
    assert Wording(parameters).message(error) == "graph.k: got 0, expected more"


def test_what_a_pipeline_makes_is_made_by_a_command(
    parameters: dict[str, Any], tmp_path: Path
) -> None:
    invocation = Invocation(tmp_path, str(tmp_path / "conf"), "imagenet", {})
    error = InputError("x.index is missing", made_by="graph")
    command = invocation.command("graph")
    assert "--env imagenet" in command
    shown = Wording(parameters, invocation=invocation).message(error)
    assert shown == f"x.index is missing; make it with: {command}"
    assert Wording(parameters).message(error) == "x.index is missing; the pipeline graph makes it"


def test_a_missing_file_of_weights_is_said_in_a_runs_names(parameters: dict[str, Any]) -> None:
    with pytest.raises(MissingFileError) as caught:
        networks.create_extractor("ResNet10", "absent.pth", None)
    assert Wording(parameters).message(caught.value).startswith("features.weights: no file absent")


def texts_of(path: Path) -> list[tuple[int, str]]:
    """All texts of a module but its docstrings."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
    ]


DOMAIN = (
    "graph", "diffusion", "pca", "networks", "images", "classifiers", "estimators", "probes",
    "snca", "training", "protocol.py", "metrics.py", "blocks.py", "devices.py", "memory.py",
    "threads.py", "locks.py", "errors.py", "input_files.py",
)  # fmt: skip


def typed_names() -> re.Pattern[str]:
    sections = "|".join(SECTIONS)
    return re.compile(rf"(?<![\w./])(?:{sections})\.[a-z]\w*(?!\w*\()")


@pytest.mark.parametrize("room", DOMAIN)
def test_no_package_names_a_parameter_of_a_run(room: str) -> None:
    place = SOURCES / room
    found = [
        f"{path.name}:{line}: {text}"
        for path in (place.rglob("*.py") if place.is_dir() else [place])
        for line, text in texts_of(path)
        if typed_names().search(text)
    ]
    assert found == []


def test_a_planted_name_is_found() -> None:
    for text in ("graph.memory_budget_gb: got 3", "allow more of sweep.label_spreading.max_images"):
        assert typed_names().search(text)
    for text in ("lowshot_kedro.graph.k", "data/graph.k", "see graph. It"):
        assert not typed_names().search(text)
