"""The lifecycle of a collector's engine and reward, and the answers it refuses."""

import dataclasses

import pytest

from nbg_lightning.core.create import create_model
from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer, ChatFormat
from nbg_lightning.engines.native import NativeEngine
from nbg_lightning.engines.protocol import Completion, Prompt, Sampling
from nbg_lightning.rl.collector import RolloutCollector, check_trainable
from nbg_lightning.rl.rollouts import Rollout
from nbg_lightning.testing.grpo import GRPO_SHAPE, EvenReward

QUESTION = Question(({"role": "user", "content": "?"},), "1", "s")
SAMPLING = Sampling(max_new_tokens=3, n=2)


@dataclasses.dataclass
class Batch:
    questions: list
    prompts: list


class Silent(ChatFormat):
    """Reads nothing: there is no tokenizer."""

    def read(self, completion):
        return Answer(completion, "", None, "")


def test_it_draws_scores_and_gives_weights_again_when_told():
    reward, given = EvenReward(), []

    class Counting(NativeEngine):
        def sync(self, weights, version):
            given.append(version)
            super().sync(weights, version)

    collector = RolloutCollector(reward, Counting(), deadline=60)
    batch = Batch([QUESTION, QUESTION], [Prompt((5, 6)), Prompt((7,))])
    with pytest.raises(RuntimeError, match="open_engine"):
        collector.collect(batch, Silent(None), SAMPLING, 0)
    collector.open_reward()
    model = create_model(GRPO_SHAPE, seed=0)
    assert collector.open_engine(model, None) is collector.open_engine(model, None)
    rollouts, seconds = collector.collect(batch, Silent(None), SAMPLING, 3)
    assert [[r.score for r in each.results] for each in rollouts] == [
        [EvenReward.of(a.completion.ids) for a in each.answers] for each in rollouts
    ]
    assert seconds.keys() == {"sync", "engine", "reward"}
    again = collector.collect(batch, Silent(None), SAMPLING, 3)
    assert given == [3] and again.rollouts == rollouts
    collector.invalidate_engine_weights()
    collector.collect(batch, Silent(None), SAMPLING, 3)
    assert given == [3, 3]
    collector.close()
    collector.close()
    assert (reward.entered, reward.left) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"ids": ()}, ValueError, "texts and no token ids"),
        ({"log_probs": ()}, ValueError, "no log-probs"),
        ({"log_probs": (float("nan"),)}, ValueError, "log-probs that are not finite"),
        ({"log_probs": (-float("inf"),)}, ValueError, "log-probs that are not finite"),
        ({"weight_version": 1}, RuntimeError, "weights of step 1 in step 2"),
    ],
)
def test_answers_that_cannot_be_trained_on(changes, error, message):
    completion = dataclasses.replace(Completion((1,), (-1.0,), "stop", 0, 0, 2), **changes)

    def of(completion):
        return [Rollout(QUESTION, Prompt((3,)), (Answer(completion, "", None, ""),), ())]

    with pytest.raises(error, match=message):
        check_trainable(of(completion), 2)
    check_trainable(of(dataclasses.replace(completion, finish_reason="error")), 2)  # has no score, is not trained


@pytest.mark.parametrize("deadline", [0, -1.0, float("nan")])
def test_a_deadline_that_nothing_meets(deadline):
    with pytest.raises(ValueError, match=r"rollouts\.deadline is invalid"):
        RolloutCollector(EvenReward(), None, deadline)
