#!/usr/bin/env bash
# easyfsl 1.5.0: PT-MAP divides the number of queries by the number of classes and drops the rest. With
# fewer queries than classes, one image for instance, it gives every class of every image 0, so that
# argmax names the first class. With 9 queries of 5 classes the probabilities of an image add up to
# 5/9, and the iteration goes on to its limit, since rows cannot have sum 1.
# LaplacianShot(knn=k) links an image to k - 1 others, for k_nearest_neighbours counts the image itself
# as one of its k neighbours and then leaves it out: with knn=1 there are no links at all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "easyfsl==1.5.0" "torch==2.14.1" "torchvision==0.29.1" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from easyfsl.methods import LaplacianShot, PTMAP

print("easyfsl", version("easyfsl"))
support, labels = torch.eye(5), torch.arange(5)
# Image i is that of class i, more or less.
queries = (torch.eye(5).repeat(2, 1) + 0.1 * torch.rand(10, 5, generator=torch.Generator().manual_seed(0)))
sums, named = {}, {}
for n_queries in (1, 4, 5, 9, 10):
    classifier = PTMAP(feature_normalization=2.0).eval()
    with torch.no_grad():
        classifier.process_support_set(support, labels)
        scores = classifier(queries[-n_queries:])
    sums[n_queries] = scores.sum(1).mean().item()
    named[n_queries] = scores.argmax(1).tolist()
    print(f"PTMAP, 5 classes, {n_queries} queries: scores of an image add up to {sums[n_queries]:.3f};",
          f"classes {named[n_queries]}")
assert sums[1] == sums[4] == 0 and named[1] == [0] and named[4] == [0] * 4, "this has changed"
assert abs(sums[9] - 5 / 9) < 1e-3, "this has changed"
for n_queries in (5, 10):
    assert abs(sums[n_queries] - 1) < 1e-3, "this has changed"
    assert named[n_queries] == [*range(5)] * (n_queries // 5), "this has changed"

points = torch.arange(6.0)[:, None] ** 1.1
for k in (1, 2, 3):
    affinities = LaplacianShot(knn=k).compute_pairwise_affinities(points)
    print(f"LaplacianShot(knn={k}): {affinities.sum(1).int().tolist()} neighbours")
    assert (affinities.sum(1) == k - 1).all(), "this has changed"
PYTHON
