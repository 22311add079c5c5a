import contextlib
import dataclasses
import hashlib
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from nbg_lightning.data.folder_lock import FolderInUse
from nbg_lightning.digests import seal, unseal
from nbg_lightning.teachers.cache import TeacherCache, open_cache
from nbg_lightning.teachers.cache_format import CacheIdentity
from nbg_lightning.teachers.cache_writer import CacheWriter
from nbg_lightning.testing.damage import damaged

IDENTITY = CacheIdentity("t" * 16, "r" * 16, "k" * 32, "c" * 16, "d" * 32, 4, 1.0, 1000)


def key_of(name):
    return hashlib.blake2b(str(name).encode(), digest_size=16).digest()


def made(seed, tokens, k=4, vocab=1000, reference=True):
    """Targets of a distribution over a small vocabulary: exact top-k and tail."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (tokens, vocab))
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    ids = np.argsort(-log_p, axis=1)[:, :k]
    top = np.take_along_axis(log_p, ids, 1)
    tail = np.log(np.maximum(1 - np.exp(top).sum(1), 1e-30))
    return ids, top, tail, -np.abs(random.normal(3, 1, tokens)).astype(np.float32) if reference else None


def write(folder, lengths, identity=IDENTITY, finish=True, **kind):
    with CacheWriter(folder, identity) as writer:
        for index, tokens in enumerate(lengths):
            writer.append(key_of(index), *made(index, tokens, identity.k, identity.vocab_size, **kind))
        writer.flush()
        return writer.finish() if finish else None


def test_what_was_written_is_read(tmp_path):
    lengths = [5, 1, 17, 300]
    cache = write(tmp_path / "c", lengths)
    assert (len(cache), cache.num_tokens) == (4, 323)
    for index, tokens in enumerate(lengths):
        ids, top, tail, reference = made(index, tokens)
        found = cache.lookup(key_of(index))
        assert cache.num_trained(key_of(index)) == tokens and key_of(index) in cache
        assert (found.ids == ids).all() and found.ids.dtype == np.uint16
        assert np.allclose(found.log_probs, top, rtol=1e-3, atol=1e-3)
        assert np.allclose(found.tail, tail, rtol=1e-3, atol=1e-3)
        assert (found.reference == reference).all()
        # Rounding to half precision must leave a distribution: a KL of it is never below 0.
        assert np.abs(np.exp(found.log_probs.astype(np.float64)).sum(1) + np.exp(found.tail) - 1).max() < 1e-6
    assert cache.lookup(key_of("other")) is None and key_of("other") not in cache
    again = pickle.loads(pickle.dumps(cache))
    assert (again.lookup(key_of(2)).ids == cache.lookup(key_of(2)).ids).all()


@pytest.mark.parametrize(("vocab", "num_bytes"), [(65_536, 2), (65_537, 3), (166_144, 3)])
def test_bytes_of_a_token(tmp_path, vocab, num_bytes):
    identity = dataclasses.replace(IDENTITY, k=64, vocab_size=vocab)
    cache = write(tmp_path / "c", [40], identity)
    on_disk = sum(file.stat().st_size for file in (tmp_path / "c").iterdir())
    assert cache.bytes_per_token == 4 + 2 + 64 * (2 + num_bytes) + 32 / 40
    assert cache.bytes_per_token <= on_disk / 40
    # At the paper's vocabulary 400 bytes is the budget; even sequences of one trained token keep it.
    assert 4 + 2 + 64 * (2 + num_bytes) + 32 <= 400
    ids = made(0, 40, 64, vocab)[0]
    assert (cache.lookup(key_of(0)).ids == ids).all() and ids.max() > vocab * 0.9


def test_without_reference_and_probabilities_of_zero(tmp_path):
    identity = dataclasses.replace(IDENTITY, reference=None, k=2, vocab_size=2)
    with CacheWriter(tmp_path / "c", identity) as writer:
        ids = np.array([[1, 0], [0, 1]])
        writer.append(key_of(0), ids, np.array([[0.0, -np.inf], [np.log(0.5)] * 2]), np.array([-np.inf, -np.inf]))
        cache = writer.finish()
    found = cache.lookup(key_of(0))
    assert found.reference is None and np.isfinite(found.log_probs).all() and np.isfinite(found.tail).all()
    assert (
        np.exp(found.log_probs).tolist() == [[1.0, 0.0], pytest.approx([0.5, 0.5])] and (np.exp(found.tail) == 0).all()
    )


def test_identity_decides(tmp_path):
    cache = write(tmp_path / "all" / IDENTITY.key, [3])
    other = dataclasses.replace(IDENTITY, teacher="u" * 16, temperature=2.0)
    write(tmp_path / "all" / other.key, [3], other)
    assert len({IDENTITY.key, other.key}) == 2
    cache.check(teacher="t" * 16, k=4)
    with pytest.raises(ValueError, match="teacher tttttttttttttttt there, xx here; k 4 there, 8 here; build one"):
        cache.check(teacher="xx", k=8)
    assert open_cache(tmp_path / "all", teacher="u" * 16).folder.name == other.key
    assert open_cache(tmp_path / "all" / other.key).identity == other
    with pytest.raises(ValueError, match="has 2 caches that fit"):
        open_cache(tmp_path / "all")
    with pytest.raises(ValueError, match=r"no cache in .* is of this run .*teacher"):
        open_cache(tmp_path / "all", teacher="v" * 16)
    with pytest.raises(FileNotFoundError, match="nbg build-cache"):
        open_cache(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no teacher cache in"):
        open_cache(tmp_path / "empty")
    with (
        pytest.raises(ValueError, match=r"cache of something else: temperature 2.0 there, 1.0 here"),
        CacheWriter(tmp_path / "all" / other.key, dataclasses.replace(other, temperature=1.0)),
    ):
        pass


def test_bad_numbers_are_refused(tmp_path):
    ids, top, tail, reference = made(0, 5)
    for change, message in (
        ({"log_probs": np.where(np.arange(20).reshape(5, 4) == 7, np.nan, top)}, "teacher's log-probs are not finite"),
        ({"tail": tail + 5}, "teacher's log-probs are not finite or positive"),
        ({"reference": np.full(5, -np.inf)}, "reference's log-probs are not finite"),
        ({"ids": ids + 1000}, "is not in the vocabulary of 1000"),
        ({"ids": ids[:, :3]}, "ids and"),
        ({"reference": None}, "for all tokens"),
    ):
        with CacheWriter(tmp_path / "c", IDENTITY) as writer, pytest.raises(ValueError, match=message):
            writer.append(key_of(0), **{**dict(ids=ids, log_probs=top, tail=tail, reference=reference), **change})
    with pytest.raises(ValueError, match="k is invalid: 2000"):
        dataclasses.replace(IDENTITY, k=2000)


def test_unfinished_broken_and_foreign_folders(tmp_path):
    write(tmp_path / "c", [5, 6], finish=False)
    with pytest.raises(ValueError, match="not finished; run the same"):
        TeacherCache(tmp_path / "c")
    cache = write(tmp_path / "c", [5, 6])
    with CacheWriter(tmp_path / "c", IDENTITY) as writer:
        assert writer.complete and writer.num_sequences == 2
        writer.append(key_of(0), *made(0, 5))  # there already
        with pytest.raises(ValueError, match="takes nothing more"):
            writer.append(key_of(9), *made(9, 5))
    data = bytearray((tmp_path / "c" / "targets.bin").read_bytes())
    data[3] ^= 1
    (tmp_path / "c" / "targets.bin").write_bytes(data)
    with pytest.raises(ValueError, match="damaged at byte 0"):
        TeacherCache(tmp_path / "c").lookup(key_of(0))
    assert cache.lookup(key_of(1)) is not None
    (tmp_path / "c" / "targets.bin").write_bytes(data[:-1])
    with pytest.raises(ValueError, match=r"targets\.bin has not the"):
        TeacherCache(tmp_path / "c")
    (tmp_path / "c" / "cache.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ValueError, match="not of this version"):
        TeacherCache(tmp_path / "c")


@pytest.mark.parametrize("cut", ["index", "targets", "both"])
def test_torn_ends_are_cut_off(tmp_path, cut):
    """As after a power failure: what was half written goes, the rest stays, and nothing is there twice."""
    lengths = [4, 9, 2, 30, 1]
    whole = write(tmp_path / "whole", lengths)
    write(tmp_path / "c", lengths, finish=False)
    if cut in ("index", "both"):
        os.truncate(tmp_path / "c" / "index.bin", 32 * 4 + 11)
    if cut in ("targets", "both"):
        size = (tmp_path / "c" / "targets.bin").stat().st_size
        os.truncate(tmp_path / "c" / "targets.bin", size - 25)
    with CacheWriter(tmp_path / "c", IDENTITY) as writer:
        kept = 4 if cut == "index" else 3  # 25 bytes are the last record and a part of the one before
        assert writer.num_sequences == kept and key_of(kept - 1) in writer and key_of(kept) not in writer
        for index, tokens in enumerate(lengths):
            writer.append(key_of(index), *made(index, tokens))
        writer.finish()
    for name in ("targets.bin", "index.bin"):
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert whole.num_tokens == 46


def test_kill_9_loses_and_repeats_nothing(tmp_path):
    """Killed again and again at random moments, the files end up as those of a straight run, byte for byte."""
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import nbg_lightning.teachers.cache_writer as cache
        from test_cache import IDENTITY, key_of, made
        cache._FLUSH_BYTES = 2000
        with cache.CacheWriter(sys.argv[1], IDENTITY) as writer:
            print(writer.num_sequences, flush=True)
            for index in range(400):
                if key_of(index) not in writer:
                    writer.append(key_of(index), *made(index, 1 + index % 13))
                    if index == 7: print("going", flush=True)
            writer.finish()
    """)
    command = [sys.executable, "-c", script]
    subprocess.run([*command, tmp_path / "straight"], check=True)
    begun = []
    for attempt in range(40):
        process = subprocess.Popen([*command, tmp_path / "killed"], stdout=subprocess.PIPE, text=True)
        begun.append(int(process.stdout.readline()))
        time.sleep(0.004 * 1.15**attempt)  # long enough at last, on a busy machine too
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if process.returncode == 0:
            break
    assert process.returncode == 0 and len(begun) > 2 and begun == sorted(begun) and begun[-1] > 0
    for name in ("targets.bin", "index.bin", "complete.json", "cache.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_a_full_disk_is_one_line(tmp_path):
    with contextlib.ExitStack() as stack, CacheWriter(tmp_path / "c", IDENTITY) as writer:
        writer.append(key_of(0), *made(0, 5))
        writer._targets.close()
        writer._targets = stack.enter_context(open("/dev/full", "ab", buffering=0))
        with pytest.raises(OSError, match=r"cannot be written .*free space, and run the same command again"):
            writer.flush()


def read_all(folder, count):
    cache = TeacherCache(folder)
    return [cache.lookup(key_of(index)) for index in range(count)]


@pytest.mark.parametrize("name", ["cache.json", "targets.bin", "index.bin", "complete.json"])
def test_every_damage_is_found_and_the_file_named(tmp_path, name):
    write(tmp_path / "c", [5, 1, 17, 30])
    good = (tmp_path / "c" / name).read_bytes()
    draw = random.Random(name)
    for _ in range(60):
        (tmp_path / "c" / name).write_bytes(damaged(good, draw))
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(name)) as caught:
            read_all(tmp_path / "c", 4)
        assert "\n" not in str(caught.value)


def test_caches_of_older_versions_are_read(tmp_path):
    new = write(tmp_path / "c", [5, 1])
    for name, gone in (("cache.json", "sealed"), ("complete.json", "index")):
        value = unseal((tmp_path / "c" / name).read_bytes())
        del value[gone]
        (tmp_path / "c" / name).write_text(json.dumps(value))
    for index in range(2):
        np.testing.assert_array_equal(
            TeacherCache(tmp_path / "c").lookup(key_of(index)).ids, new.lookup(key_of(index)).ids
        )


def test_an_id_beyond_the_vocabulary_is_named(tmp_path):
    """Of a cache whose writer did not look."""
    write(tmp_path / "c", [5])
    about = unseal((tmp_path / "c" / "cache.json").read_bytes())
    about["identity"]["vocab_size"] = 20
    (tmp_path / "c" / "cache.json").write_text(seal(about))
    with pytest.raises(
        ValueError, match=rf"targets\.bin is invalid: the sequence {key_of(0).hex()} .* beyond the vocabulary of 20"
    ):
        read_all(tmp_path / "c", 1)


def test_another_process_that_fills_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("nbg_lightning.data.folder_lock.DYING_SECONDS", 0.1)
    with (
        CacheWriter(tmp_path / "c", IDENTITY),
        pytest.raises(FolderInUse, match=rf"fills a teacher cache in {tmp_path}/c since .*: wait for it") as caught,
        CacheWriter(tmp_path / "c", IDENTITY),
    ):
        pass
    assert "\n" not in str(caught.value)
    write(tmp_path / "c", [3])  # afterwards it is free
