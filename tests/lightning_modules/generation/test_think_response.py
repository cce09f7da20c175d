import pytest

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.think_response import parse_response


def ids_of(tokenizer: ThinkTokenizer, *pieces: str) -> list[int]:
    """Ids of pieces, in which "[" and "]" are the tags and "." the end token."""
    fixed = {"[": [tokenizer.open_id], "]": [tokenizer.close_id], ".": [tokenizer.end_id]}
    return [i for piece in pieces for i in fixed.get(piece, tokenizer.encode([piece])[0])]


def test_thoughts_and_answer_are_read_from_ids(tiny_tokenizer: ThinkTokenizer) -> None:
    ids = ids_of(tiny_tokenizer, "[", "a = 1", "]", "[", "b", "]", "\n\nx = 7", ".", "more")
    response = parse_response(ids, tiny_tokenizer, [tiny_tokenizer.end_id])
    assert (response.thoughts, response.answer) == (("a = 1", "b"), "\n\nx = 7")
    assert response.text == "<think>a = 1</think><think>b</think>\n\nx = 7"
    assert response.well_formed


@pytest.mark.parametrize(
    "pieces",
    [
        ("x = 7", "."),  # no thought
        ("[", "a", "]", "x"),  # no end
        ("[", "a", "."),  # never closed
        ("[", "a", "]", "x", "[", "b", "."),  # the second never closed
        ("[", "a", "]", "[", "b", "."),  # the same without text between
        ("[", "a", "[", "b", "]", "x", "."),  # nested
        ("a", "]", "x", "."),  # never opened
        ("[", "a", "]", "]", "x", "."),  # closed twice
        ("[", " ", "]", "x", "."),  # empty
        ("[", "a", "]", "."),  # no answer
        ("so", "[", "a", "]", "x", "."),  # text before
        ("[", "a", "]", "so", "[", "b", "]", "x", "."),  # text between
        ("<think>a</think>", "x", "."),  # spelled, not the tags' ids
    ],
)
def test_any_other_response_is_not_well_formed(pieces: tuple[str, ...], tiny_tokenizer: ThinkTokenizer) -> None:
    ids = ids_of(tiny_tokenizer, *pieces)
    assert not parse_response(ids, tiny_tokenizer, [tiny_tokenizer.end_id]).well_formed


def test_the_json_object_has_the_documented_keys(tiny_tokenizer: ThinkTokenizer) -> None:
    ids = ids_of(tiny_tokenizer, "[", " a ", "]", "\n\nx")
    response = parse_response(ids, tiny_tokenizer, [tiny_tokenizer.end_id])
    thinking = len(ids) - 2 - len(tiny_tokenizer.encode(["\n\nx"])[0])
    assert response.as_json("Ask") == {
        "prompt": "Ask", "thoughts": ["a"], "answer": "x", "finished": False, "well_formed": False,
        "ended_by": "limit", "tokens": len(ids), "thinking_tokens": thinking,
        "forced_tokens": 0, "raw": "<think> a </think>\n\nx",
    }  # fmt: skip
