"""The sections of a response that is being written are those of the response when it is whole."""

from hypothesis import given
from hypothesis import strategies as st

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.sections import ANSWER, Piece, SectionReader
from lightning_modules.generation.think_response import parse_response
from tests.conftest import TINY
from tests.lightning_modules.generation.drive import ids_of

TOKENIZER = ThinkTokenizer.load(str(TINY))
END = (TOKENIZER.end_id,)
TEXT = st.text("ab \né漢🙂", min_size=0, max_size=12)


def read(ids: list[int], **how: object) -> tuple[SectionReader, list[Piece]]:
    reader = SectionReader(TOKENIZER, END, **how)  # type: ignore[arg-type]
    return reader, [piece for token in ids for piece in reader.read(token)] + reader.end()


def joined(pieces: list[Piece]) -> dict[int, str]:
    texts: dict[int, str] = {}
    for section, text, _ in pieces:
        texts[section] = texts.get(section, "") + text
    return texts


@given(thoughts=st.lists(TEXT, max_size=3), blank=st.sampled_from(["", "\n", "\n\n"]), answer=TEXT)
def test_a_streamed_response_has_the_texts_of_the_whole_one(thoughts: list[str], blank: str, answer: str) -> None:
    pieces = [part for thought in thoughts for part in ("[", thought, "]", blank)]
    ids = ids_of(TOKENIZER, *[part for part in (*pieces, answer, ".") if part])
    whole = parse_response(ids, TOKENIZER, END)
    reader, found = read(ids)
    texts = joined(found)
    assert texts.get(ANSWER, "") == whole.answer.strip()
    assert [texts.get(k, "") for k in range(1, len(thoughts) + 1)] == [one.strip() for one in whole.thoughts]
    assert [piece.section for piece in found if piece.closed] == list(range(1, len(thoughts) + 1))
    assert (reader.tokens, reader.thinking_tokens) == (whole.tokens, whole.thinking_tokens)


@given(text=st.text("ab\n🙂", max_size=20), stop=st.lists(st.text("ab\n🙂", min_size=1, max_size=3), max_size=3))
def test_a_stop_text_and_what_follows_is_never_shown(text: str, stop: list[str]) -> None:
    ids = ids_of(TOKENIZER, "[", text, "]", text) if text else []
    reader, found = read(ids, stop=stop)
    begun = text.lstrip()
    ends = [(begun.find(one) + len(one), begun.find(one)) for one in stop if one in begun]
    assert joined(found).get(ANSWER, "") == (begun[: min(ends)[1]] if ends else begun).rstrip()
    assert joined(found).get(1, "") == text.strip(), "a stop text within a thought is text"
    assert reader.stopped == bool(ends)


def test_a_character_of_several_tokens_is_one_piece() -> None:
    ids = ids_of(TOKENIZER, "🙂")
    assert len(ids) > 1
    reader = SectionReader(TOKENIZER, END)
    assert [reader.read(token) for token in ids] == [[]] * (len(ids) - 1) + [[Piece(ANSWER, "🙂")]]


def test_a_thought_that_is_cut_off_or_was_opened_by_the_prompt_is_a_thought() -> None:
    _, cut = read(ids_of(TOKENIZER, "[", "a b"))
    assert joined(cut) == {1: "a b"} and not any(piece.closed for piece in cut)
    _, opened = read(ids_of(TOKENIZER, "a", "]", "b", "."), opened=True)
    assert joined(opened) == {1: "a", ANSWER: "b"}


def test_text_around_thoughts_is_answer_and_none_is_lost() -> None:
    _, found = read(ids_of(TOKENIZER, "before ", "[", "x", "]", "after"))
    assert joined(found) == {ANSWER: "before after", 1: "x"}
