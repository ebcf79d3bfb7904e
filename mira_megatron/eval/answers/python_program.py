"""The Python program in a sample, for benchmarks whose tasks ask for one function."""

from __future__ import annotations

from mira_megatron.eval.answers.fences import code_in_answer
from mira_megatron.eval.answers.python_code import sanitized
from mira_megatron.eval.verdicts import Extraction, Form, Sample

_FENCES = ("python", "py", "python3")


def python_program(sample: Sample, prompt: str, entry_point: str) -> Extraction:
    """Returns the program, a completion behind its prompt, or why there is none.

    Predictions are taken as they are; what an endpoint sent is sanitized as EvalPlus and
    BigCodeBench do it.
    """
    if not sample.text.strip():
        return Extraction(code=None, reason="empty")
    match sample.form:
        case Form.PROGRAM:
            found = Extraction(code=sample.text)
        case Form.COMPLETION:
            found = Extraction(code=prompt + sample.text)
        case Form.ANSWER:
            found = code_in_answer(sample.text, _FENCES, allow_bare=True)
    if found.code is None or not sample.is_raw:
        return found
    program = sanitized(found.code, entry_point)
    return Extraction(code=program, reason=None if program else "unparsable")
