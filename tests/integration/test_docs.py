"""The pages of docs/ work as written.

A fence below a line that begins with a file's name in backquotes is that file. The pages of `TYPED` are executed from top to
bottom: files are written, Python is run, and so are the commands of fences marked `sh`. All other YAML, Python, commands and
links must at least name things that exist.
"""

import ast
import contextlib
import glob
import importlib
import io
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from nbg_lightning.class_names import with_whole_names
from nbg_lightning.cli import main
from nbg_lightning.commands.table import OWN_COMMANDS, TRAINER_COMMANDS
from nbg_lightning.keywords import constructor_parameters

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
FRONT = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
PAGES = [*sorted(DOCS.glob("*.md")), *FRONT]
FIRST = "own_data"  # the other pages use its files and models
NEEDS = {FIRST: [], "README": [], "configs": [], "vllm": [FIRST, "own_benchmark"]}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("README", "vllm")]
TYPED = [FIRST, "own_reward", "own_benchmark", "own_algorithm", "models", "float8", "configs", *SLOW]
JOBS = {  # of a new user: row of the table in configs.md, to the page and its file
    "pretraining on own text": ("own_data", "my/pretrain.yaml"),
    "SFT on own chats": ("own_data", "my/sft.yaml"),
    "DPO on own pairs": ("own_data", "my/dpd.yaml"),
    "GRPO on own questions": ("own_data", "my/grpo.yaml"),
    "own benchmark": ("own_benchmark", "my/suite.yaml"),
}
FENCE = re.compile(
    r"(?:^`(?P<name>[\w./-]+\.\w+)`[^\n]*:\n+)?^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S
)


@dataclass
class Block:
    """A fence of a page.

    Attributes:
        language: the word after its backquotes.
        text: its content.
        name: name of the file; empty if the fence is not a file.
        line: number of its first line, for messages.
    """

    language: str
    text: str
    name: str
    line: int


def blocks(page):
    text = page.read_text("utf-8")
    return [
        Block(found["language"], found["text"], found["name"] or "", text.count("\n", 0, found.start("text")) + 1)
        for found in FENCE.finditer(text)
    ]


def nbg(command):
    """Run a command in this process: the exit code and the output."""
    said, words = io.StringIO(), shlex.split(command, comments=True)
    expanded = [name for word in words[1:] for name in (sorted(glob.glob(word)) if "*" in word else [word])]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main(expanded)
        except SystemExit as stop:
            code = stop.code or 0
    return code, said.getvalue()


def outside_of_fences(page):
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)


class Typist:
    """Runs the commands of pages, each page once, in one folder: later pages use files that the first one creates."""

    def __init__(self, folder):
        self.folder, self.done = folder, set()
        (folder / "configs").symlink_to(REPOSITORY / "configs")

    def type(self, name):
        if name in self.done:
            return
        for needed in NEEDS.get(name, [FIRST]):
            self.type(needed)
        self.done.add(name)
        page, scope = next(page for page in PAGES if page.stem == name), {"__name__": "page"}
        for block in blocks(page):
            if block.name:
                file = self.folder / block.name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text)
            elif block.language == "python":
                sys.path.insert(0, "")  # as in Python, unlike in the command
                exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), scope)
                sys.path.remove("")
            elif block.language == "sh":
                for command in block.text.splitlines():
                    code, said = nbg(command)
                    assert code == 0, f"{command}\n{said}"


@pytest.fixture(scope="module")
def typist(tmp_path_factory):
    return Typist(tmp_path_factory.mktemp("typed"))


@pytest.mark.filterwarnings(
    "ignore:You passed in a `val_dataloader`"
)  # Lightning's, of an own algorithm without validation
@pytest.mark.parametrize("name", TYPED)
def test_typed_as_it_stands(name, typist, monkeypatch):
    monkeypatch.chdir(typist.folder)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])  # as the command has it: not this folder
    typist.type(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names_only_what_there_is(page):
    own = {Path(block.name).stem for block in blocks(page) if block.name.endswith(".py")}
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.language == "yaml":
            check_classes(with_whole_names(yaml.safe_load(block.text)), where, own)
        elif block.language == "python":
            check_imports(block.text, where, own)
        elif block.language in ("", "sh"):
            check_commands(block.text, where)


def check_classes(node, where, own):
    """Classes of YAML exist, and have the arguments that they are given."""
    if isinstance(node, list):
        for child in node:
            check_classes(child, where, own)
    elif isinstance(node, dict):
        module, _, name = str(node.get("class_path", "")).rpartition(".")
        if module and module not in own:
            parameters = constructor_parameters(getattr(importlib.import_module(module), name))
            unknown = set(node.get("init_args") or {}) - set(parameters)
            assert not unknown, f"{where}: {name} has no {', '.join(unknown)}"
        for child in node.values():
            check_classes(child, where, own)


def check_imports(text, where, own):
    """Python is Python, and imports what there is."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module not in own:
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), f"{where}: {ast.unparse(node)}"


def check_commands(text, where):
    """Commands exist, and so do the configs that they name."""
    for command in re.findall(r"(?:^|&& |srun )nbg ([a-z-]+)|-m nbg_lightning\.cli ([a-z-]+)", text, re.M):
        name = command[0] or command[1]
        assert name in OWN_COMMANDS or name in TRAINER_COMMANDS, f"{where}: nbg {name}"
    for config in re.findall(r"\bconfigs/[\w./-]+\.yaml", text):
        assert (REPOSITORY / config).is_file(), f"{where}: {config}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)", outside_of_fences(page))
    files = [target for target in targets if not re.match(r"\w+:", target)]
    assert [target for target in files if not (page.parent / target).exists()] == []


def test_yaml_of_pages_has_the_short_forms():
    other = DOCS / "recipe.md"  # overlays of `nbg recipe`, which are laid over long forms
    pages = [page for page in PAGES if page != other]
    yaml_of = {page.name: [block.text for block in blocks(page) if block.language == "yaml"] for page in pages}
    assert sum(map(len, yaml_of.values())) > 30
    assert {name for name, texts in yaml_of.items() if any("init_args" in text for text in texts)} == set()


def test_papers_names_files_that_there_are():
    folders = ("nbg_lightning", "callbacks", "configs", "benchmarks")
    files = [f"/{path.relative_to(REPOSITORY)}" for folder in folders for path in (REPOSITORY / folder).rglob("*.*")]
    named = re.findall(r"`([\w./-]+\.(?:py|yaml))`", outside_of_fences(DOCS / "papers.md"))
    assert len(named) > 30
    assert [name for name in named if not any(file.endswith(f"/{name}") for file in files)] == []


def keys(node):
    """The number of keys of a YAML file, including nested ones."""
    if isinstance(node, dict):
        return len(node) + sum(map(keys, node.values()))
    return sum(map(keys, node)) if isinstance(node, list) else 0


@pytest.mark.parametrize("job", JOBS)
def test_a_job_takes_fifteen_keys_and_as_many_as_the_page_says(job):
    page, name = JOBS[job]
    (text,) = [block.text for block in blocks(DOCS / f"{page}.md") if block.name == name]
    row = re.search(rf"^\| {job} \|[^|]*\| (\d+) \|", (DOCS / "configs.md").read_text("utf-8"), re.M)
    assert keys(yaml.safe_load(text)) == int(row[1]) <= 15


def test_every_page_and_notebook_is_in_the_index():
    index = (DOCS / "index.md").read_text("utf-8")
    listed = {line.strip() for block in blocks(DOCS / "index.md") for line in block.text.splitlines()}
    assert {page.stem for page in PAGES if page not in FRONT} - {"index"} <= listed
    assert all(f"notebooks/{notebook.name}" in index for notebook in DOCS.glob("notebooks/*.ipynb"))
