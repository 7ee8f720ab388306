"""
Settings reference: `docs/settings.md`, made from `Config` itself.

`python -m elytron.faces.settings_reference > docs/settings.md` writes it anew; a test holds
the two in step.
"""

from typing import Any

import click

from elytron.config import FIELDS

_HEAD = """\
# Settings

Made from the code by `python -m elytron.faces.settings_reference > docs/settings.md`; do not
edit.

Give a setting as a keyword, `elytron.open(path, queue_max=100)`; in the environment,
`ELYTRON_QUEUE_MAX=100`; or in a file, `elytron.open(path, "config.yaml")`:

```yaml
memory:
  queue_max: 100
```

Keywords win over the environment, which wins over the file. An unknown name or a value out of
its range is refused when the store is opened, with the nearest known name or the range. Two set
values that contradict each other are refused with both names; a default gives way to a set value,
as `keep_messages` does where `max_messages_per_agent` is lower. Sizes in MB are of 1,048,576
bytes, times in seconds where the name says nothing else.

| setting | default | range | what it bounds |
|---|---|---|---|
"""

_TAIL = """\

## Retention rules

A rule says for which messages it is, by `role`, by a glob for the `session` (as `web-*`; upper
and lower case differ), or both, and what holds for them:

- `pinned: true`: they never leave.
- `archive_after_days`: instead of the general one.
- `importance`, 0 to 1: instead of the default 0.5. One given with the message wins.

For each of the three the first matching rule that has it decides. `pinned: false` keeps a later
rule from pinning.

```yaml
memory:
  retention_rules:
    - {role: system, pinned: true}
    - {session: web-*, archive_after_days: 7, importance: 0.2}
```

In the environment, and after `--set`, the same list is written in JSON:
`ELYTRON_RETENTION_RULES='[{"role": "system", "pinned": true}]'`.
"""


def markdown() -> str:
    """The whole page."""
    lines = []
    for name, field in FIELDS.items():
        default = field.default
        if isinstance(default, tuple):
            shown = ", ".join(default) or "none"
        elif default is None:
            shown = "off" if field.metadata.get("range") else "none"
        elif isinstance(default, bool):
            shown = str(default).lower()
        elif isinstance(default, str):
            shown = default
        else:
            shown = _number(default)
        low_high = field.metadata.get("range")
        allowed = f"{_number(low_high[0])} to {_number(low_high[1])}" if low_high else ""
        lines.append(f"| `{name}` | {shown} | {allowed} | {field.metadata['doc']} |")
    return _HEAD + "\n".join(lines) + "\n" + _TAIL


def _number(value: Any) -> str:
    return f"{value:,}".replace(",", " ")


if __name__ == "__main__":
    click.echo(markdown(), nl=False)
