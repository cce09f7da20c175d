"""fit --help: every setting of ours once, with its meaning, in lines of 80 characters."""

import re

import pytest
import yaml

from cli import main
from tests.conftest import ROOT

OURS = ("run.", "checkpoint.", "model.", "data.")
LINKED = ("model.tags", "model.new_tokens", "data.tokenizer", "data.tokenizer_revision")


@pytest.fixture(scope="module")
def help_text() -> str:
    with pytest.MonkeyPatch.context() as patch:
        written: list[str] = []
        patch.setattr("builtins.print", lambda text="", **_: written.append(text))
        assert main(["fit", "--help"]) == 0
    return "\n".join(written)


@pytest.fixture(scope="module")
def shown(help_text: str) -> list[tuple[str, str]]:
    """(key, meaning) of each setting, in their order."""
    found = re.findall(r"^  --(\S+).*\n((?:    \S.*\n)*)((?:      .*\n?)*)", help_text + "\n", re.MULTILINE)
    return [(key, " ".join(meaning.split())) for key, _, meaning in found]


def keys_of(config: object, prefix: str) -> set[str]:
    """The keys of a config that have a value of their own."""
    if isinstance(config, dict) and config:
        return {key for name, child in config.items() for key in keys_of(child, f"{prefix}.{name}")}
    return {prefix}


def test_every_setting_of_ours_has_a_meaning(shown: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    mix = ("--data.mix", "[{name: builtin}]", "--data.source_tags.open", "<t>", "--data.source_tags.close", "</t>")
    assert main(["fit", "--config", str(ROOT / "configs" / "demo.yaml"), *mix, "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    (config["data"]["mix"],) = config["data"]["mix"]
    expected = {key for group in OURS for key in keys_of(config[group[:-1]], group[:-1])}
    assert len(expected) > 50
    meanings = dict(shown)
    assert expected <= meanings.keys(), expected - meanings.keys()
    assert [key for key, meaning in shown if key.startswith(OURS) and len(meaning) < 8] == []


def test_no_setting_is_shown_twice_and_none_that_is_linked(shown: list[tuple[str, str]]) -> None:
    keys = [key for key, _ in shown]
    assert len(keys) == len(set(keys))
    assert not [key for key in keys if key.startswith(LINKED)]


def test_the_settings_of_the_recipe_come_before_lightnings(help_text: str) -> None:
    titles = re.findall(r"^(\w+): ", help_text, re.MULTILINE)
    assert [title for title in titles if title != "usage"] == ["run", "model", "data", "checkpoint", "trainer"]


@pytest.mark.parametrize(
    "command",
    [
        "fit",
        "validate",
        "test",
        "predict",
        "preview",
        "estimate",
        "generate",
        "evaluate",
        "replay",
        "serve",
        "chat",
        "report",
    ],
)
def test_help_fits_a_terminal_of_80_columns(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


def test_fit_has_at_most_93_settings_of_ours() -> None:
    from commands.fit_settings import fit_parser

    settings = fit_parser("fit", "").settings.values()
    groups = {one.key for one in settings if one.fields is not None}
    values = {one.key for one in settings if one.key.startswith(OURS) and one.key not in groups}
    # A source of data.mix has settings of data; they are one setting more, not several
    ours = {"data.mix" if key.startswith("data.mix.") else key for key in values}
    assert len(ours) <= 93, len(ours)
