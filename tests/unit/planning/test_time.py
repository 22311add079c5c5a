"""Operations, bytes and seconds of a step, against hand counts."""

import pytest

from nbg_lightning.core.config import ParallelConfig, preset
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.planning import Cluster, TrainingPhase, Workload, device_of, step_time
from nbg_lightning.planning.time import flops, muon_flops, products
from nbg_lightning.planning.workload import Trained, micro_batches

SHAPE = preset("nanbeige4-3b")
H100 = device_of("h100")
PHASE = TrainingPhase("all", 4096, 2**23, 100, 4096)


def workload(**parallel):
    return Workload("pretraining", SHAPE, ParallelConfig(**parallel), 65_536, (PHASE,))


def test_operations_of_a_step():
    plain = flops(workload(), PHASE)
    assert plain == pytest.approx(SHAPE.flops_per_token(4096) * 2**23)
    head = 6 * SHAPE.vocab_size * SHAPE.hidden_size
    again = (SHAPE.flops_per_token(4096) - head) / 3 * 2**23
    assert flops(workload(activation_checkpointing="full"), PHASE) == pytest.approx(plain + again)


def test_a_teacher_and_a_reference_run_forward():
    import dataclasses

    plain = flops(workload(), PHASE)
    both = dataclasses.replace(workload(), task="DPD", teacher=SHAPE, reference=True)
    assert flops(both, PHASE) == pytest.approx(plain * 5 / 3)


def test_measured_rates_count_for_blocks_and_heads():
    import dataclasses

    from nbg_lightning.planning.devices import Rates
    from nbg_lightning.planning.time import block_flops, head_flops

    device = dataclasses.replace(H100, rates={"bfloat16": Rates(400.0, {"pretraining": 200.0})})
    found = step_time(workload(), PHASE, Cluster(64, 8), device).compute
    by_hand = block_flops(workload(), PHASE) / 400e12 + head_flops(workload(), PHASE) / 200e12
    assert found == pytest.approx(by_hand / 64)
    without = workload(compute_dtype="float32")
    assert step_time(without, PHASE, Cluster(64, 8), device).compute == pytest.approx(
        flops(without, PHASE) / 64 / products(without, device)
    )


def test_on_a_cpu_nothing_hides():
    cpu = device_of("cpu")
    found = step_time(workload(), PHASE, Cluster(2, 2), cpu)
    assert found.total == found.compute + found.communication + found.optimizer


def test_bytes_of_a_step():
    """Two gathers in bfloat16 and one reduction in float32, of all but the own share; copies add up their shards."""
    share = 63 / 64
    found = step_time(workload(), PHASE, Cluster(64, 8), H100)  # 32 windows a rank in 2 micro-batches
    assert micro_batches(workload(), PHASE, 64) == (2, 16)
    assert found.communicated == pytest.approx((2 * 2 * 2 + 4) * SHAPE.num_parameters * share / 1e9)
    inside = step_time(workload(replicate="nodes"), PHASE, Cluster(64, 8), H100)
    gathered = (2 * 2 * 2 + 4) * 7 / 8 + 2 * 4 / 8 * 7 / 8
    assert inside.communicated == pytest.approx(gathered * SHAPE.num_parameters / 1e9)
    assert inside.communication < found.communication / 5  # the links of a node, not the network


def test_heads_are_exchanged_for_tokens():
    """Of 32 layers 20 query heads and 4 key and 4 value heads there, 20 back, in bfloat16, forward and backward,
    less the own part.

    Four ranks have a key and value head each; for five, each of the four is there five times.
    """
    for context, key_heads in ((2, 4), (4, 4), (5, 20)):
        ranks, phase = (40, TrainingPhase("all", 5120, 40 * 5120, 1, 5120)) if context == 5 else (64, PHASE)
        found = step_time(workload(context=context), phase, Cluster(ranks, 8), H100)
        alone = step_time(workload(), phase, Cluster(ranks, 8), H100)
        a_token = SHAPE.num_hidden_layers * (2 * 20 + 2 * key_heads) * SHAPE.head_dim * 2 * 2
        by_hand = a_token * phase.tokens_per_step / ranks * (context - 1) / context / 1e9
        assert found.communicated - alone.communicated == pytest.approx(by_hand)
        assert found.compute - alone.compute == pytest.approx(by_hand / H100.link)


def test_a_window_counts_for_the_ranks_that_share_it():
    """Eight windows a step: 32 ranks are 8 groups of 4, and a micro-batch has the tokens of all four."""
    phase = TrainingPhase("long", 65_536, 8 * 65_536, 1, 65_536)
    with pytest.raises(ValueError, match="32 ranks do not divide the 8 windows"):
        micro_batches(workload(), phase, 32)
    assert micro_batches(workload(context=4), phase, 32) == (1, 1)
    assert micro_batches(workload(context=4), phase, 16) == (1, 2)
    with pytest.raises(ValueError, match="16 groups of 4 ranks do not divide the 8 windows of a step in long"):
        micro_batches(workload(context=4), phase, 64)
    for context, said in (
        (3, "must divide the 20 attention heads: 1, 2, 4, 5, 10, 20"),
        (20, "must divide the 32 ranks"),
    ):
        with pytest.raises(ValueError, match=f"parallel.context is invalid: {context}; it {said}"):
            micro_batches(workload(context=context), phase, 32)
    with pytest.raises(ValueError, match="must divide the windows of 65,536 tokens"):
        micro_batches(workload(context=5), phase, 40)


def test_what_is_communicated_hides_behind_products():
    found = step_time(workload(), PHASE, Cluster(64, 8), H100)
    assert found.total == pytest.approx(max(found.compute, found.communication) + found.optimizer)
    assert found.compute == pytest.approx(flops(workload(), PHASE) / 64 / (989e12 * H100.efficiency))


def test_float8_where_the_device_has_it():
    rowwise = workload(float8="rowwise")
    assert products(rowwise, H100) > 1.5 * products(workload(), H100)
    assert products(rowwise, device_of("a100")) == products(workload(), device_of("a100"))


def test_ranks_must_divide_the_windows():
    with pytest.raises(ValueError, match="7 ranks do not divide the 2,048 windows"):
        step_time(workload(), PHASE, Cluster(7, 8), H100)


def test_an_unknown_device():
    with pytest.raises(
        ValueError, match=r"device is invalid: h10; there are a100, h100, .*cpu, or a file.*\(did you mean"
    ):
        device_of("h10")


def test_an_adapter_saves_the_gradients_of_weights():
    """Two thirds of the products remain, and all of attention; what is reduced is the adapter's."""
    import dataclasses

    plain = workload()
    adapted = dataclasses.replace(plain, trained=Trained(LoRAConfig(rank=8)))
    products_of = SHAPE.flops_per_token(0) * 2 / 3 + 6 * adapted.num_adapter
    attention = SHAPE.flops_per_token(4096) - SHAPE.flops_per_token(0)
    assert flops(adapted, PHASE) == pytest.approx((products_of + attention) * 2**23)
    received = [step_time(work, PHASE, Cluster(64, 8), H100).communicated for work in (plain, adapted)]
    # Two gathers of 2 bytes in each of two micro-batches, and one reduction of 4.
    saved = 4 * SHAPE.num_parameters - (8 + 4) * adapted.num_adapter
    assert received[0] - received[1] == pytest.approx(saved * 63 / 64 / 1e9)


def test_sampling_reads_prompts_once_and_weights_in_each_step():
    """Four prompts of 60 tokens, four answers of 97 to each: on a CPU the products of answers beyond eight add to the reading."""
    import dataclasses

    phase = TrainingPhase("answers", 160, 16 * 160, 1, 160, computed=(4 * 60 + 16 * 96) / (16 * 160), answer=97)
    work = dataclasses.replace(
        workload(compute_dtype="float32"),
        task="GRPO",
        phases=(phase,),
        answer=97,
        answers_per_step=16,
        cache_positions=2**20,
    )
    cpu = dataclasses.replace(device_of("cpu"), decode_bandwidth=10.0)
    size, cache = SHAPE.num_parameters, 2 * SHAPE.layer_passes * SHAPE.num_key_value_heads * SHAPE.head_dim * 2
    product = 2 * size / products(work, cpu)
    for ranks, others in ((1, 8), (2, 0), (4, 0)):
        answers = 16 // ranks
        reading = (4 * size + answers * cache * 97 / 2) / 10e9
        expected = 240 / ranks * product + 97 * (reading + others * product)
        assert step_time(work, phase, Cluster(ranks, ranks), cpu).rollouts == pytest.approx(expected)
    card = dataclasses.replace(H100, decode_bandwidth=None)
    product = 2 * size / products(work, card)
    reading = (4 * size + 16 * cache * 97 / 2) / card.bandwidth / 1e9
    expected = 240 * product + 97 * max(reading, 16 * product)
    assert step_time(work, phase, Cluster(1, 1), card).rollouts == pytest.approx(expected)


def test_muon_multiplies_on_every_rank():
    """A square matrix: three products of 2 n^3 in each of five iterations."""
    import dataclasses

    plain = workload()
    muon = dataclasses.replace(plain, trained=Trained(algorithm="muon"))
    assert muon_flops(plain) == 0
    size = SHAPE.hidden_size
    assert muon_flops(muon) > 5 * 6 * size**3 * SHAPE.num_hidden_layers
    both = [step_time(work, PHASE, Cluster(64, 8), H100).optimizer for work in (plain, muon)]
    assert both[1] > both[0]
