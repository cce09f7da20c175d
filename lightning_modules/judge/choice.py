"""Choices: the letter of an option, alone or with the option's text."""

import re
from dataclasses import dataclass

from lightning_modules.judge.notation import key

_LETTER = "[A-Ja-j]"
_CHOICE = re.compile(
    rf"(?:(?:option|choice|answer|letter)\s+)?(?:\(\s*({_LETTER})\s*\)|({_LETTER})\s*[).:](?=\s|$)|({_LETTER})(?=$))"
    r"\s*[-:.]?\s*(.*)",
    re.IGNORECASE,
)

_SAID = re.compile(r"(?:is|was|are|can|cannot|must|does|because|since|as|follows|matches)\b", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:not|wrong|incorrect|false|invalid|cannot|never|only if|violates)\b|n't\b", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    letter: str  # A to J
    text: str  # of the option; often empty
    marked: bool  # with a bracket, a stop or the word "option": a lone letter may be a variable, too


def find_choice(text: str) -> Choice | None:
    """Return the choice that a plain text is as a whole; None for any other text."""
    if len(text) > 300 or not (found := _CHOICE.fullmatch(text.strip())):
        return None
    letter = found[1] or found[2] or found[3]
    if not (found[1] or found[3]) and letter.islower() and found[4]:
        return None  # "a. cat" is a list, "(a) 5 (b) 12" has parts
    if re.search(r"\([a-jA-J]\)", found[4]):
        return None
    if _SAID.match(found[4]):
        return None if _DENIED.search(found[4]) else Choice(letter.upper(), "", True)
    return Choice(letter.upper(), key(found[4]), not found[3] or len(text.strip()) > 1)


def same_choice(one: str, other: str) -> bool | None:
    """Return whether two plain texts are the same choice; None if they are no choices.

    A choice and the text of its option are the same, too.
    """
    ours, theirs = find_choice(one), find_choice(other)
    if ours and theirs:
        if not (ours.marked or theirs.marked) and not (one.strip().isupper() or other.strip().isupper()):
            return None  # two lone small letters are variables
        return ours.letter == theirs.letter and (not ours.text or not theirs.text or ours.text == theirs.text)
    for choice, text in ((ours, other), (theirs, one)):
        if choice and choice.text and choice.marked and choice.text == key(text):
            return True
    return None
