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

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.extras import LazyModule
from lowshot_kedro.torch_threads import RunTasks, Task

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch", "logistic regression", globals())

_DRAWN_ITERATIONS = 1024

# A product is as slow as if it had some rows more, above all where weights come from memory. Calls
# cost as much as some arithmetic, more of them in a block of several iterations.
_ROWS_LOST_IN_CACHE = 4
_ROWS_LOST_IN_MEMORY = 12
_WEIGHTS_IN_CACHE = 2**20
_OPERATIONS_LOST = 2_000_000
_OPERATIONS_LOST_BY_SEVERAL = 10_000_000
_MAX_ITERATIONS = 64
_MAX_BLOCK_ROWS = 512

# Parts that threads share. They depend on sizes alone, and so does the rounding.
_MIN_SHARED_OPERATIONS = 2**22
_MIN_SHARED_ROWS = 512
_ROWS_OF_A_PART = 256
_STEP_ELEMENTS = 2**15
_PRODUCT_COLUMNS = 32

# Blocks whose batches are in memory.
_SLOTS = 16

# Rows that are a power of two long fall on each other in the cache.
_COLUMN_MULTIPLE = 16


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
        """The largest `last` with which :meth:`images` can be called from this iteration on."""
        return (iteration // _DRAWN_ITERATIONS + 1) * _DRAWN_ITERATIONS

    def images(self, first: int, last: int) -> torch.Tensor:
        """The batches of some iterations, not earlier than those asked for before.

        Args:
            first: Number of the first iteration.
            last: Number of the one after the last, at most `end_of_draw(first)`.

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
    """Settings of the configurations: what is the same for all, and what is not.

    Attributes:
        lr: float64 (G,), learning rates.
        weight_decay: float64 (G,).
        momentum: Momentum of all configurations.
        batch_size: Images of a batch, for all configurations.
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

    shares: NDArray[np.float64]
    between: NDArray[np.float64]
    kept: NDArray[np.float64]
    gradients: NDArray[np.float64]


# Numbers of a configuration that diverges soon exceed every other.
@np.errstate(over="ignore", invalid="ignore")
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
    iterations = np.arange(n_iterations)
    lag = iterations - 1 - iterations[:, None]
    between = np.where(lag[..., None] >= 0, later[np.maximum(lag, 0), :, 0], 0)
    n_layers = 2 if momentum else 1
    return Factors(
        shares=np.stack(powers[:-1])[:, :, 0, :n_layers],
        between=between.transpose(2, 0, 1),
        kept=powers[-1][:, :n_layers, :n_layers],
        gradients=later[::-1, :, :n_layers].transpose(1, 2, 0),
    )


class _Block(NamedTuple):
    """Some iterations, and where their batches lie.

    Attributes:
        first: Number of the first iteration.
        last: Number of the one after the last.
        slot: Number of the part of the memory for batches.
    """

    first: int
    last: int
    slot: int

    @property
    def n_iterations(self) -> int:
        """How many iterations the block has."""
        return self.last - self.first


class _Batches(NamedTuple):
    """The memory of a slot, as a block of T batches of B images uses it.

    Attributes:
        features: (T·B, d + 1), the last column is 1.
        targets: (C, T·B), 1 for the class of an image.
        products: (T·B, T·B), of the rows of features.
    """

    features: torch.Tensor
    targets: torch.Tensor
    products: torch.Tensor


class _Rows(NamedTuple):
    """Some rows of the layers and what belongs to them, as a block of T batches uses it.

    Attributes:
        layers: For each layer (m, d + 1).
        logits: For each layer (m, T·B), its share in the logits.
        scaled: The same memory as (m, T, B).
        gradients: (m, T, B).
        kept: (L, L, m, 1), by what layers are multiplied in layers.
        factors: For each layer (m, T, 1), by what gradients are multiplied in it.
    """

    layers: list[torch.Tensor]
    logits: list[torch.Tensor]
    scaled: list[torch.Tensor]
    gradients: torch.Tensor
    kept: torch.Tensor
    factors: torch.Tensor


class _Steps(NamedTuple):
    """Some configurations and what belongs to them, as a block of T batches uses it.

    Attributes:
        logits: For each layer (g, C, T, B), its share in the logits.
        gradients: (g, C, T·B).
        shares: For each layer (g, 1, T, 1), by what logits are multiplied.
        between: (g, T, 1, T, 1), by what products are multiplied.
    """

    logits: list[torch.Tensor]
    gradients: torch.Tensor
    shares: torch.Tensor
    between: torch.Tensor


class BlockDescent:
    """Trains G linear layers on the same batches.

    In memory, besides layers and features, are the batches of some blocks, and logits and gradients
    of all configurations for a block of a few hundred images, or of one batch if that is larger. On
    a CPU the work is cut into parts by its sizes alone, each of which is done in one thread; so the
    result does not depend on the number of threads. No configuration has a part in another's
    numbers.

    Args:
        settings: Settings of the configurations.
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
        self._n_classes, self._draws = n_classes, batches
        self._device = features.device

        n_rows, n_columns = len(layers[0]), features.shape[1]
        self._batch_size = settings.batch_size
        self._block_iterations = iterations_of_a_block(self._batch_size, n_columns, n_rows)
        self._block_rows = block_rows = self._block_iterations * self._batch_size
        new = partial(torch.empty, dtype=torch.float32, device=self._device)
        self._features = padded_rows(_SLOTS * block_rows, n_columns + 1, self._device).fill_(1)
        self._targets = new((n_classes, _SLOTS * block_rows))
        self._products = new((_SLOTS, block_rows, block_rows))
        self._logits = [new((n_rows, block_rows)) for _ in layers]
        self._gradients = new((n_rows, block_rows))

        n_configurations = len(settings.lr)
        self._row_parts: list[slice] = []
        operations = 4 * n_rows * n_columns * block_rows
        if self._device.type != "cpu" or operations < _MIN_SHARED_OPERATIONS:
            n_parts = 1
        elif n_rows < _MIN_SHARED_ROWS:
            n_parts = 2
        else:
            n_parts = n_rows * self._batch_size // _STEP_ELEMENTS
            self._row_parts = _parts(n_rows, 2 * -(-n_rows // (2 * _ROWS_OF_A_PART)))
        self._configuration_parts = _parts(n_configurations, n_parts)
        # More threads than that have nothing to do.
        self.n_parts = max(len(self._row_parts), len(self._configuration_parts))

        # Cutting a tensor takes longer than some of what is done with the parts.
        self._batches: dict[tuple[int, int], _Batches] = {}
        self._rows: dict[tuple[int, int, int], _Rows] = {}
        self._steps: dict[tuple[int, int, int], _Steps] = {}

    def advance(
        self, first: int, last: int, run: RunTasks, on_progress: Callable[[int], None]
    ) -> None:
        """Do some iterations. Where a portion ends has a part in the rounding.

        Args:
            first: How many are done.
            last: How many will be done then.
            run: Runs tasks side by side; what :func:`single_threaded_tasks` yields.
            on_progress: Gets numbers of iterations as they are done.
        """
        if self._row_parts:
            self._advance_by_rows(list(self._blocks(first, last)), run, on_progress)
        else:
            self._advance_by_configurations(list(self._blocks(first, last)), run, on_progress)

    def _blocks(self, first: int, last: int) -> Iterator[_Block]:
        slot = 0
        while first < last:
            end = min(first + self._block_iterations, last, self._draws.end_of_draw(first))
            yield _Block(first, end, slot)
            first, slot = end, (slot + 1) % _SLOTS

    def _advance_by_configurations(
        self, blocks: Sequence[_Block], run: RunTasks, on_progress: Callable[[int], None]
    ) -> None:
        """Every thread has configurations of its own, and waits for the others once in some blocks.

        To wake one takes as long as a large part of an iteration of a small problem. Who is done
        first loads the next batches.
        """
        groups = [blocks[slice(*part)] for part in row_ranges(len(blocks), _SLOTS // 2)]
        self._loading(groups[0])()
        for number, group in enumerate(groups):
            training = [partial(self._train, group, part) for part in self._configuration_parts]
            run([*training, *map(self._loading, groups[number + 1 : number + 2])])
            on_progress(group[-1].last - group[0].first)

    def _train(self, blocks: Sequence[_Block], part: slice) -> None:
        rows = self._rows_of_configurations(part)
        for block in blocks:
            self._begin(block, rows)
            self._step(block, part)
            self._update(block, rows)

    def _advance_by_rows(
        self, blocks: Sequence[_Block], run: RunTasks, on_progress: Callable[[int], None]
    ) -> None:
        """Threads share the products of a block, whatever the configuration."""
        self._loading(blocks[:1])()
        done: _Block | None = None
        for number, block in enumerate(blocks):
            loading = [self._loading([following]) for following in blocks[number + 1 : number + 2]]
            run([*loading, *self._multiplying(done, block)])
            run([partial(self._step, block, part) for part in self._configuration_parts])
            on_progress(block.n_iterations)
            done = block
        run(self._multiplying(done, None))

    def _multiplying(self, done: _Block | None, begun: _Block | None) -> list[Task]:
        return [partial(self._multiply, done, begun, part) for part in self._row_parts]

    def _multiply(self, done: _Block | None, begun: _Block | None, part: slice) -> None:
        """The end of a block and the beginning of the next, while weights are in the cache."""
        if done is not None:
            self._update(done, part)
        if begun is not None:
            self._begin(begun, part)

    def _loading(self, blocks: Sequence[_Block]) -> Task:
        """A task that gets ready what blocks need of their batches."""
        images = [self._draws.images(block.first, block.last).reshape(-1) for block in blocks]
        return partial(self._load, blocks, torch.cat(images))

    def _load(self, blocks: Sequence[_Block], images: torch.Tensor) -> None:
        images = images.to(self._device)
        done = 0
        for block in blocks:
            batches = self._batches_of(block)
            some = images[done : done + len(batches.features)]
            torch.index_select(self._all_features, 0, some, out=batches.features[:, :-1])
            batches.targets.zero_().scatter_(0, self._all_classes[some][None], 1.0)
            if block.n_iterations > 1:
                self._compare(batches)
            done += len(some)

    def _compare(self, batches: _Batches) -> None:
        """Inner products of rows with those of the same batch and earlier ones."""
        features, products = batches.features, batches.products
        for first, last in row_ranges(len(features), max(_PRODUCT_COLUMNS, self._batch_size)):
            torch.mm(features[:last], features[first:last].T, out=products[:last, first:last])

    def _begin(self, block: _Block, part: slice) -> None:
        """The share of layers before a block in the logits of its batches."""
        features = self._batches_of(block).features
        rows = self._rows_of(block, part)
        for layer, logits in zip(rows.layers, rows.logits, strict=True):
            torch.mm(layer, features.T, out=logits)

    def _step(self, block: _Block, part: slice) -> None:
        """Gradients, iteration after iteration."""
        batches = self._batches_of(block)
        steps = self._steps_of(block, part)
        if block.n_iterations == 1:
            # Its logits are those of the weights as they are.
            found = torch.softmax(steps.logits[0].squeeze(2), dim=1)
            torch.sub(found, batches.targets, out=steps.gradients)
            return
        n_rows, size = len(batches.features), self._batch_size
        logits = steps.logits[0] * steps.shares[0]
        for layer, share in zip(steps.logits[1:], steps.shares[1:], strict=True):
            logits.addcmul_(layer, share)
        logits = logits.view(steps.gradients.shape)
        products = batches.products.view(2 * (block.n_iterations, size))
        influence = (products * steps.between).view(-1, n_rows, n_rows)
        for first in range(0, n_rows, size):
            now = slice(first, first + size)
            found = logits[:, :, now]
            if first:
                before = steps.gradients[:, :, :first]
                found = torch.baddbmm(found, before, influence[:, :first, now])
            found = torch.softmax(found, dim=1)
            torch.sub(found, batches.targets[:, now], out=steps.gradients[:, :, now])

    def _update(self, block: _Block, part: slice) -> None:
        """The layers after a block."""
        features = self._batches_of(block).features
        rows = self._rows_of(block, part)
        if len(rows.layers) == 1:
            rows.layers[0].mul_(rows.kept[0, 0])
        else:
            weights, velocities = rows.layers
            weights_before = weights.clone()
            weights.mul_(rows.kept[0, 0]).addcmul_(velocities, rows.kept[0, 1])
            velocities.mul_(rows.kept[1, 1]).addcmul_(weights_before, rows.kept[1, 0])
        # The logits of this block have done their work.
        for layer, scaled, logits, factor in zip(
            rows.layers, rows.scaled, rows.logits, rows.factors, strict=True
        ):
            torch.mul(rows.gradients, factor, out=scaled)
            layer.addmm_(logits, features)

    def _batches_of(self, block: _Block) -> _Batches:
        key = block.slot, block.n_iterations
        if key not in self._batches:
            n_rows = block.n_iterations * self._batch_size
            first = block.slot * self._block_rows
            self._batches[key] = _Batches(
                self._features[first : first + n_rows],
                self._targets[:, first : first + n_rows],
                self._products[block.slot, :n_rows, :n_rows],
            )
        return self._batches[key]

    def _rows_of(self, block: _Block, part: slice) -> _Rows:
        key = part.start, part.stop, block.n_iterations
        if key not in self._rows:
            shape = (part.stop - part.start, block.n_iterations, self._batch_size)
            logits = [layer[part, : shape[1] * shape[2]] for layer in self._logits]
            found = factors(self._settings, block.n_iterations)
            configurations = np.arange(part.start, part.stop) // self._n_classes
            self._rows[key] = _Rows(
                layers=[layer[part] for layer in self._layers],
                logits=logits,
                scaled=[layer.view(shape) for layer in logits],
                gradients=self._gradients[part, : shape[1] * shape[2]].view(shape),
                kept=self._tensor(found.kept[configurations].transpose(1, 2, 0))[..., None],
                factors=self._tensor(found.gradients[configurations].transpose(1, 0, 2))[..., None],
            )
        return self._rows[key]

    def _steps_of(self, block: _Block, part: slice) -> _Steps:
        key = part.start, part.stop, block.n_iterations
        if key not in self._steps:
            n_columns = block.n_iterations * self._batch_size
            rows = self._rows_of_configurations(part)
            shape = (-1, self._n_classes, block.n_iterations, self._batch_size)
            found = factors(self._settings, block.n_iterations)
            shares = self._tensor(found.shares[:, part].transpose(2, 1, 0))
            self._steps[key] = _Steps(
                logits=[layer[rows, :n_columns].view(shape) for layer in self._logits],
                gradients=self._gradients[rows, :n_columns].view(*shape[:2], n_columns),
                shares=shares[:, :, None, :, None],
                between=self._tensor(found.between[part])[:, :, None, :, None],
            )
        return self._steps[key]

    def _rows_of_configurations(self, part: slice) -> slice:
        return slice(part.start * self._n_classes, part.stop * self._n_classes)

    def _tensor(self, values: NDArray[np.float64]) -> torch.Tensor:
        with np.errstate(over="ignore", invalid="ignore"):
            return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self._device)


def _parts(n_rows: int, count: int) -> list[slice]:
    """Cut rows into about count parts, all but the last of the same size."""
    return [slice(*part) for part in row_ranges(n_rows, -(-n_rows // max(count, 1)))]


def iterations_of_a_block(batch_size: int, n_columns: int, n_rows: int) -> int:
    """How many iterations cost least, each.

    Args:
        batch_size: Images of a batch.
        n_columns: Columns of the features.
        n_rows: Classes of all configurations.
    """
    in_cache = n_rows * n_columns <= _WEIGHTS_IN_CACHE
    rows_lost = _ROWS_LOST_IN_CACHE if in_cache else _ROWS_LOST_IN_MEMORY

    def operations_of_a_row(n_iterations: int) -> float:
        block_rows = n_iterations * batch_size
        products = 4 * n_columns * n_rows * (1 + rows_lost / block_rows)
        if n_iterations == 1:
            return products + _OPERATIONS_LOST / block_rows
        # Inner products of features, which are small ones, and what they are for.
        between = block_rows * (2 * n_columns + n_rows)
        return products + between + (_OPERATIONS_LOST + _OPERATIONS_LOST_BY_SEVERAL) / block_rows

    most = min(_MAX_ITERATIONS, max(_MAX_BLOCK_ROWS // batch_size, 1))
    return min(range(1, most + 1), key=operations_of_a_row)


def padded_rows(n_rows: int, n_columns: int, device: torch.device) -> torch.Tensor:
    """Float32 (n_rows, n_columns) of zeros, with rows that begin where memory is read fast."""
    width = -(-n_columns // _COLUMN_MULTIPLE) * _COLUMN_MULTIPLE
    return torch.zeros((n_rows, width), device=device)[:, :n_columns]
