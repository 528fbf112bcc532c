"""Kedro's settings of this project: https://docs.kedro.org/en/stable/configure/."""

from lowshot_kedro.project.config import RESOLVERS, ConfigLoader
from lowshot_kedro.project.dataset_statistics import StatisticsHooks
from lowshot_kedro.project.hooks import (
    ClaimHooks,
    ErrorHooks,
    InputHooks,
    ParameterHooks,
    ResourceHooks,
    Session,
    WorkerHooks,
)
from lowshot_kedro.project.provenance import ProvenanceHooks
from lowshot_kedro.project.results import ResultHooks
from lowshot_kedro.project.telemetry import TelemetryHooks

HOOKS = (
    TelemetryHooks(),
    ErrorHooks(),
    ParameterHooks(),
    InputHooks(),
    ProvenanceHooks(),
    ClaimHooks(),
    ResourceHooks(),
    StatisticsHooks(),
    WorkerHooks(),
    ResultHooks(),
)

SESSION_CLASS = Session

CONFIG_LOADER_CLASS = ConfigLoader

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # An environment states what differs from conf/base, not whole sections.
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
    "custom_resolvers": RESOLVERS,
}
