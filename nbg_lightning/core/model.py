"""The language model: torchtitan's Llama decoder with our rotary table, packed attention and head.

Shape suffixes: B rows, L positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchtitan.models.common import Embedding, Linear, RMSNorm
from torchtitan.models.common.attention import GQAttention, QKVLinear
from torchtitan.models.common.config_utils import make_ffn_config, make_gqa_config
from torchtitan.models.common.feed_forward import FeedForward
from torchtitan.models.common.param_init import skip_param_init
from torchtitan.models.llama3 import Llama3Model
from torchtitan.models.llama3.model import Llama3TransformerBlock

from nbg_lightning.core.attention import DocumentAttention
from nbg_lightning.core.batch import document_offsets
from nbg_lightning.core.config import LanguageModelConfig
from nbg_lightning.core.documents import Documents
from nbg_lightning.core.head import HeadFunction
from nbg_lightning.core.products import linear
from nbg_lightning.core.rope import SharedRotary, inverse_frequencies, rotary_table


class BlockLinear(Linear):
    """A linear layer of a block, whose products are those of `nbg_lightning.core.products`."""

    @dataclass(kw_only=True, slots=True)
    class Config(Linear.Config):
        pass

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class TokenHead(Linear):
    """The head's weight, and the place where a function of (hidden, weight) runs while FSDP holds the full weight."""

    @dataclass(kw_only=True, slots=True)
    class Config(Linear.Config):
        pass

    def forward(self, hidden: Tensor, function: HeadFunction[Any] | None = None) -> Any:
        return linear(hidden, self.weight) if function is None else function(hidden, self.weight)


class LanguageModel(Llama3Model):
    """A decoder whose forward ends in a head function of your choice.

    Attributes:
        shape: the `LanguageModelConfig` that it was built from.
        rope_theta: RoPE base, used from the next forward on (stages may raise it: ABF).
    """

    @dataclass(kw_only=True, slots=True)
    class Config(Llama3Model.Config):
        shape: LanguageModelConfig

    def __init__(self, config: Config):
        super().__init__(config)
        self.shape = config.shape
        self.rope_theta = config.shape.rope_theta

    def forward(
        self,
        tokens_BL: Tensor,
        positions_BL: Tensor | None = None,
        documents: Documents | Tensor | None = None,
        head: HeadFunction[Any] | None = None,
    ) -> Any:
        """Run the decoder, then ``head(hidden_BLD, weight_VD)``.

        Args:
            tokens_BL: token ids.
            positions_BL: position of each token in its document; by default every row is one document.
            documents: documents of the flattened batch, or their cumulative lengths; by default derived from the positions.
            head: function of the final hidden states and the head's weight, called while the weight is gathered; by default
                it returns the logits ``[B, L, V]``. `nbg_lightning.core.head` has functions that avoid full logits.
        """
        if positions_BL is None:
            positions_BL = torch.arange(tokens_BL.shape[1], device=tokens_BL.device).expand(tokens_BL.shape)
        if documents is None:
            documents = document_offsets(positions_BL)
        documents = Documents.of(documents)
        frequencies = inverse_frequencies(
            self.shape.head_dim, self.rope_theta, self.shape.rope_scaling, tokens_BL.device
        )
        table = rotary_table(positions_BL, frequencies)
        hidden_BLD = self.tok_embeddings(tokens_BL)
        for _ in range(self.shape.num_loops):
            for layer in self.layers.values():
                hidden_BLD = layer(hidden_BLD, documents, table)
            hidden_BLD = self.norm(hidden_BLD)
        return self.lm_head(hidden_BLD, head)


def model_config(shape: LanguageModelConfig, float8: str = "none") -> LanguageModel.Config:
    """torchtitan's config tree for a shape; with ``float8`` its linear layers, except the head, are torchao's.

    Args:
        shape: the model.
        float8: ``none``, a torchao recipe (``rowwise``, ``rowwise_with_gw_hp``; needs SM89 or later), or ``emulate``
            (any device, slow: for tests).
    """
    normal = partial(nn.init.normal_, std=shape.initializer_range)
    weight = {"weight": normal}
    biased = {**weight, "bias": nn.init.zeros_}
    ones = {"weight": nn.init.ones_}

    def norm(size: int) -> RMSNorm.Config:
        return RMSNorm.Config(normalized_shape=size, eps=shape.rms_norm_eps, param_init=ones)

    def attention() -> GQAttention.Config:
        config = make_gqa_config(
            dim=shape.hidden_size,
            n_heads=shape.num_attention_heads,
            n_kv_heads=shape.num_key_value_heads,
            head_dim=shape.head_dim,
            wqkv_param_init=biased if shape.qkv_bias else weight,
            wo_param_init=weight,
            inner_attention=DocumentAttention.Config(),
            rope=SharedRotary.Config(dim=shape.head_dim, max_seq_len=shape.max_position_embeddings),
            qk_norm=norm(shape.head_dim) if shape.qk_norm else None,
            fuse_qkv=False,  # the state-dict hooks of the fused layer break distributed checkpoints
        )
        assert isinstance(config.qkv_linear, QKVLinear.Config)
        config.qkv_linear.wq.bias = config.qkv_linear.wkv.bias = shape.qkv_bias  # not an argument of torchtitan's
        config.qkv_linear.wq, config.qkv_linear.wkv, config.wo = map(
            _in_block, (config.qkv_linear.wq, config.qkv_linear.wkv, config.wo)
        )
        return config

    def feed_forward() -> FeedForward.Config:
        config = make_ffn_config(
            dim=shape.hidden_size, hidden_dim=shape.intermediate_size, w1_param_init=weight, w2w3_param_init=weight
        )
        config.w1, config.w2, config.w3 = map(_in_block, (config.w1, config.w2, config.w3))
        return config

    def block() -> Llama3TransformerBlock.Config:
        return Llama3TransformerBlock.Config(
            attention_norm=norm(shape.hidden_size),
            ffn_norm=norm(shape.hidden_size),
            attention=attention(),
            feed_forward=feed_forward(),
        )

    config = LanguageModel.Config(
        shape=shape,
        dim=shape.hidden_size,
        vocab_size=shape.vocab_size,
        tok_embeddings=Embedding.Config(
            num_embeddings=shape.vocab_size,
            embedding_dim=shape.hidden_size,
            param_init={"weight": skip_param_init} if shape.tie_word_embeddings else weight,
        ),
        norm=norm(shape.hidden_size),
        lm_head=TokenHead.Config(in_features=shape.hidden_size, out_features=shape.head_rows, param_init=weight),
        layers=[block() for _ in range(shape.num_hidden_layers)],
        enable_weight_tying=shape.tie_word_embeddings,
    )
    return config if float8 == "none" else _with_float8(config, float8)


def _in_block(config: Linear.Config) -> BlockLinear.Config:
    """The same layer as one of ours."""
    return BlockLinear.Config(**{field.name: getattr(config, field.name) for field in fields(config)})


def _with_float8(config: LanguageModel.Config, recipe: str) -> LanguageModel.Config:
    from torchao.float8 import Float8LinearConfig
    from torchtitan.components.quantization.float8 import Float8LinearConverter

    emulate = recipe == "emulate"
    converter = Float8LinearConverter.Config(
        recipe_name="rowwise" if emulate else recipe,
        emulate=emulate,
        filter_fqns=["lm_head"],  # the converter also matches subclasses of Linear, and would replace our head
    ).build()
    if emulate:  # torchtitan emulates per-tensor scales, which depend on the tokens that a rank has
        converter.torchao_config = replace(Float8LinearConfig.from_recipe_name("rowwise"), emulate=True)
    converter.convert(config)
    return config
