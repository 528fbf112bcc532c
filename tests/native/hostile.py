"""What tests with arrays no one should pass have in common."""

import re

import numpy as np
import pytest

from lowshot_kedro.native._library import ffi, lib, pointer

HUGE = 2**62
NULL = ffi.NULL
OK, BAD_SIZE = lib.LOWSHOT_OK, lib.LOWSHOT_BAD_SIZE
KINDS = range(lib.LOWSHOT_OK, lib.LOWSHOT_NOT_SORTED + 1)


def refused(message):
    return pytest.raises(ValueError, match=re.escape(message))


def changed(array, position, value):
    array = array.copy()
    array[position] = value
    return array


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)
    moved = memory[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def malformed(array):
    yield "a list", array.tolist()
    yield "text", "text"
    for dtype in (np.float64, np.int64, np.int16, np.bool):
        if array.dtype != dtype and array.dtype.names is None:
            yield np.dtype(dtype).name, array.astype(dtype)
    yield "foreign bytes", array.astype(array.dtype.newbyteorder())


def misshapen(array):
    yield "one dimension more", array[None]
    yield "one dimension less", array[0] if array.ndim > 1 else np.array(array[0])
    yield "unaligned", unaligned(array)
    yield "backwards", array[::-1]
    yield "every second", np.repeat(array, 2, axis=-1)[..., ::2]
    if array.ndim > 1:
        yield "Fortran's order", np.asfortranarray(array)


def require_refusals(
    function,
    arguments,
    name,
    *,
    any_layout=False,
    any_length=False,
    is_written=False,
    is_required=False,
):
    """Whatever stands in the place of one good array is refused by the name of the argument.

    Args:
        function: Takes the arguments by name.
        arguments: Good ones.
        name: Whose array is replaced.
        any_layout: Whether numpy does the work, which takes every layout and length.
        any_length: Whether nothing else has to agree with its length.
        is_written: Whether the function writes into it.
        is_required: Whether it may not be left out.
    """
    function(**arguments)
    array = arguments[name]
    wrong = list(malformed(array))
    if not any_layout:
        wrong += misshapen(array)
        if not any_length:
            wrong.append(("too short", array[:-1].copy()))
    if is_written:
        wrong.append(("read-only", read_only(array)))
    if is_required:
        wrong.append(("none", None))
    # A byte has no order, and is aligned anywhere.
    fine = {"foreign bytes", "unaligned"} if array.dtype == np.int8 else ()
    for what, replacement in wrong:
        if what not in fine:
            with pytest.raises(ValueError, match=f"{re.escape(name)}: expected "):
                function(**{**arguments, name: replacement})
                pytest.fail(f"{name} is taken: {what}")


def address(argument):
    if not isinstance(argument, np.ndarray):
        return argument
    if argument.dtype.names is not None:
        return ffi.cast("struct lowshot_entry *", argument.ctypes.data)
    return pointer(argument)


def structure(kind, **fields):
    """A structure, which keeps no array alive."""
    return ffi.new(
        f"struct lowshot_{kind} *", {name: address(value) for name, value in fields.items()}
    )


def direct(function, *arguments):
    fault = ffi.new("struct lowshot_fault *")
    kind = function(*map(address, arguments), fault)
    assert kind == (fault.kind if kind != OK else OK)
    assert function(*map(address, arguments), NULL) == kind
    return kind


def garbage_numbers(rng, shape, dtype, limit):
    """Mostly within 0..limit - 1, at times just or far outside."""
    numbers = rng.integers(0, limit, shape)
    information = np.iinfo(dtype)
    odd = [-1, -2, limit, limit + 1, information.min, information.max]
    wrong = rng.random(shape) < rng.choice([0.0, 0.05, 0.5])
    numbers = np.where(wrong, rng.choice(odd, shape), numbers)
    return numbers.astype(dtype)
