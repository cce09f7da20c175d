"""License and languages in the cards of a base and of data sets: in a folder, on the hub, in the cache."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import ModelCardData

from errors import UserError
from lightning_modules.export import hub_cards
from lightning_modules.export.hub_cards import card_metadata, languages_of, license_of

README = "---\nlicense: apache-2.0\nlanguage:\n- en\n- zh\n---\n# A model\n"


def test_the_card_of_a_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(README)
    found = card_metadata("model", str(tmp_path), None)
    assert license_of(found) == {"license": "apache-2.0"} and languages_of([found]) == ["en", "zh"]


@pytest.mark.parametrize("text", [None, "# no metadata\n", "---\nlicense: [\n---\n", "---\n- a list\n---\n", "\udcff"])
def test_a_folder_without_a_card_or_with_a_damaged_one_has_no_metadata(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "README.md").write_bytes(text.encode("utf-8", "surrogateescape"))
    found = card_metadata("model", str(tmp_path), None)
    assert found == {} and license_of(found) == {} and languages_of([found]) == []


def test_the_hub_is_asked_for_the_card_of_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def probe(*given: Any) -> tuple[Any, str]:
        asked.append(given)
        data = ModelCardData(license="other", license_name="qwen", license_link="https://x.org", language="en")
        return SimpleNamespace(card_data=data if len(asked) == 1 else None), ""

    monkeypatch.setattr(hub_cards, "probe", probe)
    found = card_metadata("model", "Qwen/Qwen2-0.5B", "abc")
    assert asked[0][0] == "model" and asked[0][2:] == ("Qwen/Qwen2-0.5B", "abc")
    assert license_of(found) == {"license": "other", "license_name": "qwen", "license_link": "https://x.org"}
    assert languages_of([found, None, {"language": ["en", "de"]}]) == ["en", "de"]
    assert card_metadata("dataset", "me/without-a-card", None) == {}


def test_a_repository_that_the_hub_does_not_have_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(*_: Any) -> tuple[Any, str]:
        raise UserError("export", "me/x", "is neither on the hub nor a folder or file here", "check its spelling")

    monkeypatch.setattr(hub_cards, "probe", probe)
    assert card_metadata("dataset", "me/x", None) is None
    assert card_metadata("dataset", "./me/x", None) is None


def test_without_network_the_card_in_the_cache_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.md").write_text(README)
    monkeypatch.setattr(hub_cards, "probe", lambda *_: (None, "no network"))
    asked: list[Any] = []

    def cached(name: str, file: str, **more: Any) -> str | None:
        asked.append((name, file, more))
        return str(tmp_path / "README.md") if name == "me/known" else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    assert license_of(card_metadata("dataset", "me/known", "abc")) == {"license": "apache-2.0"}
    assert asked == [("me/known", "README.md", {"revision": "abc", "repo_type": "dataset"})]
    assert card_metadata("model", "me/unknown", None) == {}
