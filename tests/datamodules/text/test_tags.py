import pytest

from datamodules.text.tags import Tags
from errors import UserError


@pytest.mark.parametrize(
    "pair",
    [("<t>", "<t>"), ("", "</t>"), ("<t>", " "), ("<t>", "<t>>"), ("<<t>", "<t>"), ("<t>", "</t>\n"), ("", "")],
)
def test_an_ambiguous_pair_of_tags_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(UserError, match=r"data\.tags"):
        Tags(*pair).check("data.tags")
    Tags(*reversed(("</t>", "<t>"))).check("data.tags")
