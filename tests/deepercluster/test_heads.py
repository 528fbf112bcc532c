"""The heads, and what is done to images, as the original does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lowshot_kedro.deepercluster.groups import OwnRows
from lowshot_kedro.deepercluster.heads import Heads
from lowshot_kedro.deepercluster.objective import DeeperClusterObjective
from lowshot_kedro.training.batches import LearntBatch
from lowshot_kedro.training.processes import Processes
from tests.deepercluster.making import parameters
from tests.training.making import ALONE, MadeImages

REFERENCE = np.load(Path(__file__).parent / "training.npz")


class Alike(Processes):
    """Processes of which each has what this one has."""

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * self.n_processes

    def add_up(self, tensor: torch.Tensor) -> None:
        tensor *= self.n_processes

    def parts(self, ranks: Any) -> list[Processes | None]:
        return [ALONE if self.rank in each else None for each in ranks]


def reference(name: str) -> torch.Tensor:
    return torch.from_numpy(REFERENCE[f"loss_{name}"])


def test_a_step_is_that_of_the_original(tmp_path: Path) -> None:
    """Eight processes of twelve images, each of another super-class; this one is the sixth."""
    changes = {"lr": 0.1, "weight_decay": 1e-5, "momentum": 0.9, "dimension": 64}
    settings = parameters(
        **changes, batch_size=96, n_clusters=20, n_components=4, images_per_epoch=96
    )
    processes = Alike(5, 8, ALONE.device)
    objective = DeeperClusterObjective(MadeImages(20), settings, processes, tmp_path)
    heads = objective._heads
    assert objective.order.own == [OwnRows(5, 0, 12)]
    heads.renew(0, [10, 10])
    zeros = torch.zeros(8), torch.zeros(8)
    momentum = {"weight_momentum": torch.zeros(8, 64), "bias_momentum": zeros[0]}
    heads.restore({"weight": reference("wsuper"), "bias": zeros[1], **momentum})
    sub = heads._sub[5].layer
    with torch.no_grad():
        sub.weight.copy_(reference("wsub"))
        sub.bias.zero_()
    objective._clusters = torch.zeros(20, dtype=torch.int32)
    objective._clusters[:12] = reference("target").int()
    features = reference("feat").requires_grad_()
    numbers = torch.arange(12)
    loss = objective(features, LearntBatch(numbers, numbers))
    of_sub, of_super = REFERENCE["loss_values"]
    assert loss.item() == pytest.approx(of_sub + of_super, rel=1e-6)
    loss.backward()
    torch.testing.assert_close(features.grad, reference("grad_feat"))
    objective.step(0.1)
    torch.testing.assert_close(sub.weight.detach(), reference("wsub_after"))
    assert heads._super is not None
    torch.testing.assert_close(heads._super.layer.bias.detach(), reference("bsuper_after"))
    row = objective.end_epoch()
    assert row["loss_sub_class"] == pytest.approx(of_sub, rel=1e-6)
    assert row["loss_super_class"] == pytest.approx(of_super, rel=1e-6)
    assert row["accuracy"] == REFERENCE["loss_joint_acc"]


def test_images_are_turned_as_in_the_original(tmp_path: Path) -> None:
    settings = parameters(batch_size=8, n_super_classes=4, image_size=8)
    objective = DeeperClusterObjective(MadeImages(20), settings, ALONE, tmp_path)
    # Of the image, which is wider than high, the square on the left.
    image = torch.from_numpy(REFERENCE["rot_in"][:, :3]).permute(2, 0, 1).float()
    batch = image.expand(8, 3, 3, 3).contiguous(memory_format=torch.channels_last)
    numbers = torch.arange(8)
    turned = objective.prepare(batch, LearntBatch(numbers, numbers))
    assert turned.is_contiguous(memory_format=torch.channels_last)
    parts = {0: np.s_[:, :3], 90: np.s_[1:], 180: np.s_[:, 1:], 270: np.s_[:3]}
    for group, (angle, part) in enumerate(parts.items()):
        for place in (2 * group, 2 * group + 1):
            np.testing.assert_array_equal(
                turned[place].permute(1, 2, 0).numpy(), REFERENCE[f"rot_{angle}"][part]
            )


def test_new_heads_are_drawn_as_linear_layers_are() -> None:
    own = [OwnRows(group, 0, 2) for group in range(8)]
    heads = Heads(parameters(), own, ALONE)
    before = torch.get_rng_state()
    heads.renew(4, [5, 5])
    assert torch.equal(torch.get_rng_state(), before)
    weights = {name: each for name, each in heads.rows().items() if name.endswith("weight")}
    assert len(weights) == 8
    for weight in weights.values():
        assert weight.shape == (5, 12)
        assert 0.5 / 12**0.5 < float(weight.abs().max()) <= 1 / 12**0.5
    distinct = {tuple(weight.ravel().tolist()) for weight in weights.values()}
    heads.renew(6, [5, 5])
    distinct |= {
        tuple(each.ravel().tolist()) for name, each in heads.rows().items() if "weight" in name
    }
    # Each group and each clustering has its own; momenta are 0.
    assert len(distinct) == 8 + 8 + 1


def test_a_single_cluster_has_no_head() -> None:
    heads = Heads(parameters(), [OwnRows(group, 0, 2) for group in range(8)], ALONE)
    heads.renew(0, [1, 3])
    assert {name.split("_")[1] for name in heads.rows()} == {
        f"{group:05d}" for group in range(4, 8)
    }
    features = torch.rand(16, 12)
    found = heads.predict_clusters(features, torch.zeros(16, dtype=torch.int32))
    assert not found.losses[:8].any() and found.is_right[:8].all()
    assert (found.losses[8:] > 0).all()


@pytest.mark.parametrize(("n_super_classes", "is_new"), [(8, True), (4, False)])
def test_super_classes_of_rotations_alone_stay(n_super_classes: int, is_new: bool) -> None:
    own = [OwnRows(group, 0, 2) for group in range(n_super_classes)]
    heads = Heads(parameters(n_super_classes=n_super_classes), own, ALONE)
    m = n_super_classes // 4
    heads.renew(0, [3] * m)
    before = heads.state()["weight"].clone()
    heads.renew(2, [3] * m)
    assert torch.equal(heads.state()["weight"], before) is not is_new
