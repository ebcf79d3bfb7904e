from __future__ import annotations

from pathlib import Path

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.report.groups_section import read_families

SIMILARITY = {
    "family": "text",
    "embedder": {"engine": "tfidf_svd", "model": None},
    "sources": ["books", "wiki"],
    "cosines": [[1.0, 0.75], [0.75, 1.0]],
    "groups": {
        "text-books": {
            "sources": ["books", "wiki"],
            "method": "similarity",
            "mean_cosine": 0.75,
            "lowest_cosine": 0.7,
        }
    },
}


def test_family_has_its_groups_and_how_alike_its_sources_are(tmp_path: Path) -> None:
    write_json(tmp_path / layout.groups("demo", "text") / "similarity.json", SIMILARITY)
    (family,) = read_families(tmp_path, "demo", ["text"])
    assert (family.embedder, family.sources) == ("tfidf svd", ("books", "wiki"))
    assert family.cosines == ((1.0, 0.75), (0.75, 1.0))
    (group,) = family.groups
    assert (group.name, group.mean_cosine, group.lowest_cosine) == ("text-books", 0.75, 0.7)


def test_recipe_without_grouping_has_no_family(tmp_path: Path) -> None:
    assert read_families(tmp_path, "demo", ()) == ()
