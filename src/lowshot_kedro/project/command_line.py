"""The command `lowshot`: a project of one's own, and the published files."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from lowshot_kedro.download.__main__ import main as download
from lowshot_kedro.errors import InputError
from lowshot_kedro.extras import MissingLibraryError
from lowshot_kedro.project import require_libraries
from lowshot_kedro.project.commands import kedro_command
from lowshot_kedro.project.template import write_project


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Arguments of the command line; None: those of this process.

    Returns:
        The exit status: 0, or 1 with a line on standard error.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # It has options of its own, and explains them.
    if given[:1] == ["download"]:
        return download(given[1:], "lowshot download")
    options = _parser().parse_args(given)
    try:
        _new(options.folder)
    except (InputError, OSError) as error:
        print(f"lowshot {options.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lowshot", description="Low-shot classification by diffusion over k-NN graphs."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser(
        "new",
        help="write a project of your own, with settings to change",
        description="Write a Kedro project whose pipelines come from the installed package: "
        "settings in conf/, folders for data, pages and notebooks.",
    )
    new.add_argument("folder", type=Path, help="where; it must be new or empty")
    commands.add_parser("download", help="fetch the published files", add_help=False)
    return parser


def _new(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; expected a folder that is new or empty")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; expected a folder that is new or empty")
    write_project(folder)
    print(f"{folder}: a project of your own; README.md says what is where.")
    try:
        require_libraries("the pipelines")
    except MissingLibraryError as error:
        print(f"First: {error}")
    # Seen from where it will be typed.
    program = kedro_command(folder.absolute())
    print(f"Next:  cd {shlex.quote(str(folder))} && {program} run")


if __name__ == "__main__":
    sys.exit(main())
