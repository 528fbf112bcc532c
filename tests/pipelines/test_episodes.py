"""`kedro run --pipeline episodes`, on the demonstration's images and on features from a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lowshot_kedro.datasets import RegionFeaturesDataset
from lowshot_kedro.deepemd import emd_logits
from lowshot_kedro.episodes import EpisodeSampler
from lowshot_kedro.episodes.methods import METHODS
from lowshot_kedro.project.config import UserError
from tests.projects import ROOT, copy_project, run

pytestmark = pytest.mark.filterwarnings("ignore:register_new_resolver:UserWarning")

QUICK: dict[str, Any] = {
    "backbone": "ResNet10", "weights": "none", "num_workers": 0, "n_query": 4, "n_episodes": 3,
    "n_images": 2,
}  # fmt: skip
METHODS_OF_MAPS = ["nearest_class_mean", "deepemd_fcn", "label_diffusion"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with features of four images of each of six classes, in a file."""
    folder = tmp_path_factory.mktemp("episodes") / "project"
    folder.mkdir()
    copy_project(folder)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 8)
    classes = np.maximum(rng.normal(size=(6, 16, 2, 2)), 0)
    features = classes[labels] + 0.3 * np.abs(rng.normal(size=(48, 16, 2, 2)))
    np.savez(folder / "features.npz", features=features.astype(np.float32), labels=labels)
    return folder


def reporting(project: Path) -> Path:
    return project / "data" / "08_reporting"


def test_everything_from_images_to_the_picture_of_the_matching(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    run(project, "demonstration")
    methods = ["nearest_class_mean", "deepemd_fcn", "deepemd_grid"]
    parameters = {**QUICK, "image_size": 64, "batch_size": 32, "methods": methods}
    run(project, "episodes", episodes=parameters, deepemd={"patch_list": [1]})

    views = RegionFeaturesDataset(filepath=str(project / "data" / "04_feature" / "episodes")).load()
    # Nobody has asked for random patches.
    assert set(views) == {"map", "grid"}
    assert views["grid"].shape == (512, 1, 1) and views["map"].shape == (512, 2, 2)

    accuracies = pd.read_csv(reporting(project) / "episode_accuracies.csv")
    assert list(accuracies) == ["episode", *methods] and len(accuracies) == 3
    labels = views["map"].labels
    sampler = EpisodeSampler(labels, 5, 1, 4, 3, seed=1)
    truth = np.tile(np.arange(5), 4)
    for number, rows in enumerate(sampler):
        support, query = (views["map"].read(part) for part in (rows[:5], rows[5:]))

        logits = emd_logits(torch.from_numpy(query), torch.from_numpy(support))
        found = (logits.argmax(1).numpy() == truth).mean()
        assert accuracies["deepemd_fcn"][number] == pytest.approx(found)

    table = pd.read_csv(reporting(project) / "episodes_table.csv").set_index("method")
    for name in methods:
        assert table["accuracy"][name] == pytest.approx(accuracies[name].mean())
        half_width = 1.96 * accuracies[name].std(ddof=0) / np.sqrt(3)
        assert table["half_width"][name] == pytest.approx(half_width)
    markdown = (reporting(project) / "episodes_table.md").read_text()
    assert "5-way 1-shot" in markdown and METHODS["deepemd_grid"].title in markdown
    for name in ("episodes", "matching"):
        with Image.open(reporting(project) / f"{name}.png") as image:
            assert np.asarray(image.convert("L")).std() > 5


def test_features_from_a_file_need_no_images_and_no_network(project: Path) -> None:
    parameters = {**QUICK, "dataset": "features", "data_path": str(project / "features.npz")}
    run(project, "episodes", episodes=parameters)
    accuracies = pd.read_csv(reporting(project) / "episode_accuracies.csv")
    # Patches need images; all the rest needs none.
    of_maps = [name for name, method in METHODS.items() if method.view == "map"]
    assert list(accuracies) == ["episode", *of_maps]
    assert accuracies["deepemd_fcn"].mean() > 0.6

    # Of more episodes with fewer methods the first ones are those that are there.
    run(project, "episodes", episodes={**parameters, "n_episodes": 4, "methods": METHODS_OF_MAPS})
    more = pd.read_csv(reporting(project) / "episode_accuracies.csv")
    assert list(more) == ["episode", *METHODS_OF_MAPS] and len(more) == 4
    pd.testing.assert_frame_equal(more[:3], accuracies[list(more)])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_way": 7}, "episodes.n_way: got 7, expected at most 6"),
        ({"n_query": 9}, "class 0 has 8 images"),
        ({"methods": ["deepemd_fnc"]}, "did you mean deepemd_fcn"),
        ({"methods": ["deepemd_grid"]}, "episodes.methods: got 'deepemd_grid'"),
        ({"data_path": "nowhere.npz"}, "nowhere.npz"),
    ],
)
def test_what_cannot_be_is_refused_before_work(
    project: Path, wrong: dict[str, Any], message: str
) -> None:
    parameters = {**QUICK, "dataset": "features", "data_path": str(project / "features.npz")}
    with pytest.raises(UserError) as error:
        run(project, "episodes", episodes={**parameters, **wrong})
    assert message in str(error.value)


def test_a_solver_without_its_library_is_refused_as_the_parameter_it_is(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lowshot_kedro.extras.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "ot", raising=False)
    parameters = {**QUICK, "dataset": "features", "data_path": str(project / "features.npz")}
    with pytest.raises(UserError, match=r"^deepemd\.solver: got 'pot', needs ot"):
        run(
            project,
            "episodes",
            episodes={**parameters, "methods": ["deepemd_fcn"]},
            deepemd={"solver": "pot"},
        )


def test_every_option_of_the_originals_evaluation_has_its_place_in_the_manual() -> None:
    page = (ROOT / "docs" / "episodes.md").read_text()
    options = (
        "way shot query dataset set temperature metric norm deepemd feature_pyramid num_patch "
        "patch_list patch_ratio solver sfc_lr sfc_wd sfc_update_step sfc_bs test_episode gpu "
        "data_dir model_dir seed"
    )
    assert [name for name in options.split() if f"`-{name}`" not in page] == []


@pytest.mark.parametrize("name", METHODS)
def test_the_manual_says_of_every_method_what_the_method_says(name: str) -> None:
    rows = (ROOT / "docs" / "episodes.md").read_text().splitlines()
    (row,) = [row for row in rows if row.startswith(f"| `{name}` | ") and row.count("|") == 5]
    _, _, setting, _, source, _ = (cell.strip() for cell in row.split("|"))
    method = METHODS[name]
    assert setting == ("transductive" if method.is_transductive else "inductive")
    assert source == method.source
