"""What a model is asked for an MBPP task: EvalPlus's own words (its release 0.3.1).

Chats come in two kinds, whose scores differ by points. EvalPlus's OpenAI client asks, and takes the
answer as it comes; its vLLM client begins the answer itself, which only some servers allow.
"""

from __future__ import annotations

from mira_megatron.eval.benchmark import Prompt, Style

# The likeliest first: servers take four of them, the text is cut at all.
STOP_WORDS = ('\n"""', "\nassert", "\nprint(", "\nif __name__", "\ndef main(", "<|endoftext|>")

_COMPLETION_TOKENS = 768  # EvalPlus's default
_CHAT_TOKENS = 2048  # of the Qwen2.5-Coder reports: answers explain themselves
_INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown "
    "code block:"
)
_BEGINNING = (
    "Below is a Python script with a self-contained function that solves the problem and passes "
    "corresponding tests:\n```python\n"
)


def mbpp_prompt(task: str, style: Style, *, has_prefill: bool) -> Prompt:
    """Returns what is asked; `task` is the docstring with its one example."""
    task = task.strip()
    if style is Style.COMPLETION:
        return Prompt(
            template="evalplus-completion/1",
            text=f"{task}\n",
            stop=STOP_WORDS,
            max_tokens=_COMPLETION_TOKENS,
        )
    if not has_prefill:
        return Prompt(
            template="evalplus-chat/1",
            messages=({"role": "user", "content": f"{_INSTRUCTION}\n```python\n{task}\n```"},),
            max_tokens=_CHAT_TOKENS,
        )
    return Prompt(
        template="evalplus-chat-prefilled/1",
        messages=(
            {"role": "user", "content": f"{_INSTRUCTION}\n```\n{task}\n```\n"},
            {"role": "assistant", "content": _BEGINNING},
        ),
        stop=("\n```\n",),
        max_tokens=_CHAT_TOKENS,
    )
