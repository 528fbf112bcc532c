#!/usr/bin/env bash
# easyfsl 1.5.0: PT-MAP gives query images no class, or NaN, in silence. Its paper scales vectors to
# length 1 after the power transform; easyfsl can do that before it alone (feature_normalization), and
# then squared distances grow with the square root of the number of features. In single precision
# exp(-10 d²) is 0 for all classes of some images: their row of scores is 0, and argmax says the first
# class. Where it is 0 for all images, as without feature_normalization, all scores are NaN.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "easyfsl==1.5.0" "torch==2.14.1" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from easyfsl.methods import PTMAP
from torch.nn.functional import normalize

generator = torch.Generator().manual_seed(0)


def images(classes):
    """As a network ends whose last layer is a rectifier: many features are 0."""
    return (classes + 0.8 * torch.randn(classes.shape, generator=generator)).relu()


classes = torch.randn(5, 1280, generator=generator)
support, query, labels = images(classes), images(classes.repeat(15, 1)), torch.arange(5)


def scores(support, query, **settings):
    classifier = PTMAP(**settings)
    classifier.process_support_set(support, labels)
    return classifier(query)


def of_length_1(vectors):
    return normalize((vectors + 1e-6).sqrt(), dim=1)


before = scores(support, query, feature_normalization=2)
without = int((before == 0).all(dim=1).sum())
raw = scores(support, query)
after = scores(of_length_1(support), of_length_1(query), power_factor=1.0)
print(f"easyfsl {version('easyfsl')}, PT-MAP of 75 query images with 1280 features:")
print(f"length 1 before the transform: {without} without any class")
print(f"any length: {int(raw.isnan().any(dim=1).sum())} with NaN")
print(f"length 1 after the transform: every row sums to 1 within {(after.sum(1) - 1).abs().max():.1g}")
assert without > 0 and raw.isnan().all() and (after.sum(1) - 1).abs().max() < 0.01, "this has changed"
PYTHON
