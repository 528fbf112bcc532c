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
