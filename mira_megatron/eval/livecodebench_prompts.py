"""What a model is asked in LiveCodeBench, and the program in its answer.

Roles, sections and fences are the published ones: a system and a user message for chats, and for
base models one solved example, a task and an open answer. The sentences and the solved examples are
our own, so templates carry a name of ours: scores are comparable within one.
"""

from __future__ import annotations

from mira_megatron.eval.answers.fences import EMPTY, NO_CODE_BLOCK, UNFINISHED_THOUGHT
from mira_megatron.eval.benchmark import Prompt, Style
from mira_megatron.eval.livecodebench_data import LcbTask
from mira_megatron.eval.verdicts import Extraction

CHAT_TEMPLATE = "livecodebench-chat/1"
COMPLETION_TEMPLATE = "livecodebench-completion/1"
_MAX_TOKENS = 2000

_SYSTEM = (
    "You are an expert Python programmer. You are given a programming problem and write a correct "
    "Python program that solves it and passes all of its tests. Return nothing but the program."
)
_FUNCTION_FORMAT = (
    "Complete the starter code below into a solution of the problem, and put the whole of your "
    "code between fences."
)
_STDIN_FORMAT = (
    "Read the input from stdin, solve the problem and write the answer to stdout; do not run the "
    "sample inputs yourself. Put your code between fences, like this."
)

_FUNCTION_EXAMPLE = """\
### Question
Given a list of integers nums, return how many of its numbers are larger than the one before. The \
first number has none before it.

Example 1:

Input: nums = [3,5,4,9]
Output: 2

Constraints:

1 <= nums.length <= 1000
-10^6 <= nums[i] <= 10^6

### Starter Code
class Solution:
    def countRises(self, nums: List[int]) -> int:
       \x20

### Answer

class Solution:
    def countRises(self, nums: List[int]) -> int:
        return sum(left < right for left, right in zip(nums, nums[1:]))

"""
_STDIN_EXAMPLE = """\
### Question
A shop sells N kinds of fruit. The i-th kind costs C_i yen apiece. Taro wants to buy one of each \
kind but has no more than B yen. Print Yes if that is enough, and No otherwise.

Input

The first line has N and B. The second line has C_1, ..., C_N.

Sample Input 1

3 10
2 3 4

Sample Output 1

Yes

### Answer

num_kinds, budget = map(int, input().split())
prices = list(map(int, input().split()))
print("Yes" if sum(prices) <= budget else "No")

"""


def lcb_prompt(task: LcbTask, style: Style) -> Prompt:
    """Returns what a model is asked: messages for a chat, a text that ends in an open answer."""
    if style is Style.COMPLETION:
        return Prompt(
            template=COMPLETION_TEMPLATE,
            text=_completion_text(task),
            stop=("###",),
            max_tokens=_MAX_TOKENS,
        )
    asked = _FUNCTION_FORMAT if task.starter_code else _STDIN_FORMAT
    code = task.starter_code or "# YOUR CODE HERE"
    return Prompt(
        template=CHAT_TEMPLATE,
        messages=(
            {"role": "system", "content": _SYSTEM},
            {
                "role": "user",
                "content": f"### Question:\n{task.content}\n\n### Format: {asked}\n"
                f"```python\n{code}\n```\n\n"
                "### Answer: (use the provided format with backticks)\n\n",
            },
        ),
        # The published stop word "###" would end every answer that has a heading.
        max_tokens=_MAX_TOKENS,
    )


def code_between_last_fences(text: str) -> Extraction:
    """Returns what lies between the last two lines with a fence, or why there is nothing.

    The publisher's rule: an answer that ends within its block has none, and counts as wrong. What a
    model thought, up to the last `</think>`, is no part of its answer.
    """
    answer = text.rpartition("</think>")[2]
    if answer.lstrip().startswith("<think>"):
        return Extraction(code=None, reason=UNFINISHED_THOUGHT)
    if not answer.strip():
        return Extraction(code=None, reason=EMPTY)
    lines = answer.split("\n")
    fences = [number for number, line in enumerate(lines) if "```" in line]
    if len(fences) < 2:
        return Extraction(code=None, reason=NO_CODE_BLOCK)
    code = "\n".join(lines[fences[-2] + 1 : fences[-1]])
    return Extraction(code=code) if code.strip() else Extraction(code=None, reason=EMPTY)


def _completion_text(task: LcbTask) -> str:
    if task.starter_code:
        return (
            f"{_FUNCTION_EXAMPLE}### Question\n{task.content}\n\n"
            f"### Starter Code\n{task.starter_code}\n\n### Answer\n\n"
        )
    return f"{_STDIN_EXAMPLE}### Question\n{task.content}\n\n### Answer\n\n"
