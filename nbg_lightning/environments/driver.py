"""Plays episodes: the next turns of all live episodes are sampled in one batch, and their environments reply concurrently."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from threading import TIMEOUT_MAX
from typing import Any

from nbg_lightning import log, stopping
from nbg_lightning.chat.values import ConversationError
from nbg_lightning.data.question import Question
from nbg_lightning.distributed import gather_objects
from nbg_lightning.engines.chat import Answer, ChatFormat
from nbg_lightning.engines.protocol import Completion, Prompt, Sampling, sample_seed
from nbg_lightning.environments.calls import ReadTurn, read_turn
from nbg_lightning.environments.environment import End, Environment, EpisodeLimits, Opening, Reply, Turn
from nbg_lightning.environments.episode import Episode, joined_completion
from nbg_lightning.environments.segments import History
from nbg_lightning.environments.worker import EnvironmentFailed, EnvironmentServer, EpisodeProcess, LocalEpisode
from nbg_lightning.error_line import first_line

Generate = Callable[[Sequence[Prompt], Sampling, float], list[list[Completion]]]
"""Samples completions within a number of seconds. Collective; a rank may have no prompts."""
_TOGETHER = 0.05  # minimum seconds to wait for all replies, so that the next turns are sampled in one batch
_SHARE = 0.05  # share of the last round's seconds to wait for them, if this is longer
_LOOK = 1.0  # seconds between checks for a stop while waiting for the first reply


@dataclass
class _Live:
    """A live episode."""

    index: tuple[int, int]  # of the question, of the sample
    question: Question
    seed: int
    opened: bool = field(default=False, init=False)
    actor: EpisodeProcess | LocalEpisode | None = field(default=None, init=False)
    history: History | None = field(default=None, init=False)
    tools: tuple[Mapping[str, Any], ...] = field(default=(), init=False)
    opening: int = field(default=0, init=False)  # messages of it
    turn_scores: list[float | None] = field(default_factory=list, init=False)
    counts: list[dict[str, int]] = field(default_factory=lambda: [{}], init=False)  # of the opening, and of each turn
    unreadable: int = field(default=0, init=False)  # in succession
    last: Answer | None = field(default=None, init=False)
    end: End | None = field(default=None, init=False)
    score: float | None = field(default=None, init=False)
    detail: str = field(default="", init=False)
    version: int = field(default=0, init=False)

    def finish(self, end: End, detail: str = "") -> None:
        if self.end is None:
            self.end, self.detail = end, detail

    def count(self, name: str, number: int = 1) -> None:
        self.counts[-1][name] = self.counts[-1].get(name, 0) + number


class EpisodeDriver:
    """Plays the episodes of many questions on any engine, in rounds over those whose environment has replied.

    Each round samples the next turn of each of them. A slow environment joins a later round, and does not block others. The
    sampled ids depend on seed, question, sample and turn, not on the round.

    Args:
        environment: the environment, copied for each episode.
        window: maximum tokens of the model.

    Raises:
        ValueError: on opening: an environment that cannot be sent to its processes.
    """

    def __init__(self, environment: Environment, window: int | None = None):
        self.environment, self.window = environment, window
        self._server: EnvironmentServer | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._closing: list[Future[None]] = []

    @property
    def limits(self) -> EpisodeLimits:
        """Limits of an episode."""
        return self.environment.limits

    def __enter__(self) -> EpisodeDriver:
        if self.limits.isolated and self._server is None:
            self._server = EnvironmentServer(self.environment)
        return self

    def __exit__(self, *_: object) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()  # when all episodes are closed
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def play(
        self,
        questions: Sequence[Question],
        prompts: Sequence[Prompt],
        format: ChatFormat,
        sampling: Sampling,
        generate: Generate,
        deadline: float,
    ) -> list[tuple[Episode, ...]] | None:
        """Play ``sampling.n`` episodes of each question. Collective.

        Args:
            questions: questions to open environments with.
            prompts: prompts of the questions, whose seeds determine the samples.
            format: the chat format; it must have a tokenizer.
            sampling: sampling settings of a turn, with its ``max_new_tokens``; ``seconds`` limits the whole episode.
            generate: calls the engine.
            deadline: seconds for everything, once the last call's environments are closed. Episodes that are live then have
                no score.

        Returns:
            The episodes of each question, in order; None, on all ranks, if a signal requests a stop.
        """
        live = [
            _Live((place, sample), question, sample_seed(sampling, prompt, sample))
            for place, (question, prompt) in enumerate(zip(questions, prompts, strict=True))
            for sample in range(sampling.n)
        ]
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.limits.workers, thread_name_prefix="environment")
        # The last episodes hold places, files and threads, and this call's deadline is not theirs.
        wait(self._closing, min(deadline, TIMEOUT_MAX))
        self._restart_server()
        with closing(_Rounds(self, live, format, replace(sampling, n=1), generate, self._threads)) as rounds:
            finished = rounds.run(deadline)
        if not finished:
            return None
        episodes = iter([_episode(each) for each in live])
        return [tuple(next(episodes) for _ in range(sampling.n)) for _ in questions]

    def _restart_server(self) -> None:
        """Start the environment's process again if it has ended, so that only its open episodes have failed."""
        if self._server is not None and (reason := self._server.ended_by) is not None:
            what = f"the process of {type(self.environment).__name__} has ended by {reason}"
            log.warn(f"{what}, its open episodes without a score; starting another (is there enough memory?)")
            self._server.close()
            self._server = EnvironmentServer(self.environment)

    def actor(self) -> EpisodeProcess | LocalEpisode:
        """A fresh copy of the environment.

        Raises:
            EnvironmentFailed: it cannot be created.
        """
        if not self.limits.isolated:
            return LocalEpisode(self.environment)
        if self._server is None:
            raise RuntimeError("the driver is not open; use it in a with block")
        return self._server.episode()

    def close_actors(self, live: Sequence[_Live], threads: ThreadPoolExecutor) -> None:
        """Close the environments of episodes while the caller goes on; the next call of `play` waits for it."""
        self._closing = [each for each in self._closing if not each.done()]
        self._closing += [threads.submit(_close, each) for each in live if each.actor is not None]

    def prepare_actors(self, number: int) -> None:
        """Start the processes that the next episodes need at once, while the engine generates."""
        if self._server is not None:
            self._server.fork_ahead(number)


class _Rounds:
    """The rounds of one call of `EpisodeDriver.play`."""

    def __init__(
        self,
        driver: EpisodeDriver,
        live: list[_Live],
        format: ChatFormat,
        sampling: Sampling,
        generate: Generate,
        threads: ThreadPoolExecutor,
    ):
        self.driver, self.live, self.format = driver, live, format
        self.sampling, self.generate, self.threads = sampling, generate, threads
        self.limits = driver.limits
        bounds = [each for each in (driver.window, self.limits.max_tokens) if each is not None]
        self.most = min(bounds, default=None)
        self._waiting: dict[Future[Opening | Reply], _Live] = {}
        self._passed = "the rollout deadline passed"
        self._together = 5 * _TOGETHER  # processes for all episodes begin

    def run(self, deadline: float) -> bool:
        """Play all episodes to their ends; False if a signal requests a stop."""
        if self.sampling.seconds is not None and self.sampling.seconds < deadline:
            deadline, self._passed = self.sampling.seconds, "its question's deadline passed"
        end = time.monotonic() + deadline
        while True:
            self._open_more()
            ready = self._ready(end)
            live = any(each.end is None for each in self.live)
            states = gather_objects((live, stopping.stop_asked()))
            if any(stop for _, stop in states):
                return False
            if not any(live for live, _ in states):
                return True
            left = max(0.0, end - time.monotonic())
            prompts = [Prompt(each.history.ids, _turn_seed(each)) for each in ready if each.history is not None]
            if all(each.opened for each in self.live):
                self.driver.prepare_actors(min(len(self.live), self.limits.open_at_once or len(self.live)))
            begin = time.monotonic()
            completions = self.generate(prompts, self.sampling, left)
            self._together = max(_TOGETHER, _SHARE * (time.monotonic() - begin))
            for each, found in zip(ready, completions, strict=True):
                read = self._drawn(each, found[0])
                if read is not None:
                    self._waiting[self.threads.submit(self._step, each, read)] = each

    def close(self) -> None:
        """Have the environments closed while the caller goes on; those that are still computing are killed."""
        for each in self._waiting.values():
            if each.actor is not None:
                each.actor.interrupt()
        for future in self._waiting:
            future.cancel()
        wait(self._waiting)
        self.driver.close_actors(self.live, self.threads)

    def _open_more(self) -> None:
        """Open as many episodes as there are free places."""
        opened = [each for each in self.live if each.opened]
        over = [each for each in opened if each.end is not None and each.actor is not None]
        playing = sum(each.end is None for each in opened)
        room = len(self.live) if self.limits.open_at_once is None else self.limits.open_at_once - playing
        for each in islice((each for each in self.live if not each.opened and each.end is None), room):
            each.opened = True
            self._waiting[self.threads.submit(self._open, each, over.pop() if over else None)] = each

    def _ready(self, end: float) -> list[_Live]:
        """Wait for replies, and return the episodes whose next turn can be sampled; after the deadline none, when all are
        over.
        """
        left = max(0.0, end - time.monotonic())
        done = wait(self._waiting, timeout=min(self._together, left)).done
        if not done:
            done = wait(self._waiting, timeout=min(_LOOK, left), return_when=FIRST_COMPLETED).done
        ready = []
        for future in sorted(done, key=lambda each: self._waiting[each].index):
            each = self._waiting.pop(future)
            self._take(each, future)
            if each.end is None:
                ready.append(each)
        if end <= time.monotonic():
            for each in self.live:
                each.finish(End.TIMEOUT, f"{self._passed} before the episode's end")
            return []
        return ready

    # -- in threads ----------------------------------------------------------------------------------------------------

    def _open(self, each: _Live, over: _Live | None) -> Opening:
        if over is not None:
            _close(over)
        each.actor = self.driver.actor()
        return each.actor.reset(each.question, self.limits.step_seconds)

    def _step(self, each: _Live, read: ReadTurn) -> Reply:
        assert each.actor is not None
        if read.problem is None:
            return each.actor.step(read.turn, self.limits.step_seconds)
        return Reply(({"role": "tool", "content": f"error: {read.problem}"},))

    # -- of one episode ------------------------------------------------------------------------------------------------

    def _take(self, each: _Live, future: Future[Any]) -> None:
        """Process an opening or a reply."""
        try:
            said = future.result()
            self._open_history(each, said) if isinstance(said, Opening) else self._reply(each, said)
        except EnvironmentFailed as error:
            each.finish(End.TIMEOUT if error.timeout else End.ERROR, str(error))
        except (ConversationError, ValueError, TypeError, KeyError, AttributeError) as error:
            name = type(self.driver.environment).__name__
            each.finish(End.ERROR, f"{name} gave messages that the format cannot render: {first_line(error)}")
        if each.history is not None and self.most is not None and len(each.history.ids) >= self.most:
            said = f"{len(each.history.ids):,} tokens of {self.most:,}"
            if each.turn_scores:
                each.finish(End.MAX_TOKENS, f"the episode has {said}")
            else:  # none of its tokens are the model's
                each.finish(End.ERROR, f"the opening, with the tools, has {said} that an episode may have")

    def _open_history(self, each: _Live, opening: Opening) -> None:
        renderer = self.format.renderer
        if renderer is None:
            raise ValueError("environments need token ids; give the tokenizer of the model")
        each.tools = tuple(opening.tools)
        each.history = History(renderer, self._cut(each, opening.turns), opening.tools)

    def _reply(self, each: _Live, reply: Reply) -> None:
        for name, number in reply.counts.items():
            each.count(name, number)
        if reply.status != "ok":
            return each.finish(End.TIMEOUT if reply.status == "timeout" else End.ERROR, reply.detail or "it failed")
        if each.turn_scores:
            each.turn_scores[-1] = reply.score
        if reply.done:
            each.score, called = reply.score, bool(each.history and each.history.called)
            return each.finish(End.DONE if called else End.ANSWERED, reply.detail)
        self._go_on(each, reply.turns)

    def _go_on(self, each: _Live, turns: Sequence[Turn]) -> None:
        if len(each.turn_scores) >= self.limits.max_turns:
            return each.finish(End.MAX_TURNS, f"the episode was not done in {self.limits.max_turns} turns")
        if not turns:
            return each.finish(End.ERROR, "the environment gave no message, and was not done")
        assert each.history is not None
        if not each.history.add_reply(self._cut(each, turns)):
            each.count("unserialisable")

    def _drawn(self, each: _Live, completion: Completion) -> ReadTurn | None:
        """Process a sampled turn, and pass it to the environment if it needs a reply."""
        assert each.history is not None
        if completion.finish_reason == "deadline":
            each.finish(End.TIMEOUT, f"{self._passed} before the episode's end")
            return None
        if completion.finish_reason == "error" or not completion.ids:
            each.finish(End.ERROR, f"engine: {completion.error or 'it gave no token ids'}")
            return None
        answer = self.format.read(completion)
        read = read_turn(answer)
        each.version, each.last = completion.weight_version, answer
        each.history.add_drawn(completion, read.turn)
        each.turn_scores.append(None)
        each.counts.append({})
        if completion.finish_reason == "length":
            each.finish(End.MAX_TOKENS, f"turn {len(each.turn_scores)} was cut at its limit")
            return None
        each.unreadable = 0 if read.problem is None else each.unreadable + 1
        if read.problem is not None:
            each.count("unreadable_calls")
        if each.unreadable >= self.limits.unreadable_calls:
            each.finish(End.UNREADABLE_CALL, read.problem or "")
            return None
        return read

    def _cut(self, each: _Live, turns: Sequence[Turn]) -> list[dict[str, Any]]:
        """Messages of the environment, truncated to the limit."""
        found = []
        for turn in turns:
            content, most = turn["content"], self.limits.turn_characters
            if not isinstance(content, str):
                raise TypeError(f"a {turn['role']} message has a {type(content).__name__} as its content; give a text")
            if len(content) > most:
                each.count("cut_results")
                content = f"{content[:most]}\n(cut: {most:,} of {len(content):,} characters)"
            found.append({**turn, "content": content})
        return found


def _turn_seed(each: _Live) -> int:
    """The seed of the next turn, from the sample's seed and the turn's number."""
    digest = hashlib.blake2b(f"{each.seed}|{len(each.turn_scores)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _close(each: _Live) -> None:
    actor, each.actor = each.actor, None
    if actor is not None:
        actor.close()


def _episode(each: _Live) -> Episode:
    segments = () if each.history is None else each.history.segments
    messages = () if each.history is None else tuple(each.history.messages)
    end = each.end or End.ERROR
    completion = joined_completion(segments, end, each.index, each.version, each.detail)
    transcript = "\n\n".join(f"[{message['role']}] {_shown(message)}" for message in messages)
    return Episode(
        completion,
        transcript,
        each.last.reasoning if each.last else None,
        each.last.final if each.last else None,
        end,
        segments,
        messages,
        each.tools,
        tuple(each.turn_scores),
        each.score,
        each.detail,
        dict(sum(map(Counter, each.counts), Counter())),
        tuple(each.counts[1:]),
    )


def _shown(message: Mapping[str, Any]) -> str:
    calls = "".join(
        f"\n{call['function']['name']}({call['function']['arguments']})" for call in message.get("tool_calls", ())
    )
    return f"{message['content']}{calls}"
