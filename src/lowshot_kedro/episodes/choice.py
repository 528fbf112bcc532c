"""Which methods are compared, and why others are not."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from lowshot_kedro.episodes.episode import View
from lowshot_kedro.episodes.methods import METHODS, EpisodeMethod, MethodOptions
from lowshot_kedro.errors import InputError, did_you_mean
from lowshot_kedro.extras import MissingLibraryError, require

logger = logging.getLogger(__name__)

ALL = "all"


def chosen_methods(
    names: Sequence[str] | str, options: MethodOptions, views: Collection[View]
) -> list[EpisodeMethod]:
    """The methods of some names, ready to classify.

    Args:
        names: Names in :data:`~lowshot_kedro.episodes.methods.METHODS`; `all`: those for which
            everything is at hand, a line of the log saying why others are left out.
        options: What all of them follow.
        views: The forms in which images are at hand; as a mapping from form to
            :class:`~lowshot_kedro.episodes.episode.RegionFeatures`, `all` leaves out methods for
            which there are too few regions, too.

    Raises:
        InputError: For a name that is unknown, or whose library or form of images is missing.
    """
    if names != ALL:
        wanted = (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
        return [_named(name, options, views) for name in wanted]
    chosen = []
    for name, method in METHODS.items():
        try:
            made = _named(name, options, views)
        except MissingLibraryError as error:
            reason = str(error)
        except _NoSuchViewError as error:
            reason = str(error)
        else:
            reason = method.why_left_out(views)
        if reason:
            logger.info("%s is left out: %s", name, reason)
        else:
            chosen.append(made)
    if not chosen:
        raise InputError("there is nothing that any of them could do", parameter="methods")
    return chosen


class _NoSuchViewError(InputError):
    """Images are not at hand in the form that a method looks at."""


def _named(name: str, options: MethodOptions, views: Collection[View]) -> EpisodeMethod:
    if name not in METHODS:
        hint = did_you_mean(name, METHODS)
        raise InputError(
            parameter="methods",
            found=name,
            expected=f"{ALL}, or some of: {', '.join(METHODS)}{hint}",
        )
    method = METHODS[name]
    if method.view not in views:
        raise _NoSuchViewError(
            f"it looks at the view {method.view} of images, and there is "
            f"{', '.join(views) or 'none'} alone",
            parameter="methods",
            found=name,
        )
    for module in method.needs:
        require(module, parameter="methods", found=name)
    return method(options)
