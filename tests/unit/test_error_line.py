"""One-line errors: what was wrong, where, and no more."""

import os

import pytest

from nbg_lightning.error_line import is_user_error, message, one_line

UNION = """Parser key "data":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'lightning.pytorch.core.datamodule.LightningDataModule'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'nbg_lightning.CurriculumDataModule':
        Parser key "sources":
          Problem with given class_path 'nbg_lightning.data.JsonLines':
            Option 'bla' is not accepted
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {'class_path': 'nbg_lightning.CurriculumDataModule', 'init_args': {'data_dir': 'prepared', 'num_workers': 0}}"""

RAISED = """Does not validate against any of the Union subtypes
Subtypes: [list[lightning.pytorch.callbacks.callback.Callback], <class 'NoneType'>]
Errors:
  - stage 'warmup': all weights of the mixture are 0; give at least one source a positive weight
  - Not a valid subclass of Callback
    Subclass types expect one of:
    - a class path (str)
    - a dict with class_path entry
    - a dict without class_path but with init_args entry (class path given previously)
    - a dict with parameters accepted by the base class (implicit class_path)
  - Expected a <class 'NoneType'>
Given value type: <class 'list'>
Given value: [Namespace(class_path='nbg_lightning.FGWSD', init_args=Namespace(stages=[Namespace(name='warmup')]))]"""

LITERAL = """Parser key "core":
  - Expected a path but nanoo either not accessible or invalid
  - Does not validate against any of the Union subtypes
  Errors:
    - Expected a typing.Literal['tiny', 'nano']
    - Expected a dot import path string: nanoo
    - Expected a <class 'NoneType'>
  Given value type: <class 'str'>
  Given value: nanoo"""

NO_CLASS = """Parser key "data":
  Errors:
    - Expected a dot import path string: Foo
    - Expected a <class 'NoneType'>
  Given value: NestedArg(key='class_path', val='Foo')"""


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("  a plain message ", "a plain message"),
        ("two\nlines", "two; lines"),
        ("ends with a colon:\n  the reason", "ends with a colon: the reason"),
        (
            UNION,
            "data: nbg_lightning.CurriculumDataModule: sources: nbg_lightning.data.JsonLines: Option 'bla' is not accepted",
        ),
        (RAISED, "stage 'warmup': all weights of the mixture are 0; give at least one source a positive weight"),
        (LITERAL, "core: expected Literal['tiny', 'nano']; given value: nanoo"),
        (NO_CLASS, "data: there is no class Foo; write package.module.Name"),
        (
            'Parser key "reward":\n  Expected an instantiatable class, but my.Reward is abstract',
            "reward: it names no class; write class_path and init_args of a class that does what my.Reward says",
        ),
        (
            'Parser key "engine":\n  Expected an instantiatable class, but my.Engine is a protocol',
            "engine: it names no class; write class_path and init_args of a class that does what my.Engine says",
        ),
        (
            'Parser key "pairs":\n  Not a valid subclass of PairSource. Got value: {}\n  Subclass types expect one of:\n'
            "  - a class path (str)\n  - a dict with class_path entry",
            "pairs: it is no PairSource: {}; write class_path and init_args",
        ),
        (
            'Parser key "functions":\n  Type collections.abc.Callable[..., typing.Any] expects a function or a callable '
            "class: Expected an import path or a subclass spec, but got 5",
            "functions: expected the path of a function, such as package.module.name",
        ),
        (
            'Parser key "data":\n  Key must be a string, got: 1.',
            "data: its key 1 is no text; write a name, such as NAME: VALUE",
        ),
        ('Parser key "config": File does not exist: x.yaml', "config: File does not exist: x.yaml"),
    ],
)
def test_one_line(message, line):
    assert one_line(message) == line


def raised(error, module="__main__"):
    """The error with a traceback that ends in a module of this name."""
    scope = {"__name__": module, "error": error}
    exec("def fail():\n    raise error", scope)
    try:
        scope["fail"]()
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    "error", [ValueError("x"), FileNotFoundError("x"), OSError(28, "No space left"), ImportError("x")]
)
def test_errors_that_users_can_mend(error):
    assert is_user_error(raised(error))


def test_runtime_errors_of_the_library_are_for_the_user():
    assert is_user_error(raised(RuntimeError("a worker died"), "nbg_lightning.data.prepare"))
    assert not is_user_error(raised(RuntimeError("size mismatch"), "torch.nn.functional"))


@pytest.mark.parametrize("error", [KeyError("x"), AttributeError("x"), AssertionError()])
def test_bugs_keep_their_traceback(error):
    assert not is_user_error(raised(error, "nbg_lightning.data.prepare"))


def test_a_path_that_is_too_long_is_shown_by_its_ends():
    with pytest.raises(OSError, match="too long") as caught:
        os.stat("a" * 4999 + "b")
    shown = "a" * 150 + "…" + "a" * 149 + "b (5,000 characters)"
    assert message(caught.value) == f"path is invalid: {shown}; the name is too long: give a shorter one"
