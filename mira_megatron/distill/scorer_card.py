"""scorer.json: what whoever asks a distilled scorer has to know about it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mira_megatron.atomic_files import write_json
from mira_megatron.rubric.prompt_form import PromptForm

CARD = "scorer.json"
EXPORT = "hf"  # the folder beside it that transformers and vLLM load


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerCard:
    """One group's scorer."""

    rubric: str
    group: str
    family: str
    rubric_version: str  # of the anchors whose ratings it was trained on
    prompt_key: str  # of the prompt it was trained with
    form: PromptForm
    max_record_tokens: int  # of a record, in its own tokens
    max_model_len: int  # tokens of prompt and answer together
    served_model_name: str

    def save(self, folder: Path) -> None:
        """Writes scorer.json atomically."""
        write_json(folder / CARD, {"schema_version": 1, **asdict(self)})


def read_card(folder: Path) -> ScorerCard:
    """Returns the card in a scorer's folder.

    Raises FileNotFoundError where there is none, ValueError where it is not one.
    """
    path = folder / CARD
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no scorer is here. Train it with `mira distill`.")
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        if values.pop("schema_version") != 1:
            raise ValueError("unknown schema_version")
        return ScorerCard(**{**values, "form": PromptForm(**values["form"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: not a scorer's card ({error}). Train it anew.") from error
