"""Signals that arrive at moments at which an exception would be lost."""

import os
import signal
import time

import pytest

from libra_d2.engine import stopping
from libra_d2.engine.stopping import StopSignals
from libra_d2.utils.interrupts import Interrupted


def test_a_signal_during_a_fork_is_not_lost():
    """
    Python ignores an exception in a hook of a fork. Here the process sends itself a signal in one,
    while it waits for nothing else, as an evaluation does whose loader starts.
    """
    sent = []

    def after_fork():
        if not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)

    os.register_at_fork(after_in_parent=after_fork)
    with StopSignals() as signals, signals.at_once(), pytest.raises(Interrupted):
        child = os.fork()
        if child == 0:
            os._exit(0)
        time.sleep(5)
    os.waitpid(child, 0)
    assert sent and signals.requested == signal.SIGTERM


def test_outside_of_forks_a_signal_ends_the_phase_immediately(monkeypatch):
    monkeypatch.setattr(stopping, "_fork_ends", float("-inf"))
    with StopSignals() as signals, signals.at_once(), pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)
        pytest.fail("the signal did not interrupt")


def test_processes_leave_a_phase_together(monkeypatch):
    """When all have left it, signals raise in none of them, and each can finish the next step."""
    raises = []
    with StopSignals() as signals:
        monkeypatch.setattr(stopping.comm, "synchronize", lambda: raises.append(signals._raises))
        with signals.at_once():
            pass
        assert raises == [False]
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)
        assert signals.requested == signal.SIGTERM
        with pytest.raises(Interrupted), signals.at_once():
            pytest.fail("the signal that had arrived did not interrupt")
    assert raises == [False], "a process that ends does not wait for the others"


def test_a_process_that_waits_for_one_that_a_signal_has_ended(monkeypatch):
    def lost():
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(stopping.comm, "synchronize", lost)
    with StopSignals() as signals:
        with pytest.raises(RuntimeError, match="closed by peer"), signals.at_once():
            pass
        with pytest.raises(Interrupted) as interrupt, signals.at_once():
            signals._raises = False  # the signal arrives when this process has left the phase
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)
        assert interrupt.value.signal_number == signal.SIGTERM
