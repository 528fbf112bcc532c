"""Runs notebooks, and leaves nothing of the machine or of the moment in their outputs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
from nbclient import NotebookClient

_SECONDS_PER_CELL = 1800


def execute(path: Path, folder: Path, environment: dict[str, str]) -> str:
    """A notebook with the outputs of a run, as text.

    Args:
        path: The notebook, which stays as it is.
        folder: Where it runs, the notebooks of a project.
        environment: Variables of its process.

    Raises:
        CellExecutionError: If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    # Nothing of one person's IPython or Jupyter has a say.
    settings = folder.parent / "jupyter"
    (settings / "ipython").mkdir(parents=True, exist_ok=True)
    own = {"IPYTHONDIR": str(settings / "ipython"), "JUPYTER_CONFIG_DIR": str(settings)}
    with mock.patch.dict(os.environ, {**environment, **own, "JUPYTER_PREFER_ENV_PATH": "1"}):
        NotebookClient(
            notebook,
            timeout=_SECONDS_PER_CELL,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
        ).execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [_cleaned(o, cell.id) for o in cell.outputs if not _is_empty(o)]
    return str(nbformat.writes(notebook)) + "\n"


def _is_empty(output: Any) -> bool:
    """Whether it is one of those that rich leaves before what is shown."""
    html = output.get("data", {}).get("text/html")
    return html is not None and not re.sub(r"</?pre[^>]*>", "", html).strip()


def _cleaned(output: Any, name: str) -> Any:
    """An output without addresses in memory, random names, and places of files."""
    if output.output_type == "stream":
        # A warning says where in the kernel's temporary files its cell is.
        output.text = re.sub(r"^\S*ipykernel\S*\.py:\d+: ", "", output.text, flags=re.MULTILINE)
    data = output.get("data", {})
    if len(data) > 1:
        # What a terminal would show, with addresses in memory and places of files.
        data.pop("text/plain", None)
    if "text/html" in data:
        # pandas names a styled table at random.
        data["text/html"] = re.sub(r"T_[0-9a-f]{5}", f"T_{name}", data["text/html"])
    return output
