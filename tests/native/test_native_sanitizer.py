"""Runs the tests of the compiled code under the address and undefined behaviour sanitizers."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from lowshot_kedro import native

FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# Python's own flags may define what happens when signed numbers overflow.
COMPILE_FLAGS = (*FLAGS, "-g", "-O1", "-fno-omit-frame-pointer", "-fno-wrapv")
TESTS = (
    "__init__.py",
    "conftest.py",
    "hostile.py",
    "searching.py",
    "strategies.py",
    "test_native_graph.py",
    "test_native_scores.py",
    "test_native_hostile.py",
    "test_native_interruption.py",
    "test_native_kernels.py",
    "test_native_search.py",
    "test_native_search_hostile.py",
    "test_native_threads.py",
    "test_native_transport.py",
    "test_native_kmeans.py",
)

# The interpreter's own memory and MKL are not what is tested here. Of tests that differ in their
# size alone the middle ones go through the same loops, block after block, in a tenth of the time.
LEFT_OUT = (
    "mkl", "omp_num_threads", "4097", "16384", "17500", "values1-8192", "values2-8192",
)  # fmt: skip

BUILD = """
import sys
from pathlib import Path
from lowshot_kedro.native.build_native import compile_in_place
compile_in_place(Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3].split())
"""

WHERE_IS_IT = """
from pathlib import Path
from lowshot_kedro.native import _native

def pytest_configure():
    assert Path(_native.__file__).is_relative_to({folder!r}), _native.__file__
"""


def sanitizer_runtime(folder):
    """The path of the address sanitizer's runtime; skips the test if the compiler has none."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    built = subprocess.run(
        [*compiler, *FLAGS, str(probe), "-o", str(folder / "probe")], check=False
    )
    if built.returncode != 0 or subprocess.run([folder / "probe"], check=False).returncode != 0:
        pytest.skip("the C compiler has no address and undefined behaviour sanitizers")
    for name in ("libasan.so", "libclang_rt.asan-x86_64.so"):
        found = subprocess.run(
            [*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        if Path(found).is_absolute() and Path(found).exists():
            return str(Path(found).resolve())
    pytest.skip("the C compiler has no shared library of the address sanitizer")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs LD_PRELOAD")
def test_compiled_code_under_sanitizers(tmp_path):
    runtime = sanitizer_runtime(tmp_path)
    package = tmp_path / "lowshot_kedro"
    sources = Path(native.__file__).parent
    # Without its __init__ the package can be imported before it is built, for the builder's sake.
    shutil.copytree(
        sources,
        package / "native",
        ignore=shutil.ignore_patterns("__init__.py", "*.so", "_native.*", "__pycache__"),
    )
    shutil.copy(sources.parent / "interruption.py", package)
    (package / "__init__.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", BUILD, str(package / "native")]
    subprocess.run(
        [*command, " ".join(COMPILE_FLAGS), " ".join(FLAGS)],
        env=environment,
        cwd=tmp_path,
        check=True,
    )
    shutil.copy(sources / "__init__.py", package / "native")

    tests = tmp_path / "sanitized"
    tests.mkdir()
    for name in TESTS:
        shutil.copy(Path(__file__).parent / name, tests)
    (tmp_path / "conftest.py").write_text(WHERE_IS_IT.format(folder=str(package)))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    chosen = " and ".join(f"not {name}" for name in LEFT_OUT)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", chosen, str(tests)],
        env={
            **environment,
            "LD_PRELOAD": runtime,
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "NATIVE_HYPOTHESIS_PROFILE": "native-sanitizer",
            "OMP_NUM_THREADS": "3",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-8000:]
    passed = re.search(r"(\d+) passed", output)
    assert passed is not None and int(passed[1]) > 900, output[-2000:]
    assert "runtime error" not in output
