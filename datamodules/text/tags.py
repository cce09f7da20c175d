"""The pair of tags around a thought."""

from dataclasses import dataclass

from errors import UserError


@dataclass(frozen=True)
class Tags:
    """The tags that open and close a thought."""

    open: str = "<think>"
    """The opening tag."""
    close: str = "</think>"
    """The closing tag."""

    def check(self, key: str) -> None:
        """Raise UserError under `key` if one tag is empty or part of the other one."""
        if not self.open.strip() or not self.close.strip() or self.open in self.close or self.close in self.open:
            pair = f"{self.open} {self.close}"
            raise UserError(key, pair, "is not two different tags", "give a pair like <think> and </think>")
