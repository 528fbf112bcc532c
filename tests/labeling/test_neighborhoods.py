"""Links in both directions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lowshot_kedro.labeling.neighborhoods import Neighborhoods
from tests.labeling.attention import graph_of


def test_links_are_those_of_either_list() -> None:
    vectors = np.random.default_rng(0).normal(size=(60, 3))
    graph = graph_of(vectors, 7)
    graph.neighbors[3, 4:] = -1
    graph.neighbors[5, 0] = 9 if 9 not in graph.neighbors[5] else -1
    expected: list[dict[int, float]] = [{node: 1.0} for node in range(60)]
    for node in range(60):
        for other, cosine in zip(
            graph.neighbors[node, :5].tolist(), graph.similarities[node, :5].tolist(), strict=True
        ):
            if other >= 0 and other != node:
                expected[node].setdefault(other, cosine)
                expected[other].setdefault(node, cosine)
    asked: NDArray[np.int64] = np.random.default_rng(1).permutation(60)[:40]
    links = Neighborhoods(graph, 5).of(asked)
    for position, node in enumerate(asked.tolist()):
        of_node = links.rows == position
        found = links.nodes[of_node].tolist()
        assert len(found) == len(set(found))
        assert set(found) == set(expected[node])
        cosines = links.similarities[of_node].tolist()
        assert dict(zip(found, cosines, strict=True)) == pytest.approx(expected[node], abs=1e-6)
