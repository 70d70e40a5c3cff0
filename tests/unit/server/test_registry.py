"""Who is connected: lookups by (uid, client id), and the snapshot that others read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.protocol.uids import NOBODY, ConnectedUids
from flask_chsk.server.registry import Registry

UIDS = st.sampled_from([None, "ann", "bob"])
CLIENTS = st.sampled_from(["c1", "c2"])
KINDS = st.sampled_from(["ws", "ajax"])


def uids(*names: str) -> frozenset[str]:
    return frozenset(names)


def test_nobody_is_there_at_first() -> None:
    registry: Registry[str] = Registry()
    assert registry.connected_uids is NOBODY
    assert (len(registry), list(registry), registry.of("ann"), registry.get("ann", "c")) == (
        0,
        [],
        (),
        None,
    )


def test_a_client_id_is_one_client_of_one_user() -> None:
    registry: Registry[str] = Registry()
    registry.add("ann", "c", "ann's", "ws")
    registry.add("bob", "c", "bob's", "ajax")
    registry.add(None, "c", "nobody's", "ws")
    assert [registry.get(uid, "c") for uid in ("ann", "bob", None, "eve")] == [
        "ann's",
        "bob's",
        "nobody's",
        None,
    ]
    assert registry.connected_uids == ConnectedUids(uids("ann"), uids("bob"), uids("ann", "bob"))


def test_a_user_is_there_while_one_client_is() -> None:
    registry: Registry[str] = Registry()
    registry.add("ann", "c1", "1", "ws")
    registry.add("ann", "c2", "2", "ajax")
    assert registry.connected_uids == ConnectedUids(uids("ann"), uids("ann"), uids("ann"))
    registry.remove("ann", "c1", "ws")
    assert registry.connected_uids == ConnectedUids(uids(), uids("ann"), uids("ann"))
    registry.remove("ann", "c2", "ajax")
    assert registry.connected_uids == NOBODY


def test_a_change_of_transport_moves_a_user() -> None:
    registry: Registry[str] = Registry()
    registry.add("ann", "c", "1", "ajax")
    registry.move("ann", "ajax", "ws")
    assert registry.connected_uids == ConnectedUids(uids("ann"), uids(), uids("ann"))
    registry.remove("ann", "c", "ws")
    assert registry.connected_uids == NOBODY


def test_a_snapshot_stays_as_it_was_and_is_shared_until_a_change() -> None:
    registry: Registry[str] = Registry()
    registry.add("ann", "c1", "1", "ws")
    before = registry.connected_uids
    registry.add("ann", "c2", "2", "ws")
    assert registry.connected_uids is before  # ann was there already
    registry.add("bob", "c", "3", "ws")
    assert before == ConnectedUids(uids("ann"), uids(), uids("ann"))
    assert registry.connected_uids == ConnectedUids(uids("ann", "bob"), uids(), uids("ann", "bob"))


def test_connections_may_leave_while_they_are_walked() -> None:
    registry: Registry[str] = Registry()
    for client in ("c1", "c2", "c3"):
        registry.add("ann", client, client, "ws")
    for client in registry:
        registry.remove("ann", client, "ws")
    for client in ("c1", "c2"):
        registry.add("bob", client, client, "ws")
    for client in registry.of("bob"):
        registry.remove("bob", client, "ws")
    assert len(registry) == 0


@given(st.lists(st.tuples(UIDS, CLIENTS, KINDS, st.sampled_from(["come", "go", "move"]))))
def test_the_snapshot_is_what_a_list_of_all_would_say(
    steps: list[tuple[str | None, str, str, str]],
) -> None:
    registry: Registry[str] = Registry()
    model: dict[tuple[str | None, str], str] = {}
    for uid, client, kind, step in steps:
        here = model.get((uid, client))
        if step == "come" and here is None:
            registry.add(uid, client, client, kind)
            model[uid, client] = kind
        elif step == "go" and here is not None:
            registry.remove(uid, client, here)
            del model[uid, client]
        elif step == "move" and here is not None:
            registry.move(uid, here, kind)
            model[uid, client] = kind
        named = [(uid, kind) for (uid, _), kind in model.items() if uid is not None]
        ws, ajax = (uids(*(uid for uid, k in named if k == each)) for each in ("ws", "ajax"))
        assert registry.connected_uids == ConnectedUids(ws, ajax, ws | ajax)
        assert len(registry) == len(list(registry)) == len(model)
        assert registry.count("ann") == len([uid for uid, _ in model if uid == "ann"])
