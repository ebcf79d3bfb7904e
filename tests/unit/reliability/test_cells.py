import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mira_megatron.records import Anchor
from mira_megatron.reliability.cells import Cell, RatedAs, cells, follows, spearman
from mira_megatron.reliability.intervals import Resampling

NAN = float("nan")


def anchor(slot: int) -> Anchor:
    return Anchor(
        anchor_id=f"A{slot}",
        name=f"name {slot}",
        description=None,
        part=None,
        cluster_size=None,
        aliases=(),
        medoid=None,
        references=(),
        rubric_version="v",
    )


def cells_of(teacher: list[float], scorer: list[float], num_chars: list[int]) -> Cell:
    (cell,) = cells(
        np.array([teacher]).T,
        np.array([scorer]).T,
        np.array(num_chars),
        anchors=[anchor(1)],
        source="s",
        group="g",
        rated_as=RatedAs(model="m", prompt_key="p", answer_mode="expected"),
        resampling=Resampling(confidence=0.9, resamples=50, seed=1),
    )
    return cell


def test_cells_scores_given_by_both_are_compared() -> None:
    cell = cells_of([1, 2, 3, NAN, 5], [2, 3, 4, 9, NAN], [30, 20, 10, 1, 1])

    assert (cell.n, cell.mae, cell.rho, cell.rho_of_length) == (3, 1.0, 1.0, -1.0)
    assert (cell.anchor_id, cell.anchor_name, cell.reason) == ("A1", "name 1", None)
    assert (cell.mae_low, cell.mae_high) == (1.0, 1.0)  # whichever of the three are drawn
    assert (cell.rho_low, cell.rho_high) == (-1.0, 1.0)  # one record drawn three times has no rho
    assert cell.rated_as == RatedAs(model="m", prompt_key="p", answer_mode="expected")


def test_cells_no_pair_is_null_with_a_reason() -> None:
    cell = cells_of([NAN, 1], [1, NAN], [1, 2])

    assert (cell.n, cell.mae, cell.rho) == (0, None, None)
    assert cell.reason == "too few records: 0 of at least 3"
    assert (cell.mae_low, cell.mae_high, cell.rho_low, cell.rho_high) == (None,) * 4


@pytest.mark.parametrize(
    ("scorer", "teacher", "who"),
    [([1, 1, 1], [1, 2, 3], "scorer"), ([1, 2, 3], [4, 4, 4], "teacher")],
)
def test_cells_constant_scores_have_no_rank_correlation(
    scorer: list[float], teacher: list[float], who: str
) -> None:
    cell = cells_of(teacher, scorer, [1, 2, 3])

    assert (cell.rho, cell.rho_low, cell.rho_high) == (None, None, None)
    assert cell.mae_low is not None
    assert cell.reason == f"the {who} gave every record the same score"


def test_cells_two_records_have_an_error_and_no_interval() -> None:
    cell = cells_of([1, 2], [2, 4], [1, 2])
    assert (cell.n, cell.mae, cell.mae_low, cell.mae_high) == (2, 1.5, None, None)


values = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=3, max_size=30)


@given(values)
def test_spearman_is_scipys(pairs: list[tuple[int, int]]) -> None:
    one: npt.NDArray[np.float64]
    one, other = np.array(pairs, np.float64).T
    rho, reason = spearman(one, other)

    if rho is None:
        assert reason
        assert len(set(one)) == 1 or len(set(other)) == 1
    else:
        assert rho == pytest.approx(spearmanr(one, other).statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("scorer", "num_chars", "expected"),
    [
        ([1, 2, 3, 4], [1, 9, 2, 8], True),
        ([1, 2, 3, 4], [1, 2, 3, 4], False),  # length alone ranks as well
        ([1, 2, 3, 4], [4, 3, 2, 1], False),
        ([4, 3, 2, 1], [1, 9, 2, 8], False),
    ],
)
def test_follows_ranks_better_than_length(
    scorer: list[float], num_chars: list[int], expected: bool
) -> None:
    assert follows(cells_of([1, 2, 3, 4], scorer, num_chars), min_rho=0.4) is expected
