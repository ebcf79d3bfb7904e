"""suite.json: what an evaluation's folder holds, and of which model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mira_megatron import __version__
from mira_megatron.atomic_files import write_json
from mira_megatron.eval.benchmark import Style
from mira_megatron.eval.generation.served import Served
from mira_megatron.eval.suite import Suite

SUITE_FILE = "suite.json"
_SCHEMA_VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteFile:
    """Whose answers a folder holds, and how they were asked for."""

    model: str
    style: Style
    roots: tuple[str, ...] = ()  # where endpoints read the weights, as far as they said

    def write(
        self,
        output: Path,
        suite: Suite,
        served: Sequence[Served],
        asked: Mapping[str, Any],
        *,
        limit: int | None,
    ) -> None:
        """Writes the file; `asked` says with what each benchmark is asked in this call.

        Benchmarks of earlier calls stay with the suite and the sampling that they were asked with.
        """
        path = output / SUITE_FILE
        before = json.loads(path.read_bytes())["benchmarks"] if path.exists() else {}
        suite_fields = {
            "name": suite.name,
            "path": str(suite.path),
            "sha256": hashlib.sha256(suite.path.read_bytes()).hexdigest(),
        }
        content = {
            "schema_version": _SCHEMA_VERSION,
            "model": self.model,
            "style": self.style,
            "served": [each.to_json() for each in served],
            "benchmarks": {
                **before,
                **{
                    name: {
                        **fields,
                        "limit": limit,
                        "suite": suite_fields,
                        "settings": asdict(suite.sampling_of(suite.entry(name))),
                    }
                    for name, fields in asked.items()
                },
            },
            "mira_megatron": __version__,
        }
        write_json(path, content)


def read_suite_file(output: Path) -> SuiteFile | None:
    """Returns whose answers a folder holds, None where none; ValueError for a damaged file."""
    path = output / SUITE_FILE
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content["benchmarks"], dict):
            raise ValueError("benchmarks is no mapping")
        roots = [each["root"] for each in content["served"] if each["root"] is not None]
        return SuiteFile(
            model=str(content["model"]), style=Style(content["style"]), roots=tuple(roots)
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not the suite.json of an evaluation ({error}); remove it, and give the model "
            "and style that the folder's answers are of"
        ) from error


def check_same_model(written: SuiteFile | None, model: str, style: Style, output: Path) -> None:
    """Raises ValueError where a folder holds answers of another model, or asked otherwise."""
    if written is not None and (written.model, written.style) != (model, style):
        raise ValueError(
            f"{output} holds answers of {written.model!r} as {written.style}, not of {model!r} as "
            f"{style}. Give each model and style an --output of its own"
        )


def check_same_weights(
    written: SuiteFile | None, served: Sequence[Served], model: str, output: Path
) -> None:
    """Raises ValueError where endpoints read a model's weights from several places.

    Checkpoints are often served under one name: the answers of two would be graded as one's.
    """
    roots = dict.fromkeys(each.root for each in served if each.root is not None)
    if len(roots) > 1:
        raise ValueError(
            f"endpoints serve {model!r} from {' and from '.join(map(ascii, roots))}; expected the "
            "same weights, read from one path. Leave out those that serve another checkpoint"
        )
    before = set(written.roots) if written is not None else set()
    if before and roots and before != set(roots):
        raise ValueError(
            f"{output} holds answers of {model!r} from {' and '.join(map(ascii, sorted(before)))}, "
            f"and it is served from {next(iter(roots))!a}. Give each checkpoint an --output "
            "of its own; where it is the same one in another place, serve it from there, or write "
            f"that place into {output / SUITE_FILE}"
        )
