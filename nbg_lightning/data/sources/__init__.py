"""Sources of training text.

A `Source` refers to some text and splits itself into parts: small picklable pieces of work (a byte range of a large file, a
handful of small files, some rows) that any process can read independently. Their order and boundaries depend on the source's
content only, so that preparation is parallel, streaming and restartable. A null or empty text is an empty
document, which preparation skips and counts. Duplicates are kept: removing them is part of building a
corpus.
"""

from nbg_lightning.data.sources.files import file_identity, find_files
from nbg_lightning.data.sources.hugging_face import HuggingFace, HuggingFacePart, load_dataset, split_rows
from nbg_lightning.data.sources.in_memory import InMemory, InMemoryPart
from nbg_lightning.data.sources.json_lines import JsonLines, JsonLinesPart, gzip_lines, json_object, line_number
from nbg_lightning.data.sources.parquet import Parquet, ParquetPart, open_parquet
from nbg_lightning.data.sources.python_packages import PackageSource, PythonPart, docstrings
from nbg_lightning.data.sources.reasoning_gym import ReasoningGym, ReasoningGymPart, worked_steps
from nbg_lightning.data.sources.source import Part, Source, check_text, naming, pack, part_bytes
from nbg_lightning.data.sources.text_folder import TextFolder, TextPart

__all__ = [
    "HuggingFace",
    "HuggingFacePart",
    "InMemory",
    "InMemoryPart",
    "JsonLines",
    "JsonLinesPart",
    "PackageSource",
    "Parquet",
    "ParquetPart",
    "Part",
    "PythonPart",
    "ReasoningGym",
    "ReasoningGymPart",
    "Source",
    "TextFolder",
    "TextPart",
    "check_text",
    "docstrings",
    "file_identity",
    "find_files",
    "gzip_lines",
    "json_object",
    "line_number",
    "load_dataset",
    "naming",
    "open_parquet",
    "pack",
    "part_bytes",
    "split_rows",
    "worked_steps",
]
