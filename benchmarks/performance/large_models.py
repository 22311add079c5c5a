"""Start and writing of large models from a Hugging Face folder: time, and peak memory above that of a process with the imports.

    python benchmarks/performance/large_models.py [--start nanbeige4-3b] [--write qwen2.5-7b] [--ranks 8]

The folders have the right names and sizes, and zeros as weights, which take no room on the disk. Each measurement is a process
of its own: the start of one rank of several (a fake process group: nothing is exchanged), which makes its shards in float32 and
reads them; and the rewriting of a whole folder, as `nbg import` and `nbg export` write one, without their comparison of logits,
which needs the whole model in float32. What is written takes room until the end.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from paired import resident_bytes, write_result

FILE_BYTES = 5 * 10**9


def make(folder: Path, preset_name: str) -> None:
    """A folder of zeros in bfloat16."""
    from nbg_lightning.core import preset
    from nbg_lightning.core.hf_config import make_hf_config
    from nbg_lightning.core.names import hf_name
    from nbg_lightning.core.parameter_shapes import groups_by_size, parameter_shapes

    shape = preset(preset_name)
    shapes = parameter_shapes(shape)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(make_hf_config(shape, "bfloat16")))
    groups, index = list(groups_by_size(shapes, 2, FILE_BYTES)), {}
    for number, names in enumerate(groups, start=1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        header, end = {}, 0
        for name in names:
            begin, end = end, end + 2 * math.prod(shapes[name])
            header[hf_name(name)] = {"dtype": "BF16", "shape": list(shapes[name]), "data_offsets": [begin, end]}
            index[hf_name(name)] = file
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / file, "wb") as opened:
            opened.write(len(text).to_bytes(8, "little") + text)
            opened.truncate(8 + len(text) + end)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def start(folder: Path, ranks: int) -> dict[str, float]:
    """The start of a rank, in a fresh process."""
    from torch.distributed.device_mesh import init_device_mesh

    from nbg_lightning.core.config import ParallelConfig
    from nbg_lightning.core.create import create_model
    from nbg_lightning.core.weights import load_base_weights, read_shape
    from nbg_lightning.planning.simulate import fake_group

    with fake_group(ranks):
        mesh = init_device_mesh("cpu", (ranks,))
        before, begin = resident_bytes(), time.perf_counter()
        model = create_model(read_shape(folder), ParallelConfig(), mesh, draw=False)
        load_base_weights(model, folder)
        seconds = time.perf_counter() - begin
        kept = sum(parameter.to_local().nbytes for parameter in model.parameters())
    return {"seconds": seconds, "peak_bytes": resident_bytes() - before, "kept_bytes": kept}


def write(folder: Path) -> dict[str, float]:
    """The rewriting of a folder, in a fresh process."""
    from nbg_lightning.core.hf_folder import write_hugging_face
    from nbg_lightning.core.weight_sources import HuggingFaceFolder

    weights = HuggingFaceFolder(folder)
    before, begin = resident_bytes(), time.perf_counter()
    write_hugging_face(weights, folder.parent / "written", {}, verify=False)
    return {"seconds": time.perf_counter() - begin, "peak_bytes": resident_bytes() - before}


def measured(*words: object) -> dict[str, Any]:
    """What a process of its own measures."""
    command = [sys.executable, __file__, "--measure", *map(str, words)]
    found: dict[str, Any] = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="nanbeige4-3b", help="preset of the model that a rank starts from")
    parser.add_argument("--write", default="qwen2.5-7b", help="preset of the model that is written")
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        kind, folder, *ranks = arguments.measure
        found = start(Path(folder), int(ranks[0])) if kind == "start" else write(Path(folder))
        print(json.dumps(found))
        return
    results = {}
    for kind, name in (("start", arguments.start), ("write", arguments.write)):
        with tempfile.TemporaryDirectory(prefix="large-models-") as temporary:
            folder = Path(temporary) / "model"
            make(folder, name)
            results[kind] = measured(kind, folder, arguments.ranks)
            print(kind, name, results[kind], flush=True)
    settings = {"start": arguments.start, "write": arguments.write, "ranks": arguments.ranks}
    write_result("large_models", settings, results)


if __name__ == "__main__":
    main()
