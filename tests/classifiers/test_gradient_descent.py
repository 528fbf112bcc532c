import threading

import numpy as np
import pytest
import torch

from lowshot_kedro.classifiers import gradient_descent
from lowshot_kedro.classifiers.gradient_descent import (
    BalancedBatches,
    Settings,
    factors,
    iterations_of_a_block,
    padded_rows,
)
from lowshot_kedro.torch_threads import single_threaded_tasks

# --- what is drawn ---

CLASSES = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 10, 1])).astype(np.int32)


def batches(batch_size=64, seed=0, classes=CLASSES):
    generator = torch.Generator().manual_seed(seed)
    return BalancedBatches(classes, int(classes.max()) + 1, batch_size, generator)


def test_a_class_is_drawn_uniformly_and_then_an_image_of_it():
    drawn = batches().images(0, 1024).numpy()
    assert drawn.shape == (1024, 64)
    expected = 1 / 3 / np.bincount(CLASSES)[CLASSES]
    found = np.bincount(drawn.ravel(), minlength=len(CLASSES)) / drawn.size
    deviations = np.sqrt(expected * (1 - expected) / drawn.size)
    assert np.abs((found - expected) / deviations).max() < 4


def test_images_of_a_batch_are_drawn_independently():
    classes = CLASSES[batches(batch_size=2).images(0, 1024).numpy()]
    pairs = np.zeros((3, 3))
    np.add.at(pairs, tuple(classes.T), 1)
    assert np.abs(pairs / 1024 - 1 / 9).max() < 4 * np.sqrt(8 / 81 / 1024)


def test_it_does_not_matter_in_which_portions_batches_are_asked_for(monkeypatch):
    monkeypatch.setattr(gradient_descent, "_DRAWN_ITERATIONS", 16)
    whole, parts = batches(), batches()
    assert [whole.end_of_draw(iteration) for iteration in (0, 15, 16)] == [16, 16, 32]
    expected = torch.cat([whole.images(0, 16), whole.images(16, 32)])
    found = [parts.images(*part) for part in ((0, 5), (5, 6), (6, 16), (20, 32))]
    assert torch.equal(torch.cat(found[:3]), expected[:16])
    assert torch.equal(found[3], expected[20:])
    assert len(expected.unique(dim=0)) == 32


@pytest.mark.parametrize("goes_on_at", [3, 15, 16, 40])
def test_drawing_goes_on_from_a_state(monkeypatch, goes_on_at):
    monkeypatch.setattr(gradient_descent, "_DRAWN_ITERATIONS", 16)
    first, second = batches(), batches(seed=1)
    for iteration in range(goes_on_at):
        first.images(iteration, iteration + 1)
    second.restore(first.state())
    for iteration in range(goes_on_at, goes_on_at + 40):
        expected = first.images(iteration, iteration + 1)
        assert torch.equal(second.images(iteration, iteration + 1), expected)


# --- numbers ---


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("n_iterations", [1, 2, 7])
def test_factors_give_what_the_rule_gives_step_by_step(momentum, n_iterations):
    lr, decay = np.array([0.1, 0.5, 0.01]), np.array([0.0, 2.0, 0.3])
    found = factors(Settings(lr, decay, momentum, batch_size=4), n_iterations)
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(n_iterations, 3))
    before = rng.normal(size=(2 if momentum else 1, 3))
    weights, velocities = before[0], before[-1]
    for iteration, gradient in enumerate(gradients):
        expected = sum(found.shares[iteration, :, layer] * values
                       for layer, values in enumerate(before))  # fmt: skip
        expected = expected + np.einsum("gt,tg->g", found.between[:, :, iteration], gradients)
        np.testing.assert_allclose(expected, weights, rtol=1e-12, atol=1e-15)
        velocities = momentum * velocities + decay * weights + gradient / 4
        weights = weights - lr * velocities
    after = np.einsum("gml,lg->mg", found.kept, before)
    after += np.einsum("glt,tg->lg", found.gradients, gradients)
    np.testing.assert_allclose(after[0], weights, rtol=1e-12, atol=1e-15)
    if momentum:
        np.testing.assert_allclose(after[1], velocities, rtol=1e-12)


def test_blocks_are_long_where_batches_are_small_and_weights_are_many():
    published = [iterations_of_a_block(batch_size, 2048, 9 * 500) for batch_size in (16, 64, 128)]
    assert published[0] > published[1] >= published[2] >= 1
    assert iterations_of_a_block(16, 2048, 9 * 10) < published[0]
    assert iterations_of_a_block(5000, 2048, 500) == 1
    assert 1 < iterations_of_a_block(1, 2, 2) <= 64


def test_padded_rows_are_zeros_of_the_width_asked_for():
    rows = padded_rows(3, 17, torch.device("cpu"))
    assert rows.shape == (3, 17)
    assert not rows.any()
    assert rows.stride() == (32, 1)


# --- tasks ---


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_every_task_is_done_once_with_one_thread_for_torch(n_threads):
    at_once = threading.Barrier(n_threads)
    seen = []

    def task():
        at_once.wait(timeout=30)
        seen.append((threading.get_ident(), torch.get_num_threads()))

    n_before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with single_threaded_tasks(n_threads) as run:
            run([task] * n_threads)
            assert len(seen) == n_threads
            run([])
            run([task] * n_threads)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(n_before)
    assert len(seen) == 2 * n_threads
    assert {count for _, count in seen} == {1}
    assert len({thread for thread, _ in seen}) == n_threads


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_error_of_a_task_is_raised_and_threads_are_given_back(n_threads):
    def failing():
        raise KeyError("nothing")

    n_before = torch.get_num_threads()
    with pytest.raises(KeyError, match="nothing"), single_threaded_tasks(n_threads) as run:
        run([failing] * n_threads)
    assert torch.get_num_threads() == n_before
