"""The vectors that neighbour graphs are measured on, and what is taken for the truth about them."""

from __future__ import annotations

import gzip
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.projects import ROOT

N_IMAGES = 3


@pytest.fixture
def vectors(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The scripts' own modules lie beside the scripts."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("common.vectors")


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("common.truth")


@pytest.fixture
def fashion_mnist(tmp_path: Path) -> Path:
    """A folder with a few images in the format of Fashion-MNIST."""
    images = np.random.default_rng(0).integers(0, 256, (N_IMAGES, 28, 28), np.uint8)
    header = np.array([0x803, N_IMAGES, 28, 28], ">i4").tobytes()
    folder = tmp_path / "images"
    folder.mkdir()
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(header + images.tobytes()))
    return folder


def made(vectors: Any, folder: Path, images: Path, seed: int = 0, n_rows: int = 90) -> Any:
    folder.mkdir(exist_ok=True)
    return vectors.image_vectors(folder, n_rows, 12, seed, images)


def test_the_same_vectors_for_a_seed(vectors: Any, fashion_mnist: Path, tmp_path: Path) -> None:
    first = made(vectors, tmp_path / "first", fashion_mnist)
    again = made(vectors, tmp_path / "again", fashion_mnist)
    other = made(vectors, tmp_path / "first", fashion_mnist, seed=1)
    assert first.path.read_bytes() == again.path.read_bytes()
    assert not np.array_equal(first.mapped(), other.mapped())


def test_every_copy_is_another(vectors: Any, fashion_mnist: Path, tmp_path: Path) -> None:
    """Also where there are more copies than shifts, each of which is then turned."""
    found = made(vectors, tmp_path, fashion_mnist).mapped()
    assert found.shape == (90, 12)
    assert np.isfinite(found).all()
    assert len(np.unique(found, axis=0)) == 90
    similarities = (lengths_one := found / np.linalg.norm(found, axis=1)[:, None]) @ lengths_one.T
    assert similarities[~np.eye(90, dtype=bool)].max() < 0.9999


def test_digits_where_there_is_nothing_else(vectors: Any, tmp_path: Path) -> None:
    file = made(vectors, tmp_path, tmp_path / "missing", n_rows=4000)
    assert "digits" in file.description
    found = file.mapped()
    assert len(np.unique(found, axis=0)) == 4000
    assert np.linalg.matrix_rank(found) == 12


def test_a_file_that_is_there_is_not_made_again(
    vectors: Any, fashion_mnist: Path, tmp_path: Path
) -> None:
    path = made(vectors, tmp_path, fashion_mnist).path
    size = path.stat().st_size
    path.write_bytes(bytes(size))
    assert not made(vectors, tmp_path, fashion_mnist).mapped().any()
    path.write_bytes(bytes(size - 1))
    assert made(vectors, tmp_path, fashion_mnist).mapped().any()


def test_blocks_do_not_matter_to_readers(vectors: Any, fashion_mnist: Path, tmp_path: Path) -> None:
    file = made(vectors, tmp_path, fashion_mnist)
    mapped = file.mapped()
    expected = mapped / np.linalg.norm(mapped, axis=1)[:, None]
    np.testing.assert_array_equal(file.read(7, 50), mapped[7:50])
    blocks = list(file.part(50).normalized_blocks(16))
    assert [len(block) for block in blocks] == [16, 16, 16, 2]
    np.testing.assert_allclose(np.concatenate(blocks), expected[:50], rtol=1e-6)
    rows = np.array([80, 3, 3])
    np.testing.assert_allclose(file.taken(rows), expected[rows], rtol=1e-6)


def test_shifts_and_turns(vectors: Any) -> None:
    """Of an image with one bright pixel."""
    image = np.zeros((28, 28), np.uint8)
    image[14, 20] = 200
    copies = vectors.Copies(image.reshape(1, -1), seed=0, turned_from=25)
    taken, noisy = copies.take(np.arange(60), np.random.default_rng(0))
    assert noisy.tolist() == [number >= 25 for number in range(60)]
    shifted = taken[:25].reshape(25, 28, 28)
    places = [tuple(place) for place in np.argwhere(shifted)[:, 1:].tolist()]
    assert sorted(places) == [(row, column) for row in range(12, 17) for column in range(18, 23)]
    np.testing.assert_allclose(shifted.sum(axis=(1, 2)), 200, rtol=0.2)
    turned = taken[25:].reshape(35, 28, 28)
    # Interpolation spreads a pixel over its neighbours.
    np.testing.assert_allclose(turned.sum(axis=(1, 2)), 200, rtol=0.5)
    assert (np.count_nonzero(turned, axis=(1, 2)) > 1).all()


def test_a_file_of_something_else(vectors: Any, tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"something else entirely")
    with pytest.raises(ValueError, match="train-images-idx3-ubyte: no idx file of images"):
        made(vectors, tmp_path, tmp_path)


def test_vectors_of_ones_own(vectors: Any, tmp_path: Path) -> None:
    path = tmp_path / "own.raw"
    np.arange(12, dtype="<f4").tofile(path)
    assert vectors.vectors_of_file(path, 3, None).mapped().tolist()[3] == [9, 10, 11]
    assert vectors.vectors_of_file(path, 3, 2).n_rows == 2
    with pytest.raises(ValueError, match="5 rows are asked for, but it holds 4"):
        vectors.vectors_of_file(path, 3, 5)
    with pytest.raises(ValueError, match="no whole number of rows"):
        vectors.vectors_of_file(path, 5, None)


def test_recall(truth: Any) -> None:
    """Nodes 1 and 2 are equal, so either may stand for the other."""
    nodes = np.array([[1, 0], [0.8, 0.6], [0.8, 0.6], [0, 1]], np.float32)
    found = truth.truth_of(nodes[:1], iter([nodes[:3], nodes[3:]]), 2, lambda rows: nodes[rows])
    assert found.neighbors.tolist() in ([[0, 1]], [[0, 2]])
    twin = 3 - found.neighbors[0, 1]

    def recall(*row: int) -> tuple[float, float]:
        return tuple(found.recall(np.array([row], np.int32)))

    assert recall(0, 3 - twin) == (1, 1)
    assert recall(0, twin) == (0.5, 1)
    assert recall(0, 3) == (0.5, 0.5)
    assert recall(-1, 3) == (0, 0)
    with pytest.raises(ValueError, match="a node twice"):
        recall(0, 0)
    with pytest.raises(ValueError, match="expected \\(1, 2\\)"):
        recall(0, 1, 2)
