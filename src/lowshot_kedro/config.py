"""How the files in conf/ are read: what may stand in `${…}`, and what is said when it fails."""

from __future__ import annotations

import os
from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf.errors import InterpolationResolutionError

from lowshot_kedro.errors import UserError

_PUBLISHED_STORED_K = 32
_PREFIX = "UserError raised while resolving interpolation: "


class ConfigLoader(OmegaConfigLoader):
    """Kedro's loader, which says in one line what cannot be resolved."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
        except InterpolationResolutionError as error:
            # The first line says what is wrong, the others which node of the tree it stands in.
            raise UserError(str(error).splitlines()[0].removeprefix(_PREFIX)) from error


def _environment_variable(name: str) -> str:
    """`${oc.env:NAME}`: the value of an environment variable."""
    value = os.environ.get(name)
    if not value:
        raise UserError(
            f"{name}: this environment variable is not set; expected the folder of the published "
            f"files, for instance: export {name}=/data/low-shot-diffusion"
        )
    return value


def _background_rows(n_background: int | None, unlabeled: str) -> int | None:
    """`${background_rows:…}`: none of the background where the unlabelled images are others."""
    return n_background if unlabeled == "background" else 0


def _stored_k(k: object) -> int:
    """`${stored_k:…}`: columns of a stored graph, the next power of two, at least the 32 published.

    A k that is no number is left for the check of the parameters to refuse.
    """
    columns = _PUBLISHED_STORED_K
    while isinstance(k, int) and columns < k:
        columns *= 2
    return columns


def _or_all(n_rows: int | None) -> str:
    """`${or_all:…}`: how a file name counts rows."""
    return "all" if n_rows is None else str(n_rows)


RESOLVERS = {
    "oc.env": _environment_variable,
    "background_rows": _background_rows,
    "stored_k": _stored_k,
    "or_all": _or_all,
}
