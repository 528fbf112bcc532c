"""MKL's inspector-executor product with 64-bit integers, as its manual recommends it.

The project's own module of MKL calls the 32-bit interface and inspects nothing. Here MKL gets all
the time it wants to look at the matrix before the first product. The functions ending in _64 take
64-bit integers whatever the interface layer is, so both can be used in one process.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from cffi import FFI
from numpy.typing import NDArray

from lowshot_kedro.native import SparseMatrix
from lowshot_kedro.native import mkl as installed_mkl

DECLARATIONS = """
struct matrix_descr { int type; int mode; int diag; };
void MKL_Set_Num_Threads(int count);
void MKL_Get_Version_String(char *buffer, int length);
int mkl_sparse_s_create_csr_64(void **matrix, int index_base, int64_t rows, int64_t columns,
    int64_t *row_begins, int64_t *row_ends, int64_t *column_indices, float *values);
int mkl_sparse_set_mm_hint_64(void *matrix, int operation, struct matrix_descr description,
    int layout, int64_t dense_columns, int64_t expected_calls);
int mkl_sparse_optimize_64(void *matrix);
int mkl_sparse_s_mm_64(int operation, float alpha, void *matrix, struct matrix_descr description,
    int layout, const float *dense, int64_t columns, int64_t dense_stride, float beta, float *out,
    int64_t out_stride);
int mkl_sparse_destroy_64(void *matrix);
"""

ffi = FFI()
ffi.cdef(DECLARATIONS)


@functools.cache
def library() -> Any:
    """The MKL that the project uses, or None if there is none or it lacks the 64-bit functions."""
    # Sets the threading layer, which has to come before everything else.
    if not installed_mkl.available():
        return None
    for candidate in installed_mkl._candidates():
        try:
            found = ffi.dlopen(candidate)
            _ = found.mkl_sparse_s_mm_64, found.mkl_sparse_optimize_64
        except (OSError, AttributeError):
            continue
        return found
    return None


def version() -> str | None:
    """The installed MKL in its own words, or None."""
    if library() is None:
        return None
    buffer = ffi.new("char[256]")
    library().MKL_Get_Version_String(buffer, 256)
    return bytes(ffi.string(buffer)).decode().strip()


class InspectedMatrix:
    """A matrix that MKL has inspected.

    Args:
        matrix: n × n.
        values: float32 (nnz,), its values.
        n_columns: Columns of the dense matrices to come.
        n_products: How many products are to come.
    """

    def __init__(
        self, matrix: SparseMatrix, values: NDArray[np.float32], n_columns: int, n_products: int
    ) -> None:
        # MKL reads these arrays as long as the handle lives.
        self._arrays = (matrix.indptr, matrix.indices.astype(np.int64), values)
        self._handle = ffi.new("void **")
        self._description = ffi.new(
            "struct matrix_descr *", {"type": installed_mkl.MATRIX_TYPE_GENERAL}
        )
        indptr, indices, _ = self._arrays
        _check(
            library().mkl_sparse_s_create_csr_64(
                self._handle,
                installed_mkl.INDEX_BASE_ZERO,
                matrix.n_nodes,
                matrix.n_nodes,
                _integers(indptr),
                _integers(indptr[1:]),
                _integers(indices),
                _floats(values),
            )
        )
        _check(
            library().mkl_sparse_set_mm_hint_64(
                self._handle[0],
                installed_mkl.OPERATION_NON_TRANSPOSE,
                self._description[0],
                installed_mkl.LAYOUT_ROW_MAJOR,
                n_columns,
                n_products,
            )
        )
        _check(library().mkl_sparse_optimize_64(self._handle[0]))

    def multiply(self, scores: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Out = W scores, both float32 (n, c), C-contiguous."""
        assert scores.flags.c_contiguous and out.flags.c_contiguous
        n_columns = scores.shape[1]
        _check(
            library().mkl_sparse_s_mm_64(
                installed_mkl.OPERATION_NON_TRANSPOSE,
                1.0,
                self._handle[0],
                self._description[0],
                installed_mkl.LAYOUT_ROW_MAJOR,
                _floats(scores),
                n_columns,
                n_columns,
                0.0,
                _floats(out),
                n_columns,
            )
        )

    def __del__(self) -> None:
        if self._handle[0] != ffi.NULL:
            library().mkl_sparse_destroy_64(self._handle[0])


def _integers(array: NDArray[np.int64]) -> Any:
    assert array.dtype == np.int64
    return ffi.cast("int64_t *", array.ctypes.data)


def _floats(array: NDArray[np.float32]) -> Any:
    assert array.dtype == np.float32
    return ffi.cast("float *", array.ctypes.data)


def _check(status: int) -> None:
    if status != 0:
        raise RuntimeError(f"Intel MKL returned status {status}")
