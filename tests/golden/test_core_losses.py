"""The small run reproduces the numbers recorded by make_core_losses.py."""

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("make_core_losses", FOLDER / "make_core_losses.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.measure(str(tmp_path_factory.mktemp("golden")))


# Other kernels round otherwise: float32 differs in the 7th digit, bf16 in the 3rd.
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 5e-3)])
def test_losses_have_not_moved(measured, dtype, tolerance):
    golden = json.loads((FOLDER / "core_losses.json").read_text())["results"][dtype]
    assert measured[dtype]["losses"] == pytest.approx(golden["losses"], rel=tolerance)
    assert measured[dtype]["grad_norms"] == pytest.approx(golden["grad_norms"], rel=4 * tolerance)
    assert measured[dtype]["chain"] == golden["chain"]
