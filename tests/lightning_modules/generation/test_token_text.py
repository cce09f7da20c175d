"""The tables of tokens, compared with Python's own decoder."""

import codecs

from hypothesis import given
from hypothesis import strategies as st

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.token_text import BROKEN, TokenText, _token_bytes

TEXTS = st.text(st.sampled_from("ab \n\t\u00a0\u1680\u2003\u2028\u3000é好🙂\u0085\x1c߿ࠀ\ud7ff\U0010ffff")) | st.text(
    max_size=5
)


@given(text=TEXTS, cut=st.integers(0, 3))
def test_after_each_token_of_a_text_the_state_is_that_of_its_bytes(
    text: str, cut: int, tiny_tokenizer: ThinkTokenizer
) -> None:
    tables, pieces = TokenText.of(tiny_tokenizer), _token_bytes(tiny_tokenizer)
    ids = tiny_tokenizer.encode([text])[0]
    decoder = codecs.getincrementaldecoder("utf-8")()
    state, seen = 0, ""
    for token in ids[: len(ids) - cut]:
        shown = decoder.decode(pieces[token] or b"")
        seen += shown
        still_open = bool(decoder.getstate()[0])
        assert bool(tables.shows[state, token]) == bool(shown.strip())
        for silent in (0, 1):
            debt = int(tables.debt[2 * state + silent, token])
            assert debt == int(tables.open[int(tables.next[state, token])]) + (not silent and not shown.strip())
        state = int(tables.next[state, token])
        assert (int(tables.open[state]) > 0) == still_open


@given(st.data())
def test_a_token_is_broken_if_and_only_if_no_text_goes_on_with_it(
    tiny_tokenizer: ThinkTokenizer, data: st.DataObject
) -> None:
    tables, pieces = TokenText.of(tiny_tokenizer), _token_bytes(tiny_tokenizer)
    state, written = 0, b""
    for _ in range(6):
        token = data.draw(st.integers(0, len(tiny_tokenizer) - 1))
        piece = pieces[token] or b""
        try:
            codecs.getincrementaldecoder("utf-8")().decode(written + piece)
            fits = True
        except UnicodeDecodeError:
            fits = False
        assert (int(tables.debt[2 * state + 1, token]) < BROKEN) == fits
        if fits:
            state, written = int(tables.next[state, token]), written + piece


def test_every_open_character_can_be_completed(tiny_tokenizer: ThinkTokenizer) -> None:
    tables = TokenText.of(tiny_tokenizer)
    for state in range(1, len(tables.open)):
        assert int(tables.debt[2 * state + 1].min()) < int(tables.open[state])
    assert int(tables.debt[0].min()) == 0  # and some token shows something by itself
