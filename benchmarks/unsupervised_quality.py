"""What features learnt from Fashion-MNIST without its labels are worth.

A network is trained by DeeperCluster, by DeepCluster and by RotNet, on the same images and as many
of them; one is left as it is drawn; and there are the pixels. Clusters of each one's features are
compared with the classes, the test images are recognised by their nearest neighbours and by
logistic regression, and by the diffusion over the training images from a few labels.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import resource
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from common import machine
from common.labeled import read_images
from common.learning import Diffusion, image_source, percent
from common.options import above_zero, positive
from common.output import note, print_json, print_table
from common.vectors import FASHION_MNIST
from lowshot_kedro import native
from lowshot_kedro.graph import normalize
from lowshot_kedro.images import ImageSource, ImageSubset
from lowshot_kedro.probes import Gallery
from lowshot_kedro.progress import Stopwatch
from lowshot_kedro.threads import run_in_one_thread

if TYPE_CHECKING:
    from lowshot_kedro.deepercluster.parameters import DeeperClusterParameters

DEEPERCLUSTER, DEEPCLUSTER, ROTNET = "DeeperCluster", "DeepCluster", "RotNet"
UNTRAINED, PIXELS = "untrained", "pixels"
TRAINED = (DEEPERCLUSTER, DEEPCLUSTER, ROTNET)
METHODS = (*TRAINED, UNTRAINED, PIXELS)
TEST, VALIDATION = "test", "validation"
# The part of the training images that stands for the test images when settings are chosen.
VALIDATION_PART = 6
# Inverse strengths of the penalty of the logistic regression, on columns of variance 1.
PENALTIES = (0.001, 0.01, 0.1)
MAX_STEPS = 100
PCA, WHITENED = "PCA", "whitened"
# Options from which no figure follows.
_OF_THE_RUN = ("methods", "trainings", "folder", "fashion_mnist", "threads", "workers", "device")


class Data(NamedTuple):
    """Images and classes.

    Attributes:
        train: Images that networks learn from, and that others are compared with.
        tested: Images that are recognised.
        train_classes: int64.
        test_classes: int64.
        pixels: uint8 (m, 784), of all: training images, then those that are tested.
    """

    train: ImageSource
    tested: ImageSource
    train_classes: NDArray[np.int64]
    test_classes: NDArray[np.int64]
    pixels: NDArray[np.uint8]


class Features(NamedTuple):
    """What one way makes of all images.

    Attributes:
        rows: float32 (m, d), training images, then those that are tested.
        own_clusters: Mutual information of the last clustering of the training, by its level.
        seconds: What training took.
        cpu_seconds: What it took of all processors.
    """

    rows: NDArray[np.float32]
    own_clusters: dict[str, float]
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def read_data(folder: Path, options: argparse.Namespace) -> Data:
    """Images and classes.

    Args:
        folder: Gets links to the files, as torchvision looks for them.
        options: Where the files are, how many images are learnt from, and which are tested.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is of something else.
    """
    images = read_images(options.fashion_mnist)
    train = image_source(options.fashion_mnist, folder, train=True)
    tested: ImageSource = image_source(options.fashion_mnist, folder, train=False)
    n_train = len(train)
    test_numbers = np.arange(n_train, len(images.classes))
    if options.part == VALIDATION:
        n_train -= len(train) // VALIDATION_PART
        test_numbers = np.arange(n_train, len(train))
        tested = ImageSubset(train, test_numbers)
    train_numbers = np.arange(min(options.images or n_train, n_train))
    return Data(
        ImageSubset(train, train_numbers),
        tested,
        images.classes[train_numbers],
        images.classes[test_numbers],
        images.pixels[np.concatenate([train_numbers, test_numbers])],
    )


def parameters_of(name: str, options: argparse.Namespace, seed: int) -> DeeperClusterParameters:
    """How a method trains. All see as many images in an epoch as there are.

    Args:
        name: One of :data:`TRAINED`; others get those of the first, for the network.
        options: Of all methods.
        seed: Of weights, order, augmentation and clustering.
    """
    from lowshot_kedro.deepercluster.parameters import DeeperClusterParameters

    of_method: dict[str, Any] = {
        DEEPCLUSTER: {"n_super_classes": 1, "rotation": False},
        ROTNET: {"n_super_classes": 4, "n_clusters": 1},
    }.get(name, {"n_super_classes": options.super_classes})
    return DeeperClusterParameters(
        **{"n_clusters": options.clusters, **of_method},
        images_per_epoch=options.n_train,
        network=options.network,
        sobel=options.sobel,
        dimension=options.dimension,
        n_components=min(options.components, options.dimension),
        cluster_every=options.cluster_every,
        clusters_per_super=options.clusters_per_super,
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        lr_schedule=options.lr_schedule,
        weight_decay=options.weight_decay,
        augmentation=options.augmentation,
        image_size=options.image_size,
        seed=seed,
        memory_budget_gb=0.5,
        device=options.device,
        n_processes=1,
        **({} if options.workers is None else {"num_workers": options.workers}),
    )


def train(
    name: str, data: Data, parameters: DeeperClusterParameters, folder: Path
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Train a network, or go on with a training of the same that was stopped.

    Args:
        name: One of :data:`TRAINED`.
        data: Images and classes; the classes are not learnt from.
        parameters: How it is trained.
        folder: Of the checkpoints.

    Returns:
        Its tensors, and the mutual information of its last clustering with the classes.
    """
    from lowshot_kedro.deepercluster import DeeperClusterJob, train_deepercluster

    trained = train_deepercluster(DeeperClusterJob(data.train, parameters, folder))
    own = {}
    if trained.clustering is not None:
        found = trained.clustering
        levels = {"super-clusters": found.super_labels}
        pairs = np.stack([found.super_labels, found.sub_labels], axis=1)
        levels["clusters"] = np.unique(pairs, axis=0, return_inverse=True)[1].ravel()
        own = {
            level: mutual_information(np.asarray(labels), data.train_classes)
            for level, labels in levels.items()
            if np.ptp(labels)
        }
    return trained.network, own


def features_of(
    name: str, data: Data, options: argparse.Namespace, seed: int, folder: Path
) -> Features:
    """What one way makes of all images.

    Args:
        name: One of :data:`METHODS`.
        data: Images and classes.
        options: Of network and training.
        seed: Of weights, order, augmentation and clustering.
        folder: Of the checkpoints of all trainings.
    """
    if name == PIXELS:
        return Features(data.pixels.astype(np.float32), {})
    from lowshot_kedro.devices import choose_device
    from lowshot_kedro.networks.unsupervised import unsupervised_network
    from lowshot_kedro.training.embedding import embed
    from lowshot_kedro.training.processes import Processes

    parameters = parameters_of(name, options, seed)
    watch, before = Stopwatch(), _cpu_seconds()
    tensors, own = {}, {}
    if name in TRAINED:
        tensors, own = train(name, data, parameters, folder)
    seconds, cpu_seconds = watch.seconds, _cpu_seconds() - before
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = unsupervised_network(
            parameters.network,
            parameters.sobel,
            parameters.dimension,
            parameters.weights,
            parameters.image_size,
        )
    if tensors:
        network.load_state_dict(tensors)
    processes = Processes(0, 1, choose_device(options.device))
    network = network.to(processes.device, memory_format=torch.channels_last)
    rows = [
        embed(network, images, parameters, processes).cpu().numpy()
        for images in (data.train, data.tested)
    ]
    return Features(np.concatenate(rows), own, seconds, cpu_seconds)


def vectors_of(
    features: NDArray[np.float32], n_train: int, n_columns: int
) -> dict[str, NDArray[np.float32]]:
    """Vectors of length 1 by what was done to features, float32 (m, n_columns).

    `PCA` is what the pipelines make of features, `whitened` what is clustered in a training. Both
    follow from the training images.
    """
    from lowshot_kedro.deepercluster import fit_whitening

    n_columns = min(n_columns, features.shape[1])
    pca = faiss.PCAMatrix(features.shape[1], n_columns, 0, True)
    run_in_one_thread(pca.train, features[:n_train])
    return {
        PCA: normalize(pca.apply(features), 0, PCA),
        WHITENED: fit_whitening(features[:n_train], n_columns).apply(features),
    }


def mutual_information(
    labels: NDArray[np.integer[Any]], classes: NDArray[np.integer[Any]]
) -> float:
    """Normalised by the mean of both entropies: 0..1."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(classes, labels))


def clusters_and_classes(
    vectors: NDArray[np.float32], classes: NDArray[np.int64], n_clusters: int, seed: int
) -> float:
    """Mutual information of classes with as many clusters of vectors, which are made anew."""
    from lowshot_kedro.deepercluster import kmeans

    found = kmeans(vectors, n_clusters, n_iterations=20, seed=seed)
    return mutual_information(found.labels, classes)


def linear_accuracy(features: NDArray[np.float32], data: Data) -> float:
    """Accuracy of multinomial logistic regression on features whose columns have variance 1.

    Its penalty is the best of :data:`PENALTIES` for a sixth of the training images, learnt from
    another sixth. It ends after :data:`MAX_STEPS` steps of L-BFGS.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    n_train, classes = len(data.train_classes), data.train_classes
    rows = features - features[:n_train].mean(axis=0)
    deviation = rows[:n_train].std(axis=0)
    rows /= np.where(deviation > 0, deviation, 1)
    order = np.random.default_rng(0).permutation(n_train)
    fitted, judged = order[: n_train // 6], order[n_train // 6 : n_train // 3]

    def regression(penalty: float, numbers: Any) -> LogisticRegression:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=penalty, max_iter=MAX_STEPS)
            return model.fit(rows[numbers], classes[numbers])

    best = max(
        PENALTIES,
        key=lambda penalty: regression(penalty, fitted).score(rows[judged], classes[judged]),
    )
    model = regression(best, slice(n_train))
    return float(model.score(rows[n_train:], data.test_classes))


def neighbor_accuracy(
    vectors: NDArray[np.float32], data: Data, options: argparse.Namespace
) -> float:
    """Accuracy by the nearest of all training images."""
    n_train = len(data.train_classes)
    n_classes = int(data.train_classes.max()) + 1
    gallery = Gallery(vectors[:n_train], data.train_classes, n_classes)
    (found,) = gallery.accuracies(
        vectors[n_train:], data.test_classes, (options.k,), options.temperature, (1,)
    )
    return found["top1"]


def diffusion_accuracies(
    vectors: NDArray[np.float32], data: Data, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Accuracies of the diffusion by the number of labels a class, one for each choice of them."""
    n_train, classes = len(data.train_classes), data.train_classes
    diffusion = Diffusion(vectors[:n_train], vectors[n_train:], options.neighbors)
    found: dict[str, list[float]] = {}
    for n_labeled in options.labels:
        accuracies = []
        for seed in options.seeds:
            rng = np.random.default_rng([seed, n_labeled])
            labeled = np.concatenate(
                [
                    rng.choice(np.flatnonzero(classes == label), n_labeled, replace=False)
                    for label in np.unique(classes)
                ]
            )
            shares = diffusion.shares(labeled, classes[labeled], options.iterations)
            guesses = np.unique(classes)[shares.argmax(axis=1)]
            accuracies.append(float((guesses == data.test_classes).mean()))
        found[str(n_labeled)] = accuracies
    return found


def measure(
    name: str, data: Data, options: argparse.Namespace, seed: int, folder: Path
) -> dict[str, Any]:
    """All figures of one way to make features, for one training."""
    note(f"{name}, training {seed}")
    found = features_of(name, data, options, seed, folder)
    note(f"{name}, training {seed}: {found.seconds:.0f} s; figures")
    n_train = len(data.train_classes)
    vectors = vectors_of(found.rows, n_train, options.components)
    whitened = vectors[WHITENED][:n_train]
    return {
        "seconds_of_training": found.seconds,
        "cpu_seconds_of_training": found.cpu_seconds,
        "own_clusters": found.own_clusters,
        "clusters": {
            str(k): clusters_and_classes(whitened, data.train_classes, k, seed)
            for k in options.measured_clusters
        },
        "linear": linear_accuracy(found.rows, data),
        "knn": {kind: neighbor_accuracy(each, data, options) for kind, each in vectors.items()},
        "diffusion": {
            kind: diffusion_accuracies(each, data, options) for kind, each in vectors.items()
        },
    }


def kept(folder: Path, facts: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> Any:
    """Figures of an earlier run from the same facts, or new ones, which are kept."""
    text = json.dumps(facts, sort_keys=True, default=str)
    path = folder / f"figures-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    if path.is_file():
        return json.loads(path.read_text())["figures"]
    figures = make()
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"facts": json.loads(text), "figures": figures}))
    partial.rename(path)
    return figures


def of_clusters(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A row of the table of clusters, over trainings."""
    cells = {
        f"{n_clusters} clusters": share([each["clusters"][n_clusters] for each in found])
        for n_clusters in found[0]["clusters"]
    }
    for level in found[0]["own_clusters"]:
        cells[f"its own {level}"] = share([each["own_clusters"][level] for each in found])
    return cells


def of_classes(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A row of the table of accuracies with all labels, over trainings."""
    cells = {
        f"k-NN, {kind}": percent([each["knn"][kind] for each in found]) for kind in found[0]["knn"]
    }
    cells["linear"] = percent([each["linear"] for each in found])
    cells["CPU minutes"] = (
        f"{np.mean([each['cpu_seconds_of_training'] for each in found]) / 60:.1f}"
    )
    return cells


def of_diffusion(found: Sequence[Mapping[str, Any]], kind: str) -> dict[str, str]:
    """A row of the table of the diffusion, over trainings and choices of labels."""
    return {
        f"n = {n_labeled}": percent(
            [draw for each in found for draw in each["diffusion"][kind][n_labeled]]
        )
        for n_labeled in found[0]["diffusion"][kind]
    }


def share(values: Sequence[float]) -> str:
    """Mean, and sample standard deviation of several."""
    mean = f"{np.mean(values):.3f}"
    return f"{mean} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else mean


def print_tables(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """For people: a row for each way to make features."""
    tables: dict[str, Callable[[Sequence[Mapping[str, Any]]], dict[str, str]]] = {
        "mutual information of clusters with the classes": of_clusters,
        "all labels, top-1 (%)": of_classes,
        **{
            f"the diffusion over {kind} vectors, n labels a class, top-1 (%)": (
                lambda found, kind=kind: of_diffusion(found, kind)
            )
            for kind in (PCA, WHITENED)
        },
    }
    for title, cells_of in tables.items():
        rows = {name: cells_of(found) for name, found in results.items()}
        columns = list(dict.fromkeys(column for row in rows.values() for column in row))
        table = [[name, *(row.get(column, "") for column in columns)] for name, row in rows.items()]
        print_table(title, ("features", *columns), table)


def parser_of_options() -> argparse.ArgumentParser:
    """Data, networks and measurements."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--methods", nargs="+", default=METHODS, choices=METHODS, help="what to compare")
    add("--part", default=TEST, choices=(TEST, VALIDATION), help=(
        "what is tested: the test images, or a sixth of the training images, which then are not "
        "learnt from, to choose settings"
    ))  # fmt: skip
    add("--images", type=positive, help="training images that are used, the first; default: all")
    add("--network", default="small", help="a name for deepercluster.network")
    add("--sobel", action="store_true", help="have it see the edges of a grey image")
    add("--dimension", type=positive, default=128, help="of a feature")
    add("--image-size", type=positive, default=32, help="of the network's input")
    add("--augmentation", default="imagenet", help="as for deepercluster.augmentation")
    add("--epochs", type=positive, default=9, help="as many images each as there are")
    add("--batch-size", type=positive, default=128, help="of a training")
    add("--lr", type=above_zero, default=0.1, help="at the beginning")
    add("--lr-schedule", default="constant", help="as for deepercluster.lr_schedule")
    add("--weight-decay", type=float, default=1e-5, help="of a training")
    add("--super-classes", type=positive, default=16, help="of DeeperCluster")
    add("--clusters", type=positive, default=64, help="of DeeperCluster and DeepCluster, in all")
    add("--clusters-per-super", default="fixed", help="as for deepercluster.clusters_per_super")
    add("--cluster-every", type=positive, default=3, help="epochs from one clustering to the next")
    add("--components", type=positive, default=64, help="columns after PCA and whitening")
    add("--trainings", nargs="+", type=int, default=[0, 1, 2], help="seeds, a training for each")
    add("--measured-clusters", nargs="+", type=positive, default=[10, 100], help="of features")
    add("--k", type=positive, default=20, help="neighbours")
    add("--temperature", type=above_zero, default=0.07, help="of neighbours' weights")
    add("--labels", nargs="+", type=positive, default=[1, 2, 5, 10], help="of a class")
    add("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5], help="of labelled images")
    add("--neighbors", type=positive, default=30, help="of the diffusion's graph")
    add("--iterations", type=positive, default=6, help="steps of the diffusion")
    add("--folder", type=Path, help="keeps checkpoints and figures for the next run; default: none")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="that trains")
    add("--workers", type=int, help="processes that decode images; default: one for every core")
    add("--fashion-mnist", type=Path, default=FASHION_MNIST, help="folder of the images")
    add("--threads", type=positive, default=native.get_num_threads(), help="for everybody")
    return parser


def run(options: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Figures of each way to make features, one for each training.

    Raises:
        FileNotFoundError: If a file of images is missing.
        ValueError: If one is of something else.
    """
    data = read_data(folder / "images", options)
    options.n_train = len(data.train_classes)
    facts = {name: value for name, value in vars(options).items() if name not in _OF_THE_RUN}
    note(f"{len(data.train)} images to learn from, {len(data.tested)} to be recognised")
    return {
        name: [
            kept(
                folder,
                {"method": name, "training": seed, **facts},
                lambda name=name, seed=seed: measure(name, data, options, seed, folder / name),
            )
            # Pixels are the same however often one trains.
            for seed in options.trainings[: 1 if name == PIXELS else None]
        ]
        for name in options.methods
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and the line of JSON last."""
    options = parser_of_options().parse_args(arguments)
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    machine.set_threads(options.threads)
    logging.basicConfig(format="  %(message)s")  # to standard error
    # A line for each epoch and clustering.
    for part in ("training", "deepercluster"):
        logging.getLogger(f"lowshot_kedro.{part}").setLevel(logging.INFO)
    results, skipped = {}, {}
    with tempfile.TemporaryDirectory(prefix="unsupervised-quality-") as temporary:
        try:
            results = run(options, options.folder or Path(temporary))
        except FileNotFoundError as error:
            skipped["Fashion-MNIST"] = str(error)
    if results:
        print_tables(results)
    for what, reason in skipped.items():
        print(f"skipped {what}: {reason}")
    not_told = ("fashion_mnist", "folder")
    print_json(
        {
            "benchmark": "unsupervised_quality",
            "machine": machine.describe(),
            "options": {key: value for key, value in vars(options).items() if key not in not_told},
            "results": results,
            "skipped": skipped,
        }
    )


def _cpu_seconds() -> float:
    """Of this process, and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
