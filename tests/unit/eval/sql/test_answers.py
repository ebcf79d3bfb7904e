from __future__ import annotations

import pytest

from mira_megatron.eval.sql.answers import statement_in
from mira_megatron.eval.verdicts import Extraction, Form, Sample


def found(text: str, form: Form) -> Extraction:
    return statement_in(Sample(task_id="spider/0", number=0, text=text, form=form))


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ("```sql\nSELECT 1;\n```", "SELECT 1"),
        ("First:\n```sql\nSELECT 1\n```\nBetter:\n```sqlite\nSELECT 2\n```\nDone.", "SELECT 2"),
        ("```sql\nSELECT 1\n```\nIt prints\n```\n1\n```", "SELECT 1"),
        ("```sql\nSELECT 1; DROP TABLE t;\n```", "SELECT 1"),
        ("<think>SELECT 0;</think>\nSELECT 1;", "SELECT 1"),
        ("SELECT a\nFROM t;\n\nThis selects a.", "SELECT a\nFROM t"),
        ("SELECT a FROM t\n\nThis selects a.", "SELECT a FROM t"),
        ("select `a b` from t", "select `a b` from t"),
        ("With c AS (SELECT 1) SELECT * FROM c;", "With c AS (SELECT 1) SELECT * FROM c"),
        (
            "WITH RECURSIVE c(a, b) AS (SELECT 1, 2) SELECT a FROM c",
            "WITH RECURSIVE c(a, b) AS (SELECT 1, 2) SELECT a FROM c",
        ),
        ("We select with care: SELECT a FROM t", "SELECT a FROM t"),
        ("You could select it so:\nselect a from t", "select a from t"),
        ("The query is `SELECT a FROM t`, I think.", "SELECT a FROM t"),
        ("Use ``SELECT `a b` FROM t`` here.", "SELECT `a b` FROM t"),
        ("It is: select a from t", "select a from t"),
        ("SELECT ';' FROM t; x", "SELECT ';' FROM t"),
    ],
)
def test_answer_holds_one_statement(text: str, statement: str) -> None:
    assert found(text, Form.ANSWER) == Extraction(code=statement)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I cannot answer that.", "no_statement"),
        ("", "empty"),
        ("```sql\n\n```", "empty"),
        ("```sql\n;\n```", "empty"),
        ("<think>SELECT 1", "unfinished_thought"),
    ],
)
def test_answer_without_a_statement_says_why(text: str, reason: str) -> None:
    assert found(text, Form.ANSWER) == Extraction(code=None, reason=reason)


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        (" a FROM t; SELECT 2", "SELECT  a FROM t"),
        (" SELECT a FROM t", "SELECT a FROM t"),
        ("WITH c AS (SELECT 1) SELECT * FROM c", "WITH c AS (SELECT 1) SELECT * FROM c"),
        ("selected FROM t", "SELECT selected FROM t"),
    ],
)
def test_completion_goes_on_behind_select(text: str, statement: str) -> None:
    assert found(text, Form.COMPLETION) == Extraction(code=statement)


def test_program_is_taken_as_it_is() -> None:
    assert found(" SELECT 1; DROP TABLE t ", Form.PROGRAM).code == "SELECT 1; DROP TABLE t"
    assert found(" ", Form.PROGRAM) == Extraction(code=None, reason="empty")
    assert found(" ;", Form.COMPLETION) == Extraction(code=None, reason="empty")
