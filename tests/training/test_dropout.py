"""Dropout of parts of a batch: what is dropped of the whole batch."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from lowshot_kedro.training.batches import own_rows
from lowshot_kedro.training.dropout import RowsOfBatch, with_whole_batch_dropout

N_ROWS = 10
IMAGES = torch.arange(1.0, N_ROWS * 4 * 3 * 2 + 1).reshape(N_ROWS, 4, 3, 2)


def layers() -> nn.Module:
    return nn.Sequential(
        nn.Dropout(0.3),
        nn.Sequential(nn.Dropout2d(0.4), StochasticDepth(0.2, "row")),
        timm.layers.DropPath(0.2),
    )


def outputs(layer: nn.Module, images: torch.Tensor, *position: int, rank: int = 0, n: int = 1):
    """What a process's rows become."""
    rows = RowsOfBatch()
    network = with_whole_batch_dropout(layer, rows).train()
    own = own_rows(len(images), rank, n)
    rows.move_to(own.start, len(images), *position)
    return network(images[own.start : own.stop])


@pytest.mark.parametrize("n_processes", [1, 2, 3, 7])
def test_parts_of_a_batch_are_rows_of_the_whole(n_processes: int) -> None:
    whole = outputs(layers(), IMAGES, 1, 2, 3)
    parts = [
        outputs(layers(), IMAGES, 1, 2, 3, rank=rank, n=n_processes) for rank in range(n_processes)
    ]
    assert torch.equal(torch.cat(parts), whole)
    # Another batch and another layer have masks of their own.
    assert not torch.equal(outputs(layers(), IMAGES, 1, 2, 4), whole)
    assert not torch.equal(whole != 0, outputs(nn.Dropout(0.3), IMAGES, 1, 2, 3) != 0)


@pytest.mark.parametrize(
    ("layer", "over"),
    [
        (nn.Dropout(0.25), ()),
        (nn.Dropout2d(0.25), (2, 3)),
        (StochasticDepth(0.25, "row"), (1, 2, 3)),
        (timm.layers.DropPath(0.25), (1, 2, 3)),
    ],
)
def test_what_is_dropped_is_a_share_of_what_the_layer_drops(layer: nn.Module, over: tuple) -> None:
    images = torch.ones(2000, 6, 2, 2)
    found = outputs(layer, images, 7)
    assert found.unique().tolist() == pytest.approx([0, 4 / 3])
    if over:
        assert torch.equal(found.amin(over), found.amax(over))
    else:
        assert not torch.equal(found.amin((2, 3)), found.amax((2, 3)))
    assert (found == 0).float().mean().item() == pytest.approx(0.25, abs=0.04)


def test_unscaled_and_certain_drops_are_kept_as_they_are() -> None:
    found = outputs(timm.layers.DropPath(0.5, scale_by_keep=False), IMAGES, 1)
    assert bool(((found == 0) | (found == IMAGES)).all()) and bool((found == 0).any())
    assert not outputs(nn.Dropout(1.0), IMAGES, 1).any()
    assert torch.equal(outputs(nn.Dropout(0.0), IMAGES, 1), IMAGES)


def test_evaluation_drops_nothing_and_other_layers_stay() -> None:
    alpha = nn.AlphaDropout(0.5)
    network = with_whole_batch_dropout(nn.Sequential(layers(), alpha), RowsOfBatch()).eval()
    assert network[1] is alpha
    assert torch.equal(network(IMAGES), IMAGES)


def test_a_network_that_is_trained_no_more_draws_as_pytorch_does() -> None:
    network = with_whole_batch_dropout(nn.Dropout(0.5), RowsOfBatch()).train()
    torch.manual_seed(1)
    first, second = network(IMAGES), network(IMAGES)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(network(IMAGES), first)
