"""Commands as they can be typed where a message with them is read."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowshot_kedro.project import PACKAGE

# In double quotes a shell leaves everything else as it is.
_SPECIAL_IN_QUOTES = re.compile(r'["$`\\!]')


@dataclass(frozen=True)
class Invocation:
    """How a run has been started, so that a command can be about the same files.

    Attributes:
        project_path: Folder of the project, or where the package runs.
        conf_source: The folder that its configuration comes from.
        env: The environment; None: Kedro's default.
        runtime_params: What `--params` has changed.
    """

    project_path: Path
    conf_source: str
    env: str | None
    runtime_params: Mapping[str, Any]

    def command(self, pipeline_name: str | None) -> str:
        """A command that runs another pipeline, or the default, on the same files."""
        options = f" --env {shlex.quote(self.env)}" if self.env not in (None, "", "local") else ""
        if Path(self.conf_source) != self.project_path / "conf":
            options += f" --conf-source {shlex.quote(_shortest(self.conf_source, Path.cwd()))}"
        given, left_out = _as_option(self.runtime_params)
        if given:
            options += f" --params {_quoted(given)}"
        if pipeline_name is not None:
            options += f" --pipelines {pipeline_name}"
        command = f"{_program()}{options}"
        notes = []
        here = Path.cwd()
        if self.project_path not in (here, *here.parents):
            notes.append(f"in {self.project_path}")
        if left_out:
            notes.append(f"with a file for --config: {', '.join(left_out)} cannot be in --params")
        return command + (f" ({', '.join(notes)})" if notes else "")


def _program() -> str:
    """What to type for `kedro run`: the environment need not be activated."""
    if Path(sys.argv[0]) == Path(__file__).parents[1] / "__main__.py":
        return f"{_callable(Path(sys.executable), Path.cwd())} -m {PACKAGE}"
    return f"{kedro_command(Path.cwd())} run"


def kedro_command(folder: Path) -> str:
    """What to type in a folder for `kedro`."""
    return _script("kedro", "kedro", folder)


def lowshot_command() -> str:
    """What to type for `lowshot`."""
    return _script("lowshot", f"{PACKAGE}.project.command_line", Path.cwd())


def _script(name: str, module: str, folder: Path) -> str:
    """The name or path of a script of this environment, or the module that it calls."""
    python = Path(sys.executable)
    script = python.with_name(name)
    if script.is_file():
        return _callable(script, folder)
    return f"{_callable(python, folder)} -m {module}"


def _callable(program: Path, folder: Path) -> str:
    """The name of a program if the shell finds it by that, else its path."""
    found = shutil.which(program.name)
    if found is not None and Path(found) == program:
        return program.name
    return shlex.quote(_shortest(str(program), folder))


def _shortest(path: str, folder: Path) -> str:
    """A path, relative if it lies in the folder in which it is typed."""
    if "://" in path:
        return path
    relative = os.path.relpath(path, folder)
    return path if relative.startswith("..") else relative


def _quoted(text: str) -> str:
    return shlex.quote(text) if _SPECIAL_IN_QUOTES.search(text) else f'"{text}"'


def _as_option(parameters: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The value of `--params`, and the names of the parameters that it cannot say."""
    given, left_out = [], []
    for name, value in _flat(parameters):
        item = _item(name, value)
        if item is None:
            left_out.append(name)
        else:
            given.append(item)
    return ",".join(given), left_out


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in parameters.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _item(name: str, value: Any) -> str | None:
    """`name=value` that Kedro reads as the same value; None if there is no such text."""
    writings = [value] if isinstance(value, str) else []
    writings.append(json.dumps(value, ensure_ascii=False, default=str))
    for writing in writings:
        item = f"{name}={writing}"
        if "," not in item and _read(item) == (name, value):
            return item
    return None


def _read(item: str) -> tuple[str, Any] | None:
    """What Kedro makes of an item: it takes away the space around it, and leaves types to YAML."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    name, _, written = item.strip().partition("=")
    try:
        content: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"{name}={written}"]))
    except (OmegaConfBaseException, yaml.YAMLError):
        return None
    for part in name.split("."):
        if not isinstance(content, dict) or part not in content:
            return None
        content = content[part]
    return name, content
