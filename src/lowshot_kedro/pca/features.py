"""Facts that tell one collection of features from another, for provenance."""

from __future__ import annotations

import zlib
from typing import Any

from lowshot_kedro.blocks import FeatureMatrix, spread_rows

# Every row is a place of its own on a disk.
_CHECKSUM_ROWS = 256


def describe_features(features: FeatureMatrix) -> dict[str, Any]:
    """Sizes of a collection and a checksum of some of its rows, which tell it from others."""
    checksum = 0
    for row in spread_rows(features.n_rows, _CHECKSUM_ROWS).tolist():
        checksum = zlib.crc32(features.read(row, row + 1).tobytes(), checksum)
    return {
        "n_rows": features.n_rows,
        "n_columns": features.n_columns,
        "checksum": f"{checksum:08x}",
    }
