"""Secret values out of text, JSON values and byte streams, whatever the chunks.

What counts as a secret is decided by names (:meth:`Redactor.from_environment`); what is looked for are the values.
Every byte that lies in an occurrence of a secret is replaced: occurrences that overlap or contain each other become
one marker, so the longest wins and nothing of a shorter one is left beside it. An encoding that is not listed in
:func:`_forms` (base64, hexadecimal, a value printed in two halves) is not recognised.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any, Self

MARKER = "[redacted]"
DEFAULT_PATTERNS = ("*KEY*", "*TOKEN*", "*SECRET*", "*PASSWORD*")

#: A shorter value is left alone: to replace every ``1`` would wreck the text and hide nothing.
SHORTEST_VALUE = 4
SHORTEST_LINE = 8
#: Switches that happen to sit in a variable with a telling name (``DISABLE_KEYRING=true``).
_PLAIN_WORDS = frozenset({"true", "false", "none", "null"})
#: Text with secrets in it is worked on in pieces of this many bytes, so that memory stays flat.
_PIECE = 64 * 1024


class Redactor:
    """Knows the secret values and takes them out of whatever passes."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if _worth_hiding(secret) for form in _forms(secret)}
        self._in_text = _Needles(form.encode("utf-8", "surrogatepass") for form in forms)
        # A value that is no UTF-8 came out of the environment with its bytes in surrogates; a child prints those bytes.
        self._in_bytes = _Needles(form.encode("utf-8", "surrogateescape") for form in forms if _is_encodable(form))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], patterns: Iterable[str] = ()) -> Self:
        """The values of all variables whose upper-cased names match a default or a given shell pattern."""
        wanted = (*DEFAULT_PATTERNS, *(pattern.upper() for pattern in patterns))
        names = (name for name in environ if any(fnmatchcase(name.upper(), pattern) for pattern in wanted))
        return cls(environ[name] for name in names)

    def text(self, text: str) -> str:
        """The text with each secret replaced by the marker."""
        if not self._in_text:
            return text
        data = text.encode("utf-8", "surrogatepass")
        if not self._in_text.within(data):
            return text
        stream = StreamRedactor(self._in_text)
        return b"".join((stream.feed(data), stream.finish())).decode("utf-8", "surrogatepass")

    def value(self, value: Any) -> Any:
        """A JSON value with each of its strings redacted, keys too."""
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return {self.value(key): self.value(item) for key, item in value.items()}
            case list() | tuple():
                return [self.value(item) for item in value]
            case _:
                return value

    def stream(self) -> "StreamRedactor":
        """A filter for one stream of bytes."""
        return StreamRedactor(self._in_bytes)


class StreamRedactor:
    """Redacts bytes that arrive in chunks; the result does not depend on where the chunks are cut.

    Only the end of the input that could be the beginning of a secret is held back. What ``feed`` returns may be a view
    of the chunk itself: use it before the chunk's buffer is filled anew.
    """

    def __init__(self, needles: "_Needles") -> None:
        self._needles = needles
        self._held = b""
        self._masked = 0  # so many bytes at the beginning of _held belong to a marker that is out already

    @property
    def pending(self) -> bytes:
        """What ``finish`` would return now."""
        return self._settled(self._held, len(self._held))[0]

    def feed(self, chunk: bytes | memoryview) -> bytes | memoryview:
        """Take a chunk; return what is certain by now."""
        if not self._needles:
            return chunk
        # Searching needs bytes. Copying a view costs a tenth of one search, and a regex over the view five searches.
        data = self._held + chunk if self._held else bytes(chunk)
        if self._masked or self._needles.within(data):
            return b"".join(self._pieces(data))
        cut = self._needles.begun(data)
        whole = data if self._held else chunk
        self._held = data[cut:]
        return memoryview(whole)[:cut]

    def finish(self) -> bytes:
        """The rest: no more input comes."""
        rest, self._held, self._masked = self.pending, b"", 0
        return rest

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        self._held = b""
        for at in range(0, len(data), _PIECE):
            piece = self._held + data[at : at + _PIECE]
            cut = self._needles.begun(piece)
            settled, self._masked = self._settled(piece, cut)
            self._held = piece[cut:]
            yield settled

    def _settled(self, data: bytes, cut: int) -> tuple[bytes, int]:
        """What is to be said of ``data`` up to ``cut``, and how far a marker reaches beyond it."""
        out: list[bytes] = []
        done = self._masked
        for start, end in self._needles.spans(data):
            if start >= cut:
                break
            if start >= done:
                out += (data[done:start], MARKER.encode())
            done = max(done, end)
        out.append(data[done:cut])
        return b"".join(out), max(done - cut, 0)


class _Needles:
    """A set of byte strings to look for at once."""

    def __init__(self, texts: Iterable[bytes]) -> None:
        ordered = sorted(set(texts), key=len)
        self._all = tuple(map(_Needle, ordered))
        # Where a text is absent, whatever contains it is absent too: one search for a key's line covers the whole key.
        probes: list[bytes] = []
        for text in ordered:
            if not any(probe in text for probe in probes):
                probes.append(text)
        self._probes = tuple(probes)

    def __bool__(self) -> bool:
        return bool(self._probes)

    def within(self, data: bytes) -> bool:
        """Whether any of them occurs."""
        return any(probe in data for probe in self._probes)

    def begun(self, data: bytes) -> int:
        """Where the longest end of ``data`` starts that could be the beginning of one of them."""
        return min((needle.begun(data) for needle in self._all), default=len(data))

    def spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        """All occurrences in order, those that overlap merged."""
        found = sorted(chain.from_iterable(needle.spans(data) for needle in self._all))
        if not found:
            return
        start, end = found[0]
        for next_start, next_end in found[1:]:
            if next_start < end:
                end = max(end, next_end)
            else:
                yield start, end
                start, end = next_start, next_end
        yield start, end


class _Needle:
    """One byte string to look for, prepared for overlapping itself as ``aaaa`` does in ``aaaaaa``."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        period = _begun(text, text, 1)
        self._overlap = len(text) - period
        # Finding ``aaaa`` anew at each of a million positions takes a tenth of a second; as one run it takes none.
        self._run = re.compile(b"(?:%b)*+" % re.escape(text[-period:])) if self._overlap else None

    def begun(self, data: bytes) -> int:
        return _begun(data, self._text, max(len(data) - len(self._text) + 1, 0))

    def spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Stretches that are covered by occurrences, in order; they may overlap."""
        at = data.find(self._text)
        while at != -1:
            end = at + len(self._text)
            if self._run and (run := self._run.match(data, end)):
                end = run.end()
            yield at, end
            at = data.find(self._text, end - self._overlap)


def _begun(data: bytes, text: bytes, start: int) -> int:
    """The first place from ``start`` on where the rest of ``data`` is how ``text`` begins, or else the length."""
    first = text[:1]
    at = data.find(first, start)
    while at != -1 and not text.startswith(data[at:]):
        at = data.find(first, at + 1)
    return len(data) if at == -1 else at


def _worth_hiding(value: str) -> bool:
    stripped = value.strip()
    return len(stripped) >= SHORTEST_VALUE and stripped.lower() not in _PLAIN_WORDS


def _forms(secret: str) -> Iterator[str]:
    """What the value may look like: as it is, stripped, by its lines, and each of them inside a JSON string."""
    lines = (line.strip() for line in secret.splitlines())
    for form in {secret, secret.strip(), *(line for line in lines if len(line) >= SHORTEST_LINE)}:
        yield form
        yield json.dumps(form)[1:-1]
        yield json.dumps(form, ensure_ascii=False)[1:-1]


def _is_encodable(form: str) -> bool:
    try:
        form.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
