import math

import pytest
import torch

from nbg_lightning.construction.filtering.perplexity import Perplexity, TokenCount
from nbg_lightning.data.tokenizer import Tokenizer, train_bpe

TEXTS = ["the cat sat on the mat " * 30, "", "caf\u00e9!"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with weights and a tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("model") / "m"
    train_bpe([TEXTS[0], "other words"], 280, folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=280, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_bits_per_byte_are_those_of_transformers(model):
    from transformers import LlamaForCausalLM

    step = Perplexity(str(model), max_tokens=20)
    found = [row["bits_per_byte"] for row in step.values(TEXTS)]
    tokenizer, theirs = Tokenizer(model), LlamaForCausalLM.from_pretrained(model)
    for text, own in zip(TEXTS, found, strict=True):
        ids = ([tokenizer.bos_id] + tokenizer.encode(text))[:20]
        with torch.no_grad():  # a text without a token is worth no number: the loss of nothing
            loss = theirs(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item() * (len(ids) - 1)
        num_bytes = len(tokenizer.decode(ids[1:]).encode())
        assert own == (pytest.approx(loss / math.log(2) / num_bytes, rel=1e-4) if num_bytes else None)
    assert set(step.columns) == {"bits_per_byte"}
    assert step.identity() != Perplexity(str(model), max_tokens=21).identity()


def test_token_counts(model):
    tokenizer = Tokenizer(model)
    found = TokenCount(str(model)).values(TEXTS)
    assert [row["tokens"] for row in found] == [len(tokenizer.encode(text)) + 2 for text in TEXTS]


def test_settings_that_cannot_be(model):
    with pytest.raises(ValueError, match="max_tokens is invalid: 1"):
        Perplexity(str(model), max_tokens=1)
