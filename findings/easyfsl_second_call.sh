#!/usr/bin/env bash
# easyfsl 1.5.0: after one process_support_set, each call of a classifier begins where the last one
# ended, for calls change the prototypes. Finetune is inductive, yet gives an image other scores, here
# also other classes, when it is asked again, or after it was asked about other images. Of the
# transductive methods TIM, BD-CSPN, LaplacianShot and PT-MAP do the same with the same query set.
# Prototypical networks and SimpleShot repeat. process_support_set before every call prevents it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "easyfsl==1.5.0" "torch==2.14.1" "torchvision==0.29.1" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from easyfsl import methods

generator = torch.Generator().manual_seed(0)
N_WAY, N_QUERY, LENGTH = 5, 15, 64
classes = torch.randn(N_WAY, LENGTH, generator=generator)


def images(n_of_class):
    noise = torch.randn(N_WAY * n_of_class, LENGTH, generator=generator)
    return (classes.repeat(n_of_class, 1) + 1.5 * noise).relu()


support, labels, queries = images(1), torch.arange(N_WAY), images(N_QUERY)
print("easyfsl", version("easyfsl"))
changed = {}
for name in ("PrototypicalNetworks", "SimpleShot", "Finetune", "TIM", "BDCSPN", "LaplacianShot", "PTMAP"):
    classifier = getattr(methods, name)(feature_normalization=2.0).eval()
    with torch.no_grad():
        classifier.process_support_set(support, labels)
        first, second = classifier(queries), classifier(queries)
        classifier.process_support_set(support, labels)
        again = classifier(queries)
    changed[name] = int((first.argmax(1) != second.argmax(1)).sum())
    kind = "transductive" if classifier.is_transductive() else "inductive"
    print(f"{name}, {kind}: {changed[name]} of {len(queries)} images get another class in the second call;",
          f"scores differ by up to {(first - second).abs().max():.3f}")
    assert torch.equal(first, again), "this has changed"

same = {name for name, number in changed.items() if number == 0}
assert same == {"PrototypicalNetworks", "SimpleShot"}, "this has changed"
PYTHON
