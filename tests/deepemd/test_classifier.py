"""DeepEMD as a classifier of easyfsl."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from easyfsl.datasets import FeaturesDataset
from easyfsl.samplers import TaskSampler, task_sampler
from easyfsl.utils import evaluate
from torch import nn
from torch.utils.data import DataLoader, Sampler

from lowshot_kedro import deepemd
from lowshot_kedro.deepemd import DeepEMD, emd_logits, structured_prototypes
from lowshot_kedro.deepemd.parameters import DeepEMDParameters
from lowshot_kedro.deepemd.regions import view_transform, with_pyramid
from lowshot_kedro.deepemd.solvers import POTSolver
from lowshot_kedro.errors import InputError
from lowshot_kedro.networks import create_dense_network
from tests.networks.helpers import noise, with_random_state


def small_backbone(seed=0):
    """A network with maps of 2 × 2 for images of 8 pixels."""
    layers = nn.Sequential(
        nn.Conv2d(3, 5, 4, stride=4), nn.BatchNorm2d(5), nn.LeakyReLU(0.1), nn.Conv2d(5, 6, 1)
    )
    return with_random_state(layers, seed)


def images(n, seed=0, shape=(3, 8, 8)):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def reference():
    with np.load(Path(__file__).with_name("reference_classifier.npz")) as file:
        return dict(file)


def reference_episode(seed, n_channels, side):
    rng = np.random.default_rng(seed)
    shape = (5, n_channels, side, side)
    classes = rng.standard_normal(shape)
    blocks = [classes + 0.8 * rng.standard_normal(shape) for _ in range(4)]
    blocks = [np.where(block < 0, 0.1 * block, block).astype(np.float32) * 0.5 for block in blocks]
    return torch.from_numpy(blocks[0]), torch.from_numpy(np.concatenate(blocks[1:]))


def test_logits_of_the_original(reference):
    support, queries = reference_episode(11, 64, 3)
    check = [float(support.sum()), float(queries.sum())]
    np.testing.assert_allclose(check, reference["small_in_check"][:2], rtol=1e-4)
    model = DeepEMD(nn.Identity())
    model.process_support_set(support, torch.arange(5))
    logits = model(queries)
    np.testing.assert_allclose(logits, reference["small_exact_logits"], rtol=1e-4, atol=1e-5)
    # Columns are classes, in whatever order support images come.
    order = torch.tensor([3, 0, 4, 2, 1])
    model.process_support_set(support[order], order)
    torch.testing.assert_close(model(queries), logits)
    model.process_support_set(support, [0, 1, 2, 3, 4])
    torch.testing.assert_close(model(queries), logits)


def test_images_of_several_shots_in_the_order_of_easyfsl():
    backbone = small_backbone()
    support, queries = images(6), images(4, 1)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    model = DeepEMD(backbone, seed=7, prototype_lr=2.0, prototype_passes=3, temperature=9.0)
    with torch.no_grad():
        model.process_support_set(support, labels)
        scores = model(queries)
        # One of each class, then the others.
        in_turn = backbone(support)[[0, 2, 4, 1, 3, 5]]
        of_the_temperature = DeepEMD(nn.Identity(), prototype_passes=0, temperature=9.0)
        of_the_temperature.process_support_set(in_turn, labels.reshape(3, 2).T.flatten())
        torch.testing.assert_close(
            of_the_temperature.prototypes, in_turn.reshape(2, 3, 6, 2, 2).mean(0)
        )
    assert model.prototypes.shape == (3, 6, 2, 2)
    assert (model.prototypes - of_the_temperature.prototypes).abs().max() > 1e-4
    expected = emd_logits(backbone(queries), model.prototypes, temperature=9.0)
    torch.testing.assert_close(scores, expected)


def test_prototypes_are_those_of_the_structured_layer_and_follow_from_the_seed():
    maps = images(6, shape=(6, 2, 2))
    labels = torch.tensor([2, 1, 0, 2, 0, 1])
    in_turn = maps[[2, 1, 0, 4, 5, 3]]
    expected = [
        structured_prototypes(
            in_turn, 3, 2, lr=5.0, n_passes=4, batch_size=3,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (4, 5)
    ]  # fmt: skip
    options = {"prototype_lr": 5.0, "prototype_passes": 4, "prototype_batch_size": 3}

    def prototypes(model):
        model.process_support_set(maps, labels)
        return model.prototypes

    model = DeepEMD(nn.Identity(), seed=4, **options)
    for _ in range(2):
        assert torch.equal(prototypes(model), expected[0])
    assert torch.equal(prototypes(DeepEMD(nn.Identity(), seed=5, **options)), expected[1])
    assert not torch.equal(*expected)
    own = DeepEMD(nn.Identity(), generator=torch.Generator().manual_seed(4), **options)
    assert torch.equal(prototypes(own), expected[0])
    assert not torch.equal(prototypes(own), expected[0])


def test_gradients_reach_the_network_through_queries_and_support():
    backbone = small_backbone()
    support, queries = images(3).requires_grad_(), images(6, 1).requires_grad_()
    model = DeepEMD(backbone)
    model.process_support_set(support, torch.arange(3))
    loss = nn.functional.cross_entropy(model(queries), torch.arange(6) % 3)
    loss.backward()
    for tensor in (support, queries, backbone[0].weight):
        assert bool(tensor.grad.isfinite().all())
        assert float(tensor.grad.abs().max()) > 0
    # Against differences, in double precision.
    double = small_backbone().double()

    @torch.no_grad()
    def loss_of(shift):
        inputs = support.detach().double()
        inputs[0, 0, 0, 0] += shift
        model = DeepEMD(double)
        model.process_support_set(inputs, torch.arange(3))
        scores = model(queries.detach().double())
        return float(nn.functional.cross_entropy(scores, torch.arange(6) % 3))

    difference = (loss_of(1e-5) - loss_of(-1e-5)) / 2e-5
    assert float(support.grad[0, 0, 0, 0]) == pytest.approx(difference, rel=1e-3, abs=1e-7)


class Separable(FeaturesDataset):
    """Four kinds of images, told apart by their colour."""

    def __init__(self, prepare=lambda image: image):
        labels = [number % 4 for number in range(32)]
        colors = torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 0, 3], [3, 3, 0]])
        pixels = 0.2 * images(32)
        pixels += colors[labels][:, :, None, None]
        super().__init__(labels, torch.stack([prepare(image) for image in pixels]), list("abcd"))


@pytest.fixture(autouse=True)
def samplers_take_arguments(monkeypatch):
    """PyTorch 2.14 has taken away an argument that easyfsl 1.5 gives to its base class."""
    monkeypatch.setattr(task_sampler, "random", random.Random(0))
    monkeypatch.setattr(Sampler, "__init__", lambda self, data_source=None: None)


def tasks(dataset, n_shot):
    sampler = TaskSampler(dataset, n_way=3, n_shot=n_shot, n_query=2, n_tasks=3)
    return DataLoader(
        dataset, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn, num_workers=0
    )


@pytest.mark.parametrize("variant, n_shot", [("fcn", 1), ("fcn", 3), ("pyramid", 1)])
def test_tasks_of_easyfsl(variant, n_shot):
    model = DeepEMD(nn.AvgPool2d(4), variant, prototype_passes=5)
    assert evaluate(model, tasks(Separable(), n_shot), "cpu", use_tqdm=False) == 1


def test_tasks_of_easyfsl_on_patches_and_on_features_that_are_there_already():
    def corners(image):
        return torch.stack([image[:, y : y + 4, x : x + 4] for y in (0, 4) for x in (0, 4)])

    backbone = nn.AvgPool2d(4)
    model = DeepEMD(backbone, "grid")
    assert evaluate(model, tasks(Separable(corners), 1), "cpu", use_tqdm=False) == 1

    @torch.no_grad()
    def features(image):
        return backbone(image[None])[0]

    model = DeepEMD(nn.Identity())
    assert evaluate(model, tasks(Separable(features), 2), "cpu", use_tqdm=False) == 1
    assert not DeepEMD.is_transductive()


def test_three_lines_with_a_network_of_the_package():
    dense = create_dense_network("timm/test_resnet", "none", 64)
    for variant in ("fcn", "pyramid", "grid", "sampling"):
        view = variant if variant in ("grid", "sampling") else "map"
        transform = view_transform(dense, view, DeepEMDParameters(patch_list=(2,), n_patches=3))
        inputs = torch.stack([transform(noise((70, 90), number)) for number in range(4)])
        model = DeepEMD(dense, variant, feature_pyramid=(1,)).eval()
        with torch.no_grad():
            model.process_support_set(inputs[:2], torch.tensor([1, 0]))
            scores = model(inputs)
        assert scores.shape == (4, 2)
        # An image is most like itself, at no cost at all.
        np.testing.assert_allclose(scores[[0, 1], [1, 0]], 12.5, rtol=1e-5)
        assert bool((scores[[0, 1], [0, 1]] < 12.4999).all())


def test_a_pyramid_has_its_own_sides():
    backbone, support = small_backbone(), images(2)
    model = DeepEMD(backbone, "pyramid", feature_pyramid=[1, 2])
    features = model.compute_features(support)
    assert torch.equal(features, with_pyramid(backbone(support), (1, 2)))
    assert features.shape == (2, 6, 1, 9)


def test_probabilities_and_solvers():
    support, queries = images(2), images(3, 1)
    scores = {}
    for name, options in {
        "logits": {}, "probabilities": {"use_softmax": True},
        "by name": {"solver": "pot"}, "by itself": {"solver": POTSolver()},
    }.items():  # fmt: skip
        model = DeepEMD(small_backbone(), **options)
        model.process_support_set(support, torch.arange(2))
        scores[name] = model(queries)
    torch.testing.assert_close(scores["probabilities"], scores["logits"].softmax(1))
    for name in ("by name", "by itself"):
        torch.testing.assert_close(scores[name], scores["logits"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "labels, message",
    [
        ([0, 0, 0, 1], "has 3 of class 0, 1 of class 1; expected as many images of every class"),
        ([1, 1, 3, 3], "has classes 1, 3; expected classes numbered from 0"),
        ([0, 1, 0], "is int64 of shape (3,); expected integers of shape (4,), one for"),
        ([[0, 1, 0, 1]], "is int64 of shape (1, 4); expected integers of shape (4,)"),
        (
            [0.0, 1.0, 0.0, 1.0],
            "is float32 of shape (4,); expected integers of shape (4,)",
        ),
    ],
)
def test_labels_that_cannot_be_used(labels, message):
    model = DeepEMD(small_backbone())
    with pytest.raises(InputError) as caught:
        model.process_support_set(images(4), torch.tensor(labels))
    assert str(caught.value).startswith(f"support_labels: {message}")


def test_a_network_that_pools_is_refused_by_the_shape_of_what_it_returns():
    model = DeepEMD(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(InputError) as caught:
        model.process_support_set(images(4), torch.arange(4))
    assert str(caught.value).startswith(
        "backbone: returns an array of shape (4, 3); expected maps (images, channels, "
    )


@pytest.mark.parametrize(
    "variant, shape, expected",
    [
        ("fcn", (2, 9, 3, 8, 8), "(images, 3, height, width)"),
        ("pyramid", (2, 3, 8), "(images, 3, height, width)"),
        ("grid", (2, 3, 8, 8), "(images, patches, 3, height, width)"),
        ("sampling", (2, 3, 8, 8), "(images, patches, 3, height, width)"),
    ],
)
def test_images_of_another_variant(variant, shape, expected):
    model = DeepEMD(small_backbone(), variant)
    with pytest.raises(InputError) as caught:
        model.process_support_set(torch.zeros(shape), torch.arange(2))
    message = f"images: got {shape}, expected a shape {expected} for variant {variant}"
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"variant": "fcm"}, "variant: got 'fcm', expected one of: fcn, pyramid, grid, sampling"),
        ({"temprature": 1}, "temprature: unknown parameter (did you mean temperature?)"),
        ({"temperature": -1}, "temperature: got -1"),
        ({"solver": "cv2"}, "solver: got 'cv2', expected one of: native"),
        ({"seed": -1}, "seed: got -1"),
        ({"use_softmax": 1}, "use_softmax: got 1, expected true or false"),
        ({"backbone": "ResNet12"}, "backbone: got 'str', expected a torch.nn.Module"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, message):
    with pytest.raises(InputError) as caught:
        DeepEMD(**{"backbone": small_backbone(), **arguments})
    assert str(caught.value).startswith(message)


def test_queries_before_a_support_set():
    with pytest.raises(InputError, match="no support set yet, expected process_support_set first"):
        DeepEMD(small_backbone())(images(2))


def test_without_easyfsl(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "easyfsl"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "lowshot_kedro.deepemd.classifier")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(ImportError, match="DeepEMD: needs easyfsl, which is not installed; type:"):
        _ = deepemd.DeepEMD
