"""Which methods are compared, and why others are not."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

from lowshot_kedro.episodes.episode import View
from lowshot_kedro.episodes.methods import METHODS, EpisodeMethod, MethodOptions
from lowshot_kedro.errors import InputError, did_you_mean
from lowshot_kedro.extras import require

logger = logging.getLogger(__name__)

ALL = "all"


def chosen_methods(
    names: Sequence[str] | str,
    options: MethodOptions,
    views: Collection[View],
    *,
    says_why: bool = True,
) -> list[EpisodeMethod]:
    """The methods of some names, ready to classify.

    Args:
        names: Names in :data:`~lowshot_kedro.episodes.methods.METHODS`; `all`: those for which
            everything is at hand, a line of the log saying why others are left out.
        options: What all of them follow.
        views: The forms in which images are at hand; as a mapping from form to
            :class:`~lowshot_kedro.episodes.episode.RegionFeatures`, `all` leaves out methods for
            which there are too few regions, too.
        says_why: Whether the log says why methods are left out.

    Raises:
        InputError: For a name that is unknown, or whose library or form of images is missing.
    """
    if names != ALL:
        chosen = (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
        for name in chosen:
            _require_known(name)
            _require_at_hand(METHODS[name], views, is_named=True)
    else:
        chosen = tuple(name for name in METHODS if _is_worthwhile(METHODS[name], views, says_why))
    if not chosen:
        raise InputError("none of them has what it needs", parameter="methods", found=names)
    return [METHODS[name](options) for name in chosen]


def _require_known(name: str) -> None:
    if name not in METHODS:
        hint = did_you_mean(name, METHODS)
        expected = f"{ALL}, or some of: {', '.join(METHODS)}{hint}"
        raise InputError(parameter="methods", found=name, expected=expected)


def _is_worthwhile(method: type[EpisodeMethod], views: Collection[View], says_why: bool) -> bool:
    """Whether `all` means a method; the log can say why not."""
    try:
        _require_at_hand(method, views, is_named=False)
        why_left_out = method.why_left_out(views)
        reason = f"{method.name}: {why_left_out}" if why_left_out else ""
    except InputError as error:
        reason = str(error)
    if reason and says_why:
        # Names of extras are in brackets, which would be taken for markup of the terminal.
        logger.info("left out: %s", reason, extra={"markup": False})
    return not reason


def _require_at_hand(
    method: type[EpisodeMethod], views: Collection[View], *, is_named: bool
) -> None:
    """Refuse a method that lacks images in its form, or a library."""
    about: dict[str, Any] = {"parameter": "methods", "found": method.name} if is_named else {}
    missing = method.missing_view(views)
    if missing:
        raise InputError(missing if is_named else f"{method.name}: {missing}", **about)
    for module in method.needs:
        require(module, method.name, **about)
