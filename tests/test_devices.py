import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lowshot_kedro.devices import choose_device


def test_choosing_a_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"device: got 'cuda'.*no GPU"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cpu") == torch.device("cpu")


def test_without_a_gpu_nobody_waits_for_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from lowshot_kedro import devices\n"
        "devices._GPU_FILES = (devices.Path(sys.argv[1]),)\n"
        "print(devices.gpu_available(), 'torch' in sys.modules)"
    )

    def answer(file: Path) -> str:
        command = [sys.executable, "-c", program, str(file)]
        # A machine without a GPU, whatever the driver says.
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return found.stdout.strip()

    if sys.platform == "linux":
        assert answer(tmp_path / "nothing") == "False False"
    assert answer(tmp_path) == "False True"
