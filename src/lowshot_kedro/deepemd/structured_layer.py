"""The structured fully connected layer of DeepEMD: prototypes of classes with several images.

C. Zhang, Y. Cai, G. Lin and C. Shen, "DeepEMD: Few-Shot Image Classification With Differentiable
Earth Mover's Distance and Structured Classifiers", CVPR 2020.

Prototypes are maps, like the images. They begin as the mean over the shots of a class and learn, by
stochastic gradient descent, to tell the support images apart. As in the original's evaluation, the
gradient is that of the flow: weights of nodes count as constant in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.deepemd.head import MIN_LENGTH, MIN_WEIGHT, require_finite, require_map
from lowshot_kedro.deepemd.parameters import DeepEMDParameters
from lowshot_kedro.deepemd.solvers import Solver, as_solver
from lowshot_kedro.errors import InputError
from lowshot_kedro.interruption import require_no_stop
from lowshot_kedro.parameters import require_integer, require_number
from lowshot_kedro.torch_threads import torch_threads

MOMENTUM = 0.9
DAMPENING = 0.9

_Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class StructuredLayer:
    """How prototypes learn. What is not said is as in the original's eval.py.

    Attributes:
        lr: Learning rate of stochastic gradient descent with momentum 0.9 and dampening 0.9.
        n_passes: Passes over the support images.
        batch_size: Support images of a step; the last one of a pass may have fewer.
        temperature: By which similarities are multiplied.
        solver: A name of `SOLVERS`, or a solver.

    Raises:
        InputError: If a value cannot be used.
    """

    lr: float = 100.0
    n_passes: int = 100
    batch_size: int = 4
    temperature: float = 12.5
    solver: str | Solver = "native"

    def __post_init__(self) -> None:
        require_number("lr", self.lr, 0)
        require_integer("n_passes", self.n_passes, 0)
        require_integer("batch_size", self.batch_size, 1)
        require_number("temperature", self.temperature, 0)

    @classmethod
    def of(cls, parameters: DeepEMDParameters, solver: Solver) -> StructuredLayer:
        """The layer that parameters describe, with a solver that is made already."""
        return cls(
            lr=parameters.prototype_lr,
            n_passes=parameters.prototype_passes,
            batch_size=parameters.prototype_batch_size,
            temperature=parameters.temperature,
            solver=solver,
        )

    def prototypes(
        self,
        support: torch.Tensor,
        n_way: int,
        n_shot: int,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """As :func:`structured_prototypes`."""
        solver = as_solver(self.solver)
        require_integer("n_way", n_way, 1)
        require_integer("n_shot", n_shot, 1)
        require_map("support", support)
        require_finite("support", support)
        if len(support) != n_way * n_shot:
            raise InputError(
                f"images of {n_way} classes with {n_shot} each",
                parameter="support",
                found=len(support),
                expected=str(n_way * n_shot),
            )
        support = support.detach()
        with torch_threads(1):
            start: torch.Tensor = support.reshape(n_shot, n_way, *support.shape[1:]).mean(0)
            # A class of one image is that image, and one class alone has nothing to differ from.
            if n_shot == 1 or n_way == 1:
                return start
            steps = _Steps(self, solver, support, start)
        with threadpool_limits(1, user_api="blas"), np.errstate(over="ignore", invalid="ignore"):
            for _ in range(self.n_passes):
                require_no_stop()
                steps.make_pass(torch.randperm(len(support), generator=generator).numpy())
        prototypes: torch.Tensor = start + steps.change().to(start.device)
        return prototypes


def structured_prototypes(
    support: torch.Tensor,
    n_way: int,
    n_shot: int,
    *,
    lr: float = 100.0,
    n_passes: int = 100,
    batch_size: int = 4,
    generator: torch.Generator | None = None,
    solver: str | Solver = "native",
) -> torch.Tensor:
    """Prototypes that tell support images apart, by the logits of :func:`.head.emd_logits`.

    Of one image a class, the image is the prototype. Work is done on the processor, in the
    precision of the features, flows in float64; in memory are four times the support images.
    Results are the same for any number of threads. The temperature is 12.5, of which
    :class:`StructuredLayer` takes another one.

    Args:
        support: float32 or float64 (n_shot · n_way, C, H, W), one image of every class, then the
            next one of each, and so on. Gradients do not go into it.
        n_way: Classes.
        n_shot: Images of a class.
        lr: Learning rate.
        n_passes: Passes over the support images.
        batch_size: Support images of a step.
        generator: Where the order of each pass is drawn, on the processor; None: torch's own.
        solver: A name of `SOLVERS`, or a solver.

    Returns:
        (n_way, C, H, W), where the support images are.

    Raises:
        InputError: If arguments cannot be used.
        MissingLibraryError: If the library of the solver is not installed.
    """
    layer = StructuredLayer(lr=lr, n_passes=n_passes, batch_size=batch_size, solver=solver)
    return layer.prototypes(support, n_way, n_shot, generator)


class _Nodes(NamedTuple):
    """Nodes of images, taken apart: node = length · direction + mean.

    Attributes:
        directions: (images, n, C), of length 1 and mean 0 over the channels.
        lengths: (images, n), of centred nodes.
        means: (images, n), over the channels.
    """

    directions: _Array
    lengths: _Array
    means: _Array


class _Steps:
    """Stochastic gradient descent on prototypes.

    Directions have mean 0 over the channels, so that products with them are the same for nodes and
    centred nodes, and gradients have mean 0, too: only centred nodes of prototypes are kept, and
    their means stay as they are. All products of nodes follow from those of directions with centred
    nodes: one matrix product of a batch gives similarities and weights, another one the gradient.

    Args:
        layer: How they learn.
        solver: Its solver.
        support: (S·K, C, H, W), classes in turn.
        start: (K, C, H, W), the prototypes to begin with.
    """

    def __init__(
        self, layer: StructuredLayer, solver: Solver, support: torch.Tensor, start: torch.Tensor
    ) -> None:
        self._layer, self._solver = layer, solver
        self._support = _taken_apart(_as_nodes(support))
        if not np.isfinite(self._support.lengths).all():
            raise InputError("holds numbers whose products are too large", parameter="support")
        nodes = _as_nodes(start)
        self._n_way, self._n, self._n_channels = nodes.shape
        self._shape = start.shape
        rows = nodes.reshape(-1, self._n_channels)
        means = rows.mean(1, keepdims=True)
        self._start = rows - means
        self._centred = self._start.copy()
        self._channel_sums = self._n_channels * means[:, 0]
        self._step, self._room = np.zeros_like(rows), np.empty_like(rows)
        self._steps = 0

    def change(self) -> torch.Tensor:
        """(K, C, H, W), by how much prototypes differ from what they were at first."""
        change = (self._centred - self._start).reshape(self._n_way, self._n, -1)
        return torch.from_numpy(change.transpose(0, 2, 1).reshape(self._shape))

    def make_pass(self, order: NDArray[np.int64]) -> None:
        """A step for every batch of support images.

        Args:
            order: int64 (S·K,), of the support images.

        Raises:
            InputError: If prototypes have become too large for their precision.
        """
        nodes = _Nodes(*(array[order] for array in self._support))
        classes = order % self._n_way
        for first, last in row_ranges(len(order), self._layer.batch_size):
            self._make_step(_Nodes(*(array[first:last] for array in nodes)), classes[first:last])

    def _make_step(self, images: _Nodes, classes: NDArray[np.int64]) -> None:
        n_images, n, n_channels = images.directions.shape
        directions = images.directions.reshape(-1, n_channels)
        squares = np.einsum("jc,jc->j", self._centred, self._centred)
        if not np.isfinite(squares).all():
            raise InputError(
                "makes prototypes too large for their precision",
                parameter="lr",
                found=self._layer.lr,
            )
        lengths = np.maximum(np.sqrt(squares), MIN_LENGTH)
        products = (directions @ self._centred.T).reshape(n_images, n, self._n_way, n)
        by_class = lengths.reshape(self._n_way, 1, n)
        similarities = np.divide(
            products.transpose(0, 2, 1, 3), by_class, order="C", dtype=np.float64
        )
        flow = self._flow(similarities, *self._weights(images, products))

        scale = self._layer.temperature / n
        scores = np.einsum("qkij,qkij->qk", flow, similarities) * scale
        of_scores = _cross_entropy_gradient(scores, classes) * (scale / n_images)

        # A node without a direction has no gradient.
        inverse = np.where(lengths > MIN_LENGTH, 1 / lengths, 0).reshape(self._n_way, 1, n)
        pulls = flow * (of_scores[:, :, None, None] * inverse)
        along = np.einsum("qkij,qkij->kj", pulls, similarities) * inverse[:, 0]
        pulls = pulls.transpose(0, 2, 1, 3).astype(directions.dtype).reshape(len(directions), -1)
        self._follow(pulls, directions, along.astype(directions.dtype).reshape(-1, 1))

    def _weights(self, images: _Nodes, products: _Array) -> tuple[_Array, _Array]:
        """(Q, K, n) of nodes of images, and of nodes of prototypes, not scaled."""
        sums = self._channel_sums.reshape(self._n_way, -1)
        of_images = images.lengths[:, :, None] * products.mean(3)
        of_images += images.means[:, :, None] * sums.mean(1)
        n_images, n = images.lengths.shape
        of_prototypes = images.lengths[:, None] @ products.reshape(n_images, n, -1)
        of_prototypes = of_prototypes.reshape(n_images, self._n_way, -1) / n
        of_prototypes += images.means.mean(1)[:, None, None] * sums
        return of_images.transpose(0, 2, 1), of_prototypes

    def _flow(self, similarities: _Array, *products: _Array) -> _Array:
        n = similarities.shape[3]

        def weights(product: _Array) -> _Array:
            weights = np.maximum(product, 0).astype(np.float64, order="C")
            weights += MIN_WEIGHT + self._solver.weight_offset
            weights *= n / weights.sum(2, keepdims=True)
            return weights.reshape(-1, n)

        costs = (1 - similarities).reshape(-1, n, n)
        flow = self._solver.solve(costs, *(weights(product) for product in products)).flow
        return flow.reshape(similarities.shape)

    def _follow(self, pulls: _Array, directions: _Array, along: _Array) -> None:
        """Move prototypes: the gradient is pullsᵀ · directions − along · centred nodes."""
        part = self._layer.lr
        if self._steps:
            part *= 1 - DAMPENING
            self._step *= MOMENTUM
        self._steps += 1
        pulls *= part
        along *= part
        self._step += np.matmul(pulls.T, directions, out=self._room)
        self._step -= np.multiply(along, self._centred, out=self._room)
        self._centred -= self._step


def _as_nodes(maps: torch.Tensor) -> _Array:
    """(images, C, H, W) → (images, n, C)."""
    nodes: _Array = maps.detach().cpu().flatten(2).transpose(1, 2).contiguous().numpy()
    return nodes


def _taken_apart(nodes: _Array) -> _Nodes:
    means = nodes.mean(2)
    centred = nodes - means[:, :, None]
    with np.errstate(over="ignore"):
        lengths = np.maximum(np.linalg.norm(centred, axis=2), MIN_LENGTH)
    return _Nodes(centred / lengths[:, :, None], lengths, means)


def _cross_entropy_gradient(scores: _Array, classes: NDArray[np.int64]) -> _Array:
    """Of the sum over images, with respect to scores (images, K)."""
    gradient: _Array = np.exp(scores - scores.max(1, keepdims=True))
    gradient /= gradient.sum(1, keepdims=True)
    gradient[np.arange(len(classes)), classes] -= 1
    return gradient
