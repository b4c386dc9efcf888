"""What every history promises."""

from collections.abc import Callable
from pathlib import Path

import pytest

from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.errors import AlreadyRunning
from run_cycle_loop.model.ports import History
from run_cycle_loop.stores.history import JsonlHistory
from run_cycle_loop.testing import InMemoryHistory, make_identity, make_record

Make = Callable[[Path], History]
HISTORIES: dict[str, Make] = {
    "jsonl": lambda folder: JsonlHistory(folder / "state" / "history.jsonl"),
    "memory": lambda _folder: InMemoryHistory(),
}


@pytest.fixture(params=HISTORIES)
def history(request: pytest.FixtureRequest, tmp_path: Path) -> History:
    make = HISTORIES[request.param]
    return make(tmp_path)


def test_a_new_history_is_empty(history: History) -> None:
    assert history.last() is None
    assert (list(history.records()), list(history.newest_first())) == ([], [])


def test_records_come_back_in_both_orders(history: History) -> None:
    records = [make_record(number) for number in (1, 2, 3)]
    for record in records:
        history.append(record)
    assert list(history.records()) == records
    assert list(history.newest_first()) == records[::-1]
    assert history.last() == records[2]


def test_a_record_comes_back_as_it_was(history: History) -> None:
    record = make_record(
        status=Outcome.TIMEOUT,
        goal="two\nlines and grün \u2028 \x00",
        control={"outputs": {"a": [1, 2.5, None, True]}},
        failed_checks=("a", "b"),
        supervisor=make_identity(),
    )
    history.append(record)
    assert history.last() == record


def test_what_is_appended_while_somebody_reads_harms_nobody(history: History) -> None:
    for number in (1, 2):
        history.append(make_record(number))
    reading = history.newest_first()
    first = next(reading)
    history.append(make_record(3))
    assert [first.number, *(record.number for record in reading)] == [2, 1]


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    first, second = (JsonlHistory(tmp_path / "history.jsonl") for _ in range(2))
    first.prepare()
    for write in (second.prepare, lambda: second.append(make_record(1))):
        with pytest.raises(AlreadyRunning, match=r"another loop writes .*history\.jsonl.*--history-path"):
            write()
    first.close()
    second.append(make_record(1))
    assert len(list(first.records())) == 1
    second.close()
