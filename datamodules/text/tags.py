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
        """Raise UserError under `key` if one tag is empty, begins or ends with white space, or is part of the other."""
        for name, tag in (("open", self.open), ("close", self.close)):
            if tag != tag.strip() or not tag:
                problem = "begins or ends with white space" if tag else "is empty"
                raise UserError(f"{key}.{name}", tag, problem, "give a pair like <think> and </think>")
        if self.open in self.close or self.close in self.open:
            pair = f"{self.open} {self.close}"
            raise UserError(key, pair, "is not two different tags", "give a pair like <think> and </think>")
