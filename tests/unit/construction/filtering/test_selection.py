import json

import numpy as np
import pytest
import yaml

from nbg_lightning.construction.filtering.columns import build_columns
from nbg_lightning.construction.filtering.pools import PoolSize, SelectionSettings
from nbg_lightning.construction.filtering.selection import build_selection
from nbg_lightning.construction.filtering.table import Table
from nbg_lightning.construction.step import DocumentStep
from nbg_lightning.data.sources import Parquet


class Fake(DocumentStep):
    """Quality from the text alone."""

    @property
    def columns(self):
        import pyarrow

        return {"quality": pyarrow.float32(), "depth": pyarrow.float32()}

    def values(self, texts):
        return [{"quality": float(len(text) % 10), "depth": float(len(text) % 7)} for text in texts]


@pytest.fixture(scope="module")
def tags(corpus, tmp_path_factory):
    return build_columns("fake", corpus, Fake(), tmp_path_factory.mktemp("fake") / "t", num_workers=0)


def pool(folder, name):
    return list(Parquet(str(folder / name)).documents())


def select(corpus, tags, out, **settings):
    return build_selection(corpus, [tags], out, SelectionSettings(**settings), num_workers=0)


def test_thresholds(corpus, tags, texts, tmp_path):
    report = select(corpus, tags, tmp_path / "s", high_quality=PoolSize(7), medium_quality=PoolSize(3), exclude=())
    everything = texts["science"] + texts["spam"]
    assert pool(tmp_path / "s", "hq") == [text for text in everything if len(text) % 10 >= 7]
    assert pool(tmp_path / "s", "mq") == [text for text in everything if 3 <= len(text) % 10 < 7]
    sizes = {name: sum(max(1, round(len(t) / 4)) for t in pool(tmp_path / "s", name)) for name in ("hq", "mq")}
    assert {name: own["tokens"] for name, own in report["pools"].items()} == sizes
    assert sum(report["pools"]["hq"]["tokens_by_source"].values()) == sizes["hq"]
    assert report["tokens_are"] == "estimated as bytes / 4"


def test_sizes_in_tokens_and_shares(corpus, tags, tmp_path):
    report = select(
        corpus,
        tags,
        tmp_path / "a",
        high_quality=PoolSize(tokens="2K"),
        medium_quality=PoolSize(tokens=5000),
        exclude=(),
    )
    hq, mq = (report["pools"][name] for name in ("hq", "mq"))
    assert 2000 <= hq["tokens"] < 2300
    assert 5000 <= mq["tokens"] < 5300
    assert hq["least_score"] >= mq["least_score"]
    shares = select(
        corpus, tags, tmp_path / "b", high_quality=PoolSize(share=0.25), medium_quality=PoolSize(share=0.75), exclude=()
    )
    assert shares["pools"]["hq"]["tokens"] == pytest.approx(0.25 * shares["tokens"], rel=0.03)
    assert shares["rest"]["documents"] == 0


def test_bars_and_limits(corpus, tags, texts, tmp_path):
    report = select(corpus, tags, tmp_path / "s", exclude=("gopher/num_words",), limits={"depth": (2.0, 5.0)})
    chosen = pool(tmp_path / "s", "hq") + pool(tmp_path / "s", "mq")
    assert chosen and all(2 <= len(text) % 7 <= 5 and len(text.split()) >= 50 for text in chosen)
    excluded = {"gopher/num_words": 0, "limits/depth": 0}
    for text in texts["science"] + texts["spam"]:
        if len(text.split()) < 50:
            excluded["gopher/num_words"] += 1
        elif not 2 <= len(text) % 7 <= 5:
            excluded["limits/depth"] += 1
    assert report["excluded"] == excluded


def test_scores_are_weighted_sums(corpus, tags, tmp_path):
    select(corpus, tags, tmp_path / "s", score={"quality": 1.0, "depth": -2.0}, exclude=())
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(tmp_path / "s" / "hq").to_pylist()
    assert rows
    assert all(row["score"] == len(row["text"]) % 10 - 2 * (len(row["text"]) % 7) for row in rows)


def test_report_picture_and_yaml(corpus, tags, tmp_path):
    from jsonargparse import ArgumentParser
    from lightning.pytorch import LightningDataModule

    from nbg_lightning.schedule.curriculum import Curriculum, Stage

    report = select(corpus, tags, tmp_path / "s", tokens_per_step=512, sequence_length=64)
    page = (tmp_path / "s" / "report.md").read_text()
    assert page.count("### ") == 10
    assert page.count("```text") == 30
    assert "| science |" in page
    assert (tmp_path / "s" / "histograms.png").read_bytes().startswith(b"\x89PNG")
    config = yaml.safe_load((tmp_path / "s" / "curriculum.yaml").read_text())
    for name, source in config["data"]["init_args"]["sources"].items():
        assert source["init_args"]["tokens"] == report["pools"][name]["tokens"]
    table = config["trainer"]["callbacks"][0]["init_args"]
    curriculum = Curriculum(**{**table, "stages": [Stage(**stage) for stage in table["stages"]]})
    assert [stage.name for stage in curriculum.stages] == ["warmup", "diverse-stable", "hq-stable", "decay"]
    config["data"]["init_args"] |= {
        "tokenizer": {"train_vocab_size": 300, "train_bytes": 20_000}, "data_dir": str(tmp_path / "d"), "prepare_workers": 0,
    }  # fmt: skip
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    data = parser.instantiate(parser.parse_object({"data": config["data"]})).data
    data.setup("fit")
    assert set(data.source_tokens) == {"hq", "mq"}


def test_the_same_seed_gives_the_same_files_also_after_an_interruption(corpus, tags, tmp_path, monkeypatch):
    from nbg_lightning.construction.filtering import selection

    real, done = selection._write_pools, []

    def fails(job):
        if done:
            raise OSError("disk full")
        done.append(real(job))
        return done[-1]

    with monkeypatch.context() as patch:
        patch.setattr(selection, "_write_pools", fails)
        with pytest.raises(OSError, match="disk full"):
            select(corpus, tags, tmp_path / "a")
    first = select(corpus, tags, tmp_path / "a")
    assert select(corpus, tags, tmp_path / "a") == first  # finished: it is read
    build_selection(corpus, [tags], tmp_path / "b", SelectionSettings(), num_workers=2)

    def files(name):
        return {
            str(file.relative_to(tmp_path / name)): file.read_bytes()
            for file in (tmp_path / name).rglob("*")
            if file.is_file() and file.name not in ("curriculum.yaml", ".lock")
        }

    assert files("a") == files("b")
    select(corpus, tags, tmp_path / "c", seed=1)
    assert files("c") != files("a")


def test_exact_token_counts(corpus, tags, texts, tmp_path):
    from nbg_lightning.data.tokenizer import Tokenizer, train_bpe

    folder = train_bpe(texts["science"], 300, tmp_path / "bpe")
    report = build_selection(corpus, [tags], tmp_path / "s", tokenizer=str(folder), num_workers=0)
    tokenizer = Tokenizer(folder)
    expected = sum(len(tokenizer.encode(text)) + 2 for text in pool(tmp_path / "s", "hq"))
    assert report["pools"]["hq"]["tokens"] == expected
    assert report["tokens_are"] == "counted"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": {"nothing": 1.0}}, "column is invalid: 'nothing' is not there; choose one of .*quality"),
        ({"score": {"text": 1.0}}, "column is invalid: 'text' holds large_string"),
        ({"score": {}}, "score is invalid: no column"),
        ({"limits": {"nothing": (1, 2)}}, "column is invalid: 'nothing'"),
        ({"high_quality": PoolSize(100)}, r"hq is invalid: \{'threshold': 100\} .*the best left has score 9"),
        ({"limits": {"depth": (100, None)}}, "hq is invalid: .*nothing is left"),
    ],
)
def test_errors(corpus, tags, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        select(corpus, tags, tmp_path / "s", **settings)


def test_pool_sizes_that_cannot_be():
    for arguments in ({}, {"threshold": 1, "share": 0.1}):
        with pytest.raises(ValueError, match="exactly one of threshold, tokens and share"):
            PoolSize(**arguments)
    with pytest.raises(ValueError, match="share is invalid: 3"):
        PoolSize(share=3)


def test_cuts_by_hand():
    scores, tokens = np.array([9.0, 8, 8, 5, 1]), np.array([10, 20, 30, 40, 50])
    assert PoolSize(8).cut(scores, tokens, 0, 150) == 3
    assert PoolSize(9.5).cut(scores, tokens, 0, 150) == 0
    assert PoolSize(tokens=30).cut(scores, tokens, 0, 150) == 2
    assert PoolSize(tokens=31).cut(scores, tokens, 0, 150) == 3
    assert PoolSize(tokens=30).cut(scores, tokens, 2, 150) == 3
    assert PoolSize(share=1).cut(scores, tokens, 1, 150) == 5
    assert PoolSize(share=0).cut(scores, tokens, 1, 150) == 1


def test_no_columns(corpus, tmp_path):
    with pytest.raises(ValueError, match="no quality and no recall in them; give the folder of tags, or set score"):
        build_selection(corpus, [], tmp_path / "s", num_workers=0)
    with pytest.raises(
        FileNotFoundError, match=r"is invalid: no report\.json in it; give the folder of a finished build"
    ):
        Table(tmp_path)
    (tmp_path / "report.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="is invalid: another kind of build"):
        Table(tmp_path)
