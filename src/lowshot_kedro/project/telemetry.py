"""Telemetry is off: nobody is told of a run, unless a person has agreed.

Kedro comes with a plugin that sends usage data to its makers where nobody objects. A file
`.telemetry` in the project says no, but a package in a foreign folder, a copy of the project
without hidden files, or a command that finds no project at all, has no such file. Then the plugin
even writes into pyproject.toml.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import yaml
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.utils import find_kedro_project

from lowshot_kedro.extras import MissingLibraryError
from lowshot_kedro.project import PACKAGE, require_libraries

# What the plugin, kedro-viz, and processes started from here look at.
_OBJECTION = "KEDRO_DISABLE_TELEMETRY"


def turn_off_telemetry(project_path: Path) -> None:
    """Object to telemetry for this process and those it starts.

    Args:
        project_path: A folder whose file `.telemetry` may say `consent: true`: then a person wants
            it, and nothing happens.
    """
    if not os.environ.get(_OBJECTION) and not _has_consent(project_path):
        os.environ[_OBJECTION] = "1"


def _has_consent(project_path: Path) -> bool:
    try:
        answer = yaml.safe_load((project_path / ".telemetry").read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(answer, dict) and answer.get("consent") is True


class TelemetryHooks:
    """Turns telemetry off wherever a session begins: command line, package, notebook, kedro-viz."""

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Turn telemetry off before the plugin looks whether it is."""
        turn_off_telemetry(context.project_path)


def before_any_command() -> None:
    """Turn telemetry off for `kedro` commands, before the plugin is told of them.

    The entry point `kedro.init` has it called by every command, also outside of any project. In
    other projects it does nothing. In this one it ends the command where a library is missing.
    """
    project_path = find_kedro_project(Path.cwd())
    if project_path is None:
        turn_off_telemetry(Path.cwd())
    elif _is_ours(project_path):
        turn_off_telemetry(project_path)
        try:
            require_libraries("kedro")
        except MissingLibraryError as error:
            sys.exit(f"Error: {error}")


def _is_ours(project_path: Path) -> bool:
    try:
        text = (project_path / "pyproject.toml").read_text()
    except (OSError, ValueError):
        return False
    return re.search(rf"^package_name\s*=\s*[\"']{PACKAGE}[\"']", text, re.MULTILINE) is not None
