"""Images, features and checkpoints for the tests of the networks."""

import pickle
from collections import OrderedDict
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image


def photographs():
    """One lying and one standing."""
    lying, standing = (
        Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")
    )
    return [lying, standing.rotate(90, expand=True)]


def noise(size, seed=0):
    """An image that every interpolation and every shift by a pixel turns into another one."""
    width, height = size
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def features_of(extractor, images):
    with torch.inference_mode():
        return extractor.network(torch.stack([extractor.preprocess(image) for image in images]))


def with_random_state(network, seed=0):
    """Other weights in every tensor, of a size that lets an image pass through many layers."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            values = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim > 1:
                values *= (2 / tensor[0].numel()) ** 0.5
            elif name.endswith(("weight", "running_var")):
                values = 1 + 0.1 * values.abs()
            else:
                values *= 0.1
            tensor.copy_(values)
    return network.eval()


# How released checkpoints name the tensors of a network without labels, and what else they hold.
RELEASED = {
    "deepercluster": lambda name: f"module.{'' if name.startswith('sobel') else 'body.'}{name}",
    "deepcluster": lambda name: name.replace("features.", "features.module."),
    "rotnet": lambda name: f"module.{name}",
    "body": lambda name: name,
}
RELEASED_HEADS = {
    "deepercluster": "module.pred_layer",
    "deepcluster": "top_layer",
    "rotnet": "module.pred_layer",
}


def write_released(path, network, kind, without=(), more=None):
    """A checkpoint of DeeperCluster or of what it is compared with, as it was released."""
    state = {
        RELEASED[kind](name): tensor
        for name, tensor in network.state_dict().items()
        if name not in without
    }
    if kind in RELEASED_HEADS:
        state[f"{RELEASED_HEADS[kind]}.weight"] = torch.ones(3, network.dimension)
        state[f"{RELEASED_HEADS[kind]}.bias"] = torch.ones(3)
    state |= more or {}
    content = {"epoch": 100, "state_dict": OrderedDict(state), "optimizer": {"param_groups": []}}
    torch.save(content, path)
    return path


class _OldStorage:
    """A storage in the memory of the first GPU, as a 2017 file refers to it."""

    def __init__(self, key, tensor):
        self.key = key
        self.tensor = tensor


class _OldTensor:
    def __init__(self, storage):
        self.storage = storage

    def __reduce__(self):
        tensor = self.storage.tensor
        arguments = (self.storage, 0, tuple(tensor.shape), tensor.stride())
        return torch._utils._rebuild_tensor, arguments


class _Python2Pickler(pickle._Pickler):
    """Writes text as Python 2 wrote it, and ordered dictionaries as lists of pairs."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def _save_text(self, text):
        content = text.encode("ascii")
        self.write(pickle.SHORT_BINSTRING + bytes([len(content)]) + content)
        self.memoize(text)

    dispatch[str] = _save_text

    def reducer_override(self, value):
        if isinstance(value, OrderedDict):
            return OrderedDict, ([[key, item] for key, item in value.items()],)
        return NotImplemented

    def persistent_id(self, value):
        if not isinstance(value, _OldStorage):
            return None
        storage_type = torch.cuda.FloatStorage
        return ("storage", storage_type, value.key, "cuda:0", value.tensor.numel(), None)


def write_2017_checkpoint(path, state, **others):
    """What torch.save of PyTorch 0.3 under Python 2 wrote on a machine with a GPU.

    No zip archive but five pickles, then the values; tensors on the GPU; no versions of modules.
    """
    storages = {
        name: _OldStorage(str(94000 + number), tensor.contiguous())
        for number, (name, tensor) in enumerate(state.items())
    }
    old_state = OrderedDict((name, _OldTensor(storage)) for name, storage in storages.items())
    sizes = {"short": 2, "int": 4, "long": 4}
    with path.open("wb") as file:
        for value in (
            0x1950A86A20F9469CFC6C,
            1001,
            {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes},
            {**others, "state": old_state},
            sorted(storage.key for storage in storages.values()),
        ):
            _Python2Pickler(file, protocol=2).dump(value)
        for storage in sorted(storages.values(), key=lambda storage: storage.key):
            values = storage.tensor.numpy()
            file.write(np.int64(values.size).tobytes() + values.tobytes())
