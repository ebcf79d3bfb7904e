"""Selection: the choice on documents made here, and the whole stage behind real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron import layout
from mira_megatron.config import load_recipe
from mira_megatron.corpus import ingest
from mira_megatron.manifest import Counts, Manifest
from mira_megatron.records import RECORD_SCORE_SCHEMA
from mira_megatron.retention.arms import SCOPES, ArmConfig
from mira_megatron.retention.candidates import SourceDocuments
from mira_megatron.retention.choosing import Choice, choose
from mira_megatron.retention.decisions import Decision
from mira_megatron.retention.keep_masks import read_keep_mask
from mira_megatron.retention.selection import units
from mira_megatron.retention.ties import tie_values
from mira_megatron.shards import json_digest, write_parquet
from mira_megatron.stage import Resources, Run, Unit, WorkResult, Workspace, run_unit
from mira_megatron.tokenization import tokenize
from mira_megatron.tokenization.index_file import index_fingerprint

# Score (None = not scored) and tokens of one document.
Scored = tuple[float | None, int]

# The two prose sources share a group.
GROUPS = {"books": "text-prose", "wiki": "text-prose", "code": "text-code"}
TIED = st.tuples(st.none() | st.sampled_from([1.0, 2.0]), st.integers(1, 9))
CORPUS = st.fixed_dictionaries({name: st.lists(TIED, min_size=1, max_size=6) for name in GROUPS})


def documents(source: str, *scored: Scored, untrainable: Sequence[int] = ()) -> SourceDocuments:
    """A source whose record ids are its name and a number."""
    numbers = range(len(scored))
    return SourceDocuments(
        source=source,
        record_ids=pa.chunked_array([[f"{source}{number}" for number in numbers]], pa.string()),
        tokens_D=np.array([tokens for _, tokens in scored], dtype=np.int64),
        scores_D=np.array([score or 0 for score, _ in scored], dtype=np.float32),
        is_scored_D=np.array([score is not None for score, _ in scored]),
        barred_D=np.array(
            [Decision.HELD_OUT if number in untrainable else 0 for number in numbers], np.uint8
        ),
        scores_fingerprint="s",
    )


def chosen(
    corpus: Sequence[SourceDocuments],
    scope: str,
    budget_tokens: int,
    *,
    seed: int = 1,
    pinned: Sequence[str] = (),
    **settings: Any,
) -> Choice:
    """The choice of an arm with these settings."""
    return choose(
        corpus,
        ArmConfig(score="s", scope=scope, budget_tokens=1, **settings),
        seed=seed,
        groups=GROUPS,
        pinned=pinned,
        budget_tokens=budget_tokens,
        where="recipe.yaml: arms.a",
    )


def kept_ids(corpus: Sequence[SourceDocuments], choice: Choice) -> set[str]:
    """Ids of the records kept."""
    return {
        name
        for entry in corpus
        for name in entry.record_ids.filter(
            pa.array(choice.sources[entry.source].times_D > 0)
        ).to_pylist()
    }


def kept(
    corpus: Sequence[SourceDocuments],
    scope: str,
    budget_tokens: int,
    *,
    seed: int = 1,
    **settings: Any,
) -> set[str]:
    """Ids of the records that an arm with these settings keeps."""
    return kept_ids(corpus, chosen(corpus, scope, budget_tokens, seed=seed, **settings))


# 20 tokens of prose in two sources and 20 of code: a budget of 20 is half of everything.
HALF = 20
CANDIDATES = [
    documents("books", (9.0, 5), (8.0, 5)),
    documents("wiki", (7.0, 5), (1.0, 5)),
    documents("code", (6.0, 5), (5.0, 5), (4.0, 5), (3.0, 5)),
]


def test_choose_globally_ranks_all_sources_together() -> None:
    assert kept(CANDIDATES, "global", HALF) == {"books0", "books1", "wiki0", "code0"}


def test_choose_by_group_gives_each_group_its_share() -> None:
    assert kept(CANDIDATES, "group", HALF) == {"books0", "books1", "code0", "code1"}


def test_choose_by_source_gives_each_source_its_share() -> None:
    assert kept(CANDIDATES, "source", HALF) == {"books0", "wiki0", "code0", "code1"}


@pytest.mark.parametrize(("scope", "num_scopes"), [("global", 1), ("group", 2), ("source", 3)])
def test_choose_reports_a_cut_per_scope(scope: str, num_scopes: int) -> None:
    cuts = chosen(CANDIDATES, scope, HALF).cuts
    assert len(cuts) == num_scopes
    assert sum(cut.candidate_tokens for cut in cuts.values()) == 40
    assert sum(cut.budget_tokens for cut in cuts.values()) == HALF


def test_choose_names_the_first_record_left_out() -> None:
    cuts = chosen(CANDIDATES, "group", HALF).cuts
    assert {scope: cut.first_out for scope, cut in cuts.items()} == {
        "text-prose": "wiki0",
        "text-code": "code2",
    }


def test_choose_never_keeps_what_is_not_to_be_trained_on() -> None:
    corpus = [
        documents("books", (9.0, 5), (1.0, 5), (8.0, 5), untrainable=[0]),
        documents("code", (7.0, 5), untrainable=[0]),
    ]
    assert kept(corpus, "global", 1000) == {"books1", "books2"}
    assert chosen(corpus, "global", 1000).cuts["all"].candidate_tokens == 10


def test_choose_counts_a_budgets_share_without_what_is_not_to_be_trained_on() -> None:
    corpus = [
        documents("books", (9.0, 10), (8.0, 10), (7.0, 80), untrainable=[2]),
        documents("code", (6.0, 10), (5.0, 10)),
    ]
    assert kept(corpus, "source", 20) == {"books0", "code0"}


@pytest.mark.parametrize("scope", SCOPES)
def test_choose_of_a_source_of_one_record_keeps_it_or_not(scope: str) -> None:
    corpus = [documents("books", (5.0, 10))]
    assert kept(corpus, scope, 10) == {"books0"}
    assert kept(corpus, scope, 9) == set()


@pytest.mark.parametrize("scope", SCOPES)
def test_choose_of_a_source_whose_one_record_is_held_out_keeps_nothing(scope: str) -> None:
    assert kept([documents("books", (5.0, 10), untrainable=[0])], scope, 100) == set()


def test_choose_among_equal_scores_takes_the_lowest_tie_values() -> None:
    books = documents("books", *[(5.0, 1)] * 20)
    ties = tie_values(books.record_ids, seed=3).tolist()
    lowest = sorted(range(20), key=ties.__getitem__)[:7]
    assert kept([books], "global", 7, seed=3) == {f"books{number}" for number in lowest}


def test_choose_among_equal_scores_depends_on_the_seed() -> None:
    books = documents("books", *[(5.0, 1)] * 20)
    choices = {frozenset(kept([books], "global", 7, seed=seed)) for seed in range(5)}
    assert len(choices) > 1
    assert all(len(names) == 7 for names in choices)


@settings(deadline=None)
@given(
    corpus=CORPUS,
    scope=st.sampled_from(SCOPES),
    budget_tokens=st.integers(0, 120),
    order=st.permutations(list(GROUPS)),
)
def test_choose_does_not_depend_on_the_order_of_sources(
    corpus: Mapping[str, list[Scored]], scope: str, budget_tokens: int, order: list[str]
) -> None:
    forth = [documents(name, *corpus[name]) for name in GROUPS]
    back = [documents(name, *corpus[name]) for name in order]
    assert kept(forth, scope, budget_tokens) == kept(back, scope, budget_tokens)


@settings(deadline=None)
@given(corpus=CORPUS, scope=st.sampled_from(SCOPES), budget_tokens=st.integers(0, 120))
def test_choose_never_exceeds_the_budget_nor_keeps_what_has_no_score(
    corpus: Mapping[str, list[Scored]], scope: str, budget_tokens: int
) -> None:
    found = kept([documents(name, *corpus[name]) for name in GROUPS], scope, budget_tokens)
    by_id = {f"{name}{n}": entry for name in GROUPS for n, entry in enumerate(corpus[name])}
    assert sum(by_id[name][1] for name in found) <= budget_tokens
    assert all(by_id[name][0] is not None for name in found)


# The stage itself: three real sources, their scores given by a unit of this module.


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    """One finished arm and what it was chosen from."""

    certificate: dict[str, Any]
    manifest: Manifest
    rows: dict[str, list[dict[str, Any]]]  # by source: record_id, text, num_tokens, is_kept …

    @property
    def all_rows(self) -> list[dict[str, Any]]:
        return [row for rows in self.rows.values() for row in rows]


# 40 texts of 1 to 40 words; every third of them stands in the next source too.
TEXTS = {
    source: [f"{number // 3 if number % 3 == 0 else source} " + "word " * number for number in r]
    for source, r in {"books": range(1, 41), "wiki": range(1, 41), "code": range(20, 61)}.items()
}


def write_scores(workspace: Workspace, settings: object) -> WorkResult:
    """The work of a unit that stands where aggregate would: a score in every second row."""
    (upstream,) = workspace.unit.upstream
    for path, part in workspace.upstream_parts(upstream, ".parquet"):
        ids = pq.read_table(path)["record_id"].to_pylist()
        if settings == "in another order":
            ids.reverse()
        if settings == "of another record":
            ids[0] = f"other {path.name}"
        numbers = range(len(ids))
        scores = [None if number % 2 else float(number % 5) for number in numbers]
        reasons = ["failed" if number % 2 else None for number in numbers]
        columns = {"record_id": ids, "score": scores, "reason": reasons}
        table = pa.table(columns, schema=RECORD_SCORE_SCHEMA)
        write_parquet(workspace.folder / part.path, table)
    return WorkResult(counts=Counts(num_in=1, num_out=1))


TRAINED = {"tokenizer": None, "train_vocab_size": 300, "train_on": ["books"], "train_chars": 999}
HELD_OUT = {"validation_fraction": 0.2, "validation_max_tokens": 200}
ROWS = {"format": "jsonl", "family": "text", "fields": {"text": "text"}}


def write_recipe(
    folder: Path, arms: Mapping[str, Any], sources: Sequence[str] = tuple(TEXTS), **sections: Any
) -> Path:
    for source in sources:
        rows = [orjson.dumps({"text": text}) + b"\n" for text in TEXTS[source]]
        (folder / f"{source}.jsonl").write_bytes(b"".join(rows))
    values = {
        "run_folder": str(folder / "run"),
        "sources": {s: {**ROWS, "paths": [f"{s}.jsonl"], "group": GROUPS[s]} for s in sources},
        "ingest": {"records_per_part": 16, "max_bad_fraction": 0},
        "tokenize": {**TRAINED, **HELD_OUT, "eod_token": "<|endoftext|>"},
        "arms": arms,
        **sections,
    }
    path = folder / "recipe.yaml"
    path.write_bytes(orjson.dumps(values))
    return path


def run_until_scored(path: Path, score_settings: Mapping[str, object] | None = None) -> Run:
    """Runs everything an arm reads."""
    recipe = load_recipe(path)
    run = Run(folder=recipe.run_folder)
    for unit in [*ingest.units(recipe), *tokenize.units(recipe)]:
        run_unit(unit, run, Resources())
    for source in recipe.mapping("sources"):
        scores = Unit(
            stage="aggregate",
            name=source,
            folder=layout.record_scores("given", source),
            version=1,
            config={},
            upstream=(layout.records(source),),
            work="test_selection:write_scores",
            settings=(score_settings or {}).get(source),
        )
        run_unit(scores, run, Resources())
    return run


def selected(path: Path) -> dict[str, Selected]:
    """Runs every arm of the recipe."""
    recipe = load_recipe(path)
    run = run_until_scored(path)
    found = {}
    for unit in units(recipe):
        manifest = run_unit(unit, run, Resources())
        folder = run.folder / unit.folder
        found[unit.name] = Selected(
            certificate=orjson.loads((folder / "selection.json").read_bytes()),
            manifest=manifest,
            rows={source: _rows(run.folder, folder, source) for source in TEXTS},
        )
    return found


def _rows(run_folder: Path, folder: Path, source: str) -> list[dict[str, Any]]:
    def parts(unit_folder: str, columns: list[str]) -> pa.Table:
        paths = sorted((run_folder / unit_folder).glob("part-*.parquet"))
        return pa.concat_tables(pq.read_table(path, columns=columns) for path in paths)

    (documents,) = (run_folder / layout.tokens(source)).glob("*.records.parquet")
    path_prefix = documents.with_name(documents.name.removesuffix(".records.parquet"))
    mask = read_keep_mask(folder / f"{source}.keep.npy")
    assert mask.info.idx_fingerprint == index_fingerprint(path_prefix)
    table = pq.read_table(documents)
    texts = parts(layout.records(source), ["text"])["text"]
    scores = parts(layout.record_scores("given", source), ["score"])["score"]
    table = table.append_column("text", texts).append_column("score", scores)
    rows: list[dict[str, Any]] = table.append_column("is_kept", [mask.is_kept]).to_pylist()
    return rows


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Selected]:
    """One arm per scope, each with a budget that binds."""
    folder = tmp_path_factory.mktemp("selection")
    values = {scope: {"score": "given", "scope": scope} for scope in SCOPES}
    return selected(write_recipe(folder, values, select={"budget_fraction": 0.3}))


@pytest.mark.parametrize("scope", SCOPES)
def test_select_keeps_no_held_out_text_from_any_source(
    arms: dict[str, Selected], scope: str
) -> None:
    rows = arms[scope].all_rows
    held_out = {row["text"] for row in rows if row["is_validation"]}
    duplicates = [row for row in rows if row["text"] in held_out and not row["is_validation"]]
    assert held_out
    assert duplicates
    assert not held_out & {row["text"] for row in rows if row["is_kept"]}


@pytest.mark.parametrize("scope", SCOPES)
def test_select_keeps_only_what_has_a_score(arms: dict[str, Selected], scope: str) -> None:
    kept_rows = [row for row in arms[scope].all_rows if row["is_kept"]]
    assert kept_rows
    assert all(row["score"] is not None for row in kept_rows)


@pytest.mark.parametrize("scope", SCOPES)
def test_selection_certificate_agrees_with_its_masks(arms: dict[str, Selected], scope: str) -> None:
    arm = arms[scope]
    tokens_kept = sum(row["num_tokens"] for row in arm.all_rows if row["is_kept"])
    certificate = arm.certificate
    assert certificate["tokens_kept"] == tokens_kept
    assert tokens_kept <= certificate["budget_tokens"]
    for part in ("scopes", "sources"):
        assert sum(entry["tokens_kept"] for entry in certificate[part].values()) == tokens_kept
    for source, entry in certificate["sources"].items():
        assert entry["num_kept"] == sum(row["is_kept"] for row in arm.rows[source])
        assert entry["num_held_out"] == sum(row["is_validation"] for row in arm.rows[source])
        assert entry["source_group"] == GROUPS[source]


@pytest.mark.parametrize("scope", SCOPES)
def test_selection_certificate_accounts_for_every_document(
    arms: dict[str, Selected], scope: str
) -> None:
    sources, scopes = (arms[scope].certificate[part].values() for part in ("sources", "scopes"))
    num_documents = sum(entry["num_documents"] for entry in sources)
    not_candidates = sum(
        entry["num_held_out"] + entry["num_duplicates_of_held_out"] for entry in sources
    )
    assert num_documents == len(arms[scope].all_rows)
    assert sum(entry["num_candidates"] for entry in scopes) == num_documents - not_candidates
    counts = arms[scope].manifest.counts
    assert counts.num_in == num_documents
    assert counts.num_in == counts.num_out + sum(counts.dropped.values())
    assert counts.num_out == sum(entry["num_kept"] for entry in scopes)


@pytest.mark.parametrize("scope", SCOPES)
def test_selection_certificate_names_the_best_record_left_out(
    arms: dict[str, Selected], scope: str
) -> None:
    rows = {row["record_id"]: row for row in arms[scope].all_rows}
    for cut in arms[scope].certificate["scopes"].values():
        first_out = rows[cut["first_out"]]
        assert not first_out["is_kept"]
        assert first_out["score"] <= cut["cutoff"]
        assert cut["tokens_kept"] + first_out["num_tokens"] > cut["budget_tokens"]


def test_selection_certificate_digest_is_that_of_the_rest(arms: dict[str, Selected]) -> None:
    certificate = dict(arms["group"].certificate)
    assert certificate.pop("digest") == json_digest(certificate)


def test_select_budget_fraction_is_of_the_tokens_that_could_be_trained_on(
    arms: dict[str, Selected],
) -> None:
    certificate = arms["global"].certificate
    candidate_tokens = certificate["scopes"]["all"]["candidate_tokens"]
    assert certificate["budget_tokens"] == 3 * candidate_tokens // 10


def test_select_joins_scores_in_another_order_by_id(tmp_path: Path) -> None:
    arm = {"score": "given", "scope": "global", "budget_tokens": 100}
    path = write_recipe(tmp_path, {"a": arm})
    run = run_until_scored(path, {"wiki": "in another order"})
    (unit,) = units(load_recipe(path))
    run_unit(unit, run, Resources())
    is_kept = read_keep_mask(run.folder / "keep/a/wiki.keep.npy").is_kept
    (documents,) = (run.folder / "tokens/wiki").glob("*.records.parquet")
    ids = pq.read_table(documents)["record_id"].filter(pa.array(is_kept)).to_pylist()
    paths = sorted((run.folder / "record_scores/given/wiki").glob("part-*.parquet"))
    scores = pa.concat_tables(map(pq.read_table, paths)).to_pylist()
    by_id = {row["record_id"]: row["score"] for row in scores}
    assert ids
    assert {by_id[name] for name in ids} <= {4.0, 3.0}


def test_select_of_other_records_scores_is_refused_with_both_folders(tmp_path: Path) -> None:
    arm = {"score": "given", "scope": "global", "budget_tokens": 10}
    path = write_recipe(tmp_path, {"a": arm})
    run = run_until_scored(path, {"wiki": "of another record"})
    (unit,) = units(load_recipe(path))
    message = (
        r"record_scores/given/wiki: its 40 records are not the 40 documents of tokens/wiki: "
        r"3 of these have no row, such as '[0-9a-f]+'"
    )
    with pytest.raises(ValueError, match=message):
        run_unit(unit, run, Resources())


GOOD_ARM = {"score": "given", "scope": "group"}
BOTH = {"budget_tokens": 5, "budget_fraction": 0.5}


@pytest.mark.parametrize(
    ("arm", "select", "message"),
    [
        ({}, {}, "needs exactly one of budget_tokens and budget_fraction.*None and None"),
        (BOTH, {}, r"needs exactly one .*got 5 and 0\.5"),
        ({}, BOTH, r"needs exactly one .*got 5 and 0\.5"),
        ({"budget_tokens": -1}, {}, "budget_tokens=-1 < 1"),
        ({"budget_tokens": 0}, {}, "budget_tokens=0 < 1"),
        ({"budget_tokens": 0.5}, {}, r"budget_tokens=0\.5 must be a whole number"),
        ({"budget_fraction": 1.5}, {}, r"budget_fraction=1\.5 not in \(0, 1\]"),
        ({"budget_fraction": 0}, {}, r"budget_fraction=0\.0 not in \(0, 1\]"),
        ({"budget_fraction": -0.5}, {}, r"budget_fraction=-0\.5 not in"),
        ({"scope": "cluster", "budget_tokens": 5}, {}, "scope='cluster' must be one of global"),
        ({"budget_token": 5}, {}, "unknown key 'budget_token'.*'budget_tokens'"),
        ({"budget_tokens": 5, "seed": 3}, {}, "unknown key 'seed'"),
    ],
)
def test_arm_with_a_wrong_setting_is_refused_by_name(
    tmp_path: Path, arm: dict[str, Any], select: dict[str, Any], message: str
) -> None:
    path = write_recipe(tmp_path, {"mine": {**GOOD_ARM, **arm}}, select=select)
    with pytest.raises(ValueError, match=rf"recipe\.yaml: arms\.mine.*{message}"):
        units(load_recipe(path))


@pytest.mark.parametrize("entry", [None, 3, "group", ["group"]])
def test_arm_that_is_no_mapping_is_refused_by_name(tmp_path: Path, entry: object) -> None:
    path = write_recipe(tmp_path, {"mine": entry}, select={"budget_tokens": 5})
    with pytest.raises(ValueError, match=r"recipe\.yaml: arms\.mine"):
        units(load_recipe(path))


def test_arm_with_its_own_budget_leaves_the_general_one(tmp_path: Path) -> None:
    own = {**GOOD_ARM, "budget_tokens": 25e9}
    path = write_recipe(tmp_path, {"own": own, "general": GOOD_ARM}, select={"budget_fraction": 1})
    budgets = {
        unit.name: (unit.config["budget_tokens"], unit.config["budget_fraction"])
        for unit in units(load_recipe(path))
    }
    assert budgets == {"own": (25_000_000_000, None), "general": (None, 1.0)}


def test_arm_of_a_reordered_recipe_has_the_same_fingerprint_and_masks(tmp_path: Path) -> None:
    digests = []
    for name, order in {"forth": ["books", "wiki"], "back": ["wiki", "books"]}.items():
        folder = tmp_path / name
        folder.mkdir()
        arm = {"score": "given", "scope": "global", "budget_fraction": 0.3}
        path = write_recipe(folder, {"a": arm}, order)
        run = run_until_scored(path)
        (unit,) = units(load_recipe(path))
        manifest = run_unit(unit, run, Resources())
        masks = {part.path: part.digest for part in manifest.parts if part.path.endswith(".npy")}
        digests.append((manifest.fingerprint, masks))
    assert digests[0] == digests[1]
