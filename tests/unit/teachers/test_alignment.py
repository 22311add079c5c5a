"""Two tokenizers on one text: chunks end at the same byte, shared ids have the same bytes, the rest is omitted."""

import json
import random

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from nbg_lightning.data import Tokenizer, train_bpe
from nbg_lightning.data.token_bytes import byte_of_character, token_bytes
from nbg_lightning.teachers.alignment import TokenizerPair, _chunks

TEXTS = ["what is the answer? it is 42, and nothing else.", "the question is: what else is there, then?"] * 3
OTHERS = ["an answer that is nothing is an answer too, whatever there is.", "is it that there is something else?"] * 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    return tuple(
        Tokenizer(train_bpe(texts, size, folder / name))
        for name, texts, size in (("ours", TEXTS, 300), ("theirs", OTHERS, 305), ("again", TEXTS, 300))
    )


def spans(tokenizer, ids, bounds):
    pieces = token_bytes(tokenizer)
    names = {index: name.encode() for name, index in tokenizer.vocabulary().items()}
    return [b"".join(pieces.get(int(i), names[int(i)]) for i in ids[begin:end]) for begin, end in bounds]


def test_chunks_are_the_same_bytes_on_both_sides(made):
    ours, theirs, _ = made
    pair = TokenizerPair(ours, theirs)
    draw = random.Random(0)
    words = [word for text in TEXTS + OTHERS for word in text.split()] + ["żółw", "日本", "🙂", "\n\n"]
    for _ in range(40):
        text = " ".join(draw.choice(words) for _ in range(draw.randint(1, 12)))
        ids = np.array([ours.bos_id, *ours.encode(text), ours.token_id("<|im_end|>"), *ours.encode(text), ours.eos_id])
        trained = np.arange(len(ids)) > 0
        found = pair.align(ids, trained)
        assert spans(ours, ids, found.ours) == spans(theirs, found.ids, found.theirs)
        assert found.ours[:, 0].tolist() == [1, *found.ours[:-1, 1].tolist()]  # no gap: all of it is aligned
        assert found.ours[-1, 1] == len(ids)
        inner = [
            set(np.cumsum([len(token_bytes(t).get(int(i), b"x")) for i in ids_[b:e]][:-1]).tolist())
            for t, ids_, (b, e) in ((ours, ids, found.ours[0]), (theirs, found.ids, found.theirs[0]))
        ]
        assert not inner[0] & inner[1]  # and no chunk could be cut in two
    assert pair.unaligned == 0 < pair.aligned


def test_equal_tokenizers_are_aligned_token_by_token(made):
    ours, _, again = made
    pair = TokenizerPair(ours, again)
    ids = np.array([ours.bos_id, *ours.encode(TEXTS[0]), ours.eos_id])
    found = pair.align(ids, np.ones(len(ids), bool))
    assert found.ids.tolist() == ids.tolist()
    assert found.ours.tolist() == found.theirs.tolist() == [[i, i + 1] for i in range(1, len(ids))]
    assert pair.shared.ours.tolist() == pair.shared.theirs.tolist() == sorted(ours.vocabulary().values())


def test_shared_ids_have_the_same_bytes_and_each_is_there_once(made):
    ours, theirs, _ = made
    shared = TokenizerPair(ours, theirs).shared
    mine, yours = token_bytes(ours), token_bytes(theirs)
    for index, other in zip(shared.ours.tolist(), shared.theirs.tolist(), strict=True):
        assert mine.get(index) == yours.get(other)
    assert len(set(shared.theirs.tolist())) == len(shared.theirs) >= 256


def test_only_chunks_that_are_trained_as_a_whole_are_kept(made):
    ours, theirs, _ = made
    pair = TokenizerPair(ours, theirs)
    ids = np.array([ours.bos_id, *ours.encode(TEXTS[1])])
    trained = np.zeros(len(ids), bool)
    trained[5:9] = True
    found = pair.align(ids, trained)
    assert all(5 <= begin < end <= 9 for begin, end in found.ours.tolist())
    assert pair.aligned + pair.unaligned == 4


def test_bytes_that_are_no_text_have_no_chunks_and_the_rest_has(made):
    ours, theirs, _ = made
    half = next(index for index, piece in token_bytes(ours).items() if piece == b"\xe6")
    ids = np.array([ours.bos_id, half, ours.token_id("<|im_end|>"), *ours.encode("the answer")])
    pair = TokenizerPair(ours, theirs)
    found = pair.align(ids, np.ones(len(ids), bool))
    assert spans(ours, ids, found.ours)[0] == b"<|im_end|>"
    assert b"".join(spans(ours, ids, found.ours)[1:]) == b"the answer"
    assert pair.unaligned == 1


def test_a_blank_that_sentence_piece_begins_with_is_no_difference():
    assert _chunks([b"it", b" is"], [b" it", b" is"]) == [((0, 1), (0, 1)), ((1, 2), (1, 2))]
    assert _chunks([b"it"], [b"at"]) == []
    assert _chunks([], []) == []


def own(folder, model, decoder):
    """A tokenizer of another kind, in a folder."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoder
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return Tokenizer(folder)


def test_a_tokenizer_without_bytes_is_refused_in_a_line(made, tmp_path):
    word_piece = own(
        tmp_path / "wp", models.WordPiece({"[UNK]": 0, "the": 1, "##re": 2}, unk_token="[UNK]"), decoders.WordPiece()
    )
    with pytest.raises(ValueError, match=r"the bytes of its tokens are not known .its decoder is WordPiece.") as caught:
        TokenizerPair(made[0], word_piece)
    assert "\n" not in str(caught.value)


def test_the_table_of_bytes_is_the_one_of_tokenizers():
    assert sorted(byte_of_character()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    for text in ("A z", "é", "日", "\n\t\x00"):
        [(piece, _)] = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
        assert bytes(byte_of_character()[character] for character in piece) == text.encode()


def renamed(tokenizer, folder, names):
    """The same tokenizer with other names of some control tokens, as a family's next generation has."""
    folder.mkdir()
    for file in tokenizer.folder.iterdir():
        if file.is_file():
            text = file.read_text("utf-8")
            for old, new in names.items():
                text = text.replace(old, new)
            (folder / file.name).write_text(text, "utf-8")
    return Tokenizer(folder)


def test_vocabularies_that_agree_on_a_range_are_compared_token_by_token_over_it(made, tmp_path):
    """As Qwen2.5 and R1-Distill: one BPE, other control tokens. An end of turn that the teacher lacks is in no chunk."""
    ours = made[0]
    theirs = renamed(ours, tmp_path / "next", {"<|im_end|>": "<|turn_over|>", "<|im_start|>": "<|turn|>"})
    pair = TokenizerPair(ours, theirs)
    end = ours.token_id("<|im_end|>")
    assert end not in pair.shared.ours.tolist() and ours.token_id("<|im_start|>") not in pair.shared.ours.tolist()
    assert len(pair.shared.ours) == len(ours.vocabulary()) - 2
    assert pair.shared.ours.tolist() == pair.shared.theirs.tolist()
    said = ours.encode(TEXTS[0])
    ids = np.array([ours.bos_id, *said, end, *said, ours.eos_id])
    found = pair.align(ids, np.ones(len(ids), bool))
    assert (found.ours[:, 1] - found.ours[:, 0] == 1).all() and (found.theirs[:, 1] - found.theirs[:, 0] == 1).all()
    assert len(found.ours) == 2 * len(said) + 1
    assert ids[found.ours[:, 0]].tolist() == found.ids[found.theirs[:, 0]].tolist()
    assert pair.unaligned == 1


def test_the_end_of_a_text_is_the_same_whatever_it_is_called(made, tmp_path):
    theirs = renamed(made[0], tmp_path / "other", {"</s>": "<|the_end|>"})
    pair = TokenizerPair(made[0], theirs)
    place = pair.shared.ours.tolist().index(made[0].eos_id)
    assert pair.shared.theirs[place] == theirs.eos_id


def test_the_bytes_of_sentence_piece(made, tmp_path):
    vocabulary = {"<unk>": 0, "\u2581it": 1, "\u2581": 2, "s": 3, "<0xE6>": 4, "<0x97>": 5, "i": 6, "t": 7}
    decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    found = token_bytes(
        own(tmp_path / "sp", models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True), decoder)
    )
    assert found[1] == b" it" and found[2] == b" " and found[4] == b"\xe6" and found[3] == b"s"
