"""Builds the native module with cffi.

setup.py names this file, so installing the package compiles it. To compile in place, next to the
sources, run it: ``python src/lowshot_kedro/native/build_native.py``.

This is C11 for gcc and clang. OpenMP is used if the compiler has it; if not, a warning is given and
the module runs on one thread.
"""

import os
import tempfile
import warnings
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from cffi import FFI
from setuptools._distutils.ccompiler import new_compiler
from setuptools._distutils.errors import CCompilerError, DistutilsExecError
from setuptools._distutils.sysconfig import customize_compiler

MODULE = "lowshot_kedro.native._native"
SOURCES = (
    "processor.c",
    "checks.c",
    "node_ordering.c",
    "symmetrize.c",
    "gather.c",
    "sparse.c",
    "sums.c",
    "merge.c",
    "encode.c",
    "candidates.c",
    "codes.c",
    "codes_x86.c",
    "codes_arm.c",
    "lists.c",
    "reach.c",
    "descent.c",
    "ranking.c",
    "rows.c",
    "transport.c",
    "kmeans.c",
)
HEADERS = ("native.h", "processor.h", "search.h", "kernels.h", "functions.h")

# Contraction is off so that every vector width gives the same bits.
COMPILE_FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-Wall", "-Wextra")
# What cffi generates leaves some parameters unused, and that is not ours to change.
GENERATED_CODE_FLAGS = ("-Wno-unused-parameter", "-Wno-missing-field-initializers")

OPENMP_PROBE = """
#include <omp.h>
int main(void) { return omp_get_max_threads() < 1; }
"""


def openmp_flags() -> list[str]:
    """The compiler's OpenMP flags, or an empty list, with a warning, if it has no OpenMP."""
    compiler = new_compiler()
    customize_compiler(compiler)
    flags = ["-fopenmp"]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(OPENMP_PROBE)
        try:
            objects = compiler.compile([str(source)], output_dir=folder, extra_preargs=flags)
            compiler.link_executable(objects, "probe", output_dir=folder, extra_postargs=flags)
        except (CCompilerError, DistutilsExecError):
            warnings.warn(
                "the C compiler does not accept -fopenmp: the native module of lowshot_kedro "
                "will run on one thread",
                stacklevel=2,
            )
            return []
    return flags


def make_builder(
    folder: str | Path,
    compile_flags: Iterable[str] = (),
    link_flags: Iterable[str] = (),
) -> FFI:
    """The cffi builder for the sources in ``folder``, with further flags after the usual ones."""
    folder = Path(folder)
    openmp = openmp_flags()
    serial = [] if openmp else ["-Wno-unknown-pragmas"]
    builder = FFI()
    builder.cdef((folder / "functions.h").read_text())
    # Python's side of lowshot_set_poll.
    builder.cdef('extern "Python" int lowshot_poll(void);')
    builder.set_source(
        MODULE,
        '#include "native.h"',
        sources=[(folder / name).as_posix() for name in SOURCES],
        depends=[(folder / name).as_posix() for name in HEADERS],
        include_dirs=[folder.as_posix()],
        extra_compile_args=[
            *COMPILE_FLAGS,
            *GENERATED_CODE_FLAGS,
            *openmp,
            *serial,
            *compile_flags,
        ],
        extra_link_args=[*openmp, *link_flags],
    )
    return builder


def ffibuilder() -> FFI:
    """The hook setup.py names."""
    # setuptools wants source paths relative to the project, which is its working directory.
    return make_builder(os.path.relpath(Path(__file__).resolve().parent))


def compile_in_place(
    folder: Path, compile_flags: Iterable[str] = (), link_flags: Iterable[str] = ()
) -> Path:
    """Compiles the sources in ``folder`` and puts the module beside them; returns its path."""
    builder = make_builder(folder, compile_flags, link_flags)
    with tempfile.TemporaryDirectory() as temporary:
        built = Path(builder.compile(tmpdir=temporary))
        # The name an installation gives it: of two names Python would go on loading the older one.
        stable = ".abi3.so" in EXTENSION_SUFFIXES
        target = folder / ("_native.abi3.so" if stable else built.name)
        # Renaming a new file over a module that some process has loaded does that process no harm.
        partial = target.with_suffix(".partial")
        partial.write_bytes(built.read_bytes())
        partial.chmod(0o755)
        partial.replace(target)
    return target


if __name__ == "__main__":
    print(compile_in_place(Path(__file__).resolve().parent))
