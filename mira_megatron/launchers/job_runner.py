"""What `mira job FILE` does: one process per node of a SLURM job, or one by hand.

A job is finished by the manifests of its units and by nothing else: a training that ends with 0
after it has saved on a signal is not. Exit codes, which the job's script acts upon:

    0    finished; of a part of an array: nothing is left that nobody works on
    2    something the user can fix: another recipe than was submitted, input that is not finished
    75   not finished, run me again: told to end, failed less than max_failures + 1 times, or
         another process still writes what this one is to write
    1    failed too often, with the reason

The head decides; the processes of other nodes train or serve when it says so, and end with its exit
code (node_turns.py). One that fails writes that down, which is how the head learns of it.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.file_lock import IN_USE, LockHeldError, held_lock
from mira_megatron.launchers.job_children import (
    AttemptFailed,
    AttemptOver,
    JobChildren,
    Stopped,
)
from mira_megatron.launchers.job_failures import JobFailures
from mira_megatron.launchers.job_file import JobFile, recipe_digest
from mira_megatron.launchers.job_graph import WHATEVER_BECAME
from mira_megatron.launchers.job_place import JobPlace
from mira_megatron.launchers.node_turns import NodeTurns
from mira_megatron.launchers.serving_job import Servers, endpoint_words, running_servers
from mira_megatron.launchers.training_ranks import exit_words, run_ranks
from mira_megatron.pipeline import check_inputs, unit_states
from mira_megatron.training.training_commands import TrainingCommands, training_commands

logger = logging.getLogger(__name__)

Trainings = Callable[[Recipe, str, "str | None"], list[TrainingCommands]]
DONE, FAILED, REFUSED, RUN_AGAIN = 0, 1, 2, 75  # 75: EX_TEMPFAIL
_IN_USE_SECONDS = 60.0  # until it is worth to look again; an old node's process ends within that
_LOOK_SECONDS = 1.0  # between two looks at what other nodes wrote, on a file system for all
_SAYING_SECONDS = 5.0  # for another node to write that its server has ended


class _Refused(Exception):
    """A command said what its user can fix."""


class _InUse(Exception):
    """Another process writes what a command is to write."""


def run_job(
    path: Path,
    place: JobPlace,
    *,
    now: Callable[[], float] = time.time,
    trainings: Trainings = training_commands,
    in_use_seconds: float = _IN_USE_SECONDS,
) -> int:
    """Runs one process of a job and returns its exit code; `trainings` says what trains a stage.

    `in_use_seconds` pass before the exit code that asks for another attempt, where another process
    still writes. Raises ValueError or FileNotFoundError, exit code 2, for what the user can fix.
    """
    job = JobFile.read(path)
    failures = JobFailures(job.folder, place, job.max_failures, now)
    turns = NodeTurns(job.folder, place)
    code = FAILED  # of other nodes, where this one ends with an exception
    try:
        recipe = _submitted_recipe(job)
        if failures.are_too_many:
            return (code := _given_up(job, failures))
        with JobChildren() as children:
            run = _Run(job, recipe, place, children, trainings, failures, turns)
            return (code := _attempt(run, children, in_use_seconds))
    finally:
        if place.is_head:
            turns.end(code)


def _attempt(run: _Run, children: JobChildren, in_use_seconds: float) -> int:
    """Returns the exit code of one attempt by one process."""
    job, failures = run.job, run.failures
    try:
        return run.work()
    except _Refused as refusal:
        logger.error("%s: %s", job.name, refusal)
        return REFUSED
    except (_InUse, LockHeldError) as in_use:
        logger.warning("%s: %s; the next attempt is to find it free", job.name, in_use)
        children.pause(in_use_seconds)
    except Stopped:
        logger.warning("%s: stopped; the next attempt goes on from here", job.name)
    except AttemptOver as over:
        logger.warning("%s: %s", job.name, over)
    except AttemptFailed as failure:
        if children.is_stopping:
            # SLURM tells every process of a step to end, servers too, whose end is no failure then.
            logger.warning("%s: stopped (%s); the next attempt goes on", job.name, failure)
        else:
            run.fail(failure)
    return _given_up(job, failures) if failures.are_too_many else RUN_AGAIN


def _submitted_recipe(job: JobFile) -> Recipe:
    """Returns the recipe; ValueError where it is not what was submitted."""
    recipe = load_recipe(job.recipe, job.overrides)
    if recipe_digest(recipe) != job.recipe_digest:
        raise ValueError(
            f"{job.recipe}: changed since this job was submitted, so it does nothing. Submit again "
            f"with `mira submit {job.recipe}`"
        )
    if recipe.run_folder != job.run_folder:
        raise ValueError(
            f"{job.path}: this job is for {job.run_folder}, but started in {Path.cwd()} its recipe "
            f"names {recipe.run_folder}. Start it in the folder that it was submitted from"
        )
    return recipe


def _given_up(job: JobFile, failures: JobFailures) -> int:
    failed = failures.of_this_job()
    logger.error(
        "%s: failed %d times, and max_failures=%d: not run again. The last time: %s. When that is "
        "put right, `mira submit` goes on from here",
        job.name,
        len(failed),
        job.max_failures,
        failed[-1].reason,
    )
    return FAILED


def _command_name(words: Sequence[str]) -> str:
    """Returns as much of a command as tells which it is; the rest is long, and in job.json."""
    if _is_mira(words):
        return f"mira {words[3]}"
    return " ".join([Path(words[1]).name, *words[2:3]])


def _is_mira(words: Sequence[str]) -> bool:
    return words[1] == "-m"


def _problem(servers: Servers) -> AttemptFailed | None:
    try:
        servers.check()
    except AttemptFailed as failure:
        return failure
    return None


class _Run:
    """One attempt at a job by one process."""

    def __init__(
        self,
        job: JobFile,
        recipe: Recipe,
        place: JobPlace,
        children: JobChildren,
        trainings: Trainings,
        failures: JobFailures,
        turns: NodeTurns,
    ) -> None:
        self.job = job
        self.failures = failures
        self._recipe = recipe
        self._place = place
        self._children = children
        self._trainings = trainings
        self._turns = turns
        self._next_look = 0.0

    def work(self) -> int:
        """Returns 0 when the job, or its part of an array, is finished; else raises.

        On another node than the head's: the head's exit code.
        """
        if not self._place.is_head:
            return self._help()
        if not self._unfinished():
            logger.info("%s: already done", self.job.name)
            return DONE
        if self.job.stage not in WHATEVER_BECAME:  # it says itself what is missing
            check_inputs(self._recipe, self.job.stage, self.job.only)
        match self.job.kind:
            case "train":
                self._train()
            case "serve":
                self._serve()
            case _:
                self._run_stage()
        self._check_finished()
        return DONE

    def fail(self, failure: AttemptFailed) -> None:
        """Writes down that this attempt failed, for the next one and for other nodes."""
        self.failures.add(failure.code, str(failure))
        logger.error("%s: %s", self.job.name, failure)

    def _help(self) -> int:
        """Does what the head says, on another node, and returns its exit code.

        One that is told to end still waits for the head, which is told the same and may be saving
        or need this node's half of a server for the answers in flight.
        """
        if self.job.kind == "serve":
            self._help_to_serve()
        else:
            self._help_to_train()
        return self._turns.wait_for_end()

    def _help_to_serve(self) -> None:
        with running_servers(self.job, self._place, self._children) as servers:
            try:
                self._turns.wait(lambda: _problem(servers))
            except AttemptFailed as failure:
                if self._children.is_stopping:
                    return
                # Before the other servers end, which takes a while: the head's stage may well say
                # what it finds wrong with half a server, and that would be the verdict.
                self.fail(failure)
                raise AttemptOver("this node's servers are ended") from failure

    def _help_to_train(self) -> None:
        while (name := self._turns.wait(lambda: None)) is not None:
            (training,) = self._trainings(self._recipe, self.job.stage, name)
            with suppress(Stopped):
                self._run_ranks(training)

    def _check_others(self) -> None:
        """Raises AttemptOver where another node has ended this attempt, as seen a moment ago."""
        if self._place.num_nodes > 1 and time.monotonic() >= self._next_look:
            self._look_at_others()
            self._next_look = time.monotonic() + _LOOK_SECONDS

    def _look_at_others(self) -> None:
        if self.failures.has_failed:
            raise AttemptOver("failed on another node, so it ends on this one, too")
        if self._turns.end_code not in (None, DONE):
            raise AttemptOver("the first node has ended, so this one does, too")

    def _train(self) -> None:
        """Trains what is not finished, one after another; the stage itself then takes each over."""
        unfinished = self._unfinished()
        for training in self._trainings(self._recipe, self.job.stage, self.job.only):
            if training.name not in unfinished:
                continue
            if training.num_nodes != self._place.num_nodes:
                raise ValueError(
                    f"{self.job.path}: {self.job.stage} {training.name} is laid out for "
                    f"{training.num_nodes} nodes, but this job has {self._place.num_nodes}. "
                    "Submit it with `mira submit`, which asks for as many"
                )
            # Two jobs of one training, as when a script was sent twice, would write one checkpoint.
            lock = self.job.run_folder / ".locks" / f"{self.job.stage}.{training.name}.training"
            with held_lock(lock, f"{lock}: another job trains {training.name}"):
                self._train_one(training)
        if self._unfinished():
            self._run_stage()

    def _train_one(self, training: TrainingCommands) -> None:
        for words in training.prepare:
            self._run(words)
        self._turns.give(training.name)
        self._run_ranks(training)
        for words in training.finish:
            self._run(words, refusal_fails=True)
        # What it refuses here is a checkpoint that is not the last: the training ended early.
        self._run(self._stage_words(training.name), refusal_fails=True)

    def _run_ranks(self, training: TrainingCommands) -> None:
        run_ranks(
            training.train,
            num_ranks=self.job.nproc_per_node,
            place=self._place,
            children=self._children,
            check_others=self._check_others,
        )

    def _serve(self) -> None:
        asked = endpoint_words(self.job, self._recipe, self._place)
        words = self._stage_words(self.job.only, asked)
        with running_servers(self.job, self._place, self._children, self._check_others) as servers:
            servers.wait_until_ready()
            stage = self._children.start(words)
            code = servers.watch(stage)
            if code and self._place.num_nodes > 1:
                # The stage saw half a server end before that node could say so.
                self._children.pause(_SAYING_SECONDS)
                self._look_at_others()
            self._judge(words, code)
            self._turns.give(None)  # before the servers end, which those of other nodes do not bear

    def _run_stage(self) -> None:
        self._run(self._stage_words(self.job.only))

    def _run(self, words: Sequence[str], *, refusal_fails: bool = False) -> None:
        self._judge(words, self._children.run(words), refusal_fails=refusal_fails)

    def _judge(self, words: Sequence[str], code: int, *, refusal_fails: bool = False) -> None:
        """Raises what an exit code other than 0 means."""
        if code == 0:
            return
        if self._children.is_stopping:
            raise Stopped
        reason = f"{_command_name(words)} {exit_words(code)}"
        if code == IN_USE and _is_mira(words):
            raise _InUse(f"{reason}: another process has what it writes")
        if code == REFUSED and not refusal_fails:
            raise _Refused(f"{reason}, with the reason above")
        raise AttemptFailed(code, reason)

    def _stage_words(self, only: str | None, more: Sequence[str] = ()) -> list[str]:
        job = self.job
        words = [sys.executable, "-m", "mira_megatron.cli", job.stage, str(job.recipe)]
        words += [*job.overrides, *more, "--workers", str(job.workers)]
        words += [] if only is None else [f"--only={only}"]
        return [*words, "--share"] if job.shared else words

    def _unfinished(self) -> dict[str, str]:
        """Returns the units of the job that are not done, by name, with their states."""
        return {
            unit.name: state
            for unit, state in unit_states(self._recipe, [self.job.stage], only=self.job.only)
            if state != "done"
        }

    def _check_finished(self) -> None:
        unfinished = self._unfinished()
        if not unfinished:
            logger.info("%s: done", self.job.name)
            return
        if self.job.shared:
            # Others hold the parts that are left; should they fail, the job after the array is
            # there to do them.
            logger.info("%s: what is left, others work on", self.job.name)
            return
        if self._children.is_stopping:
            raise Stopped
        states = ", ".join(f"{name} is {state}" for name, state in unfinished.items())
        raise AttemptFailed(0, f"it ended well, but is not finished: {states}")
