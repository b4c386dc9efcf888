import pytest

from run_cycle_loop.agentrun import names
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.runners.marks import LABEL_CYCLE, LABEL_LOOP, Marks, marks

CYCLE = "0123456789abcdef0123456789abcdef"


def of(**changes: str) -> Marks:
    return marks(**{"host": "h", "state_dir": "/state", "cycle_id": CYCLE, **changes})


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("demo", "demo-0123456789ab"),
        ("Nightly.Review_1", "nightly-review-1-0123456789ab"),
        ("a" * 80, f"{'a' * 26}-0123456789ab"),
        ("a" * 25 + "-bcd", f"{'a' * 25}-0123456789ab"),
        ("--", "cycle-0123456789ab"),
    ],
)
def test_a_name_is_that_of_the_manifest_and_of_the_cycle_and_needs_no_hash(base: str, name: str) -> None:
    assert of().name(base) == name
    assert len(name) <= 39
    assert names.job_name(name, 1, 99, 1).startswith(name)


def test_labels_tell_the_loop_by_machine_and_state_and_the_cycle_by_its_id() -> None:
    labels = of().labels
    assert labels[LABEL_CYCLE] == CYCLE
    assert all(map(names.is_label_value, labels.values()))
    others = [of(host="other"), of(state_dir="/other"), of(host="h\0/state", state_dir="")]
    assert len({one.labels[LABEL_LOOP] for one in (of(), *others)}) >= 3
    assert of(cycle_id="f" * 32).labels[LABEL_LOOP] == labels[LABEL_LOOP]


@pytest.mark.parametrize("cycle", ["", "1234", "NOT-HEX-AT-ALL", "0" * 64])
def test_without_a_cycle_s_id_nothing_is_marked(cycle: str) -> None:
    with pytest.raises(ConfigError, match="run-cycle-loop run"):
        of(cycle_id=cycle)
