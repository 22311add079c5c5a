"""All commands of `nbg`, with what each of them is for."""

TRAINER_COMMANDS = {
    "fit": "train by a YAML file: nbg fit --config configs/pretrain/quickstart.yaml",
    "validate": "validation loss of a checkpoint: nbg validate --config ... --ckpt_path ...",
    "test": "the same through trainer.test, or benchmarks: nbg test --config configs/benchmark/small.yaml",
    "predict": "the loss of every token: nbg predict --config ... --ckpt_path ...",
}
OWN_COMMANDS = {  # name: (module under nbg_lightning.commands, summary)
    "build-annotations": (
        "build_annotations",
        "scores of a sample of a corpus by a strong model and a rubric: what a tagger learns from",
    ),
    "build-cache": (
        "build_cache",
        "build-cache CONFIG: a teacher's and the reference's numbers of all pairs, once, on disk",
    ),
    "build-chains": (
        "build_chains",
        "conversations that train a chain-completion model, from conversations with thinking",
    ),
    "build-corpus": (
        "build_corpus",
        "sources to a corpus: unusable documents, duplicates and benchmark items counted and taken out, signals added",
    ),
    "build-pairs": (
        "build_pairs",
        "preference pairs: a teacher's good answers beside the student's bad ones, scored and filtered",
    ),
    "build-problems": (
        "build_problems",
        "coding problems with public and private tests, backwards from programs, measured by mutants",
    ),
    "build-reasoning": (
        "build_reasoning",
        "chains of thought that lead to refined solutions, checked: SFT conversations with thinking",
    ),
    "build-recall": (
        "build_recall",
        "documents of a corpus that are like seed documents, by BM25 and vectors, bounded by trust and quality",
    ),
    "build-refinements": (
        "build_refinements",
        "refined solutions to instructions: drafts, checklist, evaluators, rewriter, in a loop",
    ),
    "build-selection": (
        "build_selection",
        "from scores to HQ and MQ pools, with a report of histograms and samples, and the YAML that trains on them",
    ),
    "build-tagger": (
        "build_tagger",
        "a small model of an annotator's scores that tags megabytes a second on a core, with its rank correlations",
    ),
    "build-tags": (
        "build_tags",
        "the tagger's scores of every document of a corpus, and what a given model's perplexity says",
    ),
    "compare": ("compare", "compare A B: two results of a benchmark suite, item by item, with intervals"),
    "data": ("data_preview", "data preview CONFIG: the first conversations, with their trained tokens in colour"),
    "export": (
        "export_weights",
        "a checkpoint as a Hugging Face folder, compared with transformers before it is called done",
    ),
    "import": ("import_weights", "a Llama-family model from a Hugging Face folder or the hub, checked and normalized"),
    "pass-rate": ("pass_rate", "pass-rate CONFIG: how often the model solves each question of a GRPO stage, before it"),
    "recipe": ("recipe", "recipe FILE: all stages in one go, skipping what is done, with a report at the end"),
    "schedule": ("schedule", "table and picture of a run's curriculum; --verify proves which samples a checkpoint saw"),
}
