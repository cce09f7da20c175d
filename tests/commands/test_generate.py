"""generate: how an answer is printed. tests/cli drives it with a real run."""

import pytest

from cli import main
from commands.generate import device, print_response, run
from errors import UserError
from lightning_modules.generation.decoding import DecodingSettings
from lightning_modules.generation.think_response import ThinkResponse


def test_a_prompt_is_required_before_a_model_is_loaded() -> None:
    with pytest.raises(UserError, match="there is no prompt"):
        run([])


def test_an_unknown_device_is_refused() -> None:
    assert device("cpu").type == "cpu"
    with pytest.raises(UserError, match="--device: 'meta' is not a device of this machine"):
        device("meta")
    with pytest.raises(UserError, match="--device: 'cuda:99' is not a device of this machine"):
        device("cuda:99")
    with pytest.raises(UserError, match="--device: 'nonsense'"):  # before a run is looked for
        run(["--prompt", "a", "--device", "nonsense", "--root", "nowhere"])


@pytest.mark.parametrize("finished", [True, False])
def test_an_answer_that_was_cut_off_is_marked(finished: bool, capsys: pytest.CaptureFixture[str]) -> None:
    answer = ThinkResponse("<think>a</think>b", ("a",), "b", finished=finished, balanced=True)
    print_response("Ask", answer, DecodingSettings(max_new_tokens=7))
    out, err = capsys.readouterr()
    assert out == "# Ask\n<think>a</think>b\n"
    assert err == ("" if finished else "(cut off after 7 tokens, the limit of --max_new_tokens)\n")


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        ("budget", "(thinking was cut after 3 tokens, by its budget)"),
        ("limit", "(thinking was cut after 3 tokens, so that the answer has its --answer_reserve)"),
        ("loop", "(thinking was in a loop, and was cut after 3 tokens)"),
    ],
)
def test_thinking_that_was_cut_is_said_in_one_line(cut: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = ThinkResponse("<think>a</think>b", ("a",), "b", True, balanced=True, thinking_tokens=3, cut=cut)
    print_response(None, answer, DecodingSettings())
    assert capsys.readouterr() == ("<think>a</think>b\n", f"{said}\n")


def test_the_help_says_what_decoding_settings_do(capsys: pytest.CaptureFixture[str]) -> None:
    main(["generate", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--max_new_tokens MAX_NEW_TOKENS (type" not in shown  # an option without a line of help
