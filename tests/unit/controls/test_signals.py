import signal

import pytest

from run_cycle_loop.controls.signals import HANDLED, SignalInbox


def test_signals_are_kept_in_their_order(inbox: SignalInbox) -> None:
    sent = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGTERM]
    for number in sent:
        signal.raise_signal(number)
    assert inbox.drain() == sent


def test_a_signal_is_drained_once(inbox: SignalInbox) -> None:
    signal.raise_signal(signal.SIGTERM)
    inbox.drain()
    assert inbox.drain() == []


@pytest.mark.parametrize("number", HANDLED)
def test_every_handled_signal_is_received(inbox: SignalInbox, number: signal.Signals) -> None:
    signal.raise_signal(number)
    assert inbox.drain() == [number]


def test_a_storm_of_signals_blocks_nobody(inbox: SignalInbox) -> None:
    for _ in range(20_000):
        signal.raise_signal(signal.SIGUSR2)
    signal.raise_signal(signal.SIGTERM)
    assert signal.SIGUSR2 in inbox.drain()


def test_the_mask_is_emptied_and_sigchld_is_not_ignored(inbox: SignalInbox) -> None:
    assert inbox.fileno() >= 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
