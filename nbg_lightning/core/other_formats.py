"""Unsupported weight formats, recognized by file name and first bytes, with what to use instead."""

from __future__ import annotations

from pathlib import Path

_SAVE = "load the model by its own library and save it by transformers' save_pretrained, as safetensors"
_ORIGIN = "give the Hugging Face folder that it was made from"
_ENDINGS = {
    ".gguf": f"GGUF of llama.cpp, mostly quantized; {_ORIGIN}",
    ".ggml": f"GGML of llama.cpp, mostly quantized; {_ORIGIN}",
    ".onnx": f"ONNX; {_ORIGIN}",
    ".npz": f"arrays of MLX or numpy; {_ORIGIN}",
    ".h5": f"TensorFlow's; {_SAVE}",
    ".msgpack": f"Flax's; {_SAVE}",
    ".bin": f"pickled by torch, which may run code when it is read; {_SAVE}",
    ".pt": f"pickled by torch, which may run code when it is read; {_SAVE}",
    ".pth": f"pickled by torch, which may run code when it is read; {_SAVE}",
}
_BEGINNINGS = {
    b"GGUF": _ENDINGS[".gguf"],
    b"version https://git-lfs": "a pointer of git-lfs and not the file; run `git lfs pull` in its folder, or download it again",
    b"PK\x03\x04": _ENDINGS[".pt"],
    b"<!DOCTYPE": "a web page; download it again, logged in where the model asks for it",
    b"<html": "a web page; download it again, logged in where the model asks for it",
}
_OF_A_RUN = {
    "training_args.bin",
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "scheduler.bin",
    "rng_state.pth",
}  # no weights
_LONGEST = max(map(len, _BEGINNINGS))


def other_format(place: Path) -> str | None:
    """Name the format of a file, or of the first such file in a folder, and what to use instead; None if unknown.

    Args:
        place: a place without weights in a supported format.
    """
    if not place.is_dir():
        found = _of_file(place)
        return found and f"it is {found}"
    for file in sorted(place.iterdir()):
        if file.is_file() and (found := _of_file(file)):
            return f"{file.name} is {found}"
    return None


def _of_file(file: Path) -> str | None:
    if file.name in _OF_A_RUN:
        return None
    if file.suffix in _ENDINGS:
        return _ENDINGS[file.suffix]
    if file.suffix not in ("", ".safetensors") or not file.is_file():
        return None
    with file.open("rb") as stream:
        begin = stream.read(_LONGEST)
    return next((found for start, found in _BEGINNINGS.items() if begin.startswith(start)), None)
