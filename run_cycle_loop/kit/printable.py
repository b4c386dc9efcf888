"""Foreign text made harmless for a terminal: nothing in it moves the cursor, sets the title or turns the writing."""

import re

#: CSI and OSC-like sequences first, whole; then the two- and three-byte escapes. Each class excludes what ends it, so a
#: hostile text is walked once.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*+(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*+[0-~]"
)

#: Controls of both sets, bidirectional marks and overrides, line separators, annotations, tags, and halves of surrogate
#: pairs, which no terminal's encoding takes.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str, *, keep: str = "") -> str:
    r"""The text without escape sequences, and with every other control character written as an escape like ``\x08``.

    Args:
        text: Anything.
        keep: Control characters that stay, such as a newline and a tab; with the newline, CR LF becomes one.
    """
    if text.isprintable():
        return text
    if "\n" in keep:
        text = text.replace("\r\n", "\n")
    bare = _SEQUENCE.sub("", text)
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), bare)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
