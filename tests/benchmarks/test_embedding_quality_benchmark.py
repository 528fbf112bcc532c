"""The script that measures what embeddings are worth, on digits at which it means little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.conftest import Measured
from tests.benchmarks.digits import N_TRAINING, digits, write_digits
from tests.benchmarks.printed import rows

OPTIONS = ("--images-per-class", "12", "--threads", "1", "--device", "cpu", "--k", "3")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_digits(tmp_path_factory.mktemp("images")))


def nearest_is_right(labels: list[int]) -> float:
    """Top-1 accuracy by the nearest of the first twelve images of some classes, by the cosine."""
    pixels, classes = digits()
    unit = pixels.reshape(len(pixels), -1).astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1)[:, None]
    train = np.concatenate([np.flatnonzero(classes[:N_TRAINING] == label)[:12] for label in labels])
    test = N_TRAINING + np.flatnonzero(np.isin(classes[N_TRAINING:], labels))
    guesses = classes[train][(unit[test] @ unit[train].T).argmax(axis=1)]
    return float((guesses == classes[test]).mean())


def test_pixels_and_a_network_that_is_not_trained(results: Measured, images: str) -> None:
    text, content = results(
        "embedding_quality.py", *OPTIONS, "--fashion-mnist", images, "--embeddings", "pixels",
        "untrained", "--seeds", "1", "2", "--trainings", "0", "1",
    )  # fmt: skip
    expected = {"environment": [0, 7], "halves": [0, 1, 2, 3, 4]}
    for split, labels in expected.items():
        found = content["results"][split]
        assert [len(found[name]) for name in ("pixels", "untrained")] == [1, 2]
        (pixels,) = found["pixels"]
        (one, three) = pixels["knn"]["base"]["fresh"]
        assert (one["k"], three["k"]) == (1, 3)
        assert one["top1"] == nearest_is_right(labels)
        assert [entry["n_labeled"] for entry in pixels["knn"]["novel"]["results"]] == [1, 1, 5, 5]
        for n_labeled in ("1", "5"):
            for draw in pixels["diffusion"][n_labeled]:
                assert set(draw) == {"top1", "top1_novel", "top1_base"}
                # Much better than one guess in five or in ten.
                assert draw["top1"] > 0.5
        first, second = pixels["knn"]["novel"]["results"][0]["seeds"]
        assert (first, second) == (1, 2)
        assert pixels["knn"]["novel"]["results"][0]["top1_std"] > 0
        assert found["untrained"][0] != found["untrained"][1]
    assert "halves: 5 base and 5 novel classes, 120 labelled images" in text
    table = rows(text, "halves, top-1 (%): base classes, by neighbours")
    assert list(table) == ["pixels", "untrained"]
    assert table["pixels"][0] == f"{100 * nearest_is_right([0, 1, 2, 3, 4]):.1f}"
    assert "±" in table["untrained"][0]


def test_both_losses_train_a_network(results: Measured, images: str) -> None:
    _, content = results(
        "embedding_quality.py", *OPTIONS, "--fashion-mnist", images, "--embeddings", "SNCA",
        "cross-entropy", "untrained", "--splits", "halves", "--seeds", "1", "--epochs", "8",
        "--batch-size", "20", "--augmentation", "none",
    )  # fmt: skip
    found = {name: each for name, (each,) in content["results"]["halves"].items()}
    base = {name: each["knn"]["base"] for name, each in found.items()}
    best = {name: base[name]["fresh"][0]["top1"] for name in base}
    # So few images teach little, but something else than what was drawn.
    assert len(set(best.values())) == 3 and min(best.values()) > 0.4
    assert {name for name in base if "bank" in base[name]} == {"SNCA"}
    assert base["SNCA"]["bank"] != base["SNCA"]["fresh"]


def test_without_the_images_it_says_so(results: Measured, tmp_path: Path) -> None:
    text, content = results(
        "embedding_quality.py", "--fashion-mnist", str(tmp_path), "--splits", "halves"
    )
    assert content["results"] == {}
    assert f"skipped halves: {tmp_path} has no train-images-idx3-ubyte, plain or .gz" in text
