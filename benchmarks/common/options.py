"""Options that the benchmarks have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lowshot_kedro import native


def positive(text: str) -> int:
    """An integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def above_zero(text: str) -> float:
    """A number above 0."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
    return number


def add_options(
    parser: argparse.ArgumentParser,
    *,
    nodes: int,
    classes: int,
    repeat: int,
    parts: Sequence[str],
) -> None:
    """Sizes, and what to leave out.

    Args:
        parser: Gets the options.
        nodes: Default.
        classes: Default.
        repeat: Default.
        parts: Names that --skip knows.
    """
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("--nodes", type=positive, default=nodes, help="nodes of the graph")
    parser.add_argument("--neighbors", type=positive, default=30, help="neighbours of a node")
    parser.add_argument("--classes", type=positive, default=classes, help="columns of the scores")
    parser.add_argument(
        "--threads", type=positive, default=native.get_num_threads(), help="for everybody"
    )
    parser.add_argument("--repeat", type=positive, default=repeat, help="rounds of measurement")
    parser.add_argument("--seed", type=int, default=0, help="of graph, labels and scores")
    parser.add_argument(
        "--graph", type=Path, help="npy file of int32 (N, k) to use instead; -1 is no neighbour"
    )
    parser.add_argument(
        "--skip", nargs="+", default=[], choices=parts, metavar="NAME", help=", ".join(parts)
    )


def require_sizes(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a message if the sizes do not go together."""
    if options.graph is None and options.neighbors > options.nodes:
        parser.error(f"--neighbors: {options.neighbors} of only {options.nodes} nodes")
    if options.graph is not None and not options.graph.is_file():
        parser.error(f"--graph: {options.graph} is no file")
