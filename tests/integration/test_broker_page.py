"""What docs/broker.rst lists of the inside is what the code has: calls, keys, scripts."""

from __future__ import annotations

import re
from pathlib import Path

from flask_chsk.brokers import contract
from flask_chsk.brokers.redis import scripts
from tests.pages import section, tables, words

PAGE = "broker.rst"


def public(protocol: type) -> set[str]:
    names = {*vars(protocol), *protocol.__annotations__}
    return {name for name in names if not name.startswith("_")}


def test_the_contract() -> None:
    calls, told = (
        {name for row in rows for name in words(row[0])} for rows in tables(PAGE, "The contract")
    )
    asked = public(contract.Broker)
    for part in ("clients", "topics", "sends"):
        protocol = getattr(contract, f"Broker{part.capitalize()}")
        asked |= {f"{part}.{name}" for name in public(protocol)}
        asked.remove(part)
    assert (calls, told) == (asked, public(contract.Listener))


def test_keys() -> None:
    text = "".join(one.text for one in vars(scripts).values() if isinstance(one, scripts.Script))
    used = set(re.findall(r"base \.\. '([a-z]+)[:']", text))
    used -= {"u", "t"}  # channels of messages, not keys
    listed = {
        name.partition(":")[0] for row in tables(PAGE, "Keys in Redis")[0] for name in words(row[0])
    }
    assert listed == used
    kept = section(PAGE, "What is kept, and for how long")
    assert all(re.search(rf"``{name}(:[^`]*)?``", kept) for name in listed)


def test_scripts() -> None:
    listed = [name for row in tables(PAGE, "Scripts")[0] for name in words(row[0])]
    known = {name for name, one in vars(scripts).items() if isinstance(one, scripts.Script)}
    assert sorted(listed) == sorted(known)


def test_parts_of_the_redis_broker() -> None:
    listed = {
        name for row in tables(PAGE, "The parts of the Redis broker")[0] for name in words(row[0])
    }
    there = {path.name for path in Path(scripts.__file__).parent.glob("*.py")}
    assert listed == there - {"__init__.py"}
