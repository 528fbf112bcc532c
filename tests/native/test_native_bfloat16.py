"""Compares with the bfloat16 of torch."""

import numpy as np
import pytest

from lowshot_kedro import native

torch = pytest.importorskip("torch")


def torch_bits(values):
    return torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)


def every_finite_float_in_steps_of(step):
    bits = np.arange(0, 2**32, step, dtype=np.uint32)
    values = bits.view(np.float32)
    return values[np.isfinite(values)]


@pytest.mark.parametrize("step", [2**15, 2999])
def test_rounding_is_torch_s(step):
    """The first step meets all the ties there are."""
    values = every_finite_float_in_steps_of(step)
    for beside in (values, np.nextafter(values, -np.inf), np.nextafter(values, np.inf)):
        beside = beside[np.isfinite(beside)]
        np.testing.assert_array_equal(native.to_bfloat16(beside), torch_bits(beside))


def test_infinity_is_torch_s():
    biggest = np.finfo(np.float32).max
    values = np.array([np.inf, -np.inf, biggest, -biggest, 0.0, -0.0], np.float32)
    np.testing.assert_array_equal(native.to_bfloat16(values), torch_bits(values))


def test_numbers_are_torch_s():
    bits = np.arange(2**16, dtype=np.uint16)
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(native.from_bfloat16(bits), expected)


def test_products_are_rounded_as_torch_does():
    rng = np.random.default_rng(1)
    matrix = native.symmetrize(rng.integers(-1, 500, (500, 9), dtype=np.int32))
    scores = native.to_bfloat16(rng.random((500, 130), dtype=np.float32))
    factors = rng.random(130, dtype=np.float32)
    exact, rounded = np.empty((500, 130), np.float32), np.empty((500, 130), np.uint16)
    native.multiply(matrix, scores, factors, exact)
    native.multiply(matrix, scores, factors, rounded)
    np.testing.assert_array_equal(rounded, torch_bits(exact))
