"""Training with two real vLLM servers: pushed weights, kills, and restarted servers. Starting them takes some 30 s."""

import threading
from pathlib import Path

import httpx
import lightning.pytorch as pl
import pytest
import torch

from nbg_lightning.core import create_model, preset
from nbg_lightning.engines import NativeEngine, Probe, Prompt, Sampling, ServerPool, weight_stream
from nbg_lightning.modules.optimizer import AdamWConfig
from nbg_lightning.rl.rollout_settings import RolloutSettings
from nbg_lightning.testing import run_ranks
from nbg_lightning.testing.grpo import small_tokenizer, train_small_grpo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
]
SHAPE = preset("nano", max_position_embeddings=256)
GREEDY = Sampling(max_new_tokens=16, temperature=0)
IDS = tuple(range(5, 60))
PROMPTS = [Prompt(tuple(range(5, 5 + length))) for length in (3, 40, 9, 90)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return small_tokenizer(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def servers(tmp_path_factory, vllm_server):
    """Two servers that can be pushed to; their own weights are others than any that is trained."""
    from nbg_lightning.core.hf_folder import save_hugging_face
    from nbg_lightning.data.tokenizer import Tokenizer, train_bpe

    root = tmp_path_factory.mktemp("served")
    train_bpe(["the quick brown fox jumps over the lazy dog " * 3] * 20, 300, root / "tokenizer")
    save_hugging_face(
        create_model(SHAPE, seed=99), root / "model", Tokenizer(root / "tokenizer"), dtype="float32", verify=False
    )
    arguments = ["--max-model-len", "256", "--logprobs-mode", "processed_logprobs"]
    arguments += ["--hf-overrides", '{"tie_word_embeddings": false}']
    started = [vllm_server(root / "model", *arguments, VLLM_SERVER_DEV_MODE="1") for _ in range(2)]
    try:
        yield [server.wait() for server in started]
    finally:
        for server in started:
            server.stop()


@pytest.fixture
def pool(servers):
    pool = ServerPool([server.url for server in servers], dtype="float32")
    pool.attach(create_model(SHAPE, seed=1))
    with pool:
        yield pool
    pool.close()


def probe_of(model):
    return Probe(IDS, tuple(NativeEngine(model).score([IDS])[0]))


def assert_drawn_by(model, version, found, prompts=PROMPTS):
    native = NativeEngine(model)
    for group, other in zip(found, native.generate(prompts, GREEDY), strict=True):
        for one, two in zip(group, other, strict=True):
            assert (one.ids, one.prompt_index, one.weight_version) == (two.ids, two.prompt_index, version)
            assert one.log_probs == pytest.approx(two.log_probs, abs=1e-4)


def test_a_hundred_pushes_answer_with_the_weights_that_were_pushed(servers, pool):
    models = [create_model(SHAPE, seed=seed) for seed in (1, 2)]
    for version in range(100):
        pool.sync(weight_stream(models[version % 2]), version)
        pool.check(probe_of(models[version % 2]))
        if version % 10 == 0:
            assert_drawn_by(models[0], version, pool.generate(PROMPTS, GREEDY, 60))
    assert len(list(pool._transfer.folder.iterdir())) <= pool.kept_weights
    with pytest.raises(RuntimeError, match="differ from the trainer's"):
        pool.check(probe_of(create_model(SHAPE, seed=5)))


def test_a_server_that_was_started_again_is_pushed_to_before_it_answers(servers, pool):
    model = create_model(SHAPE, seed=3)
    pool.sync(weight_stream(model), 7)
    pool.check(probe_of(model))
    httpx.post(f"{servers[0].root}/update_weight_version", json={"new_version": "default"})  # as after a start
    assert_drawn_by(model, 7, pool.generate(PROMPTS, GREEDY, 60))


def test_a_server_that_dies_in_mid_rollout_loses_no_question_and_comes_back(servers, pool):
    model = create_model(SHAPE, seed=4)
    pool.sync(weight_stream(model), 3)
    pool.check(probe_of(model))
    many = [Prompt((5 + n % 200, 6, 7 + n // 200)) for n in range(300)]
    killer = threading.Timer(0.5, servers[1].kill)
    killer.start()
    found = pool.generate(many, GREEDY, 300)
    killer.join()
    assert_drawn_by(model, 3, found, many)
    other = create_model(SHAPE, seed=6)
    pool.sync(weight_stream(other), 4)  # while it is dead
    assert_drawn_by(other, 4, pool.generate(PROMPTS, GREEDY, 60))
    servers[1].start()
    servers[1].wait()
    assert_drawn_by(other, 4, pool.generate(PROMPTS, GREEDY, 60))
    assert all(server.lives for server in pool._servers)


@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_a_server_that_dies_in_mid_push_answers_with_no_older_weights(servers, pool, monkeypatch, seconds):
    """It is killed before it reloads, and while it does."""
    old, new = (create_model(SHAPE, seed=seed) for seed in (7, 8))
    pool.sync(weight_stream(old), 5)
    give = pool._transfer.give

    def killed(source, name, server):
        if server.url == servers[1].url:
            killer = threading.Timer(seconds, servers[1].kill)
            killer.start()
            killer.join(0 if seconds else None)
        give(source, name, server)

    with monkeypatch.context() as changed:
        changed.setattr(pool._transfer, "give", killed)
        pool.sync(weight_stream(new), 6)
    pool.check(probe_of(new))
    assert_drawn_by(new, 6, pool.generate(PROMPTS, GREEDY, 60))
    assert [server.lives for server in pool._servers] == [True, False]
    servers[1].start()
    servers[1].wait()
    assert_drawn_by(new, 6, pool.generate(PROMPTS, GREEDY, 60))
    assert all(server.lives for server in pool._servers)


@pytest.mark.parametrize("k", [0, 1])
def test_training_goes_on_when_one_of_two_servers_dies(servers, tokenizer, tmp_path, k):
    """No step is trained on other weights than its own: engine and trainer agree before and after."""
    pool = ServerPool([server.url for server in servers], dtype="float32")

    class Kill(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 2:
                servers[0].kill()

    options = {"core": SHAPE, "engine": pool, "rollouts": RolloutSettings(max_staleness=k)}
    run = train_small_grpo(tmp_path, tokenizer=tokenizer, steps=5, module_options=options, callbacks=[Kill()])
    pool.close()
    try:
        versions = [{a.completion.weight_version for r in step for a in r.answers} for step in run.rollouts]
        assert versions == [{max(0, step - k)} for step in range(5)]
        assert run.column("rollout/errors") == [0.0] * 5
        if k == 0:
            assert max(run.column("policy/mismatch_kl")) < 1e-6
    finally:
        servers[0].start()
        servers[0].wait()


def train_with_servers(folder, tokenizer, urls, devices, k):
    pool = ServerPool(urls, dtype="float32")
    # With a large eps AdamW's update is proportional to the gradient, and does not make signs of its rounding.
    options = {"core": SHAPE, "engine": pool, "optimizer": AdamWConfig(lr=1.0, eps=1.0, weight_decay=0.0)}
    options["rollouts"] = RolloutSettings(max_staleness=k)
    place = Path(folder) / f"ranks-{devices}"
    run = train_small_grpo(place, tokenizer=tokenizer, devices=devices, steps=4, module_options=options)
    asked = [server.url for server in pool._all[torch.distributed.get_rank() if devices > 1 else 0 :: devices]]
    pool.close()
    versions = [{a.completion.weight_version for r in step for a in r.answers} for step in run.rollouts]
    return {"scores": run.scores, "weights": run.weights, "versions": versions, "asked": asked, "metrics": run.metrics}


@pytest.mark.parametrize("k", [0, 1])
def test_two_ranks_with_two_servers_train_as_one_rank_does(servers, tokenizer, tmp_path, k):
    """Each rank has a server of its own: samples and scores are the same, and so are weights but for rounding."""
    urls = [server.url for server in servers]
    one = train_with_servers(tmp_path, tokenizer, urls, 1, k)
    ranks = run_ranks(train_with_servers, 2, tmp_path, tokenizer, urls, 2, k, folder=tmp_path)
    assert [rank["asked"] for rank in ranks] == [[url] for url in urls]
    for rank in ranks:
        assert rank["versions"] == one["versions"] == [{max(0, step - k)} for step in range(4)]
        assert [step["rollout/errors"] for step in rank["metrics"]] == [0.0] * 4
    together = [first | second for first, second in zip(*(rank["scores"] for rank in ranks), strict=True)]
    assert together == one["scores"]
    begun = create_model(SHAPE, seed=1)
    moved = max((one["weights"][name] - weight).abs().max() for name, weight in begun.named_parameters())
    assert moved > 1e-3  # else the next lines say nothing
    for name, weight in one["weights"].items():
        for rank in ranks:
            torch.testing.assert_close(rank["weights"][name], weight, rtol=0, atol=1e-5, msg=name)


def test_what_cannot_be_trained_with_is_refused_in_one_line(servers, tmp_path):
    url = servers[0].url
    cases = [
        (ServerPool([url]), dict(vocab_size=600), ValueError, "serves a model of another vocabulary"),
        (ServerPool(["http://127.0.0.1:1/v1"]), {}, ConnectionError, "no server answers"),
    ]
    for pool, changes, error, message in cases:
        pool.attach(create_model(preset("nano", max_position_embeddings=256, **changes)))
        with pytest.raises(error, match=message):
            pool.__enter__()
        pool.close()
    pool = ServerPool([url], folder="/proc/nowhere")
    pool.attach(create_model(SHAPE, seed=1))
    with pytest.raises(ValueError, match="folder is invalid: /proc/nowhere cannot be written"):
        pool.__enter__()
    pool.close()
