"""How judges are called where people read: the rule judge never passes for a model."""

from __future__ import annotations

from collections.abc import Collection

_RULE_JUDGE = "rule-judge-"  # of any version: reused ratings may be of an older one


def is_rule_judge(model: str) -> bool:
    """Returns whether the name that a rating carries is the rule judge's."""
    return model.startswith(_RULE_JUDGE)


def judge_name(model: str) -> str:
    """Returns a judge as the page calls it."""
    if is_rule_judge(model):
        return "the rule judge (measurable features, no model)"
    return f"the model {model}"


def judge_names(models: Collection[str], own_scorers: Collection[str]) -> str:
    """Returns several judges in words; those of the recipe itself are counted, not named."""
    own = set(models).intersection(own_scorers)
    words = [judge_name(model) for model in sorted(set(models) - own)]
    if own:
        number = f"{len(own)} scorers" if len(own) > 1 else "scorer"
        words.insert(0, f"the recipe’s own {number}")
    return " and ".join(words)
