"""The one URL: GET with an Upgrade, GET to handshake and poll, POST to send.

What a client sends: docs/protocol.rst, "Requests".

Thin: each view checks (security.py), then hands over to the server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from functools import partial, wraps
from io import BytesIO
from random import randrange
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar

import gevent
from flask import Blueprint, Request, Response, current_app
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wrappers import Response as BaseResponse

from .. import security
from ..config import Config
from ..errors import Refused
from ..interrupts import from_signal
from ..logs import RateLimitedLogger, logger
from ..protocol import generations
from ..protocol.generations import Generation
from ..protocol.session import is_unreadable, read_sized
from ..protocol.wire import Composer
from ..security import Began
from ..server.admission import Admission
from ..server.connection import ANEW, Opening
from ..server.dispatch import RUNNING_BYTES
from ..server.rates import network_of
from ..server.trace import Happening
from ..server.worker import Worker
from ..transports import upgrade
from ..transports.longpoll import body
from .contexts import HandshakeRequest, PostRequest
from .form import OTHER_BYTES, fields_of, message_of
from .internals import current_request

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from ..state import State

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K", HandshakeRequest, PostRequest)

rate_limited = RateLimitedLogger(logger(__name__))

# The test client sets this key of the environ: its polls do not park, and it needs no CSRF token.
# A peer cannot set it: headers arrive under names that begin with HTTP_.
TEST_CLIENT = "flask_chsk.test_client"

# Bytes of a request's head that are kept: a WebSocket's as long as the socket, a POST's until its
# event is handled. nginx lets as many through.
MOST_KEPT = 32 * 1024

PIECE = 65_536  # bytes of a body that are read at once
BODY_SECONDS = 60.0  # for all of a body: then clients give their request up

SPREAD = 5  # seconds over which clients that are turned away come back

_NUMBER = re.compile(r"[0-9]{1,15}")


def _refusing_http_errors(check: Callable[P, T]) -> Callable[P, T]:
    """An HTTP error of a hook refuses the request with one line of text, not a page of HTML.

    A hook that calls ``sys.exit()`` does not end the server: that is an error like any other.
    """

    @wraps(check)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        request = current_request()
        try:
            return check(*args, **kwargs)
        except HTTPException as error:
            if error.code is None or error.response is not None:
                raise _Answered(error.get_response(request.environ)) from error
            raise Refused(error.code, error.description or error.name) from error
        except (Exception, gevent.GreenletExit, gevent.Timeout):  # the last two may be the server's
            raise
        except BaseException as error:
            if from_signal(error):
                raise
            raise RuntimeError(f"a hook of the channel socket raised {error!r}") from error

    return checked


class Endpoint:
    """One path of one application, with the wire and packers spoken there."""

    def __init__(self, state: State, config: Config) -> None:
        self.state = state
        self.config = config
        self._admission = Admission(config.max_openings)

    def blueprint(self, name: str) -> Blueprint:
        """The routes of this endpoint."""
        blueprint = Blueprint(
            name, "flask_chsk", static_folder="static", static_url_path=f"{self.config.path}/static"
        )
        blueprint.before_request(self._serve)
        add = blueprint.add_url_rule
        path = self.config.path
        # Werkzeug routes an Upgrade to rules with websocket=True only, all else to others.
        add(path, "websocket", self.websocket, websocket=True)
        # Flask would answer OPTIONS by itself, for any of these rules.
        plain = {"provide_automatic_options": False}
        add(path, "poll", self.poll, methods=["GET"], **plain)
        add(path, "post", self.post, methods=["POST"], **plain)
        add(path, "options", self.options, methods=["OPTIONS"], **plain)
        if self.config.health:
            add(f"{path}/health", "health", self.health, methods=["GET"])
        return blueprint

    # views -----------------------------------------------------------------------------

    def websocket(self) -> BaseResponse:
        """Take the socket over, where all is well; else refuse before the 101."""
        request = current_request()
        try:
            key = upgrade.check(request.environ)
            offered = request.headers.get("Sec-WebSocket-Protocol")
            shown = security.Shown.take(request.environ)
            if shown.bearer is not None and "HTTP_AUTHORIZATION" not in request.environ:
                request.environ["HTTP_AUTHORIZATION"] = f"Bearer {shown.bearer}"
            kept = _checked(HandshakeRequest(request.environ, request.url_rule))
            with self._admission.entering():
                worker, opening, _ = self._open(kept, shown)
                entered = worker.clients.enter(opening, "ws")
            if entered is None:
                raise Refused(409, "this client has a newer connection", retry_after=1)
        except Refused as refused:
            return self._refuse(refused)
        headers = []
        if security.offers(offered, "chsk.v1"):
            headers.append(("Sec-WebSocket-Protocol", "chsk.v1"))
        switch = upgrade.SwitchProtocols.of(current_app.response_class)
        return switch(
            lambda link, leftover: worker.sockets.open(entered, link, leftover),
            worker.hub,
            key,
            headers,
        )

    def poll(self) -> BaseResponse:
        """Answer a handshake or a poll, or park it."""
        request = current_request()
        try:
            if upgrade.serves_one_at_a_time(request.environ):
                raise Refused(
                    501,
                    "no long-polling here: this server handles one request at a time, so one"
                    " waiting poll would block it. Run gunicorn -k gevent, or -k gthread"
                    " --threads 100 (WebSockets work as it is)",
                )
            shown = security.Shown.take(request.environ)
            _check_query()
            handshake = "handshake?" in request.args
            with self._admission.entering() if handshake else nullcontext():
                worker, opening, origin = self._open(None, shown)
                if request.method == "HEAD":  # nobody would read what a poll takes
                    return self._answer(opening.composer, b"", origin)
                wait = TEST_CLIENT not in request.environ
                answer = worker.polls.get(opening, handshake, wait)
        except Refused as refused:
            return self._refuse(refused)
        if isinstance(answer, bytes):
            return self._answer(opening.composer, answer, origin)
        parked = worker.polls.parked(opening, answer, upgrade.plain_socket(request.environ))
        response = self._answer(opening.composer, parked, origin)
        response.direct_passthrough = True  # the server holds the body, and nothing else of us
        return response

    def post(self) -> BaseResponse:
        """Take a message in; answer it, or wait for its reply."""
        request = current_request()
        try:
            shown = security.Shown.take(request.environ)
            data, fields = self._posted()
            kept = _checked(PostRequest(request.environ, request.url_rule))
            worker, opening, origin = self._open(kept, shown, fields)
            worker.clients.check_may_act(opening)
            if data is None:
                raise Refused(400, "no message: POST it as ppstr=, form-urlencoded")
            incoming, size = read_sized(opening.composer, data, padded=True)
            # A handler of its own runs for each, and makes a request again of what is kept.
            size += RUNNING_BYTES + 2 * kept.size
            answer = worker.hub.run(worker.receiver.posted, opening, incoming, size)
            if opening.v1 and is_unreadable(incoming):  # Sente's clients read a 200 everywhere
                raise Refused(
                    400,
                    "the message cannot be read: POST one [event callback], packed by the packer"
                    f" {opening.composer.packer.name}",
                )
        except Refused as refused:
            return self._refuse(refused)
        if isinstance(answer, str | bytes):
            return self._answer(opening.composer, body(answer), origin)
        response = self._answer(opening.composer, answer, origin)
        response.headers["X-Accel-Buffering"] = "no"  # nginx would hold its head back
        return response

    def health(self) -> Response:
        """200 where events pass, 503 where they do not; one line says why (CHSK_HEALTH).

        A line after ``ok`` says what somebody should look at all the same.
        """
        worker = self.state.worker()
        draining = worker.clients.draining
        wrong = "draining" if draining else self._unshared() or worker.broker_health()
        lines = [wrong] if wrong else ["ok", worker.broker.note()]
        text = "".join(f"{line}\n" for line in lines if line)
        response = Response(text, 503 if wrong else 200, mimetype="text/plain")
        response.headers["Cache-Control"] = "no-store"
        return response

    def options(self) -> BaseResponse:
        """Answer the preflight of a listed origin."""
        try:
            origin = self._origin()
        except Refused as refused:
            return self._refuse(refused)
        response = Response(status=204)
        if origin is not None:
            _allow(response, origin)
            response.headers["Access-Control-Allow-Methods"] = "GET, POST"
            response.headers["Access-Control-Allow-Headers"] = (
                "Authorization, Content-Type, X-CSRF-Token, X-Requested-With,"  # of all of Sente's
                f" {security.SECRET_HEADER}, {security.RESUME_HEADER}"
            )
            response.headers["Access-Control-Max-Age"] = "600"
        return response

    def _serve(self) -> ResponseReturnValue | None:
        """503 in a child of a worker; the client's file is the same everywhere."""
        request = current_request()
        if TEST_CLIENT in request.environ or str(request.endpoint).endswith(".static"):
            return None
        try:
            self.state.serve(request.environ)
        except Refused as refused:
            return self._refuse(refused)
        return None

    # checks, in the order of docs/security.rst, "What is checked, and where" -------------------

    @_refusing_http_errors
    def _open(
        self,
        kept: HandshakeRequest | PostRequest | None,
        shown: security.Shown,
        fields: dict[str, str] | None = None,
    ) -> tuple[Worker, Opening, str | None]:
        state, config, hooks = self.state, self.config, self.state.hooks
        values = _parameters(fields)
        self._check_hook()
        kind: generations.Kind = "poll"
        if kept is not None:
            kind = "post" if isinstance(kept, PostRequest) else "ws"
        v1 = values.get("v") == "1"
        generation = generations.CURRENT if v1 else generations.told(config.wire, kind, values)
        client_id = self._client_id(values, generation)
        # What opens something comes in headers: URLs stand in logs and histories.
        digest = security.digest_of_secret(shown.secret) if v1 else ""
        composer = state.composer(values.get("packer") or config.packer, config)
        origin = self._origin()
        brings_none = kind != "post" and not v1 and composer.wire.csrf_in_handshake
        self._check_csrf(values, shown.csrf, brings_none=brings_none)
        worker = self._ready_worker()
        asked = worker.clients.asked()  # from here on a close concerns whoever this is
        if not hooks.lets_in():
            raise Refused(401, "not authorized: sign in first")
        self._check_rate(worker)
        uid, expires_at = self._identity(worker)
        keys, owner = state.resume_keys if v1 else [], (uid, client_id, digest)
        cursor, began, page = _shown_cursor(keys, values.get("cursor"), shown, owner)
        opening = Opening(
            uid=uid,
            expires_at=expires_at,
            client_id=client_id,
            composer=composer,
            request=kept,
            v1=v1,
            generation=generation,
            digest=digest,
            cursor=cursor,
            trusted=began is not None,
            began=began or ANEW,
            page=page,
            asked=asked,
            data=None if kind == "post" else self._handshake_data(composer),
            csrf_token=self._csrf_in_handshake(composer),
            resume=partial(security.resume_token, keys[0], *owner) if v1 else None,
            number=_number(values.get("n", "")) if v1 else None,
        )
        return worker, opening, origin

    def _ready_worker(self) -> Worker:
        if unshared := self._unshared():
            raise Refused(503, unshared)
        worker = self.state.worker()
        worker.ready()
        return worker

    def _check_hook(self) -> None:
        """The application's own refusal."""
        if refusal := self.state.hooks.refusal():
            if isinstance(refusal, BaseResponse):
                raise _Answered(refusal)
            raise Refused(403, refusal if isinstance(refusal, str) else "rejected")

    def _check_csrf(
        self, values: Mapping[str, str], shown: str | None, *, brings_none: bool
    ) -> None:
        """
        :param values: the parameters of the request.
        :param shown: the token among the WebSocket's subprotocols.
        :param brings_none: a client that gets its token with the handshake, so it has none yet.
        """
        request = current_request()
        ambient = request.cookies or not self._bearer()  # else a cookie could not have decided
        if not self.config.csrf or not ambient or TEST_CLIENT in request.environ:
            return
        headers, hooks = request.headers, self.state.hooks
        given = (
            shown
            or headers.get("X-CSRF-Token")
            or headers.get("X-XSRF-Token")
            or values.get("csrf-token")
        )
        if given or not (brings_none and self._proves_same_origin()):
            matches = hooks.csrf_matches(given) if given else None
            security.check_csrf(given, given if matches else hooks.expected_csrf_token())

    def _identity(self, worker: Worker) -> tuple[str | None, float | None]:
        """Who asks, and until when, by the clock of the worker; None: for ever."""
        uid, left = self.state.hooks.identity()
        if left is not None and left <= 0:
            raise Refused(401, "the identity of this request has expired: bring a fresh token")
        return uid, None if left is None else worker.hub.now() + left

    def _check_rate(self, worker: Worker) -> None:
        request = current_request()
        if self.config.rate_per_address is None:
            return
        wait = worker.hub.run(worker.receiver.address_too_fast, request.remote_addr)
        if wait:
            raise Refused(429, "too many requests from this address (CHSK_RATE_PER_ADDRESS)", wait)

    def _unshared(self) -> str:
        """Why these workers cannot serve together; empty where they can."""
        request = current_request()
        config = self.config
        shared = config.allow_unshared or not config.broker_url.startswith("memory:")
        if shared or not request.is_multiprocess:
            return ""
        return (
            "several workers share no broker, so events would reach some clients only:"
            " set CHSK_BROKER_URL=redis://… or run one worker (CHSK_ALLOW_UNSHARED=True overrides)"
        )

    @staticmethod
    def _client_id(values: Mapping[str, str], generation: Generation) -> str:
        """The client's id, or one that stands for an address where this generation sends none."""
        request = current_request()
        client_id = values.get("client-id")
        if client_id is None and generation.post_without_id:
            # No client can have it. A colon would end it in names of channels.
            return "@" + (network_of(request.remote_addr) or "").replace(":", ".")
        if client_id is None and not generation.supported:
            raise Refused(
                400,
                "no client-id in the query: Sente's clients send one from 1.3 on, and those of"
                " 1.0 to 1.2 are not supported",
            )
        return security.check_client_id(client_id)

    def _origin(self) -> str | None:
        request = current_request()
        headers = request.headers
        return security.check_origin(
            headers.get("Origin"),
            headers.get("Sec-Fetch-Site"),
            _own_origin(),
            self.config.allowed_origins,
            bool(request.cookies),
        )

    @staticmethod
    def _proves_same_origin() -> bool:
        request = current_request()
        headers = request.headers
        return security.proves_same_origin(
            headers.get("Origin"), headers.get("Sec-Fetch-Site"), _own_origin()
        )

    def _bearer(self) -> bool:
        request = current_request()
        authorization = request.authorization
        return authorization is not None and authorization.type == "bearer"

    def _csrf_in_handshake(self, composer: Composer) -> Any:
        """The seed's generation carries it, to requests that proved to be our own pages'."""
        request = current_request()
        if not (composer.wire.csrf_in_handshake and self.config.csrf):
            return None
        referer = request.headers.get("Referer", "")
        by_referer = "Origin" not in request.headers and referer.startswith(request.host_url)
        if not (by_referer or self._proves_same_origin()):
            return None
        token = self.state.hooks.expected_csrf_token()
        most = self.config.max_outbox_bytes // 2
        return None if token is None else composer.bounded(token, most, "csrf_token")

    def _handshake_data(self, composer: Composer) -> Any:
        """What the application greets with, packed before anybody is let in.

        :raises PackError: naming what no packer can carry.
        """
        data = self.state.hooks.greeting()
        most = self.config.max_outbox_bytes // 2
        return None if data is None else composer.bounded(data, most, "handshake_data")

    def _posted(self) -> tuple[str | bytes | None, dict[str, str] | None]:
        """The message in a POST, within the limit, and the other fields of its form.

        No message: None. No fields: None, and Flask reads what there is.

        :raises Refused: 400, 413; 503 where too much is arriving.
        """
        request = current_request()
        limit = self.config.max_message_bytes
        _check_query()
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refused(400, "a Content-Encoding is not accepted: POST the message as it is")
        # Urlencoding writes one byte as three at worst, and then there are the other fields.
        most = 3 * limit + OTHER_BYTES
        _limit_body(request, most)
        if (request.content_length or 0) > most:
            raise Refused(413, f"a message of at most {limit} bytes (CHSK_MAX_MESSAGE_BYTES)")
        try:
            content = self._read_body()
            data: str | bytes | None = None
            fields = None
            if "binary?" in request.args:
                # Whatever its Content-Type says, it is no form.
                data, content = content or request.get_data(cache=False), b""
            elif content and request.mimetype == "application/x-www-form-urlencoded":
                data, content = message_of(content)
                fields = fields_of(content)
            if content:  # else there is none, or somebody has read it
                request.stream = BytesIO(content)
            if data is None:
                data = request.values.get("ppstr")
        except RequestEntityTooLarge:
            raise Refused(
                413, f"a message of at most {limit} bytes (CHSK_MAX_MESSAGE_BYTES)"
            ) from None
        if data is not None and len(data) > limit:
            raise Refused(413, f"a message of at most {limit} bytes (CHSK_MAX_MESSAGE_BYTES)")
        return data, fields

    def _read_body(self) -> bytes:
        """Read the body: in pieces, which count while they arrive, and not for ever."""
        request = current_request()
        stream = request.stream
        body: Body | None = None
        here = isinstance(gevent.getcurrent(), gevent.Greenlet)  # else the server's own timeouts
        late = Refused(400, f"the body did not arrive within {BODY_SECONDS:g} seconds")
        try:
            with gevent.Timeout(BODY_SECONDS, late) if here else nullcontext():
                data = _piece_of(stream)
                while piece := data and _piece_of(stream):
                    body = body or Body(self.state.worker(), data)
                    body.add(piece)
        finally:
            if body is not None:
                data = bytes(body.data)
                body.done()
        return data

    # answers ---------------------------------------------------------------------------

    def _answer(self, composer: Composer, content: Any, origin: str | None) -> Response:
        response = current_app.response_class(content, content_type=composer.packer.content_type)
        response.headers["Cache-Control"] = "no-store"
        if origin is not None:
            _allow(response, origin)
        return response

    def _refuse(self, refused: Refused) -> BaseResponse:
        request = current_request()
        status = refused.status
        self.state.count_refusal(status)
        worker = self.state.running()
        if worker is not None and worker.trace.on:
            whose = f"{request.method} {request.path}"
            worker.trace.tell(Happening("refused", whose, (), about=f"{status} {refused}"))
        rate_limited.warning(
            f"{status} {str(refused).partition(' ')[0]}",  # what follows may be the peer's words
            "%s %s refused with %d: %s",
            request.method,
            request.path,
            status,
            refused,
        )
        if isinstance(refused, _Answered):
            return refused.response
        response = Response(f"{refused}\n", status, content_type="text/plain; charset=utf-8")
        response.headers["Cache-Control"] = "no-store"
        if refused.status == 426:
            response.headers["Sec-WebSocket-Version"] = "13"
        if refused.retry_after is not None:
            # Connections of many clients, refused at one time, do not come back at one time.
            crowd = request.method == "GET" and status == 503
            seconds = refused.retry_after + (randrange(SPREAD) if crowd else 0)
            response.headers["Retry-After"] = str(seconds)
        with suppress(Refused):  # a page of a listed origin may know why
            origin = self._origin()
            if origin is not None:
                _allow(response, origin)
                response.headers["Access-Control-Expose-Headers"] = "Retry-After"
        if request.method == "POST":
            response.headers["Connection"] = "close"  # its body may not have been read
        return response


class Body:
    """A large body as it arrives; see :class:`flask_chsk.transports.budget.Arrival`."""

    def __init__(self, worker: Worker, data: bytes) -> None:
        self.data = bytearray()
        self._worker = worker
        self._too_much = False
        self.add(data)

    def add(self, piece: bytes) -> None:
        """Take *piece* in.

        :raises Refused: 503.
        """
        self.data += piece
        if not self._too_much:
            self._worker.hub.run(self._worker.budget.arriving, self, len(self.data))
        if self._too_much:
            self.data = bytearray()
            raise Refused(503, "too much is arriving: try later (CHSK_MAX_INBOUND_BYTES)", 1)

    def give_up(self) -> None:
        self._too_much = True
        self.data = bytearray()

    def done(self) -> None:
        """It has arrived, or never will."""
        if not self._too_much:
            self._worker.hub.run(self._worker.budget.arriving, self, 0)


class _Answered(Refused):
    """The application's own answer."""

    def __init__(self, response: BaseResponse) -> None:
        super().__init__(response.status_code, "the application's own answer")
        self.response = response


def _allow(response: Response, origin: str) -> None:
    response.headers["Access-Control-Allow-Origin"] = origin
    if origin != "*":
        response.headers["Access-Control-Allow-Credentials"] = "true"
        response.vary.add("Origin")


def _shown_cursor(
    keys: list[bytes],
    cursor: str | None,
    shown: security.Shown,
    client: tuple[str | None, str, str],
) -> tuple[str | None, Began | None, bool]:
    """The cursor of a request, what proves it, and whether it is a page's."""
    if not cursor or not security.is_page_cursor(cursor):
        return cursor or None, security.read_resume_token(keys, shown.resume, *client), False
    found = security.read_page_cursor(keys, cursor, client[0])
    return (cursor, None, True) if found is None else (found, ANEW, True)


def _own_origin() -> str:
    request = current_request()
    return f"{request.scheme.replace('ws', 'http')}://{request.host}"


def _piece_of(stream: IO[bytes]) -> bytes:
    """The next piece of a body; nothing at its end.

    :raises Refused: 400.
    """
    try:
        return stream.read(PIECE)
    except (Refused, RequestEntityTooLarge):  # too late, too large
        raise
    except Exception as error:  # malformed chunks, a peer that left: each server's own
        raise Refused(400, "the body cannot be read: it is malformed, or ends too early") from error


def _parameters(fields: dict[str, str] | None) -> Mapping[str, str]:
    """The parameters of the query, then *fields* of the form; Flask reads those that are None."""
    _check_query()
    request = current_request()
    return request.values if fields is None else {**fields, **request.args.to_dict()}


def _check_query() -> None:
    request = current_request()
    try:
        _ = request.args
    except UnicodeDecodeError:  # bytes that are not escaped; escaped ones become U+FFFD
        raise Refused(400, "the query is not UTF-8: percent-encode it") from None


def _number(text: str) -> int | None:
    """The number of a poll; None where it has none."""
    return int(text) if _NUMBER.fullmatch(text) else None


def _checked(kept: K) -> K:
    if kept.size > MOST_KEPT:
        raise Refused(400, f"the request's head is over {MOST_KEPT} bytes: fewer cookies")
    return kept


def _limit_body(request: Request, limit: int) -> None:
    request.max_content_length = limit
    request.max_form_memory_size = limit
