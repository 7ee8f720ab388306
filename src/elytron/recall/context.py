"""
Context: hits packed for a prompt, under a budget of tokens.

The best hits are chosen first and shown oldest first, session by session, each with its date
and speaker. Pure, but for the caller's own token counter.
"""

from collections.abc import Callable, Sequence

from elytron.errors import InvalidArgument
from elytron.records import Context, Hit


def estimate_tokens(text: str) -> int:
    """
    About as many tokens as a common BPE vocabulary makes: one for 3.5 ASCII characters, one
    for 2 others. Errs on the high side for prose; pass `count_tokens` to be exact.
    """
    ascii_count = len(text.encode("ascii", "ignore"))
    return -(-ascii_count * 2 // 7) + -(-(len(text) - ascii_count) // 2)


def pack(
    hits: Sequence[Hit], *, max_tokens: int, count_tokens: Callable[[str], int] | None = None
) -> Context:
    """
    Pack as many hits, best first, as fit into *max_tokens*.

    Args:
        count_tokens: counts the tokens of a text; without it they are estimated. Called once
            for each hit, and a few times on the text as a whole.

    Raises:
        InvalidArgument: the counter returned something other than a count.
    """
    if count_tokens is not None and not callable(count_tokens):
        raise InvalidArgument(
            f"count_tokens must be a function of a text; got {count_tokens!r:.50}"
        )
    count = _checked(count_tokens or estimate_tokens)
    chosen: list[Hit] = []
    spent, sessions = 0, set()
    for hit in hits:
        cost = count(_line(hit) + "\n")
        if hit.message.session not in sessions:
            cost += count(_title(hit) + "\n\n")
        if spent + cost <= max_tokens:
            spent += cost
            sessions.add(hit.message.session)
            chosen.append(hit)
    # Tokens of parts do not always add up to those of the whole: make sure on the whole.
    while True:
        text = _render(chosen)
        tokens = count(text) if chosen else 0
        if tokens <= max_tokens:
            return Context(text, tuple(chosen), tokens)
        chosen.pop()


def _render(hits: Sequence[Hit]) -> str:
    sessions: dict[str, list[Hit]] = {}
    for hit in sorted(hits, key=lambda hit: (hit.message.at, hit.message.position)):
        sessions.setdefault(hit.message.session, []).append(hit)
    return "\n\n".join(
        "\n".join([_title(members[0]), *map(_line, members)]) for members in sessions.values()
    )


def _title(hit: Hit) -> str:
    return f"[{hit.message.session}]"


def _line(hit: Hit) -> str:
    message = hit.message
    # Later lines stand in, so that a message cannot pass for the next one.
    content = "\n    ".join(message.content.splitlines())
    return f"{message.at:%Y-%m-%d %H:%M} {message.speaker}: {content}"


def _checked(count_tokens: Callable[[str], int]) -> Callable[[str], int]:
    def count(text: str) -> int:
        tokens = count_tokens(text)
        if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0:
            raise InvalidArgument(
                f"count_tokens must return a count, 0 or more; got {tokens!r:.50}"
            )
        return tokens

    return count
