"""Deferred imports: not made until needed, and then the real module."""

import copy
import importlib
import subprocess
import sys

import pytest

from nbg_lightning.deferred import deferred


def python(code):
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


# -- stand-ins -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A slow package, and one that asks for it as torchmetrics does."""
    slow = tmp_path / "slowly"
    slow.mkdir()
    (slow / "__init__.py").write_text("LIMIT = 3\n")
    (slow / "shapes.py").write_text(
        "from contextlib import contextmanager\n"
        "class Circle:\n    area = 4\n"
        "@contextmanager\ndef style(names):\n    yield names\n"
    )
    (tmp_path / "asking.py").write_text(
        "from typing import Optional, Union\n"
        "import slowly\nimport slowly.shapes\nimport slowly.shapes as shapes\n"
        "from slowly.shapes import Circle\n"
        "KIND = tuple[shapes.Circle, Union[slowly.shapes.Circle, int]]\n"
        "known = hasattr(slowly, 'anything')\n"
        "style = shapes.style\n"
        "@style(['plain'])\n"
        "def draw(circle: Optional[shapes.Circle] = None):\n    return (circle or Circle()).area\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("slowly", "slowly.shapes", "asking"):
        sys.modules.pop(name, None)


@pytest.fixture
def asking(packages):
    with deferred("slowly"):
        import asking
    return asking


def test_nothing_is_imported_until_it_is_used(asking):
    assert "slowly" not in sys.modules and "slowly.shapes" not in sys.modules
    assert asking.draw() == 4
    assert "slowly.shapes" in sys.modules


def test_used_later_it_is_the_real_thing(asking):
    import slowly.shapes

    assert isinstance(slowly.shapes.Circle(), asking.Circle) and not isinstance(3, asking.Circle)
    assert issubclass(slowly.shapes.Circle, asking.Circle)
    assert asking.shapes.Circle is slowly.shapes.Circle and asking.slowly.LIMIT == 3
    assert type(asking.Circle()) is slowly.shapes.Circle

    class Own(asking.Circle):
        pass

    assert Own.__mro__[1] is slowly.shapes.Circle


def test_what_is_not_there_is_said_when_it_is_used(packages):
    with deferred("slowly"):
        from slowly.shapes import Square
    with pytest.raises(AttributeError, match=r"module 'slowly.shapes' has no attribute 'Square'"):
        Square()


def test_a_package_that_is_imported_already_stays(packages):
    import slowly

    with deferred("slowly"):
        import asking
    assert asking.slowly is slowly and asking.known is False


def test_an_import_that_fails_leaves_no_stand_in(packages):
    with pytest.raises(ModuleNotFoundError), deferred("slowly"):  # noqa: PT012
        import slowly

        slowly.function(), importlib.import_module("a_module_that_is_not_there")
    assert "slowly" not in sys.modules
    import slowly as real

    assert real.LIMIT == 3


def test_copies_of_what_is_deferred(packages):
    with deferred("slowly"):
        from slowly.shapes import Circle
    assert copy.copy(Circle)().area == 4


# -- the libraries that they are for --------------------------------------------------------------------------------------


def test_metrics_import_no_models_and_have_them_when_they_are_used():
    code = (
        "import sys, nbg_lightning, torchmetrics, torchmetrics.functional.text.bert as bert\n"
        "print(*[name in sys.modules for name in ('transformers', 'sklearn', 'scipy.signal', 'matplotlib')])\n"
        "from torchmetrics.functional.text.bert import AutoTokenizer, bert_score\n"
        "metric = torchmetrics.MeanMetric(); metric.update(1.0)\n"
        "figure, axes = metric.plot()\n"
        "import matplotlib.figure, scipy.signal, transformers\n"
        "print(isinstance(figure, matplotlib.figure.Figure), scipy.signal.find_peaks([0, 1, 0])[0].tolist() == [1])\n"
        "print(AutoTokenizer.from_pretrained == transformers.AutoTokenizer.from_pretrained)\n"
    )
    assert python(code) == ["False"] * 4 + ["True"] * 3


def test_the_model_imports_no_compiler_and_flex_attention_is_compiled_when_it_is_called():
    code = (
        "import sys, torch\n"
        "real = torch.compile\n"
        "import nbg_lightning.core.model\n"
        "print('torch._inductor.compile_fx' in sys.modules, 'networkx' in sys.modules, torch.compile is real)\n"
        "import torchtitan.models.common.attention as attention\n"
        "from torchtitan.distributed.activation_checkpoint import get_default_op_list\n"
        "print(len(get_default_op_list().fusible_ops) > 0)\n"
        "torch.compiler.set_stance('force_eager')\n"
        "mask = attention.create_attention_mask(lambda b, h, q, k: q >= k, None, None, 8, 8, device='cpu')\n"
        "print(mask.shape == (1, 1, 8, 8))\n"
    )
    assert python(code) == ["False", "False", "True", "True", "True"]
