"""Multinomial logistic regression trained on class-balanced batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.nn.utils import skip_init
from tqdm import tqdm

from lowshot_kedro.errors import InputError
from lowshot_kedro.matrices import row_ranges

_BLOCK_ROWS = 8192


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Sums that several threads share are rounded differently for every number of them."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


class LogisticRegression:
    """One linear layer trained by stochastic gradient descent.

    Every image of a batch is drawn by choosing a class uniformly, then one of its images
    uniformly, so that a class with two images counts as much as one with a thousand (Hariharan and
    Girshick, ICCV 2017). On a CPU it trains in one thread, so that the result does not depend on
    the number of threads.

    Args:
        n_classes: Number of classes C.
        lr: Learning rate, fixed.
        weight_decay: L2 penalty of weights and biases.
        batch_size: Images of a batch.
        max_iterations: Batches.
        momentum: Of the gradient descent.
        seed: Of the initial weights and the batches.
        device: Where to train, for instance `cpu` or `cuda`.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        lr: float,
        weight_decay: float,
        batch_size: int,
        max_iterations: int,
        momentum: float = 0.0,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.n_classes = n_classes
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_iterations = max_iterations
        self.momentum = momentum
        self.seed = seed
        self.device = torch.device(device)
        self._layer: nn.Linear | None = None

    def fit(
        self,
        features: NDArray[np.float32],
        classes: NDArray[np.int32],
        evaluate: Callable[[int], None] | None = None,
        eval_every: int | None = None,
    ) -> None:
        """Train on labelled features.

        Args:
            features: float32 (n, d).
            classes: int32 (n,), 0..C-1, each present.
            evaluate: Called with the number of iterations done, every eval_every and at the end.
            eval_every: Iterations between calls; None: only at the end.

        Raises:
            ValueError: For a class without images, or if the training diverges.
        """
        counts = np.bincount(classes, minlength=self.n_classes)
        if len(counts) != self.n_classes or not counts.all():
            raise InputError(
                f"logistic regression: found images of {np.count_nonzero(counts)} classes in "
                f"0..{len(counts) - 1}, expected at least one of each of {self.n_classes}"
            )
        # All randomness comes from one CPU generator, so that a GPU draws the same batches.
        generator = torch.Generator().manual_seed(self.seed)
        layer: nn.Linear = skip_init(  # type: ignore[no-untyped-call]
            nn.Linear, features.shape[1], self.n_classes
        )
        bound = features.shape[1] ** -0.5
        with torch.no_grad():
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.uniform_(-bound, bound, generator=generator)
        self._layer = layer = layer.to(self.device)
        optimizer = torch.optim.SGD(
            layer.parameters(),
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

        images_by_class = torch.from_numpy(np.argsort(classes, kind="stable"))
        class_sizes = torch.from_numpy(counts)
        class_starts = torch.cumsum(class_sizes, 0) - class_sizes
        all_features = torch.from_numpy(features).to(self.device)
        all_classes = torch.from_numpy(classes.astype(np.int64)).to(self.device)

        bar = tqdm(
            total=self.max_iterations, unit="batch", desc="logistic regression", disable=None
        )
        with bar, _one_torch_thread():
            for iteration in range(1, self.max_iterations + 1):
                drawn = torch.randint(self.n_classes, (self.batch_size,), generator=generator)
                fraction = torch.rand(self.batch_size, generator=generator, dtype=torch.float64)
                position = class_starts[drawn] + (fraction * class_sizes[drawn]).long()
                batch = images_by_class[position].to(self.device)
                optimizer.zero_grad()
                loss = functional.cross_entropy(layer(all_features[batch]), all_classes[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                bar.update()
                at_end = iteration == self.max_iterations
                if at_end or (eval_every is not None and iteration % eval_every == 0):
                    if not all(torch.isfinite(weights).all() for weights in layer.parameters()):
                        raise InputError(
                            f"logistic_regression.lr: {self.lr} is too large, the training "
                            f"diverged before iteration {iteration}"
                        )
                    if evaluate is not None:
                        evaluate(iteration)

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log-probabilities of the classes.

        Args:
            features: float32 (m, d).

        Returns:
            float32 (m, C).

        Raises:
            RuntimeError: Before :meth:`fit`.
        """
        if self._layer is None:
            raise RuntimeError("LogisticRegression: fit it before asking for scores")
        result = np.empty((len(features), self.n_classes), dtype=np.float32)
        with torch.inference_mode(), _one_torch_thread():
            for first, last in row_ranges(len(features), _BLOCK_ROWS):
                block = torch.from_numpy(features[first:last]).to(self.device)
                log_probabilities = functional.log_softmax(self._layer(block), dim=1)
                result[first:last] = log_probabilities.cpu().numpy()
        return result

    def state_dict(self) -> dict[str, Any]:
        """Weight (C, d) and bias (C,), for torch.save.

        Raises:
            RuntimeError: Before :meth:`fit`.
        """
        if self._layer is None:
            raise RuntimeError("LogisticRegression: fit it before asking for its state")
        return {name: tensor.cpu() for name, tensor in self._layer.state_dict().items()}
