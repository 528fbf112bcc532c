"""Label diffusion: labels spread over the graph of labelled and unlabelled images.

M. Douze, A. Szlam, B. Hariharan and H. Jégou, "Low-shot learning with large-scale diffusion",
CVPR 2018: a semi-supervised, transductive method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.diffusion import (
    EDGE_WEIGHTS,
    MAX_COLUMNS,
    MAX_STEPS,
    ChosenDiffusion,
    ChosenSteps,
    PropagationMatrix,
    PropagationOptions,
    adjustments,
    choose_diffusion,
    choose_node_ordering,
    propagate,
    propagation_matrix,
)
from lowshot_kedro.diffusion.parameters import DiffusionParameters
from lowshot_kedro.graph import insert_labeled_nodes
from lowshot_kedro.graph.parameters import GraphParameters
from lowshot_kedro.methods.method import (
    COUNT,
    NAME,
    STEPS,
    Axis,
    Method,
    Options,
    Outcome,
    PlacesMap,
    Setting,
    Settings,
    Sizes,
    Style,
    Work,
)
from lowshot_kedro.methods.palette import BLUE
from lowshot_kedro.metrics import Scores
from lowshot_kedro.parameters import distinct_values, require_integer, require_one_of
from lowshot_kedro.progress import Stopwatch, logged_step
from lowshot_kedro.protocol import ImageSelection

# How the propagation is computed, and not what.
_EXECUTION = ("class_slice", "memory_budget_gb", "n_iterations")


@dataclass(frozen=True)
class DiffusionGrid:
    """What is searched for the diffusion: neighbours, edge weights, and all numbers of steps."""

    k: tuple[int, ...]
    edge_weight: tuple[str, ...]
    n_iterations: int

    def __post_init__(self) -> None:
        k = distinct_values("k", self.k, lambda name, value: require_integer(name, value, 1, 1024))
        object.__setattr__(self, "k", k)
        weights = distinct_values(
            "edge_weight",
            self.edge_weight,
            lambda name, weight: require_one_of(name, weight, list(EDGE_WEIGHTS)),
        )
        object.__setattr__(self, "edge_weight", weights)
        require_integer("n_iterations", self.n_iterations, 1, 10_000)


class DiffusionMethod(Method):
    """Label diffusion over one graph for all runs on the same images, measured after every step."""

    name = "diffusion"
    title = "diffusion"
    style = Style(BLUE, "o", "-")
    needs = "graph"
    settings: ClassVar[Mapping[str, Setting]] = {
        "k": Setting(COUNT, "k"),
        "edge_weight": Setting(NAME, "", "constant"),
    }
    axis = Axis("iteration", "n_iterations", STEPS, is_steps=True)
    grid = DiffusionGrid
    parameters = DiffusionParameters
    heat_map = PlacesMap("diffusion step")
    step_label = "diffusion step"

    def run(self, work: Work) -> Iterator[Outcome]:
        """Insert the labelled images into the graph once, and propagate for every run.

        In memory: the graph, and the scores as :func:`~lowshot_kedro.diffusion.propagate` says.
        """
        images, grid, sections = work.images, work.options.grid, work.options.sections
        settings = [self.with_usual(of_run) for of_run in work.settings]
        watch = Stopwatch()
        training, test = images.training_vectors(), images.test_vectors()
        # As for the whole grid, whichever runs are left: an approximate search may find other
        # neighbours when more are wanted.
        graph = replace(sections["graph"], k=max(_possible_k(grid, work.n_images)))
        nodes = images.unlabeled_nodes(graph)
        seconds = {"reading": watch.seconds / len(settings)}
        watch = Stopwatch()
        extended = insert_labeled_nodes(
            training,
            test,
            nodes,
            k=graph.k,
            keep_similarities=any(of_run["edge_weight"] != "constant" for of_run in settings),
            memory_budget_bytes=graph.memory_budget_bytes,
        )
        n_nodes = len(extended.neighbors)
        del training, test, nodes
        # The runs share this time.
        seconds["graph"] = watch.seconds / len(settings)
        for number, of_run in enumerate(settings):
            watch = Stopwatch()
            k = of_run["k"]
            parameters = replace(
                sections[self.name], edge_weight=of_run["edge_weight"], n_iterations=work.n_steps
            )
            scores = diffusion_scores(
                first_columns(extended.neighbors, k),
                None if extended.similarities is None else first_columns(extended.similarities, k),
                first_columns(extended.test_neighbors.indices, k),
                images.selection,
                parameters,
                every_step=work.is_measured,
            )
            propagated = watch.seconds
            entries = [
                work.judge(number, step, of_step)
                for step, of_step in zip(
                    scores.iterations.tolist(), scores.scores_per_iteration, strict=True
                )
            ]
            described = {
                "graph": {**asdict(graph), "k": k, "n_background": images.n_background},
                self.name: asdict(parameters),
            }
            yield Outcome(number, entries, {**seconds, "diffusion": propagated}, described, n_nodes)

    def candidates(self, grid: DiffusionGrid, n_images: int) -> list[dict[str, Any]]:
        """Every possible number of neighbours with every edge weight."""
        pairs = product(_possible_k(grid, n_images), grid.edge_weight)
        return [{"k": k, "edge_weight": edge_weight} for k, edge_weight in pairs]

    def n_steps(self, grid: DiffusionGrid) -> int:
        """Steps of the validation runs."""
        return grid.n_iterations

    def n_test_steps(self, grid: DiffusionGrid, n_chosen: int) -> int:
        """As many steps as the grid has, at least: one propagation gives them all, for a plot."""
        return max(n_chosen, grid.n_iterations)

    def max_neighbors(self, grid: DiffusionGrid) -> int:
        """The largest k."""
        return max(grid.k)

    def fits(self, grid: DiffusionGrid, n_images: Sequence[int]) -> bool:
        """Whether the grid has a number of neighbours that is possible."""
        return bool(_possible_k(grid, min(n_images)))

    def left_out(self, grid: DiffusionGrid, n_images: int) -> tuple[str, Sequence[int]]:
        """The numbers of neighbours that are more than there are images."""
        return "k", [k for k in grid.k if k > n_images]

    def memory_bytes(
        self, sizes: Sizes, settings: Sequence[Settings], options: Options, n_steps: int
    ) -> int:
        """Bytes of the vectors, and of the graph with what makes it or with the scores on it."""
        k = max(_possible_k(options.grid, sizes.n_nodes), default=1)
        parameters: DiffusionParameters = options.sections[self.name]
        width = sizes.n_classes
        if isinstance(parameters.class_slice, int) and parameters.class_slice:
            width = min(width, parameters.class_slice)
        n_nodes, n_components = sizes.n_nodes, sizes.n_components
        in_memory = 8 * n_components * (n_nodes - sizes.n_background)
        in_memory += 4 * n_components * sizes.n_test
        codes = (n_components + 16) * sizes.n_background
        is_weighted = any(
            self.with_usual(of_run)["edge_weight"] != "constant" for of_run in settings
        )
        # Neighbours, W and what ordering its nodes takes; with weights as much again.
        graph = ((32 if is_weighted else 16) * k + 24) * n_nodes + 8 * k * sizes.n_test
        return (
            in_memory
            + max(codes + 4 * k * n_nodes, graph + 8 * width * n_nodes)
            + sizes.score_bytes * (n_steps + 2)
        )

    def provenance(self, settings: Settings, options: Options, n_images: int) -> dict[str, Any]:
        """Parameters of the propagation, and how many neighbours have been searched for."""
        of_run = replace(
            options.sections[self.name],
            edge_weight=self.with_usual(settings)["edge_weight"],
            n_iterations=0,
        )
        followed = {name: value for name, value in asdict(of_run).items() if name not in _EXECUTION}
        # Under the names that runs of earlier versions are stored with.
        followed["restore_labeled"] = followed.pop("clamping")
        return {
            self.name: followed,
            "completed_k": max(_possible_k(options.grid, n_images)),
        }


def _possible_k(grid: DiffusionGrid, n_images: int) -> tuple[int, ...]:
    """The numbers of neighbours that are no more than there are images."""
    return tuple(k for k in grid.k if k <= n_images)


def searched_neighbors(parameters: GraphParameters, n_nodes: int) -> int:
    """How many neighbours are looked for: k, or for `auto` as many as may be chosen.

    Args:
        parameters: Parameters of the graph.
        n_nodes: N. `auto` chooses from no more than that.
    """
    return min(parameters.max_k, n_nodes) if isinstance(parameters.k, str) else parameters.k


def choose_parameters(
    neighbors: NDArray[np.int32],
    similarities: NDArray[np.float32] | None,
    selection: ImageSelection,
    graph_parameters: GraphParameters,
    parameters: DiffusionParameters,
) -> ChosenDiffusion:
    """Neighbours and steps as the parameters say them, or chosen where they say `auto`.

    Args:
        neighbors: int32 (N, K), the extended graph, K as :func:`searched_neighbors` says.
        similarities: float32 (N, K); not needed for constant edge weights.
        selection: The images of the experiment.
        graph_parameters: Parameters of the graph.
        parameters: Parameters of the propagation.

    Returns:
        Numbers that are given are taken as they are, without held-out labels if both are. In
        memory: as :func:`~lowshot_kedro.diffusion.choose_diffusion` says.
    """
    k, n_iterations = graph_parameters.k, parameters.n_iterations
    if not isinstance(k, str) and not isinstance(n_iterations, str):
        return ChosenDiffusion(k, ChosenSteps(n_iterations, n_iterations, None), {})
    node_ordering = choose_node_ordering(
        len(neighbors), max(selection.n_classes, MAX_COLUMNS), MAX_STEPS
    )
    return choose_diffusion(
        lambda k: _matrix(neighbors, similarities, k, parameters, node_ordering),
        neighbors,
        graph_parameters.candidates(neighbors.shape[1]),
        selection.labeled_classes,
        selection.is_novel,
        _options(parameters),
        n_iterations=None if isinstance(n_iterations, str) else n_iterations,
    )


def _options(parameters: DiffusionParameters) -> PropagationOptions:
    """What the parameters say of the propagation itself."""
    return PropagationOptions(
        class_slice=parameters.class_slice,
        backend=parameters.backend,
        precision=parameters.precision,
        adjustments=adjustments(parameters.power, parameters.clamping),
        class_prior=parameters.class_prior,
        memory_budget_bytes=parameters.memory_budget_bytes,
    )


def chosen_scores(
    neighbors: NDArray[np.int32],
    similarities: NDArray[np.float32] | None,
    test_neighbors: NDArray[np.int32],
    selection: ImageSelection,
    graph_parameters: GraphParameters,
    parameters: DiffusionParameters,
) -> tuple[Scores, ChosenDiffusion]:
    """The scores of the test images with neighbours and steps chosen, and the choice.

    Arguments are those of :func:`choose_parameters`, and int32 (T, k), nodes near each test image.
    """
    chosen = choose_parameters(neighbors, similarities, selection, graph_parameters, parameters)
    scores = diffusion_scores(
        first_columns(neighbors, chosen.k),
        None if similarities is None else first_columns(similarities, chosen.k),
        first_columns(test_neighbors, chosen.k),
        selection,
        replace(parameters, n_iterations=chosen.steps.n_iterations),
    )
    return scores, chosen


def first_columns(matrix: NDArray[Any], k: int) -> NDArray[Any]:
    """The k most similar neighbours, or their similarities: the graph with fewer links."""
    return matrix if matrix.shape[1] == k else np.ascontiguousarray(matrix[:, :k])


def _matrix(
    neighbors: NDArray[np.int32],
    similarities: NDArray[np.float32] | None,
    k: int,
    parameters: DiffusionParameters,
    node_ordering: str,
) -> PropagationMatrix:
    """The matrix W of the graph of the first k neighbours."""
    with logged_step("symmetrised graph"):
        return propagation_matrix(
            neighbors=first_columns(neighbors, k),
            similarities=None if similarities is None else first_columns(similarities, k),
            edge_weight=parameters.edge_weight,
            sigma=parameters.sigma,
            local_neighbor=parameters.local_neighbor,
            reciprocal=parameters.reciprocal,
            sinkhorn_rounds=parameters.sinkhorn_rounds,
            node_ordering=node_ordering,
        )


def diffusion_scores(
    neighbors: NDArray[np.int32],
    similarities: NDArray[np.float32] | None,
    test_neighbors: NDArray[np.int32],
    selection: ImageSelection,
    parameters: DiffusionParameters,
    every_step: bool = True,
) -> Scores:
    """Scores of the test images after every step, or after the last.

    Args:
        neighbors: int32 (N, k), the extended graph.
        similarities: float32 (N, k); not needed for constant edge weights.
        test_neighbors: int32 (T, k), nodes near each test image.
        selection: The images of the experiment.
        parameters: Parameters of the propagation, with a number of steps.
        every_step: Whether the scores of every step are wanted.

    Returns:
        The scores. In memory: as :func:`~lowshot_kedro.diffusion.propagate` says.
    """
    n_classes, n_iterations = selection.n_classes, parameters.n_iterations
    assert not isinstance(n_iterations, str)
    node_ordering = choose_node_ordering(len(neighbors), n_classes, n_iterations)
    matrix = _matrix(neighbors, similarities, neighbors.shape[1], parameters, node_ordering)
    per_step = propagate(
        matrix,
        selection.labeled_classes,
        test_neighbors,
        n_classes,
        n_iterations,
        _options(parameters),
        every_step=every_step,
    )
    steps = range(n_iterations + 1) if every_step else [n_iterations]
    return Scores.of_selection(per_step, steps, selection)
