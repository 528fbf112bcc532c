import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lowshot_kedro.extractors import Extractor, extract_features
from lowshot_kedro.images import AbsentPictures, Picture
from lowshot_kedro.matrices import Blocks


class FlatPictures:
    """Picture i is all i; the numbers given are blank."""

    def __init__(self, n_pictures, blank=()):
        self.n_pictures = n_pictures
        self.blank = blank

    def __len__(self):
        return self.n_pictures

    def __getitem__(self, number):
        if number in self.blank:
            return Picture(Image.new("RGB", (8, 8)), 100 + number, f"no file {number}")
        color = (number, 2 * number, 0)
        return Picture(Image.new("RGB", (8, 8), color), 100 + number, None)


class Means(nn.Module):
    """The mean of every channel, times a factor that a test may spoil."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        return self.dropout(images.mean((2, 3)) * self.factor)


def pixels(image):
    return torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)


def extractor(network=None, dimension=3):
    return Extractor("means", network or Means(), pixels, dimension)


def extract(source, network=None, dimension=3, batch_size=4, num_workers=0, precision="float32"):
    return extract_features(
        extractor(network, dimension),
        source,
        batch_size=batch_size,
        num_workers=num_workers,
        device="cpu",
        precision=precision,
    )


def joined(blocks):
    parts = list(blocks)
    return (
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_features_and_labels_in_the_order_of_the_pictures(batch_size, num_workers):
    blocks = extract(FlatPictures(10), batch_size=batch_size, num_workers=num_workers)
    assert (blocks.n_rows, blocks.n_columns) == (10, 3)
    features, labels = joined(blocks)
    numbers = np.arange(10)
    np.testing.assert_allclose(features, np.stack([numbers, 2 * numbers, 0 * numbers], 1))
    np.testing.assert_array_equal(labels, 100 + numbers)
    assert (features.dtype, labels.dtype) == (np.float32, np.int32)


def test_batches_are_blocks_and_are_made_when_asked_for():
    network = Means()
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    blocks = extract(FlatPictures(10), network)
    assert isinstance(blocks, Blocks)
    assert calls == []
    assert [len(block.features) for block in blocks] == [4, 4, 2]
    assert [len(block.features) for block in blocks] == [4, 4, 2]


def test_a_network_in_training_mode_is_switched_to_evaluation():
    network = Means().train()
    features, _ = joined(extract(FlatPictures(10), network))
    np.testing.assert_allclose(features[:, 0], np.arange(10))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_blank_pictures_are_counted_and_logged(caplog, num_workers):
    source = FlatPictures(10, blank=(3, 7))
    with caplog.at_level(logging.INFO):
        features, labels = joined(extract(source, num_workers=num_workers))
    messages = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert ("WARNING", "picture 3 is blank: no file 3") in messages
    assert ("WARNING", "picture 7 is blank: no file 7") in messages
    assert messages[-1] == ("WARNING", "2 of 10 pictures missing or unreadable")
    np.testing.assert_array_equal(features[[3, 7]], 0)
    np.testing.assert_array_equal(labels, 100 + np.arange(10))


def test_many_blank_pictures_do_not_flood_the_log(caplog):
    with caplog.at_level(logging.INFO):
        joined(extract(FlatPictures(90, blank=range(90))))
    assert len(caplog.records) == 21
    assert caplog.records[-1].getMessage() == "90 of 90 pictures missing or unreadable"


def test_no_blank_picture_is_no_warning(caplog):
    with caplog.at_level(logging.INFO):
        joined(extract(FlatPictures(3)))
    messages = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert messages == [("INFO", "0 of 3 pictures missing or unreadable")]


@pytest.mark.parametrize("source", [FlatPictures(0), AbsentPictures("train.json")])
def test_no_pictures(source):
    with pytest.raises(ValueError, match="found no pictures, expected at least one") as caught:
        extract(source)
    assert repr(source) in str(caught.value)


@pytest.mark.parametrize(
    "network, dimension, found, expected",
    [(Means(), 5, "(4, 3)", "(4, 5)"), (nn.Identity(), 3, "(4, 3, 8, 8)", "(4, 3)")],
)
def test_a_network_of_another_dimension(network, dimension, found, expected):
    with pytest.raises(ValueError) as caught:
        joined(extract(FlatPictures(10), network, dimension))
    for fact in ("extractor means", found, f"expected {expected}"):
        assert fact in str(caught.value)


class NanFor(Means):
    def forward(self, images):
        means = images.mean((2, 3))
        return torch.where(means[:, :1] == 6, torch.nan, means)


@pytest.mark.parametrize(
    "network, complaint",
    [(NanFor(), r"1 row\(s\), numbers 6;"), (Means(torch.inf), r"4 row\(s\), numbers 0, 1, 2, 3;")],
)
def test_a_network_that_returns_nan(network, complaint):
    with pytest.raises(ValueError, match=f"features of extractor means.*{complaint}"):
        joined(extract(FlatPictures(10), network))


def test_bfloat16_is_close_and_still_float32_outside():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5))
    source = FlatPictures(10)
    exact, _ = joined(extract(source, network, 5))
    rough, _ = joined(extract(source, network, 5, precision="bfloat16"))
    assert rough.dtype == np.float32
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(rough, exact, rtol=0.05, atol=0.05)


def test_precision_auto_is_exact_on_a_cpu():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5))
    source = FlatPictures(4)
    exact, _ = joined(extract(source, network, 5))
    automatic, _ = joined(extract(source, network, 5, precision="auto"))
    np.testing.assert_array_equal(automatic, exact)
