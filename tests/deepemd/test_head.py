"""The head beside the original's outcomes, finite differences and a linear-programming solver."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lowshot_kedro.deepemd import emd_logits, head
from lowshot_kedro.deepemd.head import cross_reference_weights, match
from lowshot_kedro.errors import InputError
from tests.deepemd.features import episode, query_labels, random_maps, reference
from tests.deepemd.linear_programs import least_cost
from tests.deepemd.solver_names import installed

SMALL, BIG = (11, 64, 3), (10, 640, 5)


def loss_and_gradients(
    queries: torch.Tensor, prototypes: torch.Tensor, labels: torch.Tensor, solver: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, mean cross-entropy, and its gradients with respect to prototypes and queries."""
    queries, prototypes = (maps.clone().requires_grad_() for maps in (queries, prototypes))
    logits = emd_logits(queries, prototypes, solver=solver)
    loss = functional.cross_entropy(logits, labels)
    return logits.detach(), loss.detach(), *torch.autograd.grad(loss, (prototypes, queries))


@pytest.mark.parametrize(("name", "seed", "n_channels", "side"), [("small", *SMALL), ("big", *BIG)])
def test_weights_are_those_of_the_original(
    name: str, seed: int, n_channels: int, side: int
) -> None:
    support, queries = episode(seed, n_channels, side)
    ends = [support.double().sum(), queries.double().sum(), support.ravel()[0], queries.ravel()[-1]]
    np.testing.assert_allclose(ends, reference()[f"{name}_in_check"], rtol=1e-6)
    of_queries, of_prototypes = cross_reference_weights(queries, support)
    expected = reference()[f"{name}_w_query"]
    np.testing.assert_allclose(of_queries, expected, rtol=1e-5, atol=1e-5)
    expected = reference()[f"{name}_w_proto"]
    np.testing.assert_allclose(of_prototypes.transpose(0, 1), expected, rtol=1e-5, atol=1e-5)


# The original's logits are float32, and QPTH stops where it does not improve.
@pytest.mark.parametrize(
    ("solver", "name", "dtype", "of_logits", "of_gradients"),
    [
        ("native", "exact", torch.float64, 1e-12, 2e-7),
        ("pot", "exact", torch.float64, 1e-12, 2e-7),
        ("native", "exact", torch.float32, 5e-6, 5e-6),
        ("opencv", "opencv", torch.float32, 5e-6, 5e-6),
        ("qpth", "qpth_L2_1e-06", torch.float32, 1e-3, 5e-4),
        ("qpth_qp", "qpth_QP", torch.float64, 2e-4, 5e-4),
    ],
)
def test_logits_and_gradients_are_those_of_the_original(
    solver: str, name: str, dtype: torch.dtype, of_logits: float, of_gradients: float
) -> None:
    support, queries = episode(*SMALL)
    logits, loss, of_support, of_queries = loss_and_gradients(
        queries.to(dtype), support.to(dtype), query_labels(), installed(solver)
    )
    expected = {
        key.removeprefix(f"small_{name}_"): value
        for key, value in reference().items()
        if key.startswith(f"small_{name}_")
    }
    assert logits.dtype == of_support.dtype == of_queries.dtype == dtype
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=of_logits)
    assert float(loss) == pytest.approx(float(expected["loss"]), rel=of_logits)
    norms = [float(of_support.norm()), float(of_queries.norm())]
    np.testing.assert_allclose(norms, expected["grad_norms"], rtol=max(of_gradients / 10, 1e-6))
    largest = np.abs(expected["grad_support"]).max()
    np.testing.assert_allclose(
        of_support, expected["grad_support"], rtol=0, atol=of_gradients * largest
    )
    if "grad_query" in expected:
        largest = np.abs(expected["grad_query"]).max()
        np.testing.assert_allclose(
            of_queries, expected["grad_query"], rtol=0, atol=of_gradients * largest
        )


def test_matches_are_those_of_the_original() -> None:
    support, queries = episode(*SMALL)
    found = match(queries, support, solver=installed("opencv"))
    np.testing.assert_allclose(found.similarities, reference()["small_sim"], atol=1e-6)
    np.testing.assert_allclose(found.flow[:2], reference()["small_flow_first2"], atol=1e-5)
    scores = (found.flow * found.similarities).sum((2, 3))
    np.testing.assert_allclose(scores, reference()["small_score_unscaled"], atol=1e-5)
    mean_cost = 1 - found.logits / 12.5
    np.testing.assert_allclose(mean_cost, reference()["small_cv_cost"], atol=1e-6)


@pytest.mark.parametrize(("n", "m"), [((2, 3), (2, 2)), ((1, 1), (2, 3)), ((3, 1), (1, 1))])
def test_maps_of_different_sizes(n: tuple[int, int], m: tuple[int, int]) -> None:
    queries, prototypes = random_maps(0, 2, 6, *n), random_maps(1, 3, 6, *m)
    found = match(queries, prototypes, temperature=2.0)
    n_nodes = queries[0, 0].numel()
    weights = cross_reference_weights(queries, prototypes)
    for side, raw in zip((found.query_weights, found.prototype_weights), weights, strict=True):
        np.testing.assert_allclose(side, n_nodes * raw / raw.sum(2, keepdim=True), rtol=1e-12)
    np.testing.assert_allclose(found.flow.sum(3), found.query_weights, atol=1e-12)
    np.testing.assert_allclose(found.flow.sum(2), found.prototype_weights, atol=1e-12)
    for query in range(2):
        for prototype in range(3):
            left, right = (
                maps[index].flatten(1)
                for maps, index in ((queries, query), (prototypes, prototype))
            )
            left, right = (nodes - nodes.mean(0) for nodes in (left, right))
            cosines = functional.cosine_similarity(left[:, :, None], right[:, None, :], dim=0)
            cost = least_cost(
                1 - cosines.numpy(),
                found.query_weights[query, prototype].numpy(),
                found.prototype_weights[query, prototype].numpy(),
            )
            expected = 2.0 * (1 - cost / n_nodes)
            assert float(found.logits[query, prototype]) == pytest.approx(expected, rel=1e-9)
    logits = emd_logits(queries, prototypes, temperature=2.0)
    np.testing.assert_allclose(logits, found.logits, rtol=1e-12)


@pytest.mark.parametrize("solver", ["native", "pot"])
def test_gradients_are_those_of_finite_differences(solver: str) -> None:
    queries, prototypes = random_maps(2, 2, 7, 2, 2), random_maps(3, 3, 7, 1, 3)
    name = installed(solver)
    assert torch.autograd.gradcheck(
        lambda *maps: emd_logits(*maps, solver=name),
        (queries.requires_grad_(), prototypes.requires_grad_()),
        eps=1e-6,
        atol=1e-6,
        rtol=1e-6,
    )


def test_gradients_of_many_channels_are_those_of_finite_differences() -> None:
    support, queries = (maps.double() for maps in episode(*BIG))
    queries, labels = queries[:2], query_labels()[:2]
    _, _, *gradients = loss_and_gradients(queries, support, labels, "native")
    # Larger steps change which flows are cheapest.
    step = 1e-6
    for number, (maps, gradient) in enumerate(zip((support, queries), gradients, strict=True)):
        direction = random_maps(4 + number, *maps.shape) - 0.5
        values = []
        for sign in (1, -1):
            moved = [queries, support]
            moved[1 - number] = maps + sign * step * direction
            values.append(functional.cross_entropy(emd_logits(*moved), labels))
        difference = float(values[0] - values[1]) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize("solver", ["native", "qpth"])
def test_there_is_no_second_derivative(solver: str) -> None:
    queries, prototypes = random_maps(0, 1, 4, 1, 2), random_maps(1, 2, 4, 1, 2)
    queries.requires_grad_()
    score = emd_logits(queries, prototypes, solver=installed(solver))[0, 0]
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(score, queries, create_graph=True)


@pytest.mark.parametrize("requires_grad", [(True, False), (False, True)])
@pytest.mark.parametrize("solver", ["native", "opencv", "qpth"])
def test_one_side_may_have_no_gradient(solver: str, requires_grad: tuple[bool, bool]) -> None:
    maps = [random_maps(0, 2, 4, 1, 2), random_maps(1, 2, 4, 2, 1)]
    both = [side.clone().requires_grad_() for side in maps]
    some = [side.requires_grad_(needed) for side, needed in zip(maps, requires_grad, strict=True)]
    emd_logits(both[0], both[1], solver=installed(solver)).sum().backward()
    emd_logits(some[0], some[1], solver=solver).sum().backward()
    for side, expected, needed in zip(some, both, requires_grad, strict=True):
        if needed:
            np.testing.assert_allclose(side.grad, expected.grad, rtol=1e-6, atol=1e-9)
        else:
            assert side.grad is None


def test_nothing_is_kept_for_gradients_where_they_are_off() -> None:
    maps = [random_maps(seed, 2, 4, 1, 2).requires_grad_() for seed in (0, 1)]
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.no_grad():
            emd_logits(*maps)
        assert not kept
        emd_logits(*maps)
        assert kept


def test_threads_change_nothing() -> None:
    queries, prototypes = random_maps(0, 7, 128, 3, 3).float(), random_maps(1, 5, 128, 3, 3).float()
    before = torch.get_num_threads()
    found = []
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            found.append(
                (
                    *loss_and_gradients(queries, prototypes, torch.arange(7) % 5, "native"),
                    *match(queries, prototypes),
                )
            )
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    for one, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one, three)


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    support, queries = episode(*SMALL)
    arguments = (queries.double(), support.double(), query_labels(), "native")
    together, matched = loss_and_gradients(*arguments), match(queries, support)
    monkeypatch.setattr(head, "_BLOCK_NODE_PAIRS", 4 * 5 * 81)
    for found, expected in zip(loss_and_gradients(*arguments), together, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    for found, expected in zip(match(queries, support), matched, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_zeros_have_no_direction() -> None:
    queries, prototypes = random_maps(0, 3, 4, 2, 2), random_maps(1, 2, 4, 2, 2)
    queries[0] = 0
    queries[1, :, 0, 0] = 3.0
    prototypes[0, :, 1, 1] = 0
    maps = (queries.float().requires_grad_(), prototypes.float().requires_grad_())
    logits = emd_logits(*maps)
    assert logits[0].tolist() == [0, 0]
    logits.sum().backward()
    for side in maps:
        assert side.grad is not None
        assert float(side.grad.abs().max()) < 1e3


def test_short_nodes_are_those_of_torch() -> None:
    queries, prototypes = random_maps(0, 1, 4, 1, 1), random_maps(1, 1, 4, 1, 1)
    for length in (1e-9, 1e-7):
        left, right = (
            length * side[:, :, 0, 0] / (side - side.mean(1, keepdim=True)).norm()
            for side in (queries, prototypes)
        )
        expected = functional.cosine_similarity(
            left - left.mean(1, keepdim=True), right - right.mean(1, keepdim=True)
        )
        logits = emd_logits(left[:, :, None, None], right[:, :, None, None], temperature=1)
        np.testing.assert_allclose(logits[0], expected, rtol=1e-9)


class _LargestTensor(TorchDispatchMode):
    """The elements of the largest tensor that is made."""

    largest = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        made = function(*arguments, **(keywords or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.largest = max(self.largest, leaf.untyped_storage().nbytes() // 8)
        return made


def test_no_tensor_holds_channels_of_every_pair_of_nodes() -> None:
    support, queries = random_maps(0, 5, 64, 3, 3), random_maps(1, 15, 64, 3, 3)
    for maps in (support, queries):
        maps.requires_grad_()

    def largest(make: Any) -> int:
        with _LargestTensor() as mode:
            make().sum().backward()
        return mode.largest

    def with_the_full_tensor() -> torch.Tensor:
        left, right = (
            (maps - maps.mean(1, keepdim=True)).flatten(2).transpose(1, 2)
            for maps in (queries, support)
        )
        cosines = functional.cosine_similarity(
            left[:, None, :, None], right[None, :, None, :], dim=4
        )
        return cosines

    n_pairs = 15 * 5 * 9 * 9
    assert largest(with_the_full_tensor) >= 64 * n_pairs
    assert largest(lambda: emd_logits(queries, support)) <= 15 * 9 * 64


def bad_inputs() -> Iterator[Any]:
    good = torch.rand(2, 4, 2, 2)
    nan, infinite = good.clone(), good.clone()
    nan[1, 2, 0, 1] = torch.nan
    infinite[0, 0, 0, 0] = torch.inf
    expected = "expected a shape (images, channels, height, width), at least 1 of each"
    yield good[0], good, f"queries: got (4, 2, 2), {expected}"
    yield good, good[:0], f"prototypes: got (0, 4, 2, 2), {expected}"
    yield good, good[:, :3], "prototypes: got 3, expected the channels of the queries, 4"
    yield nan, good, "queries: holds NaN or infinite numbers"
    yield good, infinite, "prototypes: holds NaN or infinite numbers"
    yield (
        good.double(),
        good,
        ("prototypes: got torch.float32, expected the type of the queries, torch.float64"),
    )
    yield good.half(), good, "queries: got torch.float16, expected float32 or float64"
    yield good.numpy(), good, "queries: got 'ndarray', expected a torch.Tensor"
    yield 1e30 * good, 1e30 * good, "queries: holds numbers whose products are too large"
    elsewhere = good.to("meta")
    yield good, elsewhere, "prototypes: got 'meta', expected the device of the queries, cpu"


@pytest.mark.parametrize(("queries", "prototypes", "message"), list(bad_inputs()))
def test_maps_that_cannot_be_compared(queries: Any, prototypes: Any, message: str) -> None:
    for function in (emd_logits, match):
        with pytest.raises(InputError) as caught:
            function(queries, prototypes)
        assert str(caught.value) == message


def test_a_temperature_that_is_none() -> None:
    maps = torch.rand(1, 2, 1, 1)
    with pytest.raises(InputError, match=r"^temperature: got -1"):
        emd_logits(maps, maps, temperature=-1)
