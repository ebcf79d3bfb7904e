"""The words of the `mira` command: every command and option, in one table's order.

Says what may be typed and nothing about what is then done: that is cli.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mira_megatron import __version__
from mira_megatron.cli_ablate import add_ablate
from mira_megatron.cli_compare import add_compare
from mira_megatron.cli_decontaminate import add_decontaminate
from mira_megatron.cli_evaluate import add_evaluate
from mira_megatron.cli_grade import add_export_predictions, add_grade
from mira_megatron.cli_swe import add_swe
from mira_megatron.cli_tokens import add_tokens_tool
from mira_megatron.cli_words import (
    Commands,
    add_json,
    add_log_level,
    add_recipe,
    add_units_at_once,
    add_workers,
)
from mira_megatron.launchers.units_at_once import SECTIONS
from mira_megatron.pipeline import STAGES

STAGE_HELP = {
    "ingest": "raw files of every source -> records",
    "group": "records of every source -> source groups",
    "discover": "a sample of records + teacher -> free-form judgments",
    "anchor": "judgments of a source group -> its 15 anchors",
    "label": "a larger sample + anchors + teacher -> teacher ratings",
    "sft-data": "teacher ratings -> prompts and answers to train a scorer on",
    "distill": "SFT data of a source group -> its scorer",
    "reliability": "held-back labels + scorer -> agreement per source and anchor",
    "score": "records + anchors + scorer -> 15 ratings per record",
    "aggregate": "ratings -> one score per record",
    "baseline": "scores of other methods: random, DSIR, DataMan, perplexity",
    "tokenize": "records -> Megatron .bin/.idx, one document per record",
    "adopt": "existing .bin/.idx, with ids and scores -> sources, read-only",
    "select": "record scores + token budget -> keep masks and certificate",
    "sensitivity": "undecided reliability cells, flipped -> what each would change in the keep set",
    "contamination": "records + the benchmarks of eval -> what of them each record has",
    "blend": "keep masks -> what Megatron reads, per split",
    "midtrain": "blend -> a short megatron-core training run",
    "held-out": "trained arms + held-out documents -> bits per byte of each",
    "instruct-data": "chats of sources or files -> what every arm is tuned on",
    "instruct-sft": "mid-trained model + that -> an instruction-tuned one per arm",
    "eval": "trained models + a suite of benchmarks -> answers, verdicts and scores",
    "report": "everything above -> report/index.html",
    "ablation": "held-out loss and keep masks of every arm -> one table with tests",
}

# Stages that several processes can work on at once, part by part or model by model.
_SHARED = ("label", "reliability", "score", "baseline", *SECTIONS)


def command_parser() -> argparse.ArgumentParser:
    """Returns the parser of every command."""
    parser = argparse.ArgumentParser(
        prog="mira",
        description="Source-aware data selection for Megatron / NeMo mid-training.",
        epilog="Start with: mira run recipes/demo.yaml",
    )
    parser.set_defaults(
        **{"share": False, "processes": None, "ray": None, "gpus_per_task": None},
        **{"missing": False, "reparse": False, "only": None, "units_at_once": 1},
    )
    parser.add_argument("--version", action="version", version=f"mira-megatron {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = _add_recipe_command(commands, "run", "all stages in order, skipping what is done")
    add_units_at_once(run)
    add_ablate(commands)
    _add_recipe_command(commands, "status", "what is done, with counts, sizes and times")
    _add_plan(commands)
    _add_submit(commands)
    _add_failures(commands)
    _add_explain(commands)
    _add_export(commands)
    for stage in STAGES:
        command = _add_recipe_command(commands, stage, STAGE_HELP[stage])
        command.add_argument("--only", metavar="UNIT", help="the source, group or arm of that name")
        if stage in _SHARED:
            _add_sharing(command, stage)
    _add_rubric_tool(commands)
    add_tokens_tool(commands)
    add_evaluate(commands)
    add_grade(commands)
    add_export_predictions(commands)
    add_swe(commands)
    add_compare(commands)
    add_decontaminate(commands)
    _add_serve(commands)
    _add_doctor(commands)
    _add_job(commands)
    server = commands.add_parser("judge-server", help="the rule judge as an OpenAI-style endpoint")
    server.add_argument("--host", default="127.0.0.1")
    server.add_argument("--port", type=int, default=8377)
    add_log_level(server)
    return parser


def _add_plan(commands: Commands[argparse.ArgumentParser]) -> None:
    text = "what labels, scores and every arm will take: requests, tokens, GPU-hours and money"
    command = commands.add_parser("plan", help=text, description=text)
    add_recipe(command)
    add_json(command)
    add_workers(command)
    add_log_level(command)


def _add_submit(commands: Commands[argparse.ArgumentParser]) -> None:
    text = "send every stage that is left to SLURM, each as a job that waits for what it reads"
    command = commands.add_parser("submit", help=text, description=text)
    add_recipe(command)
    command.add_argument(
        "--cluster", type=Path, required=True, metavar="FILE", help="see launchers/clusters/"
    )
    instead = command.add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true", help="show the jobs, and stop")
    instead.add_argument(
        "--scripts", action="store_true", help="write the scripts, and print how to send them"
    )
    add_log_level(command)


def _add_failures(commands: Commands[argparse.ArgumentParser]) -> None:
    text = "what became of every source's questions, with the first that was not answered"
    command = commands.add_parser("failures", help=text, description=text)
    add_recipe(command)
    add_json(command)
    add_log_level(command)


def _add_explain(commands: Commands[argparse.ArgumentParser]) -> None:
    text = "why a record was kept or dropped: its origin, scores, cutoffs and where it lies"
    command = commands.add_parser("explain", help=text, description=text)
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="a YAML file, see recipes/")
    command.add_argument(
        "record_id", metavar="RECORD_ID", help="or the beginning of one, where only one begins so"
    )
    command.add_argument("overrides", nargs="*", metavar="key=value", help="a setting to change")
    command.add_argument("--source", metavar="NAME", help="look in this source alone")
    add_json(command)
    add_log_level(command)


def _add_export(commands: Commands[argparse.ArgumentParser]) -> None:
    text = "one row per document with an arm's decision, as .parquet, .jsonl or .csv"
    command = commands.add_parser("export", help=text, description=text)
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="a YAML file, see recipes/")
    command.add_argument("output", type=Path, metavar="OUT", help="the file to write")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="a setting to change")
    command.add_argument("--arm", help="which one, where the recipe has several")
    add_log_level(command)


def _add_rubric_tool(commands: Commands[argparse.ArgumentParser]) -> None:
    text = "look at anchors, compare them, and give edited ones a version"
    tool = commands.add_parser("rubric", help=text, description=text)
    words = tool.add_subparsers(dest="word", required=True, metavar="WORD")
    where = "a recipe, a folder of anchors, an anchors.jsonl, or a published table"
    show = words.add_parser("show", help="the anchors of every group, largest cluster first")
    show.add_argument("paths", nargs="+", type=Path, metavar="WHERE", help=where)
    diff = words.add_parser("diff", help="what changed between two versions of a group's anchors")
    diff.add_argument("before", type=Path, metavar="A", help=where)
    diff.add_argument("after", type=Path, metavar="B")
    freeze = words.add_parser("freeze", help="a version for an edited copy of anchors.jsonl")
    freeze.add_argument("path", type=Path, metavar="FILE")
    freeze.add_argument("--output", type=Path, help="the frozen file (default: FILE)")
    for word in (show, diff):
        word.add_argument("--markdown", action="store_true", help="Markdown instead of a table")
    for word in (show, diff, freeze):
        add_log_level(word)


def _add_serve(commands: Commands[argparse.ArgumentParser]) -> None:
    text = "print, or run, the vLLM servers of a group's scorer"
    command = commands.add_parser("serve", help=text, description=text)
    add_recipe(command)
    command.add_argument("--group", required=True, metavar="G", help="the source group")
    command.add_argument(
        "--profile",
        choices=["throughput", "published"],
        default="throughput",
        help="one server per GPU, or one over 8 as the released scorers' cards have it",
    )
    command.add_argument("--gpus", type=int, default=1, help="0: on the CPU (default: 1)")
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=8000, help="of the first server")
    command.add_argument(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="of the environment that has vLLM (default: this one)",
    )
    command.add_argument(
        "--vllm", default="", metavar="WORDS", help='more words for vLLM: --vllm="--seed 1"'
    )
    command.add_argument("--run", action="store_true", help="run them, until one ends")
    add_log_level(command)


def _add_doctor(commands: Commands[argparse.ArgumentParser]) -> None:
    text = "what would waste GPU hours: what is installed, and what a training would read"
    command = commands.add_parser("doctor", help=text, description=text)
    command.add_argument(
        "recipe", nargs="?", type=Path, metavar="RECIPE", help="look at all that a recipe will do"
    )
    command.add_argument("overrides", nargs="*", metavar="key=value", help="a setting to change")
    command.add_argument("--cluster", type=Path, metavar="FILE", help="where it will run")
    command.add_argument(
        "--verify", action="store_true", help="verify blends of any size; large ones take minutes"
    )
    add_json(command)
    command.add_argument(
        "--eval", action="store_true", help="what programs of models can be graded in here"
    )
    command.add_argument(
        "--suite", type=Path, metavar="FILE", help="with --eval: the libraries its benchmarks need"
    )
    command.add_argument("--data-folder", type=Path, metavar="DIR", help="default: the suite's")
    training = command.add_argument_group("a training with recipes/scorer_sft.py, as it is told it")
    training.add_argument("--config", metavar="NAME", help="one of its recipes")
    training.add_argument("--run-folder", type=Path)
    training.add_argument("--rubric")
    training.add_argument("--group", help="the source group")
    training.add_argument("--base", type=Path, help="the base model's Hugging Face folder")
    add_log_level(command)


def _add_job(commands: Commands[argparse.ArgumentParser]) -> None:
    text = "run one job of a cluster, as its script does on every node"
    command = commands.add_parser("job", help=text, description=text)
    command.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="RUN_FOLDER/jobs/NAME/job.json, or with --stage a recipe",
    )
    command.add_argument("overrides", nargs="*", metavar="key=value", help="a setting to change")
    by_hand = command.add_argument_group("a stage of a recipe, as launchers/slurm/ runs it")
    by_hand.add_argument("--stage", choices=list(STAGES))
    by_hand.add_argument("--only", metavar="UNIT", help="the source, group or arm of that name")
    by_hand.add_argument("--workers", type=int, metavar="N", help="processes on a node (1)")
    by_hand.add_argument(
        "--max-failures", type=int, metavar="N", help="after which it is not run again (2)"
    )
    add_log_level(command)


def _add_sharing(command: argparse.ArgumentParser, stage: str) -> None:
    sharing = command.add_mutually_exclusive_group()
    sharing.add_argument(
        "--share",
        action="store_true",
        help="work beside others that were told the same, on any machine",
    )
    sharing.add_argument(
        "--processes", type=int, metavar="N", help="start N that share the work on this machine"
    )
    if stage == "score":
        sharing.add_argument(
            "--missing", action="store_true", help="show which parts are not there yet, and stop"
        )
        _add_ray(command)
    if stage in ("score", "baseline"):
        sharing.add_argument(
            "--reparse",
            action="store_true",
            help="read the answers that are kept once more, and ask nobody anything",
        )


def _add_ray(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="have Ray tasks share the work, --processes of them, on the cluster at ADDRESS "
        "(default: the one that Ray finds, or this machine)",
    )
    command.add_argument(
        "--gpus-per-task",
        type=float,
        metavar="G",
        help="GPUs that Ray gives each task (default: tensor_parallel_size with engine vllm, or 0)",
    )


def _add_recipe_command(
    commands: Commands[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    add_recipe(command)
    command.add_argument("--dry-run", action="store_true", help="show what would run, and stop")
    add_workers(command)
    add_log_level(command)
    return command
