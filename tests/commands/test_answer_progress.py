import pytest

from commands.answer_progress import AnswerProgress


def test_the_line_has_answers_speed_and_the_time_left() -> None:
    progress = AnswerProgress("demo", total=200, there=50)
    assert progress.line(0, 100, 10.0) == "demo  answer 50/200  10 tokens/s"
    assert progress.line(30, 6_000, 60.0) == "demo  answer 80/200  100 tokens/s  0:04:00 left"
    assert progress.line(150, 30_000, 300.0).endswith("0:00:00 left")


def test_a_file_gets_a_line_only_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("commands.answer_progress.time.monotonic", lambda: now[0])
    progress = AnswerProgress("demo", total=10, there=0)
    for second in range(70):
        now[0] = float(second)
        progress(second // 10, second * 5)
    progress.close()
    assert capsys.readouterr().err.splitlines() == [
        "demo  answer 3/10  5 tokens/s  0:01:10 left",
        "demo  answer 6/10  5 tokens/s  0:00:40 left",
    ]
