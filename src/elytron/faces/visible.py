"""
Visible: stored text as it may be shown to people.

A message is anybody's text. Shown as it is, an escape sequence in it could move the cursor,
rename the window or hide what follows. Here control characters, and those that turn the
direction of the whole line, become what Python would write for them: `\\x1b`.
"""

import re

# C0 but for the newline, DEL, C1; line separators; direction overrides, embeddings and
# isolates; lone surrogates. Letters that run from right to left are left alone.
_CONTROL = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BREAKS = re.compile(r"\s*[\r\n]\s*")
_TAB_WIDTH = 4  # columns
_UNITS = ("B", "KB", "MB", "GB", "TB")


def visible(text: str) -> str:
    """A text that prints as itself, whatever it holds; newlines stay."""
    return _CONTROL.sub(_escape, text.replace("\r\n", "\n").expandtabs(_TAB_WIDTH))


def one_line(text: str) -> str:
    """The same, on one line."""
    return visible(_BREAKS.sub(" ", text.strip()))


def clip(text: str, limit: int) -> str:
    """At most *limit* characters of a text, with a note of how many were left out."""
    left_out = len(text) - limit
    return text if left_out <= 0 else f"{text[:limit]}… ({left_out:,} more characters)"


def clip_name(text: str, limit: int) -> str:
    """A name on one line, in at most *limit* characters."""
    shown = one_line(text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def json_safe(text: str) -> str:
    """A JSON text of the same value that no terminal acts on, and that UTF-8 can carry."""
    return _CONTROL.sub(lambda match: match[0] if match[0] == "\n" else _unicode(match), text)


def human_bytes(count: int) -> str:
    """Bytes for people, in units of 1024."""
    value, unit = float(count), 0
    while value >= 1023.95 and unit < len(_UNITS) - 1:  # so that nothing reads 1024.0
        value, unit = value / 1024, unit + 1
    return f"{count} B" if unit == 0 else f"{value:,.1f} {_UNITS[unit]}"


def counted(count: int, one: str, many: str) -> str:
    """`1 message`, `1,204 messages`."""
    return f"{count:,} {one if count == 1 else many}"


def _escape(match: "re.Match[str]") -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _unicode(match: "re.Match[str]") -> str:
    return f"\\u{ord(match[0]):04x}"
