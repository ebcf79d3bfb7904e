"""Dimensions of any text's words and characters: what there is to learn from, and what is noise.

The percentiles in the comments are those of `rules_code` where code is meant, of `rules_prose`
where prose is.
"""

from __future__ import annotations

from mira_megatron.rubric.text_features import WINDOW_WORDS, TextFeatures
from mira_megatron.rubric.verdict import (
    Finding,
    balanced,
    placed,
    quantified,
    scaled,
    scaled_log,
    unmeasurable,
)

_LOADS = ("light", "usual", "heavy")
_FEW_WORDS = 100  # below, nothing has had the room to come again
_SECRET_POINTS = 5  # lost for each
_GENERATED_SCORE = 2  # the best for a file that says it was written by a program


def vocabulary(features: TextFeatures) -> Finding:
    """Scores the variety of words, counted in windows so that long texts do not lose."""
    fraction = features.words.distinct_fraction
    if fraction is None:
        return unmeasurable(f"fewer than {WINDOW_WORDS} words")
    return Finding(
        # code: p5 0.52, p50 0.67, p95 0.79; prose: p10 0.45, p50 0.70, p95 0.84
        score=scaled(fraction, worst=0.45, best=0.8),
        reason=f"{placed(fraction, low=0.55, high=0.75, words=('monotonous', 'usual', 'varied'))} "
        f"wording: {fraction:.0%} of the words in a window of {WINDOW_WORDS} are different ones",
    )


def non_repetition(features: TextFeatures) -> Finding:
    """Scores how few lines and five-word sequences come again."""
    lines, words = features.lines, features.words
    if words.num_words < _FEW_WORDS:
        return unmeasurable(f"{words.num_words} words")
    line_share = lines.num_repeated / lines.num_compared if lines.num_compared else 0.0
    return Finding(
        # code: p50 0.06, p95 0.33; prose: p50 0.04, p90 0.27, p95 0.40
        score=scaled(max(line_share, words.repeated_fraction), worst=0.3, best=0),
        reason=f"{quantified(lines.num_repeated, lines.num_compared, 'lines are repeats')}; "
        f"{words.repeated_fraction:.1%} of the five-word sequences are",
    )


def substance(features: TextFeatures) -> Finding:
    """Scores how much there is to learn from: different words outside licence text and data."""
    num_terms = features.words.num_content_terms
    if not features.words.num_words:
        return unmeasurable("no words")
    return Finding(
        # code: p5 20, p50 111, p90 441; prose: p25 9, p50 87, p90 484
        score=scaled_log(num_terms, worst=20, best=450),
        reason=f"{placed(num_terms, low=50, high=250, words=('little', 'some', 'much'))} content: "
        f"{num_terms} different words of four letters or more outside licence text and data",
    )


def information_density(features: TextFeatures) -> Finding:
    """Scores text that can be packed neither like a table nor only like noise."""
    fraction = features.chars.packed_fraction
    if features.words.num_words < _FEW_WORDS:
        return unmeasurable(f"{features.words.num_words} words")
    return Finding(
        # code: p5 0.22, p50 0.34, p95 0.48; prose: p5 0.24, p50 0.42, p95 0.60
        score=balanced(fraction, least=0.2, low=0.38, high=0.6, most=0.8),
        reason=f"{placed(fraction, low=0.3, high=0.6, words=('diluted', 'usual', 'dense'))} "
        f"information: packing leaves {fraction:.0%} of the bytes",
    )


def symbol_load(features: TextFeatures) -> Finding:
    """Scores words over brackets and operators, by what code and prose need of them."""
    chars = features.chars
    if not chars.num_chars:
        return unmeasurable("no text")
    worst, best = (0.12, 0.03) if features.prose else (0.24, 0.08)
    return Finding(
        # code: p10 0.09, p50 0.12, p95 0.20, tests p95 0.24; prose: p5 0.02, p50 0.07, p95 0.12
        score=scaled(chars.symbol_fraction, worst=worst, best=best),
        reason=f"{placed(chars.symbol_fraction, low=best, high=worst, words=_LOADS)} load of "
        f"symbols: {chars.symbol_fraction:.0%} of the visible characters are brackets, operators "
        "and marks",
    )


def content_share(features: TextFeatures) -> Finding:
    """Scores the absence of licence text, data and machine-written code."""
    noise, num_lines = features.noise, features.lines.num_filled
    if not num_lines:
        return unmeasurable("no text")
    # A line of a licence may look like data, too.
    num_empty = min(num_lines, noise.num_data + noise.num_legal)
    num_phrases = features.prose.num_web_phrases if features.prose else 0
    # code: p50 0.03, p90 0.20, p95 0.40
    score = max(0, scaled(num_empty / num_lines, worst=0.4, best=0) - num_phrases)
    if noise.is_generated:
        score = min(score, _GENERATED_SCORE)
    return Finding(
        score=score,
        reason=f"{quantified(num_empty, num_lines, 'lines are licence text or data')} "
        f"({noise.num_legal} and {noise.num_data}); {num_phrases} web phrases; "
        f"{'says that it is generated' if noise.is_generated else 'no note of a generator'}",
    )


def cleanliness(features: TextFeatures) -> Finding:
    """Scores the absence of broken characters, encoded blobs and access keys."""
    chars, num_secrets = features.chars, features.words.num_secrets
    if not chars.num_chars:
        return unmeasurable("no text")
    num_bad = chars.num_control + chars.num_broken
    by_chars = scaled(num_bad / chars.num_chars, worst=0.01, best=0)
    by_blobs = scaled(chars.num_blob / chars.num_chars, worst=0.5, best=0)
    return Finding(
        score=max(0, min(by_chars, by_blobs) - _SECRET_POINTS * num_secrets),
        reason=f"{'not clean' if num_bad + chars.num_blob + num_secrets else 'clean'}: of "
        f"{chars.num_chars} characters {num_bad} are control or wrongly decoded ones and "
        f"{chars.num_blob} in encoded blobs; {num_secrets} strings look like an access key",
    )
