from __future__ import annotations

from contamination_scans import buffer_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.eval.contamination.code_tokens import tokens_of
from mira_megatron.eval.contamination.matching import window_tokens, windows

SIGNS = st.sampled_from("abn1 .\\\n é\xa0\u2019")
TEXTS = st.lists(st.one_of(st.text(SIGNS, max_size=9), st.text(SIGNS, min_size=60)), max_size=4)


@given(TEXTS)
@settings(deadline=None)  # machines are busy
def test_tokens_of_all_windows_are_those_of_the_documents(texts: list[str]) -> None:
    texts = [" ".join(text[at : at + 6] for at in range(0, len(text), 6)) for text in texts]
    content, offsets = buffer_of(texts)
    whole = tokens_of(content, offsets[:-1])
    expected = set(zip(whole.start_T.tolist(), whole.end_T.tolist(), whole.hash_T, strict=True))
    found = set()
    for window in windows(offsets, 48, 32):
        assert window.end - window.start <= 48
        tokens = window_tokens(content, offsets, window)
        starts, ends = tokens.start_T + window.start, tokens.end_T + window.start
        found |= set(zip(starts.tolist(), ends.tolist(), tokens.hash_T, strict=True))
    assert found == expected
