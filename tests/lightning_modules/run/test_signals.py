import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_modules.run.signals import Agreement, FailureWatchdog, Signals, Stopped


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_outside_of_training_a_signal_ends_at_once(signum: int, code: int) -> None:
    before = signal.getsignal(signum)
    with pytest.raises(Stopped) as stopped, Signals().taken():
        os.kill(os.getpid(), signum)
    assert stopped.value.exit_code == code
    assert not isinstance(stopped.value, Exception)  # no library takes it for an error and goes on
    assert signal.getsignal(signum) == before


def test_in_training_the_first_is_noted_and_the_second_ends_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with Signals().taken() as signals:
        signals.deferred = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        assert "SIGTERM: stopping after this optimizer step and saving" in capfd.readouterr().err
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_process_forked_from_the_first_leaves_the_decision_to_it() -> None:
    with Signals().taken() as signals:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(7)  # still here
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert not signals.received


def test_one_rank_agrees_with_itself_and_has_no_lifeline() -> None:
    alone: Any = SimpleNamespace(world_size=1)
    assert Agreement().highest(15, alone) == 15
    watchdog = FailureWatchdog()
    watchdog.setup(alone, alone, "fit")
    watchdog.on_exception(alone, alone, RuntimeError())
    watchdog.close()
    assert not watchdog.told
