"""Signatures read from source: all arguments of a class, and no claims where the source is unclear."""

import importlib
import inspect
import zlib

import pytest

import nbg_lightning
from nbg_lightning.class_source import class_attribute, find, kinds, module_file, names_of, signature
from nbg_lightning.keywords import constructor_parameters

ROOMS = (
    "",
    "callbacks",
    "data",
    "datamodules",
    "engines",
    "evaluation",
    "modules",
    "rewards",
    "rl",
    "teachers",
    "construction",
)


def public_classes():
    for room in ROOMS:
        package = f"nbg_lightning.{room}" if room else "nbg_lightning"
        module = importlib.import_module(package)
        for name in module.__all__:
            if inspect.isclass(getattr(module, name)):
                yield f"{package}.{name}", getattr(module, name)


def test_every_public_class_is_found_with_all_that_it_takes():
    missing = {}
    for path, kind in public_classes():
        found = find(path)
        assert found is not None, path
        known = signature(found)
        if known.is_whole:
            lacking = set(constructor_parameters(kind)) - set(known.parameters)
            missing |= {path: lacking} if lacking else {}
    assert missing == {}


def test_the_classes_of_configs_are_read_whole():
    found = {name: find(f"nbg_lightning.{name}") for name in nbg_lightning.__all__}
    classes = {name: signature(each).is_whole for name, each in found.items() if each.is_class and name != "Stage"}
    assert len(classes) > 30 and all(classes.values()), classes
    trainer = signature(find("nbg_lightning.Trainer"))
    assert {"max_steps", "callbacks", "default_root_dir", "gradient_clip_val"} <= set(
        trainer.parameters
    )  # Lightning's too


def test_kinds_of_annotations():
    core = kinds(signature(find("nbg_lightning.PretrainModule")).parameters["core"])
    assert "nano" in core.literals and core.is_whole
    assert [each.node.name for each in core.classes] == ["LanguageModelConfig"]
    stages = kinds(signature(find("nbg_lightning.FGWSD")).parameters["stages"])
    assert stages.elements[0].classes[0].node.name == "Stage"
    seed = kinds(signature(find("nbg_lightning.PretrainModule")).parameters["seed"])
    assert seed.is_whole and seed.scalars == ["int"]


def test_attributes_of_classes():
    assert class_attribute(find("nbg_lightning.DPDModule"), "trains_on") == "pairs"
    assert class_attribute(find("nbg_lightning.data.PairJsonLines"), "kind") == "pairs"
    assert class_attribute(find("nbg_lightning.BenchmarkDataModule"), "kind") is None


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a module of a user's own."""

    def write(text):
        module = f"own_parts_{zlib.crc32(text.encode())}"  # modules that were read are remembered by their name
        (tmp_path / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        return lambda name: find(f"{module}.{name}")

    return write


ODD = """
import functools
from somewhere_else import Base, mixin
from nbg_lightning import SFTModule as Theirs
import nbg_lightning as nbg

class Plain:
    def __init__(self, a, *, b=1): ...
class Open(Base):
    def __init__(self, a, **rest): super().__init__(**rest)
class Made:
    def __new__(cls, *args): ...
class Mine(Theirs): ...
class More(nbg.SFTModule):
    def __init__(self, extra, **base): super().__init__(**base)
class Loop(Loop): ...
Alias = Plain
"""


def test_classes_of_users(own):
    at = own(ODD)
    assert set(signature(at("Plain")).parameters) == {"a", "b"} and signature(at("Plain")).is_whole
    assert not signature(at("Open")).is_whole
    assert not signature(at("Made")).is_whole
    assert not signature(at("Loop")).is_whole
    sft = set(signature(find("nbg_lightning.SFTModule")).parameters)
    assert set(signature(at("Mine")).parameters) == sft
    assert set(signature(at("More")).parameters) == {"extra", *sft}
    assert at("Nothing") is None


@pytest.mark.parametrize("text", ["def broken(", "\x00", "x = " + "(" * 5000 + ")" * 5000], ids=["cut", "zero", "deep"])
def test_modules_that_cannot_be_read(own, text):
    at = own(text)
    assert at("Anything") is None


@pytest.mark.parametrize("name", ["", ".", "no_such_package", "math", "nbg_lightning.no.such", "../etc/passwd", "a b"])
def test_names_that_are_no_modules(name):
    assert module_file(name) is None
    assert names_of(name) is None


def test_a_module_that_is_written_after_it_was_asked_for_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    assert find("written_later.Own") is None
    (tmp_path / "written_later.py").write_text("class Own:\n    kind = 'pairs'\n")
    assert class_attribute(find("written_later.Own"), "kind") == "pairs"
