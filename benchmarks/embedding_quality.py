"""What embeddings of Fashion-MNIST are worth: those of SNCA, of cross-entropy, and of no training.

A network is trained on base classes by SNCA, and one of the same kind by cross-entropy; one is
left as it is drawn; and there are the pixels. On each one's embeddings the test images of base
classes are recognised by their nearest neighbours, those of novel classes by one and by five
labelled images a class, and those of all by the diffusion over the training images.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common import machine, published
from common.idx import CLASSES, IMAGES, SIDE, find_idx
from common.labeled import Images, read_images
from common.options import positive
from common.output import note, print_json, print_table
from common.vectors import FASHION_MNIST
from lowshot_kedro import LabelDiffusion, native
from lowshot_kedro.graph import normalize
from lowshot_kedro.images import ImageSource, ImageSubset, TorchvisionImages
from lowshot_kedro.metrics import GROUPS, accuracies
from lowshot_kedro.networks.embedding import embedding_network
from lowshot_kedro.probes import Gallery
from lowshot_kedro.progress import Stopwatch
from lowshot_kedro.protocol import MODES, ClassSplit, read_class_split, select_images
from lowshot_kedro.snca.evaluation import EvaluationPlan, KnnEvaluation, evaluate, plan_evaluation
from lowshot_kedro.training.batches import LearntBatch
from lowshot_kedro.training.loop import Objective, train
from lowshot_kedro.training.parameters import TrainingParameters

if TYPE_CHECKING:
    from lowshot_kedro.snca import SNCALoss

SNCA, CROSS_ENTROPY, UNTRAINED, PIXELS = "SNCA", "cross-entropy", "untrained", "pixels"
EMBEDDINGS = (SNCA, CROSS_ENTROPY, UNTRAINED, PIXELS)
# The split of conf/fashion_mnist, with as few images, and one with half of the classes each.
ENVIRONMENT, HALVES = "environment", "halves"
IMAGES_PER_CLASS = {ENVIRONMENT: 500, HALVES: 6000}
EPOCHS = {ENVIRONMENT: 30, HALVES: 8}
_LOW, _HIGH = [1, 2, 3, 4, 5], [6, 7, 8, 9, 10]
ALL_BASE = {
    "base_classes_1": _HIGH,
    "novel_classes_1": _LOW,
    "base_classes_2": _LOW,
    "novel_classes_2": _HIGH,
}


class Data(NamedTuple):
    """Images, which of them may be labelled, and the classes.

    Attributes:
        images: All images: training images, then test images.
        source: The training images as a trainer reads them.
        n_train: Training images.
        labeled: int64, positions of the training images that may be labelled.
        split: Base and novel classes.
    """

    images: Images
    source: ImageSource
    n_train: int
    labeled: NDArray[np.int64]
    split: ClassSplit

    @property
    def train_labels(self) -> NDArray[np.int32]:
        """int32, of the training images that may be labelled."""
        return self.images.classes[self.labeled].astype(np.int32)

    @property
    def test_labels(self) -> NDArray[np.int32]:
        """int32, of the test images."""
        return self.images.classes[self.n_train :].astype(np.int32)

    def trained(self) -> NDArray[np.int64]:
        """Positions, among those that may be labelled, of the images of base classes."""
        return np.flatnonzero(np.isin(self.train_labels, self.split.base_classes))


@dataclass(frozen=True)
class Embedded:
    """What one way makes of all images.

    Attributes:
        rows: float32 (m, d) of length 1, training images, then test images.
        bank: What SNCA remembers of the images it was trained on; None: nothing.
        seconds: What training took.
    """

    rows: NDArray[np.float32]
    bank: NDArray[np.float32] | None = None
    seconds: float = 0.0


class LossAlone(Objective):
    """A loss of outputs and numbers of images. What it remembers no checkpoint keeps.

    Args:
        loss: (outputs, index) → scalar.
    """

    def __init__(self, loss: Any) -> None:
        self._loss = loss

    def __call__(self, outputs: torch.Tensor, batch: LearntBatch) -> torch.Tensor:
        """The loss of a batch."""
        value: torch.Tensor = self._loss(outputs, batch.numbers)
        return value


def training_parameters(options: argparse.Namespace, seed: int) -> TrainingParameters:
    """The same for both losses."""
    return TrainingParameters(
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        lr_schedule="cosine",
        lr_step_epochs=1,
        weight_decay=5e-4,
        augmentation=options.augmentation,
        image_size=SIDE,
        seed=seed,
        eval_every=options.epochs,
        device=options.device,
    )


def new_network(options: argparse.Namespace, seed: int) -> nn.Module:
    """A network as it is drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return embedding_network(options.network, options.dimension)


def train_network(
    loss: str, images: ImageSource, options: argparse.Namespace, seed: int
) -> tuple[nn.Module, NDArray[np.float32] | None]:
    """A network trained on base classes, by the project's training loop.

    Cross-entropy has a linear layer from the embedding, before it is brought to length 1, to the
    classes.

    Args:
        loss: :data:`SNCA` or :data:`CROSS_ENTROPY`.
        images: Of base classes.
        options: Of the network and its training.
        seed: Of weights, order and augmentation.

    Returns:
        The network whose outputs are embeddings, and for SNCA the bank.
    """
    from lowshot_kedro.devices import choose_device
    from lowshot_kedro.snca import SNCALoss
    from lowshot_kedro.training.checkpoints import Checkpoints
    from lowshot_kedro.training.processes import Processes

    network = new_network(options, seed)
    _, classes = np.unique(images.labels, return_inverse=True)
    device = choose_device(options.device)
    targets = torch.from_numpy(classes.astype(np.int64)).to(device)
    bank: SNCALoss | None = None
    trained = network
    if loss == SNCA:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bank = SNCALoss(targets.cpu(), options.dimension, temperature=options.temperature)
        objective = LossAlone(bank.to(device))
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = nn.Linear(options.dimension, int(targets.max()) + 1)
        trained = nn.Sequential(network.network, head)
        objective = LossAlone(
            lambda outputs, index: nn.functional.cross_entropy(outputs, targets[index])
        )
    processes = Processes(0, 1, device)
    with tempfile.TemporaryDirectory(prefix="embedding-quality-") as folder:
        checkpoints = Checkpoints(Path(folder), {"loss": loss, "seed": seed}, processes)
        parameters = training_parameters(options, seed)
        train(trained, objective, images, parameters, checkpoints, processes)
    return network, None if bank is None else bank.bank.detach().cpu().numpy()


def outputs_of(
    network: nn.Module, pixels: NDArray[np.uint8], options: argparse.Namespace
) -> NDArray[np.float32]:
    """Embeddings of images, float32 (m, dimension)."""
    from lowshot_kedro.devices import choose_device
    from lowshot_kedro.training.transforms import RECIPES

    device = choose_device(options.device)
    scale = RECIPES[options.augmentation].preprocessing(SIDE).normalize
    network = network.to(device).eval()
    parts = []
    with torch.inference_mode():
        for block in torch.from_numpy(pixels).split(1000):
            grey = block.reshape(-1, 1, SIDE, SIDE).expand(-1, 3, -1, -1)
            parts.append(network(scale(grey.to(device))).float().cpu())
    return torch.cat(parts).numpy()


def embedded(name: str, data: Data, options: argparse.Namespace, seed: int) -> Embedded:
    """What one way makes of all images."""
    pixels = data.images.pixels
    if name == PIXELS:
        return Embedded(normalize(pixels.astype(np.float32), 0, PIXELS))
    watch, bank = Stopwatch(), None
    if name == UNTRAINED:
        network = new_network(options, seed)
    else:
        positions = data.labeled[data.trained()]
        network, bank = train_network(name, ImageSubset(data.source, positions), options, seed)
    seconds = watch.seconds
    return Embedded(normalize(outputs_of(network, pixels, options), 0, name), bank, seconds)


class Diffusion:
    """Label diffusion over all training images, labelled or not.

    Args:
        data: Images and classes.
        rows: float32 (m, d) of length 1, of all images.
        n_neighbors: Neighbours of an image.
    """

    def __init__(self, data: Data, rows: NDArray[np.float32], n_neighbors: int) -> None:
        self._data = data
        nodes, tested = rows[: data.n_train], rows[data.n_train :]
        # Of this fit the graph alone is wanted. All labels but one, so that nothing warns.
        labels = data.images.classes[: data.n_train].copy()
        labels[0] = -1
        model = LabelDiffusion(n_neighbors, 1, metric="cosine").fit(nodes, labels)
        self._neighbors = (model.neighbors_, None)
        nearest = Gallery(nodes, np.zeros(len(nodes), np.int32), 1).nearest(tested, n_neighbors)
        self._test_neighbors = nearest.indices

    def accuracies(self, n_labeled: int, seed: int, n_iterations: int) -> dict[str, float]:
        """Top-1 accuracies over all test images of the split, those of novel and of base classes.

        Args:
            n_labeled: Labelled images of every novel class; base classes have all.
            seed: Draws them, as for the pipelines.
            n_iterations: Steps.
        """
        data = self._data
        chosen = select_images(data.split, data.train_labels, data.test_labels, n_labeled, seed)
        labels = np.full(data.n_train, -1)
        labels[data.labeled[chosen.labeled_positions]] = chosen.labeled_classes
        model = LabelDiffusion(
            n_iterations=n_iterations, metric="precomputed", class_prior="uniform"
        )
        model.fit(self._neighbors, labels)
        asked = (self._test_neighbors[chosen.test_positions], None)
        shares = model.predict_proba(asked).astype(np.float32)
        found = accuracies(shares, chosen.test_classes, chosen.is_novel, (1,))
        return {name: value for name, value in found.items() if value is not None}


def knn_plan(data: Data, options: argparse.Namespace) -> EvaluationPlan:
    """Which images are compared with which."""
    settings = KnnEvaluation(
        (1, *options.k), options.temperature, tuple(options.labels), tuple(options.seeds)
    )
    return plan_evaluation(
        data.split, data.train_labels, data.test_labels, data.trained(), settings
    )


def measure(name: str, data: Data, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """All accuracies of one way to embed images, for one training."""
    note(f"{name}, training {seed}")
    found = embedded(name, data, options, seed)
    rows, tested = found.rows[data.labeled], found.rows[data.n_train :]
    plan = knn_plan(data, options)
    bank = rows[plan.base.gallery] if found.bank is None else found.bank
    knn = evaluate(plan, bank, rows, tested)
    if found.bank is None:
        del knn["base"]["bank"]
    note(f"{name}, training {seed}: diffusion")
    diffusion = Diffusion(data, found.rows, options.neighbors)
    return {
        "seconds_of_training": found.seconds,
        "knn": knn,
        "diffusion": {
            str(n_labeled): [
                diffusion.accuracies(n_labeled, draw, options.iterations) for draw in options.seeds
            ]
            for n_labeled in options.labels
        },
    }


def base_cells(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A row of the table of base classes, over trainings."""
    return {
        f"{title}k={entry['k']}": percent(
            [each["knn"]["base"][name][row]["top1"] for each in found]
        )
        for name, title in (("fresh", ""), ("bank", "bank, "))
        for row, entry in enumerate(found[0]["knn"]["base"].get(name, []))
    }


def novel_cells(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A row of the table of novel classes: means over trainings of mean and deviation of draws."""
    cells = {}
    for row, entry in enumerate(found[0]["knn"]["novel"]["results"]):
        each = [of_one["knn"]["novel"]["results"][row] for of_one in found]
        cell = percent([result["top1_mean"] for result in each]).partition(" ")[0]
        if entry["top1_std"] is not None:
            cell += f" ± {100 * np.mean([result['top1_std'] for result in each]):.1f}"
        cells[f"n={entry['n_labeled']}, k={entry['k']}"] = cell
    return cells


def diffusion_cells(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A row of the table of the diffusion, over trainings and draws."""
    words = dict(zip(GROUPS, ("all", "novel", "base"), strict=True))
    return {
        f"{words[group]}, n={n_labeled}": percent(
            [draw[f"top1{group}"] for each in found for draw in each["diffusion"][n_labeled]]
        )
        for n_labeled in found[0]["diffusion"]
        for group in GROUPS
    }


def percent(values: Sequence[float]) -> str:
    """Mean, and sample standard deviation of several."""
    mean = f"{100 * np.mean(values):.1f}"
    return f"{mean} ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else mean


def print_tables(
    split: str, data: Data, results: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    """For people: a row for each way to embed images."""
    n_base, n_novel = len(data.split.base_classes), len(data.split.novel_classes)
    print(
        f"{split}: {n_base} base and {n_novel} novel classes, {len(data.labeled)} labelled images"
    )
    tables = {
        "base classes, by neighbours": base_cells,
        "novel classes, by neighbours among n labelled images of each": novel_cells,
        "the diffusion, n labelled images of each novel class": diffusion_cells,
    }
    for title, cells_of in tables.items():
        rows = {name: cells_of(found) for name, found in results.items()}
        columns = list(dict.fromkeys(column for row in rows.values() for column in row))
        table = [[name, *(row.get(column, "") for column in columns)] for name, row in rows.items()]
        print_table(f"{split}, top-1 (%): {title}", ("embedding", *columns), table)


def read_data(split: str, folder: Path, options: argparse.Namespace) -> Data:
    """Images and classes of a split.

    Args:
        split: :data:`ENVIRONMENT` or :data:`HALVES`.
        folder: Gets links to the files, as torchvision looks for them.
        options: Where the files are, and how many images of a class may be labelled.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is of something else.
    """
    images = read_images(options.fashion_mnist)
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        for what in (IMAGES, CLASSES):
            path = find_idx(options.fashion_mnist, part, what)
            if path is not None and not (raw / path.name).exists():
                (raw / path.name).symlink_to(path.resolve())
    source = TorchvisionImages("FashionMNIST", folder, arguments={"train": True})
    n_train = len(source)
    n_of_class = options.images_per_class or IMAGES_PER_CLASS[split]
    labels = images.classes[:n_train]
    labeled = np.concatenate(
        [np.flatnonzero(labels == label)[:n_of_class] for label in np.unique(labels)]
    )
    content = (
        published.read_class_split_file(published.CLASS_SPLIT) if split == ENVIRONMENT else ALL_BASE
    )
    split_of_mode = read_class_split(content, options.mode)
    return Data(images, source, n_train, np.sort(labeled), split_of_mode)


def defaults(of_splits: Mapping[str, int]) -> str:
    """What the help says of numbers that differ between splits."""
    return ", ".join(f"{number} for {split}" for split, number in of_splits.items())


def parser_of_options() -> argparse.ArgumentParser:
    """Data, networks and measurements."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--splits", nargs="+", default=[ENVIRONMENT, HALVES], choices=IMAGES_PER_CLASS)
    add("--mode", default="test", choices=MODES, help="val: classes that choose hyper-parameters")
    add("--embeddings", nargs="+", default=EMBEDDINGS, choices=EMBEDDINGS, help="what to compare")
    default = defaults(IMAGES_PER_CLASS)
    add("--images-per-class", type=positive, help=f"that may be labelled; default: {default}")
    add("--network", default="small", help="a name for snca.network")
    add("--dimension", type=positive, default=64, help="of an embedding")
    add("--epochs", type=positive, help=f"of a training; default: {defaults(EPOCHS)}")
    add("--batch-size", type=positive, default=128, help="of a training")
    add("--lr", type=float, default=0.01, help="at the beginning; it falls along a cosine")
    add("--augmentation", default="shift_and_flip", help="as for snca.augmentation")
    add("--temperature", type=float, default=0.05, help="of SNCA, and of neighbours' weights")
    add("--trainings", nargs="+", type=int, default=[0], help="seeds, a training for each")
    add("--k", nargs="+", type=positive, default=[5, 30], help="neighbours, besides 1")
    add("--labels", nargs="+", type=positive, default=[1, 5], help="images of a novel class")
    add("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5], help="of labelled images")
    add("--neighbors", type=positive, default=30, help="of the diffusion's graph")
    add("--iterations", type=positive, default=6, help="steps of the diffusion")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="that trains")
    add("--fashion-mnist", type=Path, default=FASHION_MNIST, help="folder of the images")
    add("--threads", type=positive, default=native.get_num_threads(), help="for everybody")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and the line of JSON last."""
    options = parser_of_options().parse_args(arguments)
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    machine.set_threads(options.threads)
    logging.basicConfig(format="  %(message)s")  # to standard error
    # A line for each epoch.
    logging.getLogger("lowshot_kedro.training").setLevel(logging.INFO)
    results: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for split in options.splits:
        with tempfile.TemporaryDirectory(prefix="embedding-quality-") as folder:
            try:
                data = read_data(split, Path(folder), options)
            except (FileNotFoundError, ValueError) as error:
                skipped[split] = str(error)
                continue
            of_split = argparse.Namespace(**vars(options))
            of_split.epochs = options.epochs or EPOCHS[split]
            found = {
                # Pixels are the same however often one trains.
                name: [
                    measure(name, data, of_split, seed)
                    for seed in options.trainings[: 1 if name == PIXELS else None]
                ]
                for name in options.embeddings
            }
        print_tables(split, data, found)
        results[split] = found
    for split, reason in skipped.items():
        print(f"skipped {split}: {reason}")
    print_json(
        {
            "benchmark": "embedding_quality",
            "machine": machine.describe(),
            "options": {
                key: value for key, value in vars(options).items() if key != "fashion_mnist"
            },
            "results": results,
            "skipped": skipped,
        }
    )


if __name__ == "__main__":
    main()
