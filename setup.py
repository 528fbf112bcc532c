"""Hook that compiles the native module; everything else is declared in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["src/lowshot_kedro/native/build_native.py:ffibuilder"])
