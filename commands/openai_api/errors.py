"""A refusal, in the shape of OpenAI's errors."""

from typing import Any

from visible import visible

TYPES = {
    400: "invalid_request_error", 404: "invalid_request_error", 405: "invalid_request_error",
    413: "invalid_request_error", 415: "invalid_request_error", 429: "rate_limit_error", 500: "server_error",
    503: "server_error",
}  # fmt: skip


class ApiError(Exception):
    """Refuses a request with a status of HTTP. `param` is the field that is wrong."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        """Return the JSON object of the error."""
        shown = visible(str(self))
        kind = TYPES.get(self.status, "server_error")
        return {"error": {"message": shown, "type": kind, "param": self.param, "code": self.code}}
