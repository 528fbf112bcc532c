"""Rows to their nearest centroids, exactly, and sums of the rows of each cluster."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ._library import call, check_array, check_no_overlap, ffi, lib, pointer
from .search import code_width

_PACKED_ROWS = 32
_CACHE_LINE_BYTES = 64
MAX_KMEANS_COLUMNS = int(lib.LOWSHOT_MAX_CODE_WIDTH)
_MAX_CENTROIDS = 2**31 - 1


class Centroids:
    """Centroids that rows are compared with, and what makes that fast.

    Memory: a byte for each number, 12 for each centroid, and 4 for each column, each thread some
    MB while they are made.

    Args:
        values: float32 (k, d), finite; they must not change as long as rows are compared.
        largest: What no number of a row or a centroid exceeds in size; from 0 to 1e18.

    Raises:
        ValueError: Wrong types, shapes or layouts; no centroids or columns, or more than can be;
            NaN or infinity.
        MemoryError: No room.
    """

    def __init__(self, values: npt.NDArray[np.float32], largest: float) -> None:
        check_array("values", values, np.float32, ("k", "d"))
        self.count, self.dimension = values.shape
        for name, size, most in (
            ("centroids", self.count, _MAX_CENTROIDS),
            ("columns", self.dimension, MAX_KMEANS_COLUMNS),
        ):
            if not 1 <= size <= most:
                raise ValueError(f"values: expected 1..{most} {name}, got {size}")
        if not 0 <= largest <= 1e18:
            raise ValueError(f"largest: expected a number from 0 to 1e18, got {largest}")
        width = code_width(self.dimension)
        padded = -(-self.count // _PACKED_ROWS) * _PACKED_ROWS
        bytes_ = np.empty(padded * width + _CACHE_LINE_BYTES, np.uint8)
        first = -bytes_.ctypes.data % _CACHE_LINE_BYTES
        floats = np.empty((3, padded), np.float32)
        few = np.empty(self.dimension + 1, np.float32)
        self._kept = values, bytes_, floats, few
        # Of very small numbers the scale would be none that float32 holds.
        exponent = max(math.frexp(largest)[1], -120)
        self._struct: Any = ffi.new(
            "struct lowshot_centroids *",
            {
                "values": pointer(values),
                "count": self.count,
                "dimension": self.dimension,
                "width": width,
                "scale": 2.0**-exponent,
                "middle": pointer(few),
                "packed": ffi.cast("uint8_t *", bytes_.ctypes.data + first),
                "steps": pointer(floats[0]),
                "halves": pointer(floats[1]),
                "lengths": pointer(floats[2]),
                "ratio": pointer(few[self.dimension :]),
            },
        )

        def explain(kind: int, which: int, row: int, column: int) -> str:
            return f"values: found NaN or infinity in centroid {row}, expected finite numbers"

        call(lib.lowshot_prepare_centroids, self._struct, explain=explain)

    def assign(
        self,
        rows: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int32],
        distances: npt.NDArray[np.float64],
    ) -> None:
        """Find the nearest centroid of each row, of equally near ones the first.

        Memory: some hundred KB for each thread.

        Args:
            rows: float32 (n, d), finite, no number larger in size than what was said; or the
                first columns of a wider matrix.
            labels: int32 (n,), what may be nearest to each row, or -1; then what is.
            distances: float64 (n,), to which squared distances are written. Their bits follow from
                row and centroid alone: columns are added to 16 sums in turn, and these in order.

        Raises:
            ValueError: Wrong types, shapes or layouts; a label that is no centroid; NaN or
                infinity.
            MemoryError: No room.
        """
        stride = check_array("rows", rows, np.float32, ("n", self.dimension), strided=True)
        check_array("labels", labels, np.int32, (len(rows),), writeable=True)
        check_array("distances", distances, np.float64, (len(rows),), writeable=True)
        check_no_overlap("labels", labels, distances=distances)

        def explain(kind: int, which: int, row: int, column: int) -> str:
            if kind == lib.LOWSHOT_NOT_FINITE:
                return f"rows: found NaN or infinity in row {row}, expected finite numbers"
            return f"labels: entry {row} holds {labels[row]}, expected -1 or 0..{self.count - 1}"

        call(
            lib.lowshot_assign_rows,
            self._struct,
            pointer(rows),
            len(rows),
            stride,
            pointer(labels),
            pointer(distances),
            explain=explain,
        )


def add_to_clusters(
    rows: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    units: float,
    sums: npt.NDArray[np.int64],
) -> None:
    """Add rows to the sums of their clusters, as integers, which come out the same in any order.

    Args:
        rows: float32 (n, d); or the first columns of a wider matrix.
        labels: int32 (n,), the cluster of each.
        units: Each number is multiplied by this and rounded to the nearest integer, ties to even,
            which must be less than 2⁵¹ in size; what others come to is not defined.
        sums: int64 (k, d), changed in place; they may wrap.

    Raises:
        ValueError: Wrong types, shapes or layouts; a label that is no cluster.
    """
    stride = check_array("rows", rows, np.float32, ("n", "d"), strided=True)
    check_array("labels", labels, np.int32, (len(rows),))
    check_array("sums", sums, np.int64, ("k", rows.shape[1]), writeable=True)
    for name, given in (("rows", rows), ("labels", labels)):
        check_no_overlap("sums", sums, **{name: given})

    def explain(kind: int, which: int, row: int, column: int) -> str:
        return f"labels: entry {row} holds {labels[row]}, expected 0..{len(sums) - 1}"

    matrix = ffi.new("struct lowshot_matrix *", (pointer(rows), len(rows), rows.shape[1], stride))
    call(
        lib.lowshot_add_to_clusters,
        matrix,
        pointer(labels),
        units,
        pointer(sums),
        len(sums),
        explain=explain,
    )
