"""The pages are followed word for word."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lowshot_kedro.diffusion import propagate, propagation_matrix
from lowshot_kedro.images.demonstration import digits
from tests.projects import ROOT, read_metrics, run

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_a_variant_of_ones_own() -> None:
    (example,) = blocks("diffusion.md", "python")
    names: dict[str, Any] = {"__name__": __name__}
    exec(example, names)
    rng = np.random.default_rng(0)
    matrix = propagation_matrix(rng.integers(0, 200, (200, 6), dtype=np.int32))
    labels = rng.integers(0, 3, 40).astype(np.int32)
    arguments = (matrix, labels, np.arange(200, dtype=np.int32)[:, None], 3, 3)
    native, scipy = (
        propagate(*arguments, backend=backend, adjustments=[names["Threshold"](0.3)])[-1]
        for backend in ("native", "scipy")
    )
    np.testing.assert_allclose(native, scipy, rtol=1e-5)
    smallest = np.where(native > 0, native, 1).min(axis=0)
    assert (smallest >= 0.3 * native.max(axis=0) * 0.999).all()
    assert (propagate(*arguments)[-1] > 0).sum() > (native > 0).sum()


def test_own_pictures(project: Path) -> None:
    names = ["cat", "dog", "horse"]
    demonstration = digits(seed=1, picture_size=32)
    for split, per_class in (("train", 6), ("test", 4)):
        pictures = getattr(demonstration, split)
        for label, name in enumerate(names):
            folder = project / "pictures" / split / name
            folder.mkdir(parents=True)
            chosen = [picture for picture, digit in pictures if digit == label][:per_class]
            for number, picture in enumerate(chosen):
                picture.save(folder / f"{number}.jpg")
    folder = project / "pictures" / "background"
    folder.mkdir()
    for number, picture in enumerate(demonstration.background[:40]):
        picture.save(folder / f"{number}.jpg")

    (script,) = blocks("own_pictures.md", "python")
    (project / "prepare.py").write_text(script)
    subprocess.run([sys.executable, "prepare.py"], cwd=project, check=True)
    (project / "conf" / "mine").mkdir()
    for name, content in zip(
        ("globals", "parameters"), blocks("own_pictures.md", "yaml"), strict=True
    ):
        (project / "conf" / "mine" / f"{name}.yml").write_text(content)

    run(
        project,
        env="mine",
        features={"image_size": 64, "num_workers": 0},
        pca={"n_components": 16},
        graph={"k": 5},
        logistic_regression={"max_iterations": 100},
    )
    metrics = read_metrics(project, "diffusion")
    assert metrics["n_classes"] == 3
    assert metrics["n_novel"] == 1
    assert metrics["n_test"] == 12
    assert metrics["n_nodes"] == 2 * 6 + 2 + 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_table_of_the_readme_is_that_of_a_run(demonstration_project: Path) -> None:
    with (demonstration_project / "data/08_reporting/metrics_table.csv").open() as file:
        rows = list(csv.DictReader(file))
    readme = (ROOT / "README.md").read_text()
    for row in rows:
        (line,) = re.findall(rf"^\| {row['method']} \| (.*) \|$", readme, re.MULTILINE)
        columns = [f"top{k}{group}" for k in (1, 5) for group in ("", "_novel", "_base")]
        # Another processor rounds the network's features differently.
        assert [float(value) for value in line.split(" | ")] == pytest.approx(
            [float(row[column]) for column in columns], abs=0.02
        )


def test_the_readme_counts_the_scans() -> None:
    assert f"{len(load_digits().target)} handwritten digits" in (ROOT / "README.md").read_text()
