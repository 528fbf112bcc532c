"""Sums over similarities of a batch to a bank of embeddings, and never all similarities at once.

For an embedding x with class y, and rows m_j of the bank with classes y_j, over the rows of the
same class and over those of all other classes:

    log2 of the sum of 2^(<x, m_j>), and the mean of m_j with weights 2^(<x, m_j>)

The mean is the derivative of the logarithm (over ln 2), so both are all that a loss and its
gradient need. Logarithms are to base 2 because torch's exp2 takes half the time of its exp.

Rows are read in the order of classes. Similarities to the rows of one's own class are then a
rectangle of a block of similarities, which is cut out: they are found by the product that finds the
others, and nothing has to be subtracted from a sum in which it may be nearly everything.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.torch_threads import single_threaded_tasks

# A similarity that does not count. Infinity would make NaN of a sum without any that does.
MASKED = -1e30

OWN, OTHER = 0, 1

# Similarities of a block: what stays in the cache of a core, and what keeps a GPU busy.
_BLOCK_ELEMENTS = {"cpu": 2**18, "cuda": 2**24}
_MAX_ROW_ELEMENTS = {"cpu": 2**20, "cuda": 2**24}
_MIN_BLOCK_ROWS = 256

# Parts of the bank that threads share. They depend on sizes alone, and so does the rounding.
_MAX_PARTS = 16
_MAX_PART_ELEMENTS = 2**22


class ClassOrder(NamedTuple):
    """Rows in the order of their classes.

    Attributes:
        rows: int64 (n,), row numbers by class and, within a class, ascending; where the bank is.
        classes: int64 (c,), the classes that have rows, ascending; on the CPU.
        ends: int64 (c,), where each class ends in `rows`; on the CPU.
        is_given: Whether rows stand in this order already.
    """

    rows: torch.Tensor
    classes: torch.Tensor
    ends: torch.Tensor
    is_given: bool

    @classmethod
    def of(cls, labels: torch.Tensor) -> ClassOrder:
        """Of rows whose classes are int64 (n,)."""
        in_order, rows = torch.sort(labels, stable=True)
        classes, counts = torch.unique_consecutive(in_order, return_counts=True)
        is_given = torch.equal(in_order, labels)
        return cls(rows, classes.cpu(), counts.cpu().cumsum(0), is_given)

    def spans(self, classes: torch.Tensor) -> torch.Tensor:
        """Where rows of classes begin and end in this order: int64 (2, len(classes))."""
        if not len(self.classes):
            return torch.zeros((2, len(classes)), dtype=torch.int64)
        place = torch.searchsorted(self.classes, classes).clamp(max=len(self.classes) - 1)
        ends = self.ends[place]
        begins = torch.where(place > 0, self.ends[place - 1], 0)
        return torch.stack([torch.where(self.classes[place] == classes, begins, ends), ends])


class Batch(NamedTuple):
    """Embeddings of images whose own rows do not count.

    Attributes:
        embeddings: (B, D), scaled such that products with rows of the bank are exponents of 2.
        rows: int64 (B,), the row of each image in the bank, or a number that is no row; on the CPU.
        classes: int64 (B,), on the CPU.
    """

    embeddings: torch.Tensor
    rows: torch.Tensor
    classes: torch.Tensor


def similarity_sums(batch: Batch, bank: torch.Tensor, order: ClassOrder) -> torch.Tensor:
    """Sums of similarities to the rows of one's own class without one's own, and to all others.

    The work is shared by as many threads as torch has, and the result is the same for any number.

    Args:
        batch: B embeddings of the bank's dtype.
        bank: float32 or float64 (n, D).
        order: Of its rows.

    Returns:
        float64 (2, B, 1 + D), for OWN and OTHER: the logarithm to base 2, about MASKED where there
        is no row, and the mean. In memory besides: for each thread a block of similarities (2 MB in
        float32 on a CPU) and of rows (up to 4 MB), and twice what is returned for each of up to 16
        parts of the bank.
    """
    by_class = torch.argsort(batch.classes, stable=True)
    classes, counts = torch.unique_consecutive(batch.classes[by_class], return_counts=True)
    here = by_class.to(bank.device)
    embeddings = batch.embeddings[here]
    ends = counts.cumsum(0)
    spans = torch.stack([ends - counts, ends, *order.spans(classes)], dim=1)
    # Of classes that have no row here only `other` is to be found.
    spans = spans[spans[:, 2] < spans[:, 3]]
    bank_part = partial(
        _sums_of_part, embeddings, batch.rows[by_class].to(bank.device), spans, bank, order
    )

    n_rows, dim = len(bank), bank.shape[1]
    block_rows = _block_rows(len(embeddings), dim, bank.device.type)
    n_blocks = max(1, -(-n_rows // block_rows))
    n_parts = min(n_blocks, max(1, min(_MAX_PARTS, _MAX_PART_ELEMENTS // embeddings.numel())))
    ranges = list(row_ranges(n_blocks, -(-n_blocks // n_parts)))
    parts = [torch.empty(0)] * len(ranges)

    def sum_part(number: int) -> None:
        first, last = ranges[number]
        limits = (first * block_rows, min(last * block_rows, n_rows))
        parts[number] = bank_part(list(_shifted_ranges(*limits, block_rows)))

    # A GPU has its own threads.
    n_threads = min(torch.get_num_threads(), len(ranges)) if bank.device.type == "cpu" else 1
    with single_threaded_tasks(n_threads) as run:
        run([partial(sum_part, number) for number in range(len(ranges))])
        combined = combine(torch.stack(parts))
    result = torch.empty_like(combined)
    result[:, here] = combined
    return result


def combine(parts: torch.Tensor) -> torch.Tensor:
    """Sums over all parts of a bank from those over each.

    Args:
        parts: float64 (parts, …, 1 + D), logarithms to base 2 and means.

    Returns:
        float64 (…, 1 + D).
    """
    logs, means = parts[..., :1], parts[..., 1:]
    highest = logs.amax(0)
    shares = torch.exp2(logs - highest)
    total = shares.sum(0)
    return torch.cat([highest + torch.log2(total), (shares * means).sum(0) / total], dim=-1)


class _RunningSums:
    """Sums over blocks of rows for some embeddings, as 2^maximum times what is kept.

    Args:
        embeddings: (n, D), of which sums have device and dtype.
    """

    def __init__(self, embeddings: torch.Tensor) -> None:
        self._maximum = embeddings.new_full((len(embeddings), 1), MASKED)
        # Totals of many blocks would round.
        self._total = torch.zeros_like(self._maximum, dtype=torch.float64)
        self._weighted = torch.zeros_like(embeddings)

    def add(self, scores: torch.Tensor, rows: torch.Tensor, part: slice = slice(None)) -> None:
        """Add some rows.

        Args:
            scores: (n, r), exponents of 2, or MASKED. Overwritten.
            rows: (r, D).
            part: The embeddings of which these are the scores.
        """
        before = self._maximum[part]
        maximum = torch.maximum(before, scores.amax(1, keepdim=True))
        factor = torch.exp2(before - maximum)
        weights = scores.sub_(maximum).exp2_()
        self._total[part].mul_(factor).add_(weights.sum(1, keepdim=True))
        self._weighted[part].mul_(factor).addmm_(weights, rows)
        self._maximum[part] = maximum

    def result(self) -> torch.Tensor:
        """float64 (n, 1 + D), the logarithms to base 2 and the means."""
        # The largest of all scores adds 1, so that a total is 0 or at least 1.
        total = self._total.clamp(min=1)
        return torch.cat([self._maximum + torch.log2(total), self._weighted / total], dim=1)


def _sums_of_part(
    embeddings: torch.Tensor,
    own_rows: torch.Tensor,
    spans: torch.Tensor,
    bank: torch.Tensor,
    order: ClassOrder,
    blocks: list[tuple[int, int]],
) -> torch.Tensor:
    """Sums over blocks of rows, given by where they begin and end in the order of classes.

    Args:
        embeddings: (B, D), by class.
        own_rows: int64 (B,), the row of each in the bank.
        spans: int64 (c, 4), for each class of the batch that has rows: its first embedding, the one
            after its last, and the same of its rows in the order of classes.
        bank: (n, D).
        order: Of its rows.
        blocks: Begin and end of each.

    Returns:
        float64 (2, B, 1 + D).
    """
    own, other = _RunningSums(embeddings), _RunningSums(embeddings)
    *_, lows, highs = spans.T.tolist()
    # Memory that is asked for anew for every block would have to be cleared by the system.
    all_rows, all_scores = bank.new_empty(0), bank.new_empty(0)
    for begin, end in blocks:
        numbers = order.rows[begin:end]
        if order.is_given:
            rows = bank[begin:end]
        else:
            rows = all_rows.resize_(end - begin, bank.shape[1])
            torch.index_select(bank, 0, numbers, out=rows)
        scores = all_scores.resize_(len(embeddings), end - begin)
        torch.mm(embeddings, rows.T, out=scores)
        inside = slice(bisect_right(highs, begin), bisect_left(lows, end))
        for first, last, low, high in spans[inside].tolist():
            columns = slice(max(low - begin, 0), min(high, end) - begin)
            rectangle = scores[first:last, columns]
            is_own_row = numbers[columns] == own_rows[first:last, None]
            own.add(rectangle.masked_fill(is_own_row, MASKED), rows[columns], slice(first, last))
            rectangle.fill_(MASKED)
        other.add(scores, rows)
    return torch.stack([own.result(), other.result()])


def _block_rows(n_embeddings: int, dim: int, device: str) -> int:
    """How many rows a block has."""
    kind = device if device in _BLOCK_ELEMENTS else "cuda"
    rows = min(_BLOCK_ELEMENTS[kind] // n_embeddings, _MAX_ROW_ELEMENTS[kind] // dim)
    return max(rows, _MIN_BLOCK_ROWS)


def _shifted_ranges(first: int, last: int, block_rows: int) -> Iterator[tuple[int, int]]:
    for begin, end in row_ranges(last - first, block_rows):
        yield first + begin, first + end
