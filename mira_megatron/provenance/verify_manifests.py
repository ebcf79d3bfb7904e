"""Whether folders of a run hold, byte for byte, what their manifests list.

What is found comes as (what, expected) and as notes: what could not be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mira_megatron import layout
from mira_megatron.manifest import MANIFEST, read_manifest, verify_digests
from mira_megatron.tokenization import token_dataset
from mira_megatron.tokenization.token_dataset import TokenPrefix


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderFindings:
    """What stands against a folder, and what could not be looked at."""

    problems: tuple[tuple[str, str], ...] = ()  # (what, expected)
    notes: tuple[str, ...] = ()


def check_unit(
    run_folder: Path, unit: str, *, made_of: Sequence[str] = (), but_for: tuple[str, ...] = ()
) -> FolderFindings:
    """Returns whether a unit's files are those it was finished with; reads all, but for suffixes.

    `made_of` are units that have to be, as they are now, what this one was made of.
    """
    folder = run_folder / unit
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            note = f"{folder}: no {MANIFEST}, so nothing says whether its files were altered"
            return FolderFindings(notes=(note,))
        verify_digests(folder, manifest, but_for=but_for)
        inputs = {name: read_manifest(run_folder / name) for name in made_of}
    except (ValueError, OSError) as error:
        return FolderFindings(problems=((str(error), "the file as it was made"),))
    return FolderFindings(
        problems=tuple(
            (f"{folder} was made of another {name} than lies there now", "`mira run` once more")
            for name, found in inputs.items()
            if found is not None and manifest.inputs.get(name) != found.output_digest
        )
    )


def check_tokens(
    run_folder: Path, source: str, prefixes: Sequence[TokenPrefix], *, full: bool
) -> FolderFindings:
    """Returns whether a source's token dataset is as it was made; `full`: the `.bin` read as well.

    Of an adopted pair nobody knows what its tokens ought to be.
    """
    unit = layout.tokens(source)
    findings = check_unit(run_folder, unit, but_for=() if full else (".bin",))
    problems, notes = list(findings.problems), list(findings.notes)
    if is_adopted(run_folder, source, prefixes):
        notes.append(f"{source} is adopted: its .bin were compared by size and time of change only")
        problems += [problem for prefix in prefixes for problem in _changed_since_adoption(prefix)]
    return FolderFindings(problems=tuple(problems), notes=tuple(notes))


def is_adopted(run_folder: Path, source: str, prefixes: Sequence[TokenPrefix]) -> bool:
    """Returns whether a source's pairs lie outside the run."""
    return any(
        prefix.path_prefix.parent != run_folder / layout.tokens(source) for prefix in prefixes
    )


def _changed_since_adoption(prefix: TokenPrefix) -> list[tuple[str, str]]:
    try:
        token_dataset.check_unchanged(prefix)
    except (ValueError, OSError) as error:
        return [(str(error), "the pair as it was adopted")]
    return []
