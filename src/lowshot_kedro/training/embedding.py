"""What a network in training makes of images on which nothing is random."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from lowshot_kedro.images import ImageSource, ImageSubset
from lowshot_kedro.networks.extractor import image_batches
from lowshot_kedro.training.parameters import TrainingParameters
from lowshot_kedro.training.processes import Processes
from lowshot_kedro.training.transforms import RECIPES


def embed(
    network: nn.Module,
    images: ImageSource,
    parameters: TrainingParameters,
    processes: Processes,
) -> torch.Tensor:
    """What a network in training returns for images, of which each process takes its part.

    :func:`~lowshot_kedro.networks.extract_features` is for networks that no longer change.

    Args:
        network: On the device of this process; it is in evaluation mode afterwards.
        images: The images, as many as fit in memory as outputs.
        parameters: Augmentation and size, which say what images undergo; size of batches, workers
            and precision.
        processes: Those that train. All call this.

    Returns:
        float32 (n, d), the outputs for all images, in every process.

    Raises:
        InputError: If the network no longer returns numbers.
    """
    network.eval()
    device = processes.device
    preprocess = RECIPES[parameters.augmentation].preprocessing(parameters.image_size)
    # An image at least, for the shape of what the network returns.
    n_parts = min(processes.n_processes, len(images))
    parts = np.array_split(np.arange(len(images)), n_parts)
    own = ImageSubset(images, parts[min(processes.rank, n_parts - 1)])
    outputs = []
    with torch.inference_mode(), _autocast(parameters, device):
        for batch in image_batches(
            own, preprocess, parameters.batch_size, 0, parameters.workers, device
        ):
            pixels = batch.pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
            outputs.append(network(preprocess.normalize(pixels)).float())
    found = torch.cat(outputs)
    if not found.isfinite().all():
        raise parameters.diverged("the network returns NaN or infinity")
    return processes.gather(found if processes.rank < n_parts else found[:0])


def _autocast(parameters: TrainingParameters, device: torch.device) -> torch.autocast:
    return torch.autocast(
        device.type, torch.bfloat16, enabled=parameters.uses_autocast(device.type)
    )
