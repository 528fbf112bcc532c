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
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch.nn import functional

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
        bounds: int64 (c + 1,), where each class begins in `rows`, and where the last one ends; on
            the CPU.
        is_given: Whether rows stand in this order already.
    """

    rows: torch.Tensor
    classes: torch.Tensor
    bounds: torch.Tensor
    is_given: bool

    @classmethod
    def of(cls, labels: torch.Tensor) -> ClassOrder:
        """Of rows whose classes are int64 (n,)."""
        in_order, rows = torch.sort(labels, stable=True)
        classes, counts = torch.unique_consecutive(in_order, return_counts=True)
        bounds = functional.pad(counts.cpu().cumsum(0), (1, 0))
        return cls(rows, classes.cpu(), bounds, torch.equal(in_order, labels))

    def rectangles(self, classes: torch.Tensor) -> list[list[int]]:
        """Where images and rows have one class.

        Args:
            classes: int64 (B,), ascending, of images; on the CPU.

        Returns:
            For each class that both have, ascending: the first of its images, the one after the
            last, and the same of its rows in this order.
        """
        wanted, counts = torch.unique_consecutive(classes, return_counts=True)
        ends = counts.cumsum(0)
        is_here = torch.isin(wanted, self.classes)
        place = torch.searchsorted(self.classes, wanted[is_here])
        sides = (ends - counts)[is_here], ends[is_here], self.bounds[place], self.bounds[place + 1]
        found: list[list[int]] = torch.stack(sides, dim=1).tolist()
        return found


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
        is no row, and the mean. In memory besides: for each thread a block of similarities (1 MB in
        float32 on a CPU) and of rows (up to 4 MB), and as much as is returned for each of up to 16
        parts of the bank.
    """
    by_class = torch.argsort(batch.classes, stable=True)
    here = by_class.to(bank.device)
    in_order = Batch(batch.embeddings[here], batch.rows[by_class], batch.classes[by_class])
    n_rows = len(bank)
    block_rows = _block_rows(len(batch.embeddings), bank)
    part_rows = block_rows * _blocks_of_a_part(-(-n_rows // block_rows), batch.embeddings.numel())
    ranges = list(row_ranges(n_rows, part_rows)) or [(0, 0)]
    rectangles = order.rectangles(in_order.classes)
    parts: dict[int, torch.Tensor] = {}

    def sum_part(number: int) -> None:
        starts = range(*ranges[number], block_rows)
        parts[number] = _sums_of_part(in_order, bank, order, rectangles, starts, ranges[number][1])

    # A GPU has its own threads.
    n_threads = min(torch.get_num_threads(), len(ranges)) if bank.device.type == "cpu" else 1
    with single_threaded_tasks(n_threads) as run:
        run([partial(sum_part, number) for number in range(len(ranges))])
        sums = combine(parts[number] for number in range(len(ranges)))
    result = torch.empty_like(sums)
    result[:, here] = sums
    return result


def combine(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """Sums over all parts of a bank from those over each.

    Args:
        parts: float64 (…, 1 + D) each, logarithms to base 2 and means.

    Returns:
        float64 (…, 1 + D).
    """
    parts = list(parts)
    highest = torch.stack([part[..., :1] for part in parts]).amax(0)
    total, weighted = torch.zeros_like(highest), torch.zeros_like(parts[0][..., 1:])
    for part in parts:
        share = torch.exp2(part[..., :1] - highest)
        total += share
        weighted.addcmul_(share, part[..., 1:])
    return torch.cat([highest + torch.log2(total), weighted.div_(total)], dim=-1)


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
    batch: Batch,
    bank: torch.Tensor,
    order: ClassOrder,
    rectangles: list[list[int]],
    starts: range,
    end_of_part: int,
) -> torch.Tensor:
    """Sums over blocks of rows that follow each other in the order of classes.

    Args:
        batch: In the order of classes.
        bank: (n, D).
        order: Of its rows.
        rectangles: Of the batch.
        starts: Where blocks begin.
        end_of_part: Where the last one ends.

    Returns:
        float64 (2, B, 1 + D).
    """
    embeddings, own_rows = batch.embeddings, batch.rows.to(bank.device)
    own, other = _RunningSums(embeddings), _RunningSums(embeddings)
    lows, highs = [low for _, _, low, _ in rectangles], [high for *_, high in rectangles]
    # Memory that is asked for anew for every block would have to be cleared by the system.
    all_rows, all_scores = bank.new_empty(0), bank.new_empty(0)
    for begin in starts:
        end = min(begin + starts.step, end_of_part)
        numbers = order.rows[begin:end]
        if order.is_given:
            rows = bank[begin:end]
        else:
            rows = all_rows.resize_(end - begin, bank.shape[1])
            torch.index_select(bank, 0, numbers, out=rows)
        scores = all_scores.resize_(len(embeddings), end - begin)
        torch.mm(embeddings, rows.T, out=scores)
        inside = slice(bisect_right(highs, begin), bisect_left(lows, end))
        for first, last, low, high in rectangles[inside]:
            columns = slice(max(low - begin, 0), min(high, end) - begin)
            rectangle = scores[first:last, columns]
            is_own_row = numbers[columns] == own_rows[first:last, None]
            own.add(rectangle.masked_fill(is_own_row, MASKED), rows[columns], slice(first, last))
            rectangle.fill_(MASKED)
        other.add(scores, rows)
    return torch.stack([own.result(), other.result()])


def _blocks_of_a_part(n_blocks: int, n_elements: int) -> int:
    """How many blocks a part of the bank has, for so many numbers of all embeddings."""
    n_parts = max(1, min(_MAX_PARTS, _MAX_PART_ELEMENTS // n_elements))
    return max(1, -(-n_blocks // n_parts))


def _block_rows(n_embeddings: int, bank: torch.Tensor) -> int:
    """How many rows a block has."""
    kind = "cpu" if bank.device.type == "cpu" else "cuda"
    rows = min(_BLOCK_ELEMENTS[kind] // n_embeddings, _MAX_ROW_ELEMENTS[kind] // bank.shape[1])
    return max(rows, _MIN_BLOCK_ROWS)
