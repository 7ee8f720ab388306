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
its range is refused when the store is opened, with the nearest known name or the range. Sizes in
MB are of 1,048,576 bytes, times in seconds.

| setting | default | range | what it bounds |
|---|---|---|---|
"""


def markdown() -> str:
    """The whole page."""
    lines = []
    for name, field in FIELDS.items():
        default = field.default
        if isinstance(default, tuple):
            shown = ", ".join(default)
        elif isinstance(default, bool):
            shown = str(default).lower()
        else:
            shown = _number(default)
        low_high = field.metadata.get("range")
        allowed = f"{_number(low_high[0])} to {_number(low_high[1])}" if low_high else ""
        lines.append(f"| `{name}` | {shown} | {allowed} | {field.metadata['doc']} |")
    return _HEAD + "\n".join(lines) + "\n"


def _number(value: Any) -> str:
    return f"{value:,}".replace(",", " ")


if __name__ == "__main__":
    click.echo(markdown(), nl=False)
