"""The server engine against a local server that fails in every way; tests/integration uses a real one."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nbg_lightning.data.tokenizer import Tokenizer, train_bpe
from nbg_lightning.engines import Prompt, Sampling, ServerEngine, TokenScore
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.evaluation import Arithmetic, Suite
from nbg_lightning.evaluation.live import PROBE, run_on_server
from nbg_lightning.evaluation.tasks.questions import Questions
from nbg_lightning.testing.benchmarks import write_rows

SAMPLING = Sampling(max_new_tokens=4, n=2)


def well_formed(body):
    """Continues 1, 2, 3 by 4, 5 (from its last id), so that a shifted answer shows."""
    first = body["prompt"][-1] * 10
    ids = [first, first + 1]
    choice = {
        "index": 0,
        "text": "text",
        "finish_reason": "length",
        "token_ids": ids,
        "logprobs": {"tokens": ["a", "b"], "token_logprobs": [-0.5, -float(body["seed"] % 7)]},
    }
    return {"id": "x", "choices": [choice]}


class Stub:
    """A server whose behaviour is a function of the request's body and the number of times it has come."""

    def __init__(self):
        self.behave = lambda handler, body, tries: handler.answer(200, well_formed(body))
        self.seen, self.bodies, self.headers = Counter(), [], []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, content, headers=()):
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self):
                self.answer(200, {"data": [{"id": "the-model"}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                key = json.dumps([body.get("prompt"), body.get("messages"), body.get("seed")])
                with stub.lock:
                    stub.seen[key] += 1
                    tries = stub.seen[key]
                    stub.bodies.append((self.path, body))
                    stub.headers.append(dict(self.headers))
                    stub.at_once += 1
                    stub.most_at_once = max(stub.most_at_once, stub.at_once)
                try:
                    stub.behave(self, body, tries)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client has given up
                finally:
                    with stub.lock:
                        stub.at_once -= 1

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def stub():
    stub = Stub()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


def engine(stub, **settings):
    return ServerEngine(stub.url, **{"pause": 0.01, "retries": 2, **settings})


PROMPTS = [Prompt((1, index)) for index in range(1, 9)]


def assert_right(results, prompts=PROMPTS):
    for index, (prompt, group) in enumerate(zip(prompts, results, strict=True)):
        for sample, completion in enumerate(group):
            assert (completion.prompt_index, completion.sample_index) == (index, sample)
            assert completion.ids == (prompt.ids[-1] * 10, prompt.ids[-1] * 10 + 1)
            assert completion.finish_reason == "length"


def test_ids_go_in_and_come_out_in_order_however_slow_each_is(stub):
    def behave(handler, body, tries):
        time.sleep(0.05 / body["prompt"][-1])  # the first prompts are answered last
        handler.answer(200, well_formed(body))

    stub.behave = behave
    with engine(stub, weight_version=4, api_key="secret") as opened:
        results = opened.generate(PROMPTS, Sampling(max_new_tokens=4, n=2, stop_ids=(7,), stop_strings=("x",), top_k=9))
    assert_right(results)
    assert {c.weight_version for g in results for c in g} == {4}
    path, body = stub.bodies[0]
    assert path == "/v1/completions"
    assert (body["model"], body["stop_token_ids"], body["stop"], body["top_k"]) == ("the-model", [7], ["x"], 9)
    assert stub.headers[0]["Authorization"] == "Bearer secret"
    assert len({body["seed"] for _, body in stub.bodies}) == 16


def test_no_more_requests_at_once_than_allowed(stub):
    def behave(handler, body, tries):
        time.sleep(0.02)
        handler.answer(200, well_formed(body))

    stub.behave = behave
    with engine(stub, concurrency=3) as opened:
        assert_right(opened.generate(PROMPTS, SAMPLING))
    assert stub.most_at_once == 3


def cut_short(handler, body):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


FAILURES = {
    "500": lambda handler, body: handler.answer(500, {"error": "boom"}),
    "503": lambda handler, body: handler.answer(503, b"", [("Retry-After", "0.02")]),
    "429 with a date": lambda handler, body: handler.answer(
        429, b"", [("Retry-After", "Wed, 21 Oct 2026 07:28:00 GMT")]
    ),
    "not JSON": lambda handler, body: handler.answer(200, b"<html>oops</html>"),
    "another JSON": lambda handler, body: handler.answer(200, [1]),
    "no choices": lambda handler, body: handler.answer(200, {"choices": []}),
    "two choices": lambda handler, body: handler.answer(200, {"choices": well_formed(body)["choices"] * 2}),
    "null choice": lambda handler, body: handler.answer(200, {"choices": [None]}),
    "too few log-probs": lambda handler, body: handler.answer(
        200, {"choices": [{**well_formed(body)["choices"][0], "logprobs": {"token_logprobs": [-1.0]}}]}
    ),
    "null log-probs": lambda handler, body: handler.answer(
        200, {"choices": [{**well_formed(body)["choices"][0], "logprobs": None}]}
    ),
    "cut short": cut_short,
    "closed": lambda handler, body: setattr(handler, "close_connection", True),
    "silent": lambda handler, body: time.sleep(0.6),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_that_passes_is_not_seen(stub, failure):
    stub.behave = lambda handler, body, tries: (
        FAILURES[failure](handler, body) if tries == 1 else handler.answer(200, well_formed(body))
    )
    with engine(stub, request_timeout=0.3) as opened:
        assert_right(opened.generate(PROMPTS, SAMPLING))


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_that_stays_is_an_error_in_its_place(stub, failure):
    stub.behave = lambda handler, body, tries: (
        FAILURES[failure](handler, body) if body["prompt"][-1] == 3 else handler.answer(200, well_formed(body))
    )
    with engine(stub, retries=1, request_timeout=0.3) as opened:
        results = opened.generate(PROMPTS, SAMPLING)
    broken = results.pop(2)
    for sample, completion in enumerate(broken):
        assert (completion.finish_reason, completion.ids, completion.log_probs) == ("error", (), ())
        assert (completion.prompt_index, completion.sample_index) == (2, sample)
        assert "(tried 2 times)" in completion.error
        assert "\n" not in completion.error
    for group in results:
        assert all(completion.finish_reason == "length" for completion in group)


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (400, b"prompt is too long", "HTTP 400: prompt is too long"),
        (401, b"", "HTTP 401"),
        (200, {"choices": [{"finish_reason": "length", "text": "x"}]}, "no token ids"),
        (200, {"choices": [{"finish_reason": "content_filter", "text": "x"}]}, "content_filter"),
        (
            200,
            b'{"choices": [{"finish_reason": "stop", "token_ids": [1], "logprobs": {"token_logprobs": [NaN]}}]}',
            "not finite",
        ),
    ],
)
def test_what_another_try_would_repeat_is_not_tried_again(stub, status, content, message):
    stub.behave = lambda handler, body, tries: handler.answer(status, content)
    with engine(stub) as opened:
        [[completion]] = opened.generate(PROMPTS[:1], Sampling(max_new_tokens=4))
    assert completion.finish_reason == "error"
    assert message in completion.error
    assert sum(stub.seen.values()) == 1


def drip(handler, body, tries):
    """One byte after the other, each in time, together for ever."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.02)


@pytest.mark.parametrize("behave", [drip, lambda handler, body, tries: time.sleep(3)], ids=["drip", "silent"])
def test_the_deadline_holds_whatever_the_server_does(stub, behave):
    server_is_done = threading.Event()

    def some(handler, body, tries):
        if body["prompt"][-1] <= 2:
            return handler.answer(200, well_formed(body))
        behave(handler, body, tries)
        server_is_done.set()

    stub.behave = some
    with engine(stub, concurrency=4) as opened:
        results = opened.generate(PROMPTS, SAMPLING, deadline=0.4)
        assert not server_is_done.is_set()
    assert_right(results[:2], PROMPTS[:2])
    assert {c.finish_reason for group in results[2:] for c in group} == {"deadline"}


def test_one_try_has_a_limit_too(stub):
    server_is_done = threading.Event()

    def dripping(handler, body, tries):
        drip(handler, body, tries)
        server_is_done.set()

    stub.behave = dripping
    with engine(stub, retries=0, request_timeout=0.2) as opened:
        [[completion]] = opened.generate(PROMPTS[:1], Sampling())
        assert not server_is_done.is_set()
    assert completion.finish_reason == "error"
    assert "did not end in time" in completion.error


def test_retries_stop_at_the_deadline(stub):
    stub.behave = lambda handler, body, tries: handler.answer(503, b"", [("Retry-After", "20")])
    with engine(stub) as opened:
        begin = time.monotonic()
        [[completion]] = opened.generate(PROMPTS[:1], Sampling(), deadline=0.5)
        assert time.monotonic() - begin < 20  # what the server asks for
    assert completion.finish_reason == "deadline"
    assert "503" in completion.error


@pytest.mark.parametrize(
    ("interface", "path", "choice"),
    [
        ("text", "/v1/completions", {"text": " world", "finish_reason": "stop"}),
        ("chat", "/v1/chat/completions", {"message": {"content": " world"}, "finish_reason": "stop"}),
    ],
)
def test_text_interfaces_give_text_and_neither_ids_nor_log_probs(stub, interface, path, choice):
    stub.behave = lambda handler, body, tries: handler.answer(200, {"choices": [choice]})
    with engine(stub, interface=interface) as opened:
        [[said], [mute]] = opened.generate([Prompt((), text="hello"), Prompt((1,))], Sampling(stop_strings=("x",)))
        assert (said.text, said.ids, said.log_probs, said.finish_reason) == (" world", (), (), "stop")
        assert mute.finish_reason == "error"
        assert "needs Prompt.text" in mute.error
        with pytest.raises(ValueError, match="no stop ids"):
            opened.generate([], Sampling(stop_ids=(1,)))
    [(asked, body)] = stub.bodies
    assert asked == path
    assert "hello" in json.dumps(body)
    assert not {"stop_token_ids", "top_k", "return_token_ids"} & set(body)


def test_it_rates_given_tokens(stub):
    def rated(handler, body, tries):
        ids = body["prompt"]
        given = [None, *({str(token): {"logprob": -float(token), "rank": token}} for token in ids[1:])]
        if ids == [9, 9] and tries == 1:
            return handler.answer(503, b"")
        if len(ids) == 5:
            return handler.answer(400, b"too long")
        return handler.answer(200, {"choices": [{"prompt_logprobs": given if ids != [7, 7] else None}]})

    stub.behave = rated
    with engine(stub) as opened:
        found, again, long, other = opened.token_scores([(3, 1, 2), (9, 9), (1,) * 5, (7, 7)])
    assert found == [TokenScore(-1.0, True), TokenScore(-2.0, False)]
    assert again == [TokenScore(-9.0, False)]
    assert "HTTP 400" in long
    assert "no prompt_logprobs" in other
    assert {(body["prompt_logprobs"], body["max_tokens"]) for _, body in stub.bodies} == {(0, 1)}
    with engine(stub, interface="text") as opened, pytest.raises(ValueError, match="use 'ids'"):
        opened.token_scores([(1, 2)])


def test_raw_log_probs_are_left_out_where_they_are_others(stub):
    with engine(stub, log_probs="raw") as opened:
        for sampling, kept in ((Sampling(), 2), (Sampling(temperature=0.5), 0), (Sampling(top_p=0.9), 0)):
            [[completion]] = opened.generate(PROMPTS[:1], sampling)
            assert len(completion.log_probs) == kept
            assert len(completion.ids) == 2


def test_life(stub):
    opened = engine(stub, model=None)
    for _ in range(2):  # a notebook enters twice
        with opened:
            assert_right(opened.generate(PROMPTS[:1], SAMPLING), PROMPTS[:1])
            with pytest.raises(RuntimeError, match="is open"):
                opened.__enter__()
        with pytest.raises(RuntimeError, match="with block"):
            opened.generate(PROMPTS, SAMPLING)
    with pytest.raises(RuntimeError, match="cannot be changed"):
        opened.sync(iter(()), 1)
    stub.server.server_close()
    with pytest.raises(ConnectionError, match="start the server"), ServerEngine("http://127.0.0.1:9/v1", retries=0):
        pass
    with pytest.raises(ValueError, match="concurrency is invalid: 0"):
        ServerEngine("http://127.0.0.1:9/v1", concurrency=0)


# -- hostile answers ---------------------------------------------------------------------------------------------------


def completed(choice):
    return {"id": "x", "choices": [{"index": 0, "finish_reason": "stop", **choice}]}


def errors_of(stub, content, interface="ids", status=200, headers=(), **options):
    """What the completions say when the server always answers so."""
    stub.behave = lambda handler, body, tries: handler.answer(status, content, headers)
    options = {"retries": 0, "model": "m", **options}
    with ServerEngine(stub.url, interface=interface, **options) as engine:
        (completions,) = engine.generate([Prompt((1, 2), text="text")], SAMPLING)
    assert [c.finish_reason for c in completions] == ["error", "error"]
    assert all("\n" not in c.error for c in completions)
    return completions[0].error


LOG_PROBS = {"token_logprobs": [-1.0]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (completed({"token_ids": [1e999], "logprobs": LOG_PROBS}), "token ids: it has 'inf'"),
        (completed({"token_ids": [True], "logprobs": LOG_PROBS}), "token ids: it has 'True'"),
        (completed({"token_ids": [-1], "logprobs": LOG_PROBS}), "token ids: it has '-1'"),
        (completed({"token_ids": [1 << 40], "logprobs": LOG_PROBS}), "token ids: it has"),
        (completed({"token_ids": "12", "logprobs": LOG_PROBS}), "a list where it has a str"),
        (completed({"token_ids": {}, "logprobs": LOG_PROBS}), "a list where it has a dict"),
        (
            completed({"token_ids": [1] * 5, "logprobs": {"token_logprobs": [-1.0] * 5}}),
            "gave 5 tokens, of 4 that were",
        ),
        (completed({"token_ids": [1], "logprobs": {"token_logprobs": [[]]}}), "the answer lacks"),
        (b'{"choices": [{"finish_reason": "stop", "token_ids"', "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (b"[]", "the answer lacks"),
        (b"null", "the answer lacks"),
        (b'{"choices": {}}', "gave 0 completions"),
    ],
)
def test_malformed_answers_are_errors(stub, content, said):
    assert said in errors_of(stub, content)


def test_the_body_of_an_answer_is_bounded(stub, monkeypatch):
    monkeypatch.setattr(ServerEngine, "longest_body", 10_000)
    assert "longer than 10,000 bytes" in errors_of(stub, b" " * 20_000)


def test_redirects_are_not_followed(stub):
    assert "HTTP 302" in errors_of(stub, b"", status=302, headers=[("Location", "http://127.0.0.1:1/")])


def test_error_texts_command_no_terminal(stub):
    said = errors_of(stub, "\x1b]0;owned\x07 \u202etxet".encode(), status=400)
    assert "\\x1b]0;owned\\x07 \\u202etxet" in said


@pytest.mark.parametrize("interface", ["text", "chat"])
def test_half_a_surrogate_pair_is_replaced_and_said_once(stub, interface, monkeypatch):
    said = []
    monkeypatch.setattr("nbg_lightning.log.warn", said.append)
    content = completed({"text": "a\ud83db", "message": {"content": "a\ud83db"}})
    stub.behave = lambda handler, body, tries: handler.answer(200, content)
    with ServerEngine(stub.url, "m", interface) as engine:
        (completions,) = engine.generate([Prompt((), text="text")], SAMPLING)
    assert [c.text for c in completions] == ["a\ufffdb", "a\ufffdb"]
    assert len(said) == 1


@pytest.mark.parametrize("text", [5, None, ["a"], {"a": 1}])
def test_texts_that_are_none(stub, text):
    assert "the answer lacks" in errors_of(stub, completed({"text": text}), "text")


def test_a_key_from_the_environment(stub, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-1")
    stub.behave = lambda handler, body, tries: handler.answer(200, well_formed(body))
    with ServerEngine(stub.url, "m", api_key="env:SOME_KEY") as engine:
        engine.generate([Prompt((1, 2), text="text")], SAMPLING)
    assert stub.headers[0]["Authorization"] == "Bearer sk-1"
    with pytest.raises(ValueError, match="set the environment variable ANOTHER to the server's key"):
        ServerEngine(stub.url, "m", api_key="env:ANOTHER")


# -- the chat format ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The format of a model that was trained here."""
    folder = train_bpe(["2 + 2? 4 and 3 + 3? " * 200], 270, tmp_path_factory.mktemp("chat") / "tokenizer")
    return ChatFormat(Tokenizer(folder), "nanbeige")


def tokenizes(reply, status=200):
    """A server with /tokenize, which also answers questions."""

    def behave(handler, body, tries):
        if handler.path == "/tokenize":
            handler.answer(status, reply(body) if callable(reply) else reply)
        else:
            handler.answer(200, {"choices": [{"message": {"content": "6"}, "finish_reason": "stop"}]})

    return behave


def test_a_server_with_the_models_chat_format_is_asked(stub, expected, tmp_path):
    stub.behave = tokenizes(lambda body: {"tokens": list(expected.prompt(body["messages"]).ids)})
    rows = write_rows(tmp_path / "rows.jsonl", [{"question": "3 + 3?", "answer": "6"}])
    suite = Suite([Questions(path=rows, scorer="number")])
    result = run_on_server(suite, engine(stub, interface="chat"), None, None, "server", expected)
    assert result["questions"].value == 1.0
    [(path, body), *_] = stub.bodies
    assert path == "/tokenize" and body["add_generation_prompt"] and body["model"] == "the-model"


DIFFERENT = {
    "another template": lambda ids: [*ids[:5], 3, *ids[6:]],
    "a begin of text before it": lambda ids: [1, *ids],
    "no begin of the answer": lambda ids: ids[:-2],
    "a thought that was opened": lambda ids: [*ids, 6],
    "nothing": lambda ids: [],
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_server_with_another_chat_format_is_refused_before_it_is_asked(stub, expected, name):
    ids = list(expected.prompt(PROBE).ids)
    stub.behave = tokenizes({"tokens": DIFFERENT[name](ids)})
    suite = Suite([Arithmetic(count=2)])
    with pytest.raises(ValueError, match=r"is not nanbeige: .* other ids from token \d+ on; serve") as raised:
        run_on_server(suite, engine(stub, interface="chat"), None, None, "server", expected)
    assert "\n" not in str(raised.value)
    assert {path for path, _ in stub.bodies} == {"/tokenize"}


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ({"detail": "Not Found"}, 404),
        ({"detail": "no"}, 405),
        ({"count": 3}, 200),
        ({"tokens": "12"}, 200),
        ({"tokens": [-1]}, 200),
    ],
)
def test_a_server_that_does_not_tell_its_format_is_told_of(stub, expected, caplog, reply, status):
    stub.behave = tokenizes(reply, status)
    with engine(stub, interface="chat", retries=0) as opened, caplog.at_level("INFO", logger="nbg_lightning"):
        opened.check_chat_format(PROBE, expected.prompt(PROBE).ids, "nanbeige")
    assert "has no /tokenize: whether its chat format is nanbeige cannot be told" in caplog.text
