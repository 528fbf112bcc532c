"""The command that downloads the published files that are missing."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import shutil
import sys
import traceback
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from lowshot_kedro.download.published import (
    BASE_URL,
    GRAPH_SIZES,
    PublishedFile,
    select_files,
)
from lowshot_kedro.download.transfer import Transfer, look_up
from lowshot_kedro.errors import InputError, traceback_is_wanted
from lowshot_kedro.memory import format_bytes

logger = logging.getLogger("lowshot_kedro.download")

# What conf/imagenet takes if nothing else is said.
_DEFAULT_N_BACKGROUND = 1_000_000
_OPTIONS = {"n_background": "--n-background"}


def main(arguments: Sequence[str] | None = None, command: str = "lowshot-download") -> int:
    """Run the command.

    Args:
        arguments: Arguments of the command line; None: those of this process.
        command: How it was called.

    Returns:
        The exit status: 0, or 1 with a line on standard error, or 130 if a person stopped it.
    """
    options = _parser(command).parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("lowshot_kedro").setLevel(logging.INFO)
    try:
        _run(options)
    except (InputError, OSError) as error:
        logger.debug("What the error comes from:", exc_info=error)
        if traceback_is_wanted():
            traceback.print_exc()
        text = error.worded(_option) if isinstance(error, InputError) else error
        print(f"{command}: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{command}: stopped; run it again to go on", file=sys.stderr)
        return 130
    return 0


def _option(error: InputError) -> str | None:
    """What is typed for an argument of the functions that select and fetch files."""
    return _OPTIONS.get(error.parameter or "", error.parameter)


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command,
        description="Download the files that were published with the papers, as far as they are "
        "missing. What was stopped goes on where it was.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="FILE",
        help="only these, for instance features/f100m/block0.hdf5, block0.hdf5 or "
        "deepercluster/ours.pth; otherwise what the published experiment needs",
    )
    parser.add_argument(
        "--folder", type=Path, help="where they belong (default: the environment variable DDIR)"
    )
    parser.add_argument(
        "--n-background",
        type=_numbers,
        default=[_DEFAULT_N_BACKGROUND],
        metavar="N[,N…]",
        help="numbers of background images of your experiments: the largest says how many vectors "
        f"are fetched, and graphs were published for {', '.join(map(str, GRAPH_SIZES))} "
        f"(default: {_DEFAULT_N_BACKGROUND}; 0: no background)",
    )
    parser.add_argument("--all", action="store_true", help="all files, and all of each")
    parser.add_argument(
        "--list", action="store_true", help="show what there is and what is missing, fetch nothing"
    )
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help=f"a mirror of {BASE_URL}, with label_idx.json at its top and the files of "
        "DeeperCluster in deepercluster/",
    )
    return parser


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.replace("_", "").split(",")]
    except ValueError:
        numbers = [-1]
    if min(numbers) < 0:
        message = f"got {text!r}, expected integers of at least 0, separated by commas"
        raise argparse.ArgumentTypeError(message)
    return numbers


def _run(options: argparse.Namespace) -> None:
    folder = options.folder or os.environ.get("DDIR")
    if not folder:
        raise InputError(
            "no folder: expected --folder, or the environment variable DDIR, for instance: "
            "export DDIR=/data/low-shot-diffusion"
        )
    if options.all and options.names:
        raise InputError(f"--all: got the names {', '.join(options.names)} as well")
    files = select_files(options.n_background, options.names, options.all)
    n_rows = None if options.all else max(options.n_background)
    plan = _Plan(files, Path(folder), n_rows, options.base_url)
    if options.list:
        plan.show()
        return
    plan.require_ready()
    plan.run()
    if not options.names and not options.all:
        _tell_of_graphs_to_make(options.n_background, folder)


def _tell_of_graphs_to_make(n_background: Iterable[int], folder: str | Path) -> None:
    # That is where conf/imagenet looks.
    path = str(Path(folder).absolute())
    variable = "" if os.environ.get("DDIR") == path else f"DDIR={shlex.quote(path)} "
    for number in sorted({*n_background} - {0, *GRAPH_SIZES}):
        logger.info(
            "No graph was published for %d background images; make it, in the folder of the "
            "project, with: %skedro run --env imagenet --pipelines graph --params "
            "graph.n_background=%d",
            number,
            variable,
            number,
        )


class _Plan:
    """Some files, what the server says of them, and what is on disk.

    Args:
        files: The files.
        folder: The folder that they belong in.
        n_rows: How many rows to fetch of files whose first rows are of use alone; None: all.
        base_url: A mirror; None: the published addresses.
    """

    def __init__(
        self,
        files: Sequence[PublishedFile],
        folder: Path,
        n_rows: int | None,
        base_url: str | None,
    ) -> None:
        self._folder = folder
        self._files = files
        self._transfers: dict[str, Transfer] = {}
        self._problems: dict[str, str] = {}
        for file in files:
            rows = n_rows if file.row_bytes else None
            try:
                transfer = Transfer(
                    look_up(file.address(base_url)),
                    folder / file.name,
                    None if rows is None else rows * (file.row_bytes or 0),
                    file.row_bytes,
                )
                transfer.bytes_on_disk()
            except InputError as error:
                self._problems[file.name] = str(error)
            else:
                self._transfers[file.name] = transfer

    def show(self) -> None:
        """Print a table of the files."""
        table: list[tuple[str, ...]] = [
            ("file", "wanted", "on the server", "on disk", "missing", "needed for")
        ]
        for file in self._files:
            transfer = self._transfers.get(file.name)
            sizes: tuple[str, ...] = ("?",) * 4
            if transfer is not None:
                numbers = (transfer.n_bytes, transfer.remote.size, transfer.bytes_on_disk())
                missing = "-" if transfer.is_done() else format_bytes(transfer.bytes_missing())
                sizes = (*map(format_bytes, numbers), missing)
            table.append((file.name, *sizes, file.needed_for))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for name, *cells, needed_for in table:
            aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=False)]
            print("  ".join([name.ljust(widths[0]), *aligned, needed_for]))
        n_bytes = sum(transfer.bytes_missing() for transfer in self._transfers.values())
        print(f"{format_bytes(n_bytes)} missing in {self._folder}")
        for problem in self._problems.values():
            print(problem)

    def require_ready(self) -> None:
        """Refuse to begin what cannot be finished.

        Raises:
            ValueError: If a file is not on the server, another one is in its place on the disk, or
                the disk has not enough room.
        """
        if self._problems:
            problems = "\n".join(self._problems.values())
            raise InputError(
                f"{problems}\nNothing was downloaded; name the files that you want without these"
            )
        needed: dict[int, int] = defaultdict(int)
        free: dict[int, int] = {}
        for transfer in self._transfers.values():
            folder = transfer.path.parent
            folder.mkdir(parents=True, exist_ok=True)
            device = folder.stat().st_dev
            needed[device] += transfer.bytes_missing()
            free[device] = shutil.disk_usage(folder).free
        for device, n_bytes in needed.items():
            if n_bytes > free[device]:
                raise InputError(
                    f"{self._folder}: the disk is too full, {format_bytes(n_bytes)} needed but "
                    f"only {format_bytes(free[device])} free; --n-background says how many vectors"
                )

    def run(self) -> None:
        """Fetch the files one after the other."""
        for name, transfer in self._transfers.items():
            kept = transfer.is_done()
            transfer.run()
            size = format_bytes(transfer.bytes_on_disk())
            logger.info("%s: %s", name, f"kept, {size}" if kept else f"complete, {size}")
        logger.info("%d files are complete in %s", len(self._transfers), self._folder)


if __name__ == "__main__":
    sys.exit(main())
