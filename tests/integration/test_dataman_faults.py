"""DataMan asked of an endpoint that fails: a score or a reason per record, and nothing twice."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # OmegaConf brings it
from aiohttp import web
from fake_teacher import (
    Asked,
    FakeTeacher,
    Fault,
    by_record,
    completion,
    error,
    garbage,
    number_of,
    refusal,
    serving,
    teacher_section,
)
from smoke_runs import assert_done, assert_refused, mira
from teacher_recipes import NUM_NOTES, num_stored, part_digests, rows, run_folder, teacher_recipe
from test_teacher_faults import IN_FLIGHT, kill_after

ANSWERS, SCORES = "baselines/dataman/answers/notes", "record_scores/dataman/notes"
KILLS = 4


def overall(asked: Asked) -> int:
    """Returns the overall score of a record, 1 to 5."""
    return 1 + asked.number // 100 % 5


def lines(asked: Asked) -> list[str]:
    """Returns a right answer's lines: a domain and fourteen scores, the overall one last."""
    return ["H", *(str(1 + (asked.number + place) % 5) for place in range(13)), str(overall(asked))]


def right(asked: Asked, text: str) -> web.Response:
    """Answers as asked."""
    return completion("\n".join(lines(asked)))


def named(asked: Asked, text: str) -> web.Response:
    """Answers as the prompt has its lines: each with its name."""
    domain, *scores = lines(asked)
    wanted = [line for line in asked.prompt.split("\n") if line.endswith(":_/5")]
    said = [line.replace("_", score) for line, score in zip(wanted, scores, strict=True)]
    return completion("\n".join([f"Domain:{domain}", *said]))


def missing_line(asked: Asked, text: str) -> web.Response:
    """Leaves out the seventh line: all behind it would shift by one."""
    return completion("\n".join(lines(asked)[:6] + lines(asked)[7:]))


def swapped_lines(asked: Asked, text: str) -> web.Response:
    """Gives a score before the domain."""
    domain, first, *others = lines(asked)
    return completion("\n".join([first, domain, *others]))


def swapped_names(asked: Asked, text: str) -> web.Response:
    """Gives named lines in another order."""
    answered = ["[2]Coherence:3/5", "[1]Accuracy:4/5", *lines(asked)[3:]]
    return completion("\n".join(["H", *answered]))


def truncated(asked: Asked, text: str) -> web.Response:
    """Is cut off in the middle, as by max_tokens."""
    return completion("\n".join(lines(asked))[:17], finish_reason="length")


def late(failing: Fault) -> Fault:
    """Fails first, and answers as asked at the second attempt."""
    return lambda asked, text: (right if asked.attempt >= 2 else failing)(asked, text)


FAULTS: dict[Fault, str] = {
    right: "ok",
    named: "ok",
    missing_line: "unparsed",
    swapped_lines: "unparsed",
    swapped_names: "unparsed",
    garbage: "unparsed",
    truncated: "unparsed",
    late(error(429, until_attempt=None, **{"Retry-After": "1"})): "ok",
    late(error(503)): "ok",
    refusal: "refused",
    error(500): "failed",
}


@pytest.fixture
def dataman() -> Iterator[FakeTeacher]:
    with serving(FakeTeacher(fault=right)) as dataman:
        yield dataman


def dataman_recipe(folder: Path, dataman: FakeTeacher, **settings: Any) -> Path:
    """Writes a recipe over 60 notes in parts of 10 that DataMan is asked about, and ingests."""
    path = teacher_recipe(folder, dataman)
    recipe = yaml.safe_load(path.read_text())
    for section in ("teacher", "discover", "label"):
        del recipe[section]
    published = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 29}
    asked = teacher_section(dataman, **published, **settings)
    recipe["baselines"] = {"dataman": {"method": "dataman", **asked}}
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_every_record_has_one_score_or_one_reason(tmp_path: Path, dataman: FakeTeacher) -> None:
    dataman.fault = by_record(*FAULTS)
    recipe = dataman_recipe(tmp_path, dataman)
    assert_done(mira("baseline", recipe))
    outcomes = list(FAULTS.values())
    expected = Counter(
        outcomes[number_of(prompt) % len(FAULTS)] for prompt in {name for name, _ in dataman.asked}
    )
    answers = rows(recipe, ANSWERS).to_pylist()
    assert Counter(row["status"] for row in answers) == expected
    assert len(expected) == 4  # every kind comes up among sixty notes
    scores = rows(recipe, SCORES).to_pylist()
    assert [row["record_id"] for row in scores] == [row["record_id"] for row in answers]
    given = {overall(asked_of(prompt)) for prompt, _ in dataman.asked}
    for answer, score in zip(answers, scores, strict=True):
        if answer["status"] == "ok":
            assert score["reason"] is None
            assert score["score"] == answer["scores"][-1]
            assert score["score"] in given
            assert answer["domain"] == "H"
        else:
            assert (score["score"], score["reason"]) == (None, answer["status"])
            assert (answer["scores"], answer["domain"]) == (None, None)
            assert answer["reason"]


def asked_of(prompt: str) -> Asked:
    """Returns the first request with a prompt."""
    return Asked(prompt=prompt, seed=0, attempt=1, api_key="")


def test_scores_are_those_of_their_own_records(tmp_path: Path, dataman: FakeTeacher) -> None:
    recipe = dataman_recipe(tmp_path, dataman)
    assert_done(mira("baseline", recipe))
    texts = rows(recipe, "records/notes")["text"].to_pylist()
    prompts = {prompt.split("\n")[1].removeprefix("Text: "): prompt for prompt, _ in dataman.asked}
    for text, score in zip(texts, rows(recipe, SCORES)["score"].to_pylist(), strict=True):
        assert score == overall(asked_of(prompts[text]))


def test_killed_and_run_again_nothing_is_lost_or_asked_twice(
    tmp_path: Path, dataman: FakeTeacher
) -> None:
    undisturbed = dataman_recipe(tmp_path / "undisturbed", dataman)
    assert_done(mira("baseline", undisturbed))
    recipe = dataman_recipe(tmp_path / "killed", dataman)
    dataman.asked.clear()
    dataman.num_answered, dataman.seconds_per_answer = 0, 0.05
    points = sorted(random.Random(1).sample(range(3, NUM_NOTES - 8), KILLS))
    for num_kills, num_answered in enumerate(points, start=1):
        kill_after(num_answered, dataman, "baseline", recipe)
        time.sleep(0.2)  # the server ends what was in flight
        assert dataman.asked.total() - num_stored(recipe) <= IN_FLIGHT * num_kills
    num_asked, num_kept = dataman.asked.total(), num_stored(recipe)
    dataman.seconds_per_answer = 0.0
    assert_done(mira("baseline", recipe))
    assert dataman.asked.total() - num_asked == NUM_NOTES - num_kept
    for unit in (ANSWERS, SCORES):
        assert part_digests(recipe, unit) == part_digests(undisturbed, unit)


def test_too_many_unreadable_answers_stop_the_run_and_say_so(
    tmp_path: Path, dataman: FakeTeacher
) -> None:
    dataman.fault = missing_line
    recipe = dataman_recipe(tmp_path, dataman, max_failed_fraction=0.1)
    assert_refused(mira("baseline", recipe), "unparsed", "max_failed_fraction=0.1 allows")
    assert not (run_folder(recipe) / SCORES / "manifest.json").exists()


def test_reparse_reads_the_kept_answers_once_more_and_asks_nobody(
    tmp_path: Path, dataman: FakeTeacher
) -> None:
    dataman.fault = by_record(*FAULTS)
    recipe = dataman_recipe(tmp_path, dataman)
    assert_done(mira("baseline", recipe))
    num_asked = dataman.asked.total()
    digests = [part_digests(recipe, unit) for unit in (ANSWERS, SCORES)]
    manifest = run_folder(recipe) / ANSWERS / "manifest.json"
    # As if made by code that read answers in another way.
    written = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps({**written, "stage_version": 0, "fingerprint": "0" * 32}))
    assert_refused(mira("baseline", recipe), "stage_version")
    assert_done(mira("baseline", recipe, "--reparse"))
    assert [part_digests(recipe, unit) for unit in (ANSWERS, SCORES)] == digests
    assert dataman.asked.total() == num_asked


def test_processes_that_share_make_what_one_makes(tmp_path: Path, dataman: FakeTeacher) -> None:
    alone = dataman_recipe(tmp_path / "alone", dataman)
    assert_done(mira("baseline", alone))
    recipe = dataman_recipe(tmp_path / "shared", dataman)
    dataman.asked.clear()
    assert_done(mira("baseline", recipe, "--processes=2"))
    assert dataman.asked.total() == NUM_NOTES
    for unit in (ANSWERS, SCORES):
        assert part_digests(recipe, unit) == part_digests(alone, unit)
