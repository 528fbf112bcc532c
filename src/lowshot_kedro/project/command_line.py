"""The command `lowshot`: labels for a folder, a project, the published files, checkpoints."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lowshot_kedro.download.__main__ import main as download
from lowshot_kedro.errors import InputError
from lowshot_kedro.extras import MissingLibraryError, needed_by
from lowshot_kedro.labeling.parameters import FOLDER_TREES, METHODS
from lowshot_kedro.project import require_libraries
from lowshot_kedro.project.commands import kedro_command
from lowshot_kedro.project.labeling_run import label_folder
from lowshot_kedro.project.template import write_project

# Where a run has its images and labels from, which whoever names a folder need not know.
_PLACES = re.compile(r"^(train_images|background_images|label_file): ")
# What shells say of a command that Ctrl-C has ended.
_STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Arguments of the command line; None: those of this process.

    Returns:
        The exit status: 0, or 1 with a line on standard error, or 130 where it was stopped.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # It has options of its own, and explains them.
    if given[:1] == ["download"]:
        return download(given[1:], "lowshot download")
    options = _parser().parse_args(given)
    try:
        options.run(options)
    except InputError as error:
        # No file that the command is given is a parameter of a run.
        text = _PLACES.sub("", error.worded(lambda error: None))
        print(f"lowshot {options.command}: {text}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"lowshot {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"lowshot {options.command}: stopped; type it again to go on", file=sys.stderr)
        return _STOPPED
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
    new.set_defaults(run=lambda options: _new(options.folder))
    label = commands.add_parser(
        "label",
        help="find labels for all images of a folder from the few that have one",
        description="Find labels for all images of a folder. FOLDER/train has a folder of labelled "
        "images for each class, and the others lie in FOLDER/background or elsewhere below FOLDER; "
        "or FOLDER/labels.csv names labelled images, with the columns file and label. Writes "
        "labels.csv and labels.html, a page to look at labels and correct them. Features are kept "
        "there, so that a second run with more labels takes seconds.",
    )
    label.add_argument("folder", type=Path, help="the folder of the images")
    label.add_argument(
        "--labels",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="a file of labels: CSV with the columns file and label, and group where images belong "
        "together; or what Label Studio exports; without: FOLDER/labels.csv, if it is there",
    )
    label.add_argument("--output", type=Path, help="where results go; without: ./FOLDER-labels")
    label.add_argument("--method", help=f"one of: {', '.join(METHODS)}")
    label.add_argument(
        "--accuracy",
        type=float,
        help="how many labels should be right, for instance 0.95: those less sure are unknown",
    )
    label.add_argument("--threshold", type=float, help="the confidence below which one is unknown")
    label.add_argument(
        "--folder-tree",
        choices=FOLDER_TREES,
        help="a folder for each label with links to its images, or copies",
    )
    label.add_argument(
        "--params",
        default="",
        help='any other parameter: "features.image_size=224,labeling.n_next=100"',
    )
    label.add_argument("--verbose", action="store_true", help="log every step, its time and memory")
    label.set_defaults(run=_label)
    convert = commands.add_parser(
        "convert-snca",
        help="convert a checkpoint of the original SNCA code",
        description="Convert a checkpoint of the original SNCA code (checkpoint.pth.tar or "
        "ckpt.t7), from which nothing is executed, to a network for features.weights, and its bank "
        "to a feature file.",
    )
    convert.add_argument("checkpoint", type=Path, help="the checkpoint")
    convert.add_argument(
        "--network", type=Path, required=True, help="where the network goes: OUT.safetensors"
    )
    convert.add_argument(
        "--images",
        type=Path,
        help="the images that the bank was made from, in its order: a folder with a folder for "
        "every class, or a JSON list of image_names and image_labels",
    )
    convert.add_argument("--bank", type=Path, help="where the bank goes: OUT.hdf5")
    convert.set_defaults(run=_convert_snca)
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


def _label(options: argparse.Namespace) -> None:
    try:
        require_libraries("lowshot label")
    except MissingLibraryError as error:
        raise InputError(str(error)) from error
    given = {
        name: getattr(options, name)
        for name in ("method", "accuracy", "threshold", "folder_tree")
        if getattr(options, name) is not None
    }
    sections = _typed_parameters(options.params)
    sections["labeling"] = {**sections.get("labeling", {}), **given}
    show = "everything" if options.verbose else "progress"
    done = label_folder(options.folder, options.labels, options.output, show=show, **sections)
    print(f"Open {done.page}")


def _typed_parameters(text: str) -> dict[str, Any]:
    """What `--params` says, as `kedro run` reads it."""
    if not text:
        return {}
    from omegaconf import OmegaConf

    items = [item.strip() for item in text.split(",")]
    for item in items:
        if "=" not in item[1:]:
            raise InputError(f"--params: got {item!r}, expected section.name=value")
    found: dict[str, Any] = OmegaConf.to_container(OmegaConf.from_dotlist(items))  # type: ignore[assignment]
    for name, value in found.items():
        if not isinstance(value, dict):
            raise InputError(
                f"--params: got {name}={value}, expected section.name=value, for instance "
                "labeling.n_next=100"
            )
    return found


def _convert_snca(options: argparse.Namespace) -> None:
    for name, path, suffix in (
        ("network", options.network, ".safetensors"),
        ("bank", options.bank, ".hdf5"),
    ):
        if path is not None and path.suffix != suffix:
            raise InputError(f"--{name}: got {path}, expected a name that ends in {suffix}")
    with needed_by("the command"):
        # These take long to import.
        from lowshot_kedro.datasets import HDF5FeaturesDataset, SafetensorsDataset
        from lowshot_kedro.images import ClassFolders, LabeledList
        from lowshot_kedro.snca.original_checkpoints import read_original_checkpoint, require_images

    images: ClassFolders | LabeledList | None = None
    if options.images is not None:
        is_folder = options.images.is_dir()
        images = ClassFolders(options.images) if is_folder else LabeledList(options.images)
    checkpoint = read_original_checkpoint(options.checkpoint)
    # Both before either is written.
    network = checkpoint.network_file()
    if options.bank is not None:
        rows = checkpoint.bank_rows(images)
        HDF5FeaturesDataset(filepath=str(options.bank)).save(rows)
        print(f"{options.bank}: the bank of {rows.n_rows} images")
    elif images is not None:
        require_images(checkpoint, images)
    SafetensorsDataset(filepath=str(options.network)).save(network)
    print(f"{options.network}: {checkpoint.network}, {checkpoint.dimension} numbers for an image")


if __name__ == "__main__":
    sys.exit(main())
