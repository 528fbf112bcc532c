"""Kernels for Arm: made by a cross compiler, run by an emulator, compared with this processor."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from lowshot_kedro import native
from lowshot_kedro.native.build_native import COMPILE_FLAGS

SOURCES = Path(native.__file__).parent
PROGRAM = Path(__file__).parent / "kernels_of_processor.c"
CROSS_COMPILER = "aarch64-linux-gnu-gcc"
EMULATOR = "qemu-aarch64"
# Threads do not matter here, and pragmas for them are passed over.
FLAGS = (*COMPILE_FLAGS, "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-parameter", "-static")


def program_made_by(compiler, folder):
    """The path of the program that prints a checksum of each set of kernels."""
    path = folder / compiler
    sources = sorted(map(str, SOURCES.glob("*.c")))
    command = [compiler, *FLAGS, f"-I{SOURCES}", *sources, str(PROGRAM), "-lm", "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return str(path)


def checksums(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


def test_kernels_for_arm_give_the_bits_of_plain_c_here(tmp_path):
    for tool in (CROSS_COMPILER, EMULATOR):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}; Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user")
    if platform.machine() not in ("x86_64", "AMD64") or shutil.which("gcc") is None:
        pytest.skip("compared with gcc on x86-64")
    here = checksums(program_made_by("gcc", tmp_path))
    assert set(here) == set(native.available_kernels())
    assert len({*here.values()}) == 1
    there = program_made_by(CROSS_COMPILER, tmp_path)
    # One processor with dot products, and one without.
    newer = checksums(EMULATOR, "-cpu", "max", there)
    assert set(newer) == {"plain", "neon", "neon-dotprod"}
    older = checksums(EMULATOR, "-cpu", "cortex-a53", there)
    assert set(older) == {"plain", "neon"}
    assert {*newer.values(), *older.values()} == {*here.values()}
