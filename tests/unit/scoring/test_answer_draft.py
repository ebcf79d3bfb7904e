from __future__ import annotations

from mira_megatron.scoring.answer_draft import answer_tree

# Two lines; 1 and 2 open them, 7, 8 and 3 are scores, of which 3 is followed by 0; 9 ends a line.
_SEVEN = [[1, 7, 9], [2, 7, 5]]
_EIGHT = [[1, 8, 9], [2, 8, 5]]
_THIRTY = [[1, 3, 0, 9], [2, 3, 0, 5]]


def test_answer_tree_drafts_up_to_where_a_score_is_to_be_chosen() -> None:
    first = answer_tree([_SEVEN, _EIGHT, _THIRTY])
    assert first.sure_tokens() == [1]
    score = first.following[1]
    assert score.sure_tokens() == []
    assert score.following[8].sure_tokens() == [9, 2]
    assert score.following[3].sure_tokens() == [0, 9, 2]


def test_answer_tree_mixes_the_scores_of_its_examples() -> None:
    place = answer_tree([_SEVEN, _EIGHT])
    for token_id in (1, 7, 9, 2, 8):
        place = place.following[token_id]
    assert place.sure_tokens() == [5]
    assert place.following[5].following == {}
