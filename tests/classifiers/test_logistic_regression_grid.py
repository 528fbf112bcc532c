"""Several configurations side by side, beside a plain loop of each."""

import json
import logging

import numpy as np
import pytest
import torch

from lowshot_kedro.classifiers import gradient_descent, logistic_regression
from lowshot_kedro.classifiers.gradient_descent import BalancedBatches
from lowshot_kedro.classifiers.logistic_regression import LogisticRegression, LogisticRegressions
from lowshot_kedro.torch_threads import single_threaded_tasks

LR = [0.3, 0.1, 0.01, 0.5, 0.5]
# With the last two the weights before an iteration count nothing, or with the other sign.
DECAY = [0.0, 0.1, 0.3, 2.0, 3.0]


def images(n_classes, dimension=20, n_images=300, seed=0, distance=1.0):
    """Gaussian clusters of very different sizes, in random order."""
    centers = np.random.default_rng(99).standard_normal((n_classes, dimension)) * distance
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, n_classes + 1)
    drawn = rng.choice(n_classes, n_images - n_classes, p=shares / shares.sum())
    classes = rng.permutation(np.concatenate([np.arange(n_classes), drawn])).astype(np.int32)
    features = centers[classes] + rng.standard_normal((n_images, dimension))
    return features.astype(np.float32), classes


def regressions(n_classes, **changes):
    settings = {"lr": LR, "weight_decay": DECAY, "batch_size": 16, "max_iterations": 40}
    return LogisticRegressions(n_classes, **(settings | changes))


def weights(model, configuration):
    state = model.state_dict(configuration)
    return np.column_stack([state["weight"].numpy(), state["bias"].numpy()])


def all_weights(model):
    return np.stack([weights(model, configuration) for configuration in range(len(model.lr))])


def plain_loop(features, classes, n_classes, lr, decay, *, batch_size, momentum, seed, stops):
    """One configuration by `torch.optim.SGD` in float64, the same batches; weights at the stops."""
    generator = torch.Generator().manual_seed(seed)
    layer = torch.nn.Linear(features.shape[1], n_classes)
    bound = features.shape[1] ** -0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    layer = layer.double()
    optimizer = torch.optim.SGD(
        layer.parameters(), lr=lr, weight_decay=decay, momentum=momentum
    )  # fmt: skip
    batches = BalancedBatches(classes, n_classes, batch_size, generator)
    inputs, targets = torch.from_numpy(features).double(), torch.from_numpy(classes).long()
    found = []
    for iteration in range(max(stops)):
        (batch,) = batches.images(iteration, iteration + 1)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(layer(inputs[batch]), targets[batch]).backward()
        optimizer.step()
        if iteration + 1 in stops:
            weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
            found.append(np.column_stack([weight, bias]))
    return np.stack(found)


def assert_same_weights(found, expected):
    """Both (…, C, d + 1)."""
    size = np.linalg.norm(expected, axis=(-2, -1))
    error = np.linalg.norm(found - expected, axis=(-2, -1))
    assert (error < 1e-4 * np.maximum(size, 1e-2)).all()


# --- the same as a plain loop ---


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    ("n_classes", "batch_size", "block_iterations"),
    [(2, 1, 1), (2, 1, 7), (5, 16, 1), (5, 16, 3), (5, 16, 50), (11, 5, None), (11, 48, None)],
)
def test_weights_are_those_of_a_plain_loop_at_every_evaluation(
    monkeypatch, n_classes, batch_size, block_iterations, momentum
):
    monkeypatch.setattr(gradient_descent, "_DRAWN_ITERATIONS", 16)
    if block_iterations is not None:
        monkeypatch.setattr(
            gradient_descent, "iterations_of_a_block", lambda *sizes: block_iterations
        )
    features, classes = images(n_classes)
    settings = {"batch_size": batch_size, "momentum": momentum, "seed": 3}
    model = regressions(n_classes, max_iterations=40, **settings)
    found = model.fit(features, classes, lambda iteration: (iteration, all_weights(model)), 9)
    stops = [9, 18, 27, 36, 40]
    assert [iteration for iteration, _ in found] == stops
    for configuration, (lr, decay) in enumerate(zip(LR, DECAY, strict=True)):
        expected = plain_loop(features, classes, n_classes, lr, decay, stops=stops, **settings)
        assert not np.allclose(expected[0], expected[-1], rtol=1e-2)
        assert_same_weights(np.stack([at[configuration] for _, at in found]), expected)


# With 450 rows of weights threads share configurations, with 700 products.
SHARED = (90, 140)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("n_classes", SHARED)
def test_work_that_threads_share_gives_the_same(monkeypatch, n_classes, momentum):
    used = spy_on_threads(monkeypatch)
    batch_size = 24
    features, classes = images(n_classes, 400, distance=0.3)
    settings = {"batch_size": batch_size, "momentum": momentum, "seed": 1}
    model = regressions(n_classes, max_iterations=25, **settings)
    with_threads(2, lambda: model.fit(features, classes))
    assert used == [2]
    for configuration, (lr, decay) in enumerate(zip(LR, DECAY, strict=True)):
        expected = plain_loop(features, classes, n_classes, lr, decay, stops=[25], **settings)
        assert_same_weights(weights(model, configuration), expected[0])


def test_one_of_several_is_what_it_is_alone():
    features, classes = images(5)
    model = regressions(5, seed=2)
    model.fit(features, classes)
    alone = LogisticRegression(
        5, lr=LR[1], weight_decay=DECAY[1], batch_size=16, max_iterations=40, seed=2
    )
    alone.fit(features, classes)
    np.testing.assert_allclose(weights(model, 1)[:, :-1], alone.state_dict()["weight"], atol=1e-5)
    np.testing.assert_allclose(model.scores(features, 1), alone.scores(features), atol=1e-5)


def accuracies_of_a_plain_loop(train, test, n_classes, seeds, is_balanced):
    """By numpy in float64, with its own random numbers; one accuracy for a seed."""
    (features, classes), (test_features, test_classes) = train, test
    shares = (1 / np.bincount(classes)[classes]) if is_balanced else np.ones(len(classes))
    found = []
    for seed in seeds:
        rng = np.random.default_rng(1000 + seed)
        weight, bias = np.zeros((n_classes, features.shape[1])), np.zeros(n_classes)
        for _ in range(150):
            batch = rng.choice(len(classes), 16, p=shares / shares.sum())
            logits = features[batch] @ weight.T + bias
            excess = np.exp(logits - logits.max(axis=1, keepdims=True))
            excess /= excess.sum(axis=1, keepdims=True)
            excess[np.arange(16), classes[batch]] -= 1
            weight -= 0.1 * (excess.T @ features[batch] / 16 + 0.01 * weight)
            bias -= 0.1 * (excess.mean(axis=0) + 0.01 * bias)
        found.append(((test_features @ weight.T + bias).argmax(axis=1) == test_classes).mean())
    return np.array(found)


def test_accuracy_agrees_with_a_plain_loop_within_the_noise_of_seeds():
    n_classes, seeds = 8, range(12)
    train = images(n_classes, 10, 120, distance=0.7)
    test_features, test_classes = images(n_classes, 10, 4000, seed=1, distance=0.7)
    rare = test_classes >= 4
    test = test_features[rare], test_classes[rare]
    found = []
    for seed in seeds:
        model = regressions(
            n_classes, lr=[1.0, 0.1], weight_decay=[0, 0.01], max_iterations=150, seed=seed
        )
        model.fit(*train)
        found.append((model.scores(test[0], 1).argmax(axis=1) == test[1]).mean())

    def distance(others):
        """Of the means, in standard deviations."""
        variance = (np.var(found, ddof=1) + np.var(others, ddof=1)) / len(seeds)
        return abs(np.mean(found) - np.mean(others)) / np.sqrt(variance)

    assert np.std(found) > 0.005
    assert distance(accuracies_of_a_plain_loop(train, test, n_classes, seeds, True)) < 2.5
    assert distance(accuracies_of_a_plain_loop(train, test, n_classes, seeds, False)) > 5


# --- threads ---


def spy_on_threads(monkeypatch):
    """A list that gets the number of threads whenever some are asked for."""
    used = []

    def spy(n_threads):
        used.append(n_threads)
        return single_threaded_tasks(n_threads)

    monkeypatch.setattr(logistic_regression, "single_threaded_tasks", spy)
    return used


def with_threads(count, function):
    n_before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        result = function()
        assert torch.get_num_threads() == count
        return result
    finally:
        torch.set_num_threads(n_before)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("n_classes", SHARED)
def test_the_number_of_threads_changes_no_bit(monkeypatch, n_classes, momentum):
    used = spy_on_threads(monkeypatch)
    monkeypatch.setattr(logistic_regression, "_BLOCK_ROWS", 64)
    features, classes = images(n_classes, 400, distance=0.3)
    found = []
    for count in (1, 2, 3):
        model = regressions(n_classes, batch_size=24, max_iterations=60, momentum=momentum)
        with_threads(count, lambda model=model: model.fit(features, classes))
        scores = with_threads(count, lambda model=model: model.scores(features, 1))
        found.append((all_weights(model), scores))
    assert used == [1, 1, 2, 2, 2 if n_classes == 90 else 3, 3]
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert np.isfinite(one).all()
            np.testing.assert_array_equal(one, other)


def test_small_problems_are_not_shared(monkeypatch):
    used = spy_on_threads(monkeypatch)
    features, classes = images(4)
    with_threads(2, lambda: regressions(4).fit(features, classes))
    assert used == [1]


def test_evaluation_has_all_threads():
    features, classes = images(4)
    found = with_threads(
        3, lambda: regressions(4).fit(features, classes, lambda _: torch.get_num_threads())
    )
    assert found == [3]


# --- divergence ---


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize(("n_classes", "dimension"), [(5, 20), (150, 400), (200, 400)])
def test_a_configuration_that_diverges_changes_no_bit_of_the_others(n_classes, dimension, momentum):
    features, classes = images(n_classes, dimension)
    models = [
        regressions(n_classes, lr=[0.1, lr, 0.01], weight_decay=[0.1, lr, 0.0], momentum=momentum)
        for lr in (0.2, 1e4)
    ]
    found = []
    for model in models:
        evaluations = model.fit(features, classes, lambda _, model=model: all_weights(model), 7)
        found.append(np.stack(evaluations)[:, [0, 2]])
    np.testing.assert_array_equal(*found)
    assert models[0].diverged.tolist() == [False, False, False]
    assert models[1].diverged.tolist() == [False, True, False]
    assert np.isfinite(models[1].scores(features, 0)).all()
    uniform = models[1].scores(features, 1)
    assert uniform.dtype == np.float32
    assert uniform.shape == (len(features), n_classes)
    np.testing.assert_allclose(uniform, -np.log(n_classes), rtol=1e-6)


# --- what comes back ---


def test_the_state_of_a_configuration_does_not_hold_the_others(tmp_path):
    features, classes = images(4)
    model = regressions(4)
    model.fit(features, classes)
    state = model.state_dict(2)
    assert {name: tuple(values.shape) for name, values in state.items()} == {
        "weight": (4, 20), "bias": (4,),
    }  # fmt: skip
    assert all(len(values.untyped_storage()) == 4 * values.numel() for values in state.values())
    before = state["weight"].clone()
    model.fit(features[::-1].copy(), classes[::-1].copy())
    assert torch.equal(state["weight"], before)


@pytest.mark.parametrize("method", ["scores", "state_dict", "diverged"])
def test_nothing_can_be_asked_before_training(method):
    model = regressions(4)
    with pytest.raises(RuntimeError, match="LogisticRegressions: fit it before"):
        if method == "diverged":
            _ = model.diverged
        elif method == "scores":
            model.scores(np.zeros((1, 20), np.float32), 0)
        else:
            model.state_dict(0)


@pytest.mark.parametrize(("lr", "decay"), [([0.1], [0.1, 0.2]), ([], []), ([0.1, 0.2], [0.1])])
def test_learning_rates_and_decays_come_in_pairs(lr, decay):
    message = f"{len(lr)} learning rates and {len(decay)} weight decays"
    with pytest.raises(ValueError, match=message):
        regressions(4, lr=lr, weight_decay=decay)


def test_classes_that_are_not_those_of_the_features_are_refused():
    features, classes = images(4)
    with pytest.raises(ValueError, match="300 labelled features, but 299 classes"):
        regressions(4).fit(features, classes[:-1])


# --- stopping and going on ---


class Stopped(Exception):
    pass


def entry(model, iteration):
    """What a caller may want to keep of an evaluation."""
    return {"iteration": iteration, "sizes": [float(abs(w).sum()) for w in all_weights(model)]}


def stopped_training(features, classes, path, at=21, **changes):
    """Leaves the checkpoint of the evaluation before the one that is broken off."""
    model = regressions(5, **changes)

    def evaluate(iteration):
        if iteration == at:
            raise Stopped
        return entry(model, iteration)

    with pytest.raises(Stopped):
        model.fit(features, classes, evaluate, 7, checkpoint=path)


@pytest.fixture
def always_due(monkeypatch):
    monkeypatch.setattr(logistic_regression, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)


@pytest.mark.parametrize("drawn_iterations", [7, 10, 1024])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_continued_training_gives_what_an_uninterrupted_one_gives(
    tmp_path, monkeypatch, always_due, momentum, drawn_iterations
):
    monkeypatch.setattr(gradient_descent, "_DRAWN_ITERATIONS", drawn_iterations)
    features, classes = images(5)
    path = tmp_path / "checkpoints" / "grid.pt"
    whole = regressions(5, momentum=momentum)
    expected = whole.fit(features, classes, lambda iteration: entry(whole, iteration), 7)
    # The first one was going to train longer.
    stopped_training(features, classes, path, momentum=momentum, max_iterations=100)
    called = []
    model = regressions(5, momentum=momentum)

    def evaluate(iteration):
        called.append(iteration)
        assert path.is_file()
        return entry(model, iteration)

    found = model.fit(features, classes, evaluate, 7, checkpoint=path)
    assert called == [21, 28, 35, 40]
    assert found == expected
    assert [one["iteration"] for one in found] == [7, 14, 21, 28, 35, 40]
    np.testing.assert_array_equal(all_weights(model), all_weights(whole))
    assert list(path.parent.iterdir()) == []


def test_a_training_can_be_stopped_twice(tmp_path, always_due):
    features, classes = images(5)
    path = tmp_path / "grid.pt"
    whole = regressions(5)
    expected = whole.fit(features, classes, lambda iteration: entry(whole, iteration), 7)
    stopped_training(features, classes, path, at=14)
    stopped_training(features, classes, path, at=28)
    model = regressions(5)
    found = model.fit(features, classes, lambda at: entry(model, at), 7, checkpoint=path)
    assert found == expected
    np.testing.assert_array_equal(all_weights(model), all_weights(whole))


def test_checkpoints_are_written_once_in_a_while(tmp_path):
    features, classes = images(5)
    path = tmp_path / "grid.pt"
    model = regressions(5)
    found = model.fit(features, classes, lambda _: path.exists(), 7, checkpoint=path)
    assert found == [False] * 6
    assert not path.exists()


def other_images(features, classes):
    return features * 2, classes


def other_classes(features, classes):
    return features, np.roll(classes, 1)


@pytest.mark.parametrize(
    ("changes", "change_images"),
    [({"seed": 1}, None), ({"lr": [0.3, 0.1, 0.02, 0.5, 0.5]}, None),
     ({"weight_decay": [0.1, 0.1, 0.3, 2.0, 3.0]}, None), ({"momentum": 0.1}, None),
     ({"batch_size": 8}, None), ({"max_iterations": 10}, None), ({}, other_images),
     ({}, other_classes)],
)  # fmt: skip
def test_a_checkpoint_of_another_training_is_left_alone(
    tmp_path, always_due, changes, change_images
):
    features, classes = images(5)
    path = tmp_path / "grid.pt"
    stopped_training(features, classes, path)
    if change_images is not None:
        features, classes = change_images(features, classes)
    called = []
    model, expected = regressions(5, **changes), regressions(5, **changes)
    model.fit(features, classes, called.append, 7, checkpoint=path)
    expected.fit(features, classes, lambda _: None, 7)
    assert called[0] == 7
    np.testing.assert_array_equal(all_weights(model), all_weights(expected))


def test_a_checkpoint_of_other_evaluations_is_left_alone(tmp_path, always_due):
    features, classes = images(5)
    path = tmp_path / "grid.pt"
    stopped_training(features, classes, path)
    called = []
    regressions(5).fit(features, classes, called.append, 5, checkpoint=path)
    assert called[0] == 5


@pytest.mark.parametrize("kept_bytes", [0, 1000])
def test_a_checkpoint_that_cannot_be_read_is_told_of_and_left_alone(
    tmp_path, always_due, caplog, kept_bytes
):
    features, classes = images(5)
    path = tmp_path / "grid.pt"
    stopped_training(features, classes, path)
    path.write_bytes(path.read_bytes()[:kept_bytes])
    called = []
    with caplog.at_level(logging.WARNING):
        regressions(5).fit(features, classes, called.append, 7, checkpoint=path)
    assert called[0] == 7
    assert f"{path}: not a readable checkpoint, begun anew" in caplog.text


def test_what_json_cannot_hold_is_refused_where_there_is_a_checkpoint(tmp_path, always_due):
    features, classes = images(5)
    with pytest.raises(TypeError, match="JSON"):
        regressions(5).fit(features, classes, lambda _: {1}, 7, checkpoint=tmp_path / "grid.pt")
    found = regressions(5).fit(features, classes, lambda _: {1}, 7)
    assert found == [{1}] * 6
    assert json.dumps(regressions(5).fit(features, classes)) == "[]"
