"""Solvers whose libraries may be missing."""

from importlib.util import find_spec

import pytest

LIBRARIES = {"pot": "ot", "opencv": "cv2", "qpth": "qpth", "qpth_qp": "qpth"}


def installed(name: str) -> str:
    """The name of a solver, or a test that is skipped."""
    if name in LIBRARIES and find_spec(LIBRARIES[name]) is None:
        pytest.skip(f"{LIBRARIES[name]} is not installed")
    return name
