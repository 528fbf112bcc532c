"""`kedro run --pipelines deepercluster` on a folder of images."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from lowshot_kedro import networks
from lowshot_kedro.datasets import ClusterAssignmentsDataset
from lowshot_kedro.images import ImageFolder
from lowshot_kedro.networks.unsupervised_file import read_unsupervised_network
from lowshot_kedro.project.config import UserError
from tests.projects import copy_project, read_arrays, run
from tests.quick_kedro import Command

pytestmark = pytest.mark.filterwarnings("ignore:register_new_resolver:UserWarning")

N_IMAGES = 150
RESULTS = ("06_models/deepercluster_network.safetensors", "06_models/cluster_centroids.hdf5",
           "07_model_output/cluster_assignments.csv",
           "08_reporting/deepercluster_training.csv")  # fmt: skip
COLUMNS = ["epoch", "learning_rate", "loss", "loss_super_class", "loss_sub_class", "accuracy",
           "accuracy_super_class", "accuracy_sub_class"]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, some of them deeper in it."""
    folder = tmp_path_factory.mktemp("photos")
    for number, digit in enumerate(load_digits().images[:N_IMAGES]):
        path = folder / ("" if number % 3 else f"of {number % 2}") / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((digit * 15).astype(np.uint8)).resize((32, 32)).save(path)
    return folder


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project without data: the folder is all that the pipeline needs."""
    project = tmp_path_factory.mktemp("empty") / "project"
    project.mkdir()
    return copy_project(project)


def quick(photos: Path, **parameters: Any) -> dict[str, Any]:
    return {
        "images_path": str(photos), "network": "small_vgg16", "sobel": True, "epochs": 4,
        "cluster_every": 2, "batch_size": 16,
        "n_super_classes": 8, "n_clusters": 10, "n_components": 8, "dimension": 32,
        "num_workers": 0, "n_clusters_shown": 3, "n_images": 4, "lr": 0.02, **parameters,
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained(empty: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the pipeline has run."""
    project = Path(shutil.copytree(empty, tmp_path_factory.mktemp("trained") / "project"))
    run(project, "deepercluster", deepercluster=quick(photos))
    return project


def test_all_results_are_there(trained: Path, photos: Path) -> None:
    data = trained / "data"
    _, description = read_unsupervised_network(data / RESULTS[0])
    assert (description.network, description.sobel, description.dimension) == (
        "small_vgg16", True, 32,
    )  # fmt: skip
    table = pd.read_csv(data / RESULTS[3])
    assert set(COLUMNS) <= set(table) and list(table["epoch"]) == [1, 2, 3, 4]
    # Clusters are found before the first and the third epoch.
    assert list(table["mean_squared_distance"].notna()) == [True, False, True, False]

    assignments = ClusterAssignmentsDataset(filepath=str(data / RESULTS[2])).load()
    assert list(assignments["image"]) == list(range(N_IMAGES))
    assert (photos / assignments["file"][0]).is_file()
    assert set(assignments["super_cluster"]) <= {0, 1} and assignments["cluster"].max() < 5

    # The clusters are those of the network that is there, by hand.
    centroids = read_arrays(data / RESULTS[1])
    extractor = networks.create_extractor("deepercluster", str(data / RESULTS[0]), None)
    blocks = networks.extract_features(extractor, ImageFolder(photos), batch_size=50, num_workers=0)
    features = np.concatenate([block.features for block in blocks.begin(data).starting_at(0)])
    rows = (features - centroids["mean"]) @ centroids["projection"].T
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    all_distances = np.linalg.norm(rows[:, None] - centroids["centroids"], axis=2)
    others = centroids["super_clusters"] != assignments["super_cluster"].to_numpy()[:, None]
    all_distances[others] = np.inf
    np.testing.assert_allclose(all_distances.min(axis=1), assignments["distance"], atol=1e-4)
    for name in ("deepercluster_curves", "cluster_panel"):
        with Image.open(data / "08_reporting" / f"{name}.png") as image:
            assert np.asarray(image.convert("L")).std() > 5


def test_a_second_run_keeps_what_is_done(
    trained: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: (trained / "data" / path).read_bytes() for path in RESULTS}
    with caplog.at_level(logging.INFO):
        run(trained, "deepercluster", deepercluster=quick(photos, n_images=2))
    assert "trained already, from the same: kept" in caplog.text
    assert "clustered already, from the same: kept" in caplog.text
    assert before == {path: (trained / "data" / path).read_bytes() for path in RESULTS}


def test_the_network_feeds_the_experiment(trained: Path) -> None:
    run(trained, "demonstration")
    features = {
        "extractor": "deepercluster", "image_size": None, "num_workers": 0,
        "weights": str(trained / "data" / RESULTS[0]),
    }  # fmt: skip
    run(
        trained, "features", "pca", "graph", "diffusion",
        features=features, pca={"n_components": 16}, graph={"k": 10},
        diffusion={"n_iterations": 3},
    )  # fmt: skip
    assert (trained / "data" / "08_reporting" / "diffusion_metrics.json").is_file()


def test_rotnet_clusters_nothing(
    empty: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = Path(shutil.copytree(empty, tmp_path / "project"))
    parameters = quick(photos, n_super_classes=4, n_clusters=1, epochs=1)
    with caplog.at_level(logging.INFO):
        run(project, "deepercluster", deepercluster=parameters)
    assert "k-means" not in caplog.text and "clustering" not in caplog.text
    table = pd.read_csv(project / "data" / RESULTS[3])
    assert list(table["loss_sub_class"]) == [0]
    assert list(table["loss"]) == list(table["loss_super_class"])
    assert not (project / "data" / RESULTS[2]).exists()


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    empty: Path, photos: Path, trained: Path, tmp_path: Path
) -> None:
    """Killed while it trains, in the second round."""
    project = Path(shutil.copytree(empty, tmp_path / "project"))
    values = {**quick(photos), "checkpoint_minutes": 0}
    typed = ",".join(f"deepercluster.{name}={value}" for name, value in values.items())
    options = ["--pipelines", "deepercluster", "--params", typed]
    command = Command(project, "run", *options)
    checkpoints = project / "data" / "06_models" / "deepercluster_checkpoints"
    deadline = time.monotonic() + 120
    while not any(
        int(path.name.removeprefix("step-")) >= 20 for path in checkpoints.glob("training-*/step-*")
    ):
        assert command.is_running(), command.wait()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(command.pid, signal.SIGKILL)
    assert command.wait()[0] == -signal.SIGKILL
    assert not any((project / "data" / path).exists() for path in RESULTS)
    run(project, "deepercluster", deepercluster=values)
    for path in RESULTS[1:]:
        assert (project / "data" / path).read_bytes() == (trained / "data" / path).read_bytes()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_clusters": 400}, r"deepercluster.n_clusters: got 400, expected .*150"),
        ({"batch_size": 1024}, r"deepercluster.batch_size: got 1024, .*150 images"),
        ({"weights": "absent.pth"}, r"deepercluster.weights: no file absent.pth"),
        ({"device": "cuda"}, r"deepercluster.device: got 'cuda', but PyTorch finds no GPU"),
        ({"images_path": "absent"}, r".*absent.*no such folder"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(
    empty: Path, photos: Path, tmp_path: Path, parameters: dict[str, Any], message: str
) -> None:
    project = Path(shutil.copytree(empty, tmp_path / "project"))
    with pytest.raises(UserError, match=f"^{message}"):
        run(project, "deepercluster", deepercluster=quick(photos, **parameters))
    assert not list((project / "data").rglob("step-*"))
