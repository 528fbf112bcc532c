import shutil
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from lowshot_kedro import settings
from lowshot_kedro.graph.parameters import GraphParameters
from lowshot_kedro.methods import METHODS
from lowshot_kedro.project.config import UserError
from lowshot_kedro.project.parameters import read_parameters
from lowshot_kedro.sweep.parameters import read_sweep
from tests.projects import kedro

pytestmark = pytest.mark.filterwarnings("ignore:register_new_resolver:UserWarning")

CONF = Path(__file__).parents[1] / "conf"


def config(env=None, folder=CONF, **runtime_params):
    return settings.CONFIG_LOADER_CLASS(
        str(folder), env=env, runtime_params=runtime_params, **settings.CONFIG_LOADER_ARGS
    )


def parameters(env=None, folder=CONF, **runtime_params):
    found = config(env, folder, **runtime_params)["parameters"]
    read_parameters(found)
    return found


def test_the_defaults_are_valid():
    found = parameters("base")
    assert found["experiment"] == {
        "mode": "test", "n_labeled": 2, "seed": 1, "unlabeled": "background",
    }  # fmt: skip
    assert found["features"] == {
        "extractor": "efficientnet_lite0",
        "weights": "package",
        "image_size": 96,
        "batch_size": 64,
        "num_workers": "auto",
        "device": "auto",
        "precision": "auto",
        "compile": "auto",
    }
    assert found["graph"] == {
        "k": "auto",
        "n_background": None,
        "stored_k": 32,
        "method": "auto",
        "target_recall": 0.995,
        "memory_budget_gb": None,
        "recall_sample": 1000,
    }
    assert found["diffusion"]["n_iterations"] == "auto"
    assert found["pca"]["n_components"] == 256
    assert found["evaluation"]["top_k"] == [1, 5]


@pytest.mark.parametrize(
    ("k", "stored_k"), [(1, 32), (30, 32), (32, 32), (33, 64), (50, 64), (65, 128), (1024, 1024)]
)
def test_the_stored_graph_has_the_next_power_of_two_columns(k, stored_k):
    assert GraphParameters(**parameters("base", graph={"k": k})["graph"]).stored_k == stored_k
    catalog = config("base", graph={"k": k})["catalog"]
    assert catalog["background_graph"]["k"] == stored_k
    assert catalog["background_graph"]["filepath"].endswith(f"ndisall_k{stored_k}")


@pytest.mark.parametrize("stored_k", [32, 12])
def test_a_k_that_follows_from_the_data_is_among_the_stored_columns(stored_k):
    given = {"graph": {"k": "auto", "stored_k": stored_k}}
    found = GraphParameters(**parameters("base", **given)["graph"])
    assert found.stored_k == stored_k >= found.max_k
    assert config("base", **given)["catalog"]["background_graph"]["k"] == stored_k


def test_stored_k_can_be_given():
    given = {"graph": {"k": 40, "stored_k": 128}}
    found = parameters("base", **given)["graph"]
    assert (found["k"], found["stored_k"]) == (40, 128)
    assert config("base", **given)["catalog"]["background_graph"]["k"] == 128


@pytest.mark.parametrize("k", ["abc", None, 2.5])
def test_a_k_that_is_no_integer_is_left_to_the_check(k):
    with pytest.raises(ValueError, match=r"^graph.k: got .*, expected an integer from 1 to 1024"):
        parameters("base", graph={"k": k})


@pytest.mark.parametrize(("n_background", "name"), [(None, "all"), (0, "0"), (5000, "5000")])
def test_files_follow_the_number_of_background_images(n_background, name):
    given = {"graph": {"n_background": n_background}}
    assert parameters("base", **given)["graph"]["n_background"] == n_background
    catalog = config("base", **given)["catalog"]
    assert catalog["background_index"]["filepath"].endswith(f"ndis{name}.index")
    assert catalog["background_graph"]["filepath"].endswith(f"ndis{name}_k32")
    for entry in ("background_vectors", "background_index", "background_graph"):
        assert catalog[entry]["n_rows"] == n_background


@pytest.mark.parametrize("n_background", [None, 0, 5000])
def test_training_images_beside_a_background_leave_it_as_it_is(n_background):
    given = {"graph": {"n_background": n_background}}
    beside = {"experiment": {"unlabeled": "both"}, **given}
    assert parameters("base", **beside)["experiment"]["unlabeled"] == "both"
    catalog, alone = config("base", **beside)["catalog"], config("base", **given)["catalog"]
    for entry in ("background_vectors", "background_index", "background_graph"):
        assert catalog[entry] == alone[entry]
        assert catalog[entry]["n_rows"] == n_background


@pytest.mark.parametrize("unlabeled", ["train", "none"])
def test_no_background_rows_are_read_where_other_images_are_unlabeled(unlabeled):
    given = {"experiment": {"unlabeled": unlabeled}, "graph": {"n_background": 5000}}
    assert parameters("base", **given)["experiment"]["unlabeled"] == unlabeled
    catalog = config("base", **given)["catalog"]
    for entry in ("background_vectors", "background_index", "background_graph"):
        assert catalog[entry]["n_rows"] == 0


def test_the_dimension_is_the_same_everywhere():
    given = {"pca": {"n_components": 64}}
    assert parameters("base", **given)["pca"]["n_components"] == 64
    catalog = config("base", **given)["catalog"]
    for entry in ("background_vectors", "background_index"):
        assert catalog[entry]["n_columns"] == 64
    # Vectors of several dimensions lie side by side.
    assert catalog["background_vectors"]["filepath"].endswith("/concatenated_PCAR64.raw")
    assert catalog["pca_transform"]["filepath"].endswith("/PCAR64.vt")


def test_the_catalog_follows_parameters_wherever_they_are_given(tmp_path):
    shutil.copytree(CONF, tmp_path / "conf")
    local = tmp_path / "conf" / "local" / "parameters.yml"
    local.write_text("graph: {n_background: 70, k: 40}\nexperiment: {n_labeled: 3}\n")

    def catalog(**given):
        loader = settings.CONFIG_LOADER_CLASS(
            str(tmp_path / "conf"), runtime_params=given, **settings.CONFIG_LOADER_ARGS
        )
        return loader["catalog"]["background_graph"]

    assert catalog()["filepath"].endswith("/ndis70_k64")
    # Another loader in the same process, and the command line above the file.
    assert catalog(graph={"n_background": 80})["filepath"].endswith("/ndis80_k64")


def test_a_parameter_given_for_one_run_leaves_its_neighbors_alone():
    found = parameters("base", experiment={"n_labeled": 5}, diffusion={"n_iterations": 7})
    assert (found["experiment"]["n_labeled"], found["experiment"]["seed"]) == (5, 1)
    assert (found["diffusion"]["n_iterations"], found["diffusion"]["backend"]) == (7, "auto")


def test_an_unknown_parameter_given_for_one_run_is_refused():
    with pytest.raises(ValueError, match=r"^graph.kk: unknown parameter \(did you mean graph.k\?"):
        parameters("base", graph={"kk": 5})


def test_the_published_data_lie_where_the_variable_says(monkeypatch):
    monkeypatch.setenv("DDIR", "/somewhere")
    found = parameters("imagenet")
    assert found["graph"]["n_background"] == 1_000_000
    assert found["graph"]["k"] == 30
    assert found["diffusion"]["n_iterations"] == 3
    published = found["logistic_regression"]
    assert published.pop("eval_every") > 0
    assert published == {
        "lr": 0.001, "weight_decay": 0.01, "batch_size": 128, "max_iterations": 29500,
        "momentum": 0.0,
    }  # fmt: skip
    assert found["demonstration"]["enabled"] is False
    catalog = config("imagenet")["catalog"]
    expected = {
        "train_features": "features/train.hdf5",
        "test_features": "features/val.hdf5",
        "pca_transform": "features/PCAR256.vt",
        "background_vectors": "features/f100m/concatenated_PCAR256.raw",
        "background_features": "features/f100m",
        "background_images": "yfcc100m",
        "background_index": "knngraph/ndis1000000.index",
        "background_graph": "knngraph/ndis1000000_k32",
    }
    for name, path in expected.items():
        assert catalog[name]["filepath"] == f"/somewhere/{path}"
    assert class_lists(catalog) == {"/somewhere/label_idx.json"}


def class_lists(catalog):
    """Where a catalog looks for classes and their names."""
    entries = [entry for entry in catalog.values() if isinstance(entry, dict)]
    named = {entry["class_list"] for entry in entries if "class_list" in entry}
    return named | {catalog["class_split"]["filepath"]}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (None, "data/01_raw/label_idx.json"),
        ("own_images", "/somewhere/classes.csv"),
    ],
)
def test_an_environment_has_one_list_of_classes(env, expected, monkeypatch):
    monkeypatch.setenv("IMAGES", "/somewhere")
    assert class_lists(config(env)["catalog"]) == {expected}


@pytest.mark.parametrize(
    ("env", "name"), [("fashion_mnist", "FashionMNIST"), ("cifar100", "CIFAR100")]
)
def test_the_classes_of_a_torchvision_data_set_are_its_own(env, name):
    catalog = config(env)["catalog"]
    expected = {"name": name, "filepath": "data/01_raw", "arguments": {}}
    entries = [entry for entry in catalog.values() if "class_list" in entry]
    assert {"train_images", "train_features", "diffusion_scores"} <= {
        entry for entry, content in catalog.items() if content in entries
    }
    assert all(entry["class_list"] == expected for entry in entries)
    split = catalog["class_split"]
    assert (split["name"], split["filepath"]) == (name, "data/01_raw")


# Catalogs and parameters as they were when each data set had files of its own for them.
@pytest.mark.parametrize(
    ("env", "name", "labeled"),
    [("fashion_mnist", "FashionMNIST", 500), ("cifar100", "CIFAR100", 100)],
)
def test_what_follows_from_the_name_of_a_data_set(env, name, labeled):
    catalog = config(env)["catalog"]
    shared = {
        "type": "lowshot_kedro.datasets.TorchvisionImagesDataset",
        "name": name,
        "filepath": "data/01_raw",
        "download": True,
        "metadata": {"kedro-viz": {"layer": "raw"}},
    }
    parts = {
        "train_images": {"part": "train", "rows_per_class": [0, labeled]},
        "test_images": {"part": "test"},
        "background_images": {
            "part": "train", "rows_per_class": [labeled, None], "labeled": False, "arguments": {},
        },
    }  # fmt: skip
    for entry, part in parts.items():
        found = catalog[entry]
        assert {key: found[key] for key in found if key != "class_list"} == {**shared, **part}
    found, base = parameters(env), parameters("base")
    assert found.pop("demonstration") == {**base.pop("demonstration"), "enabled": False}
    differing = {section for section in base if found[section] != base[section]}
    assert differing == (
        {"deepercluster", "evaluation", "snca", "sweep"} if env == "fashion_mnist" else set()
    )


@pytest.mark.parametrize(("images", "expected"), [(None, "/old"), ("", "/old"), ("/new", "/new")])
@pytest.mark.parametrize("env", ["own_images", "own_pictures"])
def test_names_of_an_earlier_version_are_understood(monkeypatch, env, images, expected):
    monkeypatch.setenv("PICTURES", "/old")
    if images is None:
        monkeypatch.delenv("IMAGES", raising=False)
    else:
        monkeypatch.setenv("IMAGES", images)
    found = config(env)
    assert found["globals"]["folders"]["raw"] == expected
    assert found["globals"]["class_list"] == f"{expected}/classes.csv"
    assert found["catalog"]["train_images"]["filepath"] == expected
    assert found["parameters"] == config("own_images")["parameters"]
    assert found["globals"]["folders"]["features"] == "data/own_images/04_feature"


def test_settings_of_ones_own_keep_an_old_name(tmp_path, monkeypatch):
    monkeypatch.setenv("PICTURES", "/old")
    folder = Path(shutil.copytree(CONF, tmp_path / "conf"))
    (folder / "own_images").rename(folder / "own_pictures")
    (folder / "own_pictures" / "parameters.yml").write_text("pca: {n_components: 7}")
    found = config("own_pictures", folder)
    assert found["parameters"]["pca"]["n_components"] == 7
    assert found["globals"]["folders"]["features"] == "data/own_pictures/04_feature"


@pytest.mark.parametrize("env", ["own_images", "own_pictures"])
def test_results_in_a_folder_of_the_old_name_are_used(project, monkeypatch, env):
    monkeypatch.setenv("IMAGES", "/somewhere")

    def features():
        return config(env, project / "conf")["globals"]["folders"]["features"]

    assert features() == "data/own_images/04_feature"
    (project / "data" / "own_pictures").mkdir(parents=True)
    assert features() == "data/own_pictures/04_feature"
    (project / "data" / "own_images").mkdir()
    assert features() == "data/own_images/04_feature"


def test_old_names_are_told_of_in_a_line_each(project):
    (project / "data" / "own_pictures").mkdir(parents=True)
    result = kedro(project, "run", "--env", "own_pictures", "--pipelines", "pca", PICTURES="/old")
    printed = " ".join((result.stdout + result.stderr).split())
    for old, new in {
        "--env own_pictures: this environment": "own_images",
        "PICTURES: this environment variable": "IMAGES",
        "data/own_pictures: this folder of results": "data/own_images",
    }.items():
        line = f"{old} is called {new} now; the old name works until the next version"
        assert printed.count(line) == 1
    # What is advised has the new name.
    assert "data/own_pictures/04_feature/f100m is missing" in printed
    assert "run --env own_images --pipelines features" in printed


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_named(monkeypatch, value):
    if value is None:
        monkeypatch.delenv("DDIR", raising=False)
    else:
        monkeypatch.setenv("DDIR", value)
    with pytest.raises(ValueError) as error:
        config("imagenet")
    message = str(error.value)
    assert message.startswith("DDIR: this environment variable is not set; expected the folder")
    assert "export DDIR=" in message
    assert "\n" not in message


def test_the_base_configuration_needs_no_variable(monkeypatch):
    monkeypatch.delenv("DDIR", raising=False)
    assert parameters("base")
    assert config("base")["catalog"]


def test_arrays_pass_between_nodes_without_a_copy():
    entry = config("base")["catalog"]["{default}"]
    assert entry == {"type": "kedro.io.MemoryDataset", "copy_mode": "assign"}


def test_parameters_and_inputs_are_checked_around_every_run():
    hooked = {type(hook).__name__ for hook in settings.HOOKS}
    assert hooked >= {"ParameterHooks", "InputHooks"}


# --- sweep ---


@pytest.fixture
def published_data(monkeypatch):
    monkeypatch.setenv("DDIR", "/somewhere")
    monkeypatch.setenv("IMAGES", "/somewhere")


ENVIRONMENTS = sorted(
    folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "local"
)


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_the_parameters_of_every_environment_are_valid(env, published_data):
    assert "combined" in parameters(env)["sweep"]["methods"]


def test_the_published_search_is_the_default_for_the_published_data(published_data):
    found = read_sweep(parameters("imagenet")["sweep"])
    assert found.n_labeled == (1, 2, 5, 10, 20)
    assert found.seeds == (1, 2, 3, 4, 5)
    grid = found.grids["logistic_regression"]
    assert (grid.lr, grid.weight_decay) == ((0.01, 0.001, 0.0001), (0, 0.01, 0.1))
    assert grid.batch_size == (16, 64, 128)
    assert (grid.max_iterations, grid.eval_every) == (75000, 500)
    assert (found.grids["diffusion"].k, found.grids["diffusion"].n_iterations) == ((30,), 40)
    assert found.n_background == (0, 10**5, 10**6, 10**7, 10**8)
    assert found.unlabeled == ("background",)


def test_the_demonstration_searches_the_methods_of_the_publication_and_simple_ones():
    found = read_sweep(parameters("base")["sweep"])
    assert set(found.methods) == set(METHODS) - {"self_training"}
    assert found.n_labeled == (1, 2, 5)
    assert found.seeds == (1, 2, 3, 4, 5)


def test_a_grid_changed_for_one_run_leaves_its_neighbors_alone():
    given = {"sweep": {"logistic_regression": {"lr": [0.5]}, "seeds": [7]}}
    found, default = parameters("base", **given)["sweep"], parameters("base")["sweep"]
    assert found["logistic_regression"] == default["logistic_regression"] | {"lr": [0.5]}
    assert found == default | {"seeds": [7], "logistic_regression": found["logistic_regression"]}


def test_runs_of_every_environment_lie_in_folders_of_their_own(published_data):
    folders = [config(env)["globals"]["folders"] for env in ENVIRONMENTS]
    for name in ("sweep", "sweep_scores"):
        assert len({found[name] for found in folders}) == len(ENVIRONMENTS)


def test_metrics_of_all_phases_lie_in_one_folder_under_names_of_their_own():
    catalog = config("base")["catalog"]
    entries = {
        "validation_metrics": "diffusion/val/nl2/nbgall/k30/seed1",
        "combination_metrics": "combined/val/nl2/nbgall/k30/seed1",
        "test_metrics": "diffusion/test/nl2/nbgall/k30/seed1",
        "combined_test_metrics": "combined/test/nl2/nbgall/k30/seed1",
    }
    assert len({catalog[entry]["path"] for entry in entries}) == 1
    for entry, key in entries.items():
        assert fnmatchcase(key, catalog[entry]["keys"])
    for mode, other in (("validation", "test"), ("test", "validation")):
        assert not fnmatchcase(entries[f"{other}_metrics"], catalog[f"{mode}_metrics"]["keys"])


def layers(env, folder=CONF):
    """Folders below data/ in which the files of a catalog lie."""
    catalog = config(env, folder)["catalog"].values()
    paths = [
        inner.get("filepath", inner.get("path"))
        for entry in catalog
        for inner in (entry, entry.get("dataset"))
        if isinstance(inner, dict)
    ]
    parts = [Path(path).parts for path in paths if path is not None]
    return {part[1:-1] for part in parts if part[0] == "data" and part[1] != "01_raw"}


@pytest.mark.parametrize("env", [None, "local", "base"])
def test_the_layers_of_the_demonstration(env):
    found = layers(env)
    assert {first for first, *_ in found} == {
        "04_feature", "05_model_input", "06_models", "07_model_output", "08_reporting",
    }  # fmt: skip


@pytest.mark.parametrize(
    "env", ["own_images", "fashion_mnist", "cifar100", "imagenet", "of_somebody_else"]
)
def test_an_environment_has_layers_of_its_own(monkeypatch, tmp_path, env):
    monkeypatch.setenv("DDIR", str(tmp_path))
    monkeypatch.setenv("IMAGES", str(tmp_path))
    folder = Path(shutil.copytree(CONF, tmp_path / "conf"))
    (folder / "of_somebody_else").mkdir()
    found = layers(env, folder)
    assert {first for first, *_ in found} == {env}
    wanted = {(env, *parts) for parts in layers(None)}
    if env == "imagenet":
        published = {"04_feature", "knngraph"}
        wanted = {parts for parts in wanted if not published & {*parts}}
    assert found == wanted


def test_two_environments_one_after_the_other():
    """Resolvers belong to the process: no configuration may find those of the other."""
    first, second = config("fashion_mnist"), config()
    assert first["catalog"]["train_features"]["filepath"].startswith("data/fashion_mnist/04")
    assert second["catalog"]["train_features"]["filepath"].startswith("data/04_feature/")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"graph: " + b"[" * 100_000, "line 1: not readable as settings (exceeded maximum nesting"),
        (b"graph: \xff", "not readable as settings (UnicodeDecodeError: 'utf-8'"),
        (
            b"graph: {k: 1}\ngraph: {k: 2}\n",
            "line 2: not readable as settings (found duplicate key",
        ),
        (b"graph: [1, 2", "not readable as settings (did not find expected ',' or ']')"),
        (b"graph:\n\tk: 3\n", "line 2: not readable as settings (found character"),
        (b"graph: !!python/object:os.system {}", "not readable as settings (could not determine"),
    ],
    ids=["deep", "bytes", "twice", "open", "tab", "object"],
)
@pytest.mark.parametrize("env", [None, "own"])
def test_settings_that_cannot_be_read_are_named_in_one_line(tmp_path, env, content, reason):
    folder = Path(shutil.copytree(CONF, tmp_path / "conf"))
    path = folder / (env or "local") / "parameters.yml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        parameters(env, folder=folder)
    message = str(caught.value)
    assert message.startswith(f"{path}") and reason in message
    assert "\n" not in message


def test_an_unknown_resolver_is_one_line(tmp_path):
    folder = Path(shutil.copytree(CONF, tmp_path / "conf"))
    (folder / "local").mkdir(exist_ok=True)
    (folder / "local" / "parameters.yml").write_text("graph: {k: '${nope:1}'}")
    with pytest.raises(UserError, match=r"^[^\n]*Unsupported interpolation type nope[^\n]*$"):
        parameters(folder=folder)
