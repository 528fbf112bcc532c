"""The loss of SNCA, with its bank of one remembered embedding for every training image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.errors import InputError
from lowshot_kedro.parameters import is_number, refuse, require_integer, require_number
from lowshot_kedro.snca.similarity_sums import (
    MASKED,
    OTHER,
    OWN,
    Batch,
    ClassOrder,
    combine,
    similarity_sums,
)
from lowshot_kedro.training.processes import Processes

BANK_DTYPES = (torch.float32, torch.float64)
_SETTINGS = ("temperature", "momentum", "margin")
# −log of the smallest probability that float64 tells from 0.
_MAX_LOSS = 745.13
_DRAWN_ROWS = 2**12


class SNCALoss(nn.Module):
    """−log of the probability that a random neighbour of an image has its class, over a batch.

    Neighbours are the rows of the bank without the image's own, drawn with probabilities that are
    proportional to exp(<x, m_j> / temperature). In the backward pass, after the gradient was formed
    from the bank as it is, the rows of the batch move: m ← u / ‖u‖ with
    u = momentum · m + (1 − momentum) · x. A forward pass alone changes nothing.

    The sum over images is divided by the size of the batch. An image without another one of its
    class adds nothing and has no gradient, but its row moves. So is one whose probability is 0 in
    float64. Embeddings that are not finite make the loss NaN, and their rows stay as they are.

    No tensor of batch × bank is made: a call takes a few MB for each thread, and 16 bytes for each
    image are kept beside the bank. Results are the same for any number of threads. Embeddings
    of another precision are computed in that of the bank.

    With several processes of torch.distributed the bank is shared out by rows: this process has
    rows `first_row` to `last_row` − 1. Each passes its own part of the batch (parts may differ in
    size or be empty), and all get the value for the whole batch. The mean of the gradients over
    processes, which DistributedDataParallel takes, is that of the whole batch. All call together,
    also when the loss is made.

    Z. Wu, A. Efros and S. Yu, "Improving Generalization via Scalable Neighborhood Component
    Analysis", ECCV 2018.

    Args:
        labels: int64 (N,), the class of every training image, or what `torch.as_tensor` takes.
        dim: Columns D of the embeddings.
        temperature: Above 0; the smaller it is, the more the nearest rows count.
        momentum: How much of a row stays, from 0 to below 1.
        margin: By how much similarities to one's own class count as lower, at least 0.

    Attributes:
        bank: float32 or float64 (rows here, D), a buffer. A copy is kept of what is assigned, the
            rows here or all N. At first it is as :meth:`reset_bank` makes it, in float32.
        labels: int64 (N,), a buffer.
        first_row: The first row of the bank that this process has.
        last_row: The one after the last.
        temperature: As given. This, `momentum` and `margin` may be changed between calls.
        momentum: As given.
        margin: As given.

    Raises:
        InputError: If an argument cannot be used.
    """

    bank: torch.Tensor
    labels: torch.Tensor
    _rows_by_class: torch.Tensor

    def __init__(
        self,
        labels: Any,
        dim: int,
        *,
        temperature: float = 0.05,
        momentum: float = 0.5,
        margin: float = 0.0,
    ) -> None:
        super().__init__()
        require_integer("dim", dim, 1)
        self.temperature, self.momentum, self.margin = temperature, momentum, margin
        self._require_settings()
        labels = _checked_labels(labels)
        processes = self._processes = Processes.of_default_group(labels.device)
        self._require_same_data(labels, dim)
        self.first_row = len(labels) * processes.rank // processes.n_processes
        self.last_row = len(labels) * (processes.rank + 1) // processes.n_processes
        order = ClassOrder.of(labels[self.first_row : self.last_row])
        self._order = order._replace(rows=torch.empty(0))
        # A buffer, so that it goes to a GPU with the others.
        self.register_buffer("_rows_by_class", order.rows, persistent=False)
        self.register_buffer("labels", labels)
        shape = (self.last_row - self.first_row, dim)
        self.register_buffer("bank", torch.empty(shape, device=labels.device))
        self.reset_bank()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "bank":
            value = self._rows_here(value).detach().to(self.labels.device, copy=True).contiguous()
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        """What `print` shows."""
        settings = ", ".join(f"{name}={getattr(self, name)}" for name in _SETTINGS)
        return f"{len(self.labels)} images, dim={self.bank.shape[1]}, {settings}"

    def reset_bank(self, generator: torch.Generator | None = None) -> None:
        """Fill the bank with uniform numbers within ±√(3 / D): rows of mean squared length 1.

        Args:
            generator: Where one number is drawn, from which all others follow; None: torch's own.
                That of the first process decides, so that rows are the same for any number.
        """
        device = "cpu" if generator is None else generator.device
        seed = torch.randint(2**62, (1,), generator=generator, device=device)
        seed = self._processes.stack(seed.to(self.bank.device))[0]
        numbers = torch.Generator().manual_seed(int(seed))
        dim = self.bank.shape[1]
        limit = math.sqrt(3 / dim)
        for first, last in row_ranges(self.last_row, _DRAWN_ROWS):
            drawn = torch.empty(last - first, dim).uniform_(-limit, limit, generator=numbers)
            drawn = drawn[max(self.first_row - first, 0) :]
            end = last - self.first_row
            self.bank[max(end - len(drawn), 0) : max(end, 0)] = drawn

    def forward(self, embeddings: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """The loss of a batch.

        Args:
            embeddings: (B, D) of floating point, rows of length 1.
            index: int64 (B,), which training images these are, each at most once.

        Returns:
            A scalar of the bank's dtype.

        Raises:
            InputError: If the batch cannot be used; in all processes if one of them has it.
        """
        batch = self._whole_batch(embeddings, index)
        with torch.autocast(self.bank.device.type, enabled=False):
            value: torch.Tensor = _Loss.apply(embeddings.to(self.bank.dtype), batch, self)
        return value

    def _value_and_gradient(self, batch: _WholeBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a batch and its gradient, float64 () and (B, D)."""
        index = batch.index.to(self.labels.device)
        exponents = batch.embeddings / (self.temperature * math.log(2))
        sums = similarity_sums(
            Batch(exponents, batch.index - self.first_row, self.labels[index].cpu()),
            self.bank,
            self._order._replace(rows=self._rows_by_class),
        )
        if self._processes.n_processes > 1:
            sums = combine(self._processes.stack(sums))
        logs, means = sums[..., 0] * math.log(2), sums[..., 1:]
        # −log(p / (q + p)) is log(1 + q / p), in which nothing cancels where p is nearly all.
        log_odds = logs[OTHER] - logs[OWN] + self.margin / self.temperature
        # A training that has gone wrong has a loss that says so, and not one of 0.
        is_wrong = ~exponents.isfinite().all(1) | log_odds.isnan()
        log_odds = torch.where(is_wrong, torch.nan, log_odds)
        losses = -functional.logsigmoid(-log_odds)
        is_left_out = ~is_wrong & ((logs[OWN] < MASKED / 2) | (losses > _MAX_LOSS))
        slopes = torch.sigmoid(log_odds).masked_fill(is_left_out, 0) / len(index)
        value = losses.masked_fill(is_left_out, 0).sum() / len(index)
        return value, slopes[:, None] * (means[OTHER] - means[OWN]) / self.temperature

    def _remember(self, batch: _WholeBatch) -> None:
        """Move the rows of a batch, as far as they are here."""
        rows = (batch.index - self.first_row).to(self.bank.device)
        is_here = (rows >= 0) & (rows < len(self.bank))
        rows, embeddings = rows[is_here], batch.embeddings[is_here]
        before = self.bank[rows]
        after = self.momentum * before + (1 - self.momentum) * embeddings
        after = after / after.norm(dim=1, keepdim=True)
        # One row of NaN would make every later loss NaN.
        is_finite = after.isfinite().all(1, keepdim=True)
        self.bank[rows] = torch.where(is_finite, after, before)

    def _whole_batch(self, embeddings: torch.Tensor, index: torch.Tensor) -> _WholeBatch:
        """The parts of all processes; refused in all of them if it cannot be used."""
        refusal = None
        try:
            index = self._checked_index(embeddings, index)
        except InputError as error:
            refusal = error
        sizes = [0 if refusal else len(index)]
        if self._processes.n_processes > 1:
            sizes = self._sizes_of_parts(sizes[0], refusal)
        if refusal is not None:
            raise refusal
        embeddings = self._processes.gather(embeddings.detach().to(self.bank.dtype), sizes)
        index = self._processes.gather(index.to(self.bank.device), sizes).cpu()
        _require_distinct(index)
        rank = self._processes.rank
        first = sum(sizes[:rank])
        return _WholeBatch(embeddings, index, slice(first, first + sizes[rank]))

    def _sizes_of_parts(self, size: int, refusal: InputError | None) -> list[int]:
        """Of all processes, unless one of them cannot go on."""
        settings = [0.0 if refusal else float(getattr(self, name)) for name in _SETTINGS]
        facts = self._facts_of_all([refusal is not None, size, *settings], self.bank.device)
        for rank, (is_refused, _, *others) in enumerate(facts):
            if refusal is None and is_refused:
                raise InputError(f"process {rank} has refused its part of the batch")
            for name, here, there in zip(_SETTINGS, settings, others, strict=True):
                if refusal is None and here != there:
                    raise refuse(name, here, f"{there} as in process {rank}")
        return [int(size) for _, size, *_ in facts]

    def _checked_index(self, embeddings: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """The index of a part, int64 on the CPU, if the part can be used."""
        self._require_settings()
        if self.bank.dtype not in BANK_DTYPES:
            raise refuse("bank", str(self.bank.dtype), "float32 or float64")
        n_images, dim = len(self.labels), self.bank.shape[1]
        for name, value in (("embeddings", embeddings), ("index", index)):
            if not isinstance(value, torch.Tensor):
                raise refuse(name, value, "a tensor")
        if embeddings.ndim != 2 or embeddings.shape[1] != dim or not embeddings.is_floating_point():
            raise refuse("embeddings", _kind(embeddings), f"floating point (B, {dim})")
        if embeddings.device != self.bank.device:
            raise refuse("embeddings", str(embeddings.device), f"{self.bank.device} as the bank")
        if index.shape != embeddings.shape[:1] or not _holds_integers(index):
            raise refuse("index", _kind(index), f"int64 ({len(embeddings)},) as the embeddings")
        index = index.to("cpu", torch.int64)
        outside = index[(index < 0) | (index >= n_images)]
        if len(outside):
            raise refuse("index", int(outside[0]), f"0 to {n_images - 1}")
        return index

    def _require_settings(self) -> None:
        if not is_number(self.temperature, 0) or self.temperature == 0:
            raise refuse("temperature", self.temperature, "a number above 0")
        require_number("momentum", self.momentum, 0, below=1)
        require_number("margin", self.margin, 0)

    def _require_same_data(self, labels: torch.Tensor, dim: int) -> None:
        places = torch.arange(1, len(labels) + 1, device=labels.device)
        here = [float(number) for number in (dim, len(labels), (labels * places).sum())]
        for rank, there in enumerate(self._facts_of_all(here, labels.device)):
            if there != here:
                raise InputError(f"labels or dim: other than in process {rank}")

    def _facts_of_all(self, facts: list[float], device: torch.device) -> list[list[float]]:
        """As many numbers from each process, in the order of ranks."""
        here = torch.tensor(facts, dtype=torch.float64, device=device)
        found: list[list[float]] = self._processes.stack(here).tolist()
        return found

    def _rows_here(self, bank: Any) -> torch.Tensor:
        """The rows of this process, of a bank that has these or all."""
        n_images, (n_rows, dim) = len(self.labels), self.bank.shape
        if not isinstance(bank, torch.Tensor) or bank.dtype not in BANK_DTYPES:
            found = _kind(bank) if isinstance(bank, torch.Tensor) else bank
            raise refuse("bank", found, "a tensor of float32 or float64")
        if bank.shape == (n_rows, dim):
            return bank
        if bank.shape != (n_images, dim):
            alternative = f" or ({n_rows}, {dim})" if n_rows < n_images else ""
            raise refuse("bank", _kind(bank), f"({n_images}, {dim}){alternative}")
        return bank[self.first_row : self.last_row]

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """Refuse the bank of other images, and take the rows of this process from a whole bank."""
        labels, bank = (state_dict.get(f"{prefix}{name}") for name in ("labels", "bank"))
        if labels is not None and not torch.equal(labels.to(self.labels), self.labels):
            raise InputError("other than those of the bank that is loaded", parameter="labels")
        if bank is not None:
            state_dict = {**state_dict, f"{prefix}bank": self._rows_here(bank)}
        super()._load_from_state_dict(state_dict, prefix, *arguments)


@dataclass(frozen=True)
class _WholeBatch:
    """A batch of all processes.

    Attributes:
        embeddings: (B, D) of the bank's dtype, without a gradient.
        index: int64 (B,), on the CPU.
        own: The part of this process.
    """

    embeddings: torch.Tensor
    index: torch.Tensor
    own: slice


class _Loss(torch.autograd.Function):
    """The value, computed with the gradient; the bank moves when the gradient is asked for."""

    @staticmethod
    def forward(
        ctx: Any, embeddings: torch.Tensor, batch: _WholeBatch, loss: SNCALoss
    ) -> torch.Tensor:
        value, gradient = loss._value_and_gradient(batch)
        ctx.loss, ctx.batch = loss, batch
        # DistributedDataParallel divides by the number of processes.
        ctx.save_for_backward(
            (loss._processes.n_processes * gradient[batch.own]).to(embeddings.dtype)
        )
        return value.to(embeddings.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        ctx.loss._remember(ctx.batch)
        return slope * gradient, None, None


def _checked_labels(labels: Any) -> torch.Tensor:
    try:
        found = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise refuse("labels", labels, "integers (N,)") from None
    if found.ndim != 1 or not len(found) or not _holds_integers(found):
        raise refuse("labels", _kind(found), "int64 (N,), at least one")
    if int(found.min()) < 0:
        raise refuse("labels", int(found.min()), "classes from 0 on")
    # A copy: what it was made from may change.
    return found.to(torch.int64, copy=True)


def _require_distinct(index: torch.Tensor) -> None:
    """Refuse a batch that is empty or has an image twice."""
    if not len(index):
        raise refuse("index", "(0,)", "at least one image")
    numbers, counts = torch.unique(index, return_counts=True)
    if len(numbers) < len(index):
        twice = int(numbers[counts > 1][0])
        raise InputError(
            "more than once", parameter="index", found=twice, expected="each image once in a batch"
        )


def _holds_integers(tensor: torch.Tensor) -> bool:
    kinds = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
    return tensor.dtype in kinds


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
