"""A run does not begin on results that do not belong together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lowshot_kedro.project.config import UserError
from tests.projects import run


@pytest.fixture(scope="module")
def finished(demonstration_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the demonstration's run, whose notes are put back after each test."""
    return Path(
        shutil.copytree(demonstration_project, tmp_path_factory.mktemp("origins") / "project")
    )


@pytest.fixture
def change_note(finished: Path) -> Any:
    """Changes what a file was made from, as if that were made anew."""
    before = {}

    def change(name: str, how: Callable[[dict[str, Any]], Any]) -> None:
        note = finished / "data" / f"{name}.made_from.json"
        before[note] = note.read_text()
        content = json.loads(before[note])
        how(content)
        note.write_text(json.dumps(content))

    yield change
    for note, text in before.items():
        note.write_text(text)


FEATURES = "04_feature/f100m/block0.hdf5"
VECTORS = "04_feature/f100m/concatenated_PCAR256.raw"
INDEX = "05_model_input/knngraph/ndisall.index"
GRAPH = "05_model_input/knngraph/ndisall_k32"


@pytest.mark.parametrize(
    ("note", "fact", "pipeline", "message"),
    [
        ("04_feature/PCAR256.vt", "features", "diffusion",
         "pca_transform: was made from another background_features than .*run --pipelines pca"),
        (VECTORS, "features", "graph",
         "background_vectors: was made from another background_features .* --pipelines pca"),
        (VECTORS, "transform", "diffusion",
         "background_vectors: was made from another pca_transform .* --pipelines pca"),
        (INDEX, "vectors", "diffusion",
         "background_index: was made from another background_vectors .* --pipelines graph"),
        (GRAPH, "vectors", "diffusion",
         "background_graph: was made from another background_vectors .* --pipelines graph"),
        ("04_feature/train.hdf5", "network", "diffusion",
         "test_features: made by another network than train_features .*--pipelines features"),
        ("04_feature/val.hdf5", "network", "sweep", "test_features: made by another network than"),
        (FEATURES, "network", "diffusion", "background_features: made by another network than"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_refused(
    finished: Path,
    change_note: Callable[[str, Callable[[dict[str, Any]], Any]], None],
    note: str,
    fact: str,
    pipeline: str,
    message: str,
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "data").rglob("*.*")}
    change_note(note, lambda content: content.update({fact: {"name": "another"}}))
    with pytest.raises(UserError, match=message) as caught:
        run(finished, pipeline)
    assert "\n" not in str(caught.value)
    changed = {
        path.name
        for path in (finished / "data").rglob("*.*")
        if path.stat().st_mtime_ns != before.get(path)
    }
    assert changed == {f"{Path(note).name}.made_from.json"}


def test_what_others_have_made_is_used_as_it_is(finished: Path) -> None:
    notes = {path: path.read_text() for path in (finished / "data").rglob("*.made_from.json")}
    for note in notes:
        note.unlink()
    try:
        run(finished, "diffusion")
    finally:
        for note, text in notes.items():
            note.write_text(text)


def test_what_the_run_itself_makes_anew_is_not_compared(
    finished: Path, change_note: Callable[[str, Callable[[dict[str, Any]], Any]], None]
) -> None:
    # The whole run makes all of them fit.
    change_note(GRAPH, lambda content: content.update({"vectors": {}}))
    run(finished, "graph", "diffusion")
