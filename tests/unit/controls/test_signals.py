import signal

import pytest

from run_cycle_loop.controls.signals import HANDLED, SignalInbox, hold


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


@pytest.mark.usefixtures("inbox")  # whose handlers come back afterwards
def test_what_came_while_signals_were_held_is_received_when_the_inbox_opens() -> None:
    hold()
    signal.raise_signal(signal.SIGTERM)
    with SignalInbox() as opened:
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
        assert opened.drain() == [signal.SIGTERM]


@pytest.mark.usefixtures("inbox")
def test_exit_statuses_are_kept_whatever_the_caller_ignored() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with SignalInbox():
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
