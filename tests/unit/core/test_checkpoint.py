"""Untrusted checkpoints execute nothing, and damage is detected however a checkpoint is read."""

import io
import os
import pickle
import random
import shutil
import zipfile
from functools import partial

import pytest
import torch
from torch.distributed.checkpoint.metadata import MetadataIndex

from nbg_lightning import log
from nbg_lightning.cli import main
from nbg_lightning.core.checkpoint import CheckpointFiles, load_plain
from nbg_lightning.core.checkpoint_names import DIGESTS, META, METADATA
from nbg_lightning.core.weights import load_base_weights, open_weights, read_shape
from nbg_lightning.data.tokenizer import checkpoint_tokenizer
from nbg_lightning.digests import FileDigest, read_sealed, seal
from nbg_lightning.testing import SMALL_SHAPE, forget_digests, train_small

SHARD = "__0_0.distcp"
LR = "optimizer_0.param_groups.0.lr"


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    whole = train_small(folder, checkpoint_every=6)
    return folder / "checkpoints", whole


@pytest.fixture
def checkpoint(run, tmp_path):
    return shutil.copytree(run[0] / "step-00000006", tmp_path / "step-00000006")


@pytest.fixture
def undigested(checkpoint):
    """As another library, an older version or an unknown author writes it."""
    forget_digests(checkpoint)
    return checkpoint


def resume(checkpoint):
    return train_small(checkpoint.parent / "resumed", resume=checkpoint)


def export(checkpoint):
    out = checkpoint.parent / "exported"
    code = main(["export", str(checkpoint), str(out)])
    assert (code == 0) == out.exists()
    if code:
        raise ValueError("the command has said why")


def start_from(checkpoint):
    from nbg_lightning.core.create import create_model

    model = create_model(SMALL_SHAPE)
    load_base_weights(model, checkpoint)


READERS = {
    "resume": resume,
    "base_weights": start_from,
    "shape": read_shape,
    "tokenizer": lambda checkpoint: checkpoint_tokenizer(str(checkpoint)),
    "open": open_weights,
}


def _short(text):
    return b"\x8c" + bytes([len(text)]) + text.encode()


def evil_metadata(checkpoint, flag, how):
    """The bytes of a .metadata that would make the file `flag` if it were unpickled as usual."""
    touch = f"touch {flag}"
    good = pickle.loads((checkpoint / METADATA).read_bytes())
    system = Calls(os.system, touch)
    if how == "reduce":
        return pickle.dumps(system)
    if how == "nested":
        good.planner_data = {"a": ("b", [{"c": system}])}
    elif how == "as a size":
        next(iter(good.state_dict_metadata.values())).size = system
    elif how == "getattr":
        return pickle.dumps(Calls(getattr, Calls(__import__, "os"), "system"))
    elif how == "dotted":  # os is an attribute of a module that is allowed
        names = [_short(text) for text in ("torch.distributed.checkpoint.filesystem", "os.system", touch)]
        return b"\x80\x04" + names[0] + names[1] + b"\x93" + names[2] + b"\x85R."
    elif how == "eval":
        return pickle.dumps(Calls(eval, f"open({str(flag)!r}, 'w')"))
    elif how == "torch rebuild":
        good.storage_meta = Calls(torch._utils._rebuild_tensor_v2, Calls(os.system, touch), 0, (1,), (1,), False, {})
    elif how == "torch load":
        payload = io.BytesIO()
        torch.save(system, payload)
        return pickle.dumps(Calls(partial(torch.load, weights_only=False), Calls(io.BytesIO, payload.getvalue())))
    return pickle.dumps(good)


EVIL = ["reduce", "nested", "as a size", "getattr", "dotted", "eval", "torch rebuild", "torch load"]


@pytest.mark.parametrize("how", EVIL)
@pytest.mark.parametrize("reader", READERS)
def test_nothing_in_the_metadata_of_a_stranger_is_called(undigested, tmp_path, reader, how):
    flag = tmp_path / "flag"
    (undigested / METADATA).write_bytes(evil_metadata(undigested, flag, how))
    with pytest.raises(
        ValueError, match=r"\.metadata is invalid: it names [\w.]+, which no checkpoint needs"
    ) as caught:
        READERS[reader](undigested)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(METADATA) == 1
    assert not flag.exists()


@pytest.mark.parametrize("reader", [*READERS, "schedule"])
def test_nothing_in_the_meta_file_is_called(undigested, tmp_path, reader):
    flag = tmp_path / "flag"
    meta = torch.load(undigested / META, weights_only=True)
    torch.save({**meta, "callbacks": {"x": Calls(os.system, f"touch {flag}")}}, undigested / META)
    readers = {**READERS, "schedule": lambda checkpoint: CheckpointFiles(checkpoint).meta()}
    with pytest.raises(
        ValueError, match=r"meta\.pt is invalid: it names \w+\.system, which no checkpoint needs"
    ) as caught:
        readers[reader](undigested)
    assert "\n" not in str(caught.value)
    assert not flag.exists()


def replace_entry(checkpoint, name, value):
    """Let a value of the state be what `torch.save` makes of another one."""
    stored = io.BytesIO()
    torch.save(value, stored)
    metadata = pickle.loads((checkpoint / METADATA).read_bytes())
    index = next(index for index in metadata.storage_data if index.fqn == name)
    place = metadata.storage_data[index]
    place.offset, place.length = (checkpoint / SHARD).stat().st_size, len(stored.getvalue())
    with open(checkpoint / SHARD, "ab") as file:
        file.write(stored.getvalue())
    (checkpoint / METADATA).write_bytes(pickle.dumps(metadata))


@pytest.mark.parametrize("name", [LR, "state_dict.model.norm.weight"])
def test_nothing_among_the_states_is_called(undigested, tmp_path, name):
    """Values of an optimizer's groups, and what stands in a tensor's place."""
    flag = tmp_path / "flag"
    replace_entry(undigested, name, {"lr": Calls(os.system, f"touch {flag}")})
    with pytest.raises(ValueError, match=r"it names \w+\.system, which no checkpoint needs") as caught:
        resume(undigested)
    assert "\n" not in str(caught.value)
    assert not flag.exists()


def test_classes_of_torch_stay_as_they_are(undigested):
    """A pickle may set attributes of a class that it names: here only those of a stand-in."""
    from torch.distributed.checkpoint.metadata import Metadata

    state = b"N}\x8c\x08poisonedK\x01s\x86"  # (None, {"poisoned": 1})
    poison = b"\x80\x04ctorch.distributed.checkpoint.metadata\nMetadata\n" + state + b"b."
    (undigested / METADATA).write_bytes(poison)
    with pytest.raises(ValueError, match=r"\.metadata cannot be read"):
        CheckpointFiles(undigested).metadata()
    assert not hasattr(Metadata, "poisoned")


@pytest.mark.parametrize("name", ["/etc/passwd", "../step-00000006/" + SHARD, "a/b", "..", ""])
def test_places_outside_the_checkpoint_are_refused(undigested, name):
    metadata = pickle.loads((undigested / METADATA).read_bytes())
    metadata.storage_data[MetadataIndex(LR)].relative_path = name
    (undigested / METADATA).write_bytes(pickle.dumps(metadata))
    with pytest.raises(ValueError, match=r"\.metadata cannot be read \(it names the file .*, outside the checkpoint"):
        resume(undigested)


def test_places_beyond_the_end_are_refused(undigested):
    """A length that is declared is not allocated."""
    metadata = pickle.loads((undigested / METADATA).read_bytes())
    for place in metadata.storage_data.values():
        place.length = 1 << 40
    (undigested / METADATA).write_bytes(pickle.dumps(metadata))
    with pytest.raises(
        ValueError, match=r"\.metadata is invalid: it places 1,099,511,627,776 bytes at [\d,]+ of __0_0"
    ):
        start_from(undigested)


def test_a_value_that_asks_for_memory_is_refused(undigested):
    replace_entry(undigested, "state_dict.model.norm.weight", torch.ones(1).expand(10**9))
    with pytest.raises(
        ValueError, match=r"__0_0\.distcp cannot be read \(it declares a tensor of 1,000,000,000 elements"
    ):
        start_from(undigested)


@pytest.mark.parametrize("reader", READERS)
def test_a_memo_without_end_is_refused(undigested, reader):
    (undigested / METADATA).write_bytes(b"\x80\x04Nr\xff\xff\xff\x1f.")
    with pytest.raises(ValueError, match=r"\.metadata cannot be read \(the pickle is broken at byte 8\)") as caught:
        READERS[reader](undigested)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_not_waited_for(undigested):
    (undigested / SHARD).unlink()
    os.mkfifo(undigested / SHARD)
    with pytest.raises(ValueError, match="not a regular file"):
        start_from(undigested)


def test_chunks_that_are_one_object_many_times_do_not_fill_the_memory(undigested):
    metadata = pickle.loads((undigested / METADATA).read_bytes())
    value = metadata.state_dict_metadata["state_dict.model.norm.weight"]
    value.chunks = value.chunks * 1000
    metadata.state_dict_metadata |= dict.fromkeys(map(str, range(10_000)), value)
    (undigested / METADATA).write_bytes(pickle.dumps(metadata))
    with pytest.raises(ValueError, match="more chunks than its bytes can hold"):
        CheckpointFiles(undigested).metadata()


def test_checkpoints_without_digests_are_read_and_it_is_said_once(undigested, run, monkeypatch):
    said = []
    monkeypatch.setattr(log, "info", said.append)
    resumed = resume(undigested)
    start_from(undigested)
    assert resumed.steps[-1] == run[1].steps[-1]
    assert [text for text in said if "without digests" in text] == [
        f"{undigested} was written without digests: damage in it cannot be seen"
    ]


def test_what_is_read_is_what_torch_reads(checkpoint):
    """The metadata made from records equals the one that pickle makes."""
    ours, theirs = CheckpointFiles(checkpoint).metadata(), pickle.loads((checkpoint / METADATA).read_bytes())
    assert ours.storage_data == theirs.storage_data
    assert ours.planner_data == theirs.planner_data
    assert list(ours.state_dict_metadata) == list(theirs.state_dict_metadata)
    tensors = {name: value for name, value in theirs.state_dict_metadata.items() if hasattr(value, "size")}
    assert tensors
    for name, value in tensors.items():
        found = ours.state_dict_metadata[name]
        assert (found.size, found.chunks, found.properties.dtype) == (value.size, value.chunks, value.properties.dtype)


def overwrite(checkpoint, name, value):
    """Set the last number of a tensor, in the bytes of its shard."""
    places = CheckpointFiles(checkpoint).metadata().storage_data
    place = next(place for index, place in places.items() if index.fqn == name)
    data = bytearray((checkpoint / SHARD).read_bytes())
    stored = data[place.offset : place.offset + place.length]
    tensor = torch.load(io.BytesIO(stored), weights_only=True)
    begin = place.offset + stored.index(tensor.numpy().tobytes()) + tensor.nbytes - tensor.element_size()
    data[begin : begin + tensor.element_size()] = torch.tensor([value], dtype=tensor.dtype).numpy().tobytes()
    # torch's archives have a checksum of each member, which its reader does not compare.
    (checkpoint / SHARD).write_bytes(data)


NOT_FINITE = {
    "NaN": ("state_dict.model.norm.weight", float("nan"), [start_from, resume]),
    "infinity": ("state_dict.model.layers.0.feed_forward.w2.weight", -float("inf"), [start_from, resume]),
    "a moment of the optimizer": (
        "optimizer_0.state.model.layers.0.feed_forward.w2.weight.exp_avg",
        float("nan"),
        [resume],
    ),
}


@pytest.mark.parametrize("what", NOT_FINITE)
def test_a_value_that_is_not_finite_is_refused_by_its_tensor(undigested, what):
    name, value, readers = NOT_FINITE[what]
    overwrite(undigested, name, value)
    for reader in readers:
        with pytest.raises(ValueError, match=rf"{name} has 1 of [\d,]+ values that are NaN or infinite") as caught:
            reader(undigested)
        assert "\n" not in str(caught.value)


# -- damage ------------------------------------------------------------------------------------------------------------


def flip(data, draw):
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]


def zero(data, draw):
    begin = draw.randrange(len(data))
    length = draw.randrange(1, 513)
    zeroed = data[:begin] + bytes(len(data[begin : begin + length])) + data[begin + length :]
    return zeroed if zeroed != data else flip(data, draw)


DAMAGES = {
    "flip": flip,
    "zero": zero,
    "cut": lambda data, draw: data[: draw.randrange(len(data))],
    "appended": lambda data, draw: data + draw.randbytes(draw.randrange(1, 100)),
}


@pytest.mark.parametrize("name", [SHARD, METADATA, META, DIGESTS])
def test_every_damage_is_found_and_the_file_named(checkpoint, name):
    """By export, the strictest: all bytes are compared."""
    good = (checkpoint / name).read_bytes()
    draw = random.Random(name)
    for number in range(60):
        damage = list(DAMAGES)[number % len(DAMAGES)]
        (checkpoint / name).write_bytes(DAMAGES[damage](good, draw))
        with pytest.raises((ValueError, FileNotFoundError), match=r"(is|are) (damaged|missing)") as caught:
            open_weights(checkpoint).check_files()
        assert name in str(caught.value), damage
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reader", [start_from, resume])
@pytest.mark.parametrize("name", [SHARD, METADATA, META, DIGESTS])
def test_damage_stops_a_run_that_reads_it(checkpoint, reader, name):
    data = bytearray((checkpoint / name).read_bytes())
    data[len(data) // 2] ^= 4
    (checkpoint / name).write_bytes(data)
    with pytest.raises(ValueError, match="is damaged") as caught:
        reader(checkpoint)
    assert str(caught.value).count(name) == 1
    assert str(caught.value).count("cannot be read") <= 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [SHARD, METADATA, META, DIGESTS])
def test_files_of_another_checkpoint_are_found(checkpoint, run, name):
    shutil.copy(run[0] / "step-00000012" / name, checkpoint / name)
    with pytest.raises(ValueError, match=r"is damaged|does not list"):
        open_weights(checkpoint).check_files()


def test_a_file_that_is_gone_is_named(checkpoint):
    (checkpoint / DIGESTS).unlink()
    with pytest.raises(ValueError, match=r"digests\.json is missing"):
        open_weights(checkpoint)


def test_starting_from_weights_asks_for_whole_weights_alone(checkpoint):
    """Optimizer states are not read, so damage in them only affects a resumed run."""
    digests, _ = read_sealed(checkpoint / DIGESTS, "", lambda value: True)
    whole = (checkpoint / SHARD).read_bytes()
    digests["files"][SHARD] = FileDigest.of(whole, 256).to_json()  # blocks that hold one tensor alone
    (checkpoint / DIGESTS).write_text(seal(digests))
    places = CheckpointFiles(checkpoint).metadata().storage_data

    def damage(prefix):
        found = max((place for index, place in places.items() if index.fqn.startswith(prefix)), key=lambda p: p.length)
        assert found.length > 4 * 256
        data = bytearray(whole)
        data[found.offset + found.length // 2] ^= 4
        (checkpoint / SHARD).write_bytes(data)

    damage("optimizer_0.state.")
    start_from(checkpoint)
    with pytest.raises(ValueError, match=f"{SHARD} is damaged"):
        resume(checkpoint)
    damage("state_dict.model.")
    with pytest.raises(ValueError, match=f"{SHARD} is damaged"):
        start_from(checkpoint)


def test_export_refuses_damage_anywhere(checkpoint, capsys):
    data = bytearray((checkpoint / SHARD).read_bytes())
    data[-1] ^= 1
    (checkpoint / SHARD).write_bytes(data)
    with pytest.raises(ValueError, match="has said why"):
        export(checkpoint)
    assert f"{SHARD} is damaged" in capsys.readouterr().err


SHAPE_CHANGES = {
    "layers without end": (
        {"num_hidden_layers": 10**9},
        "num_hidden_layers is invalid: 1,000,000,000; give at most 10,000",
    ),
    "layers as a float": ({"num_hidden_layers": 2.0}, "num_hidden_layers is invalid: 2.0; give a number"),
    "ids as a text": ({"vocab_size": "61"}, "vocab_size is invalid: '61'; give a number"),
    "more ids than memory": ({"vocab_size": 10**15}, "vocab_size is invalid: 1000000000000000; it must be below"),
    "ids as a tensor": ({"vocab_size": torch.tensor(61)}, "vocab_size is invalid: tensor\\(61\\); give a number"),
    "tied by a text": ({"tie_word_embeddings": "no"}, "tie_word_embeddings is invalid: 'no'; give true or false"),
    "scaling as a list": ({"rope_scaling": [1]}, "must be a mapping"),
    "scaling of unknown keys": ({"rope_scaling": {"a": 1}}, "unexpected keyword argument 'a'"),
    "an unknown key": ({"loops": 2}, "unexpected keyword argument 'loops'"),
}


@pytest.mark.parametrize("name", SHAPE_CHANGES)
def test_a_shape_that_is_none_is_refused_in_one_line(undigested, name):
    change, said = SHAPE_CHANGES[name]
    meta = torch.load(undigested / META, weights_only=True)
    meta["nbg_lightning"]["shape"].update(change)
    torch.save(meta, undigested / META)
    with pytest.raises(ValueError, match=f"its model's shape is invalid .*{said}") as caught:
        open_weights(undigested)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nbg_lightning": [1]}, "was not written by nbg_lightning"),
        ({"global_step": None}, "was not written by nbg_lightning"),
        ({"nbg_lightning": {}}, "no 'shape'"),
        ({"nbg_lightning": {"shape": [1]}}, "its model's shape is invalid"),
    ],
)
def test_meta_files_of_another_form_are_refused(undigested, change, said):
    torch.save({**torch.load(undigested / META, weights_only=True), **change}, undigested / META)
    with pytest.raises(ValueError, match=said):
        open_weights(undigested)


@pytest.mark.parametrize("name", ["tokenizer", "chat_template"])
def test_a_format_of_another_type_is_refused(undigested, name):
    meta = torch.load(undigested / META, weights_only=True)
    meta["nbg_lightning"][name] = [1]
    torch.save(meta, undigested / META)
    with pytest.raises(ValueError, match=rf"its {name} is invalid: \[1\]"):
        checkpoint_tokenizer(str(undigested))


def test_an_archive_that_unpacks_to_more_than_it_has_is_refused():
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save({"weights": torch.zeros(1 << 20)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    with pytest.raises(ValueError, match=r"x cannot be read \(it unpacks to [\d,]+ bytes, more than it has\)"):
        load_plain(packed, "x")
    plain.seek(0)
    assert len(load_plain(plain, "x")["weights"]) == 1 << 20


def test_plain_data_only():
    stream = io.BytesIO()
    torch.save({"step": 3, "weights": torch.ones(2)}, stream)
    stream.seek(0)
    assert load_plain(stream, "x")["step"] == 3
    with pytest.raises(ValueError, match="x cannot be read"):
        load_plain(io.BytesIO(b"no file of torch"), "x")
