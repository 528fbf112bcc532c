"""Whether what a run reads belongs together: features of one network, a graph over these vectors.

Pipelines run alone on what is on disk. Beside features, PCA, vectors, index and graph lies a note
of what each was made from; where one was made anew and another was not, figures would be wrong in a
table that looks right. What has no note, others have made, and it is used as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from lowshot_kedro.datasets.resumable import ResumableDataset
from lowshot_kedro.graph import describe_vectors
from lowshot_kedro.pca import describe_features, describe_transform
from lowshot_kedro.project.config import UserError
from lowshot_kedro.project.hooks import InvocationHooks


class _Origin(NamedTuple):
    """One of the results that another result was made from.

    Attributes:
        fact: The name that the note beside that other result has for it.
        source: The catalog entry.
        describe: Makes what the note says of the content of that entry.
    """

    fact: str
    source: str
    describe: Callable[[Any], Any]


_FEATURES = _Origin("features", "background_features", describe_features)
_VECTORS = _Origin("vectors", "background_vectors", describe_vectors)
_ORIGINS = {
    "pca_transform": [_FEATURES],
    "background_vectors": [_FEATURES, _Origin("transform", "pca_transform", describe_transform)],
    "background_index": [_VECTORS],
    "background_graph": [_VECTORS],
}
_COLLECTIONS = ("train_features", "test_features", "background_features")


class ProvenanceHooks(InvocationHooks):
    """Refuses to run on results that do not belong together."""

    @hook_impl(trylast=True)
    def before_pipeline_run(
        self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Compare the notes of the inputs with each other, and with the inputs themselves.

        Raises:
            UserError: Naming both, and the pipelines that make them fit.
        """
        read = pipeline.inputs()
        command = self._invocation(run_params).command
        for name, origins in _ORIGINS.items():
            provenance = _provenance(catalog, name) if name in read else {}
            for origin in origins if provenance else ():
                source = origin.source
                if source in pipeline.all_outputs() or not catalog.exists(source):
                    continue
                if provenance.get(origin.fact) != origin.describe(catalog.load(source)):
                    raise UserError(
                        f"{name}: was made from another {source} than is there now; make it with: "
                        f"{command(_maker_of(name))}"
                    )
        if {*_ORIGINS} & read:
            _require_one_network(catalog, pipeline, command)


def _require_one_network(
    catalog: DataCatalog, pipeline: Pipeline, command: Callable[[str | None], str]
) -> None:
    """Refuse labelled images whose features come from another network than the background's."""
    networks = {
        name: provenance.get("network")
        for name in _COLLECTIONS
        if name not in pipeline.all_outputs() and (provenance := _provenance(catalog, name))
    }
    if not networks:
        return
    first, *others = networks
    for name in others:
        if networks[name] != networks[first]:
            differing = _differing(networks[first], networks[name])
            raise UserError(
                f"{name}: made by another network than {first} ({differing}); make all of them "
                f"with: {command('features')}"
            )


def _differing(one: Any, other: Any) -> str:
    """The first fact in which two networks differ, with both values."""
    for fact in sorted({*one, *other}):
        if one.get(fact) != other.get(fact):
            return f"{fact} {other.get(fact)}, there {one.get(fact)}"
    return ""


def _provenance(catalog: DataCatalog, name: str) -> dict[str, Any]:
    """The note beside a result; nothing without one."""
    dataset: object = catalog.get(name)
    if not isinstance(dataset, ResumableDataset) or not catalog.exists(name):
        return {}
    return dataset.provenance() or {}


def _maker_of(name: str) -> str:
    return next(each for each in ("pca", "graph") if name in pipelines[each].all_outputs())
