// Types of chsk.js. Push: what the server pushes and asks, id to data. Calls: what the client
// sends, id to { data, reply }. Both are optional; without them any id and data will do.
//
//   type Push = { "chat/said": { text: string } };
//   type Calls = { "chat/say": { data: { text: string }; reply: { ok: boolean } } };
//   const chsk = new ChannelSocket<Push, Calls>();
//   const { ok } = await chsk.request(["chat/say", { text: "hi" }]);

/** `[id]` or `[id, data]`; an id is namespaced: `"chat/say"`. */
export type Event<Id extends string = string, Data = any> = Data extends undefined | null
  ? readonly [Id, Data?]
  : readonly [Id, Data];

type Loose = { [id: string]: any };
type Call = { data?: any; reply?: any };
type LooseCalls = { [id: string]: Call };
type EventOf<Calls extends { [id: string]: Call }> = {
  [Id in keyof Calls & string]: Event<Id, Calls[Id]["data"]>;
}[keyof Calls & string];

/** What handlers get. */
export interface EventMsg<Id extends string = string, Data = any> {
  readonly id: Id;
  readonly data: Data;
  readonly event: readonly [Id, Data?];
}

/** A reply that is not the server's: not open, too late, refused or failed. */
export type Failure = "chsk/closed" | "chsk/timeout" | "chsk/error";

export interface ErrorDetails {
  /** An HTTP status: 400 for what a handler's `parse` refused, 413 for too large … */
  status?: number | null;
  message?: string | null;
}

/** How a connection ended. */
export interface Close {
  /** Unix time in milliseconds. */
  readonly udt: number;
  readonly reason:
    | "requested-disconnect"
    | "requested-reconnect"
    | "downgrading-ws-to-ajax"
    | "ws-ping-timeout"
    | "ws-error"
    | "clean"
    | "unexpected"
    /** The browser says that there is no network. */
    | "offline"
    /** The page was left; it connects again where the browser kept it and shows it again. */
    | "pagehide"
    | "refused"
    | "signed-out"
    | "expired"
    | "replaced";
  /** The close code. */
  readonly code?: number;
  /** The HTTP status. */
  readonly status?: number | null;
  /** The peer's words. */
  readonly message?: string | null;
  readonly retryAfterMs?: number;
}

export interface State {
  /** "refused": the server said no, with old and with new credentials; `connect()` tries again. */
  readonly status: "connecting" | "open" | "waiting" | "closed" | "refused" | "destroyed";
  /** The transport in use, or being tried. */
  readonly type: "auto" | "ws" | "ajax";
  readonly open: boolean;
  readonly everOpened: boolean;
  /** Open for the first time. */
  readonly firstOpen: boolean;
  /** Null: anonymous, or not known yet. */
  readonly uid: string | null;
  readonly csrfToken: string | null;
  readonly handshakeData: any;
  readonly lastWsError: { readonly udt: number; readonly ev: unknown } | null;
  readonly lastWsClose: Close | null;
  readonly lastClose: Close | null;
  readonly udtNextReconnect: number | null;
}

type MaybeAsync<T> = T | (() => T | Promise<T>);

/** Values to text or bytes and back. `pack` throws a PackError, `unpack` a SyntaxError. */
export interface Packer<Data = any> {
  /** As the server knows it. */
  readonly name: string;
  /** Whether `pack` makes bytes; `unpack` then gets an ArrayBuffer. */
  readonly binary?: boolean;
  readonly contentType?: string;
  pack(value: any): Data;
  unpack(data: Data): any;
  /** Several packed `[event nil]` as one packed `[[:chsk/batch [event …]] nil]`; without it every
   * event has a POST of its own. */
  batch?(packed: Data[]): Data;
}

export interface Options {
  /** Default "auto": WebSocket where it works, else Ajax, and back again when it can. */
  type?: "auto" | "ws" | "ajax";
  /** Default "edn". */
  packer?: "edn" | "json" | Packer;
  /** "object": the EDN packer reads keywords as Keyword. Default "string". */
  keywords?: "string" | "object";
  /** New for every page load by default; 1 to 64 of `A-Za-z0-9_-`. One that is fixed here is used
   * by one page at a time. */
  clientId?: string;
  /** Default: the `<meta name="chsk">` of the page. Asked before every connection; ASCII, and
   * within 10 s. */
  csrfToken?: MaybeAsync<string | null | undefined>;
  /** `chsk.page_cursor()` of the data that the page was made of: it gets all that was sent since.
   * Default: the `<meta name="chsk">` of the page. */
  cursor?: string | null;
  /** A bearer token, for clients without cookies. Asked before every connection; ASCII, and within
   * 10 s. */
  auth?: MaybeAsync<string | null | undefined>;
  /** More parameters, the application's own: in the query of a GET, in the form of a POST. */
  params?: { [name: string]: string | number | boolean | null | undefined };
  /** More headers, of Ajax requests only: a WebSocket has none. */
  headers?: { [name: string]: string };
  /** Of Ajax requests only: `withCredentials: true` sends cookies to another origin. */
  ajaxOpts?: {
    withCredentials?: boolean;
    params?: Options["params"];
    headers?: { [name: string]: string };
  };
  /** Milliseconds of silence after which a WebSocket is pinged: 25000. */
  wsKaliveMs?: number;
  /** Least time that a poll has: 25000; longer where the server holds polls for longer. */
  lpTimeoutMs?: number;
  /** How many event-msgs `chRecv` keeps before it forgets the oldest: 2048, and at most 4 MiB. */
  recvBuf?: number;
  /** Whether pushes enter `chRecv` as `["chsk/recv", event]`. Default true. */
  wrapRecv?: boolean;
  /** How many sends may wait for the socket to open: 0. */
  offlineQueue?: number;
  /** Milliseconds before attempt 0, 1, 2 … */
  backoff?: (attempt: number) => number;
  chskUrl?: (
    path: string,
    location: { href: string } | undefined,
    websocket: boolean,
  ) => string | Promise<string>;
  /** Whether it connects when it is made. Default true; with false `connect()` does. */
  connect?: boolean;
  /** In place of the global ones. */
  WebSocket?: any; // null: none
  fetch?: typeof fetch;
  location?: { href: string };
}

export interface SendOptions<Reply = any> {
  /** For the reply: 10000; Infinity: no end. */
  timeoutMs?: number;
  /** Called once, with the reply or a Failure. */
  cb?: (reply: Reply | Failure, details?: ErrorDetails) => void;
  /** Accepted as Sente does; nothing is held back here. */
  flush?: boolean;
}

/** `signal` ends what was begun: as the undo does, or by a rejection with its reason. */
export interface Until {
  signal?: AbortSignal;
}

/** Events of the client itself, in the seed's shapes. */
export interface Internal {
  "chsk/state": State;
  "chsk/handshake": readonly [uid: string | null, csrf: string | null, data: any];
  /** Events were missed for good: load afresh what was built from them. `page`: since the page was
   * made, perhaps long ago, so do not reload a page that comes from a cache: fetch its data. */
  "chsk/gap": { readonly reason: "page" } | null | undefined;
  /** The server's ping, and the answer to ours; only for handlers of these very ids. */
  "chsk/ws-ping": undefined;
  "chsk/ws-pong": undefined;
  /** A message that could not be read. */
  "chsk/bad-package": any;
  /** A value that was pushed and is no event. */
  "chsk/bad-event": any;
}

/**
 * One event channel between this page and the server. It connects when it is made; handlers that
 * are set before the next `await` miss nothing.
 */
export class ChannelSocket<
  Push extends { [id: string]: any } = Loose,
  Calls extends { [id: string]: Call } = LooseCalls,
> {
  /** @param path Default: the `<meta name="chsk">` of the page, else "/chsk"; or a whole URL.
   * @throws TypeError: naming the option that cannot be. */
  constructor(path?: string | null, opts?: Options);

  /** Another one after the server said that somebody else holds it, unless options fixed it. */
  readonly clientId: string;
  /** A snapshot; every change makes a new one. */
  readonly state: State;
  /** Events that no handler took. */
  readonly chRecv: RecvChannel;

  /** Call `fn` for events of this id; `"*"`: for those without another handler. Where the server
   * asked, the value of `fn`, or of its promise, is the answer. Returns the undo.
   * @throws BadEvent: for an id without a namespace. */
  on<Id extends keyof (Push & Internal) & string>(
    id: Id,
    fn: (ev: EventMsg<Id, (Push & Internal)[Id]>) => any,
    opts?: Until,
  ): () => void;
  on(id: "*", fn: (ev: EventMsg) => any, opts?: Until): () => void;
  /** The same for one event only. */
  once<Id extends keyof (Push & Internal) & string>(
    id: Id,
    fn: (ev: EventMsg<Id, (Push & Internal)[Id]>) => any,
    opts?: Until,
  ): () => void;
  once(id: "*", fn: (ev: EventMsg) => any, opts?: Until): () => void;
  /** Call `fn` for this id no more; without `fn`: none of its functions. */
  off(id: string, fn?: (ev: any) => any): void;
  /** Call `fn` for every event, before the handlers of its id, but for keep-alive. An event that
   * only `fn` takes still goes to `chRecv`. Returns the undo. */
  onAny(fn: (ev: EventMsg) => any, opts?: Until): () => void;
  /** Call `fn` with what handlers, watchers and callbacks throw. In a page that reaches
   * `window.onerror`, too, but for what was asked: the server is told of that. Returns the undo. */
  onError(fn: (error: unknown) => any, opts?: Until): () => void;

  /** Call `fn` on every change of state; returns the undo. */
  watch(fn: (old: State, now: State) => void, opts?: Until): () => void;

  /** Whether it left, or waits for the connection.
   * @throws BadEvent, PackError: before anything is sent. */
  send(event: EventOf<Calls>): boolean;
  send<Id extends keyof Calls & string>(
    event: Event<Id, Calls[Id]["data"]>,
    opts: SendOptions<Calls[Id]["reply"]>,
  ): boolean;
  send<Id extends keyof Calls & string>(
    event: Event<Id, Calls[Id]["data"]>,
    timeoutMs: number | null | undefined,
    cb?: SendOptions<Calls[Id]["reply"]>["cb"],
  ): boolean;

  /** The reply. Rejects with a ChskError named ReplyTimeout, ChannelClosed or ReplyError. While a
   * connection is being opened it waits for that, within its timeout; what had left when the
   * connection broke is rejected. The error has the event's `id`, the stack of the caller, and
   * where it is not open, the last close as `cause`. What was aborted before it left does not
   * leave. */
  request<Id extends keyof Calls & string>(
    event: Event<Id, Calls[Id]["data"]>,
    opts?: { timeoutMs?: number } & Until,
  ): Promise<Calls[Id]["reply"]>;

  /** Events that no handler took, until destroyed or aborted. */
  events(opts?: Until): AsyncGenerator<EventMsg, void, void>;
  /** Inject an event, as if it had been pushed. */
  put(event: Event): void;

  /** The state, once it is open. Rejects with a ChskError named ChannelClosed where it is closed,
   * refused or destroyed, or is not open after `timeoutMs` (10000). */
  ready(opts?: { timeoutMs?: number } & Until): Promise<State>;
  /** Open it where it is closed; end the wait where it waits for the next attempt, once a second
   * at most. */
  connect(): void;
  /** Drop the connection, and open again at once: after a login or a logout. */
  reconnect(): void;
  /** Close, until `connect()`. */
  disconnect(): void;
  /** Close: no timer, no listener, no handler stays. `connect()` begins anew, as in React's
   * StrictMode: with the client id it had, and what it missed. */
  destroy(): void;
  /** For tests: as if the network had cut the connection. */
  breakConnection(): void;
}

/** A buffer of event-msgs. When it is full, with `limit` of them or 4 MiB, it drops the oldest and
 * counts these. */
export class RecvChannel implements AsyncIterable<EventMsg> {
  constructor(limit: number);
  readonly dropped: number;
  put(ev: EventMsg): void;
  /** The next; undefined once it is closed and empty. */
  take(): Promise<EventMsg | undefined>;
  /** All items, until it is closed and empty, `going()` is false, or it is aborted. */
  items(going?: () => boolean, signal?: AbortSignal): AsyncGenerator<EventMsg, void, void>;
  close(): void;
  [Symbol.asyncIterator](): AsyncGenerator<EventMsg, void, void>;
}

/** `name` is BadEvent, ReplyTimeout, ChannelClosed or ReplyError. */
export class ChskError extends Error {
  /** Of a ReplyError, where the server gave one. */
  readonly status?: number | null;
  /** Of the event that was requested. */
  readonly id?: string;
}

/** A value that the packer cannot carry; the message starts with the path to it. */
export class PackError extends TypeError {}

/** A string that is written as an EDN keyword. */
export class Keyword {
  constructor(name: string);
  readonly name: string;
  toString(): string;
}

/** A tagged value that is neither an instant nor a UUID. */
export class Tagged {
  constructor(tag: string, value: any);
  tag: string;
  value: any;
}

export const edn: Packer<string>;
export const json: Packer<string>;
export function ednPacker(options?: { keywords?: "string" | "object" }): Packer<string>;

// The seed's functions ------------------------------------------------------------------

/** Options, with their older names. */
export interface SeedOptions extends Options {
  /** @deprecated `clientId` */
  clientUuid?: string;
  /** @deprecated `lpTimeoutMs` */
  lpKaliveMs?: number;
}
/** A callback, or a RecvChannel, which gets `["ev/id.cb", reply]`. */
export type SeedCallback = SendOptions["cb"] | RecvChannel;
type SeedSendOptions = Omit<SendOptions, "cb"> & { cb?: SeedCallback };

/** @param moreOpts Deprecated: give all options in one object. */
export function makeChannelSocket(
  path?: string | null,
  opts?: SeedOptions,
  moreOpts?: SeedOptions,
): {
  chsk: ChannelSocket;
  chRecv: RecvChannel;
  sendFn(
    event: Event,
    timeoutMsOrOpts?: number | SeedSendOptions | null,
    cb?: SeedCallback,
  ): boolean;
  readonly state: State;
};
export function chskSend(
  chsk: ChannelSocket<any, any>,
  event: Event,
  timeoutMsOrOpts?: number | SeedSendOptions | null,
  cb?: SeedCallback,
): boolean;
export function chskReconnect(chsk: ChannelSocket<any, any>): void;
export function chskDestroy(chsk: ChannelSocket<any, any>): void;

/** Call `handler` with each event-msg, one after another; returns a function that stops this. */
export function startChskRouter(
  chRecv: RecvChannel,
  handler: (ev: EventMsg) => any,
  opts?: { traceEvs?: boolean },
): () => void;
/** @deprecated `startChskRouter`; this handler gets the event, and `chRecv`. */
export function startChskRouterLoop(
  handler: (event: Event, chRecv: RecvChannel) => any,
  chRecv: RecvChannel,
): () => void;

export interface AjaxResponse {
  success: boolean;
  /** Null where there was no response. */
  status: number | null;
  error: number | "timeout" | "abort" | "http-error" | "no-content" | "exception" | null;
  content: any;
  contentType?: string | null;
}

/** A small Ajax call; EDN and JSON answers are read. */
export function ajaxCall(
  url: string,
  opts: {
    method?: string;
    params?: { [name: string]: any };
    headers?: { [name: string]: string };
    respType?: "auto" | "edn" | "json" | "text" | "binary";
    timeoutMs?: number;
    withCredentials?: boolean;
    body?: BodyInit;
    fetch?: typeof fetch;
  },
  callback: (resp: AjaxResponse) => void,
): { abort(): void };

export function defaultChskUrl(
  path: string,
  location: { href: string } | undefined,
  websocket?: boolean,
): string;
/** Milliseconds before attempt 0, 1, 2 …: exponential, at most 5 s for some four minutes, then
 * 30 s, with full jitter. */
export function expBackoff(attempt: number): number;
/** Call `fn` after the backoff of this attempt; returns the undo. */
export function setExpBackoffTimeout(fn: () => void, attempt?: number): () => void;
export function setLoggingLevel(
  level: "trace" | "debug" | "info" | "warn" | "error" | "silent",
): void;

export function isEvent(x: unknown): x is Event;
export function asEvent(x: unknown): Event;
/** @throws BadEvent */
export function assertEvent(x: unknown): Event;
export function isEventMsg(x: unknown): x is EventMsg;
/** Whether a reply is the server's. */
export function cbSuccess<Reply>(reply: Reply | Failure): reply is Reply;
/** Whether it is a Failure. */
export function cbError<Reply>(reply: Reply | Failure): reply is Failure;
