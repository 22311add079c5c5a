import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nbg_lightning.chat.nanbeige_template import nanbeige_template
from nbg_lightning.data.tokenizer import Tokenizer, TokenizerConfig, one_thread, train_bpe
from nbg_lightning.data.tokenizer_settings import transformers_class

TEXTS = [Path(json.__file__).read_text(), Path(os.__file__).read_text(), "Größe 中文 🙂 " * 20]
NAMES = "<unk> <s> </s> <|im_start|> <|im_end|> <|endoftext|> <think> </think> <tool_call> </tool_call> "
NAMES += "<tool_response> </tool_response>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return train_bpe(TEXTS, 600, tmp_path_factory.mktemp("tokenizer") / "bpe")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer(folder)


def test_ids_of_special_tokens(tokenizer):
    assert [tokenizer.token_id(t) for t in NAMES.split()] == list(range(12))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 5)
    assert tokenizer.vocab_size == 600
    with pytest.raises(ValueError, match="no token '<nothing>'"):
        tokenizer.token_id("<nothing>")


@pytest.mark.parametrize("text", [*TEXTS, "", " ", "\n\t x=12345\r\n", "\x00\x7f", "a</s>b<think>c</think>"])
def test_round_trip(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


def test_control_tokens_in_text_stay_text(tokenizer):
    assert not set(tokenizer.encode("a</s><|im_start|><|endoftext|>")) & {1, 2, 3, 4, 5}
    assert tokenizer.encode("</s>", special=True) == [2]
    assert tokenizer.encode("</s>") != [2]  # the setting of one call does not stay
    assert tokenizer.encode("<think>") == [6]
    assert tokenizer.decode([1, 6, 2], skip_special_tokens=True) == "<think>"


def test_digits_stand_alone(tokenizer):
    assert len(tokenizer.encode("123456")) == 6


def test_batch_equals_single(tokenizer):
    assert tokenizer.encode_batch(TEXTS) == [tokenizer.encode(t) for t in TEXTS]
    assert tokenizer.encode_batch([]) == []


def test_training_is_deterministic(folder, tmp_path):
    again = train_bpe(iter(TEXTS), 600, tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["again"]


def test_vocabulary_sizes(tmp_path):
    with pytest.raises(ValueError, match="need 268 ids"):
        train_bpe(TEXTS, 267, tmp_path / "a")
    with pytest.raises(ValueError, match=r"fill only \d+ of 5000 ids; lower train_vocab_size or give more text"):
        train_bpe(["few words"], 5000, tmp_path / "a")
    assert os.listdir(tmp_path) == []
    train_bpe(["x"], 268, tmp_path / "bytes")
    assert Tokenizer(tmp_path / "bytes").decode(Tokenizer(tmp_path / "bytes").encode("é🙂")) == "é🙂"


def test_fingerprint_follows_content(folder, tokenizer, tmp_path):
    copy = Tokenizer(tokenizer.save_pretrained(tmp_path / "copy"))
    assert copy.fingerprint == tokenizer.fingerprint
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for change, same in (({"chat_template": "x"}, True), ({"eos_token": "<|im_end|>"}, False)):
        (tmp_path / "copy" / "tokenizer_config.json").write_text(json.dumps(config | change))
        assert (Tokenizer(tmp_path / "copy").fingerprint == tokenizer.fingerprint) is same
    assert Tokenizer(train_bpe(TEXTS[:1], 600, tmp_path / "b")).fingerprint != tokenizer.fingerprint


def test_truncation_of_a_folder_is_ignored(folder, tokenizer, tmp_path):
    shutil.copytree(folder, tmp_path / "cut")
    rules = json.loads((folder / "tokenizer.json").read_text())
    rules["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "cut" / "tokenizer.json").write_text(json.dumps(rules))
    cut = Tokenizer(tmp_path / "cut")
    assert len(cut.encode("a b c d e f")) > 2
    assert cut.fingerprint == tokenizer.fingerprint


def test_transformers_loads_it(tokenizer):
    loaded = tokenizer.transformers
    assert loaded.encode(TEXTS[0], add_special_tokens=False) == tokenizer.encode(TEXTS[0], special=True)
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id, len(loaded)) == (1, 2, 5, 600)
    assert loaded.chat_template == nanbeige_template()


def test_what_a_text_begins_with_is_what_transformers_begins_it_with(tokenizer, folder, tmp_path):
    assert tokenizer.begin == (1,)
    assert tokenizer.transformers("a b").input_ids == [1, *tokenizer.encode("a b")]
    # A bos that only chats use (ChatML's): nothing is put before a text.
    shutil.copytree(folder, tmp_path / "chat")
    rules = json.loads((folder / "tokenizer.json").read_text()) | {"post_processor": None}
    (tmp_path / "chat" / "tokenizer.json").write_text(json.dumps(rules))
    chat = Tokenizer(tmp_path / "chat")
    assert (chat.bos_id, chat.begin) == (1, ())
    assert chat.transformers("a b").input_ids == chat.encode("a b") == tokenizer.encode("a b")
    assert chat.fingerprint == tokenizer.fingerprint
    # Custom classes declare it in the configuration.
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True}
    (tmp_path / "chat" / "tokenizer_config.json").write_text(json.dumps(config))
    assert Tokenizer(tmp_path / "chat").begin == (1,)


def test_chat_template(tokenizer):
    def render(messages, **options):
        return tokenizer.transformers.apply_chat_template(messages, tokenize=False, **options)

    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert render(messages, add_generation_prompt=True) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    )
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    messages += [
        {"role": "assistant", "content": "", "reasoning_content": "R", "tool_calls": [call]},
        {"role": "tool", "content": "2"},
    ]
    text = render(messages, tools=[{"name": "add"}])
    assert text.startswith("<|im_start|>system\nS\n\n# Tools\n\n")
    assert '<tools>\n{"type": "function", "function": {"name": "add"}}\n</tools>' in text
    assert text.count("<|im_start|>system") == 1
    assert text.endswith(
        "<|im_start|>assistant\n<think>\nR\n</think>\n\n"
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>\n"
    )


def test_rules_that_transformers_does_not_follow(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "LlamaTokenizer"  # rebuilds its own rules and ignores tokenizer.json
    (tmp_path / "other" / "tokenizer_config.json").write_text(json.dumps(config))
    other = Tokenizer(tmp_path / "other")
    with pytest.raises(ValueError, match=r"differently from its tokenizer.json; set .tokenizer_class"):
        other.transformers  # noqa: B018


def test_loading_errors(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Tokenizer(tmp_path / "none")
    with pytest.raises(ValueError, match="is a file"):
        Tokenizer(folder / "tokenizer.json")
    with pytest.raises(ValueError, match=r"the folder has no tokenizer\.json"):
        Tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match="no tokenizer can be loaded"):
        Tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer.json: not a tokenizer"):
        Tokenizer(tmp_path)


@pytest.mark.parametrize("text", ["null", "5", "1.5", "true", "[1]", '"a"', "[" * 100_000])
def test_settings_that_are_no_object_are_refused(folder, tmp_path, text):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "tokenizer_config.json").write_text(text)
    with pytest.raises(ValueError, match=r"tokenizer_config\.json.*; write the tokenizer again") as refused:
        Tokenizer(copy)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("role", ["bos_token", "eos_token", "pad_token"])
@pytest.mark.parametrize("value", [5, True, [], [["</s>"]], {}, {"content": None}])
def test_special_tokens_that_are_no_texts_are_refused(folder, tmp_path, role, value):
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(config | {role: value}))
    with pytest.raises(ValueError, match=rf"^{role} is invalid: .*; give .*tokenizer_config\.json a text"):
        Tokenizer(copy)


def test_a_folder_of_a_run_is_refused_with_its_newest_checkpoint(tmp_path):
    for step in (2, 10):
        checkpoint = tmp_path / "run" / "checkpoints" / f"step-{step:08}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "meta.pt").touch()
        (checkpoint / ".metadata").touch()
    newest = f"{tmp_path}/run/checkpoints/step-00000010"
    for name in ("run", "run/checkpoints"):
        with pytest.raises(ValueError, match=f"it is the folder of a run; give a checkpoint of it: {newest}"):
            Tokenizer(tmp_path / name)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    with pytest.raises(
        ValueError, match=r"texts' is invalid: the folder has no tokenizer.json; give the folder of a tokenizer"
    ):
        Tokenizer(tmp_path / "texts")


def test_config():
    assert TokenizerConfig(train_vocab_size=512, train_bytes="2M").train_bytes == 2_000_000
    with pytest.raises(ValueError, match="tokenizer is invalid: neither"):
        TokenizerConfig()
    with pytest.raises(ValueError, match="tokenizer is invalid: both"):
        TokenizerConfig("folder", 512)
    with pytest.raises(ValueError, match="train_vocab_size is invalid: 100; bytes and special"):
        TokenizerConfig(train_vocab_size=100)
    with pytest.raises(ValueError, match="train_bytes is invalid: 0"):
        TokenizerConfig(train_vocab_size=512, train_bytes=0)


def test_one_thread_restores_the_environment(monkeypatch):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    with one_thread():
        assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    assert "TOKENIZERS_PARALLELISM" not in os.environ
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"


def test_encoding_loads_neither_torch_nor_transformers(folder):
    code = f"import sys; from nbg_lightning.data import Tokenizer; Tokenizer({str(folder)!r}).encode('a');"
    code += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_its_chat_template_loads_no_generation(folder):
    """AutoTokenizer would: scikit-learn, pandas and the models' generation, before the first step of a run on chats."""
    code = f"""
import sys
from nbg_lightning.data import Tokenizer
chat = [{{"role": "user", "content": "hello"}}]
assert Tokenizer({str(folder)!r}).transformers.apply_chat_template(chat, tokenize=False)
print(*(name for name in ("sklearn", "pandas", "transformers.generation") if name in sys.modules))
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == []


def test_the_general_class_is_what_transformers_finds(folder, tmp_path):
    from transformers import AutoTokenizer

    for name in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        other = shutil.copytree(folder, tmp_path / name)
        settings = json.loads((other / "tokenizer_config.json").read_text())
        (other / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": name}))
        found, expected = Tokenizer(other).transformers, AutoTokenizer.from_pretrained(other)
        assert type(found) is type(expected)
        assert found.special_tokens_map == expected.special_tokens_map
        assert found.chat_template == expected.chat_template
        assert found.encode("a <s> 12") == expected.encode("a <s> 12")
        found.save_pretrained(tmp_path / f"{name}-found")
        expected.save_pretrained(tmp_path / f"{name}-expected")
        for file in (tmp_path / f"{name}-expected").iterdir():
            assert (tmp_path / f"{name}-found" / file.name).read_bytes() == file.read_bytes()


def test_classes_with_rules_of_their_own_are_left_to_transformers(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "own")
    file = tmp_path / "own" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "tokenizer_class": "GPT2TokenizerFast"}))
    assert transformers_class(tmp_path / "own").__name__ == "AutoTokenizer"
    assert transformers_class(None).__name__ == "AutoTokenizer"
