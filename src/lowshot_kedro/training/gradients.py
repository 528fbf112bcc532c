"""The mean of gradients over processes, with the same bits after a stop as without."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


def parallel_network(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    """A network of which the processes of the default group each learn from a part of a batch.

    Its backward passes leave the mean of the gradients over processes.

    Args:
        network: On the device.
        device: Where this process computes.
    """
    parallel = DistributedDataParallel(
        network, device_ids=[device] if device.type == "cuda" else None
    )
    # DDP wants no annotations that are texts.
    parallel.register_comm_hook(None, lambda _, bucket: _mean_of_each(bucket))
    return parallel


def _mean_of_each(bucket: Any) -> torch.futures.Future[torch.Tensor]:
    """Average the gradients of a bucket, each by itself.

    In which order three processes and more are added up follows from the place of a number in what
    is sent. The places in a bucket change after the first batch of a run, when buckets are made
    anew; those in the gradient of one tensor do not.

    Args:
        bucket: A torch.distributed.GradBucket.
    """
    first, sums = 0, []
    buffer = bucket.buffer().div_(distributed.get_world_size())
    for gradient in bucket.gradients():
        part = buffer[first : first + gradient.numel()]
        work = distributed.all_reduce(part, async_op=True)
        assert work is not None, "this process is one of the group"
        sums.append(work.get_future())
        first += gradient.numel()
    return torch.futures.collect_all(sums).then(lambda _: buffer)
