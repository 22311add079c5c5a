"""What episodes cost beside their generation: the driver with an environment in processes of its own, over the same turns by the
engine alone.

    OMP_NUM_THREADS=1 python benchmarks/performance/episodes.py
    OMP_NUM_THREADS=1 python benchmarks/performance/episodes.py --preset small   # 29 M parameters

Episodes of three turns by a model of random weights, with as many tokens in each turn. One side plays them; the other draws
the same turns from the same ids, a whole round at a time. Both in processor time, so that a busy machine changes little, with
that of the environments' processes (``environment_milliseconds_of_a_turn``, with the start and end of each process).
``processor_milliseconds_of_a_turn`` is what the driver and the environment add to a turn, on any model.
``slow_tool`` counts the turns that are drawn while the tool of one episode takes twice as long as all turns together.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from echo import TURNS, Echo
from paired import paired_seconds, ratio, write_result

from nbg_lightning.core import create_model, preset
from nbg_lightning.data.question import Question
from nbg_lightning.data.tokenizer import Tokenizer, train_bpe
from nbg_lightning.engines import NativeEngine, Prompt, Sampling
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.environments import EpisodeDriver

QUESTION = Question(({"role": "user", "content": "What do 4 pens cost?"},))


def processor_seconds() -> float:
    """Of this process, of the environments' server, and of the episodes' processes that ended."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime + environment_seconds()


def environment_seconds() -> float:
    """Of this process's children, with their children that ended."""
    children = [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in children]
    return sum(int(ticks) for stat in stats for ticks in stat[11:15]) / os.sysconf("SC_CLK_TCK")


class Recorder:
    """An engine that ends each turn at its last token, and notes what was drawn from what, and when."""

    def __init__(self, engine: NativeEngine, stop: int):
        self.engine, self.stop = engine, stop
        self.rounds: list[tuple[float, Sequence[Prompt]]] = []

    def __call__(self, prompts: Sequence[Prompt], sampling: Sampling, seconds: float) -> list[list[Completion]]:
        drawn = self.engine.generate(prompts, sampling)
        if prompts:
            self.rounds.append((time.perf_counter(), prompts))
        return [[replace(c, ids=(*c.ids[:-1], self.stop), finish_reason="stop") for c in group] for group in drawn]


class Episodes:
    """So many episodes, and the turns of one play of them."""

    def __init__(self, options: argparse.Namespace, engine: NativeEngine, tokenizer: Tokenizer, driver: EpisodeDriver):
        self.format, self.driver, self.engine = ChatFormat(tokenizer, "nanbeige"), driver, engine
        self.sampling = Sampling(options.new_tokens, n=1)
        self.stop, self.number = self.format.stop_ids[-1], options.episodes

    def play(self, questions: Sequence[Question] | None = None) -> Recorder:
        """Play them; what was drawn."""
        asked = [QUESTION] * self.number if questions is None else questions
        prompts = [self.format.prompt(list(each.messages), None, seed=n) for n, each in enumerate(asked)]
        recorder = Recorder(self.engine, self.stop)
        played = self.driver.play(asked, prompts, self.format, self.sampling, recorder, 600.0)
        assert played is not None and all(own[0].num_turns == TURNS for own in played), played[0][0].detail
        return recorder

    def before_a_slow_tool(self) -> dict[str, Any]:
        """Turns that are drawn before the tool of one episode has replied for the first time."""
        begin = time.perf_counter()
        seconds = 2 * (self.play().rounds[-1][0] - begin)
        begin = time.perf_counter()
        recorder = self.play([replace(QUESTION, data={"seconds": seconds}), *[QUESTION] * (self.number - 1)])
        turns = sum(len(prompts) for end, prompts in recorder.rounds if end < begin + seconds)
        return {
            "seconds_of_the_tool": seconds,
            "turns_drawn_before": turns,
            "turns_of_others": TURNS * (self.number - 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--episodes", type=int, default=48)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = "What do 4 pens cost? user assistant system tool This was turn 1."
        tokenizer = Tokenizer(train_bpe([text] * 3, 300, Path(folder) / "tokenizer"))
        shape = preset(options.preset)
        with EpisodeDriver(Echo(), shape.max_position_embeddings) as driver:
            episodes = Episodes(options, NativeEngine(create_model(shape)), tokenizer, driver)
            drawn = episodes.play().rounds
            by_turn = sorted((prompt for _, prompts in drawn for prompt in prompts), key=lambda each: len(each.ids))
            rounds = [by_turn[n : n + options.episodes] for n in range(0, len(by_turn), options.episodes)]

            def alone() -> None:
                for prompts in rounds:
                    episodes.engine.generate(prompts, episodes.sampling)

            sides = {"episodes": episodes.play, "engine": alone}
            before = environment_seconds()
            seconds = paired_seconds(sides, options.repeats, processor_seconds)
            environments = (environment_seconds() - before) / (options.repeats + 1)
            slow = episodes.before_a_slow_tool()
    added = [one - other for one, other in zip(seconds["episodes"], seconds["engine"], strict=True)]
    turns = TURNS * options.episodes
    results = {
        "processor_seconds": {name: statistics.median(each) for name, each in seconds.items()},
        "episodes_over_engine": ratio(seconds["episodes"], seconds["engine"]),
        "processor_milliseconds_of_a_turn": 1000 * statistics.median(added) / turns,
        "environment_milliseconds_of_a_turn": 1000 * environments / turns,
        "rounds": len(drawn),
        "slow_tool": slow,
    }
    write_result("episodes_small" if options.preset == "small" else "episodes", vars(options), results)


if __name__ == "__main__":
    main()
