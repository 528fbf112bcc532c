"""From images in zip shards to features on disk, beside the network alone and decoding alone.

The network alone gets input that is ready in memory, in batches of the same size and with the same
threads: all of them on one batch, as PyTorch does by itself, and each on its own few images, as
this project does; what the latter reaches is what the whole way can reach at most. The whole way is
measured with images that are cheap to decode, of the network's input size, and with photographs
of 500 × 375 pixels. A second run over many photographs watches the memory of all processes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common.pictures import write_crops
from torch import nn

from common import machine
from common.memory import in_new_process, missing
from common.options import positive
from common.output import note, print_json, print_table, ratio
from common.timing import Contestant, Seconds, run_rounds
from lowshot_kedro import native
from lowshot_kedro.datasets import HDF5FeatureBlocksDataset
from lowshot_kedro.images import NumberedZipShards
from lowshot_kedro.memory import format_bytes
from lowshot_kedro.networks import Extractor, create_extractor, extract_features

PHOTOGRAPH = (500, 375)
BARE, BARE_IN_PARTS = "network alone", "network alone, 16 to a thread"
CHEAP, PHOTOGRAPHS = "small images", "photographs"
DECODE_CHEAP, DECODE_PHOTOGRAPHS = "decoding small images", "decoding photographs"
# The whole way reaches at least this part of the network alone where decoding is cheap.
WANTED = 0.85
FIFTHS = ("first", "second", "third", "fourth", "last")
IMAGES_PER_THREAD = 16
_SECONDS_BETWEEN_LOOKS = 0.5


class Means(nn.Module):
    """The mean of every channel: a network that costs next to nothing."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (n, 3)."""
        return images.mean((2, 3))


def bare(extractor: Extractor, batches: list[torch.Tensor], n_images: int) -> None:
    """The network on input that is ready."""
    network = extractor.network.to(memory_format=torch.channels_last)
    done = 0
    with torch.inference_mode():
        while done < n_images:
            for batch in batches:
                network(batch)
                done += len(batch)


def bare_in_parts(extractor: Extractor, batches: list[torch.Tensor], n_images: int) -> None:
    """The same by threads that each have images of their own."""
    network = extractor.network.to(memory_format=torch.channels_last)

    def run(part: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return network(part)

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    done = 0
    with ThreadPoolExecutor(n_threads) as pool:
        while done < n_images:
            parts = [part for batch in batches for part in batch.split(IMAGES_PER_THREAD)]
            done += sum(len(output) for output in pool.map(run, parts))
    torch.set_num_threads(n_threads)


def whole_way(
    extractor: Extractor, shards: Path, n_images: int, batch_size: int, num_workers: int | None
) -> None:
    """Shards to feature files, which are deleted again."""
    with tempfile.TemporaryDirectory(dir=shards.parent) as folder:
        dataset = HDF5FeatureBlocksDataset(filepath=folder)
        source = NumberedZipShards(shards, 0, n_images)
        dataset.save(
            extract_features(
                extractor,
                source,
                batch_size=batch_size,
                num_workers=num_workers,
                device="cpu",
                precision="float32",
            )
        )


class Watched(NamedTuple):
    """A long run.

    Attributes:
        n_images: How many went through.
        seconds: How long it took.
        memory: Bytes that all its processes held, in fifths of the time: the mean of each.
    """

    n_images: int
    seconds: float
    memory: list[int]


def watched_run(
    name: str, weights: str, image_size: int, shards: Path, n_images: int, batch_size: int
) -> Watched:
    """The whole way over many photographs, in this process, with its memory over time."""
    extractor = create_extractor(name, weights, image_size)
    samples: list[tuple[float, int]] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_SECONDS_BETWEEN_LOOKS):
            samples.append((time.perf_counter(), _bytes_of_all_processes()))

    watcher = threading.Thread(target=watch)
    start = time.perf_counter()
    watcher.start()
    whole_way(extractor, shards, n_images, batch_size, None)
    is_over.set()
    watcher.join()
    seconds = time.perf_counter() - start
    parts: list[list[int]] = [[] for _ in FIFTHS]
    for moment, taken in samples:
        parts[min(len(FIFTHS) - 1, int(len(FIFTHS) * (moment - start) / seconds))].append(taken)
    memory = [int(statistics.mean(part)) for part in parts if part]
    return Watched(n_images, seconds, memory)


def _bytes_of_all_processes() -> int:
    """What this process and its workers hold, pages that they share counted once."""
    children = [
        child
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    total = 0
    for process in ("self", *children):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All rates, printed as tables and returned for the line of JSON."""
    extractor = create_extractor(options.extractor, options.weights, options.image_size)
    size = extractor.describe()["input"]
    sizes = {CHEAP: (size[2], size[1]), PHOTOGRAPHS: PHOTOGRAPH}
    for number, (name, (width, height)) in enumerate(sizes.items()):
        note(f"writing {options.images} {name}, {width} × {height}")
        write_crops(folder / name, options.images, width, height, options.seed + number)
    source = NumberedZipShards(folder / CHEAP, 0, min(4 * options.batch_size, options.images))
    ready = torch.stack([extractor.preprocess(image.image) for image in source])
    batches = [
        batch.contiguous(memory_format=torch.channels_last)
        for batch in ready.split(options.batch_size)
        if len(batch) == options.batch_size
    ]
    free = Extractor("means", Means(), extractor.preprocess, 3)
    run = partial(
        whole_way,
        n_images=options.images,
        batch_size=options.batch_size,
        num_workers=options.workers,
    )
    contestants: dict[str, Callable[[], None]] = {
        BARE: lambda: bare(extractor, batches, options.images),
        BARE_IN_PARTS: lambda: bare_in_parts(extractor, batches, options.images),
        CHEAP: lambda: run(extractor, folder / CHEAP),
        PHOTOGRAPHS: lambda: run(extractor, folder / PHOTOGRAPHS),
        DECODE_CHEAP: lambda: run(free, folder / CHEAP),
        DECODE_PHOTOGRAPHS: lambda: run(free, folder / PHOTOGRAPHS),
    }
    note("warming up")
    bare(extractor, batches, 1)
    seconds = Seconds()
    run_rounds(
        [Contestant(name, {"run": call}) for name, call in contestants.items()],
        options.repeat,
        seconds,
    )
    rates = {name: options.images / seconds.best(name) for name in contestants}
    medians = {name: options.images / seconds.median(name) for name in contestants}
    print_table(
        f"{options.extractor}, {size[2]} × {size[1]}, batches of {options.batch_size}, "
        f"{options.images} images",
        ("images per second", "best", "median", "of network alone", "of in parts", "wanted"),
        [
            [
                name,
                f"{rates[name]:.1f}",
                f"{medians[name]:.1f}",
                f"{rates[name] / rates[BARE]:.2f}",
                f"{rates[name] / rates[BARE_IN_PARTS]:.2f}",
                f"≥ {WANTED}" if name == CHEAP else "",
            ]
            for name in contestants
        ],
    )
    return {
        "input": size,
        "seconds": seconds.summary(),
        "rates": {name: round(rate, 2) for name, rate in rates.items()},
        "ratios": {
            "small_images_vs_network": ratio(rates[CHEAP], rates[BARE]),
            "photographs_vs_network": ratio(rates[PHOTOGRAPHS], rates[BARE]),
            "small_images_vs_network_in_parts": ratio(rates[CHEAP], rates[BARE_IN_PARTS]),
        },
    }


def watch_memory(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The memory of a long run, printed as a table."""
    width, height = PHOTOGRAPH
    note(f"writing {options.many} photographs for the long run")
    shards = folder / "many"
    write_crops(shards, options.many, width, height, options.seed)
    watched = in_new_process(
        watched_run,
        options.extractor,
        options.weights,
        options.many_image_size,
        shards,
        options.many,
        options.batch_size,
    )
    print_table(
        f"{watched.n_images} photographs at {options.many_image_size} × "
        f"{options.many_image_size}: {watched.n_images / watched.seconds:.1f} a second",
        ("memory of all processes", *(f"{part} fifth" for part in FIFTHS)),
        [["mean", *(format_bytes(taken) for taken in watched.memory)]],
    )
    return watched._asdict()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--extractor", default="efficientnet_lite0", help="features.extractor")
    parser.add_argument("--weights", default="package", help="features.weights")
    parser.add_argument("--image-size", type=positive, default=224, help="of the rates")
    parser.add_argument("--batch-size", type=positive, default=64, help="features.batch_size")
    parser.add_argument("--images", type=positive, default=1024, help="of a round")
    parser.add_argument("--workers", type=positive, help="features.num_workers; default: auto")
    parser.add_argument("--many", type=positive, default=10_000, help="images of the long run")
    parser.add_argument("--many-image-size", type=positive, default=96, help="of the long run")
    parser.add_argument("--threads", type=positive, default=native.get_num_threads())
    parser.add_argument("--repeat", type=positive, default=3, help="rounds of measurement")
    parser.add_argument("--seed", type=int, default=0, help="of the crops")
    parser.add_argument(
        "--skip", nargs="+", default=[], choices=["rates", "memory"], metavar="NAME",
        help="rates, memory",
    )  # fmt: skip
    options = parser.parse_args()
    if options.images < options.batch_size:
        parser.error(f"--images: {options.images} are no batch of {options.batch_size}")
    if "memory" not in options.skip and (reason := missing()):
        note(f"skipped memory: {reason}")
        options.skip = [*options.skip, "memory"]
    machine.set_threads(options.threads)
    content: dict[str, Any] = {"benchmark": "features", "machine": machine.describe()}
    with tempfile.TemporaryDirectory() as name:
        if "rates" not in options.skip:
            content |= measure(options, Path(name))
        if "memory" not in options.skip:
            content["long_run"] = watch_memory(options, Path(name))
    content["options"] = {
        key: value for key, value in vars(options).items() if not isinstance(value, Path)
    }
    print_json(content)


if __name__ == "__main__":
    main()
