"""What a compact answer says where nothing is left to decide: a draft that saves decoding steps.

Between two scores a compact answer is known in advance. Example answers, one for every score, make
a tree of tokens; where it does not branch, the next tokens are as good as certain. A draft is only
ever proposed: whoever decodes keeps of it what the model would have chosen itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Place:
    """A place in the answer, with what may follow it: token id -> the place after that token."""

    following: dict[int, Place] = field(default_factory=dict)

    def sure_tokens(self) -> list[int]:
        """Returns the ids of the tokens up to the next place where there is a choice."""
        place, ids = self, []
        while len(place.following) == 1:
            ((token_id, place),) = place.following.items()
            ids.append(token_id)
        return ids


def answer_tree(examples: Sequence[Sequence[Sequence[int]]]) -> Place:
    """Returns the place before the first token of an answer.

    `examples` are answers as the token ids of each of their lines. After a line any example's next
    line may follow, so that every mixture of scores is in the tree.
    """
    before_line = [Place() for _ in examples[0]]
    before_line.append(Place())
    for lines in examples:
        for number, ids in enumerate(lines):
            place = before_line[number]
            for token_id in ids[:-1]:
                place = place.following.setdefault(token_id, Place())
            place.following[ids[-1]] = before_line[number + 1]
    return before_line[0]
