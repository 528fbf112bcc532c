"""The heads of DeeperCluster: linear layers that predict super-class and cluster of an image.

One head predicts the super-class, which all processes learn together. Each training group has a
head of its own for the clusters of its super-cluster, which only those processes hold that have
images of the group: with 80 000 clusters and features of 4096 numbers it takes 1.3 GB, and as much
again for gradients and momentum each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from lowshot_kedro.deepercluster.groups import OwnRows, own_rows_of_groups
from lowshot_kedro.deepercluster.parameters import DeeperClusterParameters
from lowshot_kedro.training.batches import seed_of
from lowshot_kedro.training.checkpoints import Checkpoint
from lowshot_kedro.training.processes import Processes

_MOMENTUM = "momentum_buffer"
_SUPER_HEAD = -1


class Predicted(NamedTuple):
    """How well the super-classes, or the clusters, of images are predicted.

    Attributes:
        losses: float32 (b,), cross-entropy of each image.
        is_right: bool (b,), whether its class is the one that is predicted.
    """

    losses: torch.Tensor
    is_right: torch.Tensor


class Heads:
    """The heads that a process holds, and how they are learnt.

    They are learnt by SGD as the network is, the head of super-classes from the mean of the loss
    over a batch, and that of a group from the mean over the group's images in it.

    Args:
        parameters: How they are learnt.
        own: What this process has of the training groups' places in a batch.
        processes: Those that share a batch.
    """

    def __init__(
        self, parameters: DeeperClusterParameters, own: Sequence[OwnRows], processes: Processes
    ) -> None:
        self._parameters, self._own, self._processes = parameters, own, processes
        self._n_groups = parameters.n_super_classes
        ranks = _ranks_of_groups(parameters, processes.n_processes)
        # For each group the processes that hold its head, as this one sees them.
        self._holders = processes.parts(ranks)
        self._clusters_per_super: list[int] = []
        self._super: _Learnt | None = None
        self._sub: dict[int, _Learnt] = {}
        self._groups = torch.tensor(
            [rows.group for rows in own for _ in range(rows.first, rows.last)],
            device=processes.device,
        )

    def drop(self) -> None:
        """Give the memory back of heads whose clusters are about to be no more."""
        self._sub = {}
        if self._parameters.n_super_clusters > 1:
            self._super = None

    def renew(self, epoch: int, clusters_per_super: Sequence[int]) -> None:
        """Begin with new heads, which no number of processes changes.

        The head of super-classes stays where there is one super-cluster: its classes are the
        rotations then.

        Args:
            epoch: Of the clustering.
            clusters_per_super: Clusters of each super-cluster. Where there is but one, nothing is
                to be predicted, and there is no head.
        """
        self.drop()
        self._clusters_per_super = list(clusters_per_super)
        if self._super is None and self._n_groups > 1:
            self._super = self._learnt(epoch, _SUPER_HEAD, self._n_groups)
        for group, _, _ in self._own:
            n_clusters = self._n_clusters(group)
            if n_clusters > 1:
                self._sub[group] = self._learnt(epoch, group, n_clusters)

    def predict_super_classes(self, features: torch.Tensor) -> Predicted:
        """Judge the prediction of super-classes.

        Args:
            features: float32 (b, dimension), of this process's part of a batch.
        """
        if self._super is None:
            return _certain(features)
        return _predicted(self._super.layer(features), self._groups)

    def predict_clusters(self, features: torch.Tensor, clusters: torch.Tensor) -> Predicted:
        """Judge the prediction of clusters, each group's by its own head.

        Args:
            features: float32 (b, dimension), of this process's part of a batch.
            clusters: Integers (b,), the cluster of each image in its super-cluster.
        """
        found, first = [], 0
        for rows in self._own:
            last = first + rows.last - rows.first
            own = features[first:last]
            if rows.group in self._sub:
                logits = self._sub[rows.group].layer(own)
                found.append(_predicted(logits, clusters[first:last].long()))
            else:
                found.append(_certain(own))
            first = last
        return Predicted(*(torch.cat(values) for values in zip(*found, strict=True)))

    def step(self, lr: float) -> None:
        """Move the heads by their gradients, which all processes have formed of means over a batch.

        Gradients are such that their mean over processes is that of the mean over the batch.

        Args:
            lr: The learning rate.
        """
        n_processes = self._processes.n_processes
        if self._super is not None:
            self._super.step(lr, self._processes, 1 / n_processes)
        for group, learnt in self._sub.items():
            holders = self._holders[group]
            assert holders is not None, "the process has places of the group"
            learnt.step(lr, holders, self._n_groups / n_processes)

    def drop_gradients(self) -> None:
        """Forget gradients that no step has used."""
        for learnt in [self._super, *self._sub.values()]:
            if learnt is not None:
                learnt.drop_gradients()

    def state(self) -> dict[str, Any]:
        """What all processes have: the head of super-classes and its momentum."""
        return {} if self._super is None else self._super.tensors()

    def rows(self) -> dict[str, torch.Tensor]:
        """The heads of groups and their momenta, each given by the first process that holds it."""
        found: dict[str, torch.Tensor] = {}
        for group in range(self._n_groups):
            if self._n_clusters(group) < 2:
                continue
            holders = self._holders[group]
            if holders is not None and holders.is_first:
                tensors = self._sub[group].tensors()
            else:
                tensors = self._no_rows()
            found |= {_row_name(group, name): tensor for name, tensor in tensors.items()}
        return found

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take the head of super-classes as :meth:`state` gave it."""
        if self._n_groups > 1:
            self._super = self._super or self._learnt(0, _SUPER_HEAD, self._n_groups)
            self._super.restore(state)

    def restore_rows(self, checkpoint: Checkpoint) -> None:
        """Take the heads of this process's groups, after :meth:`renew`, from a checkpoint."""
        for group, learnt in self._sub.items():
            n_clusters = self._n_clusters(group)
            learnt.restore(
                {
                    name: checkpoint.read_rows(_row_name(group, name), 0, n_clusters)
                    for name in self._no_rows()
                }
            )

    def _n_clusters(self, group: int) -> int:
        return self._clusters_per_super[group // self._parameters.n_rotations]

    def _learnt(self, epoch: int, group: int, n_classes: int) -> _Learnt:
        """A new head, drawn as PyTorch draws a linear layer."""
        parameters = self._parameters
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(parameters.seed, epoch, group, 2))
            layer = nn.Linear(parameters.dimension, n_classes)
        return _Learnt(layer.to(self._processes.device), parameters)

    def _no_rows(self) -> dict[str, torch.Tensor]:
        """Of a head that another process gives."""
        empty = {"weight": torch.empty(0, self._parameters.dimension), "bias": torch.empty(0)}
        momenta = {_momentum_of(name): tensor for name, tensor in empty.items()}
        return empty | (momenta if self._parameters.momentum else {})


class _Learnt:
    """A head with its optimiser."""

    def __init__(self, layer: nn.Linear, parameters: DeeperClusterParameters) -> None:
        self.layer = layer
        self._has_momentum = parameters.momentum > 0
        self._optimizer = torch.optim.SGD(
            layer.parameters(),
            lr=parameters.lr,
            momentum=parameters.momentum,
            weight_decay=parameters.weight_decay,
            nesterov=parameters.nesterov,
        )

    def step(self, lr: float, holders: Processes, scale: float) -> None:
        """Move by the gradients of all holders, added up and multiplied by a number."""
        for parameter in self.layer.parameters():
            assert parameter.grad is not None, "each holder has images of the group"
            holders.add_up(parameter.grad)
            parameter.grad *= scale
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._optimizer.zero_grad()

    def drop_gradients(self) -> None:
        self._optimizer.zero_grad()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weight and bias, and their momenta."""
        found: dict[str, torch.Tensor] = {}
        for name, parameter in self.layer.named_parameters():
            found[name] = parameter.detach()
            if self._has_momentum:
                momentum = self._optimizer.state[parameter].get(_MOMENTUM)
                # Before the first step there is none, which is to say 0.
                found[_momentum_of(name)] = (
                    torch.zeros_like(parameter) if momentum is None else momentum
                )
        return found

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take weight, bias and momenta, as :meth:`tensors` has them."""
        for name, parameter in self.layer.named_parameters():
            parameter.copy_(tensors[name])
            if self._has_momentum:
                momentum = tensors[_momentum_of(name)].to(parameter.device, copy=True)
                self._optimizer.state[parameter][_MOMENTUM] = momentum


def _ranks_of_groups(parameters: DeeperClusterParameters, n_processes: int) -> list[range]:
    """For each group the ranks of the processes that have places of it."""
    found: list[list[int]] = [[] for _ in range(parameters.n_super_classes)]
    for rank in range(n_processes):
        own = own_rows_of_groups(
            parameters.batch_size, parameters.n_super_classes, rank, n_processes
        )
        for rows in own:
            found[rows.group].append(rank)
    return [range(ranks[0], ranks[-1] + 1) for ranks in found]


def _momentum_of(name: str) -> str:
    return f"{name}_momentum"


def _row_name(group: int, name: str) -> str:
    return f"head_{group:05d}_{name}"


def _predicted(logits: torch.Tensor, classes: torch.Tensor) -> Predicted:
    losses = functional.cross_entropy(logits, classes, reduction="none")
    return Predicted(losses, logits.detach().argmax(1) == classes)


def _certain(features: torch.Tensor) -> Predicted:
    """The prediction of the only class that there is."""
    losses = features.new_zeros(len(features))
    return Predicted(losses, torch.ones_like(losses, dtype=torch.bool))
