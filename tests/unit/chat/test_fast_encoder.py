"""fastokens gives the ids of `tokenizers`, or is not used."""

import json
from pathlib import Path

import fastokens
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from nbg_lightning.chat import fast_encoder
from nbg_lightning.chat.fast_encoder import EncodedTexts, EnginesDiffer, FastEncoder, fast_rules, is_audited, judge_ids
from nbg_lightning.data.tokenizer import train_bpe

ROOT = Path(__file__).parents[3]
SPECIAL = ["<unk>", "<s>", "</s>"]
TEXTS = [path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md"))[:12]]


def byte_level():
    """GPT-2's cuts, as SmolLM2 has them."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=700, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return made


def sentencepiece_style():
    """Llama 2's rules: a blank is a separate symbol, nothing is split, and unknown characters fall back to bytes."""
    special = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=900, special_tokens=special, show_progress=False))
    rules = json.loads(trained.to_str())
    rules["pre_tokenizer"] = None
    rules["added_tokens"] = rules["added_tokens"][: len(SPECIAL)]
    return tokenizers.Tokenizer.from_str(json.dumps(rules))


def ours(folder):
    return tokenizers.Tokenizer.from_file(str(train_bpe(TEXTS, 700, folder) / "tokenizer.json"))


@pytest.fixture(scope="module", params=["byte_level", "sentencepiece_style", "ours"])
def judge(request, tmp_path_factory):
    made = {"byte_level": byte_level, "sentencepiece_style": sentencepiece_style}
    name = request.param
    found = ours(tmp_path_factory.mktemp("bpe") / "tokenizer") if name == "ours" else made[name]()
    found.encode_special_tokens = True
    return found


def test_same_ids_on_hard_and_on_real_texts(judge):
    encoder = FastEncoder(judge)
    encoder.probe()
    found, expected = encoder.encode(TEXTS), judge_ids(judge, TEXTS)
    assert np.array_equal(found.ids, expected.ids) and np.array_equal(found.begins, expected.begins)
    assert len(found.ids) > 20_000
    for text, ids in zip(TEXTS, (found[index] for index in range(len(TEXTS))), strict=True):
        encoder.check(text, ids)
    with pytest.raises(EnginesDiffer, match=r"^fastokens gives other ids than tokenizers for "):
        encoder.check(TEXTS[0], found[1])


def test_special_tokens_in_a_text_are_read_as_the_judge_reads_them(judge):
    texts = ["a</s>b <s>", "</s>", "x <unk>"]
    for plain in (True, False):
        judge.encode_special_tokens = plain
        encoder = FastEncoder(judge)
        assert np.array_equal(encoder.encode(texts).ids, judge_ids(judge, texts).ids)
        assert (judge.token_to_id("</s>") in encoder.encode(texts).ids) != plain
    judge.encode_special_tokens = True


def test_lone_digits_and_gpt2_cuts_as_one_pattern():
    """Over all white space and numbers of Unicode, with both on each side of a letter, a sign and an end."""
    rules = json.loads(byte_level().to_str())
    digits = {"type": "Digits", "individual_digits": True}
    rules["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, rules["pre_tokenizer"]]}
    judge = tokenizers.Tokenizer.from_str(json.dumps(rules))
    judge.encode_special_tokens = True
    changed = json.loads(fast_rules(judge.to_str()))["pre_tokenizer"]["pretokenizers"]
    assert [step["type"] for step in changed] == ["Split", "ByteLevel"] and not changed[1]["use_regex"]
    signs = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    signs = [sign for sign in signs if sign.isspace() or sign.isnumeric() or sign in "\u180e\u200b\u2060\ufeff"]
    texts = [f"{a}{sign}{sign} {sign}{b}" for sign in signs for a in ("", "x", "1", "-") for b in ("", "y", "2", "'s")]
    encoder = FastEncoder(judge)
    assert np.array_equal(encoder.encode(texts).ids, judge_ids(judge, texts).ids)


def test_a_text_that_fastokens_refuses_is_the_judges():
    """A vocabulary without the byte of NUL: `tokenizers` leaves it out."""
    rules = json.loads(byte_level().to_str())
    nul = "\u0100"
    vocabulary = [token for token in rules["model"]["vocab"] if nul not in token]
    rules["model"]["vocab"] = {token: index for index, token in enumerate(vocabulary)}
    rules["model"]["merges"] = [pair for pair in rules["model"]["merges"] if nul not in "".join(pair)]
    judge = tokenizers.Tokenizer.from_str(json.dumps(rules))
    judge.encode_special_tokens = True
    encoder = FastEncoder(judge)
    with pytest.raises(ValueError, match="byte 0x00"):
        fastokens.Tokenizer.from_json_str(fast_rules(judge.to_str())).encode_batch_flat(["a\0b"])
    texts = ["plain", "a\0b", "", "x\0", *TEXTS[:2]]
    found, expected = encoder.encode(texts), judge_ids(judge, texts)
    assert np.array_equal(found.ids, expected.ids) and np.array_equal(found.begins, expected.begins)


def test_half_of_a_surrogate_pair_is_refused_as_before(judge):
    with pytest.raises((TypeError, UnicodeEncodeError)):
        FastEncoder(judge).encode(["fine", "\ud800"])


def test_rules_that_it_cannot_read_are_refused_in_one_line():
    judge = sentencepiece_style()
    judge.pre_tokenizer = pre_tokenizers.Metaspace()
    with pytest.raises(EnginesDiffer, match=r"^fastokens cannot read the tokenizer \(.*Metaspace\)$"):
        FastEncoder(judge)


def test_the_probe_finds_other_rules(monkeypatch):
    judge = byte_level()
    other = json.loads(judge.to_str())
    other["model"]["merges"] = other["model"]["merges"][:-1]
    monkeypatch.setattr(fast_encoder, "fast_rules", lambda rules: json.dumps(other))
    with pytest.raises(EnginesDiffer, match=r"^fastokens gives other ids than tokenizers for '.{1,200}'$"):
        FastEncoder(judge).probe()


def test_joined_texts():
    joined = EncodedTexts.joined([[1, 2], [], [3]])
    assert joined.ids.tolist() == [1, 2, 3] and joined.begins.tolist() == [0, 2, 2, 3] and joined[1].tolist() == []
    assert EncodedTexts.joined([]).begins.tolist() == [0]


def test_one_document_in_a_thousand_is_audited():
    chosen = sum(is_audited(str(number).encode()) for number in range(100_000))
    assert 70 < chosen < 130
    assert is_audited(b"same") == is_audited(b"same")
