"""What the words of `mira tokens` do; the tools themselves are imported when a word is run."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from mira_megatron import layout
from mira_megatron.config import Recipe, load_recipe, nearest
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.retention.arms import arm_configs
from mira_megatron.tokenization.adopted import adopted_sources

_FAILED = 2  # something the user can fix


def run_tokens_tool(arguments: argparse.Namespace) -> int:
    """Runs one word and returns the exit code."""
    console = Console()
    match arguments.word:
        case "write":
            _write(console, arguments)
        case "merge":
            tool = _module("tokenization.merge")
            prefixes, output = arguments.prefixes, arguments.output
            report = tool.merge(prefixes, output, may_repeat=arguments.may_repeat)
            _module("tokenization.merge_report").print_merge(console, report)
        case "materialise":
            report = _module("tokenization.merge").materialise(arguments.prefix, arguments.output)
            _module("tokenization.merge_report").print_merge(console, report)
        case "verify":
            return _verify(console, arguments)
        case "replay":
            return _replay(console, arguments)
        case "doctor":
            return _doctor(console, arguments)
        case "trace":
            _trace(console, arguments)
        case _:
            _arguments(console, arguments)
    return 0


def _write(console: Console, arguments: argparse.Namespace) -> None:
    tool = _module("tokenization.write_tokens")
    config = tool.WriteConfig(
        tokenizer=arguments.tokenizer,
        eod_token=arguments.eod_token,
        text_field=arguments.text_field,
        id_field=arguments.id_field,
        max_bad_fraction=arguments.max_bad_fraction,
        backend=arguments.backend,
        workers=arguments.workers,
    )
    report = tool.write_tokens(arguments.files, arguments.output, config)
    tool.print_write_report(console, report)


def _verify(console: Console, arguments: argparse.Namespace) -> int:
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    tool = _module("provenance.verify")
    print_verify = _module("provenance.verify_report").print_verify
    sources = sorted([*recipe_sources(recipe), *adopted_sources(recipe)])
    is_ok = True
    for arms in _arms_together(recipe, arguments.arms):
        report = tool.verify(
            recipe.run_folder,
            arms,
            seed=_seed(recipe, arguments),
            sources=sources,
            num_samples=arguments.num_samples,
            cache_folder=arguments.cache,
            full=arguments.full,
        )
        print_verify(console, report)
        is_ok &= report.ok
    return 0 if is_ok else _FAILED


def _replay(console: Console, arguments: argparse.Namespace) -> int:
    replay = _module("provenance.replay")
    tokenizer = _module("tokenization.megatron_datasets").BlendTokenizer
    weights = None if arguments.weights is None else tuple(arguments.weights)
    blend = replay.PrefixBlend(prefixes=tuple(map(str, arguments.prefixes)), weights=weights)
    request = replay.DataRequest(
        blends=(blend, None, None),
        sequence_length=arguments.sequence_length,
        seed=1234 if arguments.seed is None else arguments.seed,  # Megatron-LM's default
        tokenizer=tokenizer(vocab_size=arguments.vocab_size, eod=arguments.eod_id),
        split=arguments.split,
        num_samples=(arguments.num_samples, None, None),
    )
    tool = _module("provenance.verify_foreign")
    report = tool.verify_foreign(request, cache_folder=arguments.cache)
    _module("provenance.verify_report").print_verify(console, report)
    return 0 if report.ok else _FAILED


def _doctor(console: Console, arguments: argparse.Namespace) -> int:
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    if arguments.prebuild and arguments.cache is None:
        raise ValueError("--prebuild needs --cache FOLDER, the trainer's index cache")
    arms = _named_arms(recipe, arguments.arms)
    healthy = [arm for arm in arms if _is_healthy(console, recipe, arm, arguments)]
    for arm in arms if arguments.prebuild else ():
        if arm not in healthy:
            console.print(f"Arm {arm}: no caches are built, because of the errors above")
            continue
        request = _module("provenance.replay").blend_request(
            _blend(recipe, arm), seed=_seed(recipe, arguments), num_samples=arguments.num_samples
        )
        built = _module("provenance.prebuild").prebuild(request, arguments.cache)
        console.print(
            f"{built.cache_folder}: {built.num_files_written:,} files built for arm {arm}, "
            f"{built.num_files_found:,} were there. They are those of mira midtrain and of "
            "mira_megatron's own providers; another tokenizer class has other keys "
            "(docs/into-megatron.md)",
            soft_wrap=True,
        )
    return 0 if healthy == arms else _FAILED


def _is_healthy(console: Console, recipe: Recipe, arm: str, arguments: argparse.Namespace) -> bool:
    """Prints what is found of an arm, and returns whether none of it is an error."""
    tool = _module("provenance.tokens_doctor")
    findings = tool.examine(
        _blend(recipe, arm),
        cache_folder=arguments.cache,
        num_samples=arguments.num_samples,
        data_folders=arguments.packed,
    )
    console.print(f"Arm {arm}", style="bold")
    tool.print_findings(console, findings)
    error = _module("doctor.finding").ERROR
    return all(finding.level != error for finding in findings)


def _trace(console: Console, arguments: argparse.Namespace) -> None:
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    (arm,) = _named_arms(recipe, [arguments.arm] if arguments.arm else [_only_arm(recipe)])
    _check_rank_options(arguments)
    training = _training(recipe, arm, arguments)
    printing = _module("provenance.trace_printing")
    if arguments.record is not None:
        found = _module("provenance.record_uses").uses(training, arguments.record)
        lines, show = printing.uses_lines, printing.print_uses
    else:
        found = _module("provenance.trace").trace(
            training, iteration=arguments.iteration, rank=_data_parallel_rank(arguments)
        )
        lines, show = printing.trace_lines, printing.print_trace
    if not arguments.json:
        show(console, found)
        return
    for line in lines(found):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _check_rank_options(arguments: argparse.Namespace) -> None:
    """Raises ValueError for options that would be accepted and then decide nothing."""
    is_parallel = (arguments.tp, arguments.pp, arguments.cp) != (1, 1, 1)
    if arguments.record is not None and (arguments.rank is not None or is_parallel):
        raise ValueError(
            "--record tells the ranks that read it: leave out --rank, --tp, --pp, --cp"
        )
    if is_parallel and arguments.rank is None:
        raise ValueError("--tp, --pp and --cp say which global rank is meant: give --rank too")


def _training(recipe: Recipe, arm: str, arguments: argparse.Namespace) -> Any:
    """Returns the training that is traced: the recipe's own, but for what the options say."""
    own = _own_training(recipe)
    sizes = {
        name: getattr(arguments, name) or own.get(name)
        for name in ("micro_batch_size", "global_batch_size")
    }
    for name, size in sizes.items():
        if size is None:
            option = name.replace("_", "-")
            raise ValueError(f"{recipe.path}: no midtrain section says it: give --{option}")
    # The recipe's last iteration is that of its own batches and its own data.
    is_own = (
        arguments.num_samples is None
        and arguments.cache is None
        and sizes["global_batch_size"] == own.get("global_batch_size")
    )
    ramp = arguments.rampup_batch_size
    return _module("provenance.traced_training").TracedTraining(
        run_folder=recipe.run_folder,
        arm=arm,
        seed=_seed(recipe, arguments),
        **sizes,
        data_parallel_size=arguments.dp,
        scoring=arm_configs(recipe)[arm].score,
        num_samples=arguments.num_samples,
        cache_folder=arguments.cache,
        train_iters=arguments.train_iters or (own.get("train_iters") if is_own else None),
        dataloader_type=arguments.dataloader_type,
        start_iteration=arguments.start_iteration,
        rampup_batch_size=None if ramp is None else tuple(ramp),
    )


def _own_training(recipe: Recipe) -> Mapping[str, Any]:
    midtrain = recipe.values.get("midtrain")
    training = midtrain.get("training") if isinstance(midtrain, Mapping) else None
    return training if isinstance(training, Mapping) else {}


def _data_parallel_rank(arguments: argparse.Namespace) -> int | None:
    sizes = (arguments.tp, arguments.pp, arguments.cp)
    if arguments.rank is None or sizes == (1, 1, 1):
        rank: int | None = arguments.rank
        return rank
    rank = _module("provenance.batch_order").data_parallel_rank(
        arguments.rank,
        tensor_parallel_size=arguments.tp,
        pipeline_parallel_size=arguments.pp,
        context_parallel_size=arguments.cp,
        data_parallel_size=arguments.dp,
    )
    return rank


def _arguments(console: Console, arguments: argparse.Namespace) -> None:
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    tool = _module("tokenization.argument_files")
    arms = _named_arms(recipe, arguments.arms)
    blends = {arm: _blend(recipe, arm) for arm in arms}
    for arm, blend in blends.items():
        console.print(f"Arm {arm}", style="bold")
        files = tool.write_argument_files(
            blend, arguments.output / arm, cache_folder=arguments.cache
        )
        tool.print_argument_files(console, files)
    if arguments.global_batch_size is not None:
        phases = tool.phase_arguments(
            [blends[arm] for arm in arms], global_batch_size=arguments.global_batch_size
        )
        tool.print_phases(console, arms, phases)


def _blend(recipe: Recipe, arm: str) -> dict[str, Any]:
    blend: dict[str, Any] = _module("tokenization.megatron_datasets").read_blend(
        recipe.run_folder / layout.blend(arm)
    )
    return blend


def _arms(recipe: Recipe) -> list[str]:
    return list(arm_configs(recipe))


def _arms_together(recipe: Recipe, named: list[str]) -> list[list[str]]:
    """Returns the arms to be verified together: those named, or each with what it goes without."""
    if named:
        return [_named_arms(recipe, named)]
    configs = arm_configs(recipe)
    earlier_phases = {other for config in configs.values() for other in config.without}
    return [[*config.without, arm] for arm, config in configs.items() if arm not in earlier_phases]


def _named_arms(recipe: Recipe, named: list[str]) -> list[str]:
    """Returns the arms that were named, or all; ValueError for one the recipe does not have."""
    arms = _arms(recipe)
    for arm in named:
        if arm not in arms:
            raise ValueError(f"{recipe.path}: no arm {arm!r}.{nearest(arm, arms)}")
    return named or arms


def _only_arm(recipe: Recipe) -> str:
    arms = _arms(recipe)
    if len(arms) > 1:
        raise ValueError(f"{recipe.path}: name one of its arms: --arm {' | '.join(arms)}")
    return arms[0]


def _seed(recipe: Recipe, arguments: argparse.Namespace) -> int:
    seed: int = recipe.seed if arguments.seed is None else arguments.seed
    return seed


def _module(name: str) -> Any:
    return importlib.import_module(f"mira_megatron.{name}")
