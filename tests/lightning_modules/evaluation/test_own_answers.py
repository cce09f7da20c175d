from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.evaluation.own_answers import OwnAnswer, SelectionSettings, select

ALL = SelectionSettings(keep=9, easy=1.0)


def answer(text: str, tokens: int = 5, right: bool = True, well_formed: bool = True) -> OwnAnswer:
    return OwnAnswer("q", text, tokens, right, well_formed)


def texts(questions: Mapping[str, Sequence[OwnAnswer]], settings: SelectionSettings = ALL) -> list[str]:
    return [one.text for one in select(questions, settings).chosen]


def test_only_right_and_well_formed_answers_are_learned() -> None:
    given = [answer("a"), answer("b", right=False), answer("c", well_formed=False)]
    assert texts({"q": given}) == ["a"]
    counts = select({"q": given, "r": [answer("d", right=False)]}, ALL).counts
    assert (counts["wrong"], counts["not well-formed"], counts["questions without a right answer"]) == (2, 1, 1)


def test_the_shortest_few_are_kept() -> None:
    given = [answer("long", 9), answer("short", 2), answer("middle", 5)]
    assert texts({"q": given}, SelectionSettings(keep=2, easy=1.0)) == ["short", "middle"]


def test_the_same_text_is_learned_once() -> None:
    assert texts({"q": [answer("a b"), answer("a  b", 4), answer("ab")]}) == ["a  b", "ab"]
    assert texts({"q": [answer("a")], "r": [answer("a")]}) == ["a", "a"]  # of two questions


def test_a_text_that_would_be_read_otherwise_is_left_out() -> None:
    chosen, counts = select({"q": [answer("a"), answer("b")]}, ALL, reads_back=lambda text: text == "b")
    assert ([one.text for one in chosen], counts["not read back"]) == (["b"], 1)


def test_questions_that_are_always_right_are_thinned_and_others_are_not() -> None:
    easy = {str(k): [answer("a"), answer("b")] for k in range(2_000)}
    hard = {f"h{k}": [answer("a"), answer("b", right=False)] for k in range(50)}
    chosen, counts = select({**easy, **hard}, SelectionSettings(keep=1, easy=0.25))
    left_out = counts["questions with only right answers that were left out"]
    assert 1_400 < left_out < 1_600
    assert len(chosen) == 2_000 - left_out + 50
    assert set(texts(easy, SelectionSettings(easy=0.1))) <= set(texts(easy, SelectionSettings(easy=0.5)))
    assert texts(easy, SelectionSettings(easy=0.0)) == []


answers = st.builds(
    answer, st.sampled_from(["a", "b", "a ", "c c", "c  c"]), st.integers(1, 3), st.booleans(), st.booleans()
)


@given(
    st.dictionaries(st.text(max_size=2), st.lists(answers, max_size=5), max_size=5),
    st.integers(1, 3),
    st.floats(0, 1),
    st.randoms(),
)
def test_every_answer_is_chosen_or_counted_once_whatever_the_order(
    questions: dict[str, list[OwnAnswer]], keep: int, easy: float, random: object
) -> None:
    settings = SelectionSettings(keep, easy)
    chosen, counts = select(questions, settings)
    others = ("wrong", "not well-formed", "not read back", "the same text again", "longer than those kept")
    assert len(chosen) + sum(counts.get(name, 0) for name in (*others, "of such questions")) == counts["answers"]
    shuffled = {name: list(given) for name, given in questions.items()}
    for given_answers in shuffled.values():
        random.shuffle(given_answers)  # type: ignore[attr-defined]
    assert [(one.text, one.tokens) for one in select(shuffled, settings).chosen] == [
        (one.text, one.tokens) for one in chosen
    ]
