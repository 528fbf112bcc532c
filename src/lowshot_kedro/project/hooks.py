"""What happens around every run: parameters and inputs are checked, time and memory are logged."""

from __future__ import annotations

import copyreg
import logging
import os
import pickle
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.io import DataCatalog, DatasetError, MemoryDataset, SharedMemoryDataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from rich.console import Console
from rich.table import Table

from lowshot_kedro import native, networks
from lowshot_kedro.datasets.resumable import ResumableDataset
from lowshot_kedro.episodes.parameters import EpisodesParameters
from lowshot_kedro.errors import InputError, did_you_mean
from lowshot_kedro.extras import MissingLibraryError, needed_by
from lowshot_kedro.locks import files_in_use, of_this_run
from lowshot_kedro.memory import format_bytes, recent_peak_rss_bytes, restart_peak
from lowshot_kedro.progress import Stopwatch
from lowshot_kedro.project.commands import Invocation
from lowshot_kedro.project.config import Project, UserError, absent_folder, where_to_read
from lowshot_kedro.project.labeling_inputs import require_labels, require_labels_kept
from lowshot_kedro.project.parameters import read_parameters
from lowshot_kedro.project.places import place_of
from lowshot_kedro.project.wording import Wording
from lowshot_kedro.protocol import choose_images, log_choice
from lowshot_kedro.reporting import print_resources
from lowshot_kedro.sweep.jobs import close_idle_workers

logger = logging.getLogger(__name__)

_COMPOSED = ("__default__", "experiment", "sweep")


class InvocationHooks:
    """Knows how the run was started, for hooks that advise another command."""

    def __init__(self) -> None:
        self._conf_source: str | None = None
        self._env: str | None = None
        self._config_loader: Mapping[str, Any] | None = None

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Note what Kedro does not tell later."""
        self._conf_source = str(context.config_loader.conf_source)
        # The command line may have given an old name.
        self._env = context.config_loader.env
        self._config_loader = context.config_loader

    def _invocation(self, run_params: Mapping[str, Any]) -> Invocation:
        project_path = Path(run_params["project_path"])
        return Invocation(
            project_path,
            self._conf_source or str(project_path / "conf"),
            self._env or run_params.get("env"),
            run_params.get("runtime_params") or {},
        )

    def _wording(self, run_params: Mapping[str, Any]) -> Wording:
        # Those of the catalog may be objects by now.
        parameters = {} if self._config_loader is None else self._config_loader["parameters"]
        names = run_params.get("pipeline_names") or ["__default__"]
        is_sweep = any("params:sweep" in pipelines[name].inputs() for name in names)
        return Wording(parameters, is_sweep, self._invocation(run_params))


class ErrorHooks(InvocationHooks):
    """Shows what is wrong with an input in one line."""

    @hook_impl
    def on_pipeline_error(self, error: Exception, run_params: Mapping[str, Any]) -> None:
        """Replace an error about an input or a file by its message alone.

        Anything else is a defect, and keeps its traceback.
        """
        cause = _cause(error)
        if isinstance(cause, InputError | OSError):
            raise self._wording(run_params).user_error(cause) from error
        if isinstance(cause, BrokenProcessPool):
            raise UserError(
                "ParallelRunner: one of its processes died, probably for want of memory; take "
                "SequentialRunner, the default"
            ) from error


def _cause(error: BaseException) -> BaseException:
    """The error behind the error of a dataset, or of several within each other."""
    while isinstance(error, DatasetError):
        cause = getattr(error, "cause_elsewhere", None) or error.__cause__
        if cause is None:
            break
        error = cause
    return error


def _pickle_dataset_error(error: DatasetError) -> tuple[Any, ...]:
    """Keep the cause of an error that comes from another process, which Python does not."""
    cause: BaseException | None = _cause(error)
    try:
        pickle.dumps(cause)
    except Exception:
        cause = None
    return _dataset_error, (type(error), error.args, None if cause is error else cause)


def _dataset_error(
    kind: type[DatasetError], arguments: tuple[Any, ...], cause: BaseException | None
) -> DatasetError:
    error = kind(*arguments)
    vars(error)["cause_elsewhere"] = cause
    return error


def keep_causes() -> None:
    """Send the causes of dataset errors from now on; Dask's tblib replaces what this registers."""
    copyreg.pickle(DatasetError, _pickle_dataset_error)


keep_causes()


class ParameterHooks:
    """Checks all parameters before anything else happens."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Refuse parameters that are unknown or out of range, and compose pipelines by them."""
        parameters = context.config_loader["parameters"]
        try:
            read_parameters(parameters)
        except InputError as error:
            raise Wording(parameters).user_error(error) from error
        own_images = not parameters["demonstration"]["enabled"]
        pipelines["__default__"] = pipelines["experiment"] + (
            Pipeline([]) if own_images else pipelines["demonstration"]
        )
        dataset = parameters.get("episodes", {}).get("dataset", EpisodesParameters.dataset)
        unlabeled = parameters.get("deepercluster", {})
        # Nodes and what they load are not needed before somebody runs or looks at something.
        from lowshot_kedro.pipelines import deepercluster, episodes

        pipelines["episodes"] = episodes.create_pipeline(dataset)
        whole = deepercluster.create_pipeline(
            "background_images" if unlabeled.get("images_path") is None else "deepercluster_images"
        )
        # RotNet clusters nothing.
        has_clusters = unlabeled.get("n_clusters") != 1
        pipelines["deepercluster"] = (
            whole if has_clusters else whole - whole.only_nodes_with_tags("clusters")
        )


class InputHooks(InvocationHooks):
    """Checks everything a run needs before it starts to work."""

    @hook_impl
    def before_pipeline_run(
        self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Refuse missing inputs with the command that makes them, damaged ones, and a full disk.

        A runner that cannot run the pipeline, and kernels that the processor has not got, are
        refused before all that.
        """
        try:
            native.kernels_in_use()
        except ValueError as error:
            raise UserError(str(error)) from error
        if isinstance(catalog, SharedMemoryDataCatalog):
            _require_outputs_on_disk(pipeline, catalog)
            keep_causes()
        if "project" in pipeline.inputs():
            catalog["project"] = MemoryDataset(self._project(run_params), copy_mode="assign")
        names = sorted(name for name in pipeline.inputs() if not _is_parameter(name))
        missing = [name for name in names if not catalog.exists(name)]
        if missing:
            requested = run_params.get("pipeline_names") or ["__default__"]
            invocation = self._invocation(run_params)
            raise UserError(_describe_missing(missing, catalog, requested, invocation))
        checks = [(name, getattr(catalog.get(name), "check", None)) for name in names]
        checks += [
            (name, getattr(catalog.get(name), check, None))
            for check in ("check_kept", "check_space")
            for name in sorted(pipeline.all_outputs())
        ]
        for name, check in checks:
            if check is None:
                continue
            try:
                check()
            except (OSError, InputError) as error:
                advice = _about(catalog, name).get("guide")
                more = f" ({advice} says what is expected)" if advice else ""
                raise self._wording(run_params).user_error(error, f"{name}: ", more) from error
        _say_what_stays(pipeline, catalog)
        require_labels_kept(pipeline, catalog)
        wording = partial(self._wording, run_params)
        _require_dimension(pipeline, catalog, wording)
        _require_images(pipeline, catalog, wording)

    def _project(self, run_params: Mapping[str, Any]) -> Project:
        """What other processes need to open the same catalog."""
        return Project(
            Path(run_params["project_path"]),
            self._env,
            run_params["runtime_params"] or {},
            self._conf_source,
        )


def _say_what_stays(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Say that clusters of another network stay when a network alone is trained, as by RotNet."""
    network, clusters, outputs = "deepercluster_network", "cluster_assignments", pipeline.outputs()
    if network in outputs and clusters not in outputs and catalog.exists(clusters):
        logger.warning(
            "%s and what belongs to it are of an earlier network, and stay as they are: this run "
            "makes no clusters",
            clusters,
        )


def _require_outputs_on_disk(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Refuse to run nodes in several processes that pass something on in the memory of one.

    Kedro would give the next node a placeholder (kedro-org/kedro issue 5773). Arrays of gigabytes
    are better not copied from process to process either.
    """
    names = sorted(
        name for name in pipeline.all_outputs() if isinstance(catalog.get(name), MemoryDataset)
    )
    if names:
        raise UserError(
            f"ParallelRunner: its processes do not share the memory in which nodes pass on "
            f"{', '.join(names)}; take SequentialRunner, which is the default, or ThreadRunner "
            "(demonstration, features, pca, graph and evaluation run with ParallelRunner too)"
        )


def _require_dimension(
    pipeline: Pipeline, catalog: DataCatalog, wording: Callable[[], Wording]
) -> None:
    """Refuse more components than features have numbers before features are computed.

    Raises:
        UserError: If so, or if there is no such network.
    """
    names = {"background_features", "pca_transform"}
    if not names <= pipeline.all_outputs() or any(_is_of_others(catalog, name) for name in names):
        return
    features = catalog.load("params:features")
    n_components = catalog.load("params:pca").n_components
    try:
        extractor = networks.create_extractor(
            features.extractor, features.weights, features.image_size
        )
    except (InputError, OSError) as error:
        raise wording().user_error(error) from error
    dimension = extractor.dimension
    if dimension < n_components:
        raise UserError(
            f"pca.n_components: got {n_components}, but the features of {extractor.name} have only "
            f"{dimension} numbers; expected at most {dimension}: "
            f'--params "pca.n_components={dimension}"'
        )


def _is_of_others(catalog: DataCatalog, name: str) -> bool:
    """Whether files are there without a note, which are used as they are."""
    dataset: Any = catalog.get(name)
    return isinstance(dataset, ResumableDataset) and dataset.are_of_others()


def _require_images(
    pipeline: Pipeline, catalog: DataCatalog, wording: Callable[[], Wording]
) -> None:
    """Refuse images before features are computed that a later step would refuse.

    Raises:
        UserError: If there are none, one for the PCA, or classes do not belong to them.
    """
    inputs, outputs = pipeline.inputs(), pipeline.all_outputs()
    if "train_features" not in outputs:
        return
    names = {"train_images", "test_images", "background_images"} & inputs
    images = {name: catalog.load(name) for name in sorted(names)}
    for name, source in images.items():
        # Labels may come from a file alone.
        if len(source) == 0 and not (name == "train_images" and "label_file" in inputs):
            raise UserError(f"{name}: found no images in {source!r}, expected at least one")
    if "background_images" in images and "pca_transform" in outputs:
        n_images = len(images["background_images"])
        if n_images < 2:
            raise UserError(
                f"background_images: got {n_images} image, expected at least 2 to train a PCA on"
            )
    if {"train_images", "background_images", "label_file"} <= inputs:
        try:
            require_labels(images["train_images"], images["background_images"], catalog)
        except InputError as error:
            raise wording().user_error(error) from error
    if {"train_images", "test_images", "class_split", "params:experiment"} <= inputs:
        experiment = catalog.load("params:experiment")
        train, test = images["train_images"], images["test_images"]
        try:
            selection = choose_images(catalog.load("class_split"), train, test, experiment)
        except InputError as error:
            raise wording().user_error(error) from error
        # Features take long: whoever wants other labels is not to find out afterwards.
        if not catalog.exists("train_features"):
            log_choice(selection, len(train), experiment)


def _describe_missing(
    names: Sequence[str], catalog: DataCatalog, requested: Sequence[str], invocation: Invocation
) -> str:
    """What is missing and how to make it, in the order in which to make it."""
    places = {name: place_of(catalog, name) for name in names}
    paths = [Path(where) for where in places.values() if where is not None]
    project = invocation.project_path
    absent = absent_folder(paths, project)
    if absent is not None:
        return absent
    # An environment that brings its own images has no demonstration.
    own_images = not set(pipelines["demonstration"].nodes) <= set(pipelines["__default__"].nodes)
    left_out = (*_COMPOSED, "demonstration") if own_images else _COMPOSED
    order = [name for name in pipelines if name not in left_out]
    lines: list[tuple[int, str]] = []
    in_memory: dict[str, list[str]] = {}
    for name, where in places.items():
        makers = [maker for maker in order if name in pipelines[maker].all_outputs()]
        about = _about(catalog, name)
        if where is None and makers:
            # A part of a pipeline was asked for; the same command without the choice makes it.
            whole = [each for each in requested if name in pipelines[each].all_outputs()]
            in_memory.setdefault((whole or makers)[0], []).append(name)
            continue
        if makers:
            advice = f"{where} is missing; make it with: {invocation.command(makers[0])}"
        elif "missing" in about:
            advice = f"{where} is missing: {about['missing']} ({about['guide']} says more)"
        else:
            page = where_to_read(Path(where or ""), project)
            advice = f"{where} is missing; put it there ({page})"
        lines.append((order.index(makers[0]) if makers else -1, f"{name}: {advice}"))
    for maker, made in in_memory.items():
        command = invocation.command(None if maker == "__default__" else maker)
        line = f"{', '.join(made)}: not kept on disk; run the whole pipeline: {command}"
        lines.append((len(order), line))
    return "\n".join(line for _, line in sorted(lines))


def _about(catalog: DataCatalog, name: str) -> Mapping[str, str]:
    """What a catalog says to people about a dataset, in its metadata."""
    metadata = getattr(catalog.get(name), "metadata", None) or {}
    about: Mapping[str, str] = metadata.get("lowshot-kedro", {})
    return about


def _is_parameter(name: str) -> bool:
    return name == "parameters" or name.startswith("params:")


class Session(KedroSession):
    """Kedro's session, with short names of nodes and an end of what a run has claimed.

    Kedro tells its hooks of errors, not of Ctrl-C, and a notebook's process goes on after that.
    """

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run a pipeline, as Kedro's session does.

        Where one node only has a name such as `train_pca`, it need not be called `pca.train_pca`.
        Of several processes that `torchrun` has started the first one runs the pipeline, and the
        others do what it asks of them, and return nothing.

        Raises:
            UserError: If there is no such pipeline, node or namespace.
        """
        with _launched_processes() as is_first:
            return self._run(*args, **kwargs) if is_first else {}

    def _run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        asked_for = kwargs.get("pipeline_names") or ["__default__"]
        try:
            # Nodes of some need PyTorch to be loaded.
            with needed_by("the pipelines"):
                known = [name for name in pipelines if name != "__default__"]
        except MissingLibraryError as error:
            raise UserError(str(error)) from error
        for name in asked_for:
            if name not in (*known, "__default__"):
                raise UserError(
                    f"--pipelines: got {name!r}, expected one of: {', '.join(known)}"
                    f"{did_you_mean(name, known)}"
                )
        nodes = {node.name for name in asked_for for node in pipelines[name].nodes}
        for option in ("node_names", "from_nodes", "to_nodes"):
            if kwargs.get(option):
                kwargs[option] = [_node_named(name, nodes, option) for name in kwargs[option]]
        for option in ("from_inputs", "to_outputs"):
            for name in kwargs.get(option) or ():
                _require_dataset(name, asked_for, option)
        namespaces = {name.rpartition(".")[0] for name in nodes} - {""}
        for name in kwargs.get("namespaces") or ():
            if not any(f"{each}.".startswith(f"{name}.") for each in namespaces):
                found = ", ".join(sorted(namespaces)) or "none here"
                raise UserError(f"--namespaces: got {name!r}, expected one of: {found}")
        try:
            result: dict[str, Any] = super().run(*args, **kwargs)
        finally:
            of_this_run.release()
        return result


def _launched_processes() -> AbstractContextManager[bool]:
    # Looked at here: that module needs PyTorch.
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return nullcontext(True)
    from lowshot_kedro.training.torchrun import launched_processes

    return launched_processes()


# Names of an earlier version, which work until the next one.
_RENAMED_NODES = {
    "complete_graph": "insert_labeled_nodes",
    "list_broken_pictures": "list_broken_images",
    "train_logistic_regression": "train_baseline",
}


def _node_named(name: str, nodes: Collection[str], option: str) -> str:
    """The node that is called so, or of which that is the last part."""
    namespace, dot, last = name.rpartition(".")
    if last in _RENAMED_NODES:
        name = f"{namespace}{dot}{_RENAMED_NODES[last]}"
        logger.warning("%s: this node is called %s now", last, _RENAMED_NODES[last])
    found = [node for node in nodes if name in (node, node.rpartition(".")[2])]
    if name in found or len(found) == 1:
        return name if name in found else found[0]
    written = "--nodes" if option == "node_names" else f"--{option.replace('_', '-')}"
    if found:
        raise UserError(f"{written}: {name!r} may be any of: {', '.join(sorted(found))}")
    short = {node.rpartition(".")[2]: node for node in nodes}
    near = {short.get(match, match) for match in get_close_matches(name, [*nodes, *short])}
    raise UserError(
        f"{written}: got {name!r}, expected for instance: {', '.join(sorted(near or nodes))}"
    )


def _require_dataset(name: str, asked_for: Sequence[str], option: str) -> None:
    """Refuse a dataset that none of the pipelines asked for has, naming one that has it.

    kedro-viz shows commands for each dataset that leave the pipeline out.
    """
    if any(name in pipelines[each].datasets() for each in asked_for):
        return
    owner = next((each for each in pipelines if name in pipelines[each].datasets()), None)
    advice = "" if owner is None else f"; add --pipelines {owner}"
    raise UserError(
        f"--{option.replace('_', '-')}: got {name!r}, expected a dataset of the pipeline "
        f"{' or '.join(asked_for)}{advice}"
    )


class ClaimHooks(InvocationHooks):
    """Keeps other processes from writing what a run reads or writes, from its beginning on.

    What a run is sure to write, no other one may read or write meanwhile. Others may read what it
    perhaps keeps, since that was made from the same: it is claimed when it has to be computed.
    """

    @hook_impl(trylast=True)
    def before_pipeline_run(
        self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Claim inputs and outputs, or say in one line what uses them."""
        # A run that was interrupted in this process has told nobody that it ended.
        of_this_run.release()
        # In the order in which they are written, so that the first one is named.
        outputs = [
            name
            for node in pipeline.nodes
            for name in node.outputs
            if not isinstance(catalog.get(name), ResumableDataset)
        ]
        try:
            for name in outputs:
                of_this_run.to_write(files_in_use(catalog.get(name)))
            for name in sorted((pipeline.inputs() | pipeline.all_outputs()) - {*outputs}):
                of_this_run.to_read(files_in_use(catalog.get(name)))
        except (OSError, InputError) as error:
            of_this_run.release()
            wording = self._wording(run_params)
            raise wording.user_error(error, f"{name}: ") from error

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Release what the run has claimed."""
        of_this_run.release()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Release what the run has claimed."""
        of_this_run.release()


class _NodeUsage:
    """Time and peak memory of one node, from loading its first input to saving its last output."""

    def __init__(self) -> None:
        restart_peak()
        self._watch = Stopwatch()
        self.seconds = 0.0
        self.peak_rss_bytes = 0

    def update(self) -> None:
        """Measure until now."""
        self.seconds = self._watch.seconds
        self.peak_rss_bytes = recent_peak_rss_bytes()


class WorkerHooks:
    """Ends the worker processes that a sweep has kept from one node to the next."""

    @hook_impl
    def after_pipeline_run(self) -> None:
        """End the workers after the run."""
        close_idle_workers()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """End the workers after a run that has failed."""
        close_idle_workers()


class ResourceHooks:
    """Logs time and peak memory of every node, and a table of all of them if it is wanted."""

    def __init__(self) -> None:
        # Inputs may be loaded by several threads at a time.
        self._lock = threading.Lock()
        self._usage: dict[str, _NodeUsage] = {}
        self._unsaved: dict[str, set[str]] = {}

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Begin a new table."""
        self._usage.clear()
        self._unsaved.clear()

    @hook_impl
    def before_dataset_loaded(self, node: Node) -> None:
        """Start the time of a node, which begins with its first input."""
        self._begin(node)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Start the time of a node without inputs."""
        self._begin(node)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """End the time of a node with its last output: blocks are computed while they are saved."""
        unsaved = self._unsaved[node.name]
        unsaved.discard(dataset_name)
        usage = self._usage[node.name]
        usage.update()
        if not unsaved:
            logger.info(
                "%s: %.1f s, peak memory %s",
                node.name,
                usage.seconds,
                format_bytes(usage.peak_rss_bytes),
            )

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Print time and peak memory of all nodes, and of all runs of a sweep, where wanted."""
        if not catalog.load("parameters")["reporting"]["show_resources"]:
            return
        if "sweep_resources" in pipeline.all_outputs():
            print_resources(catalog.load("sweep_resources"))
        if not self._usage:
            logger.info("Time and memory: measured in other processes, see the lines above")
            return
        table = Table("node", "seconds", "peak memory", title="Time and memory")
        for name, usage in self._usage.items():
            table.add_row(name, f"{usage.seconds:.1f}", format_bytes(usage.peak_rss_bytes))
        Console().print(table)

    def _begin(self, node: Node) -> None:
        with self._lock:
            if node.name not in self._usage:
                logger.info("%s …", node.name)
                self._usage[node.name] = _NodeUsage()
                self._unsaved[node.name] = set(node.outputs)
