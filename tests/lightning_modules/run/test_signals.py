"""Signals end training after an optimizer step, or at once."""

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_modules.run.signals import Agreement, Signals, Stopped


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_outside_training_ends_at_once(signum: int, code: int) -> None:
    before = signal.getsignal(signum)
    with pytest.raises(Stopped) as stopped, Signals().taken():
        os.kill(os.getpid(), signum)
    assert stopped.value.exit_code == code
    assert not isinstance(stopped.value, Exception)  # so that no library handles it and continues
    assert signal.getsignal(signum) == before


def test_the_first_signal_in_training_waits_and_the_second_ends_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with Signals().taken() as signals:
        signals.deferred = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        assert "SIGTERM: stopping after this optimizer step and saving" in capfd.readouterr().err
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_in_a_finalizer_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    """Python prints an exception of a finalizer and goes on; training then stops after its first step."""

    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with Signals().taken() as signals:
        one = Finalized()
        del one
        assert signals.received == signal.SIGTERM
        assert "Stopped" not in capfd.readouterr().err


def test_a_forked_process_ignores_the_signal() -> None:
    with Signals().taken() as signals:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(7)  # still here
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert not signals.received


def test_one_rank_agrees_with_itself() -> None:
    alone: Any = SimpleNamespace(world_size=1)
    assert Agreement().highest(15, alone) == 15
