"""One chat format from training to export: transformers renders the exported folder to the ids that the run trained on."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from nbg_lightning.chat import Conversation
from nbg_lightning.chat.template import ChatTemplate
from nbg_lightning.core import create_model, preset
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.data.chat_sources import ChatJsonLines
from nbg_lightning.data.tokenizer import Tokenizer, train_bpe
from nbg_lightning.datamodules.chat import ChatDataModule
from nbg_lightning.engines.chat import _say_once
from nbg_lightning.testing import forget_digests
from nbg_lightning.testing.conversations import WORDS, RandomConversations, straddles

# A format unlike the paper's; `%s` marks one of two.
OTHER = (
    "{% if tools %}[tools]{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}"
    "{% for m in messages %}[%s {{ m.role }}]\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}\n[call]{{ call.function | tojson }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}[%s assistant]\n{% endif %}"
)
OWN, FILE = OTHER.replace("%s", "own"), OTHER.replace("%s", "file")


def drawn(count: int) -> list[dict[str, Any]]:
    """Conversations of all kinds."""
    draws, rows = RandomConversations(5), []
    while len(rows) < count:
        messages, tools = draws.conversation()
        if not straddles(Conversation(messages, tools)):
            rows.append(json.loads(json.dumps({"messages": messages, "tools": tools})))
    return rows


def plain(count: int) -> list[dict[str, Any]]:
    """Conversations that a template without a place for reasoning renders whole."""
    tool = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "clock", "arguments": {"a": "b"}}}],
    }
    called = [call, {"role": "tool", "content": "9:30"}]
    rows = []
    for n in range(count):
        system = [{"role": "system", "content": f"be {WORDS[n % 5]}"}] if n % 3 else []
        asked, said = {"role": "user", "content": f"time {n}?"}, {"role": "assistant", "content": f"half past {n}"}
        uses = n % 2 == 0
        messages = [*system, asked, *(called if uses else []), said, *([asked, said] if n % 4 > 1 else [])]
        rows.append({"messages": messages, **({"tools": [tool]} if uses else {})})
    return rows


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@dataclass
class Shop:
    """A model whose tokenizer has a template of its own, conversations, and runs on them.

    Attributes:
        nbg: runs a command, see `Workshop`.
        folder: where everything is.
    """

    nbg: Any
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def data(self, rows: Path, base: Path, template: str) -> dict[str, Any]:
        """Arguments of the datamodule apart from its sources."""
        return {
            "tokenizer": str(base),
            "template": template,
            "sequence_length": 8192,
            "tokens_per_step": 8192,
            "packing": "padded",
            "data_dir": str(self.folder / "data"),
            "validation_fraction": 0.0,
            "num_workers": 0,
            "prepare_workers": 0,
        }

    def write(self, name: str, content: Any) -> str:
        (self.folder / name).write_text(json.dumps(content))  # JSON is YAML
        return str(self.folder / name)

    def config(self, name: str, module: str, base: Path, data: dict[str, Any], **arguments: Any) -> str:
        """The config of one step."""
        trainer = {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 1,
            "limit_val_batches": 0,
            "logger": False,
            "enable_progress_bar": False,
            "default_root_dir": str(self.folder / name),
            "callbacks": [{"class_path": "nbg_lightning.StepCheckpoint", "init_args": {"every_n_steps": 1}}],
        }
        init = {"base_weights": str(base), "parallel": {"compute_dtype": "float32"}, **arguments}
        model = {"class_path": f"nbg_lightning.{module}", "init_args": init}
        return self.write(f"{name}.yaml", {"model": model, "data": data, "trainer": trainer})

    def fit(self, name: str, base: Path, template: str = "auto", rows: str = "plain.jsonl") -> tuple[Path, str]:
        """SFT of one step: its checkpoint, and what it said."""
        arguments = self.data(self.folder / rows, base, template)
        source = {"class_path": "nbg_lightning.data.ChatJsonLines", "init_args": {"path": str(self.folder / rows)}}
        data = {"class_path": "nbg_lightning.ChatDataModule", "init_args": {"sources": {"chats": source}, **arguments}}
        return self.run(name, self.config(name, "SFTModule", base, data))

    def run(self, name: str, config: str) -> tuple[Path, str]:
        return self.folder / name / "checkpoints" / "step-00000001", self.said("fit", "--config", config)

    def said(self, *arguments: Any) -> str:
        """What a command that succeeds prints and logs."""
        _say_once.cache_clear()  # a command has a process of its own
        lines = Lines()
        logger = logging.getLogger("nbg_lightning")
        logger.addHandler(lines)
        try:
            result = self.nbg(*arguments)
        finally:
            logger.removeHandler(lines)
        assert result.code == 0, result.err[-3000:]
        return "\n".join([result.out, *lines.said])

    def trained(self, base: Path, template: str = "auto", rows: str = "plain.jsonl") -> list[list[int]]:
        """The ids of each conversation that such an SFT is served."""
        file = self.folder / rows
        data = ChatDataModule({"chats": ChatJsonLines(str(file))}, **self.data(file, base, template))
        data.base_weights = str(base)
        data.setup("fit")
        source, _ = data._train["chats"]
        assert source.num_documents == len(file.read_text().splitlines())
        return [source.document(index)[0].tolist() for index in range(source.num_documents)]

    def export(self, checkpoint: Path) -> tuple[Path, str]:
        out = checkpoint.parent / "exported"
        return out, self.said("export", checkpoint, out, "--dtype", "float32")

    def rendered(self, folder: Path, rows: str = "plain.jsonl") -> list[list[int]]:
        """What transformers makes of the conversations with an exported folder."""
        tokenizer = AutoTokenizer.from_pretrained(folder)
        given = map(json.loads, (self.folder / rows).read_text().splitlines())
        return [
            tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), return_dict=False) for row in given
        ]


def warnings_of(output: str) -> list[str]:
    """The lines that warn of another format."""
    return [line for line in output.splitlines() if "warning: the chat format of" in line]


def said_of(output: str) -> list[str]:
    """The lines that say which format a run has."""
    return [line for line in output.splitlines() if "chat format: " in line]


@pytest.fixture(scope="module")
def shop(workshop, tmp_path_factory) -> Shop:
    made = Shop(workshop.nbg, tmp_path_factory.mktemp("formats"))
    train_bpe([f"{' '.join(WORDS)} clock half past {n}" for n in range(400)], 320, made.folder / "tokenizer")
    tokenizer = Tokenizer(made.folder / "tokenizer")
    tokenizer.chat_template = ChatTemplate("own", OWN)
    model = create_model(preset("nano"), seed=0)
    save_hugging_face(model, made.model, tokenizer, dtype="float32", verify=False)
    for name, rows in (("drawn.jsonl", drawn(60)), ("plain.jsonl", plain(50))):
        (made.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (made.folder / "file.jinja").write_text(FILE)
    return made


@pytest.fixture(scope="module")
def with_file(shop) -> Path:
    """A checkpoint that was trained in the format of a file, which neither the tokenizer has nor the library."""
    checkpoint, output = shop.fit("file", shop.model, str(shop.folder / "file.jinja"))
    [warning] = warnings_of(output)
    assert f"{shop.model} is tokenizer, and this run uses file.jinja: set template to auto" in warning
    return checkpoint


def assert_same(rendered: list[list[int]], trained: list[list[int]]) -> None:
    """Training rows end with the last trained token; transformers writes the line break after it, too."""
    assert len(rendered) >= 50
    assert [ids[:-1] for ids in rendered] == trained
    assert len({ids[-1] for ids in rendered}) == 1


def text_of(folder: Path) -> str:
    return AutoTokenizer.from_pretrained(folder).chat_template


# -- exports -----------------------------------------------------------------------------------------------------------


def test_the_papers_format_replaces_the_models_own(shop):
    checkpoint, output = shop.fit("nanbeige", shop.model, "nanbeige", "drawn.jsonl")
    [warning] = warnings_of(output)
    assert f"{shop.model} is tokenizer, and this run uses nanbeige: set template to auto" in warning
    folder, output = shop.export(checkpoint)
    assert "chat template: nanbeige" in output
    ids = shop.rendered(folder, "drawn.jsonl")
    assert len(ids) == 60
    trained = shop.trained(shop.model, "nanbeige", "drawn.jsonl")
    assert_same(ids, trained)
    # The folder is where the next stage begins, or the checkpoint: both know the format.
    for base in (folder, checkpoint):
        assert shop.trained(base, rows="drawn.jsonl") == trained
    imported = shop.folder / "imported"
    shop.said("import", folder, imported)
    assert text_of(imported) == text_of(folder)
    assert shop.rendered(imported, "drawn.jsonl") == ids
    again, _ = shop.export(shop.fit("again", imported, rows="drawn.jsonl")[0])
    assert text_of(again) == text_of(folder)


@pytest.mark.parametrize("template", ["auto", "tokenizer"])
def test_the_models_own_format_is_kept(shop, template):
    checkpoint, output = shop.fit(template, shop.model, template)
    assert warnings_of(output) == []
    folder, output = shop.export(checkpoint)
    assert "chat template: tokenizer" in output
    assert text_of(folder) == OWN
    assert_same(shop.rendered(folder), shop.trained(shop.model, template))


def test_the_format_of_a_file_is_exported(shop, with_file):
    folder, output = shop.export(with_file)
    assert "chat template: file.jinja" in output
    assert text_of(folder) == FILE
    assert_same(shop.rendered(folder), shop.trained(shop.model, str(shop.folder / "file.jinja")))


# -- later stages ------------------------------------------------------------------------------------------------------


def test_later_sft_keeps_the_recorded_format(shop, with_file):
    checkpoint, output = shop.fit("later", with_file)
    assert warnings_of(output) == []
    [said] = said_of(output)
    assert f"chat format: file.jinja (the chat format of {with_file})" in said
    assert shop.trained(with_file) == shop.trained(shop.model, str(shop.folder / "file.jinja"))
    assert text_of(shop.export(checkpoint)[0]) == FILE
    _, output = shop.fit("other", with_file, "nanbeige")
    [warning] = warnings_of(output)
    assert f"the chat format of {with_file} is file.jinja, and this run uses nanbeige" in warning


def pairs(shop: Shop, base: Path, template: str) -> dict[str, Any]:
    """Data of a DPD stage."""
    rows = [{"prompt": f"time {n}?", "chosen": f"half past {n}", "rejected": "no"} for n in range(12)]
    (shop.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = str(shop.folder / "pairs.jsonl")
    source = {"class_path": "nbg_lightning.data.PairJsonLines", "init_args": {"path": path}}
    arguments = shop.data(shop.folder, base, template) | {"sequence_length": 512, "tokens_per_step": 1024}
    del arguments["packing"]
    return {
        "class_path": "nbg_lightning.PreferenceDataModule",
        "init_args": {"sources": {"pairs": source}, **arguments},
    }


def questions(shop: Shop, base: Path, template: str) -> dict[str, Any]:
    """Data of a GRPO stage."""
    rows = [{"question": f"time {n}?", "answer": n} for n in range(8)]
    (shop.folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = str(shop.folder / "questions.jsonl")
    source = {"class_path": "nbg_lightning.data.QuestionJsonLines", "init_args": {"path": path}}
    arguments = {"tokenizer": str(base), "template": template, "prompts_per_step": 2, "steps": 1}
    arguments |= {"data_dir": str(shop.folder / "data"), "sources": {"asked": source}}
    return {"class_path": "nbg_lightning.PromptDataModule", "init_args": arguments}


STAGES = {
    "DPDModule": (pairs, lambda base: {"teacher": str(base)}),
    "GRPOModule": (
        questions,
        lambda _: {"reward": "nbg_lightning.rewards.MathReward", "group_size": 2, "max_new_tokens": 4},
    ),
}


@pytest.mark.parametrize("module", STAGES)
def test_later_stages_keep_the_recorded_format(shop, with_file, module):
    data, arguments = STAGES[module]
    config = shop.config(module, module, with_file, data(shop, with_file, "auto"), **arguments(with_file))
    checkpoint, output = shop.run(module, config)
    assert warnings_of(output) == []
    assert any("chat format: file.jinja" in line for line in said_of(output))
    assert text_of(shop.export(checkpoint)[0]) == FILE
    name = f"{module}-other"
    config = shop.config(name, module, with_file, data(shop, with_file, "nanbeige"), **arguments(with_file))
    [warning] = warnings_of(shop.run(name, config)[1])
    assert "is file.jinja, and this run uses nanbeige" in warning


def test_prompts_of_grpo_are_in_the_recorded_format(shop, with_file):
    import yaml

    from nbg_lightning.data import QuestionJsonLines
    from nbg_lightning.datamodules.prompts import PromptDataModule

    arguments = yaml.safe_load(json.dumps(questions(shop, with_file, "auto")["init_args"]))
    path = arguments.pop("sources")["asked"]["init_args"]["path"]
    data = PromptDataModule({"asked": QuestionJsonLines(path)}, **arguments)
    data.base_weights = str(with_file)
    [first, *_] = data.load_questions()["asked"]
    assert data.tokenizer.decode(data.format.prompt(first.messages).ids) == (
        "[file user]\ntime 0?<|im_end|>\n[file assistant]\n"
    )


def test_pass_rates_are_measured_in_the_recorded_format(shop, with_file):
    arguments = STAGES["GRPOModule"][1](with_file)
    config = shop.config("rate", "GRPOModule", with_file, questions(shop, with_file, "auto"), **arguments)
    output = shop.said("pass-rate", config, "--n", 2, "--output", shop.folder / "rate.parquet")
    assert warnings_of(output) == []
    import pyarrow.parquet as pq

    digest = ChatTemplate("file.jinja", FILE).identity
    assert digest in str(pq.read_schema(shop.folder / "rate.parquet").metadata)


def test_suites_are_in_the_recorded_format(shop, with_file):
    benchmark = {"class_path": "nbg_lightning.evaluation.Arithmetic", "init_args": {"count": 2, "num_shots": 0}}
    suite = {"name": "tiny", "sampling": {"max_new_tokens": 2}, "benchmarks": [benchmark]}
    for form, name, number in (("auto", "file.jinja", 0), ("nanbeige", "nanbeige", 1)):
        data = {
            "class_path": "nbg_lightning.BenchmarkDataModule",
            "init_args": {"suite": {**suite, "format": form}},
        }
        run = f"suite-{form}"
        output = shop.said("test", "--config", shop.config(run, "SFTModule", with_file, data))
        assert len(warnings_of(output)) == number
        [found] = (shop.folder / run / "benchmarks").glob("*/results.json")
        assert name in found.read_text()


def test_training_on_texts_leaves_a_chat_model_its_format(shop, with_file):
    stage = {"name": "only", "tokens": 512, "lr": 1e-3, "mixture": {"texts": 1}}
    table = {"tokens_per_step": 512, "sequence_length": 64, "stages": [stage]}
    texts = {
        "class_path": "nbg_lightning.data.InMemory",
        "init_args": {"texts": [f"half past {n}" for n in range(200)]},
    }
    arguments = {"sources": {"texts": texts}, "tokenizer": str(with_file), "data_dir": str(shop.folder / "data")}
    data = {
        "class_path": "nbg_lightning.CurriculumDataModule",
        "init_args": {**arguments, "num_workers": 0, "prepare_workers": 0},
    }
    config = json.loads(Path(shop.config("texts", "PretrainModule", with_file, data)).read_text())
    config["trainer"]["callbacks"].append({"class_path": "nbg_lightning.FGWSD", "init_args": table})
    checkpoint, _ = shop.run("texts", shop.write("texts.yaml", config))
    assert text_of(shop.export(checkpoint)[0]) == FILE
    assert shop.trained(checkpoint) == shop.trained(with_file)


# -- checkpoints that say nothing --------------------------------------------------------------------------------------


def test_a_checkpoint_without_a_recorded_format_goes_by_its_tokenizer(shop):
    checkpoint, _ = shop.fit("silent", shop.model, "nanbeige")
    forget_digests(checkpoint)
    meta = torch.load(checkpoint / "meta.pt", weights_only=True)
    del meta["nbg_lightning"]["chat_template"]
    torch.save(meta, checkpoint / "meta.pt")
    _, output = shop.fit("after-silent", checkpoint)
    [said] = said_of(output)
    assert f"chat format: tokenizer (the tokenizer's own template; tokenizer {checkpoint} records no format)" in said
    assert shop.trained(checkpoint) == shop.trained(shop.model, "tokenizer")
    folder, output = shop.export(checkpoint)
    assert "chat template: tokenizer" in output
    assert text_of(folder) == OWN
