"""An error on one rank ends the others, with that error. tests/cli/test_processes.py does it with real ranks."""

import os
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from errors import UserError
from lightning_modules.run import failure_watchdog
from lightning_modules.run.failure_watchdog import FailureWatchdog


class Store:
    """As much of a TCPStore as two watchdogs use."""

    def __init__(self) -> None:
        self.value = ""
        self.gone = False

    def compare_set(self, key: str, expected: str, value: str) -> bytes:
        if self.gone:
            raise RuntimeError("connection refused")
        self.value = self.value or value
        return self.value.encode()

    def check(self, keys: list[str]) -> bool:
        if self.gone:
            raise RuntimeError("connection refused")
        return bool(self.value)

    def get(self, key: str) -> bytes:
        return self.value.encode()


def of_rank(rank: int, store: Any) -> FailureWatchdog:
    watchdog = FailureWatchdog()
    watchdog._store, watchdog._rank = store, rank
    return watchdog


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL", "GRACE", "PATIENCE"):
        monkeypatch.setattr(failure_watchdog, name, 0.001)


def test_one_rank_has_no_watchdog() -> None:
    alone: Any = SimpleNamespace(world_size=1)
    watchdog = FailureWatchdog()
    watchdog.setup(alone, alone, "fit")
    watchdog.on_exception(alone, alone, RuntimeError())
    watchdog.close()
    assert not watchdog.already_printed


def test_only_the_first_rank_to_fail_prints_its_error() -> None:
    store, trainer = Store(), SimpleNamespace()
    first, second = of_rank(1, store), of_rank(0, store)
    first.on_exception(trainer, trainer, UserError("data.source", "x", "is missing", "give another"))  # type: ignore[arg-type]
    second.on_exception(trainer, trainer, RuntimeError("connection closed by peer"))  # type: ignore[arg-type]
    assert (first.already_printed, second.already_printed) == (False, True)
    assert store.value == "1 2 data.source: 'x' is missing. Give another."


def test_an_error_that_all_ranks_raise_is_printed_by_the_first_rank() -> None:
    class Together(Exception):
        together = True

    store, trainer = Store(), SimpleNamespace()
    ranks = [of_rank(rank, store) for rank in (0, 1)]
    for watchdog in ranks:
        watchdog.on_exception(trainer, trainer, Together())  # type: ignore[arg-type]
    assert [watchdog.already_printed for watchdog in ranks] == [False, True]
    assert not store.value


@pytest.mark.parametrize(("child", "code"), [(False, 2), (True, 0)])
@pytest.mark.parametrize("gone", [False, True], ids=["failed", "killed"])
def test_a_waiting_rank_ends_when_another_one_fails(
    child: bool, code: int, gone: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A child of the first rank ends with code 0, so that the first rank lives to print its error."""
    store, ended = Store(), []
    store.value, store.gone = "1 2 data.source is missing", gone
    watchdog = of_rank(0, store)
    watchdog.child = child

    def end(code: int) -> None:
        ended.append(code)
        watchdog._closed.set()

    monkeypatch.setattr(os, "_exit", end)
    thread = threading.Thread(target=watchdog._watch, args=(store,))
    thread.start()
    thread.join(10)
    assert ended == [(1 if gone else 2) if code else 0]
    text = "rank 0 failed: its process has ended" if gone else "rank 1 failed: data.source is missing"
    assert f"rank 0 ends because {text}" in capsys.readouterr().err
