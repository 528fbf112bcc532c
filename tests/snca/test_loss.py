import copy
import io
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from lowshot_kedro.errors import InputError
from lowshot_kedro.snca import SNCALoss, similarity_sums
from tests.snca.dense import Settings, snca

REFERENCE = Path(__file__).parent / "reference.npz"
DTYPES = {"f64": torch.float64, "f32": torch.float32}
# Of the largest number.
EXACT = {"f64": 1e-12, "f32": 5e-6}


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE) as file:
        return dict(file)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 8 rows, in several parts."""
    monkeypatch.setattr(similarity_sums, "_BLOCK_ELEMENTS", {"cpu": 1})
    monkeypatch.setattr(similarity_sums, "_MIN_BLOCK_ROWS", 8)


def error(found, expected):
    """The largest difference as a part of the largest number."""
    found = found.detach().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    largest = np.abs(expected).max()
    return np.abs(found - expected).max() / (largest if largest else 1)


def run(labels, bank, embeddings, index, options, dtype=torch.float64):
    """The loss, the gradient, and the module after a step."""
    loss = SNCALoss(labels, bank.shape[1], **options._asdict())
    loss.bank = torch.as_tensor(bank).to(dtype)
    embeddings = torch.as_tensor(embeddings).to(dtype).clone().requires_grad_()
    value = loss(embeddings, torch.as_tensor(index))
    value.backward()
    return value, embeddings.grad, loss


def unit_rows(rng, shape):
    rows = rng.standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def example(seed=0, n_rows=60, n_columns=7, n_classes=5, batch=9):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n_rows)
    index = rng.permutation(n_rows)[:batch]
    return (
        labels,
        unit_rows(rng, (n_rows, n_columns)),
        unit_rows(rng, (batch, n_columns)),
        index,
    )


def clustered(seed=0, spread=0.1, n_rows=400, n_columns=16, n_classes=8, batch=32):
    """Embeddings that are near the rows of their class, and far from all others."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n_rows)
    centers = np.eye(n_classes, n_columns)
    bank = centers[labels] + spread * rng.standard_normal((n_rows, n_columns))
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    index = rng.permutation(n_rows)[:batch]
    return labels, bank, bank[index], index


# --- the original's numbers ---


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("margin", ["0.0", "0.1"])
def test_the_original(reference, precision, margin):
    stored = reference
    temperature = float(stored["loss_params_f32"][0])
    # The original divides the margin by 0.05, and not by the nearest number of float32.
    options = Settings(temperature, 0.5, float(margin) / 0.05 * temperature)
    index = torch.as_tensor(stored["loss_index"]).long()
    name = f"loss_A_margin{margin}_{precision}"
    dtype = DTYPES[precision]
    value, gradient, loss = run(
        stored["loss_labels"], stored["loss_bankA"], stored[f"loss_x_{precision}"],
        stored["loss_index"], options, dtype,
    )  # fmt: skip
    assert value.dtype == gradient.dtype == loss.bank.dtype == dtype
    assert error(value, stored[f"{name}_loss"]) < EXACT[precision]
    assert error(gradient, stored[f"{name}_gradx"]) < EXACT[precision]
    assert error(loss.bank[index], stored[f"{name}_rows"]) < EXACT[precision]
    others = np.setdiff1d(np.arange(400), stored["loss_index"])
    np.testing.assert_array_equal(loss.bank[others].numpy(), stored["loss_bankA"][others])
    # Of the image without another one of its class.
    (alone,) = np.flatnonzero(stored["loss_labels"][stored["loss_index"]] == 19)
    assert np.isnan(stored[f"loss_A_margin{margin}_f64_logp"][alone])
    assert (gradient[alone] == 0).all()


@pytest.mark.parametrize("momentum", [0.8, 0.9])
def test_the_momentum_of_the_original(reference, momentum):
    stored = reference
    loss = SNCALoss(stored["loss_labels"], 16, temperature=float(stored["loss_params_f32"][0]))
    loss.bank = torch.as_tensor(stored["loss_bankA"]).double()
    # It is held in float32 as well, and may be changed at any time.
    loss.momentum = float(np.float32(momentum))
    index = torch.as_tensor(stored["loss_index"])
    loss(torch.as_tensor(stored["loss_x_f64"]).requires_grad_(), index).backward()
    assert error(loss.bank[index.long()], stored[f"loss_A_m{momentum}_f64_rows"]) < 1e-12


@pytest.mark.parametrize("precision", DTYPES)
def test_a_training_of_the_original(reference, precision):
    """A linear layer on digits by SGD with Nesterov momentum, in the batches it had."""
    stored, dtype = reference, DTYPES[precision]
    pixels = torch.as_tensor(stored["dig_X"][stored["dig_train"]] / 16).to(dtype)
    layer = torch.nn.Linear(64, 16).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(stored["dig_W0"]))
        layer.bias.copy_(torch.as_tensor(stored["dig_b0"]))
    temperature = float(stored["loss_params_f32"][0])
    loss = SNCALoss(stored["dig_y"][stored["dig_train"]], 16, temperature=temperature)
    loss.bank = torch.as_tensor(stored["dig_bank0"]).to(dtype)
    optimizer = torch.optim.SGD(
        layer.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    losses = []
    for batch in torch.as_tensor(stored["dig_batches"]).long():
        value = loss(torch.nn.functional.normalize(layer(pixels[batch])), batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    name = f"dig_plain_{precision}"
    assert error(losses, stored[f"{name}_losses"]) < EXACT[precision]
    # Stored in float32.
    assert error(layer.weight, stored[f"{name}_W"]) < 3e-6
    assert error(layer.bias, stored[f"{name}_b"]) < 3e-6
    assert error(loss.bank, stored["dig_plain_f64_bank"]) < 3e-6


# --- all similarities at once ---


@st.composite
def cases(draw):
    """Any sizes, classes of which some have one image, and embeddings near or far."""
    n_rows, n_columns = draw(st.integers(2, 40)), draw(st.integers(2, 6))
    batch = draw(st.integers(1, n_rows))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.integers(draw(st.integers(1, n_rows)), size=n_rows) * 1000
    if draw(st.booleans()):
        labels = np.sort(labels)
    bank = unit_rows(rng, (n_rows, n_columns))
    index = rng.permutation(n_rows)[:batch]
    near = bank[index] + draw(st.sampled_from([0.01, 0.3, 10])) * rng.standard_normal(
        (batch, n_columns)
    )
    embeddings = near / np.linalg.norm(near, axis=1, keepdims=True)
    options = Settings(
        draw(st.sampled_from([0.005, 0.012, 0.05, 0.3])),
        draw(st.sampled_from([0, 0.5, 0.9])),
        draw(st.sampled_from([0, 0.1])),
    )
    # As at the start, rows are not of length 1.
    return labels, bank * draw(st.sampled_from([1, 1.7])), embeddings, index, options


def compare_with_dense(case, dtype, tolerance):
    *data, options = case
    # What float32 holds, so that rounding the input is no error.
    data[1], data[2] = (array.astype(np.float32) for array in data[1:3])
    expected = snca(*data, options)
    value, gradient, loss = run(*data, options, dtype)
    # A similarity is rounded to a part of its size, and counts divided by the temperature.
    tolerance *= max(1, 0.05 / options.temperature)
    tiny = torch.finfo(dtype).tiny
    np.testing.assert_allclose(value.item(), expected.loss, rtol=tolerance, atol=tiny)
    differences = np.abs(gradient.numpy() - expected.gradient)
    assert differences.max() <= tolerance * expected.largest_sum + tiny
    assert error(loss.bank, expected.bank) < (1e-6 if dtype == torch.float32 else 1e-14)


@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_float64(case):
    compare_with_dense(case, torch.float64, 1e-12)


@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_float32(case):
    compare_with_dense(case, torch.float32, 5e-6)


@pytest.mark.parametrize(
    ("temperature", "margin", "expected", "tolerance"),
    [
        (0.05, 0, 0.9079398707376951, 1e-12),
        (0.05, 0.1, 2.0688041098487373, 1e-12),
        # Where the original has NaN, the same formula in float64.
        (0.01, 0, 3.4034, 2e-5),
    ],
)
@pytest.mark.parametrize("precision", DTYPES)
def test_a_trained_bank(reference, temperature, margin, expected, tolerance, precision):
    stored = reference
    held = float(np.float32(temperature))
    options = Settings(held, 0.5, margin / temperature * held)
    bank, index = stored["loss_bankB"], stored["loss_index"]
    embeddings = stored[f"loss_x_{precision}"]
    value, _, _ = run(stored["loss_labels"], bank, embeddings, index, options, DTYPES[precision])
    assert error(value.item(), expected) < max(tolerance, EXACT[precision])


@pytest.mark.parametrize("temperature", [0.02, 0.012, 0.01, 0.005])
def test_float32_is_right_at_low_temperatures(reference, temperature):
    stored = reference
    options = Settings(temperature)
    for name in ("loss_bankA", "loss_bankB"):
        data = stored["loss_labels"], stored[name], stored["loss_x_f32"], stored["loss_index"]
        expected = snca(*data, options)
        value, gradient, _ = run(*data, options, torch.float32)
        assert error(value, expected.loss) < 5e-6
        assert np.abs(gradient.numpy() - expected.gradient).max() < 3e-5 * expected.largest_sum


@pytest.mark.parametrize("spread", [0.15, 0.1, 0.02])
def test_a_loss_of_nearly_nothing_is_right_in_float32(spread):
    """The others' part of all is as small as 1e-8, which is what float32 loses beside 1."""
    data = [
        array.astype(np.float32) if array.dtype == float else array
        for array in clustered(spread=spread)
    ]
    expected = snca(*data, Settings())
    assert expected.loss < 3e-3 if spread > 0.02 else expected.loss < 1e-7
    value, gradient, _ = run(*data, Settings(), torch.float32)
    assert error(value, expected.loss) < 5e-6
    assert error(gradient, expected.gradient) < 2e-5


def test_images_of_one_class_have_no_loss():
    _, bank, embeddings, index = example()
    value, gradient, loss = run(np.zeros(60, int), bank, embeddings, index, Settings(margin=0.1))
    assert value.item() == 0
    assert (gradient == 0).all()
    assert error(loss.bank, snca(np.zeros(60), bank, embeddings, index, Settings()).bank) < 1e-14


def test_images_without_another_of_their_class_have_no_loss_and_are_remembered():
    labels, bank, embeddings, index = example()
    labels[index[:4]] = np.arange(4) + 10
    value, gradient, loss = run(labels, bank, embeddings, index, Settings())
    expected = snca(labels, bank, embeddings, index, Settings())
    assert (gradient[:4] == 0).all() and (gradient[4:] != 0).any(1).all()
    # Divided by all images of the batch.
    assert error(value, expected.losses[4:].sum() / 9) < 1e-12
    assert error(loss.bank, expected.bank) < 1e-14
    assert (loss.bank[index] != torch.as_tensor(bank[index])).all()


def test_a_probability_that_float64_cannot_tell_from_0_counts_as_0():
    bank = np.array([[1.0, 0], [-1, 0], [1, 0], [0, 1]])
    for temperature, is_left_out in ((2 / 740, False), (2 / 750, True)):
        options = Settings(temperature)
        value, gradient, _ = run([0, 0, 1, 1], bank, bank[:1], [0], options)
        assert error(value, 0 if is_left_out else 740) < 1e-12
        assert bool((gradient == 0).all()) == is_left_out


# --- blocks and threads ---


@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("n_classes", [1, 2, 7, 90])
def test_blocks(small_blocks, is_sorted, n_classes):
    data = example(n_rows=150, n_classes=n_classes, batch=20)
    if is_sorted:
        data[0].sort()
    expected = snca(*data, Settings(margin=0.05))
    value, gradient, _ = run(*data, Settings(margin=0.05))
    assert error(value, expected.loss) < 1e-12
    assert np.abs(gradient.numpy() - expected.gradient).max() <= 1e-12 * expected.largest_sum


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_any_number_of_threads_gives_the_same_bits(small_blocks, dtype):
    # The product of these sizes is one that torch rounds otherwise in one thread.
    data = example(n_rows=5000, n_columns=33, n_classes=3, batch=7)
    similarity_sums._BLOCK_ELEMENTS["cpu"] = 7 * 1024
    n_before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            value, gradient, loss = run(*data, Settings(), dtype)
            results.append([tensor.detach().clone() for tensor in (value, gradient, loss.bank)])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(n_before)
    for others in results[1:]:
        assert all(map(torch.equal, results[0], others))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("torch")]


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that is made."""

    def __init__(self):
        super().__init__()
        self.made = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            # What is given is not made.
            if isinstance(tensor, torch.Tensor) and not tensor._is_view():
                self.made = max(self.made, tensor.numel())
        return made


@pytest.mark.parametrize("n_classes", [1, 50])
def test_no_tensor_of_batch_times_bank_is_made(n_classes):
    data = example(n_rows=60_000, n_columns=4, n_classes=n_classes, batch=128)
    loss = SNCALoss(data[0], 4)
    embeddings = torch.as_tensor(data[2]).requires_grad_()
    n_before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with Largest() as largest:
            loss(embeddings, torch.as_tensor(data[3])).backward()
    finally:
        torch.set_num_threads(n_before)
    # A block of similarities, of 7.7 million; the bank itself has 240 thousand numbers.
    assert 2**17 < largest.made <= 2**18


# --- the bank ---


def test_a_forward_pass_alone_leaves_the_bank():
    labels, bank, embeddings, index = example()
    loss = SNCALoss(labels, 7)
    loss.bank = torch.as_tensor(bank)
    embeddings, index = torch.as_tensor(embeddings), torch.as_tensor(index)
    values = [loss(embeddings.clone().requires_grad_(), index), loss(embeddings, index)]
    for without in (torch.no_grad, torch.inference_mode):
        with without():
            values.append(loss(embeddings, index))
    assert len({value.item() for value in values}) == 1
    np.testing.assert_array_equal(loss.bank.numpy(), bank)


def test_every_backward_pass_moves_the_bank_whatever_multiplies_the_loss():
    """As where gradients of several batches are summed before a step."""
    labels, bank, embeddings, _ = example()
    batches = np.random.default_rng(1).permutation(60)[:18].reshape(2, 9)
    loss = SNCALoss(labels, 7, temperature=0.1)
    loss.bank = torch.as_tensor(bank)
    weights = torch.eye(7, dtype=torch.float64, requires_grad=True)
    expected = np.zeros((7, 7))
    for index in batches:
        (loss(torch.as_tensor(embeddings) @ weights, torch.as_tensor(index)) / 2).backward()
        step = snca(labels, bank, embeddings, index, Settings(0.1))
        expected += embeddings.T @ step.gradient / 2
        bank = step.bank
    assert error(weights.grad, expected) < 1e-12
    assert error(loss.bank, bank) < 1e-14


def test_settings_may_change_between_calls():
    labels, bank, embeddings, index = example()
    loss = SNCALoss(labels, 7)
    loss.bank = torch.as_tensor(bank)
    for options in (Settings(0.1, 0.8, 0.2), Settings(0.02, 0.0, 0.0)):
        loss.temperature, loss.momentum, loss.margin = options
        value = loss(torch.as_tensor(embeddings).requires_grad_(), torch.as_tensor(index))
        value.backward()
        expected = snca(labels, bank, embeddings, index, options)
        assert error(value, expected.loss) < 1e-12
        assert error(loss.bank, expected.bank) < 1e-14
        bank = expected.bank


def test_a_row_that_would_not_be_finite_stays():
    labels, bank, embeddings, index = example()
    embeddings[2] = np.nan
    embeddings[5] = -bank[index[5]]
    value, gradient, loss = run(labels, bank, embeddings, index, Settings())
    # Whoever trains sees it all the same.
    assert value.isnan()
    assert gradient.isnan().all(1).tolist() == [row == 2 for row in range(9)]
    assert loss.bank.isfinite().all()
    np.testing.assert_array_equal(loss.bank[index[[2, 5]]].numpy(), bank[index[[2, 5]]])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_embeddings_that_are_no_numbers_are_not_a_loss_of_0(wrong):
    labels, bank, embeddings, index = example()
    embeddings[2, 0] = wrong
    value, gradient, _ = run(labels, bank, embeddings, index, Settings())
    assert value.isnan()
    assert gradient[2].isnan().all()


def test_the_bank_is_a_copy():
    labels, bank, embeddings, index = example()
    given = torch.as_tensor(bank).requires_grad_()
    loss = SNCALoss(labels, 7)
    loss.bank = given[:, :7]
    loss(torch.as_tensor(embeddings).requires_grad_(), torch.as_tensor(index)).backward()
    np.testing.assert_array_equal(given.detach().numpy(), bank)
    assert not loss.bank.requires_grad


def test_the_bank_at_first():
    loss = SNCALoss(np.zeros(20_000, int), 12)
    assert loss.bank.dtype == torch.float32
    assert loss.bank.abs().max() <= 0.5
    numbers = loss.bank.double()
    # Uniform: mean, variance and fourth moment.
    assert abs(numbers.mean()) < 0.003
    assert abs((numbers**2).sum(1).mean() - 1) < 0.01
    assert abs((numbers**4).mean() * 12**2 - 1.8) < 0.02

    def made(seed):
        loss.reset_bank(torch.Generator().manual_seed(seed))
        return loss.bank.clone()

    assert torch.equal(made(3), made(3)) and not torch.equal(made(3), made(4))
    torch.manual_seed(5)
    first = SNCALoss([0, 1, 0], 4).bank
    torch.manual_seed(5)
    assert torch.equal(SNCALoss([0, 1, 0], 4).bank, first)
    assert len(torch.unique(made(3))) > 200_000


def test_saving_and_loading():
    labels, _, embeddings, index = example()
    loss, other = SNCALoss(labels, 7), SNCALoss(labels, 7)
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    state = torch.load(file)
    assert set(state) == {"labels", "bank"}
    other.load_state_dict(state)
    holder = torch.nn.ModuleDict({"loss": SNCALoss(labels, 7)})
    holder.load_state_dict({f"loss.{name}": tensor for name, tensor in state.items()})
    values = [
        module(torch.as_tensor(embeddings), torch.as_tensor(index))
        for module in (loss, other, holder["loss"], copy.deepcopy(loss))
    ]
    assert len({value.item() for value in values}) == 1
    # A list of images that has changed would give every row to another image.
    labels[:2] = labels[:2] + 1
    with pytest.raises(InputError, match=r"^labels: other than those of the bank"):
        SNCALoss(labels, 7).load_state_dict(state)


def test_double_and_float():
    labels, bank, embeddings, index = example()
    loss = SNCALoss(labels, 7)
    loss.bank = torch.as_tensor(bank)
    assert loss.float().bank.dtype == torch.float32
    assert loss.double()(torch.as_tensor(embeddings), torch.as_tensor(index)).dtype == torch.float64
    with pytest.raises(InputError, match=r"^bank: got 'torch.float16', expected float32 or"):
        loss.half()(torch.as_tensor(embeddings), torch.as_tensor(index))


# --- precision of the embeddings ---


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_embeddings_of_lower_precision(dtype, autocast):
    labels, bank, embeddings, index = example()
    embeddings = torch.as_tensor(embeddings).to(dtype)
    data = labels, bank.astype(np.float32), embeddings.double().numpy(), index
    expected = snca(*data, Settings())
    loss = SNCALoss(labels, 7)
    loss.bank = torch.as_tensor(bank).float()
    embeddings.requires_grad_()
    with torch.autocast("cpu", dtype, enabled=autocast):
        value = loss(embeddings, torch.as_tensor(index))
        value.backward()
    assert error(value, expected.loss) < 5e-6
    assert embeddings.grad.dtype == dtype
    assert error(embeddings.grad.double(), expected.gradient) < torch.finfo(dtype).eps
    assert error(loss.bank, expected.bank) < 1e-6


# --- bad input ---


def as_labels(kind):
    return {
        "list": [3, 1, 3],
        "int16": np.array([3, 1, 3], np.int16),
        "torch": torch.tensor([3, 1, 3]).int(),
    }[kind]


@pytest.mark.parametrize("kind", ["list", "int16", "torch"])
def test_labels(kind):
    loss = SNCALoss(as_labels(kind), 2)
    assert loss.labels.dtype == torch.int64
    assert loss.labels.tolist() == [3, 1, 3]
    assert "3 images, dim=2, temperature=0.05" in repr(loss)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": [[0, 1]]}, "labels: got 'int64 (1, 2)', expected int64 (N,), at least one"),
        ({"labels": []}, "labels: got 'float32 (0,)', expected int64 (N,)"),
        ({"labels": [0.5]}, "labels: got 'float32 (1,)', expected int64"),
        ({"labels": [True]}, "labels: got 'bool (1,)', expected int64"),
        ({"labels": [0, -1]}, "labels: got -1, expected classes from 0 on"),
        ({"labels": "cat"}, "labels: got 'cat', expected integers (N,)"),
        ({"dim": 0}, "dim: got 0, expected an integer from 1"),
        ({"temperature": 0}, "temperature: got 0, expected a number above 0"),
        ({"temperature": float("nan")}, "temperature: got nan, expected a number above 0"),
        ({"momentum": 1}, "momentum: got 1, expected a number of at least 0 and below 1"),
        ({"momentum": -0.1}, "momentum: got -0.1, expected a number of at least 0"),
        ({"margin": -1}, "margin: got -1, expected a number of at least 0"),
    ],
)
def test_arguments_that_cannot_be_used(changed, message):
    arguments = {"labels": [0, 1], "dim": 2, **changed}
    with pytest.raises(InputError) as refused:
        SNCALoss(arguments.pop("labels"), arguments.pop("dim"), **arguments)
    assert str(refused.value).startswith(message)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("embeddings", "index", "message"),
    [
        (torch.ones(2, 7), torch.tensor([4, 4]), "index: got 4, more than once; expected"),
        (torch.ones(2, 7), torch.tensor([0, 60]), "index: got 60, expected 0 to 59"),
        (torch.ones(2, 7), torch.tensor([-1, 0]), "index: got -1, expected 0 to 59"),
        (torch.ones(61, 7), torch.arange(61) % 60, "index: got 0, more than once"),
        (torch.ones(0, 7), torch.arange(0), "index: got '(0,)', expected at least one image"),
        (torch.ones(2, 7), torch.tensor([0]), "index: got 'int64 (1,)', expected int64 (2,)"),
        (torch.ones(2, 7), torch.tensor([0.0, 1]), "index: got 'float32 (2,)', expected int64"),
        (torch.ones(2, 7), [0, 1], "index: got [0, 1], expected a tensor"),
        (torch.ones(2, 6), torch.tensor([0, 1]), "embeddings: got 'float32 (2, 6)', expected"),
        (torch.ones(7), torch.tensor([0, 1]), "embeddings: got 'float32 (7,)', expected floating"),
        (torch.ones(2, 7).int(), torch.tensor([0, 1]), "embeddings: got 'int32 (2, 7)', expected"),
        (np.ones((2, 7)), torch.tensor([0, 1]), "embeddings: got array("),
        (torch.ones(2, 7, device="meta"), torch.tensor([0, 1]), "embeddings: got 'meta', "),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_be_used(embeddings, index, message):
    loss = SNCALoss(example()[0], 7)
    before = loss.bank.clone()
    with pytest.raises(InputError) as refused:
        loss(embeddings, index)
    assert str(refused.value).startswith(message)
    assert torch.equal(loss.bank, before)


def test_settings_that_cannot_be_used_later():
    loss = SNCALoss([0, 0], 2)
    loss.momentum = 2
    with pytest.raises(InputError, match=r"^momentum: got 2, expected"):
        loss(torch.ones(1, 2), torch.tensor([0]))


@pytest.mark.parametrize(
    ("bank", "message"),
    [
        (torch.ones(3, 2), "bank: got 'float32 (3, 2)', expected (2, 2)"),
        (torch.ones(2, 2).half(), "bank: got 'float16 (2, 2)', expected a tensor of float32 or"),
        (np.ones((2, 2)), "bank: got array("),
    ],
)
def test_a_bank_that_cannot_be_used(bank, message):
    loss = SNCALoss([0, 0], 2)
    with pytest.raises(InputError) as refused:
        loss.bank = bank
    assert str(refused.value).startswith(message)
