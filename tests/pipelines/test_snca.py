"""`kedro run --pipeline snca` on the demonstration's images."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lowshot_kedro.datasets import HDF5FeaturesDataset
from lowshot_kedro.datasets.safetensors_file import SafetensorsDataset
from lowshot_kedro.networks.embedding_file import read_embedding_network
from lowshot_kedro.probes import knn_scores
from lowshot_kedro.project.config import UserError
from lowshot_kedro.project.hooks import Session
from tests.projects import ROOT, copy_project, read_arrays, read_metrics, run
from tests.quick_kedro import Command

pytestmark = pytest.mark.filterwarnings("ignore:register_new_resolver:UserWarning")

PAGE = ROOT / "docs" / "snca.md"
QUICK = {"epochs": 3, "num_workers": 0, "eval_k": [1, 5], "eval_seeds": [1, 2], "n_images": 3}
RESULTS = ("06_models/snca_network.safetensors", "06_models/snca_bank.hdf5",
           "08_reporting/snca_training.csv")  # fmt: skip
BASE, NOVEL = range(5), range(5, 10)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the demonstration's images, and nothing else."""
    project = tmp_path_factory.mktemp("digits") / "project"
    project.mkdir()
    copy_project(project)
    run(project, "demonstration")
    return project


@pytest.fixture(scope="module")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, in which the pipeline has run."""
    project = tmp_path_factory.mktemp("trained") / "project"
    shutil.copytree(digits, project)
    run(project, "snca", snca=QUICK)
    return project


def test_all_results_are_there(trained: Path) -> None:
    models, reporting = trained / "data" / "06_models", trained / "data" / "08_reporting"
    train = HDF5FeaturesDataset(filepath=str(models / "snca_train.hdf5")).load()
    test = HDF5FeaturesDataset(filepath=str(models / "snca_test.hdf5")).load()
    bank = HDF5FeaturesDataset(filepath=str(models / "snca_bank.hdf5")).load()
    _, description = read_embedding_network(models / "snca_network.safetensors")
    assert (description.network, description.dimension, description.image_size) == ("small", 64, 32)
    assert train.n_rows == test.n_rows == 599 and train.n_columns == 64

    # Row i of the bank is the i-th training image of a base class.
    base = np.isin(train.labels, BASE)
    np.testing.assert_array_equal(bank.labels, train.labels[base])
    rows = bank.read(0, bank.n_rows)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    # A remembered embedding is near to that of its own image.
    embeddings = train.read(0, train.n_rows)
    own = (rows * embeddings[base]).sum(axis=1).mean()
    assert own > (rows @ embeddings[base].T).mean()

    table = pd.read_csv(reporting / "snca_training.csv")
    assert list(table) == ["epoch", "learning_rate", "bank_momentum", "loss", "bank_top1"]
    assert list(table["epoch"]) == [1, 2, 3] and table["loss"].is_monotonic_decreasing
    for name in ("snca_curves", "snca_neighbors"):
        with Image.open(reporting / f"{name}.png") as image:
            assert np.asarray(image.convert("L")).std() > 5


def test_metrics_are_those_of_the_embeddings(trained: Path) -> None:
    metrics, models = read_metrics(trained, "snca"), trained / "data" / "06_models"
    train, test, bank = (
        HDF5FeaturesDataset(filepath=str(models / f"snca_{name}.hdf5")).load()
        for name in ("train", "test", "bank")
    )
    is_query = np.isin(test.labels, BASE)
    queries = test.read(0, test.n_rows)[is_query]
    is_base = np.isin(train.labels, BASE)
    galleries = {
        "bank": bank.read(0, bank.n_rows),
        "fresh": train.read(0, train.n_rows)[is_base],
    }
    for name, gallery in galleries.items():
        for entry in metrics["base"][name]:
            scores = knn_scores(gallery, bank.labels, queries, entry["k"], 0.05, 5)
            expected = np.mean(scores.argmax(axis=1) == test.labels[is_query])
            assert entry["top1"] == pytest.approx(expected)
            assert entry["top5"] is None
    assert metrics["base"]["n_classes"] == metrics["novel"]["n_classes"] == 5
    assert metrics["base"]["n_test"] + metrics["novel"]["n_test"] == 599
    asked = [(entry["n_labeled"], entry["k"]) for entry in metrics["novel"]["results"]]
    assert asked == [(1, 1), (1, 5), (5, 1), (5, 5)]
    assert metrics["experiment"]["snca"]["epochs"] == 3
    # The table of epochs ends with what the bank is worth then, with the first k.
    table = pd.read_csv(trained / "data" / "08_reporting" / "snca_training.csv")
    assert table["bank_top1"].iloc[-1] == pytest.approx(
        metrics["base"]["bank"][0]["top1"], abs=0.01
    )


def test_a_second_run_keeps_what_is_done(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {path: (trained / "data" / path).read_bytes() for path in RESULTS}
    with caplog.at_level(logging.INFO):
        run(trained, "snca", snca={**QUICK, "n_images": 4})
    assert "trained already, from the same: kept" in caplog.text
    assert caplog.text.count("made from the same: kept") == 2
    assert before == {path: (trained / "data" / path).read_bytes() for path in RESULTS}


def test_the_network_feeds_the_experiment(trained: Path) -> None:
    features = {
        "extractor": "snca", "image_size": None, "num_workers": 0,
        "weights": str(trained / "data" / "06_models" / "snca_network.safetensors"),
    }  # fmt: skip
    run(
        trained, "features", "pca", "graph", "diffusion",
        features=features, pca={"n_components": 32}, graph={"k": 10},
        diffusion={"n_iterations": 3},
    )  # fmt: skip
    ours = read_arrays(trained / "data" / "06_models" / "snca_train.hdf5")
    theirs = read_arrays(trained / "data" / "04_feature" / "train.hdf5")
    np.testing.assert_allclose(theirs["all_feats"], ours["all_feats"], atol=1e-6)
    final = read_metrics(trained, "diffusion")["final"]
    assert final["top1_base"] > 0.3 > 1 / 10

    with pytest.raises(UserError, match=r"^pca.n_components: got 256, .* only 64 numbers"):
        run(trained, "features", "pca", features=features)
    with pytest.raises(UserError, match=r"^features.image_size: got 96, .* trained at 32 pixels"):
        run(trained, "features", features={**features, "image_size": 96})


def test_a_graph_over_the_bank_needs_no_second_pass(trained: Path, tmp_path: Path) -> None:
    """As docs/snca.md says."""
    project = Path(shutil.copytree(trained, tmp_path / "project"))
    (entry,) = re.findall(r"(?s)```yaml\n(background_features:.*?)```", PAGE.read_text())
    (project / "conf" / "local" / "catalog.yml").write_text(entry)
    for folder in ("04_feature", "05_model_input"):
        shutil.rmtree(project / "data" / folder, ignore_errors=True)
    run(project, "pca", "graph", pca={"n_components": 32})

    rows = read_arrays(project / "data" / "06_models" / "snca_bank.hdf5")["all_feats"]
    folder = project / "data" / "05_model_input" / "knngraph"
    found = np.fromfile(folder / "ndisall_k32_I_11.int32", np.int32).reshape(len(rows), 32)
    centred = rows - rows.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    vectors = centred @ axes[:32].T
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = np.argsort(-(vectors @ vectors.T), axis=1)[:, :5]
    pairs = zip(found[:, :5], expected, strict=True)
    assert np.mean([len({*ours} & {*theirs}) / 5 for ours, theirs in pairs]) > 0.99


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(digits: Path, tmp_path: Path) -> None:
    options = ["--pipeline", "snca", "--params",
               "snca.epochs=6,snca.checkpoint_minutes=0"]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for project in (whole, killed):
        shutil.copytree(digits, project)
    status, printed = Command(whole, "run", *options).wait()
    assert status == 0, printed

    checkpoints = killed / "data" / "06_models" / "snca_checkpoints"
    random = np.random.default_rng(0)
    for n_steps in (1, 9):
        command = Command(killed, "run", *options)
        deadline = time.monotonic() + 120
        while not any(
            int(path.name.removeprefix("step-")) >= n_steps
            for path in checkpoints.glob("training-*/step-*")
        ):
            assert command.is_running(), command.wait()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(random.random() / 5)
        os.kill(command.pid, signal.SIGKILL)
        assert command.wait()[0] == -signal.SIGKILL
        assert not any((killed / "data" / path).exists() for path in RESULTS)
    status, printed = Command(killed, "run", *options).wait()
    assert status == 0, printed
    assert "continuing with epoch" in " ".join(printed.split())
    for path in RESULTS:
        assert (whole / "data" / path).read_bytes() == (killed / "data" / path).read_bytes(), path


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"snca": {"eval_k": [1000]}}, r"snca.eval_k: got \[1000\], expected one up to 304"),
        ({"snca": {"network": "timm/nothing"}}, r"snca.network: timm has no model 'nothing'"),
        ({"snca": {"weights": "absent.pth"}}, r"snca.weights: no file absent.pth"),
        ({"snca": {"device": "cuda"}}, r"snca.device: got 'cuda', but PyTorch finds no GPU"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(
    digits: Path, parameters: dict[str, dict[str, object]], message: str
) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        run(digits, "snca", **parameters)
    assert not list((digits / "data" / "06_models").glob("snca_checkpoints/training-*/step-*"))


def test_a_bank_of_other_images_is_refused(trained: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(trained, tmp_path / "project"))
    models = project / "data" / "06_models"
    # Of the classes of the other mode.
    with pytest.raises(UserError, match=r"snca_network: was trained on other images.*kedro run"):
        run_evaluation(project, experiment={"mode": "val"})
    network = SafetensorsDataset(filepath=str(models / "snca_network.safetensors"))
    assert network.load()[1]["network"] == '"small"'


def test_a_dataset_of_another_pipeline_is_said_to_be_one(digits: Path) -> None:
    with (
        Session.create(project_path=digits) as session,
        pytest.raises(UserError, match=r"^--to-outputs: got 'snca_network'.*add --pipelines snca$"),
    ):
        session.run(to_outputs=["snca_network"])


def run_evaluation(project: Path, **parameters: object) -> None:
    with Session.create(
        project_path=project, runtime_params={"snca": QUICK, **parameters}
    ) as session:
        session.run(pipeline_names=["snca"], node_names=["evaluate_snca"])
