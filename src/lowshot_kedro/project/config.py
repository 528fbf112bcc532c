"""How the files in conf/ are read: what may stand in `${…}`, and what is said when it fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from traceback import format_exception
from typing import IO, Any

from click import ClickException, echo
from kedro.config import MissingConfigException, OmegaConfigLoader
from kedro.framework.project import configure_project
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog
from kedro.utils import find_kedro_project, is_kedro_project
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

from lowshot_kedro.errors import InputError, did_you_mean, shown_line, traceback_is_wanted
from lowshot_kedro.graph.parameters import stored_columns
from lowshot_kedro.project import PACKAGE, torchvision_environment
from lowshot_kedro.project.commands import lowshot_command
from lowshot_kedro.project.parameters import with_new_names

logger = logging.getLogger(__name__)

# Folders of data that people name: an example, and which page says what is expected there.
_FOLDERS = {
    "DDIR": ("/data/low-shot-diffusion", "docs/published_files.md"),
    "IMAGES": ("/data/images", "docs/own_images.md"),
}
# Names of an earlier version, which this one still understands.
_RENAMED_ENVIRONMENTS = {"own_pictures": "own_images"}
_RENAMED_VARIABLES = {"PICTURES": "IMAGES"}
_MISSING_FOLDER = "Given configuration path either does not exist"
# What YAML's readers raise: also for characters of no encoding, and brackets without end.
_UNREADABLE = (YAMLError, UnicodeError, RecursionError, OmegaConfBaseException)
_PREFIX = "UserError raised while resolving interpolation: "


class UserError(ClickException, InputError):
    """An input error at the surface: the command line shows it without a traceback.

    Args:
        message: The whole text, in the names that people type.
    """

    def __str__(self) -> str:
        return self.message

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message, and above it the traceback if whoever started the run wants that."""
        if traceback_is_wanted():
            echo("".join(format_exception(self)), file=file, err=True)
        super().show(file)


class ConfigLoader(OmegaConfigLoader):
    """Kedro's loader, with a catalog that follows the parameters and the environment.

    `${parameter:graph.k}` in a catalog is the value that the run uses, whether it comes from
    conf/base, an environment, conf/local or the command line. `${layer:08_reporting}` in globals is
    a folder that each environment has to itself. An environment whose globals name a data set of
    torchvision has the catalog entries and parameters that follow from it; what it says itself goes
    before them.
    """

    def __init__(
        self, conf_source: str | Path, env: str | None = None, *args: Any, **kwargs: Any
    ) -> None:
        new = _RENAMED_ENVIRONMENTS.get(env or "")
        # Whoever has changed settings of that name goes on with them.
        if new is not None and not Path(conf_source, str(env)).is_dir():
            _warn_of_old_name(f"--env {env}", "this environment", new)
            env = new
        super().__init__(conf_source, env, *args, **kwargs)

    def __getitem__(self, key: str) -> dict[str, Any]:
        # Resolvers belong to the process, what they say to this loader.
        if key == "catalog":
            self._register_globals_resolver()
            resolve = partial(_parameter, self["parameters"])
            OmegaConf.register_new_resolver("parameter", resolve, replace=True)
        elif key == "globals":
            has_own = self.env not in (None, "", self.base_env, self.default_run_env)
            folder = self._data_folder() if has_own else "data"
            OmegaConf.register_new_resolver("layer", partial(_layer, folder), replace=True)
        is_kept = key in self
        try:
            content: dict[str, Any] = super().__getitem__(key)
        except MissingConfigException as error:
            # Without files of a kind is another error of this class, and Kedro's own business.
            if not str(error).startswith(_MISSING_FOLDER):
                raise
            raise UserError(self._describe_missing(error)) from error
        except InterpolationResolutionError as error:
            # The first line says what is wrong, the others which node of the tree it stands in.
            raise UserError(str(error).splitlines()[0].removeprefix(_PREFIX)) from error
        except _UNREADABLE as error:
            raise UserError(self._describe_unreadable(error)) from error
        if key == "parameters" and not is_kept:
            # Kept, so that each old name is told of once.
            content = self[key] = with_new_names(content, self.runtime_params)
        if key == "globals" and content.get(torchvision_environment.SECTION) is not None:
            self._complete_globals(content)
        return content

    def _complete_globals(self, content: dict[str, Any]) -> None:
        """Check the data set that the globals name, and give captions the names of its classes."""
        section = content[torchvision_environment.SECTION]
        try:
            torchvision_environment.require_section(section)
        except InputError as error:
            path = Path(self.conf_source, self.env or self.default_run_env, "globals.yml")
            raise UserError(f"{path}: {error}") from error
        names = torchvision_environment.class_list(section, content["folders"]["raw"])
        content.setdefault("class_list", names)

    def _merge_configs(
        self, config: dict[str, Any], env_config: dict[str, Any], key: str, env_path: str
    ) -> Any:
        # Kedro knows a base and an environment; what follows from a data set stands between them.
        between: Mapping[str, Any] = {}
        section = None if key == "globals" else self._globals.get(torchvision_environment.SECTION)
        if section is not None and key == "parameters":
            between = torchvision_environment.PARAMETERS
        elif section is not None and key == "catalog":
            raw, names = self._globals["folders"]["raw"], self._globals["class_list"]
            between = torchvision_environment.catalog_entries(section, raw, names)
        if between:
            config = super()._merge_configs(config, dict(between), key, env_path)
        return super()._merge_configs(config, env_config, key, env_path)

    def _data_folder(self) -> str:
        """The folder of the environment's results, relative to the project."""
        folder = f"data/{self.env}"
        old = {new: f"data/{old}" for old, new in _RENAMED_ENVIRONMENTS.items()}.get(str(self.env))
        conf = Path(self.conf_source)
        project = conf.parent if is_kedro_project(conf.parent) else None
        project = project or find_kedro_project(Path.cwd()) or Path.cwd()
        if old is None or not (project / old).is_dir():
            return folder
        if (project / folder).is_dir():
            _warn_once(f"{old}: not used, as {folder} is there, the new name of this folder")
            return folder
        _warn_of_old_name(old, "this folder of results", folder)
        return old

    def _describe_unreadable(self, error: Exception) -> str:
        """A line about the file of settings that cannot be read; Kedro does not always name it."""
        reason = error
        where = str(self.conf_source)
        for env in (self.base_env, self.env or self.default_run_env):
            for path in sorted(Path(self.conf_source, env).rglob("*.*")):
                if path.suffix not in (".yml", ".yaml", ".json") or not path.is_file():
                    continue
                try:
                    OmegaConf.load(path)
                except _UNREADABLE as found:
                    where, reason = str(path), found
        mark = getattr(reason, "problem_mark", None)
        place = "" if mark is None else f", line {mark.line + 1}"
        said = getattr(reason, "problem", None) or f"{type(reason).__name__}: {reason}"
        return f"{where}{place}: not readable as settings ({shown_line(str(said))})"

    def _describe_missing(self, error: MissingConfigException) -> str:
        """A line about the folder of settings that is not there."""
        # Kedro's last word is the folder, which may be one within an archive.
        missing = str(error).rpartition(" ")[2]
        if Path(missing).name == self.env:
            known = sorted(path.name for path in Path(missing).parent.glob("*") if path.is_dir())
            hint = did_you_mean(self.env, known)
            return f"--env: got {self.env!r}, but there is no {missing}{hint}"
        return (
            f"{missing}: not there, expected the settings; run this in the folder of a project, "
            f"which `{lowshot_command()} new FOLDER` writes, or name a folder or an archive of "
            "settings by --conf-source"
        )


def _parameter(parameters: Mapping[str, Any], name: str) -> Any:
    """`${parameter:section.name}`: the value of a parameter; missing ones are refused before."""
    value: Any = parameters
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _layer(folder: str, name: str) -> str:
    """`${layer:08_reporting}`: one of Kedro's layers in the folder of the environment."""
    return f"{folder}/{name}"


def _environment_variable(name: str) -> str:
    """`${oc.env:NAME}`: the value of an environment variable."""
    value = _value_of(name)
    if not value:
        example, page = _FOLDERS.get(name, ("/data", "README.md"))
        raise UserError(
            f"{name}: this environment variable is not set; expected the folder of your data, for "
            f"instance: export {name}={example} ({page} says what is expected there)"
        )
    return value


def _value_of(name: str) -> str | None:
    """What a variable says, or else the one that had its place in an earlier version."""
    value = os.environ.get(name)
    for old, new in _RENAMED_VARIABLES.items():
        if new == name and not value and os.environ.get(old):
            _warn_of_old_name(old, "this environment variable", new)
            return os.environ[old]
    return value


def _warn_of_old_name(old: str, what: str, new: str) -> None:
    """Say what takes the place of a name of an earlier version."""
    _warn_once(f"{old}: {what} is called {new} now; the old name works until the next version")


@cache
def _warn_once(message: str) -> None:
    """Log a message once: a process reads settings many times."""
    logger.warning("%s", message)


def absent_folder(paths: Iterable[Path], project: Path) -> str | None:
    """What is wrong if files are missing because an environment variable names no folder.

    Args:
        paths: Paths of the files.
        project: The folder of the project, which paths can be relative to.

    Returns:
        One line, or None if that is not why.
    """
    for path in paths:
        name, folder, page = _folder_of(path, project)
        if folder is not None and not folder.is_dir():
            return (
                f"{name}: no such folder: {folder}; expected the folder of your data ({page} says "
                "what is expected there)"
            )
    return None


def where_to_read(path: Path, project: Path) -> str:
    """Advice about a file that people put there: the page about it, and how else it comes there."""
    name, _, page = _folder_of(path, project)
    fetch = f"`{lowshot_command()} download` fetches the published ones"
    others = f", {fetch}" if name == "DDIR" else ""
    return f"{page} says which file this is{others}"


def _folder_of(path: Path, project: Path) -> tuple[str, Path | None, str]:
    """The environment variable whose folder a file lies in, that folder, and the page about it."""
    for name, (_, page) in _FOLDERS.items():
        value = _value_of(name)
        if value and (project / value) in (path, *path.parents):
            return name, project / value, page
    return "", None, "README.md"


def _background_rows(n_background: int | None, unlabeled: str) -> int | None:
    """`${background_rows:…}`: `n_background`, or 0 if the unlabelled images are others."""
    return n_background if unlabeled in ("background", "both") else 0


def _or_all(n_rows: int | None) -> str:
    """`${or_all:…}`: how a file name counts rows."""
    return "all" if n_rows is None else str(n_rows)


def _or_else(value: Any, otherwise: Any) -> Any:
    """`${or_else:…,…}`: the first, or the second where that is null."""
    return otherwise if value is None else value


RESOLVERS = {
    "oc.env": _environment_variable,
    "background_rows": _background_rows,
    "stored_columns": stored_columns,
    "or_all": _or_all,
    "or_else": _or_else,
    "is_null": lambda value: value is None,
}


@dataclass(frozen=True)
class Project:
    """A project as it runs, which other processes can open too.

    Attributes:
        path: Its folder.
        env: The environment, None being Kedro's default.
        runtime_params: What the command line changed.
        conf_source: The folder that its settings come from; None: its folder `conf`.
    """

    path: Path
    env: str | None
    runtime_params: Mapping[str, Any]
    conf_source: str | None = None

    def catalog(self, changes: Mapping[str, Mapping[str, Any]]) -> DataCatalog:
        """The catalog as it is with some parameters changed.

        Args:
            changes: Values by section and name.
        """
        if is_kedro_project(self.path):
            bootstrap_project(self.path)
        else:  # the package in some folder
            configure_project(PACKAGE)
        merged = {
            section: {**self.runtime_params.get(section, {}), **changes.get(section, {})}
            for section in {*self.runtime_params, *changes}
        }
        with KedroSession.create(
            self.path, env=self.env, runtime_params=merged, conf_source=self.conf_source
        ) as session:
            catalog: DataCatalog = session.load_context().catalog  # type: ignore[attr-defined]
            return catalog
