"""The published experiment on published files, against the procedure written down densely."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import pytest

from tests.projects import N_COMPONENTS, read_arrays, read_metrics, run

VECTORS = f"concatenated_PCAR{N_COMPONENTS}.raw"


class Expected(NamedTuple):
    scores: list[np.ndarray]
    accuracies: list[dict[str, float]]
    n_nodes: int


def published_procedure(
    folder: Path, mode: str, n_labeled: int, seed: int, unlabeled: str, n_background: int, k: int,
    n_iterations: int, sigma: float | None = None, power: float = 1.0,
) -> Expected:  # fmt: skip
    number = {"val": 1, "test": 2}[mode]
    split = json.loads((folder / "label_idx.json").read_text())
    novel = np.array(split[f"novel_classes_{number}"]) - 1
    classes = sorted([*novel, *(np.array(split[f"base_classes_{number}"]) - 1)])
    sets = {}
    for name in ("train", "val"):
        content = read_arrays(folder / "features" / f"{name}.hdf5")
        n = content["count"][0]
        keep = np.isin(content["all_labels"][:n], classes)
        labels = np.searchsorted(classes, content["all_labels"][:n][keep])
        sets[name] = content["all_feats"][:n][keep], labels
    (train, train_classes), (test, test_classes) = sets["train"], sets["val"]

    random_state = np.random.RandomState(seed)
    base_rows, novel_rows, left_rows = [], [], []
    for number, label in enumerate(classes):
        rows = np.nonzero(train_classes == number)[0]
        if label in novel:
            random_state.shuffle(rows)
            novel_rows += rows[:n_labeled].tolist()
            left_rows += rows[n_labeled:].tolist()
        else:
            base_rows += rows.tolist()
    chosen = base_rows + novel_rows

    pca = faiss.read_VectorTransform(str(folder / "features" / f"PCAR{N_COMPONENTS}.vt"))

    def unit(vectors: np.ndarray) -> np.ndarray:
        vectors = vectors.astype(np.float64)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    if unlabeled == "train":
        others = pca.apply(train[left_rows])
    else:
        raw = np.fromfile(folder / "features" / "f100m" / VECTORS, "<f4")
        others = raw.reshape(-1, N_COMPONENTS)[: n_background if unlabeled != "none" else 0]
    nodes = unit(np.vstack([pca.apply(train[chosen]), others]))
    n = len(nodes)

    def nearest(vectors: np.ndarray) -> np.ndarray:
        return np.argsort(-(vectors @ nodes.T), axis=1)[:, :k]

    adjacency = np.zeros((n, n))
    np.put_along_axis(adjacency, nearest(nodes), 1, axis=1)
    if sigma is not None:
        adjacency *= np.exp((2 * nodes @ nodes.T - 2) / sigma**2)
    weights = adjacency + adjacency.T
    weights /= weights.sum(axis=1, keepdims=True)
    test_links = np.zeros((len(test), n))
    np.put_along_axis(test_links, nearest(unit(pca.apply(test))), 1, axis=1)

    spread = np.zeros((n, len(classes)))
    spread[np.arange(len(chosen)), train_classes[chosen]] = 1
    spread /= spread.sum(axis=0)
    scores = [test_links @ spread]
    for _ in range(n_iterations):
        spread = weights @ spread
        spread /= spread.sum(axis=0)
        spread = spread**power
        spread /= spread.sum(axis=0)
        scores.append(test_links @ spread)

    is_novel = np.isin(classes, novel)[test_classes]
    accuracies = []
    for values in scores:
        ranking = np.argsort(-values.astype(np.float32), axis=1, kind="stable")
        entry = {}
        for top in (1, 5):
            hit = (ranking[:, :top] == test_classes[:, None]).any(axis=1)
            entry |= {
                f"top{top}": hit.mean(),
                f"top{top}_novel": hit[is_novel].mean(),
                f"top{top}_base": hit[~is_novel].mean(),
            }
        accuracies.append(entry)
    return Expected(scores, accuracies, n)


@pytest.mark.parametrize(
    ("mode", "n_labeled", "seed", "unlabeled", "n_background", "k", "class_slice", "backend"),
    [
        ("test", 2, 1, "background", 500, 10, 0, "auto"),
        ("test", 1, 2, "background", 700, 30, 4, "native"),
        ("val", 5, 3, "background", 40, 7, 1, "scipy"),
        ("test", 2, 1, "background", 500, 10, "auto", "torch"),
        ("test", 2, 1, "background", 0, 5, 0, "auto"),
        ("test", 2, 1, "none", 700, 5, 0, "auto"),
        ("val", 2, 4, "train", 700, 10, 0, "native"),
        ("test", 3, 5, "background", 700, 40, 2, "auto"),
    ],
)
def test_scores_and_accuracies_of_every_step(
    project: Path, published: Path, mode, n_labeled, seed, unlabeled, n_background, k, class_slice,
    backend,
) -> None:  # fmt: skip
    parameters = {
        "experiment": {
            "mode": mode, "n_labeled": n_labeled, "seed": seed, "unlabeled": unlabeled,
        },
        "pca": {"n_components": N_COMPONENTS},
        "graph": {"n_background": n_background, "k": k},
        "diffusion": {"n_iterations": 4, "class_slice": class_slice, "backend": backend},
    }  # fmt: skip
    if unlabeled == "background" and n_background:
        run(project, "graph", env="imagenet", **parameters)
    run(project, "diffusion", env="imagenet", **parameters)

    expected = published_procedure(
        published, mode, n_labeled, seed, unlabeled, n_background, k, n_iterations=4
    )
    found = read_arrays(project / "data" / "imagenet" / "07_model_output" / "diffusion_scores.hdf5")
    metrics = read_metrics(project, "diffusion", "imagenet")
    assert metrics["n_nodes"] == expected.n_nodes
    assert len(metrics["per_iteration"]) == 5
    for step, (scores, accuracies) in enumerate(
        zip(expected.scores, expected.accuracies, strict=True)
    ):
        difference = np.abs(found["scores_per_iteration"][step] - scores).sum()
        assert difference < 1e-6 * np.abs(scores).sum()
        assert metrics["per_iteration"][step] == pytest.approx({"iteration": step, **accuracies})
    np.testing.assert_array_equal(found["scores"], found["scores_per_iteration"][-1])


def test_variants_reach_the_engine(project: Path, published: Path) -> None:
    background = {"pca": {"n_components": N_COMPONENTS}, "graph": {"n_background": 400, "k": 9}}
    run(project, "graph", env="imagenet", **background)
    run(
        project,
        "diffusion",
        env="imagenet",
        experiment={"mode": "test", "n_labeled": 2, "seed": 1},
        diffusion={
            "n_iterations": 3, "edge_weight": "gaussian", "sigma": 0.9, "power": 1.5,
            "class_prior": "labeled", "memory_budget_gb": 1,
        },
        **background,
    )  # fmt: skip
    expected = published_procedure(
        published, "test", 2, 1, "background", 400, 9, n_iterations=3, sigma=0.9, power=1.5
    )
    found = read_arrays(project / "data" / "imagenet" / "07_model_output" / "diffusion_scores.hdf5")
    for step, scores in enumerate(expected.scores):
        ratios = found["scores_per_iteration"][step].sum(axis=0) / scores.sum(axis=0)
        # The prior: as many times as the class is more frequent than the average class.
        assert ratios.mean() == pytest.approx(1, rel=1e-5)
        assert ratios.max() / ratios.min() > 1.5
        difference = np.abs(found["scores_per_iteration"][step] - scores * ratios).sum()
        # Edge weights are made from similarities in single precision.
        assert difference < 1e-5 * np.abs(scores).sum()


def test_background_graph_is_exact_and_in_the_published_format(
    project: Path, published: Path
) -> None:
    parameters = {"pca": {"n_components": N_COMPONENTS}, "graph": {"n_background": 600, "k": 33}}
    run(project, "graph", env="imagenet", **parameters)

    raw = np.fromfile(published / "features" / "f100m" / VECTORS, "<f4")
    vectors = raw.reshape(-1, N_COMPONENTS)[:600].astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarities = vectors @ vectors.T
    expected = np.argsort(-similarities, axis=1)[:, :64]
    graphs = published / "knngraph"
    indices = np.fromfile(graphs / "ndis600_k64_I_11.int32", "<i4").reshape(600, 64)
    stored = np.fromfile(graphs / "ndis600_k64_D_11.float32", "<f4").reshape(600, 64)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(stored, np.take_along_axis(similarities, expected, 1), atol=1e-6)
    assert faiss.read_index(str(graphs / "ndis600.index")).ntotal == 600


def test_evaluation_runs_without_the_images(project: Path, published: Path) -> None:
    parameters = {
        "pca": {"n_components": N_COMPONENTS},
        "graph": {"n_background": 300, "k": 10},
        "logistic_regression": {"max_iterations": 50},
    }
    for pipeline in ("graph", "baseline", "diffusion", "evaluation"):
        run(project, pipeline, env="imagenet", **parameters)
    assert (project / "data" / "imagenet" / "08_reporting" / "neighbors.png").stat().st_size > 0
    assert not (published / "yfcc100m").exists()
    assert read_metrics(project, "combined", "imagenet")["n_test"] > 0
