"""Expressions of licences, as crates have them: SPDX, and the older form with a slash."""

import re


def allows(expression: str, allowed: set[str]) -> bool:
    """Whether what is allowed fulfils it: one side of an OR, both of an AND. An exception (WITH) is a licence of its own."""
    words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    held, rest = either(words, allowed)
    if rest:
        raise ValueError(f"expected an expression of licences, came {expression!r}")
    return held


def either(words: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    held, words = both(words, allowed)
    while words and words[0] == "OR":
        other, words = both(words[1:], allowed)
        held = held or other
    return held, words


def both(words: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    held, words = one(words, allowed)
    while words and words[0] == "AND":
        other, words = one(words[1:], allowed)
        held = held and other
    return held, words


def one(words: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    if not words or words[0] in ("AND", "OR", "WITH", ")"):
        raise ValueError(f"expected a licence, came {words[:1] or 'the end'}")
    if words[0] == "(":
        held, words = either(words[1:], allowed)
        if words[:1] != [")"]:
            raise ValueError(f"expected a closing bracket, came {words[:1] or 'the end'}")
        return held, words[1:]
    if words[1:2] == ["WITH"]:
        return " ".join(words[:3]) in allowed, words[3:]
    return words[0] in allowed, words[1:]
