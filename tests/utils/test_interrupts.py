"""Signals arrive as exceptions, except where steps belong together."""

import os
import signal
import threading
import time

import pytest

from libra_d2.utils.interrupts import (
    Interrupted,
    deferring_interrupts,
    raising_interrupts,
    workers_end_quietly,
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_steps_that_belong_together(number):
    done = []
    with pytest.raises(Interrupted) as interrupt, raising_interrupts(even_if_ignored=True):
        with deferring_interrupts():
            os.kill(os.getpid(), number)
            time.sleep(0)
            done.append("both steps")
        done.append("what follows")
    assert done == ["both steps"]
    assert interrupt.value.signal_number == number


def test_an_error_in_these_steps_does_not_lose_the_signal():
    with (
        pytest.raises(Interrupted),
        raising_interrupts(even_if_ignored=True),
        deferring_interrupts(),
    ):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)
        raise OSError("no space left")


def test_other_threads_have_nothing_to_defer():
    done = []

    def work():
        with deferring_interrupts():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_an_exception_may_come_from_any_thread():
    """Python lets only the main thread change how signals are handled."""
    raised = []

    def work():
        try:
            with workers_end_quietly():
                raise OSError("no space left")
        except OSError as e:
            raised.append(str(e))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert raised == ["no space left"]
