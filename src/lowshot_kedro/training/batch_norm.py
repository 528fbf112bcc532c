"""Batch normalisation over the batch of all processes: Ioffe and Szegedy, arXiv 1502.03167.

Each process has a part of the batch. Statistics of the parts differ from those of the whole batch,
by several per cent of what a network returns, so that results would depend on the number of
processes.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lowshot_kedro.errors import InputError
from lowshot_kedro.training.layers import with_layers_replaced
from lowshot_kedro.training.processes import Processes

# What timm's layers do besides: they are normalisation and activation in one.
_AFTERWARDS = ("drop", "act")


def with_synchronized_batch_norm(network: nn.Module, processes: Processes) -> nn.Module:
    """Have a network normalise by mean and variance of the whole batch.

    Its state keeps the names of its tensors. With one process the network is returned as it is. On
    GPUs PyTorch's SyncBatchNorm does the work, which refuses tensors on a CPU.

    Args:
        network: Its layers of batch normalisation are replaced.
        processes: All of them call this, and then call the network as often as the others, with
            parts of the batch that may differ in size and be empty.

    Returns:
        The network, or the layer that takes its place if it is itself such a layer.

    Raises:
        InputError: If a layer is of a kind for which there is no replacement.
    """
    if processes.n_processes == 1:
        return network
    for name, layer in network.named_modules():
        if isinstance(layer, _BatchNorm):
            _require_known(name, layer)
    if processes.device.type == "cuda":
        timm = sys.modules.get("timm")
        if timm is not None:
            converted: nn.Module = timm.layers.convert_sync_batchnorm(network)
            return converted
        synchronized: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return synchronized

    def replacement(layer: nn.Module) -> nn.Module | None:
        return WholeBatchNorm(layer, processes) if isinstance(layer, _BatchNorm) else None

    return with_layers_replaced(network, replacement)


class WholeBatchNorm(nn.BatchNorm2d):
    """Batch normalisation of (n, channels, …) over all processes, on CPUs.

    Sums are taken in double precision and added in the order of the processes, so that all have the
    same bits. In evaluation it is what it replaces.

    Args:
        layer: The layer that this one replaces, of which it has the tensors.
        processes: All processes.
    """

    def __init__(self, layer: _BatchNorm, processes: Processes) -> None:
        super().__init__(
            layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
        )
        self.weight, self.bias = layer.weight, layer.bias
        for name, buffer in layer.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        for name, child in layer.named_children():
            self.add_module(name, child)
        self.train(layer.training)
        self._processes = processes

    def forward(self, input: Tensor) -> Tensor:
        """Normalise this process's part of the batch."""
        output = self._normalized(input) if self.training else self._by_known_statistics(input)
        for name in _AFTERWARDS:
            if hasattr(self, name):
                output = getattr(self, name)(output)
        return output

    def _by_known_statistics(self, values: Tensor) -> Tensor:
        return nn.functional.batch_norm(
            values,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.running_mean is None,
            0.0,
            self.eps,
        )

    def _normalized(self, values: Tensor) -> Tensor:
        over = [axis for axis in range(values.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(values.dim())]
        # In half precision neither the mean nor what is left of it would be of use.
        exact = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values

        n_here = values.numel() // max(values.shape[1], 1)
        count = self._processes.sum(torch.tensor(n_here)).item()
        if count < 2:
            raise ValueError(f"got {count} values for each channel, expected 2 or more in training")
        mean = self._sum(exact.sum(over, dtype=torch.float64)) / count
        centred = exact - mean.to(exact.dtype).reshape(shape)
        variance = self._sum(centred.square().sum(over, dtype=torch.float64)) / count
        self._note(mean.detach(), variance.detach() * (count / (count - 1)))

        scale = (variance + self.eps).rsqrt().to(exact.dtype)
        if self.weight is not None:
            scale = scale * self.weight
        output = centred * scale.reshape(shape)
        if self.bias is not None:
            output = output + self.bias.reshape(shape)
        return output.to(values.dtype)

    def _sum(self, tensor: Tensor) -> Tensor:
        total: Tensor = _SumOfAll.apply(tensor, self._processes)
        return total

    @torch.no_grad()
    def _note(self, mean: Tensor, variance: Tensor) -> None:
        """Take mean and unbiased variance of the batch into those that evaluation uses."""
        if self.running_mean is None or self.running_var is None:
            return
        part = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            if part is None:
                part = 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), part or 0.0)
        self.running_var.lerp_(variance.to(self.running_var.dtype), part or 0.0)


class _SumOfAll(torch.autograd.Function):
    """The sum over all processes.

    Each process has the sum, and goes on from it: the gradient for the part of one of them is the
    sum of the gradients that all of them have for the sum.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, processes: Processes) -> Tensor:
        ctx.processes = processes
        return processes.sum(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.processes.sum(gradient), None


def _require_known(name: str, layer: _BatchNorm) -> None:
    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    timm = sys.modules.get("timm")
    known = plain if timm is None else (*plain, timm.layers.BatchNormAct2d)
    if type(layer) not in known:
        raise InputError(
            f"the network's layer {name or 'itself'} is {type(layer).__name__}, which cannot be "
            "computed over several processes",
            parameter="n_processes",
        )
