import pytest

from run_cycle_loop.config.kinds import checked_prose
from run_cycle_loop.goals.listing import read_plain, read_yaml
from run_cycle_loop.policies.goals import Listed


def test_a_plain_file_holds_one_goal_a_line() -> None:
    text = "# nightly\n\nTidy the tests.\r\n   Raise the coverage by one point.  \n#off: nothing\n"
    assert read_plain(text, checked_prose) == (
        Listed(text="Tidy the tests."),
        Listed(text="Raise the coverage by one point."),
    )


@pytest.mark.parametrize(
    "text",
    [
        "- tidy\n- goal: raise\n  weight: 2.5\n",
        "goals:\n  - tidy\n  - {goal: raise, weight: 2.5}\n",
        "- &a tidy\n- {goal: raise, weight: 2.5}\n",
    ],
)
def test_yaml_holds_a_list_with_weights(text: str) -> None:
    assert read_yaml(text, checked_prose) == (Listed(text="tidy"), Listed(text="raise", weight=2.5))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no goal; write one a line"),
        ("# only a comment\n", "holds no goal"),
        ("good\nbad \0 one\n", "line 2 has a NUL byte"),
        ("good\n" + "x" * 200_000, "line 2 is 200000 bytes long; a process can be given at most"),
        ("x\n" * 10_001, "holds 10001 goals; at most 10000"),
    ],
)
def test_a_bad_line_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_plain(text, checked_prose)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no list of goals"),
        ("goal: x", "holds no list of goals"),
        ("- [a, b]", "item 1 is neither a text nor has a text"),
        ("- ok\n- {weight: 1}", "item 2 is neither"),
        ("- {goal: x, wieght: 1}", "item 1 has the unknown key 'wieght'"),
        ("- {goal: x, weight: -1}", "item 1 has the weight -1; write a number above 0"),
        ("- {goal: x, weight: .nan}", "item 1 has the weight nan"),
        ("- {goal: x, weight: true}", "item 1 has the weight True"),
        ("- {goal: x, weight: 99999999999}", "item 1 has the weight"),
        ("- ' '", "item 1 is blank"),
        ("- a: [", "is no YAML: .*; mend it"),
        ("- !!python/object/apply:os.system [true]", "is no YAML"),
        ("a: " * 5000, "is no YAML|holds no list"),
    ],
)
def test_a_bad_item_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_yaml(text, checked_prose)
