"""What the cards of a base and of data sets on the hub say: license and languages."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from errors import UserError
from hub import Kind, is_hub_id, local_folder, probe

LICENSE = ("license", "license_name", "license_link")


def card_metadata(kind: Kind, name: str, revision: str | None) -> Mapping[str, Any] | None:
    """Return the metadata of a card: of a local folder, of the hub, or of the local cache if the hub does not answer.

    It is empty if there is no card. None: the hub has no such repository, or lets this account not read it.
    """
    if kind == "model" and (folder := local_folder(name)):
        return _read(folder / "README.md")
    if not is_hub_id(name):
        return None
    from huggingface_hub import try_to_load_from_cache

    try:
        info, _ = probe(kind, "export", name, revision)
    except UserError:
        return None
    if info is not None:
        return info.card_data.to_dict() if info.card_data else {}
    path = try_to_load_from_cache(name, "README.md", revision=revision, repo_type=kind)
    return _read(Path(path)) if isinstance(path, str) else {}


def license_of(card: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the license in the metadata of a card, with the name and link of one that the hub does not know."""
    return {key: str(card[key]) for key in LICENSE if isinstance(card.get(key), str)} if card else {}


def languages_of(cards: Iterable[Mapping[str, Any] | None]) -> list[str]:
    """Return the languages in the metadata of cards, each once."""
    found: list[str] = []
    for card in cards:
        given = (card or {}).get("language") or []
        names: Sequence[Any] = [given] if isinstance(given, str) else given
        found += [str(name) for name in names if str(name) not in found]
    return found


def _read(path: Path) -> Mapping[str, Any]:
    from huggingface_hub import metadata_load

    try:
        return metadata_load(path) or {}
    except Exception:  # no such file, not UTF-8, or YAML that cannot be read
        return {}
