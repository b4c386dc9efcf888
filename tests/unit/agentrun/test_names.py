"""Names as the controller derives them: where they are hashed, where labels are cut."""

import pytest

from run_cycle_loop.agentrun import names


@pytest.mark.parametrize(
    ("run", "iteration", "expected"),
    [
        ("demo", None, "demo-step-1-attempt-2"),
        ("demo", 3, "demo-step-1-iter-3-attempt-2"),
        ("My.Run_1", None, "my-run-1-step-1-attempt-2"),
    ],
)
def test_a_job_is_named_by_what_it_tries(run: str, iteration: int | None, expected: str) -> None:
    assert names.job_name(run, 1, iteration, 2) == expected


@pytest.mark.parametrize(
    ("length", "iteration", "hashed"), [(39, 1, False), (40, 1, True), (46, None, False), (47, None, True)]
)
def test_long_names_end_in_a_digest(length: int, iteration: int | None, hashed: bool) -> None:
    name = names.job_name("r" * length, 1, iteration, 1)
    assert len(name) <= 63
    assert name.endswith("-attempt-1") is not hashed


def test_hashed_names_differ_where_the_names_do() -> None:
    assert len({names.job_name("r" * 60, 1, number, 1) for number in range(1, 30)}) == 29


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Implement", "implement"),
        ("a b/c", "a-b-c"),
        ("--x--", "x"),
        ("", "unknown"),
        ("---", "unknown"),
        ("a" * 70, "a" * 63),
        ("a" * 62 + "-b", "a" * 62 + "-"),  # cut last: an illegal end
    ],
)
def test_label_values(text: str, expected: str) -> None:
    assert names.label_value(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a", True), ("", True), ("a" * 63, True), ("a" * 64, False), ("a-", False), ("A.b_c-d", True), ("a/b", False)],
)
def test_what_is_a_label_value(text: str, expected: bool) -> None:
    assert names.is_label_value(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", True),
        ("a.b-c", True),
        ("A", False),
        ("a_b", False),
        ("-a", False),
        ("a..b", False),
        ("a" * 254, False),
        ("", False),
    ],
)
def test_what_is_an_object_name(text: str, expected: bool) -> None:
    assert names.is_object_name(text) is expected
