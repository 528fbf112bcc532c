"""The pages are followed word for word."""

from __future__ import annotations

import ast
import csv
import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from lowshot_kedro import LabelDiffusion
from lowshot_kedro.diffusion import PropagationOptions, propagate, propagation_matrix
from lowshot_kedro.images import write_zip_shards
from lowshot_kedro.project.config import Project, UserError
from tests.own_images import LABELED, SMALL, run_own_images, write_own_images
from tests.pipelines.test_public_data import write_mnist_files
from tests.projects import ROOT, read_arrays, read_metrics, run

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_first_code_of_the_readme_is_ten_lines_that_print_what_it_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    readme = (ROOT / "README.md").read_text()
    # What comes before it is a command alone.
    before, first, after = readme.partition("```python\n")
    assert re.findall(r"^    .*", before, re.MULTILINE) == ["    lowshot label photos"]
    assert first and "```" not in before
    lines = after.partition("```")[0]
    assert len([line for line in lines.splitlines() if line]) == 10
    exec(lines, {})
    # Kedro, which other tests have started, logs there too.
    printed = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"\d\d\.\d%", printed)
    for page in (readme, (ROOT / "docs" / "label_diffusion.md").read_text()):
        (stated,) = re.findall(r"([\d.]+) % of the other", page)
        # Another processor rounds differently.
        assert float(printed[:-1]) == pytest.approx(float(stated), abs=0.5)

    assert blocks("label_diffusion.md", "python")[0] == lines
    notebook = nbformat.read(ROOT / "notebooks" / "label_diffusion.ipynb", as_version=4)
    assert next(c.source for c in notebook.cells if c.cell_type == "code") == lines.strip()


def test_label_diffusion() -> None:
    names: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for block in blocks("label_diffusion.md", "python"):
            exec(block, names)
    (warning,) = caught
    assert "reached by no label within 2 steps" in str(warning.message)
    unlabeled, digits = names["y"] == -1, names["digits"]

    def accuracy(found: np.ndarray) -> float:
        return float((found == digits)[unlabeled].mean())

    usual = names["model"].transduction_
    assert accuracy(usual) > 0.9
    # The same graph, from scikit-learn and from faiss.
    for name in ("of_links", "of_pair"):
        assert (names[name].transduction_ == usual).mean() > 0.99, name
    assert accuracy(names["weighted"].transduction_) > 0.9
    in_words = names["in_words"].transduction_
    assert (in_words[:3] == ["zero", "one", "two"]).all()
    assert (in_words == names["words"][digits])[unlabeled].mean() > 0.9
    of_more, sure = names["of_more"], names["sure"]
    hidden = names["more"] == -1
    right = of_more.transduction_ == digits
    # What the page says of rows above the threshold, and of shares with a temperature.
    assert sure[hidden].mean() == pytest.approx(0.969, abs=0.02)
    assert right[sure].mean() == pytest.approx(0.992, abs=0.004)
    assert right[hidden].mean() == pytest.approx(0.984, abs=0.004)
    shares, probabilities = of_more.label_distributions_[hidden], names["probabilities"][hidden]
    assert shares.max(axis=1).mean() == pytest.approx(0.86, abs=0.02)
    assert probabilities.max(axis=1).mean() == pytest.approx(0.97, abs=0.02)
    np.testing.assert_array_equal(shares.argmax(axis=1), probabilities.argmax(axis=1))
    lost, found = names["lost"], names["found"]
    assert lost.sum() == names["hasty"].n_unreached_ > 0
    assert (found != -1).all() and (found == digits)[lost].mean() > 0.7
    new = names["of_pair"].predict((names["new_neighbors"], None))
    assert (new == digits[:3]).all()


def test_the_page_of_label_diffusion_names_all_parameters_and_their_defaults() -> None:
    page = (ROOT / "docs" / "label_diffusion.md").read_text()
    (section,) = re.findall(r"^## Parameters\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    table = re.findall(r"^\| `(\w+)` \| `?([^|`]+)`? \| ", section, re.MULTILINE)
    assert {name: ast.literal_eval(default) for name, default in table} == (
        LabelDiffusion().get_params()
    )


def test_a_variant_of_ones_own() -> None:
    (example,) = blocks("diffusion.md", "python")
    names: dict[str, Any] = {"__name__": __name__}
    exec(example, names)
    rng = np.random.default_rng(0)
    matrix = propagation_matrix(rng.integers(0, 200, (200, 6), dtype=np.int32))
    labels = rng.integers(0, 3, 40).astype(np.int32)
    arguments = (matrix, labels, np.arange(200, dtype=np.int32)[:, None], 3, 3)
    variant = names["Threshold"](0.3)
    native, scipy = (
        propagate(*arguments, PropagationOptions(backend=backend, adjustments=[variant]))[-1]
        for backend in ("native", "scipy")
    )
    np.testing.assert_allclose(native, scipy, rtol=1e-5)
    smallest = np.where(native > 0, native, 1).min(axis=0)
    assert (smallest >= 0.3 * native.max(axis=0) * 0.999).all()
    assert (propagate(*arguments)[-1] > 0).sum() > (native > 0).sum()


@pytest.fixture
def own_images(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as docs/own_images.md describes it."""
    images = write_own_images(project)
    monkeypatch.setenv("IMAGES", str(images))
    return images


def test_own_images(project: Path, own_images: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, first, second = blocks("own_images.md", "sh")
    assert "kedro run --env own_images\n" in first
    assert 'kedro run --env own_images --params "experiment.n_labeled=5' in second
    caplog.set_level("INFO")
    reporting = project / "data" / "own_images" / "08_reporting"
    for parameters, n_labeled, said in (
        ({}, 1 + 12 + 3, "16 of 16 labelled images are used, of 3 classes"),
        (
            {"experiment": {"n_labeled": 5}}, 1 + 5 + 3,
            "9 of 16 labelled images are used, of 3 classes; 7 left out, as "
            "n_labeled = 5 for every novel class (null: all); fewer than "
            "n_labeled = 5 have cat (1), horse (3)",
        ),
    ):  # fmt: skip
        caplog.clear()
        run_own_images(project, **parameters)
        assert said in caplog.messages
        metrics = read_metrics(project, "diffusion", "own_images")
        assert metrics["n_classes"] == metrics["n_novel"] == 3
        assert metrics["n_test"] == 12
        assert metrics["n_nodes"] == n_labeled + 41
        assert metrics["experiment"]["n_labeled"] == parameters.get("experiment", {}).get(
            "n_labeled"
        )
        # What was asked for stands there, and says nothing where there are three classes.
        assert metrics["final"]["top5"] == 1
        assert metrics["final"]["top1_base"] is None
        table = pd.read_csv(reporting / "metrics_table.csv")
        assert list(table.columns) == ["method", "iteration", "top1", "top1_novel"]
    report = json.loads((reporting / "broken_images.json").read_text())
    counts = {name: (part["n_pictures"], part["n_broken"]) for name, part in report.items()}
    assert counts == {"train": (16, 0), "test": (12, 0), "background": (41, 1)}
    (broken,) = report["background"]["broken"]
    assert broken["picture"] == 27
    assert "1/broken.jpg" in broken["problem"]


def test_own_images_without_test_figures(
    project: Path, own_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(own_images / "test")
    message = (
        rf"^test_images: {own_images}/test is missing: labelled images .* accuracy .* "
        r"\(docs/own_images\.md says more\)$"
    )
    with pytest.raises(UserError, match=message):
        run_own_images(project)
    assert not (project / "data" / "own_images").exists()

    command, *_ = blocks("own_images.md", "sh")
    assert command == "lowshot label photos\n"
    own_images.rename(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(blocks("own_images.md", "python")[0], names)
    table = names["labeled"].labels
    assert names["labeled"].page == tmp_path / "photos-labels" / "labels.html"
    assert len(table) == sum(LABELED.values()) + 41
    assert set(table["file"]) >= {
        "background/0/0.jpg",
        "background/1/broken.jpg",
        "train/cat/0.jpg",
    }
    assert set(table["label"]) == {*LABELED, ""}
    assert (table["given"] == "yes").sum() == sum(LABELED.values())


def test_own_images_in_lists_and_shards(
    project: Path, own_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_images / "background" / "1" / "broken.jpg").unlink()
    monkeypatch.chdir(project)
    _, script = blocks("own_images.md", "python")
    exec(script, {})
    names = [f"{name}/{number}.jpg" for name, n in LABELED.items() for number in range(n)]
    labels = np.repeat(range(3), list(LABELED.values())).tolist()
    content = {"image_names": names, "image_labels": labels}
    (own_images / "train.json").write_text(json.dumps(content))
    catalog_path = project / "conf" / "own_images" / "catalog.yml"
    catalog = yaml.safe_load(catalog_path.read_text())
    (entries,) = blocks("own_images.md", "yaml")
    catalog_path.write_text(yaml.safe_dump({**catalog, **yaml.safe_load(entries)}))

    run(project, "features", env="own_images", **SMALL)
    folder = project / "data" / "own_images" / "04_feature"
    train = read_arrays(folder / "train.hdf5")
    assert train["all_labels"].tolist() == content["image_labels"]
    background = read_arrays(folder / "f100m" / "block0.hdf5")
    assert background["all_feats"].shape == (40, 1280)
    assert background["count"] == [40]


def test_a_background_split_over_machines(project: Path, own_images: Path) -> None:
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(50))
    write_zip_shards(own_images / "yfcc100m", map(Image.fromarray, noise))
    catalog_path = project / "conf" / "own_images" / "catalog.yml"
    catalog = yaml.safe_load(catalog_path.read_text())
    (entries,) = blocks("features.md", "yaml")
    entries = yaml.safe_load(entries)
    assert [entry["i0"] for entry in entries.values()] == [3_000_000, 3_000_000]
    entries["background_features"]["rows_per_file"] = 20
    for first, last in ((20, 40), (40, 50), (0, 20)):
        entries["background_images"] |= {"i0": first, "i1": last}
        entries["background_features"]["i0"] = first
        catalog_path.write_text(yaml.safe_dump({**catalog, **entries}))
        run(project, "features", env="own_images", **SMALL)
    folder = project / "data" / "own_images" / "04_feature" / "f100m"
    parts = [read_arrays(folder / f"block{number}.hdf5")["all_feats"] for number in range(3)]
    assert [len(part) for part in parts] == [20, 20, 10]

    del entries["background_features"]["i0"]
    del entries["background_images"]["i0"], entries["background_images"]["i1"]
    entries["background_features"]["filepath"] += "_whole"
    catalog_path.write_text(yaml.safe_dump({**catalog, **entries}))
    run(project, "features", env="own_images", **SMALL)
    whole = folder.with_name("f100m_whole")
    for number, part in enumerate(parts):
        found = read_arrays(whole / f"block{number}.hdf5")["all_feats"]
        np.testing.assert_allclose(found, part, rtol=1e-4, atol=1e-5)


def test_another_data_set_of_torchvision(project: Path) -> None:
    """The first example as it stands; tests/pipelines/test_public_data.py runs it with less."""
    first, *others = blocks("public_data.md", "yaml")
    assert "`conf/kmnist/globals.yml`" in (ROOT / "docs" / "public_data.md").read_text()
    assert blocks("public_data.md", "sh") == ["kedro run --env kmnist\n"]
    path = project / "conf" / "kmnist" / "globals.yml"
    path.parent.mkdir()
    path.write_text(first)
    write_mnist_files(project / "data" / "01_raw", "KMNIST", per_class=102)
    catalog = Project(project, "kmnist", {}).catalog({})
    assert np.bincount(catalog.load("train_images").labels).tolist() == [100] * 10
    assert len(catalog.load("background_images")) == 20
    for example in others:
        path.write_text(example)
        catalog = Project(project, "kmnist", {}).catalog({})
        for name in ("train_images", "test_images", "background_images", "class_split"):
            assert type(catalog[name]).__name__.startswith("Torchvision")


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
