"""What a model is asked for a BigCodeBench task: the publisher's own words (its release 0.2.5).

The instruct split describes the function in prose, the complete split by signature and docstring.
A base model goes on from code, so it is given the complete split whatever chats are asked. As with
EvalPlus, one client of theirs begins a chat's answer itself, the others do not.
"""

from __future__ import annotations

from mira_megatron.eval.benchmark import Prompt, Style
from mira_megatron.eval.bigcodebench_data import BcbTask

_MAX_TOKENS = 1280
_STOP_WORDS = (
    *("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint("),
    *("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert "),
)
_INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown "
    "code block:"
)
_BEGINNING = (
    "Below is a Python script with a self-contained function that solves the problem and passes "
    "corresponding tests:\n```python\n"
)


def bcb_prompt(task: BcbTask, style: Style, *, split: str, has_prefill: bool) -> Prompt:
    """Returns what is asked; `split` and `has_prefill` are of chats."""
    if style is Style.COMPLETION:
        return Prompt(
            template="bigcodebench-completion/1",
            text=task.complete_prompt.strip() + "\n",
            stop=_STOP_WORDS,
            max_tokens=_MAX_TOKENS,
        )
    asked = (
        f"```\n{task.complete_prompt.strip()}\n```"
        if split == "complete"
        else task.instruct_prompt.strip()
    )
    user = {"role": "user", "content": f"{_INSTRUCTION}\n{asked}\n"}
    if not has_prefill:
        return Prompt(template=f"bigcodebench-{split}/1", messages=(user,), max_tokens=_MAX_TOKENS)
    return Prompt(
        template=f"bigcodebench-{split}-prefilled/1",
        messages=(user, {"role": "assistant", "content": _BEGINNING}),
        stop=("\n```\n",),
        max_tokens=_MAX_TOKENS,
    )
