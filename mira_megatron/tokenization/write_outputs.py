"""What `mira tokens write` has under its prefix, and how it knows what of it is its own.

    <prefix>.bin, .idx, .records.parquet, .dropped.jsonl     the outputs
    <prefix>.written.json      plan, report, and every output's size: written last of all
    .<prefix>.mira-write/      unfinished work: plan.json says that it is ours, joining.json that
                               outputs without a written.json are
    .<prefix>.lock             stays: a lock that is deleted can be held by two

Nothing that was not made here is overwritten or deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mira_megatron.atomic_files import is_temporary, write_json
from mira_megatron.tokenization.index_file import bin_path, idx_path, records_path


@dataclass(frozen=True, slots=True)
class WriteOutputs:
    """The paths under one prefix."""

    path_prefix: Path

    @property
    def records(self) -> Path:
        """Returns the file whose row i describes document i."""
        return records_path(self.path_prefix)

    @property
    def dropped(self) -> Path:
        """Returns the file of rows that could not become documents."""
        return self._beside(".dropped.jsonl")

    @property
    def written(self) -> Path:
        """Returns the file that says that all others are whole."""
        return self._beside(".written.json")

    @property
    def work(self) -> Path:
        """Returns the folder of unfinished work."""
        return self.path_prefix.with_name(f".{self.path_prefix.name}.mira-write")

    @property
    def joined(self) -> Path:
        """Returns the file in which the shards are laid one after another."""
        return self.work / "joined.bin"

    @property
    def lock(self) -> Path:
        """Returns the lock of whoever writes."""
        return self.path_prefix.with_name(f".{self.path_prefix.name}.lock")

    def check_apart(self, files: Sequence[Path]) -> None:
        """Raises ValueError for an input that is an output, or lies in the work folder."""
        outputs = {path.resolve() for path in (*self._all(), self.written)}
        for path in files:
            resolved = path.resolve()
            if resolved in outputs or resolved.is_relative_to(self.work.resolve()):
                raise ValueError(
                    f"{path}: is an input and what --output {self.path_prefix} would write. "
                    "Choose another --output: inputs are never changed."
                )

    def written_before(self, plan: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the report of an earlier run that wrote the same; None where none has.

        Raises ValueError where it wrote something else, or what it wrote is not there any more.
        """
        if not self.written.is_file():
            return None
        content = orjson.loads(self.written.read_bytes())
        differing = [name for name in plan if content["plan"].get(name) != plan[name]]
        if differing:
            raise ValueError(
                f"{self.written}: another {', '.join(differing)} than in this command. Choose "
                "another --output, or delete what lies under this one."
            )
        found = self._sizes()
        for name, size in content["sizes"].items():
            if found.get(name) != size:
                is_now = f"{found[name]:,} bytes" if name in found else "missing"
                raise ValueError(
                    f"{self._beside(name)}: {is_now}, but was written with {size:,} bytes. "
                    f"Restore it, or delete {self.written} and the outputs beside it to have all "
                    "written again."
                )
        report: dict[str, Any] = content["report"]
        return report

    def begin(self, plan: dict[str, Any]) -> None:
        """Makes the work folder, or goes on in it.

        Raises ValueError, before anything is written, for a folder or an output that is not ours.
        """
        if self.work.is_dir() and not self._plan.is_file():
            others = [path for path in self.work.iterdir() if not is_temporary(path)]
            if others:
                raise ValueError(
                    f"{self.work}: holds {others[0].name} but no plan.json, so it was not made by "
                    "`mira tokens write`. Move it away, or choose another --output."
                )
        if not self._joining.is_file():
            for path in self._all():
                if path.exists() or path.is_symlink():
                    raise ValueError(
                        f"{path}: exists, and was not written by `mira tokens write` "
                        f"({self.written.name} is missing). Choose another --output, or move it "
                        "away: nothing is overwritten."
                    )
        write_json(self._plan, plan)

    def begin_joining(self) -> None:
        """Says that outputs that lie there from now on are ours."""
        write_json(self._joining, {})

    def finish(self, plan: dict[str, Any], report: dict[str, Any]) -> None:
        """Says that the outputs are whole, and deletes the work."""
        write_json(self.written, {"plan": plan, "report": report, "sizes": self._sizes()})
        self.delete_work()

    def delete_work(self) -> None:
        """Deletes the work folder, but for files that were not made here."""
        if not self._plan.is_file():
            return
        shards = [path for path in self.work.iterdir() if path.name.startswith("shard-")]
        temporaries = [path for path in self.work.iterdir() if is_temporary(path)]
        # Reports first: a shard that has one counts as whole.
        shards.sort(key=lambda path: path.suffix != ".json")
        for path in (self.joined, *shards, *temporaries, self._joining, self._plan):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # something else lies there
            self.work.rmdir()

    def _sizes(self) -> dict[str, int]:
        """Returns the size of each output that is there, by what follows the prefix."""
        num_letters = len(self.path_prefix.name)
        return {p.name[num_letters:]: p.stat().st_size for p in self._all() if p.is_file()}

    def _all(self) -> tuple[Path, ...]:
        return bin_path(self.path_prefix), idx_path(self.path_prefix), self.records, self.dropped

    @property
    def _plan(self) -> Path:
        return self.work / "plan.json"

    @property
    def _joining(self) -> Path:
        return self.work / "joining.json"

    def _beside(self, suffix: str) -> Path:
        return self.path_prefix.with_name(f"{self.path_prefix.name}{suffix}")
