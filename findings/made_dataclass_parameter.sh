#!/usr/bin/env bash
# Kedro 1.7 builds a parameter from the type hint of the node that takes it. Where a hook has put an
# instance of that type among the parameters already, a pydantic model is taken as it is, and a
# dataclass is refused, although the instance is what the node wants.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kedro==1.7.0 pydantic==2.12.5
"$folder/venv/bin/python" - <<'PYTHON'
from dataclasses import dataclass
from importlib.metadata import version

from kedro.validation import instantiate_model
from pydantic import BaseModel


class Model(BaseModel):
    k: int


@dataclass
class Section:
    k: int


model, section = Model(k=3), Section(k=3)
kept = instantiate_model("graph", model, Model) is model
try:
    instantiate_model("graph", section, Section)
    refused = ""
except Exception as error:
    refused = f"{type(error).__name__}: {error}"
print("kedro", version("kedro"), "pydantic", version("pydantic"))
print("an instance of a pydantic model is kept:", kept)
print("an instance of a dataclass:", refused or "is kept")
assert kept and "Expected dict for dataclass Section, got Section" in refused, "this has changed"
PYTHON
