"""Intel MKL's sparse product, where the library is installed (x86-64 Linux only).

The library is looked for on first use, not when the package is built: pip builds in an environment
of its own, where MKL is somewhere else or missing.

MKL's 32-bit interface is called on blocks of rows with fewer than 2³¹ edges each. Only the offsets
of a block are converted; column indices and values are read where they are. The 64-bit interface
would need all column indices as int64, a copy twice the size of the original. Score matrices of
more than 2³¹ elements are no obstacle: MKL computes their addresses in 64 bits in both interfaces.
"""

import ctypes.util
import functools
import importlib.metadata
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cffi import FFI

from ._library import pointer

DECLARATIONS = """
struct matrix_descr { int type; int mode; int diag; };
int MKL_Set_Interface_Layer(int layer);
int MKL_Set_Threading_Layer(int layer);
int mkl_sparse_s_create_csr(void **matrix, int index_base, int rows, int columns,
    int32_t *row_begins, int32_t *row_ends, int32_t *column_indices, float *values);
int mkl_sparse_s_mm(int operation, float alpha, void *matrix, struct matrix_descr description,
    int layout, const float *dense, int columns, int dense_stride, float beta, float *out,
    int out_stride);
int mkl_sparse_destroy(void *matrix);
"""

# Values of MKL's enumerations.
LP64_INTERFACE_LAYER = 0
GNU_THREADING_LAYER = 3
INDEX_BASE_ZERO = 0
OPERATION_NON_TRANSPOSE = 10
MATRIX_TYPE_GENERAL = 20
LAYOUT_ROW_MAJOR = 101

# These bound the int32 offsets, with the int64 differences they are made from, to about 50 MB.
BLOCK_EDGES = 2**28
BLOCK_ROWS = 2**22

ffi = FFI()
ffi.cdef(DECLARATIONS)


def _candidates() -> Iterator[str]:
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name.startswith("libmkl_rt.so"):
            yield str(Path(str(file.locate())).resolve())
    for path in sorted(Path(sys.prefix, "lib").glob("libmkl_rt.so*")):
        yield str(path)
    found = ctypes.util.find_library("mkl_rt")
    if found is not None:
        yield found


@functools.cache
def _load() -> Any:
    """The library, or None."""
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "AMD64"):
        return None
    for candidate in _candidates():
        try:
            library = ffi.dlopen(candidate)
            for name in ("mkl_sparse_s_create_csr", "mkl_sparse_s_mm", "mkl_sparse_destroy"):
                getattr(library, name)
            # Has to come before MKL's first computation. MKL's default is Intel's own OpenMP
            # runtime, which does not go well with the GNU one of torch, faiss and this module.
            library.MKL_Set_Threading_Layer(GNU_THREADING_LAYER)
            # The environment may ask for 64-bit integers, which the declarations above are not.
            if library.MKL_Set_Interface_Layer(LP64_INTERFACE_LAYER) != LP64_INTERFACE_LAYER:
                continue
        except (OSError, AttributeError):
            continue
        return library
    return None


def available() -> bool:
    """True if Intel MKL is installed and can be used."""
    return _load() is not None


def require() -> None:
    """Raises RuntimeError if MKL is not there."""
    if not available():
        raise RuntimeError(
            "Intel MKL: the library libmkl_rt is not installed (on x86-64 Linux: pip install mkl)"
        )


def multiply(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    block_edges: int = BLOCK_EDGES,
    block_rows: int = BLOCK_ROWS,
) -> None:
    """Computes out = W scores for arguments that have been checked.

    Blocks of rows hold at most ``block_rows`` rows, and at most ``block_edges`` edges unless a
    single row has more.
    """
    rows, columns = out.shape
    if columns == 0:
        return
    first = 0
    while first < rows:
        last = int(np.searchsorted(indptr, indptr[first] + block_edges, side="right")) - 1
        last = min(max(last, first + 1), first + block_rows, rows)
        begin, end = int(indptr[first]), int(indptr[last])
        if end - begin > np.iinfo(np.int32).max:
            raise ValueError(f"indptr: row {first} has {end - begin} edges, too many for MKL")
        if end == begin:
            out[first:last] = 0
        else:
            offsets = (indptr[first : last + 1] - begin).astype(np.int32)
            _multiply_block(offsets, indices[begin:end], values[begin:end], scores, out[first:last])
        first = last


def _multiply_block(
    offsets: npt.NDArray[np.int32],
    indices: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    library = _load()
    columns = out.shape[1]
    matrix = ffi.new("void **")
    _check(
        "mkl_sparse_s_create_csr",
        library.mkl_sparse_s_create_csr(
            matrix,
            INDEX_BASE_ZERO,
            out.shape[0],
            scores.shape[0],
            pointer(offsets),
            pointer(offsets[1:]),
            pointer(indices),
            pointer(values),
        ),
    )
    try:
        description = ffi.new("struct matrix_descr *", {"type": MATRIX_TYPE_GENERAL})
        _check(
            "mkl_sparse_s_mm",
            library.mkl_sparse_s_mm(
                OPERATION_NON_TRANSPOSE,
                1.0,
                matrix[0],
                description[0],
                LAYOUT_ROW_MAJOR,
                pointer(scores),
                columns,
                columns,
                0.0,
                pointer(out),
                columns,
            ),
        )
    finally:
        library.mkl_sparse_destroy(matrix[0])


def _check(function: str, status: int) -> None:
    if status != 0:
        raise RuntimeError(f"Intel MKL: {function} returned status {status}")
