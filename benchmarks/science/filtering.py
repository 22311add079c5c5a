"""End-to-end filtering of real text of known quality: what the tagger learns, its speed, and its memory.

    python benchmarks/science/filtering.py [OUT] [--gigabytes 10]

Labels are real: spam and ham are those of the SpamAssassin corpus (mails without headers), and the quality tier is given by
the source. The report of the selection, with figures and samples, is written to OUT/pools. Memory is that of a process that
tags a corpus of this many gigabytes, which repeats the same parts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
RESULTS = Path(__file__).parent / "results"


def build(out: Path, seed: int) -> dict[str, Any]:
    """Everything from sources to pools; what is there already is used again."""
    import filtering_texts

    from nbg_lightning.construction.filtering.annotate import label_by_source
    from nbg_lightning.construction.filtering.columns import build_columns
    from nbg_lightning.construction.filtering.corpus import build_corpus
    from nbg_lightning.construction.filtering.pools import PoolSize, SelectionSettings
    from nbg_lightning.construction.filtering.retrieval import build_recall
    from nbg_lightning.construction.filtering.rubric import load_rubric
    from nbg_lightning.construction.filtering.selection import build_selection
    from nbg_lightning.construction.filtering.tagger import Tagger, load_annotated, train_tagger
    from nbg_lightning.data.sources import InMemory, JsonLines, PackageSource, Source

    files = filtering_texts.make()
    tiers = filtering_texts.TIERS
    sources: dict[str, Source] = {name: JsonLines(str(file)) for name, file in files.items()}
    sources["code"] = PackageSource("stdlib", "code")
    trust = {name: tier / 9 for name, tier in tiers.items()}
    times = out / "seconds.json"  # of the run in which a step was done
    seconds: dict[str, float] = json.loads(times.read_text()) if times.is_file() else {}
    results: dict[str, Any] = {"processor_seconds": seconds}

    def timed(name: str, begin: float) -> None:
        seconds.setdefault(name, time.process_time() - begin)
        times.write_text(json.dumps(seconds))

    begin = time.process_time()
    corpus = build_corpus(sources, out / "corpus", trust=trust, num_workers=0)
    timed("corpus", begin)
    results["corpus"] = {name: corpus.report[name] for name in ("rows", "bytes", "dropped", "sources")}

    rubric = load_rubric()
    for name, labels in (("spam", {"wanted": {"ham": 9, "spam": 0}}), ("tier", {"tier": tiers})):
        begin = time.process_time()
        label_by_source(corpus, labels, out / f"annotations-{name}", 6000, seed)
        data = load_annotated(corpus, out / f"annotations-{name}")
        results[f"tagger_{name}"] = train_tagger(data, out / f"tagger-{name}", rubric, seed=seed)
        timed(f"tagger_{name}", begin)
    tags = build_columns("tags", corpus, Tagger(out / "tagger-tier"), out / "tags", num_workers=0)
    results["tagging"] = tags.report["this_run"]

    begin = time.process_time()
    tutorial = [
        row["text"] for row in corpus.rows(["source", "text"])
        if row["source"] == "python_doc" and row["text"].startswith(".. _tut-")
    ]  # fmt: skip
    recall = build_recall(corpus, InMemory(tutorial), out / "recall", tags, num_workers=0)
    timed("recall", begin)
    results["recall"] = {
        name: recall.report[name] for name in ("seeds", "recalled", "worth_quantiles", "seed_problems")
    }
    recalled: dict[str, int] = {}
    for row, found in zip(corpus.rows(["source"]), recall.rows(["recall"]), strict=True):
        recalled[row["source"]] = recalled.get(row["source"], 0) + (found["recall"] > 0)
    results["recall"]["by_source"] = recalled

    begin = time.process_time()
    settings = SelectionSettings(high_quality=PoolSize(share=0.3), medium_quality=PoolSize(share=0.4), seed=seed)
    report = build_selection(corpus, [tags, recall], out / "pools", settings, num_workers=0)
    timed("selection", begin)
    results["selection"] = report
    return results


def repeated_corpus(corpus: Path, folder: Path, gigabytes: float) -> int:
    """A corpus of about so many bytes whose parts are links to those of another; returns its bytes."""
    from nbg_lightning.construction.filtering.table import Table, part_file, read_record, table_report

    small = Table(corpus)
    times = max(1, round(gigabytes * 1e9 / small.report["bytes"]))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    records = [read_record(file) for file in small.files]
    for repeat in range(times):
        for index, file in enumerate(small.files):
            os.link(file, part_file(folder, repeat * len(small.files) + index))
    (folder / "report.json").write_text(json.dumps(table_report(records * times)))
    return times * small.report["bytes"]


TAG = """
import sys
from nbg_lightning.construction.filtering.columns import build_columns
from nbg_lightning.construction.filtering.table import Table
from nbg_lightning.construction.filtering.tagger import Tagger
corpus, tagger, out, here = sys.argv[1:]
sys.path.insert(0, here)
from filtering import peak_bytes
table = build_columns("tags", Table(corpus), Tagger(tagger), out, num_workers=0)
print(peak_bytes(), table.report["this_run"]["processor_seconds"])
"""


def peak_bytes() -> int:
    """The most memory that this process has had. (Not getrusage: a new process begins with the peak of its parent.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def memory(out: Path, gigabytes: float) -> dict[str, float]:
    """Peak memory and speed of tagging a corpus of that size in one process."""
    size = repeated_corpus(out / "corpus", out / "repeated", gigabytes)
    command = [sys.executable, "-c", TAG, str(out / "repeated"), str(out / "tagger-tier"), str(out / "repeated-tags")]
    command.append(str(Path(__file__).parent))
    shutil.rmtree(out / "repeated-tags", ignore_errors=True)
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    peak, seconds = map(float, run.stdout.split())
    for folder in ("repeated", "repeated-tags"):
        shutil.rmtree(out / folder)
    return {
        "bytes": size,
        "peak_bytes": peak,
        "processor_seconds": seconds,
        "megabytes_per_second": size / 1e6 / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("runs/filtering-real"))
    parser.add_argument("--gigabytes", type=float, nargs="*", default=[0.1, 1.0], help="sizes for the memory test")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    results = build(arguments.out, arguments.seed)
    peak = peak_bytes()
    results["memory"] = [memory(arguments.out, size) for size in arguments.gigabytes]
    results["peak_bytes_of_the_build"] = peak
    document = {
        "benchmark": "filtering",
        "date": date.today().isoformat(),
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "load": os.getloadavg()[0]},
        "versions": {name: version(name) for name in ("nbg-lightning", "numpy", "scipy", "scikit-learn", "datasketch")},
        "settings": {"seed": arguments.seed, "gigabytes": arguments.gigabytes},
        "results": results,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "filtering.json").write_text(json.dumps(document, indent=1) + "\n")
    spam = results["tagger_spam"]["dimensions"]["wanted"]
    tier = results["tagger_tier"]["dimensions"]["tier"]
    print(f"spam or ham, held out: AUC {spam['auc']:.4f}; tier: rank correlation {tier['rank_correlation']:.3f}")
    for found in results["memory"]:
        print(
            f"{found['bytes'] / 1e9:.2f} GB tagged at {found['megabytes_per_second']:.1f} MB/s of one core, "
            f"peak memory {found['peak_bytes'] / 1e6:,.0f} MB"
        )
    print(f"report: {arguments.out}/pools/report.md")


if __name__ == "__main__":
    main()
