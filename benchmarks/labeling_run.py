"""From a folder of photographs and a few labels to labels for all: what takes how long.

Photographs are crops of the two that scikit-learn carries, of ten classes, which are places in
them, with five labels each. `lowshot label` runs on them as for the first time, then with more
labels, then with some photographs more. Beside it stands the bare network on input in memory.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from common import machine
from common.options import positive
from common.output import note, print_json, print_table, ratio
from features import bare, bare_in_parts
from lowshot_kedro import label_folder
from lowshot_kedro.networks import create_extractor
from lowshot_kedro.project.template import settings_folder

SIZE = 224
N_PLACES = 5
PHOTOGRAPHS = ("china.jpg", "flower.jpg")
N_LABELS = 5
BARE_IMAGES, BARE_ROUNDS = 256, 3
# Everything but features of 5000 photographs, and a run with more labels, in seconds.
WANTED = 20.0


class Nodes(logging.Handler):
    """Seconds of each node of a run, from the lines that the log has for them."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Note the time that a line states."""
        if record.msg == "%s: %.1f s, peak memory %s" and isinstance(record.args, tuple):
            name, seconds, _ = record.args
            self.seconds[str(name)] = float(str(seconds))


def write_photographs(folder: Path, first: int, last: int) -> list[tuple[str, str]]:
    """Write some photographs, and return their names and classes."""
    photographs = [Image.fromarray(load_sample_image(name)) for name in PHOTOGRAPHS]
    rows = []
    for number in range(first, last):
        random = np.random.default_rng(number)
        which, place = number % len(PHOTOGRAPHS), number // len(PHOTOGRAPHS) % N_PLACES
        photograph = photographs[which]
        side = int(random.integers(150, 250))
        left = int((photograph.width - side) * place / (N_PLACES - 1))
        left = int(np.clip(left + random.integers(-40, 41), 0, photograph.width - side))
        top = int(random.integers(photograph.height - side + 1))
        crop = photograph.crop((left, top, left + side, top + side)).resize((SIZE, SIZE))
        name = f"{number % 20:02d}/{number:06d}.jpg"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        crop.save(folder / name, quality=90)
        rows.append((name, f"{PHOTOGRAPHS[which].removesuffix('.jpg')} {place}"))
    return rows


def write_labels(folder: Path, rows: list[tuple[str, str]], per_class: int) -> None:
    """Label the first photographs of each class."""
    counts: dict[str, int] = {}
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "label"))
        for name, label in rows:
            counts[label] = counts.get(label, 0) + 1
            if counts[label] <= per_class:
                writer.writerow((name, label))


def images_per_second_bare() -> float:
    """What the network alone does at most, on input that is ready in memory."""
    extractor = create_extractor("efficientnet_lite0", "package", None)
    batch = torch.rand(64, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    fastest = 0.0
    # The first round warms up.
    for _ in range(BARE_ROUNDS):
        for run_bare in (bare, bare_in_parts):
            start = time.perf_counter()
            run_bare(extractor, [batch], BARE_IMAGES)
            fastest = max(fastest, BARE_IMAGES / (time.perf_counter() - start))
    return fastest


def run(folder: Path, output: Path) -> tuple[float, dict[str, float]]:
    """Seconds of a run, and those of its nodes."""
    nodes = Nodes()
    # Kedro sets up logging when it is imported, and takes earlier handlers away.
    os.environ.setdefault("KEDRO_LOGGING_CONFIG", str(settings_folder() / "logging.yml"))
    import kedro.framework.project  # noqa: F401

    logger = logging.getLogger("lowshot_kedro.project.hooks")
    logger.addHandler(nodes)
    start = time.perf_counter()
    try:
        label_folder(folder, output=output, show="everything")
    finally:
        logger.removeHandler(nodes)
    return time.perf_counter() - start, nodes.seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=positive, default=5000, help="photographs")
    parser.add_argument("--more", type=positive, default=100, help="photographs that are added")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="labeling-") as temporary:
        folder, output = Path(temporary, "photos"), Path(temporary, "labels")
        note(f"writing {options.images} photographs")
        rows = write_photographs(folder, 0, options.images)
        write_labels(folder, rows, N_LABELS)
        bare = images_per_second_bare()
        runs = {"first run": run(folder, output)}
        write_labels(folder, rows, 2 * N_LABELS)
        runs["more labels"] = run(folder, output)
        write_photographs(folder, options.images, options.images + options.more)
        runs[f"{options.more} photographs more"] = run(folder, output)
    extraction = "features.extract_background_features"
    rows_of_table = [
        [
            name,
            f"{seconds:.1f}",
            f"{nodes[extraction]:.1f}",
            f"{seconds - nodes[extraction]:.1f}",
            ", ".join(
                f"{node.partition('.')[2]} {of_node:.1f}"
                for node, of_node in sorted(nodes.items(), key=lambda item: -item[1])[:6]
                if node != extraction
            ),
        ]
        for name, (seconds, nodes) in runs.items()
    ]
    columns = ["", "seconds", "features", "everything else", "of which"]
    print_table(f"{options.images} photographs of {SIZE} × {SIZE}", columns, rows_of_table)
    seconds, nodes = runs["first run"]
    rate = options.images / nodes[extraction]
    note(
        f"features: {rate:.1f} images a second, {ratio(rate, bare):.2f} of the bare network "
        f"({bare:.1f}); everything else {seconds - nodes[extraction]:.1f} s, with more labels "
        f"{runs['more labels'][0]:.1f} s ({WANTED:g} wanted)"
    )
    print_json(
        {
            "machine": machine.describe(),
            "images": options.images,
            "bare_images_per_second": bare,
            "runs": {
                name: {"seconds": total, "nodes": nodes} for name, (total, nodes) in runs.items()
            },
        }
    )


if __name__ == "__main__":
    main()
