"""What is wrong is said in one message, before long work starts, and nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import h5py
import numpy as np
import pytest
from kedro.framework.session import KedroSession
from kedro.io import DatasetError
from PIL import Image

from lowshot_kedro.datasets import SafetensorsDataset
from lowshot_kedro.errors import TRACEBACK_VARIABLE, InputError
from lowshot_kedro.native import _library
from lowshot_kedro.networks.embedding import embedding_network
from lowshot_kedro.networks.embedding_file import EmbeddingDescription
from lowshot_kedro.project.config import UserError
from tests.images.helpers import encoded, write_shard
from tests.projects import (
    N_COMPONENTS,
    N_FEATURES,
    configure_kedro,
    kedro,
    run,
    write_features,
)

PARAMETERS: dict[str, Any] = {
    "pca": {"n_components": N_COMPONENTS},
    "graph": {"n_background": 500, "k": 10},
    "logistic_regression": {"max_iterations": 10},
}

TRAIN = "features/train.hdf5"
VECTORS = "features/f100m/concatenated_PCAR16.raw"
GRAPH = "knngraph/ndis500_k32_I_11.int32"


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut(name: str, n_bytes: int = 3) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-n_bytes])

    return change


def put_graph(folder: Path, *n_bytes: int) -> None:
    (folder / "knngraph").mkdir(exist_ok=True)
    for name, size in zip(("I_11.int32", "D_11.float32"), n_bytes, strict=True):
        (folder / f"knngraph/ndis500_k32_{name}").write_bytes(bytes(size))


def cut_published_graph(folder: Path) -> None:
    put_graph(folder, 999, 500 * 32 * 4)


def short_published_graph(folder: Path) -> None:
    put_graph(folder, 100 * 32 * 4, 100 * 32 * 4)


def put_nan(folder: Path) -> None:
    vectors = np.memmap(folder / VECTORS, dtype="<f4", mode="r+")
    vectors.reshape(-1, N_COMPONENTS)[[17, 123], 4] = np.nan
    vectors.flush()


def label(row: int, value: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with h5py.File(folder / TRAIN, "r+") as file:
            file["all_labels"][row] = value

    return change


def relabel(old: int, new: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with h5py.File(folder / TRAIN, "r+") as file:
            labels = file["all_labels"][()]
            file["all_labels"][...] = np.where(labels == old, new, labels)

    return change


def nan_features(folder: Path) -> None:
    with h5py.File(folder / TRAIN, "r+") as file:
        file["all_feats"][:, 3] = np.nan


def wrong_dtype(folder: Path) -> None:
    with h5py.File(folder / TRAIN, "r+") as file:
        shape = file["all_feats"].shape
        del file["all_feats"]
        file.create_dataset("all_feats", shape, dtype="i8")


def narrow_features(folder: Path) -> None:
    write_features(
        folder / TRAIN, np.zeros((400, N_FEATURES - 1), "f4"), np.arange(400, dtype="i4") % 8
    )


def split_without(key: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        split = json.loads((folder / "label_idx.json").read_text())
        del split[key]
        (folder / "label_idx.json").write_text(json.dumps(split))

    return change


def other_index(folder: Path) -> None:
    index = faiss.IndexFlatIP(N_COMPONENTS)
    index.add(np.zeros((499, N_COMPONENTS), "f4"))
    faiss.write_index(index, str(folder / "knngraph/ndis500.index"))


def index_of_distances(folder: Path) -> None:
    index = faiss.IndexFlatL2(N_COMPONENTS)
    index.add(np.zeros((500, N_COMPONENTS), "f4"))
    faiss.write_index(index, str(folder / "knngraph/ndis500.index"))


def wide_labels(folder: Path) -> None:
    with h5py.File(folder / TRAIN, "r+") as file:
        labels = file["all_labels"][()].astype("i8")
        labels[50] = 2**32 + 3
        del file["all_labels"]
        file["all_labels"] = labels


def features_elsewhere(folder: Path) -> None:
    with h5py.File(folder / TRAIN, "r+") as file:
        del file["all_feats"]
        file["all_feats"] = h5py.ExternalLink("other.hdf5", "all_feats")


def pipe_for_a_split(folder: Path) -> None:
    (folder / "label_idx.json").unlink()
    os.mkfifo(folder / "label_idx.json")


def deep_split(folder: Path) -> None:
    (folder / "label_idx.json").write_text("[" * 100_000)


def impossible_neighbor(folder: Path) -> None:
    neighbors = np.memmap(folder / GRAPH, dtype="<i4", mode="r+").reshape(500, 32)
    neighbors[7, 3] = 500
    neighbors.flush()


def nothing(folder: Path) -> None:
    pass


GRAPH_COMMAND = (
    r"make it with: \S*kedro run --env imagenet "
    r'--params ".*graph\.n_background=500,graph\.k=10.*" --pipelines graph'
)


@pytest.mark.parametrize(
    ("pipeline", "spoil", "changed", "message"),
    [
        # missing
        ("graph", remove(VECTORS), {}, rf"background_vectors: .*{VECTORS} is missing; make it with: \S*kedro run .*--pipelines pca"),
        ("diffusion", remove(GRAPH), {}, rf"background_graph: .*{GRAPH} is missing; {GRAPH_COMMAND}"),
        ("diffusion", remove("knngraph/ndis500.index"), {}, rf"background_index: .*is missing; {GRAPH_COMMAND}"),
        ("baseline", remove(TRAIN), {}, rf"train_features: .*{TRAIN} is missing; make it with: \S*kedro run .*--pipelines features"),
        ("diffusion", remove("label_idx.json"), {}, r"class_split: .*label_idx\.json is missing; put it there"),
        ("features", nothing, {}, r"found no images in AbsentImages\(.*\), expected at least one"),
        # cut off, or of another shape or type
        ("graph", cut(VECTORS), {}, rf"background_vectors: .*{VECTORS}: 44797 bytes are no whole number of rows of 16"),
        ("graph", nothing, {"pca": {"n_components": 33}}, r"background_vectors: .*concatenated_PCAR33\.raw is missing; make it with: \S*kedro run .*pca\.n_components=33.* --pipelines pca"),
        ("diffusion", cut(GRAPH), {}, rf"background_graph: .*{GRAPH}: 63997 bytes are no whole number of rows of 32"),
        ("diffusion", cut(GRAPH, 128), {}, rf"background_graph: .*{GRAPH}: holds 499 rows, but ndis500_k32_D_11.float32 500"),
        ("diffusion", cut("knngraph/ndis500.index", 999), {}, r"ndis500\.index: not a readable faiss index; is it cut off"),
        ("diffusion", index_of_distances, {}, r"background_index: .*ndis500\.index: compares by METRIC_L2, expected METRIC_INNER_PRODUCT"),
        ("baseline", wide_labels, {}, rf"train_features: .*{TRAIN}: all_labels\[50\] is 4294967299; expected integers of 32 bits"),
        ("baseline", features_elsewhere, {}, rf"train_features: .*{TRAIN}: all_feats is a link to other\.hdf5"),
        ("baseline", pipe_for_a_split, {}, r"class_split: .*label_idx\.json: is a named pipe, expected a file"),
        ("baseline", deep_split, {}, r"label_idx\.json: JSONDataset cannot read it \(maximum recursion depth exceeded"),
        ("baseline", nothing, {"graph": {"memory_budget_gb": 1e300}}, r"graph\.memory_budget_gb: got 1e\+300, expected a number of at least 0 and at most 1e\+09"),
        ("diffusion", other_index, {}, r"ndis500\.index: holds 499 vectors, expected graph\.n_background = 500"),
        ("baseline", cut(TRAIN, 999), {}, rf"train_features: .*{TRAIN}: not a readable HDF5 file; is it cut off"),
        ("diffusion", cut("features/PCAR16.vt", 999), {}, r"pca_transform: .*PCAR16\.vt: not a readable faiss transform"),
        ("diffusion", cut("label_idx.json"), {}, r"label_idx\.json: JSONDataset cannot read it"),
        ("baseline", wrong_dtype, {}, r"train_features: .*all_feats is int64 .*expected float32"),
        ("diffusion", narrow_features, {}, rf"{TRAIN}: 47 columns, but pca_transform expects 48"),
        ("graph", cut_published_graph, {}, r"background_graph: .*ndis500_k32_I_11\.int32: 999 bytes are no whole number of rows"),
        ("graph", short_published_graph, {}, r"background_graph: .*ndis500_k32_I_11\.int32: holds 100 rows of 32 columns, expected"),
        # content
        ("graph", put_nan, {}, r"background_vectors: found NaN or infinite values in 2 row\(s\), numbers 17, 123"),
        ("baseline", nan_features, {}, rf"{TRAIN}: found NaN or infinite values in \d+ row\(s\), numbers \d+"),
        ("baseline", label(5, 8), {}, r"train_features: label 8 in row 5 is out of range; expected 0\.\.7"),
        ("diffusion", label(5, -1), {}, r"train_features: label -1 in row 5 is out of range; expected 0\.\.7"),
        ("baseline", relabel(4, 6), {}, r"train_features: no images of class 4 \(class 4\)"),
        ("diffusion", impossible_neighbor, {}, r"background_graph: row 7, column 3 holds 500, expected -1 or 0\.\.499"),
        ("baseline", split_without("novel_classes_2"), {}, r"class_split: novel_classes_2 is missing"),
        # parameters that do not fit the data
        ("graph", nothing, {"graph": {"n_background": 701}}, r"concatenated_PCAR16\.raw: holds 700 rows, but 701 are asked for; lower graph\.n_background"),
        ("diffusion", nothing, {"graph": {"n_background": 0, "k": 1000}}, r"graph\.k: got 1000, but the graph has only \d+ nodes"),
        ("baseline", nothing, {"experiment": {"n_labeled": 300}}, r"experiment\.n_labeled: got 300, but class \d \(class \d\) has only \d+ training images"),
        ("graph", nothing, {"graph": {"method": "nearest"}}, r"graph\.method: got 'nearest', expected one of: auto, exact"),
        ("graph", nothing, {"graph": {"memory_budget_gb": 0.001}}, r"graph\.memory_budget_gb: got 0\.001 GB, expected at least [\d.]+ GB"),
        ("graph", nothing, {"graph": {"method": "IVF4096,Flat"}}, r"graph\.method: faiss cannot train 'IVF4096,Flat' on 500 vectors"),
        # parameters that are impossible or unknown
        ("graph", nothing, {"graph": {"kk": 3}}, r"graph\.kk: unknown parameter \(did you mean graph\.k\?\)"),
        ("graph", nothing, {"grahp": {"k": 3}}, r"grahp: unknown parameter \(did you mean graph\?\)"),
        ("graph", nothing, {"graph": {"k": 0}}, r"graph\.k: got 0, expected an integer from 1 to 1024"),
        ("graph", nothing, {"graph": {"k": "many"}}, r"graph\.k: got 'many', expected an integer"),
        ("graph", nothing, {"graph": {"stored_k": 0}}, r"graph\.stored_k: got 0, expected an integer from 1 to 1024"),
        ("diffusion", nothing, {"diffusion": {"backend": "gpu"}}, r"diffusion\.backend: got 'gpu', expected one of: auto, native"),
        ("baseline", nothing, {"experiment": {"mode": "train"}}, r"experiment\.mode: got 'train', expected one of: test, val"),
    ],
)  # fmt: skip
def test_message(
    project: Path, published: Path, pipeline: str, spoil: Callable[[Path], None],
    changed: dict[str, Any], message: str,
) -> None:  # fmt: skip
    if pipeline == "diffusion":
        run(project, "graph", env="imagenet", **PARAMETERS)
    spoil(published)
    before = {path for path in published.rglob("*") if path.is_file()}

    parameters = {name: {**PARAMETERS.get(name, {}), **values} for name, values in changed.items()}
    with pytest.raises(UserError, match=message):
        run(project, pipeline, env="imagenet", **{**PARAMETERS, **parameters})

    after = {path for path in published.rglob("*") if path.is_file()}
    left = {path for path in (project / "data").rglob("*") if path.is_file()}
    assert {path for path in after - before if path.suffix != ".index"} == set()
    assert not any("partial" in path.name for path in after | left)
    assert not list((project / "data").glob("**/08_reporting/*"))


def test_full_disk(project: Path, published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 40_000, 40_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = r"background_graph: .*ndis500_k32_I_11\.int32: the disk is too full, 125\.0 KiB needed but only 39\.1 KiB free"
    with pytest.raises(UserError, match=message):
        run(project, "graph", env="imagenet", **PARAMETERS)
    assert not list((published / "knngraph").iterdir())


FROM_IMAGES: dict[str, Any] = {
    "demonstration": {"enabled": False},
    "features": {"weights": "none", "image_size": 32, "num_workers": 0},
    "logistic_regression": {"max_iterations": 10},
}


def write_images(project: Path, train_labels: list[int], test_labels: list[int]) -> None:
    """Labelled lists, a class split and one background image in the place of raw data."""
    raw = project / "data" / "01_raw"
    image = encoded(Image.effect_noise((40, 40), 60).convert("RGB"))
    write_shard(raw / "yfcc100m", "00", "000", {"000.jpg": image})
    for name, labels in (("train", train_labels), ("test", test_labels)):
        (raw / name).mkdir()
        names = [f"{number}.jpg" for number in range(len(labels))]
        for file in names:
            (raw / name / file).write_bytes(image)
        listed = {"image_names": names, "image_labels": labels}
        (raw / f"{name}.json").write_text(json.dumps(listed))
    split = {
        "base_classes_1": [1],
        "novel_classes_1": [2],
        "base_classes_2": [1, 2],
        "novel_classes_2": [3, 4],
        "label_names": ["ant", "bee", "cat", "dog"],
    }
    (raw / "label_idx.json").write_text(json.dumps(split))


@pytest.mark.parametrize(
    ("train_labels", "test_labels", "n_labeled", "message"),
    [
        ([0, 0, 1, 2, 2], [0, 1, 2, 3], 2, r"no images of class 3 \(dog\), which class_split lists"),
        ([0, 1, 2, 2, 3, 3], [0], 3, r"experiment\.n_labeled: got 3, but class 2 \(cat\) has only 2"),
        ([0, 1, 2, 3], [4], 1, r"label 4 in row 0 is out of range; expected 0\.\.3"),
        ([0, 1, 2, 3, 4], [0], 1, r"label 4 in row 4 is out of range; expected 0\.\.3"),
        ([0, 1, 2, 3], [], 1, r"test_images: found no images in .*test\.json"),
    ],
)  # fmt: skip
def test_classes_that_do_not_go_with_the_images_are_refused_before_features_are_computed(
    project: Path, train_labels: list[int], test_labels: list[int], n_labeled: int, message: str
) -> None:
    write_images(project, train_labels, test_labels)
    experiment = {"n_labeled": n_labeled}
    with pytest.raises(UserError, match=message):
        run(project, "features", "baseline", **FROM_IMAGES, experiment=experiment)
    assert {path.name for path in (project / "data").iterdir()} == {"01_raw"}


def test_one_image_for_the_pca_is_refused_before_features_are_computed(project: Path) -> None:
    write_images(project, [0], [0])
    message = r"background_images: got 1 image, expected at least 2 to train a PCA on"
    with pytest.raises(UserError, match=message):
        run(project, "features", "pca", **FROM_IMAGES, pca={"n_components": 7})
    assert not list((project / "data").rglob("*.hdf5"))


def write_trained_network(path: Path) -> dict[str, Any]:
    """A network that returns 6 numbers, and the parameters that name it."""
    description = EmbeddingDescription(
        "small", 6, 32, 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    )
    state = embedding_network("small", 6).state_dict()
    SafetensorsDataset(filepath=str(path)).save((state, description.to_metadata()))
    return {"extractor": "snca", "weights": str(path), "image_size": None, "num_workers": 0}


def test_more_components_than_numbers_are_refused_before_features_are_computed(
    project: Path,
) -> None:
    write_images(project, [0], [0])
    parameters = {
        **FROM_IMAGES,
        "features": write_trained_network(project / "network.safetensors"),
        "pca": {"n_components": 7},
    }
    message = r'got 7, but the features of snca .* at most 6: --params "pca\.n_components=6"'
    with pytest.raises(UserError, match=message):
        run(project, "features", "pca", **parameters)
    parameters["features"] = {**parameters["features"], "image_size": 96}
    message = r"features\.image_size: got 96, but .* trained at 32 pixels; expected 32, or null"
    with pytest.raises(UserError, match=message):
        run(project, "features", "pca", **parameters)
    parameters["features"] = {**parameters["features"], "weights": "package"}
    message = r"features\.weights: got 'package', .* make it with: .*--pipelines snca"
    with pytest.raises(UserError, match=message):
        run(project, "features", "pca", **parameters)
    assert not list((project / "data").rglob("*.hdf5"))


def test_features_of_others_may_have_more_numbers_than_the_network_returns(project: Path) -> None:
    write_images(project, [0], [0])
    image = encoded(Image.new("RGB", (8, 8)))
    shards = project / "data" / "01_raw" / "yfcc100m"
    write_shard(shards, "00", "000", {f"{number:03d}.jpg": image for number in range(10)})
    folder = project / "data" / "04_feature" / "f100m"
    folder.mkdir(parents=True)
    features = np.random.default_rng(0).standard_normal((10, 9)).astype(np.float32)
    write_features(folder / "block0.hdf5", features, np.zeros(10, np.int32))
    network = write_trained_network(project / "network.safetensors")
    run(project, "features", "pca", **{**FROM_IMAGES, "features": network}, pca={"n_components": 7})
    (vectors,) = (project / "data").rglob("*.raw")
    assert vectors.stat().st_size == 10 * 7 * 4
    with h5py.File(folder.parent / "train.hdf5") as file:
        assert file["all_feats"].shape == (1, 6)
        assert np.linalg.norm(file["all_feats"][0]) == pytest.approx(1, rel=1e-6)


def test_absent_images_are_refused_at_once(project: Path, published: Path) -> None:
    message = r"background_images: found no images in AbsentImages\(.*yfcc100m"
    with pytest.raises(UserError, match=message):
        run(project, env="imagenet")


def test_classes_that_go_with_the_images_are_not_refused(project: Path) -> None:
    write_images(project, [0, 0, 1, 2, 2, 3, 3, 3], [0, 1, 2, 3, 3])
    run(project, "features", "baseline", **FROM_IMAGES, experiment={"n_labeled": 2})
    found = json.loads((project / "data/08_reporting/baseline_metrics.json").read_text())
    assert (found["n_classes"], found["n_test"]) == (4, 5)


def test_without_an_experiment_the_images_may_be_of_any_class(project: Path) -> None:
    write_images(project, [0, 0], [7])
    run(project, "features", **FROM_IMAGES)
    report = json.loads((project / "data/08_reporting/broken_images.json").read_text())
    assert {name: part["n_pictures"] for name, part in report.items()} == {
        "train": 2,
        "test": 1,
        "background": 1,
    }


def test_evaluation_refuses_results_of_another_experiment(project: Path, published: Path) -> None:
    for pipeline in ("graph", "baseline", "diffusion"):
        run(project, pipeline, env="imagenet", **PARAMETERS)
    message = (
        r"diffusion_metrics: made with experiment\.seed = 1, but this run has 2; run the diffusion "
        r"pipeline with the same parameters first"
    )
    with pytest.raises(UserError, match=message):
        run(project, "evaluation", env="imagenet", **PARAMETERS, experiment={"seed": 2})


def test_evaluation_names_results_that_are_incomplete(project: Path, published: Path) -> None:
    for pipeline in ("graph", "baseline", "diffusion"):
        run(project, pipeline, env="imagenet", **PARAMETERS)
    with pytest.raises(UserError, match=r"diffusion_metrics: holds no top3; run the diffusion"):
        run(project, "evaluation", env="imagenet", **PARAMETERS, evaluation={"top_k": [1, 3]})
    with h5py.File(project / "data/imagenet/07_model_output/baseline_scores.hdf5", "r+") as file:
        del file["classes"]
    with pytest.raises(UserError, match=r"baseline_scores: no array classes; found"):
        run(project, "evaluation", env="imagenet", **PARAMETERS)
    (project / "data/imagenet/08_reporting/baseline_metrics.json").write_text("{}")
    with pytest.raises(UserError, match=r"baseline_metrics: found nothing, expected experiment"):
        run(project, "evaluation", env="imagenet", **PARAMETERS)


def test_the_demonstration_never_overwrites_other_images(project: Path, published: Path) -> None:
    before = (published / "label_idx.json").read_bytes()
    with pytest.raises(UserError, match=r"demonstration\.enabled: got false"):
        run(project, "demonstration", env="imagenet")
    assert (published / "label_idx.json").read_bytes() == before


def test_what_is_missing_is_listed_in_the_order_to_make_it(project: Path) -> None:
    with pytest.raises(UserError) as caught:
        run(project, "diffusion")
    lines = str(caught.value).splitlines()
    commands = [line.rpartition("--pipelines ")[2].split()[0] for line in lines]
    order = ["demonstration", "features", "pca", "graph"]
    assert commands == sorted(commands, key=order.index)
    assert set(commands) == set(order)


def test_the_command_line_shows_one_line_without_a_traceback(project: Path) -> None:
    result = kedro(project, "run", "--pipeline", "features")
    assert result.returncode == 1
    lines = (result.stdout + result.stderr).splitlines()
    assert len(lines) == 3  # one for each collection of images
    (error,) = [line for line in lines if line.startswith("Error: ")]
    found = re.escape(f"Error: background_images: {project}/data/01_raw/yfcc100m is missing; ")
    # Where the environment is not activated, its kedro is named by its path.
    advice = r"make it with: \S*kedro run --pipelines demonstration"
    assert re.fullmatch(found + advice, error)
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize("program", [["-m", "kedro", "run"], ["-m", "lowshot_kedro"]])
def test_a_traceback_is_shown_where_it_is_wanted(project: Path, program: list[str]) -> None:
    arguments = ["--pipeline", "graph", "--params", "graph.method=hnsw"]
    environment = {**os.environ, "COLUMNS": "200", TRACEBACK_VARIABLE: "1"}
    result = subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=project, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 1
    *before, error = result.stderr.splitlines()
    assert error.startswith("Error: graph.method: got 'hnsw', expected one of: auto, exact, ")
    assert before[0] == "Traceback (most recent call last):"
    # Where faiss refused it, where the package did, and the run.
    *_, inner, outer = [line for line in before if re.match(r"[\w.]+Error: ", line)]
    assert inner.startswith("lowshot_kedro.errors.InputError: graph.method: got 'hnsw'")
    assert outer.startswith("lowshot_kedro.project.config.UserError: graph.method: got 'hnsw'")
    assert any("in require_method" in line for line in before)


def test_kernels_that_the_processor_has_not_got_are_refused_at_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOWSHOT_KERNELS", "fast")
    monkeypatch.setattr("lowshot_kedro.native._library._refused", _library._choose_kernels())
    with pytest.raises(UserError, match=r"^LOWSHOT_KERNELS: found 'fast', expected what this"):
        run(project, "demonstration")


def test_where_an_error_comes_from_is_logged_for_whoever_looks(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="lowshot_kedro.project.wording")
    with pytest.raises(UserError):
        run(project, "graph", graph={"method": "hnsw"})
    (record,) = [each for each in caplog.records if each.levelname == "DEBUG" and each.exc_info]
    assert "in require_method" in caplog.text
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], InputError)


@pytest.mark.parametrize(
    ("asked_for", "pipeline"), [("diffusion", " --pipelines diffusion"), (None, "")]
)
def test_what_only_memory_holds_is_made_by_the_pipeline_that_was_asked_for(
    project: Path, published: Path, asked_for: str | None, pipeline: str
) -> None:
    configure_kedro()
    with KedroSession.create(project, env="imagenet") as session, pytest.raises(UserError) as error:
        session.run(pipeline_names=asked_for and [asked_for], from_nodes=["diffusion.diffuse"])
    *_, line = str(error.value).splitlines()
    assert line.startswith(
        "diffusion.image_selection, extended_graph, graph_seconds: not kept on disk; "
    )
    assert f"kedro run --env imagenet{pipeline} (in {project})" in line


def test_an_environment_that_is_not_there(project: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"^--env: got 'imagnet', but there is no .*conf/imagnet \(did you mean imagenet\?\)$",
    ):
        run(project, "graph", env="imagnet")


def test_a_folder_without_settings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"conf/base: not there, expected the settings; .*--conf-s"):
        run(tmp_path, "graph")


def test_ddir_that_is_not_set(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DDIR", raising=False)
    with pytest.raises(UserError, match=r"^DDIR: this environment variable is not set; expected"):
        run(project, "graph", env="imagenet")


def test_a_defect_keeps_its_traceback(
    project: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> None:
        np.zeros(2) + np.zeros(3)

    monkeypatch.setattr("lowshot_kedro.graph.vectors.require_finite", broken)
    # Blocks are computed while a dataset saves them.
    with pytest.raises(DatasetError, match="broadcast") as caught:
        run(project, "graph", env="imagenet", **PARAMETERS)
    assert not isinstance(caught.value, UserError)
