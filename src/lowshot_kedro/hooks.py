"""What happens around every run: parameters and inputs are checked, time and memory are logged."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import DataCatalog, DatasetError, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from rich.console import Console
from rich.table import Table

from lowshot_kedro.config import Project, UserError, absent_folder
from lowshot_kedro.datasets.files import DiskFullError
from lowshot_kedro.datasets.resumable import ResumableDataset
from lowshot_kedro.errors import InputError
from lowshot_kedro.experiment import choose_images, log_choice
from lowshot_kedro.locks import files_in_use, of_this_run
from lowshot_kedro.parameters import check_parameters
from lowshot_kedro.resources import (
    Stopwatch,
    format_bytes,
    recent_peak_rss_bytes,
    restart_peak,
)
from lowshot_kedro.sweep.jobs import close_idle_workers

logger = logging.getLogger(__name__)

_COMPOSED = ("__default__", "experiment", "sweep")


class ErrorHooks:
    """Shows what is wrong with an input in one line."""

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """Replace an error about an input or a file by its message alone.

        Anything else is a defect, and keeps its traceback.
        """
        cause: BaseException = error
        while isinstance(cause, DatasetError) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, InputError | OSError):
            raise UserError(_message(cause)) from error


def _message(error: BaseException) -> str:
    """The message of an error; ours has no use for the number that OSError puts in front."""
    return str(error.strerror if isinstance(error, DiskFullError) else error)


class ParameterHooks:
    """Checks all parameters before anything else happens."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Refuse parameters that are unknown or out of range, and compose the default pipeline."""
        parameters = context.config_loader["parameters"]
        try:
            check_parameters(parameters)
        except InputError as error:
            raise UserError(str(error)) from error
        own_pictures = not parameters["demonstration"]["enabled"]
        pipelines["__default__"] = pipelines["experiment"] + (
            Pipeline([]) if own_pictures else pipelines["demonstration"]
        )


class InputHooks:
    """Checks everything a run needs before it starts to work."""

    @hook_impl
    def before_pipeline_run(
        self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Refuse missing inputs with the command that makes them, damaged ones, and a full disk."""
        if "project" in pipeline.inputs():
            catalog["project"] = MemoryDataset(_project(run_params), copy_mode="assign")
        names = sorted(name for name in pipeline.inputs() if not _is_parameter(name))
        missing = [name for name in names if not catalog.exists(name)]
        if missing:
            raise UserError(_describe_missing(missing, catalog, run_params))
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
                raise UserError(f"{name}: {_message(error)}{more}") from error
        _require_pictures(pipeline, catalog)


def _project(run_params: Mapping[str, Any]) -> Project:
    """What other processes need to open the same catalog."""
    return Project(
        Path(run_params["project_path"]), run_params["env"], run_params["runtime_params"] or {}
    )


def _require_pictures(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Refuse pictures before features are computed that a later step would refuse.

    Raises:
        UserError: If there are none, too few for the PCA, or classes do not belong to them.
    """
    inputs, outputs = pipeline.inputs(), pipeline.all_outputs()
    if "train_features" not in outputs:
        return
    names = {"train_images", "test_images", "background_images"} & inputs
    images = {name: catalog.load(name) for name in sorted(names)}
    for name, source in images.items():
        if len(source) == 0:
            raise UserError(f"{name}: found no pictures in {source!r}, expected at least one")
    if "background_images" in images and "pca_transform" in outputs:
        n_components = catalog.load("params:pca").n_components
        n_pictures = len(images["background_images"])
        if n_pictures <= n_components:
            fewer = 1 << max(0, (n_pictures - 1).bit_length() - 1)
            advice = f', or fewer components: --params "pca.n_components={fewer}"'
            raise UserError(
                f"pca.n_components: got {n_components}, but background_images has only "
                f"{n_pictures} pictures to train on; expected at least {n_components + 1}"
                + (advice if fewer < n_pictures else "")
            )
    if {"train_images", "test_images", "class_split", "params:experiment"} <= inputs:
        experiment = catalog.load("params:experiment")
        train, test = images["train_images"], images["test_images"]
        try:
            selection = choose_images(catalog.load("class_split"), train, test, experiment)
        except InputError as error:
            raise UserError(str(error)) from error
        # Features take long: whoever wants other labels is not to find out afterwards.
        if not catalog.exists("train_features"):
            log_choice(selection, len(train), experiment)


def _describe_missing(
    names: Sequence[str], catalog: DataCatalog, run_params: Mapping[str, Any]
) -> str:
    """What is missing and how to make it, in the order in which to make it."""
    places = {name: _place(catalog, name) for name in names}
    paths = [Path(where) for where in places.values() if where is not None]
    absent = absent_folder(paths, Path(run_params["project_path"]))
    if absent is not None:
        return absent
    # An environment that brings its own pictures has no demonstration.
    own_pictures = not set(pipelines["demonstration"].nodes) <= set(pipelines["__default__"].nodes)
    left_out = (*_COMPOSED, "demonstration") if own_pictures else _COMPOSED
    order = [name for name in pipelines if name not in left_out]
    lines = []
    for name, where in places.items():
        makers = [maker for maker in order if name in pipelines[maker].all_outputs()]
        about = _about(catalog, name)
        if where is None and makers:
            command = _command(makers[0], run_params)
            advice = f"is not kept on disk; run the whole pipeline: {command}"
        elif makers:
            advice = f"{where} is missing; make it with: {_command(makers[0], run_params)}"
        elif "missing" in about:
            advice = f"{where} is missing: {about['missing']} ({about['guide']} says more)"
        else:
            advice = f"{where} is missing; put it there (README.md says which file this is"
            advice += ", lowshot-download fetches the published ones)"
        lines.append((order.index(makers[0]) if makers else -1, f"{name}: {advice}"))
    return "\n".join(line for _, line in sorted(lines))


def _place(catalog: DataCatalog, name: str) -> Any:
    """Where a dataset lies; None for one that is not kept on disk."""
    dataset = catalog.get(name)
    return None if dataset is None else dataset._describe().get("filepath")


def _about(catalog: DataCatalog, name: str) -> Mapping[str, str]:
    """What a catalog says to people about a dataset, in its metadata."""
    metadata = getattr(catalog.get(name), "metadata", None) or {}
    about: Mapping[str, str] = metadata.get("lowshot-kedro", {})
    return about


def _command(pipeline_name: str, run_params: Mapping[str, Any]) -> str:
    """A command about the same files as this run."""
    env, parameters = run_params.get("env"), run_params.get("runtime_params")
    options = f" --env {env}" if env and env != "local" else ""
    if parameters:
        options += ' --params "' + ",".join(_flatten(parameters)) + '"'
    return f"kedro run{options} --pipeline {pipeline_name}"


def _flatten(parameters: Mapping[str, Any], prefix: str = "") -> list[str]:
    flat: list[str] = []
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            flat += _flatten(value, f"{prefix}{name}.")
        else:
            written = value if isinstance(value, str) else json.dumps(value)
            flat.append(f"{prefix}{name}={written}")
    return flat


def _is_parameter(name: str) -> bool:
    return name == "parameters" or name.startswith("params:")


class ClaimHooks:
    """Keeps other processes from writing what a run reads or writes, from its beginning on.

    What a run is sure to write, no other one may read or write meanwhile. What it perhaps keeps,
    since it was made from the same, others may read: it is claimed when it has to be computed.
    """

    @hook_impl(trylast=True)
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Claim inputs and outputs, or say in one line what uses them."""
        # A run that was interrupted in this process has told nobody that it ended.
        of_this_run.release()
        outputs = {
            name
            for name in pipeline.all_outputs()
            if not isinstance(catalog.get(name), ResumableDataset)
        }
        try:
            for name in sorted(outputs):
                of_this_run.to_write(files_in_use(catalog.get(name)))
            for name in sorted((pipeline.inputs() | pipeline.all_outputs()) - outputs):
                of_this_run.to_read(files_in_use(catalog.get(name)))
        except (OSError, InputError) as error:
            of_this_run.release()
            raise UserError(f"{name}: {_message(error)}") from error

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Let others have them."""
        of_this_run.release()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Let others have them."""
        of_this_run.release()


class _NodeUsage:
    """Time and peak memory of one node, from loading its first input to saving its last output."""

    def __init__(self) -> None:
        restart_peak()
        self._watch = Stopwatch()
        self.seconds = 0.0
        self.peak_rss_bytes = 0

    def update(self) -> None:
        self.seconds = self._watch.seconds
        self.peak_rss_bytes = recent_peak_rss_bytes()


class WorkerHooks:
    """Ends the worker processes that a sweep has kept from one node to the next."""

    @hook_impl
    def after_pipeline_run(self) -> None:
        """They are not needed any more."""
        close_idle_workers()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Nor are they then."""
        close_idle_workers()


class ResourceHooks:
    """Logs time and peak memory of every node, and a table of all of them at the end."""

    def __init__(self) -> None:
        self._usage: dict[str, _NodeUsage] = {}
        self._unsaved: dict[str, set[str]] = {}

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Begin a new table."""
        self._usage.clear()
        self._unsaved.clear()

    @hook_impl
    def before_dataset_loaded(self, node: Node) -> None:
        """A node's time begins with its first input."""
        self._begin(node)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """A node without inputs begins here."""
        self._begin(node)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """A node's time ends with its last output: blocks are computed while they are saved."""
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
    def after_pipeline_run(self) -> None:
        """Print time and peak memory of all nodes."""
        if not self._usage:
            return
        table = Table("node", "seconds", "peak memory", title="Time and memory")
        for name, usage in self._usage.items():
            table.add_row(name, f"{usage.seconds:.1f}", format_bytes(usage.peak_rss_bytes))
        Console().print(table)

    def _begin(self, node: Node) -> None:
        if node.name not in self._usage:
            logger.info("%s …", node.name)
            self._usage[node.name] = _NodeUsage()
            self._unsaved[node.name] = set(node.outputs)
