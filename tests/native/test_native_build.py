import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lowshot_kedro import native
from lowshot_kedro.native import build_native

SOURCES = Path(native.__file__).parent

# A compiler without OpenMP, as on macOS.
COMPILER = """#!/bin/sh
for argument in "$@"; do
    if [ "$argument" = -fopenmp ]; then echo "unsupported option -fopenmp" >&2; exit 1; fi
done
exec {compiler} "$@"
"""

BUILD = """
import sys
import warnings
from pathlib import Path
from lowshot_kedro.native.build_native import compile_in_place

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    compile_in_place(Path(sys.argv[1]), ["-Werror", "-O1", "-DLOWSHOT_NO_VECTORS"])
assert any("will run on one thread" in str(warning.message) for warning in caught), caught
"""

USE = """
import numpy as np
from lowshot_kedro import native

native.set_num_threads(4)
assert native.get_num_threads() == 1, native.get_num_threads()
neighbors = np.array([[1], [0], [0]], np.int32)
matrix = native.symmetrize(neighbors)
assert (matrix.indices.tolist(), matrix.mutual.tolist()) == ([1, 2, 0, 0], [1, 1, 0])
scores, out = np.eye(3, dtype=np.float32), np.empty((3, 3), np.float32)
assert native.multiply(matrix, scores, np.ones(3, np.float32), out).tolist() == out.sum(0).tolist()
assert out[1].tolist() == [1, 0, 0]
assert sorted(native.cluster_nodes(neighbors).tolist()) == [0, 1, 2]
"""

SYMMETRIZE = """
import hashlib
import numpy as np
from lowshot_kedro import native

rng = np.random.default_rng(0)
neighbors = rng.integers(-1, 900, (40_000, 37), np.int32)
weights = rng.random(neighbors.shape, np.float32)
for matrix in (native.symmetrize(neighbors), native.symmetrize(neighbors[:, :19].copy(), None),
               native.symmetrize(neighbors, weights), native.symmetrize(neighbors, weights, True)):
    print([hashlib.sha256(part.tobytes()).hexdigest() for part in matrix if part is not None])
"""

SEARCH = """
import sys

sys.path.append(sys.argv[1])
from searching import digests, search_results

print(digests(search_results()))
"""


def run(script, folder, *arguments, compiler="cc"):
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={"PYTHONPATH": str(folder), "CC": str(compiler), "PATH": "/usr/bin:/bin"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_compiler_without_openmp_gives_a_warning_and_a_serial_module(tmp_path):
    real = shutil.which("gcc") or shutil.which("cc")
    if real is None:
        pytest.skip("no C compiler")
    compiler = tmp_path / "compiler"
    compiler.write_text(COMPILER.format(compiler=real))
    compiler.chmod(0o755)
    package = tmp_path / "lowshot_kedro"
    shutil.copytree(
        SOURCES,
        package / "native",
        ignore=shutil.ignore_patterns("__init__.py", "*.so", "_native.*", "__pycache__"),
    )
    (package / "__init__.py").write_text("")
    shutil.copy(SOURCES.parent / "interruption.py", package)
    run(BUILD, tmp_path, str(package / "native"), compiler=compiler)
    shutil.copy(SOURCES / "__init__.py", package / "native")
    run(USE, tmp_path)
    # Without vector instructions, too, the results are the same.
    assert run(SYMMETRIZE, tmp_path) == run(SYMMETRIZE, SOURCES.parents[1])
    tests = str(Path(__file__).parent)
    assert run(SEARCH, tmp_path, tests) == run(SEARCH, SOURCES.parents[1], tests)


def test_every_source_and_header_is_built():
    assert sorted(build_native.SOURCES) == sorted(path.name for path in SOURCES.glob("*.c"))
    assert sorted(build_native.HEADERS) == sorted(path.name for path in SOURCES.glob("*.h"))


def test_importing_before_building_says_what_to_do(tmp_path):
    shutil.copytree(
        SOURCES,
        tmp_path / "lowshot_kedro" / "native",
        ignore=shutil.ignore_patterns("*.so", "_native.*", "__pycache__"),
    )
    (tmp_path / "lowshot_kedro" / "__init__.py").write_text("")
    script = """
try:
    import lowshot_kedro.native
except ImportError as error:
    assert "build_native.py" in str(error), error
else:
    raise AssertionError
"""
    run(script, tmp_path)
