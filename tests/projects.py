"""Copies of the project to run in, and files in the published formats to run on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import h5py
import numpy as np
from kedro.framework.project import configure_project
from kedro.framework.session import KedroSession

from lowshot_kedro import native

ROOT = Path(__file__).parent.parent


def copy_project(folder: Path) -> Path:
    """The project without data; the package itself is the installed one."""
    for name in ("conf", "notebooks"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name)
    shutil.rmtree(folder / "conf" / "local")
    (folder / "conf" / "local").mkdir()
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "src").mkdir()
    return folder


def kedro(
    project: Path, *arguments: str, python: str | Path = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a kedro command as a person would."""
    return subprocess.run(
        [python, "-m", "kedro", *arguments],
        cwd=project,
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
    )


# Stands in for a compiler, and gives the module that is compiled already.
NO_COMPILER = """#!/bin/sh
for argument in "$@"; do
    if [ "$before" = -o ]; then output=$argument; fi
    before=$argument
done
cp '{module}' "$output"
"""


def build_wheel(folder: Path) -> None:
    """Put the wheel into a folder, made from the archive of sources and the compiled module."""
    sources = folder / "sources"
    for name in ("conf", "data", "docs", "notebooks", "src"):
        shutil.copytree(ROOT / name, sources / name, ignore=_left_out)
    for name in ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, sources / name)
    compiler = folder / "compiler"
    module = Path(native.__file__).with_name("_native.abi3.so")
    compiler.write_text(NO_COMPILER.format(module=module))
    compiler.chmod(0o755)
    pack = "from setuptools.build_meta import build_sdist; build_sdist('..')"
    subprocess.run([sys.executable, "-c", pack], cwd=sources, stdout=subprocess.DEVNULL, check=True)
    (archive,) = folder.glob("*.tar.gz")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--wheel-dir", folder, archive),
        ],
        env={**os.environ, "CC": str(compiler), "LDSHARED": f"{compiler} -shared"},
        check=True,
    )


def _left_out(folder: str, names: list[str]) -> list[str]:
    """What a fresh copy of the repository has not: results of runs, and what is compiled."""
    if Path(folder).parent == ROOT / "data":
        return [name for name in names if name != ".gitkeep"]
    return [name for name in names if name == "__pycache__" or name.endswith((".so", ".egg-info"))]


def install_wheel(wheel: Path, folder: Path) -> Path:
    """A new environment with the wheel, which sees the libraries of this one; its Python."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet"),
            *("--disable-pip-version-check", "--no-deps", "--no-index", wheel),
        ],
        check=True,
    )
    (site,) = folder.glob("lib/python*/site-packages")
    # Files of this kind in the folders that it names are not read: nothing points to src/.
    here = {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")}
    (site / "libraries.pth").write_text("\n".join(sorted(here)))
    return python


@cache
def configure_kedro() -> None:
    """Tell Kedro which package it is, once: all copies of the project have the same."""
    configure_project("lowshot_kedro")


def run(project: Path, *pipelines: str, env: str | None = None, **parameters: Any) -> None:
    """Run pipelines in this process; sections of parameters are keyword arguments."""
    configure_kedro()
    with KedroSession.create(project_path=project, env=env, runtime_params=parameters) as session:
        session.run(pipeline_names=list(pipelines) or None)


def read_metrics(project: Path, name: str, env: str = "") -> dict[str, Any]:
    folder = project / "data" / env / "08_reporting"
    return json.loads((folder / f"{name}_metrics.json").read_text())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: array[()] for name, array in file.items()}


N_CLASSES, N_FEATURES, N_COMPONENTS = 8, 48, 16


def write_published_files(folder: Path, seed: int = 0) -> Path:
    """A small data set in the published layout: 8 classes around random centres."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(N_CLASSES, N_FEATURES))

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = random.integers(N_CLASSES, size=n)
        noise = random.normal(scale=1.2, size=(n, N_FEATURES))
        return (centres[labels] + noise).astype(np.float32), labels.astype(np.int32)

    (folder / "features" / "f100m").mkdir(parents=True)
    for name, n in (("train", 400), ("val", 200)):
        write_features(folder / "features" / f"{name}.hdf5", *draw(n), spare_rows=7)
    background, labels = draw(700)
    write_features(folder / "features" / "f100m" / "block0.hdf5", background, 0 * labels)
    pca = faiss.PCAMatrix(N_FEATURES, N_COMPONENTS, 0, True)
    pca.train(background)
    faiss.write_VectorTransform(pca, str(folder / "features" / f"PCAR{N_COMPONENTS}.vt"))
    pca.apply(background).tofile(
        folder / "features" / "f100m" / f"concatenated_PCAR{N_COMPONENTS}.raw"
    )
    split = {
        "base_classes_1": [2, 5],
        "novel_classes_1": [7, 1],
        "base_classes_2": [6, 3, 4],
        "novel_classes_2": [8, 1, 5],
        "label_names": [f"class {label}" for label in range(N_CLASSES)],
    }
    (folder / "label_idx.json").write_text(json.dumps(split))
    return folder


def write_features(
    path: Path, features: np.ndarray, labels: np.ndarray, spare_rows: int = 0
) -> None:
    """A feature file with invalid rows at the end, as the published ones have."""
    n = len(features)
    with h5py.File(path, "w") as file:
        file.create_dataset("all_feats", (n + spare_rows, features.shape[1]), dtype="f4")
        file.create_dataset("all_labels", (n + spare_rows,), dtype="i4")
        file["all_feats"][:n], file["all_labels"][:n] = features, labels
        file["all_feats"][n:], file["all_labels"][n:] = np.nan, 999
        file["count"] = np.array([n], dtype="i4")
