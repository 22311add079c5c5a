"""`nbg view` on all kinds of files, including untrusted ones."""

import gzip
import json
import re

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from nbg_lightning.commands import view
from nbg_lightning.data import train_bpe
from nbg_lightning.evaluation.results import SuiteResult, record_file, summarize
from nbg_lightning.pages.records import ShownPiece, ShownRecord, ShownRecords, ShownTurn
from nbg_lightning.pages.terminal import TRAINED, WEIGHTED, record_lines
from nbg_lightning.rl.pass_rate.ledger import PassRate, PassRateLedger


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_bpe(["what is two and three? it is five, and not six."] * 3, 290, tmp_path_factory.mktemp("t") / "t")


@pytest.fixture
def show(tmp_path, capsys):
    def show(*arguments):
        out = tmp_path / "page.html"
        assert view.main([*map(str, arguments), "--out", str(out)]) == 0
        return out.read_text("utf-8"), capsys.readouterr().out

    return show


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def rollout(step, reward, question="2+3?"):
    answer = {"sample": 0, "text": "five <b>", "reward": reward, "status": "ok", "detail": "seen", "advantage": 0.5}
    answer |= {"trained": True, "tokens": 3, "finish_reason": "stop", "weight_version": step - 1}
    other = {**answer, "sample": 1, "reward": None, "status": "timeout", "trained": False, "text": "six"}
    row = {"step": step, "source": "sums", "question": [{"role": "user", "content": question}], "gold": "5"}
    return {**row, "rewards": [reward, None], "answers": [answer, other]}


def test_rollouts_with_odd_lines(show, tmp_path):
    rows = [rollout(1, 0.0), rollout(2, 1.0), 7, {**rollout(3, float("nan")), "answers": "none"}, {"step": 3}]
    file = lines(tmp_path / "rollouts.jsonl", rows)
    with file.open("a") as stream:
        stream.write('{"torn')
    page, said = show(tmp_path)
    assert "2 of 4 groups of answers" in said
    assert "4 rows could not be read; line 3 is no object; line 6 is not JSON" in said
    assert "<mark>five &lt;b&gt;</mark>" in page and "<pre class=text tabindex=0>six</pre>" in page, (
        "not trained, no mark"
    )
    for fact in ("advantage <b>+0.500</b>", "weights of step <b>0</b>", "not trained", "status <b>timeout</b>"):
        assert fact in page
    assert "verdict <b>seen</b>" in page
    assert "gold <b>5</b>" in page and "<span>1</span><progress value=0.0000>" in page


def test_two_runs_of_rollouts_meet_by_their_question(show, tmp_path):
    first = lines(tmp_path / "a.jsonl", [rollout(1, 0.0), rollout(2, 1.0, "only in a")])
    second = lines(tmp_path / "b.jsonl", [rollout(9, 1.0)])
    page, _ = show(first, second)
    assert page.count("<article") == 2
    assert page.count('data-change="better"') == 1 and page.count("not in this run") == 1


def suite(folder, scores, **more):
    folder.mkdir(parents=True)
    records = [
        {"id": str(i), "index": i, "status": "ok", "error": None, "category": "ab"[i % 2], "prompt": f"1 < {i}?", "answer": "yes",
         "score": score, "samples": [{"score": score, "status": "ok", "text": "<i>yes", "answer": "yes", "finish_reason": "stop",
                                      "tokens": 3, "error": None}], **more}
        for i, score in enumerate(scores)
    ]  # fmt: skip
    lines(record_file(folder, "sums"), records)
    SuiteResult("s", [summarize("sums", "generate", "accuracy", records, 1)]).save(folder)
    return folder


def test_a_runs_folder_shows_its_newest_results_and_a_folder_above_says_where(show, tmp_path):
    (tmp_path / "run").mkdir()
    lines(tmp_path / "run" / "rollouts.jsonl", [rollout(1, 1.0)])
    suite(tmp_path / "run" / "benchmarks" / "s-step-00000001-0a1b2c3d", [0.0] * 4)
    suite(tmp_path / "run" / "benchmarks" / "s-step-00000002-0a1b2c3d", [1.0] * 4)
    page, said = show(tmp_path / "run")
    assert "1 of 1 groups of answers" in said and "4 of 4 items" in said
    assert "accuracy <b>1.000 (" in page and "accuracy by category" in page and "&lt;i&gt;yes" in page
    with pytest.raises(ValueError, match=r"has nothing that can be shown; below it there are .*rollouts\.jsonl"):
        view.main([str(tmp_path), "--out", str(tmp_path / "x.html")])
    page, _ = show(
        tmp_path / "run/benchmarks/s-step-00000001-0a1b2c3d",
        tmp_path / "run/benchmarks/s-step-00000002-0a1b2c3d/results.json",
    )
    assert page.count('data-change="better"') == 4


def test_choices_and_rated_texts(show, tmp_path):
    item = {"id": "x", "index": 0, "status": "ok", "prompt": "sky is", "answer": 1, "choices": ["red", "blue"]}
    rated = {**item, "log_likelihoods": [-3.5, -1.25], "chosen": 1, "score": 1.0}
    text = {"id": "y", "index": 1, "status": "ok", "prompt": "t", "nll": 2.5, "score": 2.5}
    page, _ = show(lines(tmp_path / "items.jsonl", [rated, text]))
    assert "gold <b>blue</b>" in page and "likeliest score <b>1</b> · log-likelihood <b>-1.250</b>" in page
    assert (
        "nats <b>2.5</b>" in page and page.count("data-outcome=right") == 1 and page.count("data-outcome=unscored") == 1
    )


def test_pairs_and_conversations_by_turns_and_by_tokens(show, tmp_path, tokenizer):
    pair = {"prompt": "2+3?", "chosen": "five", "rejected": "six", "score_chosen": 3, "score_rejected": 1}
    broken = {**pair, "rejected": "five"}
    file = lines(tmp_path / "pairs.jsonl", [pair, broken])
    page, said = show(file)
    assert "1 of 2 pairs" in said and "line 2: the chosen and the rejected answer are the same" in said
    assert "<mark>five</mark>" in page and "<mark>six</mark>" in page and "score <b>3</b>" in page
    page, _ = show(file, "--tokenizer", tokenizer)
    assert re.search(r"<mark>[^<]*five&lt;\|im_end\|&gt;", page), "the token that ends the turn is trained too"
    assert page.count("2+3?") == 1 and "<mark>2+3" not in page
    chat = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "go", "weight": 0},
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "yes", "reasoning_content": "hm"},
    ]
    with gzip.open(tmp_path / "chat.jsonl.gz", "wt") as stream:
        stream.write(json.dumps({"messages": chat}) + "\n")
    page, said = show(tmp_path / "chat.jsonl.gz")
    assert "1 of 1 conversations" in said
    assert "<mark>&lt;think&gt;\nhm\n&lt;/think&gt;\nyes</mark>" in page and "<mark>go" not in page


def test_parquet_of_conversations_and_of_pass_rates(show, tmp_path):
    rows = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "chat.parquet")
    assert "1 of 1 conversations" in show(tmp_path / "chat.parquet")[1]
    ledger = [PassRate(str(n), "sums", 4, n, 0, n / 4, 3.0, 0, "c") for n in range(5)]
    ledger.append(PassRate("e", "sums", 4, 0, 4, None, 3.0, 0, "c", "broke <b>"))
    PassRateLedger(ledger, {"sampling": {"n": 4}, "weights": "w"}).save(tmp_path / "rates.parquet")
    page, said = show(tmp_path / "rates.parquet")
    assert "6 of 6 questions" in said and "questions by pass rate" in page
    assert "pass rate <b>75%</b> · passes <b>3 of 4</b>" in page and "pass rate <b>no rate</b>" in page
    assert "first error <b>broke &lt;b&gt;</b>" in page and page.count("data-outcome=mixed") == 3


def test_rows_of_no_known_kind_and_limits(show, tmp_path):
    file = lines(tmp_path / "rows.jsonl", [{"id": n, "note": "x" * 200, "ok": True} for n in range(100)])
    page, said = show(file, "--limit", "10", "--max-characters", "50")
    assert "7 of 100 rows" in said and page.count("<article") == 7
    assert "100 rows, of which 7 are here, evenly spread" in page and "150 of 200 characters left out" in page


def test_the_data_of_a_config_with_its_trained_tokens(show, tmp_path, tokenizer):
    def config(kind, source, rows, **settings):
        path = lines(tmp_path / "rows.jsonl", rows)
        source = {"class_path": f"nbg_lightning.data.{source}", "init_args": {"path": str(path)}}
        arguments = {
            "tokenizer": str(tokenizer),
            "data_dir": str(tmp_path / "d"),
            "sources": {"mine": source},
            **settings,
        }
        data = {"class_path": f"nbg_lightning.{kind}", "init_args": arguments}
        callback = {"class_path": "nbg_lightning.FGWSD", "init_args": {"sequence_length": 8}}
        whole = {"data": data, "trainer": {"callbacks": [callback]}}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(whole))
        return tmp_path / "config.yaml"

    chat = {"sequence_length": 512, "tokens_per_step": 512}
    turns = [{"role": "user", "content": "two?"}, {"role": "assistant", "content": "yes"}]
    page, said = show(config("ChatDataModule", "ChatJsonLines", [{"messages": turns}, {"messages": []}], **chat))
    assert re.search(r"<mark>[^<]*yes&lt;\|im_end\|&gt;[^<]*</mark>", page) and "1 invalid; first: " in said
    pair = {"prompt": "q", "chosen": "five", "rejected": "six"}
    page, _ = show(config("PreferenceDataModule", "PairJsonLines", [pair], **chat))
    assert re.search(r"<mark>[^<]*five&lt;", page) and re.search(r"<mark>[^<]*six&lt;", page)
    page, _ = show(
        config("PromptDataModule", "QuestionJsonLines", [{"question": "2+3?", "answer": "5"}], prompts_per_step=1)
    )
    assert "&lt;|im_start|&gt;assistant" in page and "gold <b>5</b>" in page and "<mark>" not in page
    page, said = show(
        config("CurriculumDataModule", "JsonLines", [{"text": "it is five"}, {"text": " "}, {"text": "not six"}])
    )
    assert "windows of 8 tokens" in page and page.count("document 1: ") >= 1


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("none.jsonl", None, FileNotFoundError, "does not exist; give a run's folder"),
        ("empty.jsonl", "", ValueError, "has no row that can be shown (it is empty)"),
        ("torn.jsonl", "{", ValueError, "has no row that can be shown (line 1 is not JSON"),
        ("text.txt", "hello", ValueError, "is nothing that can be shown; give a folder"),
        ("broken.parquet", "hello", ValueError, "cannot be read as Parquet"),
        ("results.json", "{}", ValueError, "is not a result of this library"),
        ("other.yaml", "seed: 1", ValueError, "has no data.class_path"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(tmp_path, name, content, error, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=re.escape(message)) as raised:
        view.main([str(tmp_path / name), "--out", str(tmp_path / "page.html")])
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "page.html").exists()


def test_places_of_the_page(tmp_path, monkeypatch, capsys):
    file = lines(tmp_path / "pairs.v2.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}])
    (tmp_path / "mine.html").write_text("my own notes")
    with pytest.raises(ValueError, match=r"mine\.html exists and was not written by nbg view"):
        view.main([str(file), "--out", str(tmp_path / "mine.html")])
    for _ in range(2):  # a page is written over
        assert view.main([str(file)]) == 0
    assert f"page: {tmp_path / 'pairs.view.html'} (" in capsys.readouterr().out
    with pytest.raises(ValueError, match="is a folder"):
        view.main([str(file), "--out", str(tmp_path)])
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        view.main([str(file), "--out", str(tmp_path / "no" / "x.html")])
    with pytest.raises(ValueError, match="--limit is invalid: 0"):
        view.main([str(file), "--limit", "0"])


TURNS = [
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "price", "arguments": {"item": "pen"}}}], "turn": 0,
     "score": None, "counts": {"calls": 1}},
    {"role": "tool", "name": "price", "content": "7 <b>\x1b[31m"},
    {"role": "assistant", "content": "The answer is 7.", "turn": 1, "score": 0.5, "counts": {}},
]  # fmt: skip


def test_turns_of_an_episode_have_calls_scores_and_marks_where_the_loss_is(show, tmp_path):
    row = rollout(1, 1.0)
    row["answers"][0] |= {"turns": TURNS, "end": "answered"}
    page, _ = show(lines(tmp_path / "rollouts.jsonl", [row]))
    assert "<mark>tool call price: {&quot;item&quot;: &quot;pen&quot;}</mark>" in page
    assert "<mark>The answer is 7.</mark>" in page and "<mark>7 &lt;b&gt;" not in page
    assert "assistant, turn 1, calls 1" in page and "assistant, turn 2, score 0.5" in page and "tool price" in page
    assert "ended by <b>answered</b>" in page
    sample = {"text": "", "turns": TURNS, "score": 1.0, "status": "ok", "finish_reason": "stop", "tokens": 9}
    item = {"id": "a", "index": 0, "status": "ok", "prompt": "Buy.", "answer": "7", "samples": [sample]}
    page, _ = show(lines(tmp_path / "items.jsonl", [item]))
    assert "assistant, turn 2, score 0.5" in page and "<mark>" not in page, "nothing of it is trained"
    odd = [*TURNS, "x", {"role": 3, "turn": "y", "counts": [], "tool_calls": [1, {"function": None}]}]
    row["answers"][0]["turns"] = odd
    assert "assistant, turn 2" in show(lines(tmp_path / "rollouts.jsonl", [row]))[0]


def test_the_terminal_has_what_the_page_has(tmp_path, capsys):
    row = rollout(1, 1.0)
    row["answers"][0] |= {"turns": TURNS, "end": "answered"}
    file = lines(tmp_path / "rollouts.jsonl", [row])
    assert view.main([str(file), "--terminal", "--limit", "1"]) == 0
    said = capsys.readouterr().out
    for part in (
        "1 of 1 groups of answers",
        "[user] 2+3?",
        "-- answer 0: 1",
        "[tool price] 7 <b>",
        "turn 2, score 0.5",
    ):
        assert part in said
    assert "\\x1b[31m" in said and "\x1b" not in said
    assert not (tmp_path / "view.html").exists()


def test_the_terminal_colours_what_the_loss_covers():
    turns = (ShownTurn("assistant", (ShownPiece("learned", 1.0), ShownPiece("more", 2.0), ShownPiece("read", 0.0))),)
    record = record_lines([ShownRecords("t", "rows", [ShownRecord("k", "", "", turns)], 1)], 100)
    spans = [(text.plain[s.start : s.end], str(s.style)) for text in record for s in text.spans]
    assert [style for part, style in spans if part == "learned"] == [TRAINED]
    assert [style for part, style in spans if part == "more"] == [WEIGHTED]
    assert [style for part, style in spans if part == "read"] == ["not dim"]
