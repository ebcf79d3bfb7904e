"""Where each stage's files lie, relative to the run folder: the one place that knows.

Stages never import each other; they meet in these folders and in the formats of docs/formats.md.
"""

from __future__ import annotations

from pathlib import Path

TOKENIZER = "tokenizer"
REPORT = "report"
ABLATION = "ablation"
INSTRUCT_DATA = "instruct_data/every_arm"
TENSORBOARD = "tensorboard"  # no unit's folder: its files hold times
COST = "cost"  # likewise

# Files that more than one stage knows by name.
TOKENIZER_FILE = "tokenizer.json"
DATASET = "dataset.json"  # in tokens(source)
COPIES = "degraded_copies.parquet"  # in tokens(source), where the source has copies
CERTIFICATE = "selection.json"  # in keep(arm)
FLIPS = "flips.parquet"  # in sensitivity(arm)
BLEND = "blend.json"  # in blend(arm)
SOURCE_GROUPS = "source_groups.json"  # in groups(rubric, family)
SOURCE_GROUP = "source_group.json"  # in joined(rubric, source)
ANCHORS = "anchors.jsonl"  # in anchors(rubric, group)
HF_EXPORT = "hf"  # in checkpoints(arm) and instruct(arm): as transformers and vLLM load it
WEIGHTS = "weights"  # beside it, where it was trained here: a dist_checkpointing checkpoint
TRAINING = "training.json"  # beside it, where it was trained on a cluster: what the training was
CELLS = "cells.parquet"  # in reliability(rubric, source) and reliability_mask(scoring, source)
GRAM_COUNTS = "counts.npy"  # in gram_counts(baseline, source) and target_counts(baseline, target)
ANSWERS = "answers"  # what was paid for: no unit's folder, read by every unit that asks


def records(source: str) -> str:
    """Returns the folder of a source's records."""
    return f"records/{source}"


def groups(rubric: str, family: str) -> str:
    """Returns the folder of the source groups that a rubric was founded on within one family."""
    return f"groups/{rubric}/{family}"


def joined(rubric: str, source: str) -> str:
    """Returns the folder that says which group a source joined after the founding."""
    return f"joined/{rubric}/{source}"


def judgments(rubric: str, source: str) -> str:
    """Returns the folder of a source's free-form judgments."""
    return f"judgments/{rubric}/{source}"


def anchors(rubric: str, group: str) -> str:
    """Returns the folder of a source group's anchors."""
    return f"anchors/{rubric}/{group}"


def teacher_ratings(rubric: str, source: str) -> str:
    """Returns the folder of a source's ratings by the teacher."""
    return f"teacher_ratings/{rubric}/{source}"


def sft(rubric: str, group: str) -> str:
    """Returns the folder of what a source group's scorer is trained on."""
    return f"sft/{rubric}/{group}"


def scorer(rubric: str, group: str) -> str:
    """Returns the folder of a source group's distilled scorer."""
    return f"scorers/{rubric}/{group}"


def reliability(rubric: str, source: str) -> str:
    """Returns the folder of a scorer's answers about a source's held-back labels, and its cells."""
    return f"reliability/{rubric}/{source}"


def reliability_mask(scoring: str, source: str) -> str:
    """Returns the folder that says which anchors of a source count in a score table."""
    return f"reliability_masks/{scoring}/{source}"


def mode_agreement(rubric: str, group: str, mode: str) -> str:
    """Returns the folder of how far an answer mode agrees with full answers on a source group."""
    return f"mode_agreement/{rubric}/{group}/{mode}"


def retest(rubric: str, group: str, mode: str) -> str:
    """Returns the folder of how far a sampling judge agrees with itself on a source group."""
    return f"retest/{rubric}/{group}/{mode}"


def ratings(rubric: str, source: str) -> str:
    """Returns the folder of a source's ratings under one rubric."""
    return f"ratings/{rubric}/{source}"


def gram_counts(baseline: str, source: str) -> str:
    """Returns the folder of a source's hashed gram counts, of a baseline that weighs by them."""
    return f"baselines/{baseline}/counts/{source}"


def target_counts(baseline: str, target: str) -> str:
    """Returns the folder of the gram counts of what a baseline draws towards."""
    return f"baselines/{baseline}/targets/{target}"


def losses(baseline: str, source: str) -> str:
    """Returns the folder of a reference model's loss on every record of a source."""
    return f"baselines/{baseline}/losses/{source}"


def baseline_answers(baseline: str, source: str) -> str:
    """Returns the folder of what another method's judge said of every record of a source."""
    return f"baselines/{baseline}/answers/{source}"


def record_scores(scoring: str, source: str) -> str:
    """Returns the folder of a source's record scores; one score table serves many arms."""
    return f"record_scores/{scoring}/{source}"


def tokens(source: str) -> str:
    """Returns the folder of a source's token dataset."""
    return f"tokens/{source}"


def keep(arm: str) -> str:
    """Returns the folder of an arm's keep masks and certificate."""
    return f"keep/{arm}"


def decisions(prefix: str) -> str:
    """Returns the file in keep(arm) that says what became of each document of a prefix."""
    return f"{prefix}.decisions.npy"


def sensitivity(arm: str) -> str:
    """Returns the folder of what undecided reliability cells would change in an arm."""
    return f"sensitivity/{arm}"


def blend(arm: str) -> str:
    """Returns the folder of what Megatron reads for an arm."""
    return f"blends/{arm}"


def checkpoints(arm: str) -> str:
    """Returns the folder of an arm's training run."""
    return f"checkpoints/{arm}"


def held_out(model: str) -> str:
    """Returns the folder of a trained arm's loss on the documents that are held out."""
    return f"held_out/{model}"


def instruct(arm: str) -> str:
    """Returns the folder of an arm's instruction-tuned model."""
    return f"instruct/{arm}"


def evaluation(model: str) -> str:
    """Returns the folder of a model's answers to the benchmarks and their verdicts."""
    return f"eval/{model}"


def contamination(source: str) -> str:
    """Returns the folder of what a source's records hold of the benchmarks.

    Not contamination/<source>: there `mira decontaminate` writes, a folder per suite.
    """
    return f"benchmark_hits/{source}"


def eval_cache(run_folder: Path) -> Path:
    """Returns the folder, no unit's, of gold values and verdicts that all models share."""
    return run_folder / ".eval_cache"


_UNIT_FOLDERS = frozenset(
    {
        "anchors",
        "baselines",
        "benchmark_hits",
        "blends",
        "checkpoints",
        "eval",
        "groups",
        "held_out",
        "instruct",
        "instruct_data",
        "joined",
        "judgments",
        "keep",
        "mode_agreement",
        "ratings",
        "record_scores",
        "records",
        "reliability",
        "reliability_masks",
        "retest",
        "scorers",
        "sensitivity",
        "sft",
        "teacher_ratings",
        "tokens",
    }
)


def is_unit(name: str) -> bool:
    """Returns whether an input's name is the folder of a unit, and not of a file from outside."""
    return "/" in name and name.partition("/")[0] in _UNIT_FOLDERS
