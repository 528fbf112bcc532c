"""The seam between numpy and the compiled module: argument checks, pointers, error messages."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

try:
    from ._native import ffi, lib
except ImportError as error:
    raise ImportError(
        "the compiled module lowshot_kedro.native._native cannot be loaded "
        f"({error}). Installing the package builds it; in a source tree run "
        "python src/lowshot_kedro/native/build_native.py"
    ) from error

from lowshot_kedro.interruption import require_no_stop, stopping_at

__all__ = ["ffi", "lib"]

AnyArray = npt.NDArray[Any]
Shape = tuple[int | str, ...]

MAX_THREADS = 1024

INT32_MAX = int(np.iinfo(np.int32).max)

C_TYPES = {
    np.dtype(np.int8): "int8_t *",
    np.dtype(np.int32): "int32_t *",
    np.dtype(np.int64): "int64_t *",
    np.dtype(np.uint64): "uint64_t *",
    np.dtype(np.float32): "float *",
    np.dtype(np.float64): "double *",
}


# From the slowest to the fastest of a kind of processor.
KERNELS = {
    "plain": lib.LOWSHOT_PLAIN,
    "avx2": lib.LOWSHOT_AVX2,
    "avx-vnni": lib.LOWSHOT_AVX_VNNI,
    "avx512": lib.LOWSHOT_AVX512,
    "avx512-vnni": lib.LOWSHOT_AVX512_VNNI,
    "neon": lib.LOWSHOT_NEON,
    "neon-dotprod": lib.LOWSHOT_NEON_DOTPROD,
}
KERNELS_VARIABLE = "LOWSHOT_KERNELS"


class LibraryFault(ValueError):
    """What a C function has found wrong; kind is its lowshot_fault_kind."""

    def __init__(self, kind: int, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def get_num_threads() -> int:
    """The number of threads the next call of a native function will use (OpenMP's setting).

    Without a call of :func:`set_num_threads` this is what OpenMP chose when it was loaded: the
    environment variable ``OMP_NUM_THREADS``, or the number of processors.
    """
    return int(lib.lowshot_get_num_threads())


def set_num_threads(count: int) -> None:
    """Sets the number of threads of native calls made from this thread of the program.

    Results do not depend on it. Other libraries that share the OpenMP runtime see the same setting.
    A build without OpenMP runs on one thread whatever is set.

    Raises:
        ValueError: ``count`` is not in 1..1024.
    """
    # OpenMP ends the whole process if the system refuses it a thread.
    if not 1 <= count <= MAX_THREADS:
        raise ValueError(f"count: expected 1..{MAX_THREADS} threads, got {count}")
    lib.lowshot_set_num_threads(count)


def available_kernels() -> tuple[str, ...]:
    """The names of the kernels that this processor and this build have, the fastest last."""
    return tuple(name for name, kernels in KERNELS.items() if lib.lowshot_has_kernels(kernels))


def kernels_in_use() -> str:
    """The name of the kernels that native functions run: what their inner loops are made for.

    Unless :func:`use_kernels` says otherwise they are those that the environment variable
    ``LOWSHOT_KERNELS`` names, or the fastest that the processor has. On Arm, where every processor
    has vectors, ``plain`` too is what the compiler makes of plain C with them.

    Raises:
        ValueError: The environment variable names others.
    """
    _require_kernels()
    in_use = lib.lowshot_kernels_in_use()
    return next(name for name, kernels in KERNELS.items() if kernels == in_use)


def use_kernels(name: str) -> None:
    """Has all threads run these kernels from now on. Results do not depend on it.

    Raises:
        ValueError: The processor does not have them.
    """
    if name not in KERNELS or not lib.lowshot_use_kernels(KERNELS[name]):
        expected = ", ".join(available_kernels())
        raise ValueError(
            f"{KERNELS_VARIABLE}: found {name!r}, expected what this processor has: {expected}"
        )


def _choose_kernels() -> ValueError | None:
    """Takes those that the environment asks for; returns what is wrong with that.

    An import that fails would be the end of commands that need no kernels, with a traceback.
    """
    lib.lowshot_use_kernels(lib.lowshot_best_kernels())
    if asked_for := os.environ.get(KERNELS_VARIABLE):
        try:
            use_kernels(asked_for)
        except ValueError as error:
            return error
    return None


_refused = _choose_kernels()


def _require_kernels() -> None:
    if _refused is not None:
        raise _refused


def check_array(
    name: str,
    array: object,
    dtype: npt.DTypeLike,
    shape: Shape,
    *,
    strided: bool = False,
    writeable: bool = False,
) -> int:
    """Raises ValueError unless C can take the array; returns its row stride in elements.

    ``shape`` holds an exact length, or a letter for any length. ``strided`` also allows the first
    columns of a wider C-contiguous matrix.
    """
    expected = f"a {'writeable ' if writeable else ''}C-contiguous {np.dtype(dtype).name} array "
    expected += f"of shape {_shape_text(shape)}"
    if strided:
        expected += " (or the first columns of a wider one)"

    def refuse(found: str) -> NoReturn:
        raise ValueError(f"{name}: expected {expected}, got {found}")

    if not isinstance(array, np.ndarray):
        refuse(f"a {type(array).__name__}")
    found = f"{array.dtype.name} {_shape_text(array.shape)}"
    if array.dtype != np.dtype(dtype):
        if array.dtype.name == np.dtype(dtype).name:
            found += " in foreign byte order"
        refuse(found)
    if array.ndim != len(shape) or any(
        isinstance(length, int) and length != actual
        for length, actual in zip(shape, array.shape, strict=True)
    ):
        refuse(found)
    # A structure of numpy's need not ask for the alignment that C asks for.
    if not array.view(dtype).flags.aligned:
        refuse(f"{found} at an unaligned address")
    if writeable and not array.flags.writeable:
        refuse(f"{found}, read-only")
    if array.flags.c_contiguous:
        return int(array.shape[-1])
    row_stride, remainder = divmod(array.strides[0], array.itemsize)
    if (
        strided
        and array.ndim == 2
        and remainder == 0
        and row_stride >= array.shape[1]
        and (array.shape[1] == 1 or array.strides[1] == array.itemsize)
    ):
        return int(row_stride)
    refuse(f"{found} with strides {array.strides}")


def check_no_overlap(name: str, array: AnyArray, **others: AnyArray) -> None:
    """Raises ValueError if a contiguous array shares memory with one of the others."""
    for other_name, other in others.items():
        # For contiguous arrays comparing the bounds is exact, and it is fast.
        if np.may_share_memory(array, other):
            raise ValueError(
                f"{name}: expected memory of its own, got memory shared with {other_name}"
            )


def pointer(array: AnyArray) -> Any:
    """The address of an array's data. It keeps nothing alive: the caller holds on to the array."""
    return ffi.cast(C_TYPES[array.dtype], array.ctypes.data)


class _OfThread(threading.local):
    """What a signal handler has raised while this thread was in a compiled loop."""

    raised: BaseException | None = None


_of_thread = _OfThread()


def _keep_raised(_: object, raised: BaseException, __: object) -> None:
    _of_thread.raised = raised


@ffi.def_extern(error=1, onerror=_keep_raised)  # type: ignore[untyped-decorator]
def lowshot_poll() -> int:
    """Called by compiled loops ten times a second; an error makes them stop."""
    require_no_stop()
    return 0


MILLISECONDS_BETWEEN_POLLS = 100
lib.lowshot_set_poll(lib.lowshot_poll, MILLISECONDS_BETWEEN_POLLS)


class _ForkedProcess:
    """Has a forked child work in another thread, since OpenMP's threads stay in the parent.

    GNU's OpenMP keeps its threads for each thread that has called it, and does not notice that a
    fork has left them behind: the child's main thread would wait for them for ever. Another thread
    of the child gets threads of its own.
    """

    def __init__(self) -> None:
        self._is_child = False
        self._thread: ThreadPoolExecutor | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._is_child = True
        self._thread = None

    def needs_thread(self) -> bool:
        """Whether this thread must not use OpenMP itself."""
        return self._is_child and threading.current_thread() is threading.main_thread()

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function in a thread that may use OpenMP."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "openmp")
        count = get_num_threads()
        given_up = threading.Event()

        def work() -> Any:
            lib.lowshot_set_num_threads(count)
            with stopping_at(given_up):
                return function()

        future = self._thread.submit(work)
        try:
            return future.result()
        except BaseException:
            given_up.set()
            wait([future])
            raise


_forked = _ForkedProcess()


def where_openmp_works(function: Callable[[], Any]) -> Any:
    """Calls a function that uses OpenMP; in a child that was forked, not in its main thread."""
    return _forked.call(function) if _forked.needs_thread() else function()


def call(function: Callable[..., int], *arguments: Any, explain: "Explain") -> None:
    """Calls a C function that reports faults; ``explain`` turns one into the error message.

    Signal handlers run meanwhile, in the main thread. If one raises, the loops stop, and it is
    raised here.
    """
    if _forked.needs_thread():
        _forked.call(lambda: _call(function, arguments, explain))
    else:
        _call(function, arguments, explain)


def _call(function: Callable[..., int], arguments: tuple[Any, ...], explain: "Explain") -> None:
    _require_kernels()
    fault = ffi.new("struct lowshot_fault *")
    kind = function(*arguments, fault)
    if kind == lib.LOWSHOT_OK:
        return
    if kind == lib.LOWSHOT_STOPPED:
        raised, _of_thread.raised = _of_thread.raised, None
        raise raised if raised is not None else KeyboardInterrupt
    if kind == lib.LOWSHOT_NO_MEMORY:
        raise MemoryError("no memory for intermediate results")
    if kind == lib.LOWSHOT_BAD_SIZE:
        raise ValueError("the arrays are larger than can be addressed")
    raise LibraryFault(kind, explain(kind, fault.list, fault.row, fault.column))


Explain = Callable[[int, int, int, int], str]


def explain_neighbors(name: str, neighbors: AnyArray, nodes: int) -> Explain:
    """Messages for a neighbour matrix with an entry outside -1..nodes - 1."""

    def explain(kind: int, which: int, row: int, column: int) -> str:
        if kind != lib.LOWSHOT_BAD_INDEX:
            return f"{name}: changed during the call"
        allowed = f"-1 or 0..{nodes - 1}" if nodes else "-1 (there are no nodes)"
        return (
            f"{name}: row {row}, column {column} holds {neighbors[row, column]}, expected {allowed}"
        )

    return explain


def explain_graph(
    indptr: AnyArray,
    indices: AnyArray | None,
    edges: int,
    nodes: int,
    mutual: AnyArray | None = None,
) -> Explain:
    """Messages for a compressed sparse row matrix with bad offsets, counts or column indices."""

    def explain(kind: int, which: int, row: int, column: int) -> str:
        if kind == lib.LOWSHOT_BAD_INDEX and indices is not None:
            allowed = f"0..{nodes - 1}" if nodes else "none (there are no nodes)"
            return f"indices: entry {row} holds {indices[row]}, expected {allowed}"
        if kind == lib.LOWSHOT_BAD_MUTUAL and mutual is not None:
            links = indptr[row + 1] - indptr[row]
            return f"mutual: entry {row} holds {mutual[row]}, expected 0..{links}"
        if kind != lib.LOWSHOT_BAD_OFFSET:
            return "matrix: changed during the call"
        found = f"indptr: entry {row} holds {indptr[row]}"
        if row == 0 and indptr[0] != 0:
            return f"{found}, expected 0: offsets start at 0"
        if row > 0 and indptr[row] < indptr[row - 1]:
            return (
                f"{found} after {indptr[row - 1]}, expected at least that: offsets never decrease"
            )
        return f"{found}, expected {edges}: offsets end at the number of edges"

    return explain


def check_node_count(name: str, rows: int) -> None:
    """Raises ValueError for more nodes than int32 can number."""
    if rows > INT32_MAX:
        raise ValueError(f"{name}: expected at most {INT32_MAX} nodes, got {rows}")


def _shape_text(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
