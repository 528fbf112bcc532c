"""Which images to label next: accuracy of all others against labels given, rule by rule.

Every rule begins with the same labels, chooses some more, learns their classes, and chooses again.
Labels spread by LabelDiffusion over one graph. Images that were drawn at random stand beside the
rules, once more with twice as many in every round.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from common import machine
from common.labeling import Collection, add_options, collections, mean_and_error
from common.options import positive
from common.output import note, print_json, print_table
from lowshot_kedro.labeling.labels import Labeling
from lowshot_kedro.labeling.neighborhoods import Neighborhoods
from lowshot_kedro.labeling.next_images import images_to_label_next

OURS, RANDOM, TWICE = "ours", "random", "random, twice as many"

Chosen = NDArray[np.integer]
Rule = Callable[[Collection, Labeling, int, int], Chosen]


def unlabeled(labeling: Labeling) -> NDArray[np.int64]:
    """Images without a label."""
    return np.flatnonzero(labeling.given.labels < 0)


def ours(collection: Collection, labeling: Labeling, n: int, seed: int) -> Chosen:
    """The rule of the library."""
    return images_to_label_next(collection.graph, labeling, n, seed).nodes


def random(collection: Collection, labeling: Labeling, n: int, seed: int) -> Chosen:
    """Any."""
    rng = np.random.default_rng([seed, len(labeling.given.nodes)])
    return rng.choice(unlabeled(labeling), n, replace=False)


def margin(collection: Collection, labeling: Labeling, n: int, seed: int) -> Chosen:
    """The least certain ones: T. Scheffer, C. Decomain and S. Wrobel, IDA 2001."""
    candidates = unlabeled(labeling)
    return candidates[np.argsort(labeling.margin[candidates], kind="stable")[:n]]


def k_center(collection: Collection, labeling: Labeling, n: int, seed: int) -> Chosen:
    """The farthest from all labels: O. Sener and S. Savarese, ICLR 2018, its greedy part."""
    vectors = collection.vectors
    nearest = (vectors @ vectors[labeling.given.nodes].T).max(axis=1)
    chosen = []
    for _ in range(n):
        chosen.append(int(nearest.argmin()))
        np.maximum(nearest, vectors @ vectors[chosen[-1]], out=nearest)
    return np.array(chosen)


def prob_cover(collection: Collection, labeling: Labeling, n: int, seed: int) -> Chosen:
    """Covers most: O. Yehuda and others, NeurIPS 2022, with ten neighbours in place of a ball."""
    neighborhoods = Neighborhoods(collection.graph, 10)
    links = neighborhoods.of(np.arange(len(collection)))
    is_open = np.ones(len(collection), np.bool_)
    is_open[links.nodes[labeling.given.labels[links.rows] >= 0]] = False
    is_candidate = labeling.given.labels < 0
    chosen = []
    for _ in range(n):
        counts = np.bincount(links.rows, is_open[links.nodes], minlength=len(collection))
        node = int(np.where(is_candidate, counts, -1).argmax())
        chosen.append(node)
        is_candidate[node] = False
        is_open[neighborhoods.of(np.array([node])).nodes] = False
    return np.array(chosen)


RULES: dict[str, tuple[Rule, int]] = {
    OURS: (ours, 1),
    RANDOM: (random, 1),
    TWICE: (random, 2),
    "margin": (margin, 1),
    "k-centre": (k_center, 1),
    "ProbCover": (prob_cover, 1),
}


def measure(
    collection: Collection, options: argparse.Namespace, n_first: int, seed: int
) -> dict[str, list[float]]:
    """Accuracy of all images without a label, before the first round and after each, by rule."""
    rng = np.random.default_rng([seed, n_first])
    first = np.concatenate(
        [
            rng.choice(np.flatnonzero(collection.classes == label), n_first, replace=False)
            for label in range(collection.n_classes)
        ]
    )
    found: dict[str, list[float]] = {}
    for name, (rule, times) in RULES.items():
        labeled, accuracies = first, []
        for number in range(options.rounds + 1):
            labels = collection.classes[labeled]
            shares = collection.shares(labeled, labels)
            labeling = collection.labeling(labeled, labels, shares)
            open_ = unlabeled(labeling)
            right = labeling.labels[open_] == collection.classes[open_]
            accuracies.append(float(right.mean()))
            if number < options.rounds:
                more = rule(collection, labeling, options.chosen * times, seed)
                labeled = np.concatenate([labeled, more])
        found[name] = accuracies
    return found


def print_rounds(
    collection: Collection, options: argparse.Namespace, results: dict[str, list[list[float]]]
) -> None:
    """Accuracies, and what was gained."""
    n_first = len(np.unique(collection.classes)) * options.first
    counts = [n_first + number * options.chosen for number in range(options.rounds + 1)]
    rows = [
        [name, *(mean_and_error([draw[number] for draw in draws]) for number in range(len(counts)))]
        for name, draws in results.items()
    ]
    title = f"{collection.name}: percent right of all images without a label, by labels given"
    print_table(title, ["", *map(str, counts)], rows)
    gains = [
        [
            name,
            *(
                mean_and_error([draw[number] - draw[0] for draw in draws])
                for number in range(1, len(counts))
            ),
        ]
        for name, draws in results.items()
    ]
    columns = ["", *(f"+{count - n_first}" for count in counts[1:])]
    print_table(f"{collection.name}: gain in percent", columns, gains)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--first", type=positive, default=5, help="labels of a class to begin with")
    parser.add_argument("--chosen", type=positive, default=50, help="images of a round")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--draws", type=positive, default=5, help="of the first labels")
    options = parser.parse_args()
    if options.quick:
        options.draws, options.rounds, options.chosen = 2, 2, 10
    results: dict[str, dict[str, list[list[float]]]] = {}
    for collection in collections(options):
        of_rules: dict[str, list[list[float]]] = {name: [] for name in RULES}
        for seed in range(options.seed, options.seed + options.draws):
            note(f"{collection.name}: draw {seed}")
            for name, accuracies in measure(collection, options, options.first, seed).items():
                of_rules[name].append(accuracies)
        print_rounds(collection, options, of_rules)
        results[collection.name] = of_rules
    print_json(
        {
            "benchmark": "labeling_next",
            "machine": machine.describe(),
            "sizes": {
                "first": options.first,
                "chosen": options.chosen,
                "rounds": options.rounds,
                "draws": options.draws,
                "seed": options.seed,
            },
            "results": results,
        }
    )


if __name__ == "__main__":
    main()
