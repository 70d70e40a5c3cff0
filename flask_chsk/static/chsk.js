// @ts-check
/**
 * The browser's end of flask_chsk: one event channel, over WebSocket where it works and
 * long-polling where it does not (docs/protocol.rst).
 *
 * A ChannelSocket owns its links. A link over a WebSocket and one over polling look alike:
 * frames come up, packed messages go down, and it ends once; which one carries an event is
 * nobody's business above them. It refuses to store anything beyond the page, to repeat a
 * send, and to deliver an event twice.
 */

import { Keyword, PackError, Tagged, edn, ednPacker, isName, json } from "./edn.js";

export { Keyword, PackError, Tagged, edn, ednPacker, json };

const ASK_MS = 10_000; // for csrfToken, auth and chskUrl to say something
const BATCH_EVENTS = 64; // half of what the server lets wait for one client's handlers
const BATCH_CHARS = 65_536;
const BESIDE_MS = 1_000; // of silence of a WebSocket that is tried: then Ajax is tried beside it
const BRIEF = 2; // WebSockets in a row that were cut within STABLE_MS: then Ajax for a while
const CONNECT_MS = 5_000; // that a WebSocket has to prove itself
// After an empty poll: it may have ended because a WebSocket that is being tried took over.
const EMPTY_MS = 250;
const HURRY_MS = 1_000; // between two waits that connect() cuts short
const LEFT = 3002; // a close code of ours: the page is hidden or offline, and may come back
const FOREIGN_MS = 15_000; // till the next try where a login page answers: it stays for a while
const LONGEST_MS = 2 ** 31 - 1; // of a timer; over it, and that is Infinity, too, it fires at once
const PING = "ping"; // the callback id of keep-alives; those of sends are c1, c2, …
const PONG_MS = 10_000;
const POSTS = 3; // open at a time: with the poll they leave a page two of HTTP/1.1's six connections
const POST_QUEUE = 1000; // events; a server that is so far behind is as good as closed
const POST_TRIES = 5; // where the server says "later"
const PROBE_MS = 3_000; // a server that lives answers before a user loses patience
const REQUESTS = 1000; // that wait for an opening
const RETRY_AFTER_S = 60; // a server that says more is not believed
const RECV_BYTES = 4_194_304; // of what nobody takes: as much as the server keeps for a client
const STABLE_MS = 5_000;
const TICK_MS = 5_000;
const UPGRADE_MS = 30_000;
const UPGRADE_CAP_MS = 600_000;
// The first wait where WebSockets have worked: then it was a cut that brought us to Ajax.
const RETURN_MS = 2_000;

const CLOSED = "chsk/closed";
const ERROR = "chsk/error";
const TIMEOUT = "chsk/timeout";
const UNEXPECTED = "unexpected";

/** Close codes after which the socket stays closed, and the reason told: docs/protocol.rst,
 * "Close codes".
 * @type {Record<number, string>} */
const FINAL = { 1000: "clean", 4001: "replaced", 4005: "signed-out" };

/**
 * A link. `wants` counts what must come before it is trusted; `held` is what came till then;
 * `busy`: events without callback are still leaving.
 * @typedef {{
 *   type: "ws" | "ajax", wants: number, held: any[],
 *   busy?: boolean,
 *   send: (item: Item) => boolean,
 *   probe: (hard: boolean) => void,
 *   end: (code?: number) => void,
 * }} Link
 * How a link ended: the reason by its name (docs/protocol.rst, "The state of a client"), and what
 * more is known. `message` is the peer's text.
 * @typedef {{reason: string, code?: number, status?: number,
 *   message?: string, retryAfterMs?: number}} Cut
 * A message on its way; with an `id` it waits for its reply.
 * @typedef {{packed: any, id?: string | null, cb?: any,
 *   timeoutMs?: number, timer?: any, via?: Link | null, waits?: boolean, uid?: any}} Item
 * `waits`: it is a request, which may wait for an opening; `uid`: the user whose it is, undefined
 * where that was not known.
 */

// Values of the seed ---------------------------------------------------------------------

/** An error of this package; `name` says which. */
export class ChskError extends Error {
  /** @param {string} name @param {string} message @param {object} [more] */
  constructor(name, message, more) {
    super(message);
    Object.assign(this, { name }, more);
  }
}

/** A keyword that was read as an object gives its name, all else itself. @param {any} x */
const plain = (x) => (x instanceof Keyword ? x.name : x);

/** Whether `x` is `[id]` or `[id, data]` with a namespaced id. @param {any} x */
export const isEvent = (x) =>
  Array.isArray(x) && (x.length === 1 || x.length === 2) && isName(plain(x[0]), true);

/** `x`, or `["chsk/bad-event", x]` where it is none. @param {any} x */
export const asEvent = (x) => (isEvent(x) ? x : ["chsk/bad-event", x]);

/** `x`, or a thrown BadEvent. @param {any} x */
export function assertEvent(x) {
  if (isEvent(x)) return x;
  throw new ChskError("BadEvent", `an event is ["ns/name", data], not ${String(x)}`);
}

/** What travels in a header may be nothing else than this. @param {any} token */
function assertToken(token) {
  if (token == null || (typeof token === "string" && /^[ -~]*$/.test(token))) return token;
  throw new TypeError("must be a string of ASCII characters; encode others, as base64");
}

/** @param {any} fn */
function assertFunction(fn) {
  if (typeof fn !== "function") throw new TypeError(`not a function: ${fn}`);
}

/** @param {any} url */
function assertUrl(url) {
  if (url && typeof url === "string") return url;
  throw new TypeError(`must return a URL, not ${url}`);
}

/** The names of `opts`, those that are most like `name` first. @param {any} opts @param {string} name */
function nearest(opts, name) {
  const likeness = (/** @type {string} */ one) =>
    [...one].filter((_, i) => name.includes(one.slice(i, i + 3))).length;
  return Object.keys(opts).sort((a, b) => likeness(b) - likeness(a));
}

/** Throw a TypeError that names the option that cannot be. @param {any} opts */
function assertOptions(opts) {
  const number = (/** @type {any} */ x) => typeof x === "number" && x >= 0;
  const positive = (/** @type {any} */ x) => number(x) && x > 0;
  const callable = (/** @type {any} */ x) => typeof x === "function";
  /** @type {[string, string, (x: any) => any][]} */
  const wanted = [
    ["type", '"auto", "ws" or "ajax"', (x) => ["auto", "ws", "ajax"].includes(x)],
    ["packer", '"edn", "json" or a packer', (x) => x === "edn" || x === "json" || x?.unpack],
    ["clientId", "1 to 64 of A-Za-z0-9_-", (x) => x == null || /^[\w-]{1,64}$/.test(x)],
    ["wsKaliveMs", "milliseconds", positive],
    ["lpTimeoutMs", "milliseconds", positive],
    ["recvBuf", "a number", positive],
    ["offlineQueue", "a number", number],
    ["backoff", "a function", callable],
    ["chskUrl", "a function", callable],
  ];
  for (const [name, what, holds] of wanted) {
    if (!holds(opts[name])) throw new TypeError(`${name}: ${what}, not ${opts[name]}`);
  }
  for (const name of ["csrfToken", "auth"]) {
    try {
      if (!callable(opts[name]?.then ?? opts[name])) assertToken(opts[name]);
    } catch (error) {
      throw named(name, error);
    }
  }
}

/** `error`, and whose it is. @param {string} name @param {any} error */
const named = (name, error) => new TypeError(`${name}: ${error?.message ?? error}`);

/** Whether `x` is what `chRecv` gives. @param {any} x */
export const isEventMsg = (x) => isEvent(x?.event);

/** Whether a reply is a real one: not chsk/closed, chsk/timeout or chsk/error. @param {any} reply */
export const cbSuccess = (reply) => ![CLOSED, TIMEOUT, ERROR].includes(plain(reply));

/** Whether a reply is one of these three. @param {any} reply */
export const cbError = (reply) => !cbSuccess(reply);

/** Milliseconds to wait before try number `attempt` (from 0): exponential, at most 5 s for some
 * four minutes, then 30 s, and with full jitter, so that many clients do not come back at once.
 * @param {number} attempt */
export const expBackoff = (attempt) =>
  Math.random() * Math.min(attempt < 100 ? 5_000 : 30_000, 500 * 2 ** attempt);

/** Call `fn` after the backoff of this attempt; returns its undo. @param {() => void} fn */
export function setExpBackoffTimeout(fn, attempt = 0) {
  const timer = setTimeout(fn, expBackoff(attempt));
  return () => clearTimeout(timer);
}

/** @param {() => void} fn @param {number} ms */
const after = (fn, ms) => setTimeout(fn, Math.min(ms, LONGEST_MS));

/** Where the server is: `path`, which may be a whole URL, as seen from the page.
 * @param {string} path @param {any} location @param {boolean} [websocket] */
export function defaultChskUrl(path, location, websocket) {
  const { href } = new URL(path, location?.href);
  return websocket ? href.replace("http", "ws") : href;
}

const LEVELS = ["trace", "debug", "info", "warn", "error", "silent"];
let level = 3;

/** From which level on the console is told. @param {string} name one of LEVELS */
export function setLoggingLevel(name) {
  level = LEVELS.indexOf(name);
}

/** @param {"debug" | "warn" | "error"} name @param {...any} what */
function log(name, ...what) {
  if (LEVELS.indexOf(name) >= level) console[name]("chsk:", ...what);
}

/** @param {any} error */
const report = (error) => log("error", error);

/** Call a user's function, now: if it or its promise fails, nobody else suffers.
 * @template T @param {() => T} fn */
async function guarded(fn) {
  try {
    return await fn();
  } catch (error) {
    report(error);
  }
}

// Receiving ------------------------------------------------------------------------------

/** A buffer of event-msgs that forgets the oldest when it is full, and counts them. */
export class RecvChannel {
  /** @type {[item: any, bytes: number][]} */ #items = [];
  #bytes = 0;
  /** @type {any[]} */ #waiting = [];
  #limit;
  #ended = false;
  dropped = 0;

  /** @param {number} limit */
  constructor(limit) {
    this.#limit = limit;
  }

  /** @param {any} item @param {number} [bytes] that it came as */
  put(item, bytes = 0) {
    if (this.#ended) return;
    this.#bytes += bytes;
    let count = this.#items.push([item, bytes]);
    for (; count > this.#limit || (count > 1 && this.#bytes > RECV_BYTES); count--) {
      this.#shift();
      if (!this.dropped++) {
        log("warn", "events that nobody takes are dropped: use on(id, fn), or read chRecv");
      }
    }
    this.#wake();
  }

  #shift() {
    const [item, bytes] = /** @type {[any, number]} */ (this.#items.shift());
    this.#bytes -= bytes;
    return item;
  }

  /** What comes, until it is closed and empty, or `going` no more. */
  async *items(going = () => true) {
    for (;;) {
      while (going() && !this.#items.length && !this.#ended) {
        await new Promise((wake) => this.#waiting.push(wake));
      }
      if (!going() || !this.#items.length) return;
      yield this.#shift();
    }
  }

  /** The next item; undefined once it is closed and empty. */
  async take() {
    return (await this.items().next()).value;
  }

  /** What is buffered can still be taken. */
  close() {
    this.#ended = true;
    this.#wake();
  }

  #wake() {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  [Symbol.asyncIterator]() {
    return this.items();
  }

  get [Symbol.toStringTag]() {
    return "RecvChannel";
  }
}

/** Call `handler` with each event-msg of `chRecv`, one after another; returns the stop.
 * @param {RecvChannel} chRecv @param {(ev: any) => any} handler */
export function startChskRouter(chRecv, handler, { traceEvs = false } = {}) {
  let going = true;
  (async () => {
    for await (const ev of chRecv.items(() => going)) {
      if (traceEvs) log("debug", ev.event);
      await guarded(() => handler(ev));
    }
  })();
  return () => {
    going = false;
  };
}

/** Deprecated: startChskRouter with its arguments the other way round; `handler` gets the event.
 * @param {(event: any, chRecv: RecvChannel) => any} handler @param {RecvChannel} chRecv */
export function startChskRouterLoop(handler, chRecv) {
  log("warn", "use startChskRouter(chRecv, handler)");
  return startChskRouter(chRecv, (ev) => handler(ev.event, chRecv));
}

// HTTP -----------------------------------------------------------------------------------

/** @param {Record<string, any>} [params] what is null or undefined is left out */
function query(params = {}) {
  return new URLSearchParams(Object.entries(params).filter(([, v]) => v != null));
}

/** @param {string} url @param {Record<string, any>} [params] */
function withQuery(url, params) {
  const text = query(params).toString();
  return text ? url + (url.includes("?") ? "&" : "?") + text : url;
}

/** One request, and never an exception: what came of it is the response map.
 * @param {any} fetch @param {string} url @param {any} opts */
async function http(fetch, url, { method = "get", params, headers, body, signal, ...opts }) {
  const abort = new AbortController();
  const cut = () => abort.abort("abort");
  const timer = after(() => abort.abort("timeout"), opts.timeoutMs ?? 60_000);
  signal?.addEventListener("abort", cut);
  /** @type {any} */
  const res = { success: false, status: null, error: null, content: null };
  try {
    const form = body === undefined && /post/i.test(method);
    const answer = await fetch(form ? url : withQuery(url, params), {
      method,
      headers,
      body: form ? query(params) : body,
      credentials: opts.withCredentials ? "include" : "same-origin",
      signal: abort.signal,
    });
    const header = (/** @type {string} */ name) => answer.headers.get(name);
    if (answer.ok) opts.go?.();
    res.status = answer.status;
    res.contentType = header("content-type");
    const seconds = Math.max(0, parseInt(header("retry-after")));
    res.retryAfterMs = Math.min(seconds, RETRY_AFTER_S) * 1000 || undefined;
    const type = opts.respType ?? /edn|json|$/.exec(res.contentType)?.[0];
    const packer = answer.ok && /** @type {any} */ ({ edn, json })[type];
    res.content = await (answer.ok && type === "binary" ? answer.arrayBuffer() : answer.text());
    if (packer) res.content = packer.unpack(res.content);
    res.success = answer.ok;
    // What is no answer of a channel socket: a login page, a portal, a proxy's own page.
    const html = /html/.test(res.contentType);
    if (answer.redirected ? html || !answer.ok : answer.ok && html) {
      res.foreign = answer.redirected ? `a redirect to ${answer.url.split("?")[0]}` : "a page of HTML";
    }
    if (!answer.ok) res.error = answer.status;
  } catch (error) {
    res.error = abort.signal.reason ?? "exception";
  }
  clearTimeout(timer);
  signal?.removeEventListener("abort", cut);
  return res;
}

/** A small Ajax call. `callback` gets `{success, status, error, content, contentType}`; `error` is
 * null, a status, or "timeout", "abort", "http-error" (no answer), "no-content" (an empty one),
 * "exception" (one that is not what it says it is). Returns `{abort()}`.
 * @param {string} url @param {any} opts @param {(resp: any) => void} callback */
export function ajaxCall(url, opts, callback) {
  const abort = new AbortController();
  http(opts.fetch ?? fetch, url, { ...opts, signal: abort.signal }).then((res) => {
    const { status, content, error } = res;
    const empty = content === "" || content?.byteLength === 0;
    if (!status && error === "exception") res.error = "http-error";
    if (empty && status < 300 && status !== 204) {
      Object.assign(res, { success: false, error: "no-content", content: null });
    }
    guarded(() => callback(res));
  });
  return abort;
}

// The channel socket ---------------------------------------------------------------------

/** Options and their defaults; chsk.d.ts says what each is for. */
const DEFAULTS = {
  auth: null,
  clientId: null,
  csrfToken: undefined, // that of the page
  headers: null,
  keywords: null,
  params: null,
  type: "auto",
  recvBuf: 2048,
  wsKaliveMs: 25_000,
  lpTimeoutMs: 25_000,
  chskUrl: defaultChskUrl,
  packer: "edn",
  backoff: expBackoff,
  wrapRecv: true,
  offlineQueue: 0,
  ajaxOpts: {},
};

export class ChannelSocket {
  /** A snapshot; every change makes a new one. @type {any} */ state;
  /** @type {any} */ #opts;
  /** @type {any} */ #packer;
  /** @type {any} */ #state;
  /** @type {(() => any)[]} Of users' functions, which wait for the end of a step. */ #calls = [];
  /** @type {string} */ #path;
  /** @type {Link | null} The trusted one. */ #link = null;
  /** @type {Set<Link>} Those that are being tried: one, or a poll beside a WebSocket. */
  #trials = new Set();
  /** @type {Link | null} One that was replaced, and still posts what it was given. */ #last = null;
  /** @type {Map<string, Item>} */ #pending = new Map();
  /** @type {Item[]} */ #offline = [];
  /** @type {Map<string, Set<(ev: any) => any>>} */ #handlers = new Map();
  /** @type {Set<(old: any, now: any) => void>} */ #watchers = new Set();
  /** @type {Map<any, any>} */ #timers = new Map();
  /** @type {{epoch?: string, offset?: number}} How far events have come. */ #cursor = {};
  #secret = randomText(); // proves to the server that this is one client
  /** @type {string | undefined} */ #resume;
  /** @type {any} What the server told of itself. */ #server = {};
  /** @type {any} What requests need: `{csrf, auth, wsUrl, url}`. */ #access = {};
  #awake = new AbortController(); // ends listening to the page
  #gone = new AbortController(); // ends posts
  #asking = false; // for credentials: the application's functions are running
  #steps = 0; // within one another, under way
  #told = false; // the console knows that WebSockets fail, or they do not
  #turn = 0; // attempts that an `await` outlived know by it
  #polls = 0;
  #posts = 0;
  #sends = 0;
  #tries = 0;
  #hurriedAt = 0;
  /** @type {any} The user whose connection this is; undefined till the next handshake says. */
  #uid;
  #warned = false; // that something else answers
  #renewed = false; // refused since the last opening, and tried again with new credentials
  /** @type {string | undefined} The transport that worked last, in this tab. */ #works;
  #downgraded = false; // WebSockets failed where Ajax works
  /** @type {Cut | null} How Ajax failed beside a WebSocket. */ #failed = null;
  #brief = 0; // WebSockets in a row that were cut soon
  #upgradeMs = UPGRADE_MS;
  #openedAt = NaN; // till it is closed
  #switchedAt = NaN; // from one link to another

  /** @param {string} [path] @param {any} [opts] */
  constructor(path, opts) {
    const { WebSocket, fetch, location } = globalThis;
    this.#opts = { WebSocket, fetch, location, ...DEFAULTS };
    for (const name in opts) {
      if (!(name in this.#opts)) {
        throw named(name, `not one of ${nearest(this.#opts, name)}`);
      }
      if (opts[name] !== undefined) this.#opts[name] = opts[name];
    }
    assertOptions(this.#opts);
    const { packer, type, recvBuf, clientId } = this.#opts;
    this.#packer = /** @type {any} */ ({ edn: ednPacker(this.#opts), json })[packer] ?? packer;
    this.#path = path ?? meta()?.path ?? "/chsk";
    this.clientId = clientId ?? randomText();
    this.#works = remembered(this.#path);
    this.#downgraded = type === "auto" && this.#works === "ajax";
    this.chRecv = new RecvChannel(recvBuf);
    this.#state = {
      status: "closed",
      type,
      open: false,
      everOpened: false,
      firstOpen: false,
      uid: null,
      csrfToken: null,
      handshakeData: null,
      lastWsError: null,
      lastWsClose: null,
      lastClose: null,
      udtNextReconnect: null,
    };
    Object.defineProperty(this, "state", { get: () => this.#state });
    // Each call is a step. Methods know their object: they work as callbacks, and where a framework
    // put a Proxy around it, through which nobody sees private members.
    const methods = /** @type {any} */ (this);
    for (const name of Object.getOwnPropertyNames(ChannelSocket.prototype)) {
      const method = methods[name];
      if (name === "constructor" || typeof method !== "function") continue;
      const value = (/** @type {any[]} */ ...args) => this.#step(() => method.apply(this, args));
      Object.defineProperty(this, name, { value, writable: true, configurable: true });
    }
    // Rendered on a server, there is nothing to connect to, and nobody to wait for it.
    if (location || /^http/.test(this.#path)) this.connect();
  }

  /** To Vue and Alpine: this is no plain object, so they leave it as it is. */
  get [Symbol.toStringTag]() {
    return "ChannelSocket";
  }

  // Events ------------------------------------------------------------------------------

  /** Call `fn(ev)` for events of this id, "*" for those that no other takes; returns the undo.
   * @param {string} id @param {(ev: any) => any} fn */
  on(id, fn) {
    id = plain(id);
    if (id !== "*" && !isName(id, true)) {
      throw new ChskError(
        "BadEvent",
        `on(${JSON.stringify(id)}): an id has a namespace, as in on("chat/say", fn); "*" takes ` +
          'all others. The connection is told to watch(fn) and on("chsk/state", fn)',
      );
    }
    assertFunction(fn);
    const fns = this.#handlers.get(id) ?? new Set();
    this.#handlers.set(id, fns.add(fn));
    return () => {
      if (fns.delete(fn) && !fns.size) this.#handlers.delete(id);
    };
  }

  /** Call `fn(old, now)` on every change of state; returns the undo.
   * @param {(old: any, now: any) => void} fn */
  watch(fn) {
    assertFunction(fn);
    this.#watchers.add(fn);
    return () => {
      this.#watchers.delete(fn);
    };
  }

  /** Events that no handler took, until destroyed. */
  async *events() {
    for await (const ev of this.chRecv) yield ev.id === "chsk/recv" ? message(ev.data) : ev;
  }

  /** Inject an event, as if it had been pushed. @param {any} event */
  put(event) {
    this.#deliver(assertEvent(event), true);
  }

  /** Whether it left, or waits in line. `cb` gets the reply, or one of the three that are not
   * the server's. @param {any} event @param {any} [a] @param {any} [b] */
  send(event, a, b) {
    return this.#send(event, typeof a === "object" && a ? a : { timeoutMs: a, cb: b });
  }

  /** @param {any} event @param {any} opts @param {boolean} [waits] */
  #send(event, { cb, timeoutMs: ms }, waits) {
    assertEvent(event);
    const timeoutMs = ms ?? 10_000;
    if (!(timeoutMs >= 0)) throw new TypeError(`timeoutMs: milliseconds, not ${ms}`);
    const id = cb ? `c${++this.#sends}` : null;
    /** @type {Item} */
    const item = { packed: this.#pack(event, id), id, cb, timeoutMs, waits };
    const { open, status } = this.#state;
    const queued = /connecting|waiting/.test(status) && this.#queue(item);
    if (id) {
      this.#pending.set(id, item);
      item.timer = after(() => {
        const waiting = this.#offline.includes(item);
        this.#reply(item, TIMEOUT, waiting && { message: `not open yet: ${event[0]}` });
      }, timeoutMs);
    }
    if (open) return this.#transmit(item);
    if (!queued) queueMicrotask(() => this.#reply(item, CLOSED));
    return queued;
  }

  /** Whether it may wait for an opening. @param {Item} item */
  #queue(item) {
    const before = this.#offline.filter(({ waits }) => waits === item.waits).length;
    if (before >= (item.waits ? REQUESTS : this.#opts.offlineQueue)) return false;
    item.uid = this.#uid;
    return this.#offline.push(item) > 0;
  }

  /** The reply; rejects with ReplyTimeout, ChannelClosed or ReplyError. While a connection is
   * being opened it waits within its timeout.
   * @param {any} event @param {any} [opts] @returns {Promise<any>} */
  request(event, opts) {
    return new Promise((resolve, reject) => {
      /** @param {any} reply @param {any} details */
      const cb = (reply, details) => {
        if (cbSuccess(reply)) return resolve(reply);
        const why = plain(reply);
        const name =
          /** @type {any} */ ({ [TIMEOUT]: "ReplyTimeout", [CLOSED]: "ChannelClosed" })[why] ??
          "ReplyError";
        const { message, status } = details ?? {};
        reject(new ChskError(name, message ?? `${why}: ${event[0]}`, { status }));
      };
      this.#send(event, { ...opts, cb }, true);
    });
  }

  // Coming and going --------------------------------------------------------------------

  /** Open, where it is closed, and wait no longer, where it waits for the next attempt. */
  connect() {
    const { status } = this.#state;
    if (/closed|refused/.test(status)) this.reconnect();
    else if (status === "waiting" && Date.now() - this.#hurriedAt >= HURRY_MS) {
      this.#hurriedAt = Date.now();
      this.#attempt();
    }
  }

  /** Drop the connection, and open again at once: after a login or a logout. */
  reconnect() {
    // From the application's own `csrfToken`, `auth` or `chskUrl`: it is connecting already.
    const again = this.#asking && this.#state.status === "connecting";
    if (this.#gone.signal.aborted || again) return;
    this.#hangUp(3000, "requested-reconnect");
    this.#uid = undefined; // perhaps another user's from now on
    this.#listen();
    this.#attempt();
  }

  /** Close, until `connect()`. */
  disconnect() {
    if (this.#gone.signal.aborted) return;
    this.#hangUp(1000, "requested-disconnect");
    this.#rest("closed");
  }

  /** Close for good: no timer, no listener, no handler stays. */
  destroy() {
    if (this.#gone.signal.aborted) return;
    this.#hangUp(1000, "requested-disconnect");
    this.#gone.abort();
    this.#rest("destroyed");
    this.#call(() => {
      this.#handlers.clear();
      this.#watchers.clear();
      this.chRecv.close();
    });
  }

  /** For tests: as if the network had cut the connection. */
  breakConnection() {
    for (const link of this.#link ? [this.#link] : [...this.#trials]) {
      link.end(3001);
      this.#down(link, { reason: UNEXPECTED });
    }
  }

  /** @param {number} code @param {string} reason */
  #hangUp(code, reason) {
    this.#tries = 0;
    this.#renewed = false;
    this.#link?.end(code);
    this.#drop();
    if (this.#state.open) this.#set({ lastClose: { udt: Date.now(), reason } });
  }

  /** No link any more, nor one that is being tried; what is next begins afresh. */
  #drop() {
    const link = this.#link;
    this.#turn++;
    this.#endTrials();
    this.#link = null;
    this.#last = link ?? this.#last;
    this.#stop("retry");
    this.#stop("upgrade");
    for (const item of this.#pending.values()) {
      // Posts answer for themselves.
      if (item.via === link && link?.type === "ws") this.#reply(item, CLOSED);
    }
  }

  #endTrials() {
    this.#stop("beside");
    for (const link of this.#trials) link.end();
    this.#trials.clear();
  }

  /** @param {string} status */
  #rest(status) {
    this.#awake.abort();
    for (const name of this.#timers.keys()) this.#stop(name);
    for (const item of this.#pending.values()) this.#reply(item, CLOSED);
    const { length } = this.#offline.filter((item) => !item.id);
    if (length) log("warn", `${status}: ${length} events that waited to be sent were dropped`);
    this.#offline = [];
    this.#last = null;
    this.#set({ status, udtNextReconnect: null });
  }

  /** @param {string} [type] */
  #attempt(type) {
    this.#step(() => this.#begin(type));
  }

  /** @param {string} [type] */
  #begin(type) {
    const { type: wanted, WebSocket } = this.#opts;
    type ??= wanted !== "auto" ? wanted : this.#downgraded || !WebSocket ? "ajax" : "ws";
    this.#stop("retry");
    this.#failed = null;
    this.#set({ status: "connecting", type, udtNextReconnect: null });
    this.#try(type);
  }

  /** Begin a link; it counts once it is trusted. @param {string | undefined} type */
  async #try(type) {
    const turn = ++this.#turn;
    const message = await this.#ask();
    if (turn !== this.#turn) return;
    this.#step(() => {
      if (!message) this.#trials.add(type === "ajax" ? this.#polling() : this.#webSocket());
      else if (this.#link) this.#upgradeLater();
      else this.#retry({ reason: UNEXPECTED, message });
    });
  }

  /** @param {Link} link */
  #adopt(link) {
    const old = this.#link;
    this.#trials.delete(link);
    // A WebSocket is still tried where Ajax was sooner.
    if (link.type === "ws") {
      this.#told = true;
      this.#endTrials();
    }
    this.#stop("beside");
    this.#link = link;
    link.wants = 0;
    if (old) {
      old.end();
      this.#last = old;
      this.#switchedAt = Date.now();
    }
    this.#renewed = false;
    this.#openedAt = Date.now();
    const auto = this.#opts.type === "auto";
    if (auto && this.#works !== link.type) remembered(this.#path, (this.#works = link.type));
    this.#downgraded = auto && link.type === "ajax";
    if (!this.#downgraded) this.#upgradeMs = this.#brief ? this.#upgradeMs : RETURN_MS;
    else if (this.#opts.WebSocket && !this.#trials.size) this.#upgradeLater();
  }

  #upgradeLater() {
    if (!this.#told && this.#state.lastWsClose) {
      this.#told = true;
      log(
        "warn",
        `no WebSocket gets through to ${this.#access.wsUrl}: long-polling. The server's log says why, if ` +
          "it refused. A proxy must pass on Upgrade, and the browser's Host (Vite: ws, no changeOrigin)",
      );
    }
    this.#later("upgrade", this.#upgradeMs, () => this.#try("ws"));
    this.#upgradeMs = Math.min(this.#upgradeMs * 2, UPGRADE_CAP_MS);
  }

  /** A link ended by itself, or came to nothing. @param {Link} link @param {Cut} cut */
  #down(link, cut) {
    this.#step(() => this.#ended(link, cut));
  }

  /** @param {Link} link @param {Cut} cut */
  #ended(link, cut) {
    const trial = this.#trials.delete(link);
    if (!trial && link !== this.#link) return;
    const udt = Date.now();
    const { code = 0 } = cut;
    const ws = link.type === "ws";
    if (ws) this.#set({ lastWsClose: { udt, ...cut } });
    // Codes that a server says mean what they say. Any other end may be the fault of something
    // between that lets no WebSocket through, or none for long.
    const spoken = code >= 4000 || [1000, 1012, 1013].includes(code);
    const blocked = ws && this.#opts.type === "auto" && !spoken;
    let instead = blocked && !this.#failed; // of this, Ajax
    if (trial) {
      if (code === 4001) this.#upgradeMs = RETURN_MS; // by our own poll: WebSockets work
      if (this.#link) return this.#upgradeLater(); // the poll goes on, and nobody noticed
      if (this.#trials.size) {
        if (!ws) this.#failed = cut;
        return;
      }
      this.#downgraded = false; // neither worked, so nothing is known of WebSockets
      cut = this.#failed ?? cut;
    } else {
      const brief = udt - this.#openedAt < STABLE_MS;
      if (ws && !brief) this.#upgradeMs = RETURN_MS;
      if (ws) this.#brief = brief ? this.#brief + Number(blocked) : 0;
      instead &&= this.#brief >= BRIEF;
      if (instead) this.#upgradeMs = Math.max(this.#upgradeMs, UPGRADE_MS);
    }
    this.#drop();
    if (!instead) return this.#retry(cut);
    this.#set({ lastClose: { udt, reason: "downgrading-ws-to-ajax" } });
    this.#attempt("ajax");
  }

  /** @param {Cut} cut */
  #retry(cut) {
    const { code = 0, status, message, retryAfterMs } = cut;
    const udt = Date.now();
    const refused = status === 401 || status === 403;
    const renew = refused && !this.#renewed; // each attempt asks for credentials anew
    this.#renewed ||= refused;
    if (udt - this.#openedAt >= STABLE_MS) this.#tries = 0;
    this.#openedAt = NaN;
    // Where a switch of ours crossed a poll of ours, nobody else replaced us.
    const crossed = code === 4001 && udt - this.#switchedAt < STABLE_MS;
    const final = refused ? !renew && "refused" : !crossed && FINAL[code];
    this.#set({ lastClose: { udt, ...cut, ...(final && { reason: final }) } });
    if (final) {
      if (refused) log("error", final, message);
      return this.#rest(refused ? final : "closed");
    }
    if (code === 4003) this.#cursor = {};
    const renamed = status === 409 && !this.#opts.clientId; // somebody else has the id
    if (renamed) {
      this.clientId = randomText();
      this.#resume = undefined; // it was the old one's
    }
    const turn = this.#turn;
    const spread = Number(/spread=(\d+)/.exec(message ?? "")?.[1] ?? 2) * 1000;
    const ms =
      (renamed ? null : retryAfterMs) ??
      (renew ? 0 : code === 1012 ? Math.random() * spread : this.#backoff());
    if (turn !== this.#turn) return; // the application said what to do, from `backoff`
    this.#set({ status: "waiting", udtNextReconnect: udt + ms });
    this.#later("retry", ms, () => this.#attempt());
  }

  /** Milliseconds, as the application says. */
  #backoff() {
    const attempt = this.#tries++;
    try {
      const ms = this.#opts.backoff(attempt);
      if (ms >= 0) return ms;
      throw new TypeError(`must return milliseconds, not ${ms}`);
    } catch (error) {
      report(named("backoff", error));
      return expBackoff(attempt);
    }
  }

  // Links -------------------------------------------------------------------------------

  /** @returns {Link} */
  #webSocket() {
    const { WebSocket, wsKaliveMs } = this.#opts;
    const { csrf, auth, wsUrl } = this.#access;
    const packed = this.#packer.pack([[new Keyword("chsk/ws-ping")], PING]);
    const url = withQuery(wsUrl, this.#params({ cursor: this.#here() }));
    const protocols = ["chsk.v1", `secret.${this.#secret}`];
    if (this.#resume) protocols.push(`resume.${base64url(this.#resume)}`);
    if (csrf) protocols.push(`csrf.${base64url(csrf)}`);
    if (auth) protocols.push(`auth.${base64url(auth)}`);
    /** @type {any} */ let ws;
    /** @type {any} */ let timer;
    let heardAt = 0;
    let pinging = false;
    let reason = UNEXPECTED;

    const next = (/** @type {number} */ ms, /** @type {() => void} */ fn) => {
      clearTimeout(timer);
      timer = after(fn, ms);
    };
    const fail = (/** @type {Cut} */ cut) => {
      link.end(4000);
      this.#down(link, cut);
    };
    const ping = (/** @type {number} */ withinMs) => {
      pinging = true;
      link.send({ packed });
      next(withinMs, () => fail({ code: 4000, reason: "ws-ping-timeout" }));
    };
    // Where none has worked yet, Ajax is tried beside it after some silence.
    const beside = () => {
      if (this.#link || this.#opts.type !== "auto" || this.#works === "ws") return;
      this.#later("beside", BESIDE_MS, () => this.#trials.add(this.#polling()));
    };
    const failed = (/** @type {any} */ ev) => {
      reason = "ws-error";
      this.#set({ lastWsError: { udt: Date.now(), ev } });
    };
    /** @type {Link} */
    const link = {
      type: "ws",
      wants: 2, // the handshake, and a pong: that bytes pass both ways
      held: [],
      send: (item) => ws?.readyState === 1 && (ws.send(item.packed), true),
      probe(hard) {
        if (!pinging && (hard || Date.now() - heardAt > STABLE_MS)) ping(PROBE_MS);
      },
      end(code = 1000) {
        clearTimeout(timer);
        if (ws) ws.onmessage = ws.onerror = null;
        ws?.close(code);
      },
    };
    try {
      ws = new WebSocket(url, protocols);
      ws.binaryType = "arraybuffer";
      ws.onopen = () => {
        link.send({ packed });
        if (this.#timers.has("beside")) beside();
      };
      ws.onmessage = (/** @type {any} */ ev) => {
        this.#frame(link, ev.data);
        if (link.wants || link !== this.#link) return;
        heardAt = Date.now();
        pinging = false;
        next(wsKaliveMs, () => ping(PONG_MS));
      };
      ws.onerror = failed;
      ws.onclose = (/** @type {any} */ ev) => {
        clearTimeout(timer);
        if (ev.wasClean) reason = "clean";
        this.#down(link, { reason, code: ev.code, message: ev.reason });
      };
    } catch (error) {
      failed(error);
    }
    next(ws ? CONNECT_MS : 0, () => fail({ reason }));
    if (ws) beside();
    return link;
  }

  /** @returns {Link} */
  #polling() {
    const { binary, batch } = this.#packer;
    /** @type {Item[]} */ const queue = [];
    /** @type {AbortController} */ let poll;
    let ended = false;
    /** @type {Link} */
    const link = {
      type: "ajax",
      wants: 1, // the handshake
      held: [],
      send(item) {
        if (queue.length >= POST_QUEUE) return false;
        queue.push(item);
        if (!link.busy) leave();
        return true;
      },
      probe: (hard) => hard && poll.abort(),
      end() {
        ended = true;
        poll.abort();
      },
    };

    const run = async () => {
      while (!ended) {
        poll = new AbortController();
        // Without it, a server that has a WebSocket of ours leaves that alone.
        const beside = [...this.#trials].some((one) => one !== link);
        const shake = beside && !this.#state.everOpened ? null : link.wants || null;
        const { success, status, error, content, foreign, ...more } = await this.#http("get", {
          params: { cursor: this.#here(), n: ++this.#polls, "handshake?": shake },
          timeoutMs: Math.max(this.#opts.lpTimeoutMs, (this.#server["lp-timeout-ms"] ?? 0) + 5000),
          signal: poll.signal,
        });
        if (ended) return;
        if (foreign) {
          ended = true;
          const retryAfterMs = this.#warned ? FOREIGN_MS : undefined;
          const message = this.#isForeign(foreign);
          if (success) this.#deliver(["chsk/bad-package", content]);
          return this.#down(link, { reason: UNEXPECTED, message, retryAfterMs });
        }
        const said = success && this.#frame(link, content);
        if (said === TIMEOUT) await this.#sleep(EMPTY_MS);
        else if (success ? said === ERROR : error !== "abort") {
          ended = true;
          const message = String(content ?? error)
            .trim()
            .slice(0, 200);
          const { retryAfterMs } = more;
          this.#down(link, { reason: UNEXPECTED, status, message, retryAfterMs });
        }
      }
    };

    /** @type {Set<Promise<any>>} Posts under way. */ const posts = new Set();

    const leave = async () => {
      link.busy = true;
      await null; // what is sent in one go leaves in one batch
      for (let item; (item = queue.shift());) {
        if (!this.#wanted(item)) continue;
        const some = [item.packed];
        let chars = item.packed.length;
        while (
          batch &&
          !item.id &&
          queue.length &&
          !queue[0].id &&
          some.length < Math.min(BATCH_EVENTS, this.#server["max-batch"] ?? BATCH_EVENTS) &&
          (chars += queue[0].packed.length) < BATCH_CHARS
        ) {
          some.push(/** @type {Item} */ (queue.shift()).packed);
        }
        if (some.length > 1) item.packed = batch(some);
        // Its reply may take long: later events wait for the head of the answer, which comes when
        // it was handled. Another server than ours has no such head.
        await new Promise((/** @type {any} */ go) => {
          const one = post(item, go);
          posts.add(one);
          one.then(() => posts.delete(one)).then(go);
          if (item.id && !this.#server.cursor) go();
        });
        if (posts.size >= POSTS) await Promise.race(posts);
      }
      link.busy = false;
    };

    const post = async (/** @type {Item} */ item, /** @type {() => void} */ go) => {
      const { id, packed, timeoutMs } = item;
      const call = {
        // A browser may itself send again what a broken connection took: the number tells.
        params: { n: ++this.#posts, ...(binary ? { "binary?": true } : { ppstr: packed }) },
        body: binary ? packed : undefined,
        timeoutMs: id ? timeoutMs : this.#opts.lpTimeoutMs,
        signal: id ? this.#gone.signal : undefined, // for a reply that nobody waits for
        go,
      };
      for (let tries = 1; this.#wanted(item); tries++) {
        const { success, status, error, content, foreign, ...more } = await this.#http("post", call);
        if (foreign) {
          return this.#reply(item, ERROR, { status, message: this.#isForeign(foreign) });
        }
        if (success) {
          const [reply, , details] = this.#unpack(content);
          return this.#reply(item, reply, details);
        }
        // These were not looked at, so they may be said again.
        if (/40[13]/.test(status) && tries < 2) await this.#ask();
        else if (/429|503/.test(status) && tries < POST_TRIES && !this.#gone.signal.aborted) {
          await this.#sleep(more.retryAfterMs ?? 1000);
        } else {
          log("warn", "a post failed:", content ?? error);
          const reply = status ? ERROR : error === "timeout" ? TIMEOUT : CLOSED;
          return this.#reply(item, reply, { status, message: content?.trim() });
        }
      }
    };

    run();
    return link;
  }

  // Frames ------------------------------------------------------------------------------

  /** @param {any} data @returns {any[]} */
  #unpack(data) {
    try {
      const frame = this.#packer.unpack(data);
      if (Array.isArray(frame)) return frame;
      throw new SyntaxError("not [value cb]");
    } catch (error) {
      report(error);
      this.#deliver(["chsk/bad-package", data]);
      return [ERROR];
    }
  }

  /** One message from a link; returns its value, for those that are one word.
   * @param {Link} link @param {any} data */
  #frame(link, data) {
    const frame = this.#unpack(data);
    const [value, cb] = frame;
    const bytes = data.length ?? data.byteLength;
    if (!this.#trials.has(link)) this.#receive(link, frame, bytes);
    else {
      // What an untrusted link says counts only when it is trusted: if it fails, the next one
      // begins at the same cursor, and nothing is lost or doubled.
      link.held.push([frame, bytes]);
      const ids = eventsOf(value).map((event) => plain(event?.[0]));
      if (cb === PING || /chsk\/(handshake|close)/.test(String(ids))) {
        if (!--link.wants) {
          this.#adopt(link);
          for (const [frame, bytes] of link.held.splice(0)) this.#receive(link, frame, bytes);
        }
      }
    }
    return plain(value);
  }

  /** @param {Link} link @param {any[]} frame @param {number} bytes */
  #receive(link, [value, cb, third], bytes) {
    if (link !== this.#link) return; // a handler, or the server, has closed it
    const events = cb == null ? eventsOf(value) : [];
    const { epoch, offsets } = cursorOf(third);
    // A frame without events tells how far there is nothing more.
    if (!events.length && epoch === this.#cursor.epoch) this.#passes(epoch, offsets[0]);
    if (cb != null) return this.#reply(this.#pending.get(cb), value, third);
    if (plain(value) === "chsk/ws-ping") {
      this.#say(["chsk/ws-pong"]);
      this.#deliver(["chsk/ws-ping"]);
    }
    events.forEach((event, i) => {
      if (link !== this.#link) return;
      if (i in offsets && !this.#passes(epoch, offsets[i])) return;
      // Odd data shall not end a link.
      guarded(() => this.#step(() => this.#event(link, event, bytes / events.length)));
    });
  }

  /** Move the cursor; whether that is onwards. @param {any} epoch @param {number} offset */
  #passes(epoch, offset) {
    const here = this.#cursor;
    if (epoch === here.epoch && offset <= /** @type {number} */ (here.offset)) return false;
    this.#cursor = { epoch, offset };
    return true;
  }

  /** @param {Link} link @param {any[]} event @param {number} bytes */
  #event(link, event, bytes) {
    const [id, data] = event;
    // Ids of ours; all else is the application's.
    switch (plain(id)) {
      case "chsk/handshake":
        return this.#handshake(link, data);
      case "chsk/close": // over a link that has no close frames
        link.end();
        return this.#down(link, { code: 1000, ...data, reason: "clean", message: data?.reason });
      case "chsk/ask":
        return this.#call(() => this.#answer(data));
    }
    this.#deliver(asEvent(event), true, bytes);
  }

  /** @param {Link} link @param {any} data */
  #handshake(link, [uid, csrf, handshakeData = null, server]) {
    const { everOpened, open } = this.#state;
    const { cursor, resume, recovered } = (this.#server = server ?? {});
    this.#resume = resume ?? this.#resume;
    // Where it is recovered, what was missed is still to come, above our own cursor.
    if (cursor && !recovered) {
      const { epoch, offsets } = cursorOf(cursor);
      if (epoch !== this.#cursor.epoch) {
        // Another server: what the last one was asked, it will not answer.
        for (const item of this.#pending.values()) if (item.via) this.#reply(item, CLOSED);
      }
      this.#cursor = { epoch, offset: offsets[0] };
    }
    this.#uid = plain(uid) === "sente/nil-uid" ? null : uid;
    this.#set({
      status: "open",
      type: link.type,
      everOpened: true,
      firstOpen: !everOpened,
      uid: this.#uid,
      csrfToken: (this.#access.csrf ??= csrf),
      handshakeData,
    });
    this.#deliver(["chsk/handshake", [this.#state.uid, csrf, handshakeData]]);
    if (recovered === false) this.#deliver(["chsk/gap"], true);
    if (open) return;
    for (const item of this.#offline.splice(0)) {
      if (item.uid === undefined || item.uid === this.#uid) this.#transmit(item);
      else {
        log("warn", "the user changed: a message that waited for the connection was dropped");
        this.#reply(item, CLOSED, { message: "the user changed" });
      }
    }
  }

  /** @param {any} ask */
  async #answer([id, event]) {
    const name = plain(event[0]);
    const [fn] = this.#handlers.get(name) ?? this.#handlers.get("*") ?? [];
    try {
      if (!fn) throw new Error(`no handler for ${name}`);
      this.#say(["chsk/answer", [id, await fn(message([name, event[1]]))]]);
    } catch (error) {
      report(error);
      this.#say(["chsk/answer", [id, null, String(error)]]);
    }
  }

  /** To the handlers of its id, else of "*", else into `chRecv`.
   * @param {any[]} event @param {boolean} [pushed] @param {number} [bytes] */
  #deliver([key, ...data], pushed, bytes) {
    const id = plain(key);
    const event = [id, ...data];
    this.#call(() => {
      const fns = this.#handlers.get(id) ?? this.#handlers.get("*");
      if (fns) for (const fn of fns) guarded(() => fn(message(event)));
      else {
        const wrapped = pushed && this.#opts.wrapRecv ? ["chsk/recv", event] : event;
        this.chRecv.put(message(wrapped), bytes);
      }
    });
  }

  // Sending -----------------------------------------------------------------------------

  /** @param {any} event @param {string | null} [cb] */
  #pack([id, ...data], cb = null) {
    const limit = this.#server["max-bytes"];
    let packed;
    try {
      packed = this.#packer.pack([[new Keyword(plain(id)), ...data], cb]);
    } catch (error) {
      if (error instanceof PackError) error.message = error.message.replace("value[0][1]", "data");
      throw error;
    }
    // A character is up to three bytes: count only what could be too much.
    if (packed.length * 3 > limit && new Blob([packed]).size > limit) {
      throw new PackError(`data: over the ${limit} bytes that the server takes`);
    }
    return packed;
  }

  /** What no reply is expected to. @param {any[]} event */
  #say(event) {
    this.#transmit({ packed: this.#pack(event) });
  }

  /** @param {Item} item */
  #transmit(item) {
    // What was given to the link before arrives before what is sent now.
    item.via = this.#last?.busy ? this.#last : this.#link;
    if (item.via?.send(item)) return true;
    if (item.via?.type === "ws" && item.waits && this.#queue(item)) {
      item.via = null; // that one is closing, and the next may take it
      return true;
    }
    this.#reply(item, CLOSED);
    return false;
  }

  /** @param {Item | undefined} item @param {any} reply @param {any} [details] */
  #reply(item, reply, details) {
    if (!item?.id || !this.#pending.delete(item.id)) return;
    clearTimeout(item.timer);
    const at = this.#offline.indexOf(item);
    if (at >= 0) this.#offline.splice(at, 1);
    this.#call(() => item.cb(reply, details));
  }

  /** Whether it has no reply yet, or expects none: a request that was rejected is not sent.
   * @param {Item} item */
  #wanted({ id }) {
    return !id || this.#pending.has(id);
  }

  // Circumstances -----------------------------------------------------------------------

  #here() {
    const { epoch, offset } = this.#cursor;
    return epoch ? `${epoch}:${offset}` : null;
  }

  /** @param {any} [more] */
  #params(more) {
    return {
      ...this.#opts.params,
      "client-id": this.clientId,
      udt: Date.now(),
      packer: this.#packer.name,
      v: 1,
      ...more,
    };
  }

  /** @param {string} method @param {any} more */
  #http(method, more) {
    const { ajaxOpts, headers, fetch } = this.#opts;
    const { csrf, auth, url } = this.#access;
    return http(fetch, url, {
      ...ajaxOpts,
      ...more,
      method,
      params: this.#params(more.params),
      headers: {
        ...headers,
        // What opens something travels in headers: URLs stand in logs and histories.
        "X-Chsk-Secret": this.#secret,
        ...(this.#resume && { "X-Chsk-Resume": this.#resume }),
        ...(csrf && { "X-CSRF-Token": csrf }),
        ...(auth && { Authorization: `Bearer ${auth}` }),
        ...(more.body && { "Content-Type": "application/octet-stream" }),
      },
      respType: this.#packer.binary ? "binary" : "text",
    });
  }

  /** Something else than a channel socket answered: say so once. @param {string} what */
  #isForeign(what) {
    const message = `${this.#path} is answered by ${what}: exempt it from what redirects to a login`;
    if (!this.#warned) log("error", `${message}, or look at what stands between`);
    this.#warned = true;
    return message;
  }

  /** Ask the page, or the application, where to go with which tokens; what went wrong. */
  async #ask() {
    const { csrfToken = meta()?.csrfToken, auth: bearer, chskUrl, location } = this.#opts;
    const url = (/** @type {boolean} */ websocket) => () =>
      chskUrl(this.#path, location, websocket);
    this.#asking = true;
    const asked = Promise.all([
      this.#option("csrfToken", csrfToken, assertToken),
      this.#option("auth", bearer, assertToken),
      this.#option("chskUrl", url(true), assertUrl),
      this.#option("chskUrl", url(false), assertUrl),
    ]);
    this.#asking = false;
    try {
      const [csrf, auth, wsUrl, url] = await asked;
      this.#access = { csrf, auth, wsUrl, url };
    } catch (error) {
      report(error);
      return /** @type {Error} */ (error).message;
    }
  }

  /** What an option says, or its function, in time.
   * @param {string} name @param {any} said @param {(said: any) => any} check */
  async #option(name, said, check) {
    const timer = {};
    const late = new Promise((_, reject) =>
      this.#later(timer, ASK_MS, () => reject(new Error(`nothing within ${ASK_MS / 1000} s`))),
    );
    try {
      return check(await Promise.race([typeof said === "function" ? said() : said, late]));
    } catch (error) {
      throw named(name, error);
    } finally {
      this.#stop(timer);
    }
  }

  /** @param {any} patch */
  #set(patch) {
    const old = this.#state;
    if (Object.keys(patch).every((name) => patch[name] === old[name])) return;
    const now = { ...old, ...patch };
    now.open = now.status === "open";
    this.#state = Object.freeze(now);
    for (const fn of this.#watchers) this.#call(() => this.#watchers.has(fn) && fn(old, now));
    this.#deliver(["chsk/state", now]);
  }

  // Users' functions --------------------------------------------------------------------
  //
  // They may call anything of this object. So none runs in the midst of a step: it is called when
  // the outermost step is done, after those that were to be called before.

  /** @template T @param {() => T} fn */
  #step(fn) {
    this.#steps++;
    try {
      return fn();
    } finally {
      this.#steps--;
      this.#callAll();
    }
  }

  /** Call a user's function as soon as no step is under way. @param {() => any} fn */
  #call(fn) {
    this.#calls.push(fn);
    this.#callAll();
  }

  #callAll() {
    while (!this.#steps && this.#calls.length) {
      guarded(/** @type {() => any} */ (this.#calls.shift()));
    }
  }

  /** @param {any} name @param {number} ms @param {() => void} fn */
  #later(name, ms, fn) {
    this.#stop(name);
    const run = () => {
      this.#timers.delete(name);
      this.#step(fn);
    };
    this.#timers.set(name, after(run, ms));
  }

  /** @param {any} name */
  #stop(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }

  /** @param {number} ms @returns {Promise<void>} */
  #sleep(ms) {
    return new Promise((wake) => this.#later(wake, ms, wake));
  }

  /** Notice when to wait no longer, and when silence may mean that the machine slept. */
  #listen() {
    const tick = () => {
      const due = Date.now() + TICK_MS;
      this.#later("tick", TICK_MS, () => {
        tick();
        if (Date.now() - due > TICK_MS) this.#wake(true);
      });
    };
    tick();
    this.#awake.abort();
    const { signal } = (this.#awake = new AbortController());
    const { document } = globalThis;
    /** @param {any} target @param {string} name @param {() => void} fn */
    const add = (target, name, fn) => 
      target?.addEventListener?.(name, () => this.#step(fn), { signal });
    const look = () => document?.hidden || this.#wake(false);
    add(globalThis, "online", () => this.#wake(true));
    add(globalThis, "offline", () => {
      if (this.#link) this.#retry(this.#leave("offline"));
    });
    // A page with an open connection is not kept for the way back to it.
    add(globalThis, "pagehide", () => {
      const lastClose = this.#leave("pagehide");
      this.#set({ status: "waiting", lastClose, udtNextReconnect: null });
    });
    add(globalThis, "pageshow", look);
    add(globalThis, "focus", look);
    add(document, "visibilitychange", look);
  }

  /** Nothing passes for now: close so that the server still expects this client.
   * @param {string} reason */
  #leave(reason) {
    this.#link?.end(LEFT);
    this.#drop();
    return { udt: Date.now(), reason };
  }

  /** @param {boolean} hard whether what is open may be dead */
  #wake(hard) {
    const { status, lastClose } = this.#state;
    // A wait that the server asked for is cut short only where the network is another.
    if (status === "waiting" && (hard || !lastClose.retryAfterMs)) this.#attempt();
    this.#link?.probe(hard);
  }
}

// Small things ---------------------------------------------------------------------------

/** @param {any} event */
const message = (event) => ({ id: event[0], data: event[1], event });

/** The events in a frame's value: a vector of them, or one. @param {any} value @returns {any[][]} */
const eventsOf = (value) =>
  !Array.isArray(value) || !value.length ? [] : Array.isArray(value[0]) ? value : [value];

/** `"e7f3:1042,+1,+7"` as its epoch and offsets.
 * @param {any} text @returns {{epoch?: string, offsets: number[]}} */
function cursorOf(text) {
  const [, epoch, list] = /^([^:]+):(\d+(?:,\+\d+)*)$/.exec(text) ?? [];
  let at = 0;
  return { epoch, offsets: list ? list.split(",").map((step) => (at += Number(step))) : [] };
}

/** What the page's `<meta name="chsk">` says. @returns {any} */
const meta = () =>
  /** @type {any} */ (globalThis.document)?.querySelector('meta[name="chsk"]')?.dataset;

/** The transport that worked last for this path in this tab, of late. @param {string} path
 * @param {string} [type] to be remembered @returns {string | undefined} */
function remembered(path, type) {
  const key = `chsk ${path}`;
  try {
    const { sessionStorage } = globalThis;
    if (type) sessionStorage.setItem(key, `${type} ${Date.now()}`);
    const [was, at] = sessionStorage.getItem(key)?.split(" ") ?? [];
    if (Date.now() - Number(at) < UPGRADE_CAP_MS) return was;
  } catch {
    // There is none, or the page may not use it.
  }
}

/** 128 random bits in base64url. */
function randomText() {
  const { crypto } = globalThis;
  if (!crypto) throw new Error("globalThis.crypto is missing (Node has it from 20 on)");
  return base64url(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(16))));
}

/** @param {string} text */
const base64url = (text) =>
  btoa(text).replace(/[+/=]/g, (c) => (c === "+" ? "-" : c === "/" ? "_" : ""));

// The seed's functions -------------------------------------------------------------------

/** The seed's map of parts. @param {string} [path] @param {any} [opts]
 * @param {any} [moreOpts] deprecated: give all in one */
export function makeChannelSocket(path, opts, moreOpts) {
  if (moreOpts) log("warn", "give all options in one object");
  const { clientUuid, lpKaliveMs, ...given } = { ...opts, ...moreOpts };
  if (clientUuid) given.clientId ??= clientUuid;
  if (lpKaliveMs) given.lpTimeoutMs ??= lpKaliveMs;
  const chsk = new ChannelSocket(path, given);
  return {
    chsk,
    chRecv: chsk.chRecv,
    sendFn: (/** @type {any} */ event, /** @type {[any?, any?]} */ ...args) => chskSend(chsk, event, ...args),
    get state() {
      return chsk.state;
    },
  };
}

/** As `chsk.send`; `cb` may also be a RecvChannel, which gets `["ev/id.cb", reply]`.
 * @param {ChannelSocket} chsk @param {any} event @param {any} [a] @param {any} [b] */
export function chskSend(chsk, event, a, b) {
  const { cb, ...opts } = typeof a === "object" && a ? a : { timeoutMs: a, cb: b };
  if (!(cb instanceof RecvChannel)) return chsk.send(event, { ...opts, cb });
  return chsk.send(event, {
    ...opts,
    cb: (/** @type {any} */ reply) => cb.put([`${plain(event[0])}.cb`, reply]),
  });
}
/** @param {ChannelSocket} chsk */
export const chskReconnect = (chsk) => chsk.reconnect();
/** @param {ChannelSocket} chsk */
export const chskDestroy = (chsk) => chsk.destroy();
