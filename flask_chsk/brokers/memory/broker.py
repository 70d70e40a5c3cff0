"""The broker of one process: offsets, histories and presence in plain dicts.

A publish is a function call: it assigns the offset and stores under one native lock, then
the hub delivers what arrived, in order. Nothing here blocks.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...config import Config
from ...hub import Hub, on_hub
from ..contract import CLOSE_KEPT, KEY_SECONDS, Listener, Page, is_close
from .clients import MemoryClients
from .journal import Journal
from .sends import MemorySends
from .table import ClientTable
from .topics import MemoryTopics


class MemoryBroker:
    """For one process; with several, each would reach its own clients only.

    From ``start`` on ``clients``, ``topics`` and ``sends`` are there.
    """

    local = True
    disconnected = False
    snapshot_seconds = 0.0

    def __init__(self, config: Config) -> None:
        self.name = self.epoch = ""  # until start
        self._config = config

    def start(self, hub: Hub, listener: Listener) -> None:
        config = self._config
        self.hub = hub
        self._listener = listener
        self.name = hub.token(8)
        self.epoch = hub.token(4)
        self._journal = Journal(hub, config, listener.deliver)
        self._table = ClientTable()
        self.topics = MemoryTopics(self._journal, self._table)
        self.clients = MemoryClients(
            self._journal,
            self._table,
            self.topics,
            listener,
            self.epoch,
            config.max_clients_per_uid,
            max(CLOSE_KEPT, config.close_grace_ajax),
        )
        self.sends = MemorySends(self._journal, max(config.recovery_seconds, KEY_SECONDS))

    def ready(self) -> None:
        pass

    def listen(self) -> None:
        pass

    def retire(self, seconds: float) -> None:
        pass

    def stop(self) -> None:
        pass

    def publish(
        self,
        channel: str,
        text: str,
        *,
        exclude: tuple[str | None, str] | None = None,
        flush: bool = False,
    ) -> int | None:
        journal = self._journal
        now = journal.now()
        with journal.lock:
            if not (is_close(text) or self._table.is_there(channel, now)):
                if channel.startswith("u:"):
                    journal.drop(channel[2:], now)
                return None
            offset = journal.append(channel, text, exclude, now, flush)
            if is_close(text):
                self.clients.note_close(channel, text, now)
        journal.deliver_soon()
        return offset

    def since(self, channels: Mapping[str, int], cursor: int, page_bytes: int) -> Page:
        with self._journal.lock:
            return self._journal.since(channels, cursor, page_bytes)

    def watermark(self) -> int:
        with self._journal.lock:
            return self._journal.watermark()

    def unused(self, channel: str) -> None:
        pass

    def tell(self, name: str, text: str) -> None:
        if name == self.name:
            self.hub.call(self._listener.on_worker_message, text)

    def health(self) -> str:
        return ""

    def note(self) -> str:
        return ""

    def stats(self) -> dict[str, int]:
        return {}

    @on_hub
    def sweep(self) -> None:
        now = self._journal.now()
        with self._journal.lock:
            self._journal.sweep(now)
            self.clients.sweep(now)
            self.sends.sweep(now)
