"""Wrong labels that are found: recall among as many as were planted, beside cleanlab.

Labels of a random part of the images are known, and a part of those is made wrong: at random, or by
taking the class that is most similar. The most suspicious labels, as many as are wrong, are looked
at. cleanlab ranks the same labels by out-of-sample probabilities of scikit-learn's logistic
regression and of nearest neighbours, on the same vectors.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from common import machine
from common.labeling import Collection, add_options, collections, mean_and_error
from common.options import positive
from common.output import note, print_json, print_table
from lowshot_kedro.labeling.suspicious import suspicious_labels

OURS, HELD_OUT = "ours", "held-out diffusion alone"
RANDOM, CONFUSING = "random", "confusing"
KINDS = (RANDOM, CONFUSING)
SCORES = ("self_confidence", "normalized_margin")
FOLDS, CLEANLAB_FOLDS = 5, 10
NEIGHBORS = 10


def planted(
    collection: Collection, labels: NDArray[np.int64], n_wrong: int, kind: str, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Labels of which some are wrong, and which.

    Args:
        collection: Its classes say which are similar.
        labels: int64 (L,), right ones.
        n_wrong: How many are made wrong.
        kind: Of errors: one of :data:`KINDS`.
        seed: Which, and how.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    wrong = np.sort(rng.choice(len(labels), n_wrong, replace=False))
    changed = labels.copy()
    if kind == RANDOM:
        more = rng.integers(1, collection.n_classes, n_wrong)
        changed[wrong] = (labels[wrong] + more) % collection.n_classes
    else:
        changed[wrong] = most_similar_classes(collection)[labels[wrong]]
    return changed, changed != labels


def most_similar_classes(collection: Collection) -> NDArray[np.int64]:
    """The other class whose mean direction is nearest, for each, int64 (C,)."""
    means = np.stack(
        [
            collection.vectors[collection.classes == label].mean(axis=0)
            for label in range(collection.n_classes)
        ]
    )
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines = means @ means.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.argmax(axis=1)


def held_out_shares(
    collection: Collection, labeled: NDArray[np.int64], labels: NDArray[np.int64], seed: int
) -> NDArray[np.float32]:
    """What the diffusion says of labels held out in five folds, with a temperature."""
    shares = np.zeros((len(labels), collection.n_classes), np.float32)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for kept, out in folds.split(labeled, labels):
        shares[out] = collection.shares(labeled[kept], labels[kept])[labeled[out]]
    return tempered(shares, labels)


def tempered(shares: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Shares to the power that makes the labels most likely; rows sum to 1, or stay 0."""

    def scaled(power: float) -> NDArray[np.float64]:
        powers = shares.astype(np.float64) ** power
        sums = powers.sum(axis=1, keepdims=True)
        return np.asarray(powers / np.where(sums == 0, 1, sums))

    def loss(logarithm: float) -> float:
        own = scaled(np.exp(logarithm))[np.arange(len(labels)), labels]
        return -float(np.log(np.maximum(own, 1e-6)).mean())

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded").x
    return scaled(np.exp(best)).astype(np.float32)


def recall(order: NDArray[np.integer], is_wrong: NDArray[np.bool_]) -> float:
    """Part of the wrong ones among as many at the head."""
    n_wrong = int(is_wrong.sum())
    return float(is_wrong[order[:n_wrong]].sum() / n_wrong)


def cleanlab_orders(
    vectors: NDArray[np.float32], labels: NDArray[np.int64], seed: int
) -> dict[str, NDArray[np.integer]]:
    """Rankings by cleanlab's scores, by name."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    models = {
        "logistic regression": LogisticRegression(max_iter=1000),
        "nearest neighbours": KNeighborsClassifier(NEIGHBORS, metric="cosine"),
    }
    folds = StratifiedKFold(CLEANLAB_FOLDS, shuffle=True, random_state=seed)
    orders = {}
    for name, model in models.items():
        found = cross_val_predict(model, vectors, labels, cv=folds, method="predict_proba")
        for score in SCORES:
            quality = get_label_quality_scores(labels, found, method=score)
            orders[f"cleanlab, {name}, {score}"] = np.argsort(quality, kind="stable")
        orders[f"cleanlab, {name}, find_label_issues"] = find_label_issues(
            labels, found, return_indices_ranked_by="self_confidence", n_jobs=1
        )
    return orders


def measure(
    collection: Collection, options: argparse.Namespace, kind: str, n_wrong: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Recall at the number of planted errors, and lengths of lists, of all draws by method."""
    recalls: dict[str, list[float]] = defaultdict(list)
    lengths: dict[str, list[float]] = defaultdict(list)
    n_labels = min(options.labels, len(collection))
    for seed in range(options.seed, options.seed + options.draws):
        rng = np.random.default_rng(seed)
        labeled = np.sort(rng.choice(len(collection), n_labels, replace=False))
        labels, is_wrong = planted(collection, collection.classes[labeled], n_wrong, kind, seed)
        shares = held_out_shares(collection, labeled, labels, seed)
        nothing = np.zeros((len(collection), collection.n_classes), np.float32)
        labeling = collection.labeling(labeled, labels, nothing, shares)
        found = suspicious_labels(collection.graph, labeling).nodes
        quality = shares[np.arange(len(labels)), labels]
        orders = {
            OURS: np.searchsorted(labeled, found),
            HELD_OUT: np.argsort(quality, kind="stable"),
        }
        if not options.without_cleanlab:
            orders |= cleanlab_orders(collection.vectors[labeled], labels, seed)
        for name, order in orders.items():
            if n_wrong:
                recalls[name].append(recall(order, is_wrong))
            if len(order) < len(labels):
                lengths[name].append(float(len(order)))
    return recalls, lengths


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--labels", type=positive, default=1000, help="labelled images")
    parser.add_argument("--wrong", type=float, default=0.1, help="part of them with a wrong label")
    parser.add_argument("--draws", type=positive, default=5, help="of labels and errors")
    options = parser.parse_args()
    if not 0 < options.wrong < 1:
        parser.error(f"--wrong: between 0 and 1, got {options.wrong:g}")
    if options.quick:
        options.draws = 2
    options.without_cleanlab = importlib.util.find_spec("cleanlab") is None
    if options.without_cleanlab:
        note("cleanlab is left out: it is not installed")
    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    for collection in collections(options):
        n_wrong = max(round(options.wrong * min(options.labels, len(collection))), 1)
        recalls, lengths = {}, {}
        for kind in KINDS:
            note(f"{collection.name}: {kind} errors")
            recalls[kind], lengths[kind] = measure(collection, options, kind, n_wrong)
        note(f"{collection.name}: no errors")
        lengths["none"] = measure(collection, options, RANDOM, 0)[1]
        rows = [
            [
                name,
                *(mean_and_error(recalls[kind][name], percent=False) for kind in KINDS),
                *(
                    f"{np.mean(lengths[kind][name]):.0f}" if name in lengths[kind] else "all"
                    for kind in (*KINDS, "none")
                ),
            ]
            for name in recalls[RANDOM]
        ]
        columns = ["", *KINDS, *(f"listed, {kind}" for kind in (*KINDS, "no errors"))]
        title = f"{collection.name}: recall among the {n_wrong} most suspicious of {n_wrong} errors"
        print_table(title, columns, rows)
        results[collection.name] = {"recall": recalls, "listed": lengths}  # type: ignore[dict-item]
    print_json(
        {
            "benchmark": "labeling_suspicious",
            "machine": machine.describe(),
            "sizes": {"labels": options.labels, "wrong": options.wrong, "draws": options.draws},
            "results": results,
        }
    )


if __name__ == "__main__":
    main()
