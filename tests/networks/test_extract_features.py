"""Images go through a network batch by batch, while somebody writes the features down."""

import json
import logging
import multiprocessing
import os
import shutil
import threading
import time
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lowshot_kedro.blocks import Resumable, RowBlocks
from lowshot_kedro.images import AbsentImages, ImageSubset, LoadedImage
from lowshot_kedro.networks import (
    Extractor,
    Preprocessing,
    create_extractor,
    extract_features,
)
from lowshot_kedro.networks import (
    extractor as extractor_module,
)


class FlatImages:
    """LoadedImage i is all i; the numbers given are blank."""

    def __init__(self, n_images, blank=()):
        self.n_images = n_images
        self.blank = blank

    def __len__(self):
        return self.n_images

    def __getitem__(self, number):
        assert 0 <= number < self.n_images
        if number in self.blank:
            return LoadedImage(Image.new("RGB", (8, 8)), 100 + number, f"no file {number}")
        color = (number, 2 * number, 0)
        return LoadedImage(Image.new("RGB", (8, 8), color), 100 + number, None)

    @property
    def labels(self):
        return 100 + np.arange(self.n_images, dtype=np.int32)

    def describe(self):
        return {"kind": "flat", "n_pictures": self.n_images}


class NoiseImages(FlatImages):
    def __getitem__(self, number):
        noise = np.random.default_rng(number).integers(0, 256, (70, 90, 3), dtype=np.uint8)
        return LoadedImage(Image.fromarray(noise), 100 + number, None)


class Means(nn.Module):
    """The mean of every channel, times a factor that a test may spoil."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        return self.dropout(images.mean((2, 3)) * self.factor)


def unchanged(image):
    return image


def half(image):
    return image.resize((image.width // 2, image.height // 2))


# The network sees the pixels as they are, 0..255.
AS_IT_IS = Preprocessing(unchanged, (0, 0, 0), (1 / 255, 1 / 255, 1 / 255))


def means(network=None, dimension=3):
    return Extractor("means", network or Means(), AS_IT_IS, dimension)


def flattened():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5))
    return Extractor("flattened", network, replace(AS_IT_IS, std=(1, 1, 1)), 5)


def extract(source, extractor=None, batch_size=4, num_workers=0, precision="float32", **options):
    return extract_features(
        extractor or means(),
        source,
        batch_size=batch_size,
        num_workers=num_workers,
        device="cpu",
        precision=precision,
        **options,
    )


def blocks_of(result, tmp_path, first_row=0):
    return result.begin(tmp_path).starting_at(first_row)


def joined(blocks):
    parts = list(blocks)
    return (
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def features_of(tmp_path, *arguments, **options):
    return joined(blocks_of(extract(*arguments, **options), tmp_path))[0]


@pytest.mark.parametrize(
    ("batch_size", "num_workers"), [(1, 0), (4, 0), (100, 0), (4, 2), (100, 2), (4, None)]
)
def test_features_and_labels_in_the_order_of_the_images(tmp_path, batch_size, num_workers):
    result = extract(FlatImages(10), batch_size=batch_size, num_workers=num_workers)
    assert isinstance(result, Resumable)
    content = result.begin(tmp_path)
    assert isinstance(content, RowBlocks)
    assert (content.n_rows, content.n_columns, content.block_rows) == (10, 3, batch_size)
    features, labels = joined(content.starting_at(0))
    numbers = np.arange(10)
    np.testing.assert_allclose(
        features, np.stack([numbers, 2 * numbers, 0 * numbers], 1), rtol=1e-6
    )
    np.testing.assert_array_equal(labels, 100 + numbers)
    assert (features.dtype, labels.dtype) == (np.float32, np.int32)
    assert list(tmp_path.iterdir()) == []


def test_batches_are_blocks_and_are_made_when_asked_for(tmp_path):
    extractor = means()
    calls = []
    extractor.network.register_forward_hook(lambda *_: calls.append(threading.current_thread()))
    blocks = blocks_of(extract(FlatImages(10), extractor), tmp_path)
    assert calls == []
    assert [len(block.features) for block in blocks] == [4, 4, 2]
    # Whoever writes the blocks down does that meanwhile.
    assert threading.current_thread() not in calls


@pytest.mark.parametrize("num_workers", [0, 2])
def test_who_begins_in_the_middle_gets_the_same_bits(tmp_path, num_workers):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    result = extract(NoiseImages(11), means(network, 8), batch_size=3, num_workers=num_workers)
    features, labels = joined(blocks_of(result, tmp_path))
    for first in (3, 9):
        rest, rest_of_labels = joined(blocks_of(result, tmp_path, first))
        np.testing.assert_array_equal(rest, features[first:])
        np.testing.assert_array_equal(rest_of_labels, labels[first:])


def test_whoever_stops_early_leaves_no_thread_and_no_worker(tmp_path):
    before = set(threading.enumerate())
    n_threads = torch.get_num_threads()
    blocks = iter(blocks_of(extract(FlatImages(50), num_workers=2), tmp_path))
    next(blocks)
    assert len(multiprocessing.active_children()) == 2
    blocks.close()
    assert multiprocessing.active_children() == []
    # Python does not wait for the thread that hands the workers their orders.
    deadline = time.monotonic() + 10
    while left := {thread for thread in threading.enumerate() if thread not in before}:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    assert torch.get_num_threads() == n_threads


def test_a_network_in_training_mode_is_switched_to_evaluation(tmp_path):
    features = features_of(tmp_path, FlatImages(10), means(Means().train()))
    np.testing.assert_allclose(features[:, 0], np.arange(10), rtol=1e-6)


def test_the_network_sees_normalised_channels_first(tmp_path):
    class Seen(nn.Module):
        def forward(self, images):
            assert (images.dtype, tuple(images.shape[1:])) == (torch.float32, (3, 4, 4))
            return images[:, :, 1, 1]

    preprocess = Preprocessing(half, (0.5, 0.25, 0), (0.5, 1, 2))
    extractor = Extractor("seen", Seen(), preprocess, 3)
    features = features_of(tmp_path, FlatImages(4), extractor)
    colors = np.stack([np.arange(4), 2 * np.arange(4), np.zeros(4)], 1) / 255
    expected = (colors - [0.5, 0.25, 0]) / [0.5, 1, 2]
    np.testing.assert_allclose(features, expected, atol=1e-6)


# Blank images.


def messages_of(caplog):
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_blank_images_are_named_counted_and_logged(tmp_path, caplog, num_workers):
    source = FlatImages(10, blank=(3, 7, 9))
    with caplog.at_level(logging.INFO):
        parts = list(blocks_of(extract(source, num_workers=num_workers), tmp_path))
    assert [dict(part.problems) for part in parts] == [
        {3: "no file 3"},
        {3: "no file 7"},
        {1: "no file 9"},
    ]
    assert messages_of(caplog) == [
        ("WARNING", "image 3 is blank: no file 3"),
        ("WARNING", "image 7 is blank: no file 7"),
        ("WARNING", "image 9 is blank: no file 9"),
        ("WARNING", "3 of 10 images missing or unreadable"),
    ]
    features, labels = joined(parts)
    np.testing.assert_array_equal(features[[3, 7, 9]], 0)
    np.testing.assert_array_equal(labels, 100 + np.arange(10))


def test_images_of_a_subset_are_named_by_the_numbers_of_the_collection(tmp_path, caplog):
    source = ImageSubset(FlatImages(10, blank=(3, 7)), np.array([1, 3, 4, 7, 9]))
    (first, second) = blocks_of(extract(source), tmp_path)
    assert [dict(part.problems) for part in (first, second)] == [
        {1: "no file 3", 3: "no file 7"},
        {},
    ]
    assert messages_of(caplog)[:2] == [
        ("WARNING", "image 3 is blank: no file 3"),
        ("WARNING", "image 7 is blank: no file 7"),
    ]


def test_who_begins_in_the_middle_counts_from_there(tmp_path, caplog):
    source = FlatImages(10, blank=(1, 5))
    with caplog.at_level(logging.INFO):
        (part, _) = blocks_of(extract(source), tmp_path, 4)
    assert dict(part.problems) == {1: "no file 5"}
    assert messages_of(caplog) == [
        ("WARNING", "image 5 is blank: no file 5"),
        ("WARNING", "1 of 6 images missing or unreadable"),
    ]


def test_many_blank_images_do_not_flood_the_log(tmp_path, caplog):
    source = FlatImages(90, blank=range(90))
    with caplog.at_level(logging.INFO):
        parts = list(blocks_of(extract(source, batch_size=12), tmp_path))
    assert len(caplog.records) == 21
    assert caplog.records[19].getMessage() == "image 19 is blank: no file 19"
    assert caplog.records[-1].getMessage() == "90 of 90 images missing or unreadable"
    assert sum(len(part.problems) for part in parts) == 90


def test_no_blank_image_is_no_warning(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        parts = list(blocks_of(extract(FlatImages(3)), tmp_path))
    assert messages_of(caplog) == [("INFO", "0 of 3 images missing or unreadable")]
    assert dict(parts[0].problems) == {}


# What cannot be used.


def test_images_that_are_not_at_hand():
    source = AbsentImages("train.json")
    with pytest.raises(ValueError, match="found no images, expected at least one") as caught:
        extract(source)
    assert repr(source) in str(caught.value)


def test_no_images_have_no_features(tmp_path):
    result = extract(FlatImages(0))
    assert (result.provenance["n_rows"], result.provenance["n_columns"]) == (0, 3)
    content = result.begin(tmp_path)
    assert (content.n_rows, content.n_columns) == (0, 3)
    assert list(content.starting_at(0)) == []


@pytest.mark.parametrize(
    ("network", "dimension", "found", "expected"),
    [(Means(), 5, "(4, 3)", "(4, 5)"), (nn.Identity(), 3, "(4, 3, 8, 8)", "(4, 3)")],
)
def test_a_network_of_another_dimension(tmp_path, network, dimension, found, expected):
    with pytest.raises(ValueError) as caught:
        features_of(tmp_path, FlatImages(10), means(network, dimension))
    for fact in ("extractor means", found, f"expected {expected}"):
        assert fact in str(caught.value)


class NanFor(Means):
    def forward(self, images):
        found = images.mean((2, 3))
        return torch.where(found[:, :1].round() == 6, torch.nan, found)


@pytest.mark.parametrize(
    ("network", "first", "complaint"),
    [
        (NanFor(), 0, r"1 row\(s\), numbers 6;"),
        (NanFor(), 4, r"1 row\(s\), numbers 6;"),
        (Means(torch.inf), 0, r"4 row\(s\), numbers 0, 1, 2, 3;"),
        (Means(torch.inf), 8, r"2 row\(s\), numbers 8, 9;"),
    ],
)
def test_a_network_that_returns_nan(tmp_path, network, first, complaint):
    blocks = blocks_of(extract(FlatImages(10), means(network)), tmp_path, first)
    with pytest.raises(ValueError, match=f"features of extractor means.*{complaint}"):
        joined(blocks)


def test_a_defect_of_a_source_is_raised_where_the_blocks_are_used(tmp_path):
    class Broken(FlatImages):
        def __getitem__(self, number):
            if number == 5:
                raise ZeroDivisionError("a defect")
            return super().__getitem__(number)

    with pytest.raises(ZeroDivisionError, match="a defect"):
        features_of(tmp_path, Broken(10))


# Precision, threads, workers, compilation.


def test_bfloat16_is_close_and_still_float32_outside(tmp_path):
    source = FlatImages(10)
    exact = features_of(tmp_path, source, flattened())
    rough = features_of(tmp_path, source, flattened(), precision="bfloat16")
    assert rough.dtype == np.float32
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(rough, exact, rtol=0.05, atol=0.05)


def test_precision_auto_is_exact_on_a_cpu(tmp_path):
    source = FlatImages(4)
    exact = features_of(tmp_path, source, flattened())
    automatic = extract(source, flattened(), precision="auto")
    assert automatic.provenance["precision"] == "float32"
    np.testing.assert_array_equal(joined(blocks_of(automatic, tmp_path))[0], exact)


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_a_short_batch_is_worked_on_by_one_thread(tmp_path, torch_threads):
    """Products of eleven rows are rounded in another way where two threads share them."""
    torch_threads(2)
    linear = nn.Linear(192, 12)
    network = nn.Sequential(nn.Flatten(), linear)
    preprocess = Preprocessing(lambda image: image.resize((8, 8)), (0, 0, 0), (1, 1, 1))
    source = NoiseImages(11)
    extractor = Extractor("linear", network, preprocess, 12)
    features, _ = joined(blocks_of(extract(source, extractor, batch_size=16), tmp_path))
    torch_threads(1)
    pixels = torch.stack([preprocess(source[number].image) for number in range(11)])
    with torch.inference_mode():
        np.testing.assert_array_equal(features, network(pixels).numpy())


def test_features_do_not_depend_on_the_number_of_threads(tmp_path, torch_threads):
    extractor = create_extractor("efficientnet_lite0", "none", 64)
    found = []
    for n_threads in (1, 2, 3):
        torch_threads(n_threads)
        found.append(features_of(tmp_path, NoiseImages(10), extractor, batch_size=4))
    assert found[0].std() > 0
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


@pytest.mark.parametrize(
    ("num_workers", "cores", "expected"),
    [(0, 8, 0), (3, 8, 3), (40, 8, 40), (None, 8, 8), (None, 1, 1), (None, 64, 16)],
)
def test_images_are_decoded_by_as_many_processes_as_there_are_cores(
    monkeypatch, num_workers, cores, expected
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert extractor_module.choose_num_workers(num_workers) == expected


def test_a_system_that_does_not_say_which_cores_are_allowed(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for found, expected in ((6, 6), (None, 1), (100, 16)):
        monkeypatch.setattr(os, "cpu_count", lambda found=found: found)
        assert extractor_module.choose_num_workers(None) == expected


CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("compiled", "device", "n_images", "compilers", "expected"),
    [
        (True, CPU, 1, [], True),
        (False, CPU, 10**9, ["g++", "gcc"], False),
        (None, CPU, 99_999, ["g++", "gcc"], False),
        (None, CPU, 100_000, ["g++"], True),
        (None, CPU, 100_000, ["gcc"], False),
        (None, GPU, 100_000, ["gcc"], True),
        (None, GPU, 100_000, ["g++"], False),
        (None, GPU, 99_999, ["gcc"], False),
    ],
)
def test_a_network_is_compiled_where_it_pays_and_can_be_done(
    monkeypatch, compiled, device, n_images, compilers, expected
):
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: name if name in compilers else None)
    assert extractor_module._is_compiled(compiled, device, n_images) == expected


def test_the_compiler_may_have_another_name(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "mine" else None)
    for variable, device in (("CXX", CPU), ("CC", GPU)):
        monkeypatch.setenv(variable, "other")
        assert not extractor_module._is_compiled(None, device, 100_000)
        monkeypatch.setenv(variable, "mine")
        assert extractor_module._is_compiled(None, device, 100_000)


@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler"
)
def test_a_compiled_network_gives_nearly_the_same(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    # The last batch is smaller, and a batch may be cut up for several threads.
    source = NoiseImages(45)
    exact = features_of(tmp_path, source, means(network, 8), batch_size=20)
    compiled = extract(source, means(network, 8), batch_size=20, compiled=True)
    assert compiled.provenance["compiled"] is True
    fast, labels = joined(blocks_of(compiled, tmp_path))
    np.testing.assert_allclose(fast, exact, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(labels, 100 + np.arange(45))


def test_one_thread_compiles_for_all(tmp_path, monkeypatch, torch_threads):
    running, is_compiled = [], threading.Event()

    def compile_slowly(network, **options):
        def run(images):
            running.append(len(images))
            if len(running) == 1:
                time.sleep(0.2)
                is_compiled.set()
            assert is_compiled.is_set(), "another thread would have compiled it too"
            return network(images)

        return run

    monkeypatch.setattr(torch, "compile", compile_slowly)
    torch_threads(4)
    features = features_of(tmp_path, FlatImages(70), batch_size=32, compiled=True)
    np.testing.assert_allclose(features[:, 0], np.arange(70), rtol=1e-6)
    # And for one number of images.
    assert len(set(running)) == 1


# What features are made from.


def test_what_features_are_made_from_can_be_written_down(tmp_path):
    result = extract(FlatImages(10))
    network = result.provenance["network"]
    weights = blake2b(b"factor torch.float32 ()" + np.float32(1).tobytes(), digest_size=16)
    assert network == {
        "name": "means",
        "dimension": 3,
        "weights": weights.hexdigest(),
        "input": [3, 300, 400],
        "preprocessing": network["preprocessing"],
    }
    assert result.provenance == {
        "kind": "features",
        "n_rows": 10,
        "n_columns": 3,
        "network": network,
        "precision": "float32",
        "compiled": False,
        "pictures": {"kind": "flat", "n_pictures": 10},
        "exif_orientation": "applied",
    }
    assert json.loads(json.dumps(result.provenance)) == result.provenance


def described(extractor):
    return extract(FlatImages(3), extractor).provenance["network"]


def test_equal_networks_are_described_alike_before_and_after_they_have_run(tmp_path):
    def make():
        torch.manual_seed(0)
        return means(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()), 4)

    extractor = make()
    before = described(extractor)
    assert described(make()) == before
    with pytest.raises(ValueError, match="expected"):
        features_of(tmp_path, FlatImages(3), extractor)
    # On its device, its weights lie in another order in memory.
    weight = extractor.network[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert described(extractor) == before


def with_a_tensor(name, value):
    network = Means()
    network.register_buffer(name, value)
    return means(network)


CHANGED = {
    "weights": lambda: means(Means(2.0)),
    "one bit": lambda: means(Means(float(np.nextafter(np.float32(1), np.float32(2))))),
    "another tensor": lambda: with_a_tensor("a", torch.zeros(1)),
    "its name": lambda: with_a_tensor("b", torch.zeros(1)),
    "its shape": lambda: with_a_tensor("b", torch.zeros(1, 1)),
    "its type": lambda: with_a_tensor("b", torch.zeros(1, dtype=torch.int32)),
    "a type of two bytes": lambda: with_a_tensor("b", torch.zeros(1, dtype=torch.bfloat16)),
    "a flag": lambda: with_a_tensor("b", torch.zeros(1, dtype=torch.bool)),
    "no numbers": lambda: with_a_tensor("b", torch.zeros(0)),
    "name": lambda: replace(means(), name="averages"),
    "dimension": lambda: replace(means(), dimension=4),
    "geometry": lambda: replace(means(), preprocess=replace(AS_IT_IS, resize=half)),
    "mean": lambda: replace(means(), preprocess=replace(AS_IT_IS, mean=(0, 0, 0.01))),
    "std": lambda: replace(means(), preprocess=replace(AS_IT_IS, std=(1 / 255, 1, 1 / 255))),
    "nearest neighbours": lambda: replace(means(), preprocess=replace(AS_IT_IS, resize=nearest)),
}


def nearest(image):
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST)


def test_whatever_changes_the_features_changes_the_description():
    found = [json.dumps(described(make())) for make in (means, *CHANGED.values())]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    "changes", [{"precision": "bfloat16"}, {"compiled": True}, {"source": FlatImages(11)}]
)
def test_precision_compilation_and_images_belong_to_it(changes):
    other = {"source": FlatImages(10), **changes}
    assert extract(**other).provenance != extract(FlatImages(10)).provenance


def test_how_the_work_is_cut_up_does_not(tmp_path):
    result = extract(FlatImages(10), batch_size=2, num_workers=2)
    assert result.provenance == extract(FlatImages(10)).provenance
