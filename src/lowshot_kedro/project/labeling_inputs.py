"""What a labelling needs, and what it must not take away, before it begins."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from lowshot_kedro.errors import InputError
from lowshot_kedro.images import ImageSource, JoinedImages
from lowshot_kedro.images.label_files import read_label_file
from lowshot_kedro.labeling.exports.folder_tree import require_replaceable
from lowshot_kedro.labeling.given_labels import collect_labels
from lowshot_kedro.labeling.threshold import require_no_class
from lowshot_kedro.parameters import in_section
from lowshot_kedro.project.config import UserError
from lowshot_kedro.project.places import place_of

logger = logging.getLogger(__name__)


def require_labels(
    train_images: ImageSource, background_images: ImageSource, catalog: DataCatalog
) -> None:
    """Refuse labels that nothing can be learnt from, and say what is odd about others.

    Raises:
        ValueError: For labels that do not belong to the images, or are of fewer than two classes,
            or a class that is called as labels below the threshold are.
    """
    images = JoinedImages([train_images, background_images])
    given = collect_labels(images, images.class_names, catalog.load("label_file"))
    unknown = catalog.load("params:labeling").unknown
    in_section("labeling", lambda: require_no_class(unknown, given.classes))
    for note in given.notes:
        logger.warning("labels: %s", note)


def require_labels_kept(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Refuse to write results over the labels that people gave.

    Raises:
        UserError: If a result would take the place of the file of labels, under any of its names.
    """
    if "label_file" not in pipeline.inputs():
        return
    _require_typed_labels_kept(pipeline, catalog)
    _require_tree_of_ours(pipeline, catalog)
    given = Path(place_of(catalog, "label_file"))
    for name in sorted(pipeline.all_outputs()):
        place = place_of(catalog, name)
        if place is not None and os.path.realpath(place) == os.path.realpath(given):
            raise UserError(
                f"label_file: {given} is also where this run writes {name}, over the labels in it; "
                "expected labels elsewhere: copy the file, for instance beside the images"
            )


def _require_typed_labels_kept(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Refuse to write over labels that somebody typed into the list of what to label next.

    Raises:
        UserError: If there are any that the file of labels has not got.
    """
    if "next_to_label" not in pipeline.all_outputs() or not catalog.exists("next_to_label"):
        return
    path = Path(place_of(catalog, "next_to_label"))
    try:
        listed, given = read_label_file(path), catalog.load("label_file")
    except (OSError, InputError):
        return
    known = {} if given is None else dict(zip(given.files, given.labels, strict=True))
    typed = [
        (file, label)
        for file, label in zip(listed.files, listed.labels, strict=True)
        if label is not None and known.get(file) != label
    ]
    if typed:
        raise UserError(
            f"next_to_label: {path} has labels that somebody typed and the file of labels has not "
            f"({len(typed)}, such as {typed[0][0]}), and this run writes a new list; expected both "
            f"files: --labels labels.csv {path.name}"
        )


def _require_tree_of_ours(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Refuse to replace a folder of images that is not one that a run has written.

    Raises:
        UserError: If that is wanted.
    """
    if "labeled_folders" not in pipeline.inputs():
        return
    if catalog.load("params:labeling").folder_tree != "none":
        try:
            require_replaceable(catalog.load("labeled_folders"))
        except InputError as error:
            raise UserError(f"labeled_folders: {error}") from error
