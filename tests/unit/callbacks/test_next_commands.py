"""The suggested command after a run asks about the training task, in the same ids."""

import json
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from nbg_lightning.callbacks.next_commands import next_commands, prompt_arguments
from nbg_lightning.commands import generate as generate_command
from nbg_lightning.contracts import GivesExamplePrompts
from nbg_lightning.data import ChatJsonLines, InMemory, PairList, QuestionList, train_bpe
from nbg_lightning.datamodules import ChatDataModule, CurriculumDataModule, PreferenceDataModule, PromptDataModule
from nbg_lightning.engines.chat import ChatFormat

TURNS = [{"role": "user", "content": "what's 2 + 3?"}, {"role": "assistant", "content": "5"}]
SYSTEM = {"role": "system", "content": "Be kind."}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = ["what is the answer? it is 42, and nothing else than that."] * 3
    return str(train_bpe(texts, 290, tmp_path_factory.mktemp("tokenizer") / "t"))


def ready(datamodule):
    datamodule.prepare_data()
    datamodule.setup("fit")
    assert isinstance(datamodule, GivesExamplePrompts)
    return datamodule


def chat(rows, tokenizer, folder, **options):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {"sequence_length": 64, "tokens_per_step": 64, "num_workers": 0, "prepare_workers": 0}
    source = ChatJsonLines(path=str(folder / "rows.jsonl"))
    return ready(ChatDataModule({"s": source}, tokenizer, data_dir=str(folder / "data"), **sizes, **options))


def commands(datamodule, folder, score_head=False, root="runs/my run"):
    module = SimpleNamespace(shape=SimpleNamespace(score_head=score_head))
    trainer = SimpleNamespace(datamodule=datamodule, default_root_dir=root, lightning_module=module)
    return next_commands(trainer, folder / "step-1")


def test_a_conversation_is_asked_as_it_was_trained(tokenizer, tmp_path):
    rows = [{"messages": [SYSTEM, *TURNS]}, {"messages": "not a list"}, {"messages": TURNS}]
    data = chat(rows, tokenizer, tmp_path, on_invalid="drop", validation_fraction=0.0)
    said = [shlex.split(command) for command in commands(data, tmp_path)]
    assert [words[1] for words in said] == ["generate", "chat", "test", "export"]
    assert said[-1][-1] == "out/my run"
    assert commands(data, tmp_path, score_head=True) == commands(data, tmp_path)[-1:]  # a reward model writes nothing
    (tmp_path / "rollouts.jsonl").touch()  # of a run that samples answers
    assert f"nbg view {tmp_path}" in commands(data, tmp_path, root=str(tmp_path))
    arguments = generate_command.parser().parse_args(said[0][2:])
    [asked] = generate_command.read_prompts(arguments.prompts, None, arguments.system, None)
    ids = list(ChatFormat(data.tokenizer, "auto").prompt(asked.messages, None).ids)
    trained = [
        document[0].tolist() for source, _ in data._train.values() for document in map(source.document, range(2))
    ]
    assert any(each[: len(ids)] == ids for each in trained)


def test_pairs_questions_and_texts_give_prompts(tokenizer, tmp_path):
    where = {"data_dir": str(tmp_path / "data"), "num_workers": 0, "prepare_workers": 0}
    pairs = [{"prompt": f"q {n}?", "chosen": "a", "rejected": "b"} for n in range(8)]
    prefer = ready(
        PreferenceDataModule({"s": PairList(pairs)}, tokenizer, sequence_length=64, tokens_per_step=64, **where)
    )
    questions = QuestionList([{"question": f"{n} ?", "answer": n} for n in range(8)])
    asks = ready(PromptDataModule({"s": questions}, tokenizer, prompts_per_step=4, data_dir=str(tmp_path / "data")))
    text = InMemory(
        ["# A title\n\nand more of it, over and over again"] * 3 + ["\n\none two three four five six seven"]
    )
    reads = ready(CurriculumDataModule({"s": text}, tokenizer, sequence_length=8, validation_fraction=0.0, **where))
    assert [commands(data, tmp_path)[0].split(" ", 3)[3] for data in (prefer, asks, reads)] == [
        "'q 0?'",
        "'0 ?'",
        "'# A title'",
    ]


def test_data_that_are_gone_leave_the_other_commands(tokenizer, tmp_path):
    data = chat([{"messages": TURNS}], tokenizer, tmp_path, validation_fraction=0.0)
    Path(tmp_path / "rows.jsonl").unlink()
    assert [command.split()[1] for command in commands(data, tmp_path)] == ["chat", "test", "export"]
    assert commands(None, tmp_path)[0].endswith('"Once upon a time"')


@pytest.mark.parametrize(
    "text", ["it's `$HOME` and $(ls) \\n!", "two\nlines' \\ $x", '"', "a" * 300, "what is \u00e9 \u4f60\u597d?"]
)
def test_a_shell_reads_the_prompt_as_it_is(text):
    arguments = prompt_arguments([[{"role": "user", "content": text}]])
    done = subprocess.run(["bash", "-c", f"printf %s {arguments}"], capture_output=True, text=True, timeout=20)
    assert done.stdout == text


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [SYSTEM],
        [{"role": "user", "content": text} for text in ("one", "two")],
        *(
            [{"role": "user", "content": text}]
            for text in ("", " ", "-5 + 3?", "\x1b[31m", "\u202e", "a" * 301, None, [])
        ),
        [{"role": "system", "content": "a" * 301}, TURNS[0]],
    ],
)
def test_what_cannot_be_typed_is_no_prompt(messages):
    assert prompt_arguments([messages]) is None
    assert prompt_arguments([messages, [SYSTEM, TURNS[0]]]) == """--system 'Be kind.' 'what'"'"'s 2 + 3?'"""
