#!/usr/bin/env bash
# Kedro 1.7.0: when a run is interrupted (KeyboardInterrupt, Ctrl-C), hooks that were told that it
# begins are not told that it ends: before_pipeline_run and before_node_run are called, but none of
# on_node_error, on_pipeline_error, after_node_run and after_pipeline_run. With an ordinary error the
# first two of these are. In a notebook the process goes on, and with it whatever a hook has opened,
# locked or started for the run.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "kedro==1.7.0"
mkdir -p "$folder/project/src/interrupted" "$folder/project/conf/base" "$folder/project/conf/local"
cd "$folder/project"
cat > pyproject.toml <<'TOML'
[tool.kedro]
package_name = "interrupted"
project_name = "interrupted"
kedro_init_version = "1.7.0"
source_dir = "src"
TOML
touch src/interrupted/__init__.py conf/base/catalog.yml conf/base/parameters.yml
cat > src/interrupted/pipeline_registry.py <<'PYTHON'
from kedro.pipeline import node, pipeline


def interrupted(kind):
    raise {"Ctrl-C": KeyboardInterrupt, "error": ValueError}[kind]


def register_pipelines():
    return {"__default__": pipeline([node(interrupted, "params:kind", "nothing", name="work")])}
PYTHON
cat > src/interrupted/settings.py <<'PYTHON'
from kedro.framework.hooks import hook_impl

called = []


class Told:
    @hook_impl
    def before_pipeline_run(self):
        called.append("before_pipeline_run")

    @hook_impl
    def after_pipeline_run(self):
        called.append("after_pipeline_run")

    @hook_impl
    def on_pipeline_error(self):
        called.append("on_pipeline_error")

    @hook_impl
    def before_node_run(self):
        called.append("before_node_run")

    @hook_impl
    def after_node_run(self):
        called.append("after_node_run")

    @hook_impl
    def on_node_error(self):
        called.append("on_node_error")


HOOKS = (Told(),)
PYTHON
../venv/bin/python - <<'PYTHON'
import logging
from pathlib import Path

import kedro
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

bootstrap_project(Path.cwd())
logging.disable()
from interrupted.settings import called

told = {}
for kind in ("error", "Ctrl-C"):
    called.clear()
    try:
        with KedroSession.create(Path.cwd(), runtime_params={"kind": kind}) as session:
            session.run()
    except (ValueError, KeyboardInterrupt) as raised:
        print(f"kedro {kedro.__version__}, {type(raised).__name__}: {', '.join(called)}")
    told[kind] = list(called)
begun = ["before_pipeline_run", "before_node_run"]
assert told["error"] == [*begun, "on_node_error", "on_pipeline_error"], "this has changed"
assert told["Ctrl-C"] == begun, "this has changed"
PYTHON
