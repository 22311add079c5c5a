"""Every notebook runs from top to bottom: its code cells, in order, in one fresh Python."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nbg_lightning.testing import launchable_environment

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))

# The last lines report what the test of a notebook looks at.
REPORTS = {
    "swap_datamodules": "import json; print('REPORT' + json.dumps({"
    "'first': first, 'second': second, 'sizes': sizes, 'group': torch.distributed.is_initialized()}))",
}


def code_cells(file):
    cells = json.loads(file.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run(file, folder):
    cells = [*code_cells(file), REPORTS.get(file.stem, "")]
    # Each cell by its own exec, as in a kernel: no main module that worker processes could import.
    script = (
        f"import json\nscope = {{}}\nfor cell in json.loads({json.dumps(json.dumps(cells))}):\n    exec(cell, scope)\n"
    )
    environment = launchable_environment()
    return subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("file", NOTEBOOKS, ids=[file.stem for file in NOTEBOOKS])
def test_notebook_is_clean_and_runs(file, tmp_path):
    assert all(not cell.get("outputs") for cell in json.loads(file.read_text("utf-8"))["cells"])  # outputs are not kept
    done = run(file, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    if file.stem == "swap_datamodules":
        report = json.loads(done.stdout.split("REPORT")[1])
        assert report["first"]["val/adding/token_accuracy"] > 0.4
        assert report["second"]["val/backwards/token_accuracy"] > 0.4
        assert report["sizes"][-1] - report["sizes"][1] < 40  # megabytes over four more fits
        assert report["group"]
