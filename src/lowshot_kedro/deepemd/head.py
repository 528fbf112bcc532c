"""The head of DeepEMD: how alike images are, by the cheapest flows between their regions.

C. Zhang, Y. Cai, G. Lin and C. Shen, "DeepEMD: Few-Shot Image Classification With Differentiable
Earth Mover's Distance and Structured Classifiers", CVPR 2020.

Every position of a map is a node. A node weighs the more, the larger its product with the mean node
of the other image is; similarities are cosines of nodes whose own mean over the channels was taken
away. A flow brings the weights of one image to those of the other, where they are most similar.

The structured layer does the same by hand, without autograd: what changes here changes there.

Weights of both sides are scaled to the nodes of the query. With as many nodes on either side this
is what the original does; with different numbers all weights still flow, and a logit is
temperature · (1 − mean cost).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch.nn import functional

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.deepemd.solvers import QPTHSolver, Solver, as_solver
from lowshot_kedro.errors import InputError
from lowshot_kedro.parameters import require_number
from lowshot_kedro.torch_threads import torch_threads

MIN_WEIGHT = 1e-3
MIN_LENGTH = 1e-8
_DTYPES = (torch.float32, torch.float64)
# Pairs of nodes that are solved at a time; each takes up to 32 bytes.
_BLOCK_NODE_PAIRS = 2**21


class Matching(NamedTuple):
    """Which nodes of Q queries flow to which nodes of K prototypes.

    Attributes:
        logits: (Q, K), in the precision of the features, as are all.
        flow: (Q, K, n, m): what flows from a node of the query to one of the prototype. Its sum is
            n.
        query_weights: (Q, K, n), what flows out of a node of the query; the sum is n.
        prototype_weights: (Q, K, m), what flows into a node of the prototype; the sum is n.
        similarities: (Q, K, n, m), cosines of centred nodes.
    """

    logits: torch.Tensor
    flow: torch.Tensor
    query_weights: torch.Tensor
    prototype_weights: torch.Tensor
    similarities: torch.Tensor


class _Pairs(NamedTuple):
    """Transport problems of Q queries and K prototypes.

    Attributes:
        similarities: (Q, K, n, m).
        query_weights: (Q, K, n), not scaled.
        prototype_weights: (Q, K, m), not scaled.
    """

    similarities: torch.Tensor
    query_weights: torch.Tensor
    prototype_weights: torch.Tensor


def emd_logits(
    queries: torch.Tensor,
    prototypes: torch.Tensor,
    *,
    temperature: float = 12.5,
    solver: str | Solver = "native",
) -> torch.Tensor:
    """How alike queries and prototypes are: temperature · (1 − earth mover's distance per weight).

    Gradients with respect to both sides are exact where optima are unique: flows for the
    similarities, potentials for the weights. OpenCV has no potentials, so that weights count as
    constant, as in the original; QPTH has gradients of its own. There is no second derivative. A
    node that is the same in all channels is similar to nothing, and has no gradient through its
    direction.

    Solvers work on the processor in float64, everything else where features are, in their
    precision. On the processor results are the same for any number of threads: torch has one in
    both passes, and solvers may have all. Queries go through in blocks; up to 32 bytes are in
    memory for each pair of nodes of a block, and with gradients 4 or 8 for every pair of nodes.

    Args:
        queries: float32 or float64 (Q, C, H, W).
        prototypes: The same (K, C, H, W); the maps may be of another size.
        temperature: By which similarities are multiplied.
        solver: A name of `SOLVERS`, or a solver.

    Returns:
        (Q, K).

    Raises:
        InputError: If arguments cannot be used, or do not go together.
        MissingLibraryError: If the library of the solver is not installed.
    """
    solver = as_solver(solver)
    require_number("temperature", temperature, 0)
    require_maps(queries, prototypes)
    if not torch.is_grad_enabled():
        # Otherwise the function is still told that gradients are needed, and keeps what they take.
        queries, prototypes = queries.detach(), prototypes.detach()
    logits: torch.Tensor = _Logits.apply(queries, prototypes, temperature, solver)
    return logits


@torch.no_grad()
def match(
    queries: torch.Tensor,
    prototypes: torch.Tensor,
    *,
    temperature: float = 12.5,
    solver: str | Solver = "native",
) -> Matching:
    """What flows from which node of queries to which node of prototypes; without gradients.

    All of it is in memory: at most 40 bytes for each pair of nodes.

    Args:
        queries: As for :func:`emd_logits`.
        prototypes: As for :func:`emd_logits`.
        temperature: By which similarities are multiplied.
        solver: A name of `SOLVERS`, or a solver.

    Raises:
        InputError: If arguments cannot be used, or do not go together.
        MissingLibraryError: If the library of the solver is not installed.
    """
    solver = as_solver(solver)
    require_number("temperature", temperature, 0)
    require_maps(queries, prototypes)
    parts = []
    n_threads = torch.get_num_threads()
    with torch_threads(1):
        for pairs in _blocks_of_pairs(queries, prototypes):
            weights = _scaled_weights(pairs, solver)
            flow = _solve(pairs.similarities, *weights, solver, n_threads)[0]
            scores = (flow * pairs.similarities).sum((2, 3)) * (temperature / flow.shape[2])
            part = (scores, flow, *weights, pairs.similarities)
            parts.append(tuple(tensor.to(queries.dtype) for tensor in part))
    return Matching(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def cross_reference_weights(
    queries: torch.Tensor, prototypes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What nodes weigh before weights are scaled: max(0, <node, mean of the other>) + 1e-3.

    Args:
        queries: (Q, C, H, W).
        prototypes: (K, C, H, W).

    Returns:
        (Q, K, n) of the nodes of queries, and (Q, K, m) of those of prototypes.
    """
    query_nodes, prototype_nodes = _nodes(queries), _nodes(prototypes)
    return (
        _weights(query_nodes, prototype_nodes),
        _weights(prototype_nodes, query_nodes).transpose(0, 1),
    )


def require_maps(queries: torch.Tensor, prototypes: torch.Tensor) -> None:
    """Refuse features that the head cannot compare.

    Raises:
        InputError: If they are no maps, not finite, or do not go together.
    """
    for name, maps in (("queries", queries), ("prototypes", prototypes)):
        require_map(name, maps)
    for what, of_queries, of_prototypes in (
        ("channels", queries.shape[1], prototypes.shape[1]),
        ("type", queries.dtype, prototypes.dtype),
        ("device", queries.device, prototypes.device),
    ):
        if of_queries != of_prototypes:
            raise InputError(
                parameter="prototypes",
                found=of_prototypes if what != "device" else str(of_prototypes),
                expected=f"the {what} of the queries, {of_queries}",
            )
    for name, maps in (("queries", queries), ("prototypes", prototypes)):
        require_finite(name, maps)


def require_map(name: str, maps: torch.Tensor) -> None:
    """Refuse what is no float32 or float64 (images, channels, height, width).

    Raises:
        InputError: About the argument of this name.
    """
    if not isinstance(maps, torch.Tensor):
        raise InputError(parameter=name, found=type(maps).__name__, expected="a torch.Tensor")
    if maps.ndim != 4 or 0 in maps.shape:
        expected = "a shape (images, channels, height, width), at least 1 of each"
        raise InputError(parameter=name, found=tuple(maps.shape), expected=expected)
    if maps.dtype not in _DTYPES:
        raise InputError(parameter=name, found=maps.dtype, expected="float32 or float64")


def require_finite(name: str, maps: torch.Tensor) -> None:
    """Refuse NaN and infinity.

    Raises:
        InputError: About the argument of this name.
    """
    # A sum tells without a tensor of as many truths; that of huge numbers may overflow.
    if not bool(maps.detach().sum().isfinite()) and not bool(maps.detach().isfinite().all()):
        raise InputError("holds NaN or infinite numbers", parameter=name)


def _nodes(maps: torch.Tensor) -> torch.Tensor:
    """(images, C, H, W) → (images, nodes, C)."""
    return maps.flatten(2).transpose(1, 2).contiguous()


def _weights(nodes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(A, n, C) and (B, m, C) → (A, B, n), the weights of the nodes against each other image."""
    products = torch.matmul(nodes, others.mean(1).T)
    weights: torch.Tensor = functional.relu(products).transpose(1, 2) + MIN_WEIGHT
    return weights


def _directions(nodes: torch.Tensor) -> torch.Tensor:
    """Centred nodes of length 1, or shorter than that where their length is below `MIN_LENGTH`."""
    centred = nodes - nodes.mean(2, keepdim=True)
    lengths = torch.linalg.vector_norm(centred, dim=2, keepdim=True)
    has_direction = lengths > MIN_LENGTH
    if not bool(has_direction.all()):
        # Its gradient would be multiplied by 1e8.
        centred = torch.where(has_direction, centred, centred.detach())
    directions: torch.Tensor = centred / lengths.clamp(min=MIN_LENGTH)
    return directions


def _blocks_of_pairs(queries: torch.Tensor, prototypes: torch.Tensor) -> Iterator[_Pairs]:
    """The problems of some queries and all prototypes at a time."""
    n, m = queries[0, 0].numel(), prototypes[0, 0].numel()
    block_queries = max(1, _BLOCK_NODE_PAIRS // (len(prototypes) * n * m))
    with torch.autocast(queries.device.type, enabled=False):
        prototype_nodes = _nodes(prototypes)
        prototype_directions = _directions(prototype_nodes)
        for first, last in row_ranges(len(queries), block_queries):
            nodes = _nodes(queries[first:last])
            query_weights = _weights(nodes, prototype_nodes)
            prototype_weights = _weights(prototype_nodes, nodes).transpose(0, 1)
            products = _directions(nodes).flatten(0, 1) @ prototype_directions.flatten(0, 1).T
            similarities = products.reshape(-1, n, len(prototypes), m).transpose(1, 2)
            yield _Pairs(similarities, query_weights, prototype_weights)


def _scaled_weights(pairs: _Pairs, solver: Solver) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 weights of sum n on both sides."""
    n = pairs.query_weights.shape[2]

    def scaled(weights: torch.Tensor) -> torch.Tensor:
        weights = weights.double() + solver.weight_offset
        return weights * (n / weights.sum(2, keepdim=True))

    query_weights = scaled(pairs.query_weights)
    prototype_weights = scaled(pairs.prototype_weights)
    for name, weights in (("queries", query_weights), ("prototypes", prototype_weights)):
        if not bool(weights.detach().isfinite().all()):
            raise InputError("holds numbers whose products are too large", parameter=name)
    return query_weights, prototype_weights


def _solve(
    similarities: torch.Tensor,
    supplies: torch.Tensor,
    demands: torch.Tensor,
    solver: Solver,
    n_threads: int,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Flows (Q, K, n, m) and potentials (Q, K, n), (Q, K, m); float64 on the processor."""
    n_queries, n_prototypes, n, m = similarities.shape
    costs = torch.empty(similarities.shape, dtype=torch.float64)
    costs.copy_(similarities.detach()).neg_().add_(1)
    problems = (
        tensor.detach().cpu().reshape(n_queries * n_prototypes, *tensor.shape[2:]).contiguous()
        for tensor in (costs, supplies, demands)
    )
    with torch_threads(n_threads):
        found = solver.solve(*(tensor.numpy() for tensor in problems))
    shape = (n_queries, n_prototypes, -1)
    flow, *potentials = (None if part is None else torch.from_numpy(part) for part in found)
    flow = cast(torch.Tensor, flow).reshape(n_queries, n_prototypes, n, m)
    supply, demand = (part if part is None else part.reshape(shape) for part in potentials)
    device = similarities.device
    return (
        flow.to(device),
        supply if supply is None else supply.to(device),
        demand if demand is None else demand.to(device),
    )


class _Transport(torch.autograd.Function):
    """Σ flow · similarity of every problem, with its derivatives by the duals.

    The optimal cost changes with the costs as the flow says, and with the weights as the potentials
    say (the envelope theorem). A constant in the potentials falls out where weights are scaled.
    """

    @staticmethod
    def forward(
        ctx: Any,
        similarities: torch.Tensor,
        supplies: torch.Tensor,
        demands: torch.Tensor,
        solver: Solver,
        n_threads: int,
    ) -> torch.Tensor:
        """float64 (Q, K) from (Q, K, n, m), float64 (Q, K, n) and (Q, K, m)."""
        flow, supply_potential, demand_potential = _solve(
            similarities, supplies, demands, solver, n_threads
        )
        scores = (flow * similarities).sum((2, 3))
        ctx.save_for_backward(flow.to(similarities.dtype), supply_potential, demand_potential)
        return scores

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients with respect to similarities and both weights."""
        flow, supply_potential, demand_potential = ctx.saved_tensors
        of_scores = gradients[0][:, :, None]
        of_weights = (
            None if potential is None else -of_scores * potential
            for potential in (supply_potential, demand_potential)
        )
        return of_scores[..., None].to(flow.dtype) * flow, *of_weights, None, None


def _scores_by_qpth(
    similarities: torch.Tensor, supplies: torch.Tensor, demands: torch.Tensor, solver: QPTHSolver
) -> torch.Tensor:
    """Σ flow · similarity, where the flow has a derivative, too."""
    similarities = similarities.double()
    problems = (tensor.flatten(0, 1) for tensor in (1 - similarities, supplies, demands))
    flow = solver.flow(*problems).reshape(similarities.shape)
    return (flow * similarities).sum((2, 3))


class _Logits(torch.autograd.Function):
    """Logits, both passes of which torch does in one thread, so that rounding is always alike."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: torch.Tensor,
        prototypes: torch.Tensor,
        temperature: float,
        solver: Solver,
    ) -> torch.Tensor:
        """(Q, K) from (Q, C, H, W) and (K, C, H, W)."""
        needed = ctx.needs_input_grad[:2]
        maps = [
            side.detach().requires_grad_(is_needed)
            for side, is_needed in zip((queries, prototypes), needed, strict=True)
        ]
        parts = []
        n_threads = torch.get_num_threads()
        with torch.set_grad_enabled(any(needed)), torch_threads(1):
            for pairs in _blocks_of_pairs(*maps):
                weights = _scaled_weights(pairs, solver)
                if isinstance(solver, QPTHSolver):
                    scores = _scores_by_qpth(pairs.similarities, *weights, solver)
                else:
                    scores = _Transport.apply(pairs.similarities, *weights, solver, n_threads)
                parts.append(scores)
            logits = torch.cat(parts) * (temperature / queries[0, 0].numel())
            logits = logits.to(queries.dtype)
        ctx.maps, ctx.logits = maps, logits
        return logits.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients with respect to both sides.

        Raises:
            RuntimeError: If a second derivative is to follow.
        """
        if torch.is_grad_enabled():
            raise RuntimeError("emd_logits has no second derivative, so no create_graph=True")
        maps = [side for side in ctx.maps if side.requires_grad]
        with torch_threads(1):
            found = iter(torch.autograd.grad(ctx.logits, maps, gradients, retain_graph=True))
        return *(next(found) if side.requires_grad else None for side in ctx.maps), None, None
