"""Text of another engine: the same parts as the parser of ids finds."""

from hypothesis import given
from hypothesis import strategies as st

from commands.score_file import response_of
from datamodules.text.tags import Tags
from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.think_response import parse_response
from tests.conftest import TINY

PIECES = st.lists(st.sampled_from(["<think>", "</think>", "a", " ", "x = 7", "\n"]), max_size=8)


@given(PIECES, st.booleans())
def test_text_is_parsed_as_its_ids_are(pieces: list[str], finished: bool) -> None:
    tokenizer = ThinkTokenizer.load(str(TINY))
    tags = {"<think>": [tokenizer.open_id], "</think>": [tokenizer.close_id]}
    ids = [i for piece in pieces for i in tags.get(piece) or tokenizer.encode([piece])[0]]
    by_ids = parse_response([*ids, tokenizer.end_id] if finished else ids, tokenizer, [tokenizer.end_id])
    found = response_of("".join(pieces), finished)
    for name in ("text", "thoughts", "answer", "finished", "balanced", "well_formed"):
        assert getattr(found, name) == getattr(by_ids, name), name


def test_an_end_token_in_the_text_is_no_part_of_the_answer() -> None:
    assert response_of("<think>a</think>7<|im_end|>\n", True).answer == "7"
    assert response_of("<think>a</think>7</s>", True).answer == "7"


def test_a_tag_in_code_is_text() -> None:
    found = response_of("<think>It says `</think>`.</think>4", True)
    assert (found.thoughts, found.answer, found.well_formed) == (("It says `</think>`.",), "4", True)


def test_the_tags_may_be_others() -> None:
    found = response_of("<t>a</t><think>4", True, Tags("<t>", "</t>"))
    assert (found.thoughts, found.answer) == (("a",), "<think>4")
