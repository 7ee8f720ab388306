"""
Verdicts: what a try on a damaged store says of it.

Damage may cost what stood on it, but it has to be named: by an error of the verb that should have
shown it, or by `check`. What is lost and not named is a silent loss, and so is anything wrong that
is shown as right.
"""

from typing import Any, NamedTuple

from proof_store import BOB, EVE, token

UNHARMED = "unharmed"
OLDER = "older state"
NAMED = "named"
REPAIRED = "repaired whole"
LOSS_NAMED = "repaired, loss named"
VERDICTS = (UNHARMED, REPAIRED, LOSS_NAMED, NAMED, OLDER)
PAGE = 4096
Said = dict[str, dict[str, Any]]
# Since an older state is whole in itself, nothing tells that there was a younger one.
COMMITS_BEHIND_NAMED = 2


class Verdict(NamedTuple):
    outcome: str
    wrong: tuple[str, ...]  # why the try failed


def judge(said: Said, truth: dict[str, Any], *, code: int, behind: int | None) -> Verdict:
    """
    Args:
        said: by step, see `proof_store.use`.
        code: of the process's exit.
        behind: whole commits behind damage in the log; None where it was not the log.
    """
    wrong = [f"the process ended with {code}"] if code else []
    for step in ("read", "read again"):
        for outcome in _agents(said, step).values():
            wrong += [f"{step}: shown as right: {what}" for what in outcome["wrong"]]
    missing, again = _missing(said, "read"), _missing(said, "read again")
    errors = _errors(said, "read")
    older = False
    if missing and not errors and not _found(said, "check"):
        older = behind is not None and behind < COMMITS_BEHIND_NAMED and _is_suffix(missing, truth)
        if not older:
            wrong.append(f"lost in silence: {sorted(missing)[:8]} of {len(missing)}")
    last = [*_errors(said, "read again"), *_found(said, "check again")]
    named = any(_found(said, step) for step in ("check", "repair", "check again"))
    if again and not last and not named and not older:
        wrong.append(f"lost in silence by the repair: {sorted(again)[:8]} of {len(again)}")
    if older:
        return Verdict(OLDER, tuple(wrong))
    if not (missing or again or errors or named or last):
        return Verdict(UNHARMED, tuple(wrong))
    if last:
        return Verdict(NAMED, tuple(wrong))
    return Verdict(LOSS_NAMED if again else REPAIRED, tuple(wrong))


def _agents(said: Said, step: str) -> dict[str, Any]:
    return said.get(step, {}).get("agents", {})  # type: ignore[no-any-return]


def _missing(said: Said, step: str) -> set[str]:
    return {
        ident
        for name in (BOB, EVE)
        for ident in _agents(said, step).get(name, {}).get("missing", ())
    }


def _errors(said: Said, step: str) -> list[Any]:
    """Of the verbs, and of opening."""
    errors = list(said[step].get("errors", ())) if step in said else [["open", "never ended", ""]]
    for outcome in _agents(said, step).values():
        errors += outcome["errors"]
    return errors


def _found(said: Said, step: str) -> list[Any]:
    """What a check names, and what it met itself."""
    line = said.get(step, {"errors": [["check", "never ended", ""]]})
    findings = line.get("findings", [])
    if step == "check again":  # what was repaired is no finding any more
        findings = [finding for finding in findings if not finding[3]]
    return [*line.get("errors", []), *findings]


def _is_suffix(missing: set[str], truth: dict[str, Any]) -> bool:
    """Whether what is missing is the last of what was written, and all behind the first of it."""
    late = truth["late"]
    lost = [ident in missing for ident in late]
    things = {
        ident
        for ident in missing
        if not ident.startswith(("count of ", "session ")) and " about " not in ident
    }
    return things <= set(late) and lost == sorted(lost)


def not_back(said: Said, before: bytes, after: bytes | None) -> list[str]:
    """What is missing after the repair though it stood on no page that was damaged."""
    after = after or b""
    pages = range(0, len(before), PAGE)
    damaged = {at // PAGE for at in pages if before[at : at + PAGE] != after[at : at + PAGE]}
    back = []
    for ident in _missing(said, "read again"):
        at = before.find(token(ident).encode() + b" ")
        if at >= 0 and at // PAGE not in damaged:
            back.append(ident)
    return back
