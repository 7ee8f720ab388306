"""The page on PostgreSQL says what the code does. (Its GRANTs: test_postgres_schema.py.)"""

import re
from pathlib import Path

from elytron.config import Config
from elytron.ledger.postgres.schema import AGENT_TABLES
from postgres_server import distributing

PAGE = (Path(__file__).parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")


def test_citus_is_told_of_each_table_that_has_agents():
    """Each lies where its agent does, so all but the first are put beside the first."""
    assert distributing("elytron") in PAGE  # the tests' own
    told = re.findall(r"create_distributed_table\('elytron\.(\w+)', 'agent_id'(.*)\);", PAGE)
    assert sorted([table for table, _ in told]) == sorted(AGENT_TABLES)
    beside = [rest for _, rest in told]
    assert beside[0] == ""
    assert set(beside[1:]) == {", colocate_with => 'elytron.agents'"}
    assert told[0][0] == "agents"


def test_its_examples_are_python_and_its_settings_are_there():
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    for example in examples:
        compile(example, "scale.md", "exec")
    given = re.findall(r"^    (\w+)=", "\n".join(examples), re.M)
    assert len(given) >= 3
    assert set(given) <= set(Config.__dataclass_fields__)
