"""Labels for a folder of images, by the pipeline `labeling` with the settings of the package."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowshot_kedro.errors import InputError
from lowshot_kedro.input_files import read_json
from lowshot_kedro.parameters import require_one_of
from lowshot_kedro.progress import LOOPS, shown_progress
from lowshot_kedro.project import PACKAGE, require_libraries
from lowshot_kedro.project.template import settings_folder

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

SHOWN = ("nothing", "progress", "everything")
_ENVIRONMENT = "own_images"
_FOLDER_VARIABLE = "IMAGES"
_LOGGING_VARIABLE = "KEDRO_LOGGING_CONFIG"


@dataclass(frozen=True)
class LabeledFolder:
    """What labelling a folder has written.

    Attributes:
        folder: The folder of the images.
        output: The folder of the results.
    """

    folder: Path
    output: Path

    @property
    def page(self) -> Path:
        """The page to look at the labels and correct them; any browser opens it."""
        return self.output / "labels.html"

    @property
    def labels(self) -> pd.DataFrame:
        """The labels of all images: file, label, confidence, margin, second_label and more."""
        return self._table("labels.csv")

    @property
    def next_to_label(self) -> pd.DataFrame:
        """Images whose labels would help most, the best first."""
        return self._table("next_to_label.csv")

    @property
    def suspicious_labels(self) -> pd.DataFrame:
        """Given labels that are probably wrong, most suspicious first."""
        return self._table("suspicious_labels.csv")

    @property
    def duplicates(self) -> pd.DataFrame:
        """Images that look the same, in groups."""
        return self._table("duplicates.csv")

    @property
    def report(self) -> dict[str, Any]:
        """What was chosen and why, and what is known of the accuracy."""
        found: dict[str, Any] = read_json(self.output / "labels_report.json")
        return found

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd

        # A class may be called NA, or 01.
        classes = ("label", "second_label", "guess", "perhaps", "suggested", "nearest_label")
        texts = (*classes, "file", "nearest_labeled", "given", "group")
        return pd.read_csv(
            self.output / name,
            keep_default_na=False,
            na_values={"n_steps": [""], "confidence": [""], "margin": [""]},
            dtype=dict.fromkeys(texts, str),
        )

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        sentence = self.report["calibration_sentence"]
        return f"{self.labels._repr_html_()}<p>{sentence}</p>"


def label_folder(
    folder: str | Path,
    labels: str | Path | Sequence[str | Path] | None = None,
    output: str | Path | None = None,
    *,
    show: str = "nothing",
    **parameters: Any,
) -> LabeledFolder:
    """Find labels for all images of a folder from the few that have one.

    Images of `folder/train` are labelled by the folders that they lie in, or images are labelled by
    a file; docs/own_images.md says what else is understood. Features and graph are kept below
    `output`, so that a second call with more labels takes seconds.

    Args:
        folder: The folder of the images.
        labels: A file of labels, or several, of which later ones go before earlier ones, and which
            `given_labels.csv` in `output` then holds together; None: labels.csv in the folder, if
            it is there.
        output: Where results go; None: the folder's name with -labels, where this runs.
        show: What is shown meanwhile: `nothing` but warnings, `progress` and a table at the end, or
            `everything` that a run of the pipeline logs.
        parameters: Parameters of the section `labeling` by name, such as `accuracy=0.95`; and
            other sections as mappings, such as `features={"image_size": 224}`.

    Returns:
        The tables, the report, and the page that it has written.

    Raises:
        ValueError: For a folder, labels or parameters that cannot be used, in one line.
        MissingLibraryError: Without the libraries of the pipelines.
    """
    require_one_of("show", show, SHOWN)
    require_libraries("labelling")
    here = Path.cwd()
    images = Path(folder).expanduser().absolute()
    if not images.is_dir():
        raise InputError(f"{folder}: no such folder; expected the folder of the images")
    given = [labels] if isinstance(labels, str | Path) else list(labels or ())
    for path in given:
        if not Path(path).expanduser().is_file():
            raise InputError(f"{path}: no such file; expected a file of labels")
    target = output_folder(images, None if output is None else Path(output).expanduser())
    sections: dict[str, Any] = {
        name: value for name, value in parameters.items() if isinstance(value, Mapping)
    }
    of_labeling = {name: value for name, value in parameters.items() if name not in sections}
    of_labeling = {**sections.get("labeling", {}), **of_labeling, "folder": str(target)}
    with _settings(images, target):
        if given:
            of_labeling["labels"] = str(_label_file(given, images, target, here))
        from kedro.framework.project import configure_project
        from kedro.framework.session import KedroSession

        # This sets up logging, whatever was said before.
        configure_project(PACKAGE)
        with (
            _shown(show),
            KedroSession.create(
                project_path=target,
                env=_ENVIRONMENT,
                conf_source=str(settings_folder()),
                runtime_params={**sections, "labeling": of_labeling},
            ) as session,
        ):
            session.run(pipeline_names=["labeling"])  # type: ignore[call-arg]
    return LabeledFolder(images, target)


def _label_file(given: Sequence[str | Path], images: Path, target: Path, here: Path) -> Path:
    """The file that has all labels of some files: the only one, or a new one.

    Args:
        given: The files, relative to the folder where the command was typed.
        images: The folder of the images.
        target: The folder of the results, where a new file goes.
        here: That first folder.
    """
    # These need libraries that a message is about where they are missing.
    from lowshot_kedro.images.label_files import LabelRow, read_label_file, write_label_file
    from lowshot_kedro.images.labeling_folder import LABELS_FILE

    paths = [here / Path(path).expanduser() for path in given]
    beside = images / LABELS_FILE
    if beside.is_file() and not any(path.resolve() == beside.resolve() for path in paths):
        logger.warning("%s: not read, since other files of labels are named", beside)
    # What is filled in there is kept where no run writes.
    is_list = paths[0].resolve() == (target / "next_to_label.csv").resolve()
    if len(paths) == 1 and not is_list:
        return paths[0]
    rows: dict[str, LabelRow] = {}
    for path in paths:
        for row in read_label_file(path).as_rows():
            # A list of what to label next says nothing where nothing was filled in.
            if row.label is not None or row.file not in rows:
                rows[row.file] = row
    written = target / "given_labels.csv"
    write_label_file(written, rows.values())
    return written


def output_folder(images: Path, given: Path | None) -> Path:
    """Where results go, absolute.

    Raises:
        ValueError: For a folder that is a file, or the folder of the images itself.
    """
    target = (Path.cwd() / f"{images.name}-labels" if given is None else given).absolute()
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: is a file; expected a folder for the results")
    # A name with `..` in it, or a link, leads to the same folder.
    if target.resolve() == images.resolve():
        raise InputError(f"{target}: is the folder of the images; expected another one for results")
    return target


@contextmanager
def _settings(images: Path, target: Path) -> Iterator[None]:
    """What Kedro finds in its surroundings while it runs in the folder of the results."""
    changed = {_FOLDER_VARIABLE: str(images)}
    # Read while Kedro is imported, from another folder than this one.
    logging_settings = os.environ.get(_LOGGING_VARIABLE) or settings_folder() / "logging.yml"
    changed[_LOGGING_VARIABLE] = str(Path(logging_settings).absolute())
    before = {name: os.environ.get(name) for name in changed}
    was_there = target.is_dir()
    here = Path.cwd()
    target.mkdir(parents=True, exist_ok=True)
    os.environ.update(changed)
    os.chdir(target)
    try:
        yield
    finally:
        os.chdir(here)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        # Nothing came of what was refused, but for empty folders.
        if not was_there and all(path.is_dir() for path in target.rglob("*")):
            shutil.rmtree(target)


@contextmanager
def _shown(what: str) -> Iterator[None]:
    """Let a run say what it does.

    Args:
        what: `nothing` but warnings; `progress` as well, and the result; or `everything`.
    """
    levels = {"nothing": {"kedro": logging.WARNING, PACKAGE: logging.WARNING}, "everything": {}}
    # What the folder was taken for is said in any case.
    said = (LOOPS, f"{PACKAGE}.datasets.labeling_images")
    levels["progress"] = {**levels["nothing"], **dict.fromkeys(said, logging.INFO)}
    before: dict[str, int] = {}
    with ExitStack() as stack:
        from lowshot_kedro.project.results import hidden_results

        if what == "nothing":
            stack.enter_context(shown_progress(False))
            stack.enter_context(hidden_results())

        try:
            for name, level in levels[what].items():
                before[name] = logging.getLogger(name).level
                logging.getLogger(name).setLevel(level)
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
