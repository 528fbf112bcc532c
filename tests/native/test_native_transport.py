"""Transport problems. Potentials that no cost undercuts and that flows attain prove an optimum."""

import re

import numpy as np
import pytest

from lowshot_kedro import native
from lowshot_kedro.native._library import lib

from .hostile import BAD_SIZE, HUGE, NULL, OK, direct, require_refusals, structure

# What rounding may change, as a part of the numbers that are added up.
ROUNDING = 1e-14


def random_costs(rng, shape):
    """Costs of every kind: even, with ties, all the same, of both signs, of very different size."""
    kind = rng.integers(7)
    if kind == 0:
        return rng.random(shape)
    if kind == 1:
        return rng.integers(0, 3, shape).astype(float)
    if kind == 2:
        return np.full(shape, rng.normal())
    if kind == 3:
        return 10.0 ** rng.uniform(-12, 12, shape) * rng.choice([-1, 1], shape)
    if kind == 4:
        return 1e8 + rng.random(shape)
    if kind == 5:
        sums = rng.integers(-5, 6, (*shape[:2], 1)) + rng.integers(-5, 6, (shape[0], 1, shape[2]))
        return sums + 1.0 * (rng.random(shape) < 0.2)
    points = rng.random((2, shape[0], max(shape[1:]), 2))
    differences = points[0, :, : shape[1], None] - points[1, :, None, : shape[2]]
    return np.sqrt((differences**2).sum(-1))


def random_weights(rng, shape, kind):
    """Weights: even, equal, small integers, some of them 0, one huge, of very different size."""
    weights = (
        rng.random(shape) + 1e-3,
        np.ones(shape),
        rng.integers(0, 4, shape).astype(float),
        rng.random(shape) * (rng.random(shape) < 0.4),
        rng.random(shape) * 10.0 ** (6 * (np.arange(shape[1]) == 0)),
        10.0 ** rng.uniform(-15, 0, shape),
        10.0 ** rng.uniform(-300, 0, shape),
    )[kind]
    weights[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] += 1
    return weights


def random_problems(rng, max_nodes):
    count = int(rng.integers(1, 6))
    n, m = (int(nodes) for nodes in rng.integers(1, max_nodes + 1, 2))
    kind = rng.integers(7)
    supplies, demands = (random_weights(rng, (count, nodes), kind) for nodes in (n, m))
    demands *= supplies.sum(1, keepdims=True) / demands.sum(1, keepdims=True)
    return random_costs(rng, (count, n, m)), supplies, demands


def require_optima(costs, supplies, demands, optima):
    """Whatever they are proves that they are right."""
    total, flow, u, v = optima
    assert (flow >= 0).all()
    whole = supplies.sum(1)
    for found, wanted in ((flow.sum(2), supplies), (flow.sum(1), demands)):
        assert (np.abs(found - wanted) <= ROUNDING * whole[:, None]).all()
    size = np.abs(costs) + np.abs(u)[:, :, None] + np.abs(v)[:, None, :]
    reduced = costs - u[:, :, None] - v[:, None, :]
    assert (reduced >= -ROUNDING * size).all()
    assert (reduced <= ROUNDING * size)[flow > 0].all()
    # Sums that are the same but for rounding leave this much open.
    absolute = (flow * np.abs(costs)).sum((1, 2)) + whole * size.max((1, 2))
    assert (np.abs(total - (flow * costs).sum((1, 2))) <= ROUNDING * absolute).all()
    dual = (u * supplies).sum(1) + (v * demands).sum(1)
    assert (np.abs(total - dual) <= ROUNDING * absolute).all()


@pytest.mark.parametrize(("max_nodes", "repeats"), [(3, 120), (12, 120), (70, 25)])
def test_optima(max_nodes, repeats):
    rng = np.random.default_rng(max_nodes)
    for _ in range(repeats):
        problems = random_problems(rng, max_nodes)
        require_optima(*problems, native.solve_transport(*problems))


@pytest.mark.parametrize("sizes", [(1, 1), (1, 7), (9, 1), (256, 256), (300, 3), (2, 400)])
def test_sizes(sizes):
    rng = np.random.default_rng(0)
    costs = rng.random((2, *sizes))
    supplies, demands = (rng.random((2, nodes)) for nodes in sizes)
    demands *= supplies.sum(1, keepdims=True) / demands.sum(1, keepdims=True)
    optima = native.solve_transport(costs, supplies, demands)
    require_optima(costs, supplies, demands, optima)
    edges = (optima.flow > 0).sum((1, 2))
    assert (edges == sum(sizes) - 1).all()  # of a tree


def test_of_no_problems():
    optima = native.solve_transport(np.empty((0, 3, 4)), np.empty((0, 3)), np.empty((0, 4)))
    assert [part.shape for part in optima] == [(0,), (0, 3, 4), (0, 3), (0, 4)]


def test_nodes_without_weight_have_the_highest_potentials():
    costs = np.array([[[5.0, 1.0, 4.0], [2.0, 3.0, 9.0]]])
    supplies, demands = np.array([[1.0, 0.0]]), np.array([[0.25, 0.75, 0.0]])
    optima = native.solve_transport(costs, supplies, demands)
    assert optima.flow.tolist() == [[[0.25, 0.75, 0], [0, 0, 0]]]
    assert optima.total.tolist() == [2.0]
    assert optima.supply_potential.tolist() == [[1.0, -2.0]]
    assert optima.demand_potential.tolist() == [[4.0, 0.0, 3.0]]


def test_without_any_weight_nothing_flows():
    costs = np.array([[[5.0, 1.0], [2.0, 3.0]]])
    nothing = np.zeros((1, 2))
    optima = native.solve_transport(costs, nothing, nothing)
    require_optima(costs, nothing, nothing, optima)
    assert optima.total.tolist() == [0]
    assert not optima.flow.any()


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-160, 1e100, 1e147])
def test_weights_of_any_size(scale):
    rng = np.random.default_rng(1)
    costs = rng.random((1, 6, 8))
    supplies, demands = np.full((1, 6), 4 * scale), np.full((1, 8), 3 * scale)
    optima = native.solve_transport(costs, supplies, demands)
    unit = native.solve_transport(costs, np.full((1, 6), 4.0), np.full((1, 8), 3.0))
    # Of subnormal numbers few bits are left.
    assert optima.flow / (4 * scale) == pytest.approx(unit.flow / 4, abs=1e-3)
    assert optima.total / (4 * scale) == pytest.approx(unit.total / 4, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-320, 1e-310, 1e-250, 1e-100, 1e100, 1e149])
def test_costs_of_any_size(scale):
    rng = np.random.default_rng(2)
    costs = np.ceil(rng.random((3, 7, 9)) * 1000) / 1000 * scale
    supplies, demands = np.full((3, 7), 9.0), np.full((3, 9), 7.0)
    optima = native.solve_transport(costs, supplies, demands)
    reduced = costs - optima.supply_potential[:, :, None] - optima.demand_potential[:, None, :]
    assert (reduced >= -1e-14 * scale).all()
    assert (np.abs(reduced) <= 1e-14 * scale)[optima.flow > 0].all()


def test_demands_are_scaled_to_the_supplies():
    rng = np.random.default_rng(3)
    costs, supplies = rng.random((1, 4, 5)), rng.random((1, 4))
    demands = rng.random((1, 5))
    demands *= supplies.sum() / demands.sum()
    optima = native.solve_transport(costs, supplies, demands)
    scaled = native.solve_transport(costs, supplies, demands * (1 + 9e-7))
    np.testing.assert_allclose(scaled.flow, optima.flow, rtol=1e-13)
    with pytest.raises(ValueError, match=r"problem 0 have sums .* expected equal ones"):
        native.solve_transport(costs, supplies, demands * (1 + 1.1e-6))


def problems_of_both_phases():
    """Some of them need the costs as they are given, since these differ too much in size."""
    rng = np.random.default_rng(4)
    costs = np.concatenate([rng.random((20, 25, 19)), 10.0 ** rng.uniform(-12, 12, (20, 25, 19))])
    supplies, demands = rng.random((40, 25)), rng.random((40, 19))
    demands *= supplies.sum(1, keepdims=True) / demands.sum(1, keepdims=True)
    return costs, supplies, demands


@pytest.fixture(scope="module")
def expected():
    return native.solve_transport(*problems_of_both_phases(), n_threads=1)


def assert_same(found, expected):
    for array, other in zip(found, expected, strict=True):
        assert array.tobytes() == other.tobytes()


def test_kernels_give_the_same_bits(each_kernels, expected):
    assert_same(native.solve_transport(*problems_of_both_phases()), expected)


@pytest.mark.parametrize("n_threads", [2, 3, 7])
def test_threads_give_the_same_bits(n_threads, expected):
    found = native.solve_transport(*problems_of_both_phases(), n_threads=n_threads)
    assert_same(found, expected)


def test_a_problem_does_not_depend_on_the_others(expected):
    order = np.random.default_rng(5).permutation(40)
    found = native.solve_transport(*(array[order] for array in problems_of_both_phases()))
    assert_same(found, [part[order] for part in expected])


GOOD = {
    "costs": np.ones((3, 2, 4)),
    "supplies": np.full((3, 2), 2.0),
    "demands": np.ones((3, 4)),
}


def test_layouts():
    for name in GOOD:
        require_refusals(native.solve_transport, GOOD, name, any_length=name == "costs")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in GOOD for value in (np.nan, np.inf, -np.inf, 1.1e150)),
        ("costs", -1.1e150), ("supplies", -1e-300), ("demands", -2.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("n_threads", [1, 3])
def test_the_first_number_of_no_use_is_named(name, value, n_threads):
    arguments = {key: array.copy() for key, array in GOOD.items()}
    array = arguments[name]
    array[1:, 1, ...] = value
    where = ", ".join(map(str, (1, 1, 0)[: array.ndim]))
    allowed = "from -1e+150 to 1e+150" if name == "costs" else "from 0 to 1e+150"
    message = f"{name}: entry ({where}) holds {value}, expected finite numbers {allowed}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        native.solve_transport(**arguments, n_threads=n_threads)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_different_sums_are_named(n_threads):
    supplies = GOOD["supplies"].copy()
    supplies[1:, 0] = 3
    message = "supplies, demands: those of problem 1 have sums 5.0 and 4.0, expected equal ones"
    with pytest.raises(ValueError, match=message):
        native.solve_transport(GOOD["costs"], supplies, GOOD["demands"], n_threads)
    nothing = np.zeros((3, 4))
    with pytest.raises(ValueError, match=r"problem 0 have sums 4.0 and 0.0"):
        native.solve_transport(GOOD["costs"], GOOD["supplies"], nothing, n_threads)


@pytest.mark.parametrize("n_threads", [0, -1, 1025])
def test_numbers_of_threads(n_threads):
    with pytest.raises(ValueError, match=f"n_threads: expected 1..1024, got {n_threads}"):
        native.solve_transport(**GOOD, n_threads=n_threads)


@pytest.mark.parametrize("shape", [(2, 0, 3), (2, 3, 0)])
def test_without_nodes(shape):
    with pytest.raises(ValueError, match=r"expected 1\.\.1048576 nodes in each problem, got 0"):
        native.solve_transport(np.empty(shape), np.empty(shape[:2]), np.empty(shape[::2]))


OUT = native.solve_transport(**GOOD)
FIELDS = {
    "transport": {
        "problems": 3, "supplies": 2, "demands": 4, "costs": GOOD["costs"],
        "supply_weights": GOOD["supplies"], "demand_weights": GOOD["demands"],
    },
    "transport_optima": OUT._asdict(),
}  # fmt: skip


def solve_direct(kind, threads=1, **changes):
    structures = {
        name: structure(name, **{**fields, **(changes if name == kind else {})})
        for name, fields in FIELDS.items()
    }
    return direct(
        lib.lowshot_solve_transport,
        structures["transport"],
        threads,
        structures["transport_optima"],
    )


@pytest.mark.parametrize("kind", FIELDS)
def test_direct_null_pointers_and_sizes(kind):
    assert solve_direct(kind) == OK
    for name, value in FIELDS[kind].items():
        if isinstance(value, int):
            for size in (-1, -HUGE, HUGE):
                assert solve_direct(kind, **{name: size}) == BAD_SIZE, (name, size)
        else:
            assert solve_direct(kind, **{name: NULL}) == BAD_SIZE, name
    assert solve_direct(kind, supplies=0) == BAD_SIZE if kind == "transport" else True
    for threads in (0, -1, -(2**31)):
        assert solve_direct(kind, threads) == BAD_SIZE
    for arguments in ((NULL, 1, NULL), (structure("transport"), 1, NULL)):
        assert direct(lib.lowshot_solve_transport, *arguments) == BAD_SIZE
