"""Sentences end at the stops of their script, and closing text stays with the sentence that it closes."""

import time

import pytest

from datamodules.text.protected import PAIRS, STOPS, WIDE_STOPS
from datamodules.text.steps import StepSettings, split_steps


@pytest.mark.parametrize(
    "steps",
    [
        ["یہ درست ہے۔", "کیا یہ صحیح ہے؟", "جی ہاں۔"],  # Urdu
        ["هل هذا صحيح؟", "نعم؛ هو كذلك، طبعًا.", "حسنًا."],
        ["قال: «فكر. ثم اكتب.» وسكت.", "وصل د. أحمد سنة 980 م. في الليل.", "انتهى."],
        ["यह सही है।", "क्या यह सही है?", "3x = 12, इसलिए x = 4।", "ठीक॥", "डॉ. शर्मा आए।"],
        ["Սա ճիշտ է։", "Ինչո՞ւ։", "Այո։"],
        ["ဒါမှန်တယ်။", "ဟုတ်တယ်၊ ကောင်းတယ်။", "ပြီးပြီ။"],
        ["ይህ ትክክል ነው።", "እውነት ነው፧", "አዎ።"],
        ["그는 \"네. 좋아요.\"라고 말했다.", "끝났다."],
        ["Il dit « Oui. Bien. »", "Puis il part.", "C'est vrai ?", "Oui !", "Voir p. ex. Paul et M. Dupont."],
        ["¿Es cierto?", "¡Sí!", "¿Qué más?", "La Sra. López usa p. ej. Python, núm. 5.", "Nada."],
        ["Das ist z. B. die Zahl 3.", "Nr. 5 gilt, d. h. Peter irrt.", "Es sind 3 Mio. Euro.", "Das ist viel."],
        ["Im 20. und 21. Jahrhundert.", "Die 2. Aufgabe."],
        ["Am 3. Mai kam er.", "Die Antwort ist 3.", "Dann kam x = 4.", "Gut."],
        ["I am 5.", "Bob is 6.", "I saw a die 3.", "Then I left."],  # no German ordinals
        ["Er rief: „Halt! Stopp!“", "Dann ging er.", "»Ja. Nein.«, sagte sie.", "Sie rief: ‚Ja. Nein.‘ und ging."],
        ["One of Ph.D. Students saw Mt. Fuji.", "She has a Ph.D.", "He does not.", "It is 5 mm.", "Then 6."],
        ["‘Yes. No.’ he said.", "It’s the boys’ toy.", "Don’t."],
        ["А. С. Пушкин, т. е. Поэт.", "См. рис. 5.", "Да."],
    ],
)  # fmt: skip
def test_sentences_end_at_the_stops_of_their_script(steps: list[str]) -> None:
    assert split_steps(" ".join(steps)) == steps


@pytest.mark.parametrize(
    "steps",
    [
        ["真的吗？！", "嗯……我想是。", "啊…也许。", "他说：“好。”", "我们走吧。"],
        ["这是（注意。很重要！）的。", "他问“谁？”的时候，我笑了。", "《谁？》这本书。", "对吗?", "不对.", "好。"],
        ["そうだ。", "**重要：**次だ。", "彼は「はい。そう。」と言った。", "「本当？」と聞いた。"],
        ["なぜ？と思う。", "では「次。」", "また。"],
        ["これはよい｡", "ｘ＝３．５である．", "次だ．", "終わり"],
        ["他说\"是。好。\"的时候走了。", "她说『不。』", "我说「是『对。』吧。」", "完。"],
    ],
)  # fmt: skip
def test_sentences_of_scripts_without_spaces(steps: list[str]) -> None:
    assert split_steps("".join(steps)) == steps


@pytest.mark.parametrize(
    "steps",
    [
        ["**これは何か？**", "次だ。"],
        ["We add both.", "**Next:** subtract.", "It is 4! *13 and 2 * 3.", "*So* it is.", "__Done.__", "Fine."],
        ["It is **bold. Really.** and *this. That.* too.", "Now _one. Two._ and a_b.c_d hold.", "~~No. Yes.~~"],
        ["We add.", "<b>Then</b> we stop.", "<tool_call>\n{\"a\": \"B. C\"}\n</tool_call>"],
        ["See <code>a. B</code> and <a title=\"C. D\" href=\"e\">f</a>.</p>", "Is a <b and b> c.", "<!-- G. H -->J."],
        ["I keep **this open.", "It never closes.", "<b>Nor this.", "Fine."],
    ],
)  # fmt: skip
def test_markup_is_kept_whole_and_may_begin_a_sentence(steps: list[str]) -> None:
    assert split_steps(" ".join(steps)) == steps


@pytest.mark.parametrize(
    "steps",
    [
        ["1．計算する。", "２．終わる。"],
        ["أ. الأول", "ب. الثاني"],
        ["ア. 一つ", "イ. 二つ"],
        ["Look:\n~~~\nA. B.\n\nC. D.\n~~~", "Done."],
        ["````\n```\nA. B.\n```\nC. D.\n````", "Done."],
        ["Table:\n\n| a | b. C |\n|---|:-:|\n| 1. Two | 3! |", "Done."],
        ["a | b. C\n---|---\n1. Two | 3!", "Done."],
        ["|x - 3| = 5.", "|y| = 2."],  # no table
        ["彼は「はい。\nそうです。」と言った。", "終わり。"],
    ],
)
def test_lists_fences_and_tables(steps: list[str]) -> None:
    assert split_steps("\n".join(steps)) == steps


@pytest.mark.parametrize(
    "text",
    [
        *STOPS, *WIDE_STOPS, *"".join(PAIRS), *"\"'“”‘’„‚()[]{}`~*_<>|$\\ \n\u3000-1a的", "|-", "-|\n", "。」", "<b>",
        "‘a", "*a", "(\n",
    ],
)  # fmt: skip
def test_runs_of_one_character_are_split_in_linear_time(text: str) -> None:
    started = time.process_time()
    split_steps(text * 200_000, StepSettings("sentence"))
    assert time.process_time() - started < 20  # quadratic time would be minutes
