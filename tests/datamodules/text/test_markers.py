"""A thought turns at the words of its language, and not at words that only begin alike."""

import pytest

from datamodules.text.markers import MARKERS
from datamodules.text.steps import StepSettings, split_steps


@pytest.mark.parametrize(
    "steps",
    [
        ["It is 5. Yes.", "Wait, no.", "Alternatively, 6. Waiting helps. Moment of inertia. Halt it."],
        ["Es ist 5. Ja.", "Warte, nein.", "Moment, es ist 6.", "Alternativ 7. Momente zählen. Warten hilft."],
        ["C'est 5. Oui.", "Attends, non.", "En fait, c'est 6.", "Ou bien 7. En faites-vous ?"],
        ["Es 5. Sí.", "Espera, no.", "En realidad, es 6.", "Alternativamente, 7. Esperanza."],
        ["Là 5. Đúng.", "Khoan đã, không.", "Thực ra là 6.", "Cách khác là 7. Vâng."],
        ["هي 5. نعم.", "لحظة، لا.", "في الواقع هي 6. نعم."],
    ],
)
def test_a_thought_turns_at_the_words_of_its_language(steps: list[str]) -> None:
    assert split_steps(" ".join(steps), StepSettings("marker")) == steps


@pytest.mark.parametrize(
    "steps",
    [
        ["是5。对。", "等等，不对。", "其实是6。好。", "或者是7。他说“等等。”了。"],
        ["5です。はい。", "待って、違う。", "あるいは6です。そう。", "念のため確認する。「待って。」と言った。"],
    ],
)
def test_no_word_boundary_is_needed_in_chinese_and_japanese(steps: list[str]) -> None:
    assert split_steps("".join(steps), StepSettings("marker")) == steps


def test_a_marker_of_the_user_in_any_script() -> None:
    assert split_steps("好。那么五。Ah. Ahem. Ah so.", StepSettings("marker", markers=["那么", "Ah"])) == [
        "好。", "那么五。", "Ah. Ahem.", "Ah so."
    ]  # fmt: skip


def test_no_marker_is_listed_twice() -> None:
    assert len(set(MARKERS)) == len(MARKERS)
