"""YAML of settings: no key twice, and not more values than a person writes."""

from typing import Any

import yaml

MOST = 100_000  # values. An alias repeats its values for a few characters, and each alias may hold others, or itself


class _Loader(yaml.SafeLoader):
    """PyYAML takes the last of two equal keys without a word: a group that stands twice would lose its settings."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, yaml.Node] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and seen.setdefault(key.value, key) is not key:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands twice", key.start_mark)
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """Return the content of a YAML document. Raise ValueError if it is invalid, has a key twice or too many values."""
    try:
        content = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    waiting, count = [content], 0
    while waiting:
        value = waiting.pop()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        count += len(inner)
        if count > MOST:
            raise ValueError(f"it holds more than {MOST:,} values")
        waiting.extend(inner)
    return content
