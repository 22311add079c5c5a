"""Rotary embeddings against transformers and against complex multiplication."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from nbg_lightning.core.config import Llama3RopeScaling
from nbg_lightning.core.rope import inverse_frequencies, rotary_table, rotate


def hugging_face_frequencies(head_dim, theta, scaling):
    parameters = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_position_embeddings,
    }
    config = LlamaConfig(hidden_size=head_dim, num_attention_heads=1, head_dim=head_dim, rope_parameters=parameters)
    return ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0]


@pytest.mark.parametrize("theta", [1e4, 5e5])
@pytest.mark.parametrize(
    "scaling",
    [Llama3RopeScaling(), Llama3RopeScaling(32.0, 1.0, 4.0, 8192), Llama3RopeScaling(4.0, 1.5, 3.0, 64)],
)
def test_llama3_scaling_equals_transformers(theta, scaling):
    found = inverse_frequencies(64, theta, scaling)
    torch.testing.assert_close(found, hugging_face_frequencies(64, theta, scaling), rtol=1e-6, atol=0)
    plain = inverse_frequencies(64, theta)
    assert found[0] == plain[0]  # the fastest is kept
    torch.testing.assert_close(found[-1], plain[-1] / scaling.factor)  # the slowest is stretched


def test_frequencies_by_hand():
    assert inverse_frequencies(4, 100.0).tolist() == pytest.approx([1.0, 0.1])


def test_rotation_is_complex_multiplication():
    """Pair (i, i + H/2) is one complex number, turned by position x frequency."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 8, generator=generator)
    positions = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 0, 1, 2]])
    frequencies = inverse_frequencies(8, 1e4)
    found = rotate(x, rotary_table(positions, frequencies))
    turned = torch.view_as_complex(torch.stack(x.double().chunk(2, -1), -1)) * torch.exp(
        1j * positions[..., None, None].double() * frequencies.double()
    )
    torch.testing.assert_close(found.double(), torch.cat((turned.real, turned.imag), -1), rtol=1e-5, atol=1e-6)


def test_products_depend_on_distance_only():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 16, generator=generator, dtype=torch.float32)
    frequencies = inverse_frequencies(16, 1e4)

    def product(query_at, key_at):
        table = [rotary_table(torch.tensor([[at]]), frequencies) for at in (query_at, key_at)]
        return (rotate(q, table[0]) * rotate(k, table[1])).sum().item()

    assert product(7, 3) == pytest.approx(product(104, 100), abs=1e-4)
    assert product(7, 3) != pytest.approx(product(7, 6), abs=1e-2)


def test_low_precision_inputs_are_turned_in_float32():
    x = torch.randn(1, 3, 1, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    table = rotary_table(torch.tensor([[5, 4000, 30_000]]), inverse_frequencies(8, 1e4))
    found = rotate(x, table)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, rotate(x.float(), table).bfloat16())
