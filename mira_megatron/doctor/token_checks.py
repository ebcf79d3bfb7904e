"""Checks of tokenizer, loss and vocabulary: whether what is trained is what was meant."""

from __future__ import annotations

from mira_megatron.distill.chatml import END
from mira_megatron.doctor.facts import TrainingFacts
from mira_megatron.doctor.finding import ERROR, WARNING, Finding

TEMPLATE = "{input}{output}"
GENERATION_MARK = "{% generation %}"


def check_tokenizer(facts: TrainingFacts) -> list[Finding]:
    """Finds a recipe's placeholder where the tokenizer should be."""
    if facts.tokenizer_type is None:
        return []
    if facts.tokenizer_type != "NullTokenizer" and facts.tokenizer_folder is not None:
        return []
    return [
        Finding(
            level=ERROR,
            what="a placeholder stands where the tokenizer should be: ids, padding and the end of "
            "text would be made up",
            where=f"tokenizer.tokenizer_type={facts.tokenizer_type}, "
            f"tokenizer_model={facts.tokenizer_folder}",
            way_out='set tokenizer_type="HuggingFaceTokenizer" and tokenizer_model to the base '
            "model's folder",
        )
    ]


def check_loss(facts: TrainingFacts) -> list[Finding]:
    """Finds a loss that is taken on the prompt too."""
    if facts.is_chat and GENERATION_MARK not in _spaced(facts.chat_template):
        return [
            Finding(
                level=ERROR,
                what="the chat template does not mark what the assistant says: the loss is taken "
                "on every token, record and rubric included",
                where="dataset.dataset_kwargs.chat=True",
                way_out="train input/output samples (chat=False, answer_only_loss=True)",
            )
        ]
    if facts.is_chat or facts.answer_only_loss is not False:
        return []
    return [
        Finding(
            level=ERROR,
            what="the loss is taken on every token: a scorer learns to write records",
            where="dataset.dataset_kwargs.answer_only_loss=False",
            way_out="set answer_only_loss=True",
        )
    ]


def check_joined_text(facts: TrainingFacts) -> list[Finding]:
    """Finds a template that puts something between a prompt and its answer."""
    if facts.is_chat or facts.prompt_template in (None, TEMPLATE):
        return []
    return [
        Finding(
            level=ERROR,
            what="samples are put together otherwise than a served scorer is asked",
            where=f"dataset.dataset_kwargs.prompt_template={facts.prompt_template!r}",
            way_out=f"set prompt_template={TEMPLATE!r}",
        )
    ]


def check_end_token(facts: TrainingFacts) -> list[Finding]:
    """Finds an end of text that is not what an answer ends with, or one end too many."""
    findings = []
    if facts.eos_token is not None and facts.eos_token != END:
        is_padded = (facts.context_parallel or 1) > 1
        findings.append(
            Finding(
                level=ERROR if is_padded else WARNING,
                what=f"answers end with {END}, packed samples are padded with {facts.eos_token}: "
                f"the loss would be taken on the padding after {END} too",
                where=f"tokenizer, eos_token={facts.eos_token}",
                way_out=f'give hf_tokenizer_kwargs={{"eos_token": "{END}"}}',
            )
        )
    if facts.adds_eos:
        findings.append(
            Finding(
                level=WARNING,
                what=f"a second end is put after every answer, which ends with {END} already",
                where="dataset.dataset_kwargs.add_eos=True (the default)",
                way_out="set add_eos=False",
            )
        )
    return findings


def check_vocabulary(facts: TrainingFacts) -> list[Finding]:
    """Finds an embedding with too few rows, or with others than the weights have."""
    ids, rows = facts.num_tokenizer_ids, embedding_rows(facts)
    findings = []
    if ids is not None and rows is not None and ids > rows:
        findings.append(
            Finding(
                level=ERROR,
                what=f"the tokenizer has {ids:,} ids, the embedding {rows:,} rows",
                where="model.vocab_size",
                way_out="give the tokenizer of the base model",
            )
        )
    if rows is not None and facts.checkpoint_vocab_size not in (None, rows):
        findings.append(
            Finding(
                level=ERROR,
                what=f"the embedding has {rows:,} rows, the weights it starts from "
                f"{facts.checkpoint_vocab_size:,}",
                where="model.vocab_size, make_vocab_size_divisible_by x tensor parallel size",
                way_out=f"set model.vocab_size={facts.checkpoint_vocab_size} and "
                "should_pad_vocab=False, as importing with AutoBridge does",
            )
        )
    if rows is not None and facts.tensor_parallel and rows % facts.tensor_parallel:
        findings.append(
            Finding(
                level=ERROR,
                what=f"{rows:,} embedding rows cannot be cut into {facts.tensor_parallel} parts",
                where="model.vocab_size",
                way_out="choose a tensor parallel size that divides it",
            )
        )
    return findings


def embedding_rows(facts: TrainingFacts) -> int | None:
    """Returns the rows of the embedding: as the config says, else padded as Megatron pads."""
    if facts.model_vocab_size is not None:
        return facts.model_vocab_size
    if facts.num_tokenizer_ids is None or facts.vocab_divisor is None:
        return None
    multiple = facts.vocab_divisor * (facts.tensor_parallel or 1)
    return -(-facts.num_tokenizer_ids // multiple) * multiple


def _spaced(template: str | None) -> str:
    return (template or "").replace("{%-", "{%").replace("-%}", "%}")
