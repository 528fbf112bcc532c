"""Batch normalisation over several processes: as one process does it on the whole batch."""

from copy import deepcopy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from lowshot_kedro.errors import InputError
from lowshot_kedro.training.batch_norm import with_synchronized_batch_norm
from lowshot_kedro.training.processes import Processes
from tests.training.several import forward_and_backward

ONE = Processes(0, 1, torch.device("cpu"))
TWO = Processes(0, 2, torch.device("cpu"))


def convolutions() -> nn.Module:
    # A bias before a normalisation has no gradient but rounding.
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, bias=False),
        BatchNormAct2d(5, momentum=None),
        nn.Flatten(),
        nn.Linear(5 * 4 * 4, 6, bias=False),
        nn.BatchNorm1d(6, affine=False),
        nn.BatchNorm1d(6, eps=0.1, momentum=0.3),
    )


def cases(dtype: torch.dtype) -> list[tuple[nn.Module, torch.Tensor, torch.Tensor, list[int]]]:
    """Networks, images, what the gradient of the outputs is, and how many images go where."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(5)
    made = []
    for parts in ([4, 4], [6, 3], [5, 0]):
        images = torch.randn(sum(parts), 3, 8, 8, generator=generator, dtype=dtype) * 3 + 2
        targets = torch.randn(sum(parts), 6, generator=generator, dtype=dtype)
        made.append((convolutions().to(dtype), images, targets, parts))
    return made


def test_one_process_keeps_its_network():
    network = convolutions()
    assert with_synchronized_batch_norm(network, ONE) is network
    assert type(network[1]) is nn.BatchNorm2d


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_two_processes_do_what_one_does(together, dtype, tolerance):
    results = together.normalized[dtype]
    for (network, images, targets, parts), found in zip(cases(dtype), results, strict=True):
        expected = forward_and_backward(deepcopy(network), images, targets)
        assert list(found) == list(expected)
        for name, tensor in expected.items():
            scale = tensor.abs().max().item() + 1
            difference = (found[name] - tensor).abs().max().item()
            assert difference <= tolerance * scale, (parts, name, difference / scale)


def test_the_names_of_the_state_stay():
    network = convolutions()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    converted = with_synchronized_batch_norm(network, TWO)
    after = converted.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [id(each) for each in converted.parameters()] == [id(p) for p in network.parameters()]


def test_a_layer_of_an_unknown_kind_is_refused():
    class Other(nn.BatchNorm2d):
        pass

    with pytest.raises(InputError, match="layer 1 is Other, which cannot be computed"):
        with_synchronized_batch_norm(nn.Sequential(nn.Identity(), Other(3)), TWO)
