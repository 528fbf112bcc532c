"""Prototypes of several images beside the original's outcomes, and beside torch's optimiser."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from lowshot_kedro import native
from lowshot_kedro.deepemd import emd_logits, structured_prototypes
from lowshot_kedro.deepemd.solvers import NativeSolver, Solver, Transport
from lowshot_kedro.deepemd.structured_layer import StructuredLayer
from lowshot_kedro.errors import InputError
from lowshot_kedro.interruption import Stopped, stopping_at
from tests.deepemd.features import N_WAY, episode_with_shots, random_maps, reference
from tests.deepemd.solver_names import installed


class WithoutPotentials(NativeSolver):
    """Flows alone, so that weights are constant in gradients."""

    def solve(self, *problems: Any) -> Transport:
        return Transport(super().solve(*problems).flow)


def by_torch(
    support: torch.Tensor, n_way: int, layer: StructuredLayer, generator: torch.Generator
) -> torch.Tensor:
    """The same prototypes by autograd and torch's optimiser."""
    n_shot = len(support) // n_way
    labels = torch.arange(n_way).repeat(n_shot)
    start = support.reshape(n_shot, n_way, *support.shape[1:]).mean(0)
    prototypes = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([prototypes], lr=layer.lr, momentum=0.9, dampening=0.9)
    for _ in range(layer.n_passes):
        for batch in torch.randperm(len(support), generator=generator).split(layer.batch_size):
            optimizer.zero_grad()
            logits = emd_logits(
                support[batch], prototypes, temperature=layer.temperature,
                solver=WithoutPotentials(),
            )  # fmt: skip
            functional.cross_entropy(logits, labels[batch]).backward()
            optimizer.step()
    return prototypes.detach()


@pytest.mark.parametrize(
    ("lr", "n_passes", "solver"),
    [(0.1, 10, "opencv"), (100, 1, "native"), (100, 10, "native"), (100, 10, "opencv")],
)
def test_prototypes_are_those_of_the_original(lr: float, n_passes: int, solver: str) -> None:
    support, queries = episode_with_shots()
    torch.manual_seed(5)
    prototypes = structured_prototypes(
        support, N_WAY, 5, lr=lr, n_passes=n_passes, solver=installed(solver)
    )
    name = f"sfc_lr{lr}_steps{n_passes}_"
    np.testing.assert_allclose(prototypes[:, :32], reference()[f"{name}c0_32"], atol=1e-5)
    assert float(prototypes.norm()) == pytest.approx(float(reference()[f"{name}norm"]), rel=1e-6)
    logits = emd_logits(queries, prototypes, solver=solver)
    np.testing.assert_allclose(logits, reference()[f"{name}logits"], atol=1e-4)


def test_all_passes_give_about_the_same_by_any_exact_solver() -> None:
    support, queries = episode_with_shots()
    logits = []
    for solver in ("native", installed("opencv")):
        torch.manual_seed(5)
        prototypes = structured_prototypes(support, N_WAY, 5, solver=solver)
        logits.append(emd_logits(queries, prototypes))
    np.testing.assert_allclose(logits[0], logits[1], atol=2e-3)


@pytest.mark.parametrize("solver", ["pot", "qpth", "qpth_qp"])
def test_other_solvers_give_about_the_same(solver: str) -> None:
    support = random_maps(0, 6, 8, 1, 3)
    found, expected = (
        StructuredLayer(lr=1.0, n_passes=2, solver=name).prototypes(
            support, 3, 2, torch.Generator().manual_seed(0)
        )
        for name in (installed(solver), "native")
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_it_begins_with_the_mean() -> None:
    support, _ = episode_with_shots()
    prototypes = structured_prototypes(support, N_WAY, 5, n_passes=0)
    np.testing.assert_allclose(
        prototypes[:, :32], reference()["sfc_mean_init_c0_32"], rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize(
    ("n_way", "n_shot", "shape", "layer"),
    [
        (3, 3, (6, 2, 2), StructuredLayer(lr=5.0, n_passes=4, batch_size=4)),
        (2, 2, (5, 1, 3), StructuredLayer(lr=1.0, n_passes=6, batch_size=1, temperature=3.0)),
        (4, 2, (3, 1, 1), StructuredLayer(lr=2.0, n_passes=3, batch_size=20)),
    ],
)
def test_steps_are_those_of_autograd(
    n_way: int, n_shot: int, shape: tuple[int, ...], layer: StructuredLayer
) -> None:
    support = random_maps(0, n_way * n_shot, *shape)
    found = layer.prototypes(support, n_way, n_shot, torch.Generator().manual_seed(3))
    expected = by_torch(support, n_way, layer, torch.Generator().manual_seed(3))
    assert float((expected - support.reshape(n_shot, n_way, *shape).mean(0)).abs().max()) > 1e-2
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


def test_nodes_without_a_direction_stay_as_they_are() -> None:
    support = random_maps(0, 6, 5, 2, 2)
    support[::3, :, 0, 0] = 0
    support[4, :, 1, 0] = 2.0
    layer = StructuredLayer(lr=5.0, n_passes=3)
    found = layer.prototypes(support, 3, 2, torch.Generator().manual_seed(3))
    expected = by_torch(support, 3, layer, torch.Generator().manual_seed(3))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)
    assert found[0, :, 0, 0].abs().max() == 0


@pytest.mark.parametrize(("n_way", "n_shot"), [(4, 1), (1, 4)])
def test_where_there_is_nothing_to_learn_prototypes_are_means(n_way: int, n_shot: int) -> None:
    support = random_maps(0, 4, 5, 2, 2).requires_grad_()
    prototypes = structured_prototypes(support, n_way, n_shot)
    assert not prototypes.requires_grad
    expected = support.detach().reshape(n_shot, n_way, 5, 2, 2).mean(0)
    np.testing.assert_array_equal(prototypes, expected)


def test_support_images_are_left_alone_and_get_no_gradient() -> None:
    support = random_maps(0, 4, 5, 2, 2).float().requires_grad_()
    before = support.detach().clone()
    prototypes = structured_prototypes(support, 2, 2, n_passes=3)
    assert (prototypes.dtype, prototypes.requires_grad) == (torch.float32, False)
    np.testing.assert_array_equal(support.detach(), before)


def test_a_generator_of_ones_own_leaves_that_of_torch_alone() -> None:
    support = random_maps(0, 4, 5, 2, 2)
    state = torch.get_rng_state()
    first, second = (
        structured_prototypes(support, 2, 2, n_passes=3, generator=torch.Generator().manual_seed(1))
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    other = structured_prototypes(
        support, 2, 2, n_passes=3, generator=torch.Generator().manual_seed(2)
    )
    assert not torch.equal(first, other)


def test_threads_change_nothing() -> None:
    support, _ = episode_with_shots()
    before = native.get_num_threads(), torch.get_num_threads()
    found = []
    try:
        for n_threads in (1, 2):
            native.set_num_threads(n_threads)
            torch.set_num_threads(n_threads)
            solver = NativeSolver(n_jobs=n_threads)
            generator = torch.Generator().manual_seed(0)
            found.append(
                structured_prototypes(
                    support, N_WAY, 5, n_passes=2, generator=generator, solver=solver
                )
            )
    finally:
        native.set_num_threads(before[0])
        torch.set_num_threads(before[1])
    np.testing.assert_array_equal(*found)


def test_it_can_be_stopped() -> None:
    support, _ = episode_with_shots()
    event = threading.Event()

    class Stopping(NativeSolver):
        def solve(self, *problems: Any) -> Transport:
            event.set()
            return super().solve(*problems)

    solver: Solver = Stopping()
    with stopping_at(event), pytest.raises(Stopped):
        structured_prototypes(support, N_WAY, 5, n_passes=2, solver=solver)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_way": 3}, "support: got 4, images of 3 classes with 2 each; expected 6"),
        ({"n_way": 0}, "n_way: got 0"),
        ({"n_shot": 1.5}, "n_shot: got 1.5"),
        ({"support": torch.rand(4, 5, 2)}, r"support: got \(4, 5, 2\), expected a shape"),
        ({"support": torch.full((4, 5, 2, 2), torch.nan)}, "support: holds NaN"),
        (
            {"support": 1e30 * random_maps(0, 4, 5, 2, 2).float()},
            "support: holds numbers whose products are too large",
        ),
        ({"lr": -1}, "lr: got -1"),
        (
            {"lr": 1e18, "support": 1e-4 * random_maps(0, 4, 5, 2, 2).float()},
            r"lr: got 1e\+18, makes prototypes too large for their precision",
        ),
        ({"n_passes": -1}, "n_passes: got -1"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"solver": "nativ"}, "solver: got 'nativ'"),
    ],
)
def test_input_that_cannot_be_used(changes: dict[str, Any], message: str) -> None:
    arguments = {"support": random_maps(0, 4, 5, 2, 2).float(), "n_way": 2, "n_shot": 2}
    with pytest.raises(InputError, match=f"^{message}"):
        structured_prototypes(**{**arguments, **changes})
