#!/usr/bin/env bash
# easyfsl 1.5.0: a classifier that has seen query images is another one. The forward pass of Finetune,
# TIM and TransductiveFinetuning trains the prototypes on from where the last one left them, and those
# of BD-CSPN, LaplacianShot and PT-MAP move them, too. So the same images get other scores when they
# come a second time, and scores depend on which batches came before, for Finetune as well, which is
# inductive. process_support_set has to be called again before every batch.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "easyfsl==1.5.0" "torch==2.14.1" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from easyfsl import methods

generator = torch.Generator().manual_seed(0)
classes = torch.rand(5, 64, generator=generator)
support, labels = classes + 0.3 * torch.rand(5, 64, generator=generator), torch.arange(5)
query = classes.repeat(4, 1) + 0.5 * torch.rand(20, 64, generator=generator)
names = ("SimpleShot", "Finetune", "TIM", "TransductiveFinetuning", "BDCSPN", "LaplacianShot", "PTMAP")
print(f"easyfsl {version('easyfsl')}: how much scores of the same images differ the second time")
changed = {}
for name in names:
    classifier = getattr(methods, name)(feature_normalization=2)
    classifier.process_support_set(support, labels)
    first, second = classifier(query).detach(), classifier(query).detach()
    changed[name] = not torch.allclose(first, second, rtol=1e-6, atol=0)
    print(f"{name}: {(first - second).abs().max():.2g}")
assert changed == {name: name != "SimpleShot" for name in names}, "this has changed"
PYTHON
