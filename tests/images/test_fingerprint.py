import hashlib

import numpy as np
import pytest

from lowshot_kedro.images.fingerprint import (
    checksum,
    file_size,
    numbers_as_bytes,
)


def test_the_checksum_knows_where_a_part_ends():
    assert len({checksum([b"ab", b"c"]), checksum([b"a", b"bc"]), checksum([b"abc"])}) == 3
    expected = hashlib.blake2b(bytes([2, *7 * [0]]) + b"ab" + bytes(8), digest_size=16)
    assert checksum([b"ab", b""]) == expected.hexdigest()


@pytest.mark.parametrize("dtype", ["<i4", ">i4", "<i8", "uint8"])
def test_numbers_are_the_same_bytes_whatever_holds_them(dtype):
    expected = bytes([1, *7 * [0], 200, *7 * [0]])
    assert numbers_as_bytes(np.array([1, 200], dtype=dtype)) == expected
    assert numbers_as_bytes([1, 200]) == expected


def test_the_size_of_a_file_that_is_not_there_is_minus_one(tmp_path):
    (tmp_path / "a").write_bytes(bytes(7))
    assert file_size(tmp_path / "a") == 7
    assert file_size(tmp_path / "b") == file_size(tmp_path / "a\0b") == -1
