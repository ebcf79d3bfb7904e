"""What a model is asked for a question: its tables, what BIRD says beside it, and the question.

The wording is that of Qwen2.5-Coder's bird-spider evaluation (sql_suites/preprocess_bird.py,
sql_task_chat_base.py, sql_task_base.py), which takes it from BIRD's (bird/llm, gpt_request.py): no
rows of the tables are shown. How the published prompts put tables apart is not known; here it is an
empty line. A template's name is part of what makes two numbers comparable.
"""

from __future__ import annotations

from collections.abc import Sequence

from mira_megatron.eval.benchmark import Prompt, Style
from mira_megatron.eval.sql.tasks import SqlTask

_MAX_TOKENS = {Style.CHAT: 1024, Style.COMPLETION: 256}  # BIRD's own is 256
_STOP_WORDS = (";", "\n\n", "Question:", "Answer:")


def sql_prompt(
    task: SqlTask, tables: Sequence[str], style: Style, *, is_evidence_given: bool
) -> Prompt:
    """Returns the prompt over CREATE TABLE statements.

    A completion ends in SELECT, so the model goes on behind it. Without evidence, or for a
    benchmark that has none, the template has another name.
    """
    lines = [f"{table}\n" for table in tables]
    if is_evidence_given:
        lines += [
            f"-- External Knowledge: {task.evidence}\n",
            "-- Using valid SQLite and understanding External Knowledge, answer the following "
            "questions for the tables provided above.\n",
        ]
    else:
        lines.append(
            "-- Using valid SQLite, answer the following questions for the tables provided above."
        )
    asked = "\n".join([*lines, f"Question: {task.question.strip()}\n"])
    name = "sql" if is_evidence_given else "sql-no-evidence"
    match style:
        case Style.CHAT:
            asked += "\nPlease output only the final SQL query, starts with keyword `SELECT`."
            return Prompt(
                template=f"{name}-chat/1",
                messages=({"role": "user", "content": asked},),
                max_tokens=_MAX_TOKENS[style],
            )
        case Style.COMPLETION:
            return Prompt(
                template=f"{name}-completion/1",
                text=f"{asked}\nSELECT",
                stop=_STOP_WORDS,
                max_tokens=_MAX_TOKENS[style],
            )
