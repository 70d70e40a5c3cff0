"""A channel socket whose server sends each message back as it came, unread.

All else is real: the handshake, the link, the frame reader, the session's outbox.
"""

from __future__ import annotations

from flask import Flask

from flask_chsk import Chsk
from flask_chsk.protocol.wire import Data
from flask_chsk.server.connection import Connection
from flask_chsk.server.receiver import Receiver
from flask_chsk.transports.transport import Transport

MIB = 1 << 20

app = Flask(__name__)
app.secret_key = "for tests"
app.config.update(CHSK_CSRF=False, CHSK_MAX_MESSAGE_BYTES=16 * MIB, CHSK_MAX_OUTBOX_BYTES=32 * MIB)
chsk = Chsk(app)


def echo(self: Receiver, connection: Connection, websocket: Transport, data: Data) -> None:
    connection.session.say(data)
    websocket.wake()


Receiver.received = echo  # type: ignore[method-assign]
