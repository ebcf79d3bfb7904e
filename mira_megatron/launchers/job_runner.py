"""What `mira job FILE` does: one process per node of a SLURM job, or one by hand.

A job is finished by the manifests of its units and by nothing else: a training that ends with 0
after it has saved on a signal is not. Exit codes, which the job's script acts upon:

    0    finished; of a part of an array: nothing is left that nobody works on
    2    something the user can fix: another recipe than was submitted, input that is not finished
    75   not finished, run me again: told to end, or failed less than max_failures + 1 times
    1    failed too often, with the reason

The head decides; the processes of other nodes train or serve when it says so (node_turns.py).
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.launchers.job_children import AttemptFailed, JobChildren, Stopped
from mira_megatron.launchers.job_failures import JobFailures
from mira_megatron.launchers.job_file import JobFile, recipe_digest
from mira_megatron.launchers.job_place import JobPlace
from mira_megatron.launchers.node_turns import NodeTurns
from mira_megatron.launchers.serving_job import Servers, endpoint_words, running_servers
from mira_megatron.launchers.training_ranks import exit_words, run_ranks
from mira_megatron.pipeline import check_inputs, unit_states
from mira_megatron.training.training_commands import TrainingCommands, training_commands

logger = logging.getLogger(__name__)

Trainings = Callable[[Recipe, str, "str | None"], list[TrainingCommands]]
DONE, FAILED, REFUSED, RUN_AGAIN = 0, 1, 2, 75  # 75: EX_TEMPFAIL


class _Refused(Exception):
    """A command said what its user can fix."""


def run_job(
    path: Path,
    place: JobPlace,
    *,
    now: Callable[[], float] = time.time,
    trainings: Trainings = training_commands,
) -> int:
    """Runs one process of a job and returns its exit code; `trainings` says what trains a stage.

    Raises ValueError or FileNotFoundError, exit code 2, for what the user can fix.
    """
    job = JobFile.read(path)
    recipe = _submitted_recipe(job)
    failures = JobFailures(job.folder, place, job.max_failures, now)
    if failures.are_too_many:
        return _given_up(job, failures)
    with JobChildren() as children:
        run = _Run(job, recipe, place, children, trainings)
        try:
            run.work()
        except _Refused as refusal:
            logger.error("%s: %s", job.name, refusal)
            return REFUSED
        except Stopped:
            logger.warning("%s: stopped; the next attempt goes on from here", job.name)
        except AttemptFailed as failure:
            failures.add(failure.code, str(failure))
            logger.error("%s: %s", job.name, failure)
        else:
            return DONE
    # Another node may have failed, of which this one sees but that SLURM tells it to end.
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
    if words[1] == "-m":
        return f"mira {words[3]}"
    return " ".join([Path(words[1]).name, *words[2:3]])


class _Run:
    """One attempt at a job by one process."""

    def __init__(
        self,
        job: JobFile,
        recipe: Recipe,
        place: JobPlace,
        children: JobChildren,
        trainings: Trainings,
    ) -> None:
        self._job = job
        self._recipe = recipe
        self._place = place
        self._children = children
        self._trainings = trainings
        self._turns = NodeTurns(job.folder, place)

    def work(self) -> None:
        """Returns when the job, or its part of an array, is finished; else raises."""
        if not self._place.is_head:
            self._help()
            return
        if not self._unfinished():
            logger.info("%s: already done", self._job.name)
            self._turns.give(None)
            return
        check_inputs(self._recipe, self._job.stage, self._job.only)
        try:
            match self._job.kind:
                case "train":
                    self._train()
                case "serve":
                    self._serve()
                case _:
                    self._run_stage()
        finally:
            self._turns.give(None)
        self._check_finished()

    def _help(self) -> None:
        """Does what the head says, on another node."""
        if self._job.kind == "serve":
            with running_servers(self._job, self._place, self._children) as servers:
                self._turns.wait(lambda: self._what_is_over(servers))
            return
        while (name := self._turns.wait(self._what_is_over)) is not None:
            (training,) = self._trainings(self._recipe, self._job.stage, name)
            self._run_ranks(training)

    def _what_is_over(self, servers: Servers | None = None) -> Exception | None:
        if self._children.is_stopping:
            return Stopped()
        try:
            if servers is not None:
                servers.check()
        except AttemptFailed as failure:
            return failure
        return None

    def _train(self) -> None:
        """Trains what is not finished, one after another; the stage itself then takes each over."""
        unfinished = self._unfinished()
        for training in self._trainings(self._recipe, self._job.stage, self._job.only):
            if training.name not in unfinished:
                continue
            if training.num_nodes != self._place.num_nodes:
                raise ValueError(
                    f"{self._job.path}: {self._job.stage} {training.name} is laid out for "
                    f"{training.num_nodes} nodes, but this job has {self._place.num_nodes}. "
                    "Submit it with `mira submit`, which asks for as many"
                )
            for words in training.prepare:
                self._run(words)
            self._turns.give(training.name)
            self._run_ranks(training)
            for words in training.finish:
                self._run(words, refusal_fails=True)
            # What it refuses here is a checkpoint that is not the last: the training ended early.
            self._run(self._stage_words(training.name), refusal_fails=True)
        if self._unfinished():
            self._run_stage()

    def _run_ranks(self, training: TrainingCommands) -> None:
        run_ranks(
            training.train,
            num_ranks=self._job.nproc_per_node,
            place=self._place,
            children=self._children,
        )

    def _serve(self) -> None:
        words = self._stage_words(self._job.only, endpoint_words(self._job, self._recipe))
        with running_servers(self._job, self._place, self._children) as servers:
            servers.wait_until_ready()
            stage = self._children.start(words)
            self._judge(words, servers.watch(stage))
            self._turns.give(None)  # before the servers end, which those of other nodes do not bear

    def _run_stage(self) -> None:
        self._run(self._stage_words(self._job.only))

    def _run(self, words: Sequence[str], *, refusal_fails: bool = False) -> None:
        self._judge(words, self._children.run(words), refusal_fails=refusal_fails)

    def _judge(self, words: Sequence[str], code: int, *, refusal_fails: bool = False) -> None:
        """Raises what an exit code other than 0 means."""
        if code == 0:
            return
        if self._children.is_stopping:
            raise Stopped
        reason = f"{_command_name(words)} {exit_words(code)}"
        if code == REFUSED and not refusal_fails:
            raise _Refused(f"{reason}, with the reason above")
        raise AttemptFailed(code, reason)

    def _stage_words(self, only: str | None, more: Sequence[str] = ()) -> list[str]:
        job = self._job
        words = [sys.executable, "-m", "mira_megatron.cli", job.stage, str(job.recipe)]
        words += [*job.overrides, *more, "--workers", str(job.workers)]
        words += [] if only is None else [f"--only={only}"]
        return [*words, "--share"] if job.shared else words

    def _unfinished(self) -> dict[str, str]:
        """Returns the units of the job that are not done, by name, with their states."""
        return {
            unit.name: state
            for unit, state in unit_states(self._recipe, [self._job.stage], only=self._job.only)
            if state != "done"
        }

    def _check_finished(self) -> None:
        unfinished = self._unfinished()
        if not unfinished:
            logger.info("%s: done", self._job.name)
            return
        if self._job.shared:
            # Others hold the parts that are left; should they fail, the job after the array is
            # there to do them.
            logger.info("%s: what is left, others work on", self._job.name)
            return
        if self._children.is_stopping:
            raise Stopped
        states = ", ".join(f"{name} is {state}" for name, state in unfinished.items())
        raise AttemptFailed(0, f"it ended well, but is not finished: {states}")
