"""A step of SNCA: the loss of a batch over a bank of embeddings, its gradient, the rows remembered.

The bank holds unit rows around centres of classes, in random order, and the batch some of them with
noise. Everybody has a process of its own in every round. `ours` is SNCALoss. `plain` is the formula
as the original computes it: all similarities of batch and bank, their exponentials, and a matrix
that says which are of one class, by autograd. `pytorch-metric-learning` is its NCALoss with the
bank as references; it counts the image itself as its neighbour and remembers nothing, so that its
loss is another one. `attention` is torch's fused attention over the bank, which is the sum over all
rows and its gradient without classes. `products` are two bare products in blocks: similarities, and
similarities times the bank. Losses, gradients and rows are compared with float64.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional

from common import machine
from common.memory import give_back, in_new_process, missing
from common.options import above_zero, positive
from common.output import note, print_json, print_ratios, print_table, ratio
from common.timing import Seconds, Statistic
from lowshot_kedro import native
from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.memory import available_bytes, recent_peak_rss_bytes, restart_peak, rss_bytes
from lowshot_kedro.snca import SNCALoss

OURS, PLAIN, PEER, ATTENTION, PRODUCTS = (
    "ours", "plain", "pytorch-metric-learning", "attention", "products",
)  # fmt: skip
PEERS = (PLAIN, PEER, ATTENTION, PRODUCTS)
MOMENTUM = 0.5
SIZES = ("rows", "batch", "columns", "classes", "threads", "temperature", "repeat", "seed")
# Steps of a process, of which the first does not count.
STEPS = 3
PRODUCT_ROWS = 1024
TRUE_ROWS = 4096
# Bytes for each similarity at the peak.
BYTES_OF_A_SIMILARITY = {PLAIN: 25, PEER: 18}
# How many times as fast as the peer, by rows; 1.25 times the seconds of the products.
WANTED = {(320_000, PLAIN): 3.0, (1_281_167, PRODUCTS): 0.8}
WANTED_MEMORY = 64e6
# Of the loss, of the largest number of the gradient, and of that of the rows.
LARGEST_DIFFERENCES = (1e-5, 1e-4, 1e-6)


@dataclass(frozen=True)
class Task:
    """What everybody gets.

    Attributes:
        n_rows: Of the bank.
        batch: Images of a step.
        n_columns: Of the embeddings.
        n_classes: Of the images.
        temperature: Of the loss.
        n_threads: Of torch.
        seed: Of everything.
    """

    n_rows: int
    batch: int
    n_columns: int
    n_classes: int
    temperature: float
    n_threads: int
    seed: int

    def name(self, contestant: str) -> str:
        """Of a row."""
        threads = "thread" if self.n_threads == 1 else "threads"
        return f"{contestant}, {self.n_rows} rows, {self.n_threads} {threads}"


class State(NamedTuple):
    """Of a step, before it.

    Attributes:
        labels: int64 (N,).
        bank: float32 (N, D).
        embeddings: float32 (B, D).
        index: int64 (B,).
    """

    labels: torch.Tensor
    bank: torch.Tensor
    embeddings: torch.Tensor
    index: torch.Tensor


class Result(NamedTuple):
    """What a step finds.

    Attributes:
        loss: Of the batch.
        gradient: (B, D), with respect to the embeddings.
        rows: (B, D), those remembered.
    """

    loss: float
    gradient: torch.Tensor
    rows: torch.Tensor


class Outcome(NamedTuple):
    """What was measured in one process.

    Attributes:
        cpu: Seconds of all threads, of the shortest step that counts.
        wall: Seconds of the shortest.
        extra: Bytes at the peak beyond Python, its libraries and the bank.
        result: Of the first step; None of one that is no loss with a bank.
        loss: Of the first step; None of one that has none.
    """

    cpu: float
    wall: float
    extra: int
    result: Result | None
    loss: float | None


Step = Callable[[], Result | float | None]


def state_of(task: Task) -> State:
    """Always the same for a task."""
    generator = torch.Generator().manual_seed(task.seed)
    labels = torch.randint(task.n_classes, (task.n_rows,), generator=generator)
    centers = torch.randn(task.n_classes, task.n_columns, generator=generator)
    bank = torch.empty(task.n_rows, task.n_columns)
    for first, last in row_ranges(task.n_rows, 4096):
        rows = bank[first:last].normal_(generator=generator).add_(centers[labels[first:last]])
        functional.normalize(rows, out=rows)
    index = torch.randperm(task.n_rows, generator=generator)[: task.batch]
    noise = torch.randn(task.batch, task.n_columns, generator=generator)
    embeddings = functional.normalize(bank[index] + noise / math.sqrt(task.n_columns))
    return State(labels, bank, embeddings, index)


def remembered(rows: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """Rows of the bank after a step."""
    return functional.normalize(MOMENTUM * rows + (1 - MOMENTUM) * embeddings)


def ours(task: Task) -> Step:
    """The loss of this project."""
    labels, bank, embeddings, index = state_of(task)
    loss = SNCALoss(labels, task.n_columns, temperature=task.temperature, momentum=MOMENTUM)
    loss.bank = bank
    embeddings.requires_grad_()

    def step() -> Result:
        value = loss(embeddings, index)
        (gradient,) = torch.autograd.grad(value, embeddings)
        return Result(value.item(), gradient, loss.bank[index])

    return step


def plain(task: Task) -> Step:
    """The formula, with all similarities of batch and bank."""
    labels, bank, embeddings, index = state_of(task)
    embeddings.requires_grad_()

    def step() -> Result:
        similarities = torch.exp(embeddings @ bank.T / task.temperature)
        similarities = similarities.scatter(1, index[:, None], 0)
        is_own = labels.repeat(len(index), 1) == labels[index][:, None]
        own = (similarities * is_own.float()).sum(1)
        probability = own / similarities.sum(1)
        value = -torch.log(probability[probability != 0]).sum() / len(index)
        (gradient,) = torch.autograd.grad(value, embeddings)
        with torch.no_grad():
            bank[index] = remembered(bank[index], embeddings)
        return Result(value.item(), gradient, bank[index])

    return step


def peer(task: Task) -> Step:
    """NCALoss of pytorch-metric-learning with the bank as references."""
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.losses import NCALoss

    labels, bank, embeddings, index = state_of(task)
    embeddings.requires_grad_()
    loss = NCALoss(softmax_scale=1 / task.temperature, distance=CosineSimilarity())

    def step() -> float:
        value = loss(embeddings, labels[index], ref_emb=bank, ref_labels=labels)
        torch.autograd.grad(value, embeddings)
        return float(value.item())

    return step


def attention(task: Task) -> Step:
    """The logarithm of the sum over all rows, and the mean that is its gradient."""
    _, bank, embeddings, _ = state_of(task)
    rows = bank[None, None]

    def step() -> None:
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            embeddings[None, None], rows, rows, scale=1 / task.temperature
        )

    return step


def products(task: Task) -> Step:
    """Similarities, and similarities times the bank."""
    _, bank, embeddings, _ = state_of(task)
    block = torch.empty(task.batch, PRODUCT_ROWS)
    total = torch.zeros(task.batch, task.n_columns)

    def step() -> None:
        for first, last in row_ranges(task.n_rows, PRODUCT_ROWS):
            similarities = block[:, : last - first]
            torch.mm(embeddings, bank[first:last].T, out=similarities)
            total.addmm_(similarities, bank[first:last])

    return step


CONTESTANTS: dict[str, Callable[[Task], Step]] = {
    OURS: ours, PLAIN: plain, PEER: peer, ATTENTION: attention, PRODUCTS: products,
}  # fmt: skip


def measure(task: Task, name: str) -> Outcome:
    """Some steps of somebody."""
    machine.set_threads(task.n_threads)
    # What libraries take for their first call is not counted.
    small = Task(**{**vars(task), "n_rows": 4 * task.batch})
    CONTESTANTS[name](small)()
    give_back()
    before = rss_bytes()
    step = CONTESTANTS[name](task)
    give_back()
    if missing() is None:
        restart_peak()
    first = step()
    cpu, wall = [], []
    for _ in range(STEPS - 1):
        begun = time.process_time(), time.perf_counter()
        step()
        cpu.append(time.process_time() - begun[0])
        wall.append(time.perf_counter() - begun[1])
    bank_bytes = 4 * task.n_rows * task.n_columns
    extra = max(recent_peak_rss_bytes() - before - bank_bytes, 0) if missing() is None else 0
    result = first if isinstance(first, Result) else None
    loss = first.loss if isinstance(first, Result) else first
    return Outcome(min(cpu), min(wall), extra, result, loss)


def truth(task: Task) -> Result:
    """A step in float64, some rows of the bank at a time."""
    machine.set_threads(task.n_threads)
    labels, bank, embeddings, index = state_of(task)
    embeddings = embeddings.double()

    def blocks() -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        for first, last in row_ranges(task.n_rows, TRUE_ROWS):
            rows = bank[first:last].double()
            logits = embeddings @ rows.T / task.temperature
            logits[torch.arange(first, last) == index[:, None]] = -torch.inf
            yield rows, logits, labels[first:last] == labels[index][:, None]

    everything = own = torch.full((task.batch,), -torch.inf, dtype=torch.float64)
    for _, logits, is_own in blocks():
        everything = torch.logaddexp(everything, logits.logsumexp(1))
        own = torch.logaddexp(own, logits.masked_fill(~is_own, -torch.inf).logsumexp(1))
    counts = own > -torch.inf
    gradient = torch.zeros_like(embeddings)
    for rows, logits, is_own in blocks():
        among_own = torch.where(is_own, torch.exp(logits - own[:, None]), 0)
        gradient += (torch.exp(logits - everything[:, None]) - among_own) @ rows
    return Result(
        float((everything - own)[counts].sum()) / task.batch,
        torch.where(counts[:, None], gradient, 0) / (task.batch * task.temperature),
        remembered(bank[index].double(), embeddings),
    )


def differences(found: Result, expected: Result) -> tuple[float, float, float]:
    """Of loss, gradient and rows, as parts of the loss and of the largest numbers."""
    return (
        abs(found.loss / expected.loss - 1),
        float((found.gradient - expected.gradient).abs().max() / expected.gradient.abs().max()),
        float((found.rows - expected.rows).abs().max()),
    )


class SncaLossBenchmark:
    """Everything that is measured, and what was found.

    Args:
        options: Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.cpu, self.wall = Seconds(), Seconds()
        self.memory: dict[str, int] = {}
        self.losses: dict[str, float] = {}
        self.differences: dict[str, tuple[float, float, float]] = {}
        self.skipped = dict.fromkeys(options.skip, "asked to")
        if PEER not in self.skipped and not _is_installed(PEER):
            self.skipped[PEER] = "not installed"
        operator = "_scaled_dot_product_flash_attention_for_cpu"
        if ATTENTION not in self.skipped and not hasattr(torch.ops.aten, operator):
            self.skipped[ATTENTION] = "not in this version of torch"
        self.tasks = [
            Task(
                n_rows, options.batch, options.columns, options.classes, options.temperature,
                n_threads, options.seed,
            )
            for n_rows in options.rows
            for n_threads in options.threads
        ]  # fmt: skip

    def measure(self) -> None:
        """In rounds; results of the first one are compared with float64."""
        for n_rows in self._options.rows:
            tasks = [task for task in self.tasks if task.n_rows == n_rows]
            note(f"{n_rows} rows: float64")
            expected = in_new_process(truth, tasks[0])
            for number in range(self._options.repeat):
                for task in tasks:
                    for contestant in self._contestants(task):
                        note(f"{task.name(contestant)}, round {number + 1}")
                        self._add(
                            task.name(contestant),
                            in_new_process(measure, task, contestant),
                            expected,
                        )

    def _contestants(self, task: Task) -> Iterator[str]:
        """Who takes part, and notes who would not fit in memory."""
        limit = self._options.memory_limit_gb
        for name in CONTESTANTS:
            if name in self.skipped:
                continue
            needed = BYTES_OF_A_SIMILARITY.get(name, 0) * task.batch * task.n_rows
            needed += 8 * task.n_rows * task.n_columns
            if needed > 1e9 * limit:
                self.skipped[task.name(name)] = f"it takes {needed / 1e9:.1f} GB"
            else:
                yield name

    def _add(self, name: str, outcome: Outcome, expected: Result) -> None:
        self.cpu.add(name, {"step": outcome.cpu})
        self.wall.add(name, {"step": outcome.wall})
        self.memory[name] = max(outcome.extra, self.memory.get(name, 0))
        if outcome.loss is not None:
            self.losses[name] = outcome.loss
        if outcome.result is None:
            return
        self.differences[name] = differences(outcome.result, expected)
        pairs = zip(self.differences[name], LARGEST_DIFFERENCES, strict=True)
        if not all(found < largest for found, largest in pairs):
            found = ", ".join(f"{difference:.2g}" for difference in self.differences[name])
            raise SystemExit(f"{name}: loss, gradient, rows differ from float64 by {found}")

    def ratios(self, of: Statistic) -> dict[str, float]:
        """How many times as fast as the peers we are, in seconds of all threads."""
        return {
            self.ratio_name(task, name): ratio(of(task.name(name)), of(task.name(OURS)))
            for task in self.tasks
            for name in PEERS
            if task.name(name) in self.cpu
        }

    def wanted(self) -> dict[str, float]:
        """What ratios should be at least."""
        return {
            self.ratio_name(task, name): WANTED[task.n_rows, name]
            for task in self.tasks
            for name in PEERS
            if (task.n_rows, name) in WANTED and task.name(name) in self.cpu
        }

    @staticmethod
    def ratio_name(task: Task, name: str) -> str:
        """Of a ratio, as JSON has it."""
        return f"{task.n_rows}_rows_{task.n_threads}_threads_vs_{name.replace('-', '_')}"

    def print_tables(self) -> None:
        """For people."""
        for task in self.tasks:
            rows = [
                [
                    contestant,
                    f"{self.cpu.best(name):.3f}",
                    f"{self.cpu.median(name):.3f}",
                    f"{self.wall.best(name):.3f}",
                    f"{self.memory[name] / 1e6:.0f}" if missing() is None else "",
                    f"{self.losses[name]:.6f}" if name in self.losses else "",
                ]
                for contestant in CONTESTANTS
                if (name := task.name(contestant)) in self.cpu
            ]
            columns = ("step", "CPU s", "median", "wall s", "MB above the bank", "loss")
            print_table(task.name("a step").removeprefix("a step, "), columns, rows)
        if PEER not in self.skipped:
            print(
                f"{PEER} counts an image as its own neighbour, and remembers nothing: its loss is "
                "another."
            )
        print(
            f"Wanted of ours at 1281167 rows: at most {WANTED_MEMORY / 1e6:.0f} MB above the bank."
        )


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, if they go together."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    free = round(0.8 * available_bytes() / 1e9, 1)
    threads = sorted({1, native.get_num_threads()})
    add("--rows", type=positive, nargs="+", default=[320_000, 1_281_167], help="of the bank")
    add("--batch", type=positive, default=256, help="images of a step")
    add("--columns", type=positive, default=128, help="of the embeddings")
    add("--classes", type=positive, default=1000, help="of the images")
    add("--threads", type=positive, nargs="+", default=threads, help="for everybody")
    add("--temperature", type=above_zero, default=0.05, help="of the loss")
    add("--repeat", type=positive, default=3, help="rounds of measurement")
    add("--seed", type=int, default=0, help="of bank, classes and batch")
    add("--memory-limit-gb", type=above_zero, default=free, help="who takes more is left out")
    add("--skip", nargs="+", default=[], choices=PEERS, metavar="NAME", help=", ".join(PEERS))
    options = parser.parse_args(arguments)
    if options.batch > min(options.rows):
        parser.error(f"--batch: {options.batch} of only {min(options.rows)} rows")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and the line of JSON last."""
    options = parse(arguments)
    benchmark = SncaLossBenchmark(options)
    benchmark.measure()
    print(
        f"batches of {options.batch}, {options.columns} columns, {options.classes} classes, "
        f"temperature {options.temperature:g}, shortest of {options.repeat}"
    )
    benchmark.print_tables()
    ratios = benchmark.ratios(benchmark.cpu.best)
    of_medians = benchmark.ratios(benchmark.cpu.median)
    if ratios:
        print_ratios(ratios, of_medians, benchmark.wanted())
    for name, reason in benchmark.skipped.items():
        print(f"skipped {name}: {reason}")
    print_json(
        {
            "benchmark": "snca_loss",
            "machine": machine.describe(),
            "sizes": {name: getattr(options, name) for name in SIZES},
            "seconds": benchmark.cpu.summary(),
            "wall_seconds": benchmark.wall.summary(),
            "memory": benchmark.memory,
            "wanted_memory": WANTED_MEMORY,
            "losses": benchmark.losses,
            "differences": benchmark.differences,
            "ratios": ratios,
            "ratios_of_medians": of_medians,
            "wanted": benchmark.wanted(),
            "skipped": benchmark.skipped,
        }
    )


if __name__ == "__main__":
    main()
