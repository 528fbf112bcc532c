"""Episodes of DeepEMD: 5 classes with 1 image, and with 5 by the structured layer.

Features are random maps around one of each class. `ours` has the native solver; `ours, opencv` is
the same with `cv2.EMD`, which says what the solver is worth. `original` is the original's
procedure: cosine similarity of features that are repeated for every pair of nodes, then a loop over
`cv2.EMD`, and autograd for the structured layer. All compute in float32, and logits are compared.
`head` is the forward and backward pass of the logits, each in a process of its own: `ours`, and
`full tensor`, which repeats features for every pair of nodes, with the flows of the same solver.
Some pairs go through QPTH, too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.nn import functional

from common import machine
from common.memory import give_back, in_new_process, missing
from common.options import positive
from common.output import note, print_json, print_ratios, print_table, ratio
from common.timing import Seconds, Statistic
from lowshot_kedro import native
from lowshot_kedro.deepemd import emd_logits, structured_prototypes
from lowshot_kedro.deepemd.head import match
from lowshot_kedro.memory import recent_peak_rss_bytes, restart_peak, rss_bytes

OURS, OURS_OPENCV, ORIGINAL, FULL = "ours", "ours, opencv", "original", "full tensor"
CONTESTANTS = (OURS, OURS_OPENCV, ORIGINAL)
ONE_SHOT, STRUCTURED, HEAD, QPTH = "1 shot", "structured layer", "head", "qpth"
PARTS = (ORIGINAL, OURS_OPENCV, HEAD, QPTH)
SIZES = ("way", "shot", "queries", "channels", "side", "passes", "threads", "repeat", "seed")
TEMPERATURE = 12.5
LR = 100.0
BATCH = 4
# As many times as fast as the original, and as its memory.
WANTED = {STRUCTURED: 8.0, "memory of the head": 5.0}
# Between logits of exact flows and of those in float32, of which some decide otherwise.
LARGEST_DIFFERENCES = {ONE_SHOT: 1e-4, STRUCTURED: 5e-3}


@dataclass(frozen=True)
class Task:
    """Of what sizes everything is.

    Attributes:
        way: Classes.
        shot: Images of a class for the structured layer.
        queries: Images to classify.
        channels: Of a map.
        side: Of a map.
        passes: Of the structured layer.
        threads: Of all libraries.
        seed: Of everything.
    """

    way: int
    shot: int
    queries: int
    channels: int
    side: int
    passes: int
    threads: int
    seed: int

    def features(self, shot: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Support images (shot · way, C, H, W), classes in turn, and queries."""
        rng = np.random.default_rng(self.seed)
        classes = rng.normal(size=(self.way, self.channels, self.side, self.side))

        def images(count: int) -> torch.Tensor:
            repeats = -(-count // self.way)
            maps = np.concatenate([classes] * repeats)[:count]
            maps = maps + 0.8 * rng.normal(size=maps.shape)
            return torch.from_numpy(0.5 * np.where(maps < 0, 0.1 * maps, maps)).float()

        return images(shot * self.way), images(self.queries)


class Usage(NamedTuple):
    """Of one call, or of the best of some.

    Attributes:
        cpu: Seconds of all threads.
        wall: Seconds.
        extra: Bytes at the peak beyond what was there before.
    """

    cpu: float
    wall: float
    extra: int = 0


def weights_and_similarities(
    queries: torch.Tensor, prototypes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(Q, K, n), (Q, K, n) and (Q, K, n, n), from features repeated for every pair of nodes."""
    query_nodes = queries.flatten(2).transpose(1, 2)
    prototype_nodes = prototypes.flatten(2).transpose(1, 2)
    of_queries = torch.einsum("qic,kc->qki", query_nodes, prototype_nodes.mean(1))
    of_prototypes = torch.einsum("kjc,qc->qkj", prototype_nodes, query_nodes.mean(1))
    centred = [nodes - nodes.mean(2, keepdim=True) for nodes in (query_nodes, prototype_nodes)]
    shape = (len(queries), len(prototypes), query_nodes.shape[1], -1, -1)
    left = centred[0][:, None, :, None].expand(*shape[:3], prototype_nodes.shape[1], -1)
    similarities = functional.cosine_similarity(left, centred[1][None, :, None], dim=4)
    return of_queries.relu() + 1e-3, of_prototypes.relu() + 1e-3, similarities


def original_logits(queries: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """As the original computes them: one call of OpenCV for every pair, in float32."""
    *weights, similarities = weights_and_similarities(queries, prototypes)
    n = similarities.shape[2]
    signatures = []
    for side in weights:
        signature = side.detach().numpy() + np.float32(1e-5)
        signatures.append(signature * (n / signature.sum(2, keepdims=True)))
    products = similarities.clone()
    for query in range(len(queries)):
        for prototype in range(len(prototypes)):
            costs = 1 - similarities[query, prototype].detach().numpy()
            left, right = (side[query, prototype][:, None].copy() for side in signatures)
            flow = cv2.EMD(left, right, cv2.DIST_USER, costs)[2]
            products[query, prototype] = products[query, prototype] * torch.from_numpy(flow)
    return products.sum((2, 3)) * (TEMPERATURE / n)


def original_prototypes(support: torch.Tensor, task: Task) -> torch.Tensor:
    """The structured layer of the original, by autograd and torch's optimiser."""
    start = support.unflatten(0, (task.shot, task.way)).mean(0)
    prototypes = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([prototypes], lr=LR, momentum=0.9, dampening=0.9)
    labels = torch.arange(task.way).repeat(task.shot)
    for _ in range(task.passes):
        for batch in torch.randperm(len(support)).split(BATCH):
            optimizer.zero_grad()
            logits = original_logits(support[batch], prototypes)
            functional.cross_entropy(logits, labels[batch]).backward()
            optimizer.step()
    return prototypes.detach()


def episode(task: Task, name: str, part: str) -> Callable[[], torch.Tensor]:
    """What gives the logits of an episode."""
    support, queries = task.features(task.shot if part == STRUCTURED else 1)
    solver = "opencv" if name == OURS_OPENCV else "native"

    def ours() -> torch.Tensor:
        prototypes = support
        if part == STRUCTURED:
            prototypes = structured_prototypes(
                support, task.way, task.shot, lr=LR, n_passes=task.passes, batch_size=BATCH,
                solver=solver,
            )  # fmt: skip
        return emd_logits(queries, prototypes, temperature=TEMPERATURE, solver=solver)

    def original() -> torch.Tensor:
        prototypes = original_prototypes(support, task) if part == STRUCTURED else support
        with torch.no_grad():
            return original_logits(queries, prototypes)

    def seeded() -> torch.Tensor:
        torch.manual_seed(task.seed)
        return original() if name == ORIGINAL else ours()

    return seeded


def used(function: Callable[[], torch.Tensor]) -> tuple[Usage, torch.Tensor]:
    """Seconds of one call, and what it returns."""
    begun = time.process_time(), time.perf_counter()
    result = function()
    return Usage(time.process_time() - begun[0], time.perf_counter() - begun[1]), result


def head(task: Task, name: str, solver: str) -> Usage:
    """Seconds and memory of a forward and backward pass; meant for a process of its own."""
    machine.set_threads(task.threads)
    prototypes, queries = (maps.requires_grad_() for maps in task.features(1))
    labels = torch.arange(len(queries)) % task.way

    def step(queries: torch.Tensor, prototypes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if name == FULL:
            flow = match(queries, prototypes, solver=solver).flow
            *_, similarities = weights_and_similarities(queries, prototypes)
            logits = (flow * similarities).sum((2, 3)) * (TEMPERATURE / flow.shape[2])
        else:
            logits = emd_logits(queries, prototypes, solver=solver)
        loss = functional.cross_entropy(logits, labels)
        loss.backward()
        return loss

    # What libraries take for their first call is not counted.
    step(queries[:1], prototypes, labels[:1])
    prototypes.grad = queries.grad = None
    give_back()
    before = rss_bytes()
    if missing() is None:
        restart_peak()
    found, _ = used(lambda: step(queries, prototypes, labels))
    extra = max(recent_peak_rss_bytes() - before, 0) if missing() is None else 0
    return found._replace(extra=extra)


class DeepEMDBenchmark:
    """Everything that is measured, and what was found.

    Args:
        options: Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        sizes = {name: getattr(options, name) for name in SIZES if name != "repeat"}
        self.task = Task(**sizes)
        self.cpu, self.wall = Seconds(), Seconds()
        self.memory: dict[str, int] = {}
        self.differences: dict[str, float] = {}
        self.skipped = dict.fromkeys(options.skip, "asked to")
        if QPTH not in self.skipped and find_spec("qpth") is None:
            self.skipped[QPTH] = "not installed"

    def measure(self) -> None:
        """In rounds; logits of the first one are compared."""
        machine.set_threads(self.task.threads)
        names = [name for name in CONTESTANTS if name not in self.skipped]
        for part in (ONE_SHOT, STRUCTURED):
            calls = {name: episode(self.task, name, part) for name in names}
            logits = {}
            for number in range(self._options.repeat):
                for name, call in calls.items():
                    note(f"{part}, {name}, round {number + 1}")
                    usage, logits[name] = used(call)
                    self._add(f"{part}, {name}", usage)
            self._compare(part, logits)
        if HEAD not in self.skipped:
            for number in range(self._options.repeat):
                for name in (OURS, FULL):
                    note(f"{HEAD}, {name}, round {number + 1}")
                    usage = in_new_process(head, self.task, name, "native")
                    self._add(f"{HEAD}, {name}", usage)
        if QPTH not in self.skipped:
            pairs = Task(**{**vars(self.task), "way": 1, "queries": self._options.pairs})
            for solver in ("native", QPTH):
                note(f"{pairs.queries} pairs by {solver}")
                usage = in_new_process(head, pairs, OURS, solver)
                self._add(f"{pairs.queries} pairs, {solver}", usage)

    def _add(self, name: str, usage: Usage) -> None:
        self.cpu.add(name, {"episode": usage.cpu})
        self.wall.add(name, {"episode": usage.wall})
        if usage.extra:
            self.memory[name] = max(usage.extra, self.memory.get(name, 0))

    def _compare(self, part: str, logits: dict[str, torch.Tensor]) -> None:
        for name, found in logits.items():
            if name == ORIGINAL or ORIGINAL not in logits:
                continue
            difference = float((found - logits[ORIGINAL]).abs().max())
            self.differences[f"{part}, {name}"] = difference
            if not difference < LARGEST_DIFFERENCES[part]:
                raise SystemExit(f"{part}, {name}: logits differ by {difference:.2g}")

    def ratios(self, of: Statistic) -> dict[str, float]:
        """How many times as fast as the original we are, in seconds of all threads."""
        found = {
            part: ratio(of(f"{part}, {ORIGINAL}"), of(f"{part}, {OURS}"))
            for part in (ONE_SHOT, STRUCTURED)
            if f"{part}, {ORIGINAL}" in self.cpu
        }
        if f"{HEAD}, {FULL}" in self.cpu:
            found[HEAD] = ratio(of(f"{HEAD}, {FULL}"), of(f"{HEAD}, {OURS}"))
        # Small sizes may fit the memory that a process has anyway.
        if {f"{HEAD}, {FULL}", f"{HEAD}, {OURS}"} <= self.memory.keys():
            name = "memory of the head"
            found[name] = ratio(self.memory[f"{HEAD}, {FULL}"], self.memory[f"{HEAD}, {OURS}"])
        return found

    def print_tables(self) -> None:
        """For people."""
        rows = [
            [
                name,
                f"{self.cpu.best(name):.4f}",
                f"{self.cpu.median(name):.4f}",
                f"{self.wall.best(name):.4f}",
                f"{self.memory[name] / 1e6:.1f}" if name in self.memory else "",
                f"{self.differences[name]:.1e}" if name in self.differences else "",
            ]
            for name in self.cpu.summary()
        ]
        columns = ("episode", "CPU s", "median", "wall s", "MB above", "logits differ by")
        print_table("episodes", columns, rows)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--way", type=positive, default=5, help="classes")
    add("--shot", type=positive, default=5, help="images of a class for the structured layer")
    add("--queries", type=positive, default=75, help="images to classify")
    add("--channels", type=positive, default=640, help="of a map")
    add("--side", type=positive, default=5, help="of a map")
    add("--passes", type=positive, default=100, help="over the support images, for everybody")
    add("--pairs", type=positive, default=4, help="that go through QPTH")
    add("--threads", type=positive, default=native.get_num_threads(), help="for everybody")
    add("--repeat", type=positive, default=3, help="rounds of measurement")
    add("--seed", type=int, default=0, help="of features and orders")
    add("--skip", nargs="+", default=[], choices=PARTS, metavar="NAME", help=", ".join(PARTS))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and the line of JSON last."""
    options = parse(arguments)
    benchmark = DeepEMDBenchmark(options)
    benchmark.measure()
    version = cv2.__version__
    print(
        f"{options.way} classes, {options.queries} queries, maps of {options.channels} × "
        f"{options.side} × {options.side}, {options.passes} passes, {options.threads} threads, "
        f"OpenCV {version}, shortest of {options.repeat}"
    )
    benchmark.print_tables()
    ratios = benchmark.ratios(benchmark.cpu.best)
    if ratios:
        print_ratios(ratios, benchmark.ratios(benchmark.cpu.median), WANTED)
    for name, reason in benchmark.skipped.items():
        print(f"skipped {name}: {reason}")
    print_json(
        {
            "benchmark": "deepemd",
            "machine": machine.describe(),
            "opencv": version,
            "sizes": {name: getattr(options, name) for name in SIZES},
            "seconds": benchmark.cpu.summary(),
            "wall_seconds": benchmark.wall.summary(),
            "memory": benchmark.memory,
            "differences": benchmark.differences,
            "ratios": ratios,
            "wanted": WANTED,
            "skipped": benchmark.skipped,
        }
    )


if __name__ == "__main__":
    main()
