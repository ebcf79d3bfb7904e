"""Has an endpoint asked every prompt of a jsonl file as the stage `score` asks, in one process.

Every answer is kept in an answer store before it is used. Prints one JSON line: completed (answers
with a text), output_tokens as the server counted them, seconds and cpu_seconds from the first
question to the last answer that is kept; imports and reading the file are left out.

    python benchmarks/harness/ask_prompts.py --url http://127.0.0.1:8000/v1 --model M \
        --prompts prompts.jsonl --answers FOLDER --in-flight 64 --max-tokens 64
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from types import SimpleNamespace

from mira_megatron.scoring.answer_store import AnswerStore
from mira_megatron.scoring.asking import ask_all
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.questions import Parsed, Question, Reply


def main() -> None:
    """Asks all, and prints what it took."""
    words = _words()
    with words.prompts.open(encoding="utf-8") as lines:
        prompts = [json.loads(line)["prompt"] for line in lines]
    judge = JudgeConfig(
        engine="endpoint",
        model=words.model,
        endpoints=[words.url],
        temperature=0.0,
        top_p=1.0,
        max_tokens=words.max_tokens,
        max_in_flight=words.in_flight,
        # The body of the peer's requests has no seed; an answer's length is fixed.
        request_fields={"seed": None, "ignore_eos": True},
    )
    started, cpu_started = time.perf_counter(), time.process_time()
    replies = asyncio.run(_ask(prompts, judge, words.answers))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    figures = {
        "completed": sum(reply.answer.text is not None for reply in replies),
        "output_tokens": sum(reply.answer.num_output_tokens or 0 for reply in replies),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
    }
    print(json.dumps(figures))


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", required=True, type=Path, help="jsonl of prompt")
    parser.add_argument("--answers", required=True, type=Path, help="folder of the store, empty")
    parser.add_argument("--in-flight", required=True, type=int)
    parser.add_argument("--max-tokens", required=True, type=int)
    return parser.parse_args()


async def _ask(prompts: list[str], judge: JudgeConfig, folder: Path) -> list[Reply]:
    questions = (
        Question(
            key=str(number),
            record_id=f"{number:032x}",
            messages=({"role": "user", "content": prompt},),
        )
        for number, prompt in enumerate(prompts)
    )
    with AnswerStore(folder) as store:
        replies = ask_all(
            questions,
            judge,
            seed=0,
            api_key=None,
            store=store,
            read=_read,
            num_questions=len(prompts),
            title="vllm bench serve",
        )
        return [reply async for reply in replies]


def _read(answer: Answer) -> Parsed:
    return SimpleNamespace(status="ok")


if __name__ == "__main__":
    main()
