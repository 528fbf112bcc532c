"""Stochastic gradient descent of linear classifiers, several side by side, in blocks of iterations.

The gradient of a linear layer is P'X: X holds the features of a batch, P what the softmax gives too
much to each class. The logits of a later batch therefore need the weights as they were before a
block of iterations, and of every earlier batch of the block only P and the inner products of the
features:

    logits of batch t = share of X_t W' + sum over j < t of factor(t - j) (X_t X_j') P_j

This is the arithmetic of plain gradient descent in another order. It makes large products of the
many small ones, one before a block and one after it for all configurations together, and weights
are read and written once a block. With momentum, weights and velocity before the block count both.
Numbers that multiply them follow from a recurrence of two numbers for every configuration.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lowshot_kedro.matrices import row_ranges

Task = Callable[[], Any]
RunTasks = Callable[[Sequence[Task]], None]

_DRAWN_ITERATIONS = 1024

# A block has the rows that cost least: a product is as slow as if it had some rows more, calls cost
# as much as some arithmetic, and what batches of a block cost each other grows with its rows.
_ROWS_LOST_BY_A_PRODUCT = 4
_OPERATIONS_LOST_BY_CALLS = 5_000_000
_MOST_ITERATIONS = 64
_MOST_BLOCK_ROWS = 512

# Parts that threads share. They depend on sizes alone, and so does the rounding.
_WEIGHT_ROWS = 128
_FEATURE_ROWS = 256
_GRAM_COLUMNS = 32
_STEP_ELEMENTS = 2**14
_LEAST_SHARED_OPERATIONS = 2**24

_BUFFERS = 3  # of the block before, the one at work, and the one after

# Rows that are a power of two long fall on each other in the cache.
_COLUMN_MULTIPLE = 16


@contextmanager
def single_threaded_tasks(n_threads: int) -> Iterator[RunTasks]:
    """Tasks side by side, in each of which torch has one thread, so that rounding is always alike.

    Args:
        n_threads: How many tasks run at a time; this thread does its share.

    Yields:
        A function that calls tasks, in any order, and returns when all are done.
    """
    n_before = torch.get_num_threads()
    torch.set_num_threads(1)
    helpers = _Helpers(n_threads - 1)
    try:
        yield helpers.run
    finally:
        helpers.close()
        torch.set_num_threads(n_before)


class _Helpers:
    """Threads that wait for work; to wake one takes less time than with an executor.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._waiting: SimpleQueue[Task | None] = SimpleQueue()
        self._finished: SimpleQueue[BaseException | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._help, name="torch") for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def run(self, tasks: Sequence[Task]) -> None:
        """Call all tasks, and raise the first error."""
        to_do = deque(tasks)

        def work() -> None:
            while True:
                try:
                    task = to_do.popleft()
                except IndexError:
                    return
                task()

        n_asked = max(min(len(self._threads), len(tasks) - 1), 0)
        for _ in range(n_asked):
            self._waiting.put(work)
        try:
            work()
        finally:
            errors = [self._finished.get() for _ in range(n_asked)]
        for error in errors:
            if error is not None:
                raise error

    def close(self) -> None:
        """Let the threads end."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _help(self) -> None:
        # What torch is told here holds for the thread that tells it.
        torch.set_num_threads(1)
        while (work := self._waiting.get()) is not None:
            try:
                work()
            except BaseException as error:
                self._finished.put(error)
            else:
                self._finished.put(None)


class BalancedBatches:
    """Images drawn by choosing a class uniformly, then one of its images uniformly.

    So many iterations are drawn at a time that it does not matter in which portions they are used.

    Args:
        classes: int32 (n,), 0..C-1, each present.
        n_classes: Number of classes C.
        batch_size: Images of a batch.
        generator: Where all randomness comes from.
    """

    def __init__(
        self,
        classes: NDArray[np.int32],
        n_classes: int,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        self._images_by_class = torch.from_numpy(np.argsort(classes, kind="stable"))
        self._sizes = torch.from_numpy(np.bincount(classes, minlength=n_classes))
        self._starts = torch.cumsum(self._sizes, 0) - self._sizes
        self._batch_size = batch_size
        self._generator = generator
        self._n_drawn = 0
        self._state_before = generator.get_state()
        self._latest = torch.empty((0, batch_size), dtype=torch.int64)

    def end_of_draw(self, iteration: int) -> int:
        """Before which iteration the images asked for have to end."""
        return (iteration // _DRAWN_ITERATIONS + 1) * _DRAWN_ITERATIONS

    def images(self, first: int, last: int) -> torch.Tensor:
        """The batches of some iterations, not earlier than those asked for before.

        Args:
            first: Number of the first iteration.
            last: Of the one after the last, at most `end_of_draw(first)`.

        Returns:
            int64 (last - first, batch_size), image numbers.
        """
        while self._n_drawn < self.end_of_draw(first):
            self._draw()
        before = self._n_drawn - _DRAWN_ITERATIONS
        return self._latest[first - before : last - before]

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs to draw the latest images again, and what follows."""
        return {"n_drawn": self._n_drawn - len(self._latest), "random": self._state_before}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was asked for."""
        self._n_drawn = state["n_drawn"]
        self._generator.set_state(state["random"])

    def _draw(self) -> None:
        self._state_before = self._generator.get_state()
        shape = (_DRAWN_ITERATIONS, self._batch_size)
        drawn = torch.randint(len(self._sizes), shape, generator=self._generator)
        fraction = torch.rand(shape, generator=self._generator, dtype=torch.float64)
        position = self._starts[drawn] + (fraction * self._sizes[drawn]).long()
        self._latest = self._images_by_class[position]
        self._n_drawn += _DRAWN_ITERATIONS


class Settings(NamedTuple):
    """What is the same for all, and what is not.

    Attributes:
        lr: float64 (G,), learning rates.
        weight_decay: float64 (G,).
        momentum: Of all.
        batch_size: Of all.
    """

    lr: NDArray[np.float64]
    weight_decay: NDArray[np.float64]
    momentum: float
    batch_size: int


class Factors(NamedTuple):
    """By what to multiply what, for a block of T iterations of G configurations.

    A layer is the weights or, where there is momentum, the velocity: L is 1 or 2.

    Attributes:
        shares: (T, G, L), of each layer before the block in the weights before an iteration.
        between: (G, T, T), of the gradient of an iteration in the weights before a later one.
        kept: (G, L, L), of each layer before the block in each layer after it.
        gradients: (G, L, T), of the gradient of each iteration in each layer after the block.
    """

    shares: NDArray[np.floating]
    between: NDArray[np.floating]
    kept: NDArray[np.floating]
    gradients: NDArray[np.floating]


def factors(settings: Settings, n_iterations: int) -> Factors:
    """The factors of a block.

    The rule is that of `torch.optim.SGD`, for gradients g that are summed over a batch:
    v ← momentum · v + weight decay · w + g / batch size, then w ← w - lr · v.
    """
    lr, decay, momentum = settings.lr, settings.weight_decay, settings.momentum
    momenta = np.full_like(lr, momentum)
    step = np.array([[1 - lr * decay, -lr * momenta], [decay, momenta]]).transpose(2, 0, 1)
    powers = [np.broadcast_to(np.eye(2), step.shape)]
    for _ in range(n_iterations):
        powers.append(step @ powers[-1])
    gradient = np.stack([-lr, np.ones_like(lr)], axis=1)[:, :, None] / settings.batch_size
    later = np.stack([power @ gradient for power in powers[:-1]])[..., 0]
    between = np.zeros((len(lr), n_iterations, n_iterations))
    for earlier in range(n_iterations):
        for iteration in range(earlier + 1, n_iterations):
            between[:, earlier, iteration] = later[iteration - 1 - earlier, :, 0]
    n_layers = 2 if momentum else 1
    return Factors(
        shares=np.stack(powers[:-1])[:, :, 0, :n_layers],
        between=between,
        kept=powers[-1][:, :n_layers, :n_layers],
        gradients=later[::-1, :, :n_layers].transpose(1, 2, 0),
    )


class _BlockFactors:
    """The same as tensors in the shapes in which they are used."""

    def __init__(
        self, settings: Settings, n_iterations: int, n_classes: int, device: torch.device
    ) -> None:
        def tensor(values: NDArray[np.float32]) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        # Powers of a share beyond 2 soon exceed every number: that configuration diverges.
        with np.errstate(over="ignore", invalid="ignore"):
            found = Factors(*(part.astype(np.float32) for part in factors(settings, n_iterations)))
        # By layer, to be multiplied with logits (G, C, T, batch size).
        self.shares = tensor(found.shares.transpose(2, 1, 0))[:, :, None, :, None]
        # To be multiplied with inner products (T, batch size, T, batch size).
        self.between = tensor(found.between)[:, :, None, :, None]
        # By layers, one number for each row of the weights; by layer, one for row and iteration.
        rows = np.repeat(np.arange(len(settings.lr)), n_classes)
        self.kept = tensor(found.kept[rows].transpose(1, 2, 0))[..., None]
        self.gradients = tensor(found.gradients[rows].transpose(1, 0, 2))[..., None]


class _Block(NamedTuple):
    """Some iterations whose batches lie in one of the buffers.

    Attributes:
        first: Number of the first iteration.
        last: Of the one after the last.
        buffer: Which one.
        factors: For as many iterations.
    """

    first: int
    last: int
    buffer: int
    factors: _BlockFactors


class _Part(NamedTuple):
    """A part of the weights.

    Attributes:
        rows: Which rows.
        columns: Which columns.
        panel: Number of these columns among those that the weights are cut into.
    """

    rows: slice
    columns: slice
    panel: int


class BlockDescent:
    """Trains G linear layers on the same batches.

    In memory, besides layers and features: for each row of a block (a few hundred, or one batch if
    that is larger) its features three times, and logits and gradients of all configurations. On a
    CPU the work is cut into parts by its sizes alone, each of which is done in one thread; so the
    result does not depend on the number of threads. No configuration has a part in another's
    numbers.

    Args:
        settings: Of the descent.
        layers: float32 (G·C, d + 1): weights and, if there is momentum, velocities, one
            configuration below the other; the bias is the last column. Changed in place.
        features: float32 (n, d), on the same device.
        classes: int64 (n,), 0..C-1, on the same device.
        n_classes: Number of classes C.
        batches: What is drawn.
    """

    def __init__(
        self,
        settings: Settings,
        layers: Sequence[torch.Tensor],
        features: torch.Tensor,
        classes: torch.Tensor,
        n_classes: int,
        batches: BalancedBatches,
    ) -> None:
        self._settings, self._layers = settings, layers
        self._all_features, self._all_classes = features, classes
        self._n_classes, self._batches = n_classes, batches
        self._device = features.device
        self._factors: dict[int, _BlockFactors] = {}

        n_rows, n_columns = len(layers[0]), features.shape[1]
        self._batch_size = settings.batch_size
        self._block_iterations = iterations_of_a_block(self._batch_size, n_columns, n_rows)
        block_rows = self._block_iterations * self._batch_size
        self._features = [
            padded_rows(block_rows, n_columns + 1, self._device).fill_(1) for _ in range(_BUFFERS)
        ]
        new = partial(torch.empty, dtype=torch.float32, device=self._device)
        self._targets = [new((n_classes, block_rows)) for _ in range(_BUFFERS)]
        self._products = new((block_rows, block_rows))
        self._gradients = new((n_rows, block_rows))

        # Threads that are handed little take longer to begin than to finish.
        operations = 4 * n_rows * n_columns * block_rows
        self.is_shared = self._device.type == "cpu" and operations >= _LEAST_SHARED_OPERATIONS
        self._weight_parts = self._parts_of_weights(n_rows, n_columns + 1)
        n_panels = 1 + max(part.panel for part in self._weight_parts)
        self._logits = [[new((n_rows, block_rows)) for _ in range(n_panels)] for _ in layers]
        n_configurations = len(settings.lr)
        step_elements = n_classes * self._batch_size
        self._step_parts = self._parts(n_configurations, max(1, _STEP_ELEMENTS // step_elements))

    def advance(
        self, first: int, last: int, run: RunTasks, on_progress: Callable[[int], None]
    ) -> None:
        """Do some iterations. Where a portion ends has a part in the rounding.

        Args:
            first: How many are done.
            last: How many will be done then.
            run: From :func:`single_threaded_tasks`.
            on_progress: Gets numbers of iterations as they are done.
        """
        blocks = list(self._blocks(first, last))
        run(self._loading(blocks[0]))
        done: _Block | None = None
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            # The long ones first.
            run(
                [
                    *self._multiplying(done, block),
                    *self._comparing(block),
                    *self._loading(following),
                ]
            )
            run(self._stepping(block))
            on_progress(block.last - block.first)
            done = block
        run(self._multiplying(done, None))

    def _blocks(self, first: int, last: int) -> Iterator[_Block]:
        buffer = 0
        while first < last:
            end = min(first + self._block_iterations, last, self._batches.end_of_draw(first))
            if end - first not in self._factors:
                self._factors[end - first] = _BlockFactors(
                    self._settings, end - first, self._n_classes, self._device
                )
            yield _Block(first, end, buffer, self._factors[end - first])
            first, buffer = end, (buffer + 1) % _BUFFERS

    def _parts(self, n_rows: int, part_rows: int) -> list[slice]:
        if not self.is_shared:
            part_rows = n_rows
        return [slice(*part) for part in row_ranges(n_rows, part_rows)]

    def _parts_of_weights(self, n_rows: int, n_columns: int) -> list[_Part]:
        """Rows of many, columns of few: then products of parts are as fast as of the whole."""
        if n_rows > _WEIGHT_ROWS:
            n_pairs = -(-n_rows // (2 * _WEIGHT_ROWS))
            rows = self._parts(n_rows, -(-n_rows // (2 * n_pairs)))
            return [_Part(part, slice(0, n_columns), 0) for part in rows]
        columns = self._parts(n_columns, round_up(-(-n_columns // 2)))
        return [_Part(slice(0, n_rows), part, panel) for panel, part in enumerate(columns)]

    def _n_rows(self, block: _Block) -> int:
        return (block.last - block.first) * self._batch_size

    def _loading(self, block: _Block | None) -> list[Task]:
        """Features and classes of the batches."""
        if block is None:
            return []
        images = self._batches.images(block.first, block.last).reshape(-1).to(self._device)
        return [
            partial(self._load, block.buffer, images, part)
            for part in self._parts(len(images), _FEATURE_ROWS)
        ]

    def _load(self, buffer: int, images: torch.Tensor, rows: slice) -> None:
        images = images[rows]
        torch.index_select(self._all_features, 0, images, out=self._features[buffer][rows, :-1])
        targets = self._targets[buffer][:, rows]
        targets.zero_().scatter_(0, self._all_classes[images][None], 1.0)

    def _comparing(self, block: _Block) -> list[Task]:
        """Inner products of the features, those of a row with itself and earlier ones."""
        if block.last - block.first == 1:
            return []
        parts = self._parts(self._n_rows(block), max(_GRAM_COLUMNS, self._batch_size))
        return [partial(self._compare, block.buffer, part) for part in parts]

    def _compare(self, buffer: int, rows: slice) -> None:
        features = self._features[buffer]
        out = self._products[: rows.stop, rows]
        torch.mm(features[: rows.stop], features[rows].T, out=out)

    def _multiplying(self, done: _Block | None, begun: _Block | None) -> list[Task]:
        """The large products: weights after a block, and the share of these in the next logits."""
        return [partial(self._multiply, done, begun, part) for part in self._weight_parts]

    def _multiply(self, done: _Block | None, begun: _Block | None, part: _Part) -> None:
        if done is not None:
            self._update(done, part)
        if begun is not None:
            n_rows = self._n_rows(begun)
            features = self._features[begun.buffer][:n_rows, part.columns]
            for layer, logits in zip(self._layers, self._logits, strict=True):
                out = logits[part.panel][part.rows, :n_rows]
                torch.mm(layer[part.rows, part.columns], features.T, out=out)

    def _update(self, block: _Block, part: _Part) -> None:
        n_rows = self._n_rows(block)
        kept = block.factors.kept[:, :, part.rows]
        factor = block.factors.gradients[:, part.rows]
        layers = [layer[part.rows, part.columns] for layer in self._layers]
        if len(layers) == 1:
            layers[0].mul_(kept[0, 0])
        else:
            weights, velocities = layers
            weights_before = weights.clone()
            weights.mul_(kept[0, 0]).addcmul_(velocities, kept[0, 1])
            velocities.mul_(kept[1, 1]).addcmul_(weights_before, kept[1, 0])
        features = self._features[block.buffer][:n_rows, part.columns]
        gradients = self._by_iteration(self._gradients[part.rows, :n_rows])
        for number, layer in enumerate(layers):
            # The logits of this block have done their work.
            scaled = self._logits[number][part.panel][part.rows, :n_rows]
            torch.mul(gradients, factor[number], out=self._by_iteration(scaled))
            layer.addmm_(scaled, features)

    def _by_iteration(self, columns: torch.Tensor) -> torch.Tensor:
        return columns.view(len(columns), -1, self._batch_size)

    def _stepping(self, block: _Block) -> list[Task]:
        """Iteration after iteration."""
        return [partial(self._step, block, part) for part in self._step_parts]

    def _step(self, block: _Block, part: slice) -> None:
        n_iterations, n_rows, size = block.last - block.first, self._n_rows(block), self._batch_size
        logits = self._shared_logits(block, part)
        gradients = self._by_configuration(self._gradients, part, n_rows)
        targets = self._targets[block.buffer]
        if n_iterations > 1:
            batches = (n_iterations, size)
            products = self._products[:n_rows, :n_rows].view(*batches, *batches)
            influence = (products * block.factors.between[part]).view(-1, n_rows, n_rows)
        for first in range(0, n_rows, size):
            now = slice(first, first + size)
            found = logits[:, :, now]
            if first:
                found = torch.baddbmm(found, gradients[:, :, :first], influence[:, :first, now])
            torch.sub(torch.softmax(found, dim=1), targets[:, now], out=gradients[:, :, now])

    def _shared_logits(self, block: _Block, part: slice) -> torch.Tensor:
        """What the layers before the block have in the logits of all its iterations."""
        n_iterations, n_rows = block.last - block.first, self._n_rows(block)
        logits = [
            [self._by_configuration(panel, part, n_rows) for panel in panels]
            for panels in self._logits
        ]
        if n_iterations == 1:
            # The first iteration takes the weights as they are.
            return torch.add(*logits[0]) if len(logits[0]) > 1 else logits[0][0]
        total: torch.Tensor | None = None
        for panels, share in zip(logits, block.factors.shares[:, part], strict=True):
            for panel in panels:
                by_iteration = panel.view(*panel.shape[:2], n_iterations, self._batch_size)
                if total is None:
                    total = by_iteration * share
                else:
                    total.addcmul_(by_iteration, share)
        assert total is not None
        return total.view(*total.shape[:2], n_rows)

    def _by_configuration(self, rows: torch.Tensor, part: slice, n_columns: int) -> torch.Tensor:
        return rows[:, :n_columns].view(-1, self._n_classes, n_columns)[part]


def iterations_of_a_block(batch_size: int, n_columns: int, n_rows: int) -> int:
    """How many iterations cost least, each.

    The cost of a row of a block of R rows, in operations, is that of the products with weights,
    4 · d · n_rows · (1 + rows lost / R), calls, calls / R, and inner products and what they are
    for, R · (d + n_rows).

    Args:
        batch_size: Images of a batch.
        n_columns: Of the features, d.
        n_rows: Classes of all configurations.
    """
    lost = 4 * n_columns * n_rows * _ROWS_LOST_BY_A_PRODUCT + _OPERATIONS_LOST_BY_CALLS
    best_rows: float = min((lost / (n_columns + n_rows)) ** 0.5, _MOST_BLOCK_ROWS)
    return min(max(round(best_rows / batch_size), 1), _MOST_ITERATIONS)


def padded_rows(n_rows: int, n_columns: int, device: torch.device) -> torch.Tensor:
    """Float32 (n_rows, n_columns) of zeros, with rows that begin where memory is read fast."""
    return torch.zeros((n_rows, round_up(n_columns)), device=device)[:, :n_columns]


def round_up(n_columns: int) -> int:
    """To where memory is read fast."""
    return -(-n_columns // _COLUMN_MULTIPLE) * _COLUMN_MULTIPLE
