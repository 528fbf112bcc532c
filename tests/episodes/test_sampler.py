"""Episodes, against the original's and against a sampler written from its description."""

import pickle
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lowshot_kedro.episodes import EpisodeSampler
from lowshot_kedro.errors import InputError

LABELS = np.repeat(np.arange(20), 30)
with np.load(Path(__file__).parent / "reference.npz") as file:
    ORIGINAL = file["sampler_direct_seed1"]


class FromDescription:
    """Draws from torch's global generator, as the specification says."""

    def __init__(self, labels, n_way, n_images, n_episodes):
        self.images = [np.flatnonzero(labels == name) for name in range(labels.max() + 1)]
        self.n_way, self.n_images, self.n_episodes = n_way, n_images, n_episodes

    def __len__(self):
        return self.n_episodes

    def __iter__(self):
        for _ in range(self.n_episodes):
            drawn = [
                self.images[name][torch.randperm(len(self.images[name]))[: self.n_images]]
                for name in torch.randperm(len(self.images))[: self.n_way]
            ]
            yield np.stack(drawn).T.reshape(-1).tolist()


def make_network():
    """Convolutions and their initialisation, in the order of the specification."""
    layers, inputs = [], 3
    for outputs in (64, 160, 320, 640):
        layers.append(nn.Conv2d(inputs, outputs, 1, bias=False))
        for channels in (inputs, outputs, outputs):
            layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=False))
        inputs = outputs
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="leaky_relu")


def sampler(**changed):
    arguments = {"labels": LABELS, "n_way": 5, "n_shot": 1, "n_query": 15, "n_episodes": 10}
    return EpisodeSampler(**{**arguments, "seed": 1, **changed})


def test_the_original_order():
    np.testing.assert_array_equal(list(sampler()), ORIGINAL)
    assert len(sampler()) == len(ORIGINAL)


def test_nobody_else_is_disturbed_and_nobody_disturbs():
    ours = sampler()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = list(ours)
    assert torch.equal(torch.random.get_rng_state(), before)
    interleaved = list(zip(ours, ours, strict=True))
    for expected, (one, other) in zip(first, interleaved, strict=True):
        np.testing.assert_array_equal(one, expected)
        np.testing.assert_array_equal(other, expected)
    assert first[0].dtype == np.int64


@pytest.mark.parametrize("make_before", [None, make_network], ids=["loader", "eval.py"])
def test_the_order_through_a_loader(make_before):
    torch.manual_seed(3)
    if make_before is not None:
        make_before()
    reference = FromDescription(LABELS, 5, 16, 10)
    expected = list(DataLoader(range(len(LABELS)), batch_sampler=reference))
    found = list(sampler(seed=3, order="loader" if make_before is None else "eval.py"))
    np.testing.assert_array_equal(found, torch.stack(expected))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_fitting_layers_of_several_shots_draws_between_episodes():
    torch.manual_seed(1)
    make_network()
    loader = DataLoader(
        range(len(LABELS)), batch_sampler=FromDescription(LABELS, 5, 8, 20), num_workers=8
    )
    expected = []
    for episode in loader:
        expected.append(episode)
        for _ in range(100):
            torch.randperm(5 * 5)
    found = list(sampler(n_shot=5, n_query=3, n_episodes=20, order="eval.py"))
    np.testing.assert_array_equal(found, torch.stack(expected))


@pytest.mark.parametrize(
    ("order", "n_shot", "firsts"),
    [("direct", 1, (0, 1, 20)), ("loader", 1, (0, 1, 20)), ("eval.py", 2, (18,))],
)
def test_iterating_from_the_middle(order, n_shot, firsts):
    ours = sampler(n_episodes=20, order=order, n_shot=n_shot)
    everything = list(ours)
    for first in firsts:
        found = list(ours.starting_at(first))
        assert len(found) == 20 - first
        if found:
            np.testing.assert_array_equal(found, everything[first:])


@pytest.mark.parametrize("first", [-1, 11, True, 1.5])
def test_iterating_from_no_episode_is_refused(first):
    with pytest.raises(InputError, match="first"):
        next(sampler().starting_at(first))


def test_fewer_episodes_are_the_first_of_more():
    np.testing.assert_array_equal(list(sampler(n_episodes=3)), ORIGINAL[:3])


def test_other_seeds_make_other_episodes():
    firsts = [next(iter(sampler(seed=seed))) for seed in (0, 1, 2, 2**32 - 1)]
    assert len({tuple(first) for first in firsts}) == 4


def test_labels_of_any_values_in_any_order():
    generator = np.random.default_rng(0)
    order = generator.permutation(len(LABELS))
    names = np.sort(generator.choice(1000, 20, replace=False))[LABELS]
    where = np.argsort(order)  # Position in the shuffled images.
    shuffled = names[order]
    words = np.array([f"class {name:04}" for name in shuffled])
    episodes = np.array(list(sampler(labels=shuffled)))
    np.testing.assert_array_equal(episodes, list(sampler(labels=words)))
    np.testing.assert_array_equal(episodes, list(sampler(labels=torch.from_numpy(shuffled))))
    # The same classes are drawn, and the same positions among the images of a class as they stand.
    of_class = [np.sort(where[name == LABELS]) for name in range(20)]
    expected = [[of_class[row // 30][row % 30] for row in episode] for episode in ORIGINAL]
    np.testing.assert_array_equal(episodes, expected)


def test_images_without_a_class_are_left_out():
    labels = np.concatenate([[-1], LABELS, [-5]])
    np.testing.assert_array_equal(list(sampler(labels=labels)), ORIGINAL + 1)


def test_classes_of_unequal_size_have_no_image_twice():
    labels = np.repeat([0, 1, 2], [4, 9, 5])
    for episode in sampler(labels=labels, n_way=2, n_shot=2, n_query=2, n_episodes=50):
        classes = labels[episode].reshape(4, 2)
        assert (classes == classes[0]).all() and classes[0, 0] != classes[0, 1]
        assert len(set(episode)) == 8


def test_a_loader_takes_it_as_batch_sampler():
    loader = DataLoader(range(len(LABELS)), batch_sampler=sampler())
    np.testing.assert_array_equal(torch.stack(list(loader)), ORIGINAL)


def test_it_can_be_sent_to_another_process():
    np.testing.assert_array_equal(list(pickle.loads(pickle.dumps(sampler()))), ORIGINAL)


def test_many_images_and_episodes():
    labels = np.arange(200_000) % 160
    ours = sampler(labels=labels, n_episodes=2**31 - 1)
    episode = next(islice(ours, 3, None))
    assert len(set(labels[episode])) == 5


def test_the_package_comes_without_torch():
    code = "import sys, lowshot_kedro.episodes; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_way": 21}, "n_way: got 21, expected at most 20, the number of classes"),
        ({"n_query": 30}, "class 0 has 30 images, and 19 more .* at least 31"),
        ({"labels": np.repeat(["ant", "bee"], [20, 3]), "n_way": 2}, "class bee has 3 images; exp"),
        (
            {"labels": np.repeat([4, 5], [20, 3]), "n_way": 2, "class_names": "abcdef"},
            "class f has 3 images; exp",
        ),
        (
            {"labels": np.repeat([4, 9], [20, 3]), "n_way": 2, "class_names": "abcdef"},
            "class 9 has 3 images; exp",
        ),
        ({"labels": [0, 1, 2, 2], "n_way": 2, "n_query": 1}, "and 1 more class has too few"),
        ({"labels": [[0, 1]]}, "labels: .*of shape"),
        ({"labels": []}, "labels: .*of shape"),
        ({"labels": [0.0, np.nan]}, "labels: .*one class"),
        ({"labels": [0.5, 1.0]}, "labels: .*one class"),
        ({"labels": [0, "a", None]}, "labels: .*one class"),
        ({"n_way": 0}, "n_way"),
        ({"n_shot": True}, "n_shot"),
        ({"n_query": 1.5}, "n_query"),
        ({"n_episodes": -1}, "n_episodes"),
        ({"seed": 2**32}, "seed"),
        ({"order": "sorted"}, "order"),
    ],
)
def test_what_gives_no_episodes_is_refused(changed, message):
    with pytest.raises(InputError, match=message):
        sampler(**changed)
