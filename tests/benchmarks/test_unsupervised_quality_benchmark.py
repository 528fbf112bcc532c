"""The script that measures what is learnt without labels, on digits at which it means little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.conftest import Measured
from tests.benchmarks.digits import N_TRAINING, digits, write_digits
from tests.benchmarks.printed import rows

OPTIONS = (
    "--threads", "1", "--device", "cpu", "--workers", "0", "--measured-clusters", "10",
    "--components", "16", "--dimension", "16", "--k", "1", "--neighbors", "10",
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_digits(tmp_path_factory.mktemp("images")))


def nearest_is_right(n_columns: int) -> float:
    """Top-1 accuracy by the nearest training image, by the cosine of centred, projected rows."""
    pixels, classes = digits()
    flat = pixels.reshape(len(pixels), -1).astype(np.float64)
    centred = flat - flat[:N_TRAINING].mean(axis=0)
    axes = np.linalg.svd(centred[:N_TRAINING], full_matrices=False)[2][:n_columns]
    unit = centred @ axes.T
    unit /= np.linalg.norm(unit, axis=1)[:, None]
    guesses = classes[(unit[N_TRAINING:] @ unit[:N_TRAINING].T).argmax(axis=1)]
    return float((guesses == classes[N_TRAINING:]).mean())


def test_pixels_and_a_network_that_is_not_trained(results: Measured, images: str) -> None:
    text, content = results(
        "unsupervised_quality.py", *OPTIONS, "--fashion-mnist", images, "--methods", "untrained",
        "pixels", "--trainings", "0", "1", "--labels", "1", "5", "--seeds", "1", "2",
    )  # fmt: skip
    found = content["results"]
    assert [len(found[name]) for name in ("untrained", "pixels")] == [2, 1]
    assert found["untrained"][0]["knn"] != found["untrained"][1]["knn"]
    (pixels,) = found["pixels"]
    assert pixels["knn"]["PCA"] == pytest.approx(nearest_is_right(16), abs=0.011)
    assert 0.5 < pixels["clusters"]["10"] < 1
    # Much better than one guess in ten.
    assert pixels["linear"] > 0.8
    for kind in ("PCA", "whitened"):
        one, five = (np.mean(pixels["diffusion"][kind][n]) for n in ("1", "5"))
        assert 0.4 < one < five
    table = rows(text, "the diffusion over PCA vectors, n labels a class, top-1 (%)")
    assert list(table) == ["untrained", "pixels"]
    assert all("±" in cell for cell in table["pixels"])


def test_methods_train_a_network_and_what_is_known_is_kept(
    results: Measured, images: str, tmp_path: Path
) -> None:
    options = (
        "unsupervised_quality.py", *OPTIONS, "--fashion-mnist", images, "--trainings", "0",
        "--labels", "1", "--seeds", "1", "--images", "160", "--epochs", "2", "--cluster-every",
        "1", "--batch-size", "32", "--super-classes", "8", "--clusters", "8", "--augmentation",
        "none", "--folder", str(tmp_path), "--part", "validation",
    )  # fmt: skip
    text, content = results(*options, "--methods", "DeeperCluster", "DeepCluster", "RotNet")
    found = {name: each for name, (each,) in content["results"].items()}
    assert len({str(each["knn"]) for each in found.values()}) == 3
    own = {name: set(each["own_clusters"]) for name, each in found.items()}
    assert own == {
        "DeeperCluster": {"super-clusters", "clusters"},
        "DeepCluster": {"clusters"},
        "RotNet": set(),
    }
    assert all(each["seconds_of_training"] > 0 for each in found.values())
    table = rows(text, "mutual information of clusters with the classes")
    assert table["RotNet"][1:] == ["", ""] and "" not in table["DeeperCluster"]
    # Seconds would be others, had it trained again.
    _, again = results(*options, "--methods", "RotNet")
    assert again["results"] == {"RotNet": content["results"]["RotNet"]}


def test_without_the_images_it_says_so(results: Measured, tmp_path: Path) -> None:
    text, content = results("unsupervised_quality.py", "--fashion-mnist", str(tmp_path))
    assert content["results"] == {}
    assert f"skipped Fashion-MNIST: {tmp_path} has no train-images-idx3-ubyte" in text
