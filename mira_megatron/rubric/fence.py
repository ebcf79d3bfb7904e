"""A record inside a prompt: quoted so that it can neither end its fence, open a turn, nor answer.

family: <family>
-----BEGIN RECORD <hash of the record>-----
the record, with a middle dot set into whatever could be more than text
-----END RECORD <hash of the record>-----

A server puts a message through a chat template as one string, so `<|im_end|>` inside a record would
become the control token that ends the message, whatever the fence around it says. `quote` breaks
every such spelling by a middle dot after its first character (`<·|im_end|>`), and likewise answer
slots (`[·A1]`) and fence lines (`-----·END RECORD`), so that a model that copies lines out of a
record has not answered with them. It adds one dot to those already there, as mail quotes "From "
lines, so `unquote` gives back every text exactly.
"""

from __future__ import annotations

import re
from hashlib import blake2b

from mira_megatron.records import FAMILIES

DOT = "·"  # U+00B7: visible, ASCII-like in width, and left alone by every Unicode normal form

# Control tokens spelt as a word in angle brackets, beside those with bars (<|…|>): of Qwen, GLM,
# DeepSeek, Gemma, Llama, Mistral, Granite, InternLM, Command, Seed, StarCoder, Nemotron, T5.
# One too many does no harm: quoting is undone before anything is measured.
_TAGS = (
    *("s", "bos", "eos", "pad", "unk", "mask", "cls", "sep", "sop", "eop", "eot", "eod"),
    *("BOS", "EOS", "PAD", "UNK", "MASK", "EOT", "EOD", "PRE", "SUF", "MID", "SYS"),
    *("BOS_TOKEN", "EOS_TOKEN", "PAD_TOKEN", "UNK_TOKEN", "MASK_TOKEN", "EOP_TOKEN"),
    *("start_of_turn", "end_of_turn", "start_of_image", "end_of_image", "image_soft_token"),
    *("think", "no_think", "tool_call", "tool_calls", "tool_response", "tool_responses"),
    *("toolcall", "function_call", "function_calls", "arg_key", "arg_value", "eoh", "eoa", "eom"),
    *("endoftext", "startoftext", "end_of_text", "im_start", "im_end"),
    *("system", "user", "assistant", "image", "video", "audio", "img", "ref", "box", "quad"),
    *("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "reponame", "file_sep"),
    *("filename", "gh_stars", "empty_output", "issue_start", "issue_comment", "issue_closed"),
    *("jupyter_start", "jupyter_text", "jupyter_code", "jupyter_output"),
    *("commit_before", "commit_msg", "commit_after", "tts_pad", "tts_text_bos", "tts_text_eod"),
)
_NUMBERED_TAGS = ("SPECIAL_", "extra_id_", "unused", "reserved_", "TOKENS_UNUSED_", "/?seed:")
_WORDS = (
    *("INST", "SYSTEM_PROMPT", "TOOL_CALLS", "TOOL_CONTENT", "TOOL_RESULTS", "AVAILABLE_TOOLS"),
    *("ARGS", "CALL_ID", "THINK", "MODEL_SETTINGS", "SUFFIX", "PREFIX", "MIDDLE", "IMG", "AUDIO"),
    *("BOS", "EOS", "PAD", "UNK", "CLS", "SEP", "MASK", "gMASK", "sMASK", "EOT"),
    *("start_header_id", "end_header_id"),
)
# What bold or an invisible character could put between a bracket and what it encloses.
_FILL = r"[\s*_\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]{0,8}"

# An opening character, the dots already after it, and what must follow. What must follow holds no
# dot, and no opening character but as its last; so quoting never changes what another match looks
# at, and `unquote` finds exactly the places that `quote` found.
_DASHES = "-‐‑‒–—―−﹘﹣－"
_RISKS = (
    (
        "<＜﹤",
        rf"[|｜¦￨]|[/／]?(?:{'|'.join(_TAGS)})[>＞]|(?:{'|'.join(_NUMBERED_TAGS)})\w{{1,24}}>",
    ),
    ("[", rf"\||/?(?:{'|'.join(_WORDS)})\]|extra_id_|e~"),
    ("]", r"~!?b"),
    ("[［【〔", rf"{_FILL}[AaＡａCDQTＣＤＱＴ]{_FILL}\d"),
    (_DASHES, r"[\s\u200b]{0,2}(?:BEGIN|END)[\s_]{1,2}RECORD"),
)
# The opening characters come first, as one set: `re` then skips to them, six times as fast as
# through alternatives that begin alike.
_OPENING = "".join({char: None for opening, _ in _RISKS for char in opening})
_RISKY = re.compile(
    rf"[{re.escape(_OPENING)}](?:"
    + "|".join(rf"(?<=[{re.escape(each)}]){DOT}*(?={follows})" for each, follows in _RISKS)
    + ")"
)
_QUOTED = re.compile(_RISKY.pattern.replace(f"{DOT}*", f"{DOT}+"))
# The same for plain ASCII, four times as fast: no dot is there yet, `re` runs to one character at
# the speed of memory, and only where a text holds what follows it.
_ASCII_RISKY = tuple(
    (needed, re.compile(rf"{re.escape(each)}(?:{follow})"))
    for needed, each in (("<", "<"), ("[", "["), ("~", "]"), ("RECORD", "-"))
    for follow in ["|".join(f"(?={follows})" for opening, follows in _RISKS if each in opening)]
)

_BEGIN = "family: {family}\n-----BEGIN RECORD {digest}-----\n"
_END = "\n-----END RECORD {digest}-----"
_BEGIN_LINES = re.compile(
    r"^family: ([a-z_]+)\n-----BEGIN RECORD ([0-9a-f]{32})-----\n", re.MULTILINE
)


def quote(text: str) -> str:
    """Returns the text with a dot set into every control token, answer slot and fence line."""
    if not text.isascii():
        return _RISKY.sub(rf"\g<0>{DOT}", text)
    for needed, risky in _ASCII_RISKY:
        # Found first: to get ready for replacing takes as long as half a search, and few hold any.
        if needed in text and risky.search(text):
            text = risky.sub(rf"\g<0>{DOT}", text)
    return text


def unquote(text: str) -> str:
    """Returns the text that `quote` was given."""
    return _QUOTED.sub(lambda match: match[0][:-1], text)


def fenced(family: str, view: str) -> str:
    """Returns the quoted record between its lines, without a newline at the end."""
    digest = text_digest(view)
    begin = _BEGIN.format(family=family, digest=digest)
    return f"{begin}{quote(view)}{_END.format(digest=digest)}"


def unfenced(text: str) -> tuple[str, str]:
    """Returns family and view of what `fenced` made.

    Raises ValueError for any other text, and where the record was altered on its way.
    """
    begin = _BEGIN_LINES.match(text)
    if begin is None:
        raise ValueError("the message holds no fenced record: there is no BEGIN RECORD line")
    family, digest = begin.groups()
    if family not in FAMILIES:
        raise ValueError(f"family={family!r} must be one of {', '.join(FAMILIES)}")
    end = _END.format(digest=digest)
    if len(text) < begin.end() + len(end) or not text.endswith(end):
        raise ValueError("the record's END RECORD line is missing")
    view = unquote(text[begin.end() : -len(end)])
    if text_digest(view) != digest:
        raise ValueError("the record does not match the hash in its BEGIN RECORD line")
    return family, view


def split_fence(message: str) -> tuple[str, str]:
    """Returns what stands before the fence of a message, and the rest from the fence on."""
    begin = _BEGIN_LINES.search(message)
    if begin is None:
        raise ValueError("the message holds no fenced record: there is no BEGIN RECORD line")
    return message[: begin.start()], message[begin.start() :]


def text_digest(text: str) -> str:
    """Returns 32 hex digits of a cryptographic hash of the text."""
    # surrogatepass: JSON escapes can smuggle in halves of characters that UTF-8 has no bytes for.
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
