"""The package where only its core is installed, and what is said where more is needed."""

import importlib
import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import h5py
import pytest
from packaging.requirements import Requirement

from lowshot_kedro.diffusion.backends.registry import candidates
from lowshot_kedro.errors import InputError
from lowshot_kedro.extras import EXTRAS, LazyModule, MissingLibraryError, needed_by, require
from lowshot_kedro.graph import require_method
from lowshot_kedro.networks import create_extractor
from lowshot_kedro.project.config import UserError
from lowshot_kedro.project.telemetry import before_any_command
from lowshot_kedro.sweep.jobs import Workers, check_workers
from tests.projects import ROOT, run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What the core asks for, and what that asks for; nvidia where faiss-gpu has taken its place.
CORE = {
    "_cffi_backend", "cffi", "cloudpickle", "faiss", "joblib", "lowshot_kedro", "narwhals", "numpy",
    "nvidia", "packaging", "pycparser", "scipy", "setuptools", "sklearn", "threadpoolctl", "tqdm",
}  # fmt: skip

WITH_THE_CORE = """
import json, re, sys
from importlib import import_module
from pathlib import Path

absent, example, modules, others = json.loads(sys.argv[1])

class CoreOnly:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=top)

sys.meta_path.insert(0, CoreOnly())
exec(example)
said = {}
for module in modules:
    import_module(module)
for module in others:
    try:
        import_module(module)
    except ImportError as error:
        said[module] = [type(error).__name__, str(error)]
print(json.dumps(said))
"""


def missing(what: str, library: str, *extras: str) -> str:
    commands = " or ".join(f'pip install "lowshot-kedro[{extra}]"' for extra in extras)
    return f"{what}needs {library}, which is not installed; type: {commands}"


def test_the_estimator_and_the_domain_do_without_kedro_and_torch() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[:1]
    package = "lowshot_kedro"
    modules = (
        "estimators", "graph", "diffusion", "pca", "classifiers", "probes", "networks", "protocol",
        "metrics", "parameters", "methods", "sweep", "project.command_line", "download.__main__",
    )  # fmt: skip
    others = {
        "images": ("PIL", "torch", "kedro"),
        "reporting": ("matplotlib", "kedro"),
        "datasets": ("kedro", "kedro"),
        "pipelines": ("kedro", "kedro"),
        "fonts": ("matplotlib", "kedro"),
        "sweep.frames": ("pandas", "kedro"),
        "networks.extractor": None,
    }
    absent = set(packages_distributions()) - CORE
    assert {"kedro", "torch", "pandas", "matplotlib", "h5py", "PIL"} <= absent
    given = json.dumps(
        [
            sorted(absent),
            example,
            [f"{package}.{name}" for name in modules],
            [f"{package}.{name}" for name in others],
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", WITH_THE_CORE, given], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    printed, last = done.stdout.splitlines()
    assert float(printed.rstrip("%")) > 90
    said = json.loads(last)
    for name, needed in others.items():
        kind, line = said[f"{package}.{name}"]
        if needed is not None:
            assert kind == "MissingLibraryError"
            assert line == missing(f"{package}.{name}: ", *needed)


pytestmark = pytest.mark.filterwarnings("ignore:register_new_resolver:UserWarning")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that takes a library away."""
    return lambda library: monkeypatch.setitem(sys.modules, library, None)


@pytest.mark.parametrize(
    ("library", "use", "line"),
    [
        (
            "torch",
            lambda: candidates("torch"),
            missing("backend: got 'torch', ", "torch", "torch"),
        ),
        (
            "pynndescent",
            lambda: require_method("pynndescent", 8),
            missing("method: got 'pynndescent', ", "pynndescent", "pynndescent"),
        ),
        (
            "timm",
            lambda: create_extractor("efficientnet_lite0", "package", 96),
            missing("name: got 'efficientnet_lite0', ", "timm", "torch"),
        ),
        (
            "torchvision",
            lambda: create_extractor("torchvision/resnet18", "none", None),
            missing("name: got 'torchvision/resnet18', ", "torchvision", "torch"),
        ),
        (
            "distributed",
            lambda: check_workers(Workers(n_workers=2)),
            missing("sweep.n_workers = 2: ", "distributed", "cluster"),
        ),
        (
            "dask_jobqueue",
            lambda: check_workers(Workers(scheduler="slurm", n_workers=2)),
            missing("sweep.scheduler = slurm: ", "dask_jobqueue", "cluster"),
        ),
    ],
)
def test_a_missing_library_is_one_line_that_says_what_to_type(
    without: Any, library: str, use: Any, line: str
) -> None:
    without(library)
    with pytest.raises(InputError) as caught:
        use()
    assert str(caught.value) == line


def test_a_module_that_waits_says_who_needs_it_or_makes_room(without: Any) -> None:
    users: dict[str, Any] = {}
    users["h5py"] = waiting = LazyModule("h5py", "somebody", users)
    assert waiting.File is h5py.File
    assert users == {"h5py": h5py}
    without("h5py")
    with pytest.raises(MissingLibraryError, match=r"^somebody: needs h5py"):
        _ = waiting.File


def test_what_else_goes_wrong_with_an_import_is_left_as_it_is(without: Any) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), needed_by("somebody"):
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401
    with pytest.raises(ZeroDivisionError), needed_by("somebody"):
        _ = 1 / 0
    require("h5py", "somebody")


def test_every_extra_that_is_named_brings_the_library() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # Where a distribution is called otherwise than its module.
    names = {
        "PIL": "pillow",
        "cv2": "opencv-python-headless",
        "dask": "distributed",
        "ot": "POT",
    }
    for library, extras in EXTRAS.items():
        wanted = names.get(library, library).replace("_", "-")
        for extra in extras:
            brought = {Requirement(each).name for each in project["optional-dependencies"][extra]}
            assert wanted in brought, (library, extra)


def test_a_run_says_it_in_one_line_too(without: Any, project: Path, published: Path) -> None:
    # scikit-learn asks for torch, and wants it whole or not there at all.
    import lowshot_kedro.pipeline_registry
    import lowshot_kedro.settings  # noqa: F401

    without("torch")
    line = (
        r"^.*: needs torch, which is not installed; type: pip install \"lowshot-kedro\[torch\]\"$"
    )
    with pytest.raises(UserError, match=line):
        run(project, "baseline", env="imagenet")


def test_so_does_kedro_itself(without: Any, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    before_any_command()
    without("h5py")
    with pytest.raises(SystemExit) as caught:
        before_any_command()
    assert caught.value.code == f"Error: {missing('kedro: ', 'h5py', 'kedro')}"


@pytest.mark.parametrize(
    "name", ["lowshot_kedro", "lowshot_kedro.deepemd", "lowshot_kedro.networks"]
)
def test_completion_knows_what_is_imported_when_it_is_used(name):
    module = importlib.import_module(name)
    assert set(module.__all__) <= set(dir(module))
