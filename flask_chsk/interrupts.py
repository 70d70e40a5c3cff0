"""Tells what ends the process from what users' code raised.

``sys.exit()`` in a handler is an error of that handler, as any exception is. But a signal that
arrives while a handler runs raises in that handler, too: a Ctrl-C, or a server's own end.
It refuses to log and to answer: whoever caught the error does.
"""

from __future__ import annotations

import opcode
import signal
from types import CodeType

# What code raises of itself. The rest is thrown into it by whoever waits for it, as gevent.Timeout
# is, and has to get back there, where that is beyond us.
OF_CODE = (Exception, SystemExit, KeyboardInterrupt)

_RAISE = opcode.opmap["RAISE_VARARGS"]  # the statement ``raise``


def from_signal(error: BaseException) -> bool:
    """Whether the handler of a signal raised *error*, so that it has to go on to the server."""
    if isinstance(error, Exception):
        return False
    traceback = error.__traceback__
    if traceback is None:
        return False
    handlers = _handlers()
    while traceback.tb_frame.f_code not in handlers and traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    if code in handlers:
        return True
    # Python's own handler of Ctrl-C has no frame; a statement of the code that it hit has no part.
    return (
        isinstance(error, KeyboardInterrupt)
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        and code.co_code[traceback.tb_lasti : traceback.tb_lasti + 1] != bytes([_RAISE])
    )


def _handlers() -> set[CodeType]:
    """The code of the handlers of this process that are written in Python."""
    found = (getattr(signal.getsignal(one), "__code__", None) for one in signal.valid_signals())
    return {code for code in found if code is not None}
