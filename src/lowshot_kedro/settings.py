"""Kedro's settings of this project: https://docs.kedro.org/en/stable/configure/."""

import os

from lowshot_kedro.hooks import ErrorHooks, InputHooks, ParameterHooks, ResourceHooks

_PUBLISHED_STORED_K = 32


def _environment_variable(name: str) -> str:
    """The value of an environment variable, in configuration as `${oc.env:NAME}`."""
    value = os.environ.get(name)
    if not value:
        raise ValueError(
            f"the environment variable {name} is not set; expected the folder of the published "
            f"files, for instance: export {name}=/data/low-shot-diffusion"
        )
    return value


def _background_rows(n_background: int | None, unlabeled: str) -> int | None:
    """Background images that a run uses: none where the unlabelled images are others."""
    return n_background if unlabeled == "background" else 0


def _stored_k(k: int) -> int:
    """Columns of a stored graph: the next power of two, at least the 32 that are published."""
    columns = _PUBLISHED_STORED_K
    while columns < k:
        columns *= 2
    return columns


def _or_all(n_rows: int | None) -> str:
    """How a file name counts rows."""
    return "all" if n_rows is None else str(n_rows)


HOOKS = (ErrorHooks(), ParameterHooks(), InputHooks(), ResourceHooks())

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # An environment states what differs from conf/base, not whole sections.
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
    "custom_resolvers": {
        "oc.env": _environment_variable,
        "background_rows": _background_rows,
        "stored_k": _stored_k,
        "or_all": _or_all,
    },
}
