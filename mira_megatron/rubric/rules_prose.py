"""Dimensions of documents and running text.

Each rationale quotes the measured number. The scales end at quantiles measured on the 477 documents
(.md, .rst, .txt, METADATA, LICENSE; 200 to 60,000 bytes, UTF-8) of CPython 3.11's library and this
project's environment: p5, p50, p95 in the comments are the 5th, 50th and 95th percentile of the 214
among them that are neither code nor mostly licence text.
"""

from __future__ import annotations

from mira_megatron.rubric.prose_features import ProseFeatures
from mira_megatron.rubric.text_features import LONG_WORD_CHARS, TextFeatures
from mira_megatron.rubric.verdict import Finding, balanced, placed, quantified, scaled, unmeasurable

_FEW_WORDS = 20  # below, shares and averages say nothing
_LENGTHS = ("short", "readable", "long")
_CUT_LINE_CHARS = 40  # a shorter last line may be a caption, a name or a list item


def examples(features: TextFeatures, prose: ProseFeatures) -> Finding:
    """Scores documents that show what they talk about."""
    num_lines, num_words = features.lines.num_filled, features.words.num_words
    if num_words < _FEW_WORDS:
        return unmeasurable(f"{num_words} words")
    by_lines = balanced(features.num_examples / num_lines, least=0, low=0.15, high=0.5, most=1)
    by_spans = scaled(100 * prose.num_inline_code / num_words, worst=0, best=4)
    return Finding(
        score=max(by_lines, by_spans),  # lines: p75 0.19, p95 0.46; spans: p75 1.2, p95 5.1
        reason=f"{quantified(features.num_examples, num_lines, 'lines are examples')}; "
        f"{prose.num_inline_code} code spans in {num_words} words",
    )


def section_size(features: TextFeatures, _: ProseFeatures) -> Finding:
    """Scores headings neither too rare nor too frequent."""
    num_words, num_headings = features.words.num_words, features.lines.num_headings
    if not num_words:
        return unmeasurable("no words")
    return Finding(
        # p5 41, p25 83, p50 152, p75 292, p95 1526
        score=balanced(num_words / max(1, num_headings), least=20, low=83, high=292, most=1526),
        reason=f"{'sections' if num_headings else 'text without sections'}: {num_words} words "
        f"under {num_headings} headings",
    )


def references(features: TextFeatures, prose: ProseFeatures) -> Finding:
    """Scores links to what the text talks about, short of link lists."""
    num_words = features.words.num_words
    if num_words < _FEW_WORDS:
        return unmeasurable(f"{num_words} words")
    return Finding(
        # p50 0.3, p75 3, p95 6.9
        score=balanced(100 * prose.num_links / num_words, least=0, low=1, high=5, most=12),
        reason=f"{'' if prose.num_links else 'no '}links and cross-references: "
        f"{prose.num_links} in {num_words} words",
    )


def explaining_words(features: TextFeatures, prose: ProseFeatures) -> Finding:
    """Scores words of reasoning outside licence text and data."""
    num_words = features.words.num_words
    if num_words < _FEW_WORDS:
        return unmeasurable(f"{num_words} words")
    per_hundred = 100 * prose.num_connectives / num_words
    return Finding(
        # p50 0.3, p75 1.2, p95 2.6
        score=scaled(per_hundred, worst=0, best=2.5),
        reason=f"{placed(per_hundred, low=0.3, high=1.5, words=('hardly any', 'some', 'many'))} "
        f"explaining words (because, if, example …): {prose.num_connectives} in {num_words}, "
        "licence text and data not counted",
    )


def sentence_length(features: TextFeatures, prose: ProseFeatures) -> Finding:
    """Scores sentences and list items of a readable length."""
    if not features.words.num_words:
        return unmeasurable("no words")
    if not prose.num_sentences:
        return Finding(score=0, reason="no sentence outside licence text and data")
    return Finding(
        # p25 6, p50 11, p75 14, p90 26, p95 48
        score=balanced(prose.mean_sentence_words, least=3, low=9, high=20, most=39),
        reason=f"{placed(prose.mean_sentence_words, low=6, high=25, words=_LENGTHS)} sentences or "
        f"list items: {prose.num_sentences} of {prose.mean_sentence_words:.1f} words",
    )


def wording(features: TextFeatures, _: ProseFeatures) -> Finding:
    """Scores words a reader takes in at a glance."""
    num_words = features.words.num_words
    if num_words < _FEW_WORDS:
        return unmeasurable(f"{num_words} words")
    return Finding(
        # p25 0.02, p50 0.03, p90 0.10, p95 0.14
        score=scaled(features.words.num_long_words / num_words, worst=0.12, best=0.01),
        reason=quantified(
            features.words.num_long_words,
            num_words,
            f"words have {LONG_WORD_CHARS} letters or more",
        ),
    )


def paragraphs(features: TextFeatures) -> Finding:
    """Scores paragraphs of a readable size with headings and lists between them."""
    lines = features.lines
    if not lines.num_filled:
        return unmeasurable("no text")
    per_block = features.words.num_words / lines.num_blocks
    num_marks = lines.num_headings + lines.num_list_items
    by_size = balanced(per_block, least=5, low=15, high=35, most=120)  # p5 10, p50 31, p75 61
    # p50 0.06, p75 0.17, p95 0.33; running text without any mark is halfway good.
    by_marks = balanced(num_marks / lines.num_filled, least=-0.1, low=0.1, high=0.3, most=0.8)
    return Finding(
        score=min(by_size, by_marks),
        reason=f"{placed(per_block, low=10, high=60, words=_LENGTHS)} blocks: {lines.num_blocks} "
        f"of {per_block:.0f} words; {num_marks} of {lines.num_filled} lines are headings or list "
        "items",
    )


def ends_mid_sentence(features: TextFeatures) -> bool:
    """Returns whether prose stops in a long line without closing punctuation."""
    last = features.lines.last
    stops_open = last[-1:].isalnum() or last.endswith((",", "，", "、"))
    return features.prose is not None and len(last) >= _CUT_LINE_CHARS and stops_open
