"""Sums that come out the same whoever adds what: numbers as integers of a common unit."""

from __future__ import annotations

import math

# Integers below this one are told apart in float64, also when they are added to 1.5 · 2⁵².
_VALUE_BITS = 51
_SUM_BITS = 62


def exponent_for(largest: float, count: int) -> int:
    """The e for which `count` numbers, as multiples of 2⁻ᵉ, have a sum that fits 64 bits.

    Args:
        largest: What none of them exceeds in size, finite.
        count: How many there are at most.
    """
    # largest < 2^above
    above = math.frexp(largest)[1] if largest else 0
    return min(_SUM_BITS - count.bit_length(), _VALUE_BITS) - above
