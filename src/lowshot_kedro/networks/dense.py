"""Networks without the pooling at their end: a vector for every region of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import fx, nn
from torch.nn.functional import adaptive_avg_pool2d

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks.embedding_module import EmbeddingNetwork
from lowshot_kedro.networks.extractor import Extractor
from lowshot_kedro.networks.weights import reason

# What networks of timm raise for a form of output that they do not have.
_NOT_OFFERED = (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError)


@dataclass(frozen=True)
class DenseExtractor(Extractor):
    """A network whose feature of an image is a map: a row of it is flattened from (C, h, w).

    Attributes:
        dense: Maps float32 (n, 3, height, width) to float32 (n, C, h, w), in evaluation mode.
        shape: C, h and w.
    """

    dense: nn.Module
    shape: tuple[int, int, int]

    def describe(self) -> dict[str, Any]:
        """Facts that the features of an image follow from, the shape of a map among them."""
        return {**super().describe(), "shape": list(self.shape)}


class FlatMaps(nn.Module):
    """A dense network with a row for every image.

    Args:
        dense: Maps float32 (n, 3, height, width) to float32 (n, C, h, w).
    """

    def __init__(self, dense: nn.Module) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, 3, height, width) to float32 (n, C · h · w)."""
        return torch.flatten(self.dense(images), 1)


class _Features(nn.Module):
    """The map of a network that has a function for it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.network.forward_features(images)
        return maps


class _ChannelsToFront(_Features):
    """The same where channels are the last axis."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).permute(0, 3, 1, 2)


class _TokensInPlace(nn.Module):
    """The tokens of the last block, each in its place, without those that have no place.

    Args:
        network: A network of timm.
        normalized: Whether its last norm is applied to them.
    """

    def __init__(self, network: Any, normalized: bool) -> None:
        super().__init__()
        self.network = network
        self.normalized = normalized

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        (maps,) = self.network.forward_intermediates(
            images, indices=1, norm=self.normalized, output_fmt="NCHW", intermediates_only=True
        )
        last: torch.Tensor = maps
        return last


def dense_extractor(extractor: Extractor) -> DenseExtractor:
    """A network without its pooling, with the weights and the preprocessing that it has.

    Args:
        extractor: The network; its modules are shared.

    Raises:
        InputError: If it has no map before its pooling.
    """
    preprocess = extractor.preprocess
    sample = torch.zeros_like(preprocess(Image.new("RGB", (64, 64))))[None]
    with torch.inference_mode():
        dense = _dense_part(extractor, sample).eval()
        maps = dense(sample)
    if not _is_map(maps):
        raise no_dense_map(extractor.name, f"returns {form_of(maps)} for one image")
    _, channels, height, width = maps.shape
    return DenseExtractor(
        name=extractor.name,
        network=FlatMaps(dense).eval(),
        preprocess=preprocess,
        dimension=channels * height * width,
        dense=dense,
        shape=(channels, height, width),
    )


def no_dense_map(name: str, found: str) -> InputError:
    """The error for a network without a map.

    Args:
        name: Name of the network.
        found: What it has instead.
    """
    return InputError(
        f"but this network has no dense map: it {found}",
        parameter="name",
        found=name,
        expected="a network with a vector for every region, such as ResNet12, timm/resnet18 or "
        "timm/vit_tiny_patch16_224",
    )


def _is_map(output: Any) -> bool:
    return isinstance(output, torch.Tensor) and output.ndim == 4 and len(output) == 1


def form_of(output: Any) -> str:
    """What a network has returned, in a few words."""
    if isinstance(output, torch.Tensor):
        return f"an array of shape {tuple(output.shape)}"
    return f"a {type(output).__name__}"


def _dense_part(extractor: Extractor, sample: torch.Tensor) -> nn.Module:
    network: Any = extractor.network
    if isinstance(network, EmbeddingNetwork):
        network = network.network
    if not hasattr(network, "forward_features"):
        return _before_pooling(network, extractor.name)
    features = _Features(network)
    if not _is_map(features(sample)):
        return _tokens_in_place(network, sample, extractor.name)
    return _ChannelsToFront(network) if _has_channels_last(network) else features


def _has_channels_last(network: Any) -> bool:
    return str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")


def _tokens_in_place(network: Any, sample: torch.Tensor, name: str) -> nn.Module:
    problem = ""
    # Some have no norm at the end that could be applied.
    for normalized in (True, False):
        dense = _TokensInPlace(network, normalized)
        try:
            maps = dense(sample)
        except _NOT_OFFERED as error:
            problem = reason(error)
            continue
        if _is_map(maps):
            return dense
        problem = form_of(maps)
    raise no_dense_map(name, f"does not say which token belongs to which region ({problem})")


def _before_pooling(network: nn.Module, name: str) -> nn.Module:
    """The part of a network before its last mean over positions."""
    try:
        graph = fx.Tracer().trace(network)
    except (fx.proxy.TraceError, RuntimeError, TypeError) as error:
        raise no_dense_map(name, f"cannot be taken apart ({reason(error)})") from error
    pooling = [node for node in graph.nodes if _is_pooling(node, network)]
    if not pooling:
        raise no_dense_map(name, "has no mean over positions before which there would be one")
    (output,) = [node for node in graph.nodes if node.op == "output"]
    output.args = (pooling[-1].args[0],)
    part = fx.GraphModule(network, graph)
    graph.eliminate_dead_code()
    part.delete_all_unused_submodules()
    part.recompile()
    return part


def _is_pooling(node: fx.Node, network: nn.Module) -> bool:
    if node.op == "call_module":
        layer = network.get_submodule(str(node.target))
        return isinstance(layer, nn.AdaptiveAvgPool2d)
    if node.op == "call_function":
        return node.target is adaptive_avg_pool2d
    return node.op == "call_method" and node.target == "mean" and [2, 3] in node.args
