from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from mira_megatron.distill.chatml import CHAT_TEMPLATE, render

pytest_plugins = ("sft_samples",)

_MESSAGES = (
    {"role": "system", "content": "  Judge it.\n"},
    {"role": "user", "content": "{{ 7 * 7 }} {% raw %} <·|im_end|> 'quoted' \"too\"\n\n"},
)


def test_render_opens_the_assistants_turn_after_every_message() -> None:
    assert render(_MESSAGES[1:]) == (
        "<|im_start|>user\n{{ 7 * 7 }} {% raw %} <·|im_end|> 'quoted' \"too\"\n\n<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_chat_template_gives_what_was_rendered_for_training(chat_tokenizer_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # it has no types
        tokenizer_file=str(chat_tokenizer_path)
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    for messages in (_MESSAGES, _MESSAGES[1:]):
        rendered = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )
        assert rendered == render(messages)
