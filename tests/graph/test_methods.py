import re
import sys
from types import SimpleNamespace

import faiss
import pytest

from lowshot_kedro.errors import InputError
from lowshot_kedro.graph import (
    METHODS,
    background_graph,
    build_knn_graph,
    index_in_memory,
    methods,
    neighbor_descent,
    require_method,
)
from lowshot_kedro.graph.methods import choose_method, is_factory_string

from .truth import random_vectors


@pytest.mark.parametrize("method", [*METHODS, "Flat", "IVF4096,Flat", "HNSW32", "PCA8,IVF16,Flat"])
def test_methods_and_descriptions_for_faiss_are_accepted(method):
    require_method(method, 16)


@pytest.mark.parametrize("method", ["hnsw", "IVF", "exakt", "IVF16,PQ3"])
def test_anything_else_is_refused(method):
    message = (
        f"method: got {method!r}, expected one of: auto, exact, ivf, descent, pynndescent; or "
        "a description for faiss.index_factory such as IVF4096,Flat or HNSW32 (for 16 columns)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        require_method(method, 16)


def test_a_description_must_fit_the_columns():
    require_method("IVF16,PQ3", 15)
    with pytest.raises(ValueError, match=r"^method: got 'IVF16,PQ3', .* \(for 16 columns\)$"):
        require_method("IVF16,PQ3", 16)


@pytest.mark.parametrize("method", METHODS)
def test_names_are_no_descriptions(method):
    assert not is_factory_string(method)
    assert is_factory_string(f"{method},Flat")


@pytest.mark.parametrize(("n_vectors", "chosen"), [(199_999, "exact"), (200_000, "descent")])
def test_with_a_gpu_more_vectors_are_compared(n_vectors, chosen, monkeypatch):
    monkeypatch.setattr(methods, "n_gpus", lambda: 1)
    assert choose_method("auto", n_vectors) == chosen


@pytest.mark.parametrize(
    ("n_vectors", "chosen"),
    [(0, "exact"), (19_999, "exact"), (20_000, "descent"), (10**9, "descent")],
)
def test_auto_is_exact_for_few_vectors_and_descent_for_many(n_vectors, chosen):
    assert choose_method("auto", n_vectors) == chosen


@pytest.mark.parametrize("method", ["exact", "ivf", "descent", "pynndescent", "HNSW32"])
@pytest.mark.parametrize("n_vectors", [0, 10**9])
def test_other_methods_stand_for_themselves(method, n_vectors):
    assert choose_method(method, n_vectors) == method


@pytest.mark.parametrize(
    ("n", "kind", "method"),
    [(99, faiss.IndexFlat, "exact"), (100, faiss.IndexIVFFlat, "descent")],
)
def test_auto_decides_about_index_and_graph_alike(monkeypatch, n, kind, method):
    monkeypatch.setattr(methods, "EXACT_BELOW", 100)
    vectors = random_vectors(n)
    index = index_in_memory(vectors, "auto")
    assert isinstance(index, kind)
    assert background_graph(index, vectors, 4).provenance["method"] == method


@pytest.mark.parametrize(
    ("layer", "is_refused"), [("omp", True), ("workqueue", False), ("", False)]
)
def test_pynndescent_after_a_fork(monkeypatch, layer, is_refused):
    """Numba ends a process that was forked after its threads of OpenMP had begun."""

    def threading_layer():
        if not layer:
            raise ValueError("Threading layer is not initialized.")
        return layer

    forked = neighbor_descent._ForkedProcess()
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "numba", SimpleNamespace(threading_layer=threading_layer))
        forked._look()
    assert forked.has_lost_threads == is_refused
    monkeypatch.setattr(neighbor_descent, "_forked", forked)
    monkeypatch.setattr(neighbor_descent, "_search", lambda *_: pytest.fail("it works"))
    message = "pynndescent cannot be used in this process" if is_refused else "it works"
    kind = ValueError if is_refused else pytest.fail.Exception
    with pytest.raises(kind, match=message):
        build_knn_graph(random_vectors(30, 4), 3, method="pynndescent")


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemError])
def test_a_signal_during_pynndescent(monkeypatch, raised):
    def search(*_, **__):
        try:
            raise raised("here")
        except raised as error:
            raise SystemError("a function returned a result with an exception set") from error

    monkeypatch.setitem(sys.modules, "pynndescent", SimpleNamespace(NNDescent=search))
    with pytest.raises(raised, match=r"^here$"):
        build_knn_graph(random_vectors(30, 4), 3, method="pynndescent")


# With leading zeros faiss would make small indexes of them.
@pytest.mark.parametrize(
    "method", ["IVF000000004,Flat", "HNSW" + "0" * 39 + "8", "PCA0000000008,Flat"]
)
def test_a_description_with_a_number_of_many_digits_is_not_tried(method, monkeypatch):
    monkeypatch.setattr(faiss, "index_factory", None)
    with pytest.raises(InputError, match=r"method: got '.*', expected one of: auto"):
        require_method(method, 16)


@pytest.mark.parametrize("description", ["Flat", "IVF4,Flat", "HNSW8"])
def test_a_graph_is_not_made_with_an_index_of_distances(description):
    vectors = random_vectors(100, 16)
    index = faiss.index_factory(16, description, faiss.METRIC_L2)
    index.train(vectors)
    index.add(vectors)
    with pytest.raises(InputError, match=r"^background_index: .* METRIC_INNER_PRODUCT"):
        background_graph(index, vectors, 4)


def test_a_graph_is_not_made_with_an_untrained_index():
    vectors = random_vectors(100, 16)
    index = faiss.index_factory(16, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT)
    index.ntotal = 100
    with pytest.raises(InputError, match=r"^background_index: a IndexIVFFlat .* not trained"):
        background_graph(index, vectors, 4)
