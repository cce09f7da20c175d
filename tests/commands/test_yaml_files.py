"""YAML of settings is refused where PyYAML would drop settings, or where aliases hold more than a person writes."""

import pytest

from commands.yaml_files import load_yaml


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="data stands twice"):
        load_yaml("data: {train_rows: 5}\ndata: {val_rows: 6}\n")
    with pytest.raises(ValueError, match="lr stands twice"):
        load_yaml("model: {optim: {lr: 1, lr: 2}}")
    assert load_yaml("a: &x {b: 1}\nc: {<<: *x, b: 2}") == {"a": {"b": 1}, "c": {"b": 2}}


def test_aliases_that_hold_themselves_or_too_much_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 100,000 values"):
        load_yaml("data: &x\n  filters: *x\n")
    pairs = zip("abcdefg", "bcdefgh", strict=True)
    lines = [f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in pairs]
    with pytest.raises(ValueError, match="more than 100,000 values"):
        load_yaml("a: &a [1, 1]\n" + "\n".join(lines))


NOT_YAML = {
    "[" * 5000: "recursion",
    "2020-13-45": "month must be",
    "a: !!python/object:os.system x": "could not determine a constructor",
    "\0": "special characters",
    "a: 1\n---\nb: 2": "single document",
}


@pytest.mark.parametrize(("text", "problem"), NOT_YAML.items(), ids=range(len(NOT_YAML)))
def test_what_is_not_yaml_is_a_value_error(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        load_yaml(text)
