"""Who may know whom.

pipelines → domain packages → native. The domain knows neither Kedro nor the pipelines nor the
datasets, so that it can be used and tested without them.
"""

import ast
from pathlib import Path

import pytest

import lowshot_kedro
from lowshot_kedro.methods import METHODS

PROJECT = "lowshot_kedro"
SOURCES = Path(lowshot_kedro.__file__).parent

# Where Kedro is at home. Every other module, also one that is written tomorrow, is domain.
KEDRO_SIDE = ("pipelines", "datasets", "project", "settings", "pipeline_registry", "__main__")
MAX_ARGUMENTS = 8
# Before a run the project asks whether the kernels wanted are there.
NATIVE_USERS = ("graph", "diffusion", "deepemd", "deepercluster", "native", "project")
# Each may use what comes before it. What is not named here is used by all.
LAYERS = (
    (
        "images",
        "networks",
        "pca",
        "graph",
        "diffusion",
        "classifiers",
        "estimators",
        "probes",
        "training",
        "snca",
        "deepercluster",
        "deepemd",
    ),
    ("methods", "episodes"),
    ("sweep", "labeling"),
    ("reporting",),
)
DATASETS_MAY_USE = (
    "blocks", "datasets", "disk", "errors", "extras", "fonts", "images", "input_files", "locks",
    "memory", "parameters", "progress",
)  # fmt: skip


def module_name(path: Path) -> str:
    parts = (PROJECT, *path.relative_to(SOURCES).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SOURCES.rglob("*.py"))}


def imported_names(source: str, module: str, is_package: bool) -> set[str]:
    """Absolute names of all that a module imports, wherever in it. `from a import b`: a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                levels_up = node.level - 1 if is_package else node.level
                package = module.split(".")
                package = package[: len(package) - levels_up]
                origin = ".".join([*package, origin] if origin else package)
            names.add(origin)
            names.update(f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            function = node.func
            called = getattr(function, "id", getattr(function, "attr", ""))
            argument = node.args[0]
            if called in ("import_module", "__import__") and isinstance(argument, ast.Constant):
                names.add(str(argument.value))
    return names


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def layer_of(area: str) -> int:
    """The number of a layer: 0 for what all use, more than any for what uses all of them."""
    if area in ("", *KEDRO_SIDE, "download"):
        return len(LAYERS) + 1
    return next((number for number, areas in enumerate(LAYERS, start=1) if area in areas), 0)


def is_allowed(module: str, name: str) -> bool:
    """Whether `module` may import `name`."""
    _, area, *rest = [*module.split("."), ""]
    target_area, *target_rest = [*name.split(".")[1:], "", ""] if within(name, PROJECT) else [""]

    if area == "native" and within(name, PROJECT):
        return target_area in ("native", "interruption")
    if target_area == "native" and area not in NATIVE_USERS:
        return False
    # Old names lead anywhere, when they are asked for.
    if target_area and area != "deprecated" and layer_of(target_area) > layer_of(area):
        return False
    # What the package hands out by its own name runs the project.
    if module == PROJECT and within(name, f"{PROJECT}.project.labeling_run"):
        return True
    if area not in KEDRO_SIDE:
        knows_kedro = within(name, "kedro") or within(name, "kedro_datasets")
        return not knows_kedro and target_area not in KEDRO_SIDE
    if area == "datasets" and target_area:
        return target_area in DATASETS_MAY_USE
    if area == "pipelines":
        if target_area == "datasets":
            return False
        if target_area == "pipelines" and target_rest[0]:
            return target_rest[0] in ("selection", rest[0])
    return True


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    names = imported_names(source, module, is_package)
    return sorted(name for name in names if not is_allowed(module, name))


def too_many_arguments(source: str, module: str) -> list[str]:
    """Functions with more than eight arguments besides `self`.

    scikit-learn wants every parameter of an estimator by name, and Kedro hands a node one argument
    for every dataset, and a dataset one for every line of its catalog entry.
    """
    if module.startswith(f"{PROJECT}.pipelines.") and module.endswith(".nodes"):
        return []
    tree, found = ast.parse(source), []
    of_estimators_and_datasets = {
        id(function)
        for item in ast.walk(tree)
        if isinstance(item, ast.ClassDef)
        and (
            item.name.endswith("Dataset")
            or any(getattr(base, "id", "") == "BaseEstimator" for base in item.bases)
        )
        for function in item.body
        if getattr(function, "name", "") == "__init__"
    }
    for item in ast.walk(tree):
        if (
            isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
            and id(item) not in of_estimators_and_datasets
        ):
            names = [
                a.arg for a in (*item.args.posonlyargs, *item.args.args, *item.args.kwonlyargs)
            ]
            names += [a.arg for a in (item.args.vararg, item.args.kwarg) if a is not None]
            if len(names) - (names[:1] in (["self"], ["cls"])) > MAX_ARGUMENTS:
                found.append(item.name)
    return found


def is_only_wiring(source: str) -> bool:
    """Imports, and a create_pipeline that returns something, and nothing else."""
    docstring, *statements = ast.parse(source).body
    imports = [item for item in statements if isinstance(item, ast.Import | ast.ImportFrom)]
    others = [item for item in statements if item not in imports]
    if not isinstance(docstring, ast.Expr) or len(others) != 1:
        return False
    function = others[0]
    if not isinstance(function, ast.FunctionDef) or function.name != "create_pipeline":
        return False
    nested = [item for item in ast.walk(function) if isinstance(item, ast.Lambda | ast.FunctionDef)]
    *documentation, last = function.body
    return (
        isinstance(last, ast.Return)
        and all(isinstance(item, ast.Expr) for item in documentation)
        and nested == [function]
    )


def test_every_area_is_looked_at():
    areas = {name.split(".")[1] for name in MODULES if "." in name}
    assert areas >= {
        "images", "networks", "graph", "diffusion", "classifiers", "protocol", "metrics",
        "reporting", "pca", "blocks", "memory", "progress", "parameters", "native", "datasets",
        "pipelines", "sweep", "methods", "download", "estimators", "project", "labeling",
    }  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module):
    path = MODULES[module]
    assert violations(path.read_text(), module, path.name == "__init__.py") == []


def test_what_trainers_share_knows_no_trainer():
    modules = [name for name in MODULES if within(name, f"{PROJECT}.training")]
    assert len(modules) > 5
    for module in modules:
        path = MODULES[module]
        names = imported_names(path.read_text(), module, path.name == "__init__.py")
        assert not [name for name in names if within(name, f"{PROJECT}.snca")], module


@pytest.mark.parametrize("room", ["sweep", "reporting"])
def test_no_method_is_known_by_name_outside_its_file(room):
    for path in sorted((SOURCES / room).glob("*.py")):
        tree = ast.parse(path.read_text())
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert texts.isdisjoint(METHODS), path


@pytest.mark.parametrize("module", MODULES)
def test_what_belongs_together_comes_in_one_argument(module):
    assert too_many_arguments(MODULES[module].read_text(), module) == []


@pytest.mark.parametrize("path", sorted(SOURCES.glob("pipelines/*/pipeline.py")), ids=str)
def test_pipelines_are_wiring_only(path):
    assert is_only_wiring(path.read_text())


@pytest.mark.parametrize(
    ("module", "is_package", "source", "forbidden"),
    [
        ("lowshot_kedro.protocol", False, "import kedro", "kedro"),
        ("lowshot_kedro.metrics", False, "from kedro.io import A", "kedro.io"),
        ("lowshot_kedro.images.a", False, "def f():\n    import kedro.io", "kedro.io"),
        ("lowshot_kedro.pca", False, "import kedro_datasets", "kedro_datasets"),
        ("lowshot_kedro.pca", False, "import lowshot_kedro.pipelines", "lowshot_kedro.pipelines"),
        ("lowshot_kedro.tomorrow", False, "from . import datasets", "lowshot_kedro.datasets"),
        ("lowshot_kedro.graph", True, "from .. import datasets", "lowshot_kedro.datasets"),
        ("lowshot_kedro.graph.a", False, "from .. import project", "lowshot_kedro.project"),
        ("lowshot_kedro.metrics", False, "from .native import x", "lowshot_kedro.native"),
        ("lowshot_kedro.reporting", False, "from lowshot_kedro import native",
         "lowshot_kedro.native"),
        ("lowshot_kedro.pca", False, "import importlib\nimportlib.import_module('kedro')", "kedro"),
        ("lowshot_kedro.graph.a", False, "from ..methods import METHODS", "lowshot_kedro.methods"),
        ("lowshot_kedro.methods.a", False, "from ..sweep import Run", "lowshot_kedro.sweep"),
        ("lowshot_kedro.sweep.a", False, "from .. import reporting", "lowshot_kedro.reporting"),
        ("lowshot_kedro.blocks", False, "from .graph import search", "lowshot_kedro.graph"),
        ("lowshot_kedro.native.a", False, "from .. import blocks", "lowshot_kedro.blocks"),
        ("lowshot_kedro.native.a", False, "import lowshot_kedro", "lowshot_kedro"),
        ("lowshot_kedro.datasets.a", False, "from lowshot_kedro import graph",
         "lowshot_kedro.graph"),
        ("lowshot_kedro.datasets.a", False, "from ..metrics import Scores",
         "lowshot_kedro.metrics"),
        ("lowshot_kedro.datasets", True, "from ..native import x", "lowshot_kedro.native"),
        ("lowshot_kedro.pipelines.pca.nodes", False, "from ..graph import nodes",
         "lowshot_kedro.pipelines.graph"),
        ("lowshot_kedro.pipelines.selection", False, "from .graph import nodes",
         "lowshot_kedro.pipelines.graph"),
        ("lowshot_kedro.pipelines.pca.nodes", False, "from lowshot_kedro.native import x",
         "lowshot_kedro.native"),
        ("lowshot_kedro.pipelines.pca", True, "from ...datasets import x",
         "lowshot_kedro.datasets"),
    ],
)  # fmt: skip
def test_a_planted_violation_is_found(module, is_package, source, forbidden):
    assert forbidden in violations(source, module, is_package)


@pytest.mark.parametrize(
    ("module", "is_package", "source"),
    [
        ("lowshot_kedro.graph.a", False, "from lowshot_kedro import native\nimport faiss"),
        ("lowshot_kedro.diffusion.a", False, "from ..native import diffusion_step"),
        ("lowshot_kedro.native", True, "from ._library import call\nfrom . import mkl"),
        ("lowshot_kedro.native.a", False, "from lowshot_kedro.interruption import stopping_at"),
        ("lowshot_kedro.datasets.a", False, "import kedro.io\nfrom ..images import LoadedImage"),
        ("lowshot_kedro.pipelines.pca", True, "from .pipeline import create_pipeline"),
        ("lowshot_kedro.pipelines.pca.pipeline", False, "from ..selection import node"),
        ("lowshot_kedro.pipelines.pca.nodes", False, "from lowshot_kedro import pca, metrics"),
        ("lowshot_kedro.pca", False, "import kedronaut"),
    ],
)
def test_what_is_allowed_is_not_reported(module, is_package, source):
    assert violations(source, module, is_package) == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("def create_pipeline():\n    return 1", True),
        ("def create_pipeline():\n    '''Doc.'''\n    return 1", True),
        ("def create_pipeline():\n    x = 1\n    return x", False),
        ("def create_pipeline():\n    return node(lambda x: x)", False),
        ("def helper():\n    pass\ndef create_pipeline():\n    return 1", False),
        ("LIMIT = 3\ndef create_pipeline():\n    return 1", False),
        ("", False),
    ],
)
def test_an_algorithm_in_a_pipeline_file_is_found(body, expected):
    assert is_only_wiring(f"'''Doc.'''\nimport kedro\n{body}\n") is expected


EIGHT, NINE = ", ".join("abcdefgh"), ", ".join("abcdefghi")


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("lowshot_kedro.a", f"def f({EIGHT}): pass", []),
        ("lowshot_kedro.a", f"def f({NINE}): pass", ["f"]),
        ("lowshot_kedro.a", "async def f(a, /, b, *c, d, e, f, g, h, **i): pass", ["f"]),
        ("lowshot_kedro.a", f"class A:\n    def f(self, {EIGHT}): pass", []),
        ("lowshot_kedro.a", f"class A:\n    def f(self, {NINE}): pass", ["f"]),
        ("lowshot_kedro.a", f"class A:\n    def __init__(self, {NINE}): pass", ["__init__"]),
        ("lowshot_kedro.a", f"class A(BaseEstimator):\n    def __init__(self, {NINE}): pass", []),
        ("lowshot_kedro.a", f"class A(BaseEstimator):\n    def f(self, {NINE}): pass", ["f"]),
        ("lowshot_kedro.pipelines.a.nodes", f"def f({NINE}): pass", []),
        ("lowshot_kedro.pipelines.a.helpers", f"def f({NINE}): pass", ["f"]),
    ],
)
def test_arguments_are_counted(module, source, found):
    assert too_many_arguments(source, module) == found
