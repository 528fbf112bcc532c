"""Compiles the native module and puts conf/ into the wheel; pyproject.toml says the rest."""

import runpy
import shutil
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

NATIVE_BUILD = "src/lowshot_kedro/native/build_native.py"
TEMPLATE = "src/lowshot_kedro/project/template.py"


class BuildWithSettings(build_py):
    """The packages, and in them the settings that lie beside src/ in the repository."""

    def run(self) -> None:
        """Put together what a wheel is made from."""
        if self.editable_mode:
            super().run()
            return
        package = Path(self.build_lib, "lowshot_kedro")
        # What an earlier build has left there would go into the wheel.
        shutil.rmtree(package, ignore_errors=True)
        super().run()
        copy_from_repository = runpy.run_path(TEMPLATE)["copy_from_repository"]
        copy_from_repository(Path(), package / "project" / "new_project")

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Leave out what compiles the native module."""
        found = super().find_package_modules(package, package_dir)
        return [module for module in found if Path(module[2]).as_posix() != NATIVE_BUILD]


# Python without the global lock has no stable interface yet.
has_stable_interface = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    cffi_modules=[f"{NATIVE_BUILD}:ffibuilder"],
    cmdclass={"build_py": BuildWithSettings},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if has_stable_interface else {},
)
