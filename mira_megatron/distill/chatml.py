"""ChatML, the form in which a scorer is trained and asked: Qwen's, without tools or thinking.

What `render` makes is trained on; what CHAT_TEMPLATE makes of the same messages is what vLLM and
transformers send a served scorer. Both are the same text, byte for byte. Messages hold records and
model's words only as `fence.quote` leaves them, so nothing in them reads as a control token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

START = "<|im_start|>"
END = "<|im_end|>"

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    f"{{{{- '{START}' + message['role'] + '\\n' + message['content'] + '{END}\\n' -}}}}"
    "{%- endfor -%}"
    f"{{%- if add_generation_prompt -%}}{{{{- '{START}assistant\\n' -}}}}{{%- endif -%}}"
)


def render(messages: Sequence[Mapping[str, str]]) -> str:
    """Returns the prompt: every message as a turn, then the assistant's turn, opened."""
    turns = [f"{START}{each['role']}\n{each['content']}{END}\n" for each in messages]
    return f"{''.join(turns)}{START}assistant\n"
