import inspect

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn import linear_model

from lowshot_kedro import classifiers
from lowshot_kedro.classifiers import LogisticRegression, logistic_regression


def regression(n_classes, **changes):
    settings = {"lr": 0.1, "weight_decay": 0.0, "batch_size": 64, "max_iterations": 200}
    return LogisticRegression(n_classes, **(settings | changes))


def clusters(counts, seed=0, distance=3.0, dimension=10):
    """Gaussian clusters, one per class, in random order."""
    centers = np.random.default_rng(99).standard_normal((len(counts), dimension)) * distance
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    features = centers[classes] + rng.standard_normal((len(classes), dimension))
    return features.astype(np.float32), classes


def fitted(features, classes, **changes):
    model = regression(int(classes.max()) + 1, **changes)
    model.fit(features, classes)
    return model


def state(model):
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


# --- what it learns ---


def test_it_is_as_accurate_as_scikit_learn():
    features, classes = clusters([40] * 5, distance=1.0)
    test, test_classes = clusters([200] * 5, seed=1, distance=1.0)
    reference = linear_model.LogisticRegression(max_iter=500).fit(features, classes)
    expected = reference.score(test, test_classes)
    found = fitted(features, classes, max_iterations=500).scores(test).argmax(axis=1)
    assert 0.8 < expected < 1
    assert (found == test_classes).mean() > expected - 0.03


def test_a_minority_is_recalled_as_by_weighting_the_classes():
    features, classes = clusters([1000, 20, 1000], distance=0.5)
    test, test_classes = clusters([300] * 3, seed=1, distance=0.5)

    def recall(found):
        return np.array([(found[test_classes == label] == label).mean() for label in range(3)])

    plain, weighted = (
        linear_model.LogisticRegression(max_iter=500, class_weight=weight).fit(features, classes)
        for weight in (None, "balanced")
    )
    assert recall(plain.predict(test))[1] < 0.1
    model = fitted(features, classes, max_iterations=400)
    found = recall(model.scores(test).argmax(axis=1))
    np.testing.assert_allclose(found, recall(weighted.predict(test)), atol=0.08)


@pytest.mark.parametrize("seed", [0, 1])
def test_classes_count_alike_and_so_do_the_images_of_a_class(seed):
    # Of class 0, 100 images, of class 1, ten show one of three things in these shares.
    shares = np.array([[0.1, 0.2, 0.7], [0.5, 0.2, 0.3]])
    shown = np.concatenate(
        [np.repeat(np.arange(3), (share * n).round().astype(int)) for share, n in
         zip(shares, (100, 10), strict=True)]
    )  # fmt: skip
    classes = np.repeat(np.arange(2), [100, 10]).astype(np.int32)
    things = np.eye(3, dtype=np.float32)
    model = fitted(
        things[shown], classes, lr=0.5, batch_size=512, max_iterations=600, momentum=0.5, seed=seed
    )
    # Bayes' rule, if a class is drawn uniformly and then an image of it uniformly.
    expected = shares / shares.sum(axis=0)
    np.testing.assert_allclose(np.exp(model.scores(things)).T, expected, atol=0.06)


def test_weight_decay_shrinks_the_weights():
    features, classes = clusters([20] * 3)
    norms = [
        np.linalg.norm(state(fitted(features, classes, weight_decay=decay))["weight"])
        for decay in (0.0, 0.1, 1.0)
    ]
    assert norms[0] > 1.5 * norms[1] > 2 * norms[2]


def test_steps_are_those_of_gradient_descent_with_momentum_and_decay():
    # Both classes show the same, and a batch is one image: only its class is unknown here.
    feature = np.array([1.0, -2.0, 0.5], dtype=np.float32)
    classes = np.array([0, 1], dtype=np.int32)
    settings = {"lr": 0.1, "weight_decay": 0.2, "momentum": 0.9, "batch_size": 1, "seed": 3}
    first, second, third = (
        state(fitted(np.stack([feature, feature]), classes, max_iterations=n, **settings))
        for n in (1, 2, 3)
    )
    velocity = (first["weight"] - second["weight"]) / 0.1
    probabilities = np.exp(log_softmax(second["weight"] @ feature + second["bias"]))
    candidates = []
    for drawn in (0, 1):
        gradient = np.outer(probabilities - np.eye(2)[drawn], feature) + 0.2 * second["weight"]
        candidates.append(second["weight"] - 0.1 * (0.9 * velocity + gradient))
    assert not np.allclose(*candidates, atol=1e-2)
    assert any(np.allclose(third["weight"], candidate, atol=1e-6) for candidate in candidates)


def test_it_follows_the_protocol_of_classifiers():
    protocol = inspect.signature(classifiers.Classifier.fit).parameters
    assert list(protocol) == list(inspect.signature(LogisticRegression.fit).parameters)[:3]


# --- scores ---


@pytest.mark.parametrize("block_rows", [7, 8192])
def test_scores_are_log_probabilities_of_the_linear_layer(monkeypatch, block_rows):
    monkeypatch.setattr(logistic_regression, "_BLOCK_ROWS", block_rows)
    features, classes = clusters([10] * 4)
    model = fitted(features, classes)
    found = model.scores(features)
    layer = state(model)
    assert (layer["weight"].shape, layer["bias"].shape) == ((4, 10), (4,))
    expected = log_softmax(features.astype(float) @ layer["weight"].T + layer["bias"], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-5)
    assert found.dtype == np.float32
    assert model.scores(features[:0]).shape == (0, 4)


def test_the_state_can_be_loaded_into_a_linear_layer():
    features, classes = clusters([10] * 4)
    model = fitted(features, classes)
    layer = torch.nn.Linear(10, 4)
    layer.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = torch.log_softmax(layer(torch.from_numpy(features)), dim=1).numpy()
    np.testing.assert_allclose(model.scores(features), expected, atol=1e-5)


@pytest.mark.parametrize("method", ["scores", "state_dict"])
def test_nothing_can_be_asked_before_training(method):
    arguments = [np.zeros((1, 2), np.float32)] if method == "scores" else []
    with pytest.raises(RuntimeError, match="LogisticRegression: fit it before asking for"):
        getattr(regression(2), method)(*arguments)


# --- seeds ---


def test_the_same_seed_gives_the_same_result_bit_by_bit():
    features, classes = clusters([10] * 3)
    first = fitted(features, classes, seed=5)
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002 - the global state must not matter
    second = fitted(features, classes, seed=5)
    for name, values in state(first).items():
        np.testing.assert_array_equal(values, state(second)[name])
    np.testing.assert_array_equal(first.scores(features), second.scores(features))


def test_the_number_of_threads_changes_nothing():
    features, classes = clusters([50] * 3, dimension=64)
    n_threads = torch.get_num_threads()
    states = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            states.append(state(fitted(features, classes, max_iterations=20)))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(n_threads)
    np.testing.assert_array_equal(states[0]["weight"], states[1]["weight"])


def test_another_seed_gives_another_result():
    features, classes = clusters([10] * 3)
    weights = [state(fitted(features, classes, seed=seed))["weight"] for seed in (5, 6)]
    assert not np.allclose(*weights)


def test_training_leaves_the_global_random_state_alone():
    features, classes = clusters([10] * 3)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    fitted(features, classes, max_iterations=3)
    assert torch.equal(torch.rand(3), expected)


# --- evaluation while training ---


@pytest.mark.parametrize(
    ("max_iterations", "eval_every", "expected"),
    [
        (10, 3, [3, 6, 9, 10]),
        (9, 3, [3, 6, 9]),
        (2, 5, [2]),
        (4, 1, [1, 2, 3, 4]),
        (4, None, [4]),
    ],
)
def test_evaluation_comes_regularly_and_at_the_end(max_iterations, eval_every, expected):
    features, classes = clusters([5] * 2)
    called = []
    regression(2, max_iterations=max_iterations).fit(features, classes, called.append, eval_every)
    assert called == expected


def test_evaluation_sees_the_model_as_it_is_then():
    features, classes = clusters([5] * 2)
    model = regression(2, max_iterations=6)
    seen = []
    model.fit(features, classes, lambda iteration: seen.append(state(model)["weight"]), 3)
    shorter = state(fitted(features, classes, max_iterations=3))["weight"]
    np.testing.assert_array_equal(seen[0], shorter)
    np.testing.assert_array_equal(seen[1], state(model)["weight"])


# --- faults ---


def test_divergence_names_the_learning_rate():
    features, classes = clusters([20] * 3, distance=100)
    with pytest.raises(ValueError) as error:
        regression(3, lr=1e36, max_iterations=50).fit(features, classes)
    message = str(error.value)
    assert message.startswith("lr: 1e+36 is too large")
    assert "diverged before iteration 50" in message


def test_divergence_with_the_last_step_is_noticed():
    features, classes = clusters([20] * 3, distance=100)
    with pytest.raises(ValueError, match=r"lr: .* is too large"):
        regression(3, lr=1e38, max_iterations=1).fit(features, classes)


@pytest.mark.parametrize(
    ("classes", "found"),
    [([0, 0, 2], r"2 classes in 0\.\.2"), ([0, 1, 1], r"2 classes in 0\.\.1"),
     ([0, 1, 2, 3], r"4 classes in 0\.\.3"), ([0, 1, 3], r"3 classes in 0\.\.3")],
)  # fmt: skip
def test_classes_that_are_missing_or_too_many_are_refused(classes, found):
    features = np.zeros((len(classes), 2), dtype=np.float32)
    message = f"logistic regression: found images of {found}, expected at least one of each of 3"
    with pytest.raises(ValueError, match=message):
        regression(3).fit(features, np.array(classes, dtype=np.int32))
