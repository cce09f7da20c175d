import pytest

from lightning_modules.judge.final_answer import final_answer, last_boxed


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("no box", None),
        (r"\boxed{}", ""),
        (r"\boxed{a} then \boxed{b}", "b"),
        (r"\boxed{a} and \boxed{b}", "a, b"),
        (r"$\boxed{a}$, $\boxed{b}$ or \boxed{c}", "a, b, c"),
        (r"\boxed{\frac{1}{\sqrt{2^{n}}}}.", r"\frac{1}{\sqrt{2^{n}}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\}}", r"\}"),
        (r"\boxed{a} and \boxed{never closed", "a"),
        (r"\boxed{never \boxed{b}", "b"),
        (r"\boxed{a \boxed{b} c}", r"a \boxed{b} c"),
        (r"} \boxed{a} }", "a"),
        (r"\boxed{ends with \ ".rstrip(), None),
        (r"\fbox{12}", "12"),
        (r"x \\\boxed{1} y \boxed {2}", "2"),
    ],
)
def test_the_last_closed_box_is_found_however_deep_its_braces_are(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("text", "answer", "place"),
    [
        (r"The answer is 5. \boxed{\boxed{7}}", "7", "box"),
        ("48/2 = 24\n#### 72", "72", "####"),
        ("#### Step 2\nSo we get\n12", "12", "last line"),
        ("#### 72\nI hope this helps!", "72", "####"),
        ("The answer is not 12. The answer is 13.", "13", "answer is"),
        ("**Answer:** The coefficient is 384.", "384", "answer is"),
        ("### Final Answer\n\n42", "42", "answer is"),
        ("The best answer is: (A)  \nStep-by-step explanation: the birds are 5.", "(A)", "answer is"),
        ("The answer is B because A is wrong.", "(B)", "answer is"),
        ("Answer: A, B", "A, B", "answer is"),
        ("The best possible answer is:\n\n**Option A**\n\n(Others come close.)", "Option A", "answer is"),
        ("Explanation and Answer:\n1. First we add.\n2. Then we get 12", "12", "sentence"),
        ("The best option is to go on.\nWe go on.\nOne more line.\nSo x = 3", "x = 3", "last line"),
        ("所以答案是 12。", "12", "answer is"),
        ("الجواب: ٧", "٧", "answer is"),
        ("The second-oldest is the sedan, making **(A)** correct.", "(A)", "choice"),
        ("Option A follows this order.", "(A)", "choice"),
        ("x = 7, Check: 7 + 5 = 12.", "x = 7", "last line"),
        ("7 (not 8)", "7", "last line"),
        ("- 3", "- 3", "last line"),
        ("No, 51 is 3 * 17.", "No", "last line"),
        ("She has 12 apples left.", "12 apples left", "sentence"),
        ("Of the 12 apples 5 are sold, so 7 are left.", "7", "sentence"),
        ("There are at least 7 of them.", "There are at least 7 of them.", "last line"),
        ("<think>7</think>", "<think>7</think>", "last line"),
        ("So:\n\\[\n5 + 7 = 12\n\\]", "5 + 7 = 12", "last line"),
        ("12\n\nLet me know if you have questions.", "12", "last line"),
    ],
)
def test_the_final_answer_is_found_where_people_write_it(text: str, answer: str, place: str) -> None:
    found = final_answer(text)
    assert found is not None
    assert (found.text, found.place) == (answer, place)


@pytest.mark.parametrize("text", ["", " \n", r"\boxed{}", r"So \boxed{ }", "\\[\n\\]", "**", "#### \n"])
def test_a_text_without_words_has_no_answer(text: str) -> None:
    assert final_answer(text) is None
