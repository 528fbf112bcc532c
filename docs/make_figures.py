"""Makes the figures of README and docs, and the outputs of the notebooks, from the code as it is.

`make figures` runs this. All runs happen in a copy of the project without data, build/figures, so
that nothing of an earlier run is in them. The list of figures is FIGURES.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from executed_notebooks import execute
from headless_browser import NAMES, Page, find_browser, opened_page
from lowshot_kedro import label_folder
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import TorchvisionImages
from lowshot_kedro.project.config import Project

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "build" / "figures"
FOLDER = ROOT / "docs" / "figures"
# Debian's package dataset-fashion-mnist.
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


class Figure(NamedTuple):
    """A plot of a run: the catalog entry, and the environment that it is of."""

    part: str
    dataset: str
    env: str | None = None


# By file name in docs/figures. The screenshots of kedro-viz follow below, in SCREENSHOTS.
FIGURES = {
    "accuracy_per_step.png": Figure("demonstration", "accuracy_per_step_plot"),
    "methods.png": Figure("demonstration", "methods_plot"),
    "neighbors.png": Figure("demonstration", "neighbors_plot"),
    "pca_spectrum.png": Figure("demonstration", "pca_spectrum_plot"),
    "snca_curves.png": Figure("snca", "snca_curves_plot"),
    "snca_neighbors.png": Figure("snca", "snca_neighbors_plot"),
    "deepercluster_curves.png": Figure("deepercluster", "deepercluster_curves_plot"),
    "cluster_panel.png": Figure("deepercluster", "cluster_panel_plot"),
    "episodes.png": Figure("few_shot_episodes", "episodes_plot"),
    "matching.png": Figure("few_shot_episodes", "matching_plot"),
    "sweep_digits.png": Figure("digits", "sweep_accuracy_per_n_labeled_plot"),
    "sweep_fashion_mnist.png": Figure(
        "fashion_mnist", "sweep_accuracy_per_n_labeled_plot", "fashion_mnist"
    ),
}

# What is asked of kedro-viz: the boxes alone; and a dataset that was clicked on.
SCREENSHOTS = {
    "kedro-viz.png": "?types=nodes",
    "kedro-viz-preview.png": "?sn=train_images",
}
_SIZE = (1280, 1140)
# Of a folder of images that is labelled: the page, and files beside it.
LABELS_PAGE = "labels-page.png"
LABELS_PLOTS = ("labels_reliability.png", "labels_map.png")
_PAGE_SIZE = (1200, 1000)
_N_IMAGES, _N_LABELS = 3000, 5
_CLASSES = (
    "T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip
_SECONDS_TO_START = 120

# Tables of a sweep that pages quote, by part.
TABLES = {
    "digits": (None, ["docs/results.md"]),
    "fashion_mnist": ("fashion_mnist", ["docs/results.md", "docs/public_data.md"]),
}

# Of the demonstration's run.
QUICK_PARTS = (
    "demonstration", "digits", "snca", "deepercluster", "few_shot_episodes", "kedro_viz",
    "explore_catalog",
)  # fmt: skip
# A notebook, and an environment, on the 70 thousand figures of Fashion-MNIST.
SLOW_PARTS = ("label_diffusion", "label_images", "fashion_mnist")


def main() -> None:
    """Make what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    quick, slow = ", ".join(QUICK_PARTS), ", ".join(SLOW_PARTS)
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"what to make: {quick} (these if nothing is said); {slow} (minutes each)",
    )
    parts = parser.parse_args().parts or list(QUICK_PARTS)
    unknown = [part for part in parts if part not in (*QUICK_PARTS, *SLOW_PARTS)]
    if unknown:
        parser.error(f"unknown part {unknown[0]}; expected some of {quick}, {slow}")

    _copy_project()
    if set(parts) & set(QUICK_PARTS):
        _kedro("run")
    if "digits" in parts:
        _kedro("run", "--pipelines", "sweep")
    if "snca" in parts:
        _kedro("run", "--pipelines", "snca")
        _execute_notebook("snca")
    if "deepercluster" in parts:
        _kedro("run", "--pipelines", "deepercluster")
        _execute_notebook("deepercluster")
    if "few_shot_episodes" in parts:
        _kedro("run", "--pipelines", "episodes")
        _execute_notebook("few_shot_episodes")
    _copy_plots(parts)
    if "kedro_viz" in parts:
        _take_screenshots()
    has_fashion_mnist = bool(set(parts) & set(SLOW_PARTS)) and _link_fashion_mnist()
    if "explore_catalog" in parts:
        _execute_notebook("explore_catalog")
    if "label_diffusion" in parts and has_fashion_mnist:
        _execute_notebook("label_diffusion")
    if "label_images" in parts:
        _execute_notebook("label_images")
        if has_fashion_mnist:
            _label_fashion_mnist()
    if "fashion_mnist" in parts and has_fashion_mnist:
        _kedro("run", "--env", "fashion_mnist")
        _kedro("run", "--env", "fashion_mnist", "--pipelines", "sweep")
        _copy_plots(["fashion_mnist"])
    for part in parts:
        if part in TABLES:
            _compare_tables(part)


def _copy_project() -> None:
    """The project as a fresh checkout has it; the package is this one."""
    shutil.rmtree(PROJECT, ignore_errors=True)
    PROJECT.mkdir(parents=True)
    for name in ("conf", "notebooks"):
        shutil.copytree(ROOT / name, PROJECT / name, ignore=shutil.ignore_patterns("local"))
    (PROJECT / "conf" / "local").mkdir()
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy(ROOT / name, PROJECT / name)
    (PROJECT / "src").mkdir()


def _environment() -> dict[str, str]:
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("KEDRO_")},
        "KEDRO_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": os.pathsep.join(paths),
    }


def _kedro(*arguments: str) -> None:
    print(f"kedro {' '.join(arguments)} …", flush=True)
    log = PROJECT / "log.txt"
    with log.open("w") as file:
        result = subprocess.run(
            [sys.executable, "-m", "kedro", *arguments],
            cwd=PROJECT, env=_environment(), stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    if result.returncode:
        sys.exit(f"it failed:\n{log.read_text()[-3000:]}")


def _file(dataset: str, env: str | None) -> Path:
    """Where the catalog has a dataset."""
    described = Project(PROJECT, env, {}).catalog({})[dataset]._describe()
    return PROJECT / described["filepath"]


def _copy_plots(parts: list[str]) -> None:
    for name, figure in FIGURES.items():
        path = PROJECT / "data"
        if figure.part in parts and (path := _file(figure.dataset, figure.env)).is_file():
            _replace(FOLDER / name, path.read_bytes())


def _replace(path: Path, content: bytes) -> None:
    same = path.is_file() and path.read_bytes() == content
    path.write_bytes(content)
    print(f"{path.relative_to(ROOT)}: {'as it was' if same else 'new'}", flush=True)


def _compare_tables(part: str) -> None:
    """Say whether the pages quote the tables of the sweep as they are; print what differs."""
    env, pages = TABLES[part]
    report = _file("sweep_report", env)
    if not report.is_file():
        return
    tables = re.findall(r"(?:^\|.*\n)+", report.read_text(), re.MULTILINE)
    for page in pages:
        quoted = re.findall(r"(?:^\|.*\n)+", (ROOT / page).read_text(), re.MULTILINE)
        for number, table in enumerate(tables, start=1):
            (nearest,) = difflib.get_close_matches(table, quoted, n=1, cutoff=0)
            if nearest == table:
                print(f"{page}: table {number} of {part} is that of the run")
            elif difflib.SequenceMatcher(None, table, nearest).ratio() > 0.9:
                print(f"{page}: table {number} of {part} differs from the run:")
                lines = difflib.unified_diff(
                    nearest.splitlines(), table.splitlines(), "page", "run", n=0, lineterm=""
                )
                print("\n".join(lines))


@contextmanager
def _kedro_viz() -> Iterator[str]:
    """Kedro-viz about the run; the address at which it answers."""
    command = [sys.executable, "-m", "kedro", "viz", "run", "--no-browser", "--include-hooks"]
    # The command goes on as another process: a group of its own can be ended as a whole.
    log = PROJECT / "kedro-viz.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=PROJECT, env={**_environment(), "PYTHONUNBUFFERED": "1"},
            start_new_session=True, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        end = time.monotonic() + _SECONDS_TO_START
        # At the first port that is free.
        while not (said := re.search(r"running at\s+(http://\S+)", log.read_text())):
            if time.monotonic() > end:
                sys.exit(f"kedro-viz did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.5)
        yield said[1]
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _take_screenshots() -> None:
    browser = find_browser()
    if browser is None:
        print(f"{', '.join(SCREENSHOTS)}: left as they are, for there is no {' or '.join(NAMES)}")
        return
    path = PROJECT / "screenshot.png"
    with _kedro_viz() as address:
        for name, query in SCREENSHOTS.items():
            with opened_page(browser, *_SIZE) as page:
                _open_kedro_viz(page, address + query)
                page.screenshot(path)
            _replace(FOLDER / name, path.read_bytes())


def _open_kedro_viz(page: Page, address: str) -> None:
    """As somebody sees it who has closed its hints and has the newest version."""
    seen = {"KedroViz-feedback-seen": True}
    closed = {"showFeatureHints": False, "visible": {"sidebar": False}}
    page.open(address, {"KedroViz": closed, **seen})
    page.wait_for("document.querySelectorAll('.pipeline-node').length > 3")
    if "sn=" in address:
        page.wait_for("document.querySelectorAll('.pipeline-metadata img').length > 0")
    time.sleep(3)  # it moves to where the pipeline is seen best
    page.evaluate("document.querySelectorAll('[class^=update-reminder]').forEach(e => e.remove())")
    # The project is somewhere else on every machine.
    place = json.dumps(str(PROJECT).lstrip("/") + "/")
    page.evaluate(
        "document.querySelectorAll('.pipeline-metadata__value').forEach("
        f"e => {{ if (!e.children.length) e.textContent = e.textContent.replace({place}, '') }})"
    )


def _link_fashion_mnist() -> bool:
    """Whether the figures are at hand, or can be downloaded."""
    folder = PROJECT / "data" / "01_raw" / "FashionMNIST" / "raw"
    kept = ROOT / "data" / "01_raw" / "FashionMNIST" / "raw"
    found = [
        path for source in (kept, FASHION_MNIST) if source.is_dir() for path in source.iterdir()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for path in found:
        if not (link := folder / path.name).exists():
            link.symlink_to(path)
    try:
        for train in (True, False):
            arguments = {"train": train}
            TorchvisionImages(
                "FashionMNIST", folder.parent.parent, download=True, arguments=arguments
            )
    except (OSError, InputError) as error:
        print(f"Fashion-MNIST: left as it is, for the figures cannot be had ({error})")
        return False
    return True


def _label_fashion_mnist() -> None:
    """Label a folder of images, and take a picture of the page."""
    browser = find_browser()
    if browser is None:
        print(f"{LABELS_PAGE}: left as it is, for there is no {' or '.join(NAMES)}")
        return
    folder, output = PROJECT / "photos", PROJECT / "labels"
    arguments = {"train": False}
    source = TorchvisionImages("FashionMNIST", PROJECT / "data" / "01_raw", arguments=arguments)
    folder.mkdir()
    rows = [("file", "label")]
    counts = [0] * len(_CLASSES)
    for number in range(_N_IMAGES):
        image, label, _ = source[number]
        name = f"{number:04d}.png"
        image.save(folder / name)
        if counts[label] < _N_LABELS:
            counts[label] += 1
            rows.append((name, _CLASSES[label]))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    print("lowshot label …", flush=True)
    label_folder(folder, output=output, features={"image_size": 96})
    with opened_page(browser, *_PAGE_SIZE) as page:
        page.open((output / "labels.html").as_uri(), {})
        page.wait_for("document.querySelectorAll('img').length > 20")
        time.sleep(2)
        page.screenshot(PROJECT / LABELS_PAGE)
    for path in (PROJECT / LABELS_PAGE, *(output / name for name in LABELS_PLOTS)):
        _replace(FOLDER / path.name, path.read_bytes())


def _execute_notebook(name: str) -> None:
    path = ROOT / "notebooks" / f"{name}.ipynb"
    print(f"{path.relative_to(ROOT)} …", flush=True)
    _replace(path, execute(path, PROJECT / "notebooks", _environment()).encode())


if __name__ == "__main__":
    main()
