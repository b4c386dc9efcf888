import json
import random
from collections.abc import Callable, Iterable

import pytest

from run_cycle_loop.kit.redact import MARKER, Redactor

SECRET = "hunter2-hunter3"


def reference(data: bytes, secrets: Iterable[str]) -> bytes:
    """Every byte that lies in an occurrence is replaced; occurrences that overlap become one marker."""
    spans = sorted(
        (at, at + len(secret))
        for secret in (text.encode() for text in secrets)
        for at in range(len(data))
        if data.startswith(secret, at)
    )
    out, done = b"", 0
    for start, end in spans:
        if start >= done:
            out += data[done:start] + MARKER.encode()
        done = max(done, end)
    return out + data[done:]


def streamed(redactor: Redactor, chunks: Iterable[bytes | memoryview]) -> bytes:
    stream = redactor.stream()
    return b"".join([*map(bytes, map(stream.feed, chunks)), stream.finish()])


def cut_at_random(rng: random.Random, data: bytes) -> list[bytes]:
    borders = sorted(rng.choices(range(len(data) + 1), k=rng.randint(0, 6)))
    return [data[start:end] for start, end in zip([0, *borders], [*borders, len(data)], strict=True)]


def one_byte_each(_: random.Random, data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize("chunks", [cut_at_random, one_byte_each])
@pytest.mark.parametrize("alphabet", ["ab", "abc", "aé "])
def test_a_stream_hides_what_the_reference_hides_however_it_is_cut(
    alphabet: str, chunks: Callable[[random.Random, bytes], list[bytes]]
) -> None:
    rng = random.Random(f"{alphabet}-{chunks.__name__}")
    hidden = 0
    for _ in range(2000):
        secrets = ["".join(rng.choices(alphabet, k=rng.randint(4, 7))) for _ in range(rng.randint(1, 4))]
        secrets = [secret for secret in secrets if len(secret.strip()) >= 4]
        secrets += [secret.strip() for secret in secrets]
        data = "".join(rng.choices(alphabet, k=rng.randint(0, 40))).encode()
        expected = reference(data, secrets)
        hidden += expected != data
        assert streamed(Redactor(secrets), chunks(rng, data)) == expected, (secrets, data)
    assert hidden > 200


@pytest.mark.parametrize(
    ("secrets", "data", "expected"),
    [
        (["aaaa"], b"xaaaaaaay", b"x[redacted]y"),
        (["aaaa"], b"xaaay", b"xaaay"),
        (["abab"], b"abababab.aba", b"[redacted].aba"),
        (["pass", "password"], b"password pass", b"[redacted] [redacted]"),
        (["token-1", "token-12345"], b"token-1234 token-12345", b"[redacted]234 [redacted]"),
        (["abcd", "cdef"], b"abcdef", b"[redacted]"),
        (["abcd", "xxabcdyy"], b"xxabcdyz", b"xx[redacted]yz"),
        (["abcd"], b"abcdabcd", b"[redacted][redacted]"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_prefixes_overlaps_and_nesting(secrets: list[str], data: bytes, expected: bytes, size: int) -> None:
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    assert streamed(Redactor(secrets), chunks) == expected
    assert Redactor(secrets).text(data.decode()) == expected.decode()


def test_a_megabyte_that_overlaps_itself_becomes_one_marker() -> None:
    assert streamed(Redactor(["aaaa"]), [b"a" * 1_000_000] * 3) == MARKER.encode()


def test_a_secret_is_found_across_the_borders_of_the_pieces_that_large_chunks_are_worked_on_in() -> None:
    data = bytearray(b"." * 300_000)
    for at in (65_530, 131_070, 196_608, 262_143):
        data[at : at + len(SECRET)] = SECRET.encode()
    hidden = streamed(Redactor([SECRET]), [memoryview(data)])
    assert hidden.count(MARKER.encode()) == 4
    assert len(hidden) == 300_000 + 4 * (len(MARKER) - len(SECRET))


def test_ordinary_lines_come_out_at_once() -> None:
    stream = Redactor([SECRET]).stream()
    assert stream.feed(b"an ordinary line\n") == b"an ordinary line\n"


def test_only_what_may_be_the_beginning_of_a_secret_is_held_back() -> None:
    stream = Redactor([SECRET]).stream()
    assert stream.feed(b"password: hunter2-") == b"password: "
    assert stream.pending == b"hunter2-"
    assert stream.feed(b"is no more\n") == b"hunter2-is no more\n"


def test_the_marker_is_out_as_soon_as_the_secret_is_whole() -> None:
    stream = Redactor(["aaaa"]).stream()
    assert stream.feed(b"aaaa") == MARKER.encode()
    assert stream.feed(b"aab") == b"b"


def test_a_clean_chunk_is_not_copied() -> None:
    buffer = bytearray(b"nothing to hide\n")
    passed = Redactor([SECRET]).stream().feed(memoryview(buffer))
    assert isinstance(passed, memoryview)
    assert passed.obj is buffer


def test_without_secrets_a_chunk_passes_as_it_is() -> None:
    chunk = b"anything"
    assert Redactor().stream().feed(chunk) is chunk


@pytest.mark.parametrize("name", ["API_KEY", "github_token", "MY_SECRET_2", "DB_PASSWORD_FILE", "PGPASS"])
def test_secrets_are_chosen_by_the_names_of_variables(name: str) -> None:
    redactor = Redactor.from_environment({name: SECRET, "EDITOR": "nano-editor"}, ["pgpass"])
    assert redactor.text(f"{SECRET} nano-editor") == f"{MARKER} nano-editor"


@pytest.mark.parametrize("value", ["", "1", "abc", " ab ", "\n\n\n\n\n", "true", "None"])
def test_values_that_would_wreck_the_text_are_left(value: str) -> None:
    text = f"1 abc {value} \n\n\n\n\n ab true None"
    assert Redactor.from_environment({"USE_KEY": value}).text(text) == text


def test_a_long_line_of_a_secret_is_a_secret_too() -> None:
    redactor = Redactor(["-----BEGIN-----\r\nMIIEowIBAAKCAQEA\r\nshort\r\n-----END-----\r\n"])
    assert redactor.text("  MIIEowIBAAKCAQEA short") == f"  {MARKER} short"


def test_a_secret_is_found_stripped_and_inside_json() -> None:
    secret = ' quote"back\\slash é\t'
    redactor = Redactor([secret])
    for text in (secret.strip(), json.dumps([secret]), json.dumps([secret], ensure_ascii=False)):
        assert MARKER in redactor.text(text)
        assert "slash" not in redactor.text(text)


def test_a_value_that_is_no_utf_8_is_found_in_bytes_and_in_text() -> None:
    redactor = Redactor.from_environment({"TOKEN": b"\xff\xfe-secret".decode("utf-8", "surrogateescape")})
    assert streamed(redactor, [b"a\xff", b"\xfe-secretb"]) == b"a[redacted]b"
    assert redactor.text("\udcff\udcfe-secret") == MARKER


def test_a_value_that_no_environment_can_hold_is_still_found_in_text() -> None:
    redactor = Redactor(["lone\ud800half"])
    assert redactor.text("a lone\ud800half") == f"a {MARKER}"
    assert streamed(redactor, [b"lone"]) == b"lone"


def test_values_are_redacted_deeply_keys_too() -> None:
    redactor = Redactor([SECRET])
    value = {"a": [1, None, {SECRET: f"<{SECRET}>"}], "b": (True, 1.5, SECRET)}
    assert redactor.value(value) == {"a": [1, None, {MARKER: f"<{MARKER}>"}], "b": [True, 1.5, MARKER]}
