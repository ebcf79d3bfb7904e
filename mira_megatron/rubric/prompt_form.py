"""How a judge is asked and how it answers: what a scorer is trained with, and then asked with.

prompt   full: the instructions, the anchors, calibration examples, the answer template, the record;
         bare: the record alone, for a scorer that holds one group's rubric in its weights
answers  full: the released format, a justification per slot and a footer;
         compact: `[A1] name: 7/10`, one line per slot and nothing else;
         digits: the scores of all slots on one line and nothing else (see digits.py). Nobody learns
         these: guided decoding holds any judge to them, where answer_mode is scores_only
"""

from __future__ import annotations

from dataclasses import dataclass

PROMPTS = ("full", "bare")
LEARNED_ANSWERS = ("full", "compact")  # what a scorer may be trained to give
ANSWERS = (*LEARNED_ANSWERS, "digits")


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptForm:
    """The form of questions and answers between us and a judge."""

    prompt: str = "full"  # one of PROMPTS
    references: bool = True  # the calibration examples of the anchors that have them, in the prompt
    answers: str = "full"  # one of ANSWERS

    def __post_init__(self) -> None:
        for name, valid in (("prompt", PROMPTS), ("answers", ANSWERS)):
            if getattr(self, name) not in valid:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} must be one of {', '.join(valid)}"
                )
        if self.prompt == "bare" and self.references:
            raise ValueError("prompt=bare has no room for references: give references=false")


FULL = PromptForm()
