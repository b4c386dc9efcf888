import pytest

from run_cycle_loop.kit.printable import printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, naïve 文字 👩‍💻", "plain, naïve 文字 👩‍💻"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[?1049h\x1b[10;20Hmoved", "moved"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://localhost\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1$r0m\x1b\\\x1b_G\x1b\\\x1b^x\x1b\\done", "done"),
        ("\x9b31mred \x9d0;title\x9cafter", "red after"),
        ("\x1bc\x1b7\x1b(Breset", "reset"),
        ("\x1b]0;never ended", "0;never ended"),
        ("\x1b[12;", "12;"),
        ("at the end\x1b", "at the end\\x1b"),
        ("a\rb\bc\x07d\x00e\x7f\x85", "a\\rb\\x08c\\x07d\\x00e\\x7f\\x85"),
        ("user\u202egnp.exe\u2066\u2028", "user\\u202egnp.exe\\u2066\\u2028"),
        ("half \udc80 tag \U000e0041", "half \\udc80 tag \\U000e0041"),
        ("two\nlines\tand a tab", "two\\nlines\\tand a tab"),
    ],
)
def test_nothing_that_drives_a_terminal_is_left(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_newlines_and_tabs_stay_on_request() -> None:
    assert printable("a\r\n\tb\rc\x1b[K\n", keep="\n\t") == "a\n\tb\\rc\n"


def test_every_single_character_comes_out_encodable_and_without_controls() -> None:
    for code in [*range(0x3100), *range(0xD7F0, 0x10000), *range(0xE0000, 0xE0100)]:
        shown = printable(chr(code))
        shown.encode("utf-8")
        assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in shown)


def test_a_hostile_megabyte_is_walked_once() -> None:
    """Quadratic behaviour would take hours here, and the suite's time limit would tell."""
    for hostile in ("\x1b[" + "1;" * 500_000, "\x1b]" * 500_000, "\x1b[1" * 300_000):
        assert "\x1b" not in printable(hostile)
