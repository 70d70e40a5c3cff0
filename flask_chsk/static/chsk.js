// @ts-check
/**
 * The browser's end of flask_chsk: one event channel over a WebSocket where one works, and over
 * long-polling elsewhere (docs/protocol.rst).
 *
 * ChannelSocket decides: which transport to use, when to connect again, which events are new,
 * which reply belongs to which request. webSocketLink and ajaxLink carry messages. A link knows
 * only its Owner and looks the same for both transports.
 *
 * This module stores no event beyond the page, sends none twice, and delivers none twice.
 */

import { Keyword, PackError, Tagged, edn, ednPacker, isName, json } from "./edn.js";

export { Keyword, PackError, Tagged, edn, ednPacker, json };

const CREDENTIALS_MS = 10_000; // for csrfToken, auth and chskUrl to answer
const BATCH_EVENTS = 64; // half of what the server queues for the handlers of one client
const BATCH_CHARS = 65_536;
const PARALLEL_MS = 1_000; // of silence of a new WebSocket: then Ajax is tried in parallel
const SHORT_LIVED = 2; // WebSockets in a row that were cut within STABLE_MS: then Ajax for a while
const CONNECT_MS = 5_000; // of silence, until a new WebSocket has proved to work both ways
// After an empty poll: perhaps the server ended it because a new WebSocket took over.
const EMPTY_MS = 250;
const HURRY_MS = 1_000; // between two waits that connect() ends
const LEFT = 3002; // our close code for a page that is hidden or offline, and may come back
const FOREIGN_MS = 15_000; // until the next try where a login page answers: it will not go soon
const LONGEST_MS = 2 ** 31 - 1; // of a timer: a longer one, and Infinity, fires at once
const PING = "ping"; // the callback id of keep-alives; those of sends are c1, c2, …
const PONG_MS = 10_000;
const POSTS = 3; // at a time: with the poll, this leaves two of the six connections of HTTP/1.1
const POST_QUEUE = 1000; // events; a server that is so far behind is as good as closed
const POST_TRIES = 5; // where the server answers 429 or 503
const PROBE_MS = 3_000; // for a pong when the user looks at the page
const REQUESTS = 1000; // that wait for the connection
const RETRY_AFTER_S = 60; // the most that a server's Retry-After counts
const RECV_BYTES = 4_194_304; // that chRecv keeps: as much as the server keeps for a client
const SLACK_MS = 5_000; // that a poll may take longer than the server lets it wait
const STABLE_MS = 5_000;
const TICK_MS = 5_000;
const UPGRADE_MS = 30_000; // from Ajax to the next try of a WebSocket; doubles up to the cap
const UPGRADE_CAP_MS = 600_000;
// The first wait where WebSockets have worked: a cut led to Ajax, not something that blocks them.
const UPGRADE_SOON_MS = 2_000;

const CLOSED = "chsk/closed";
const ERROR = "chsk/error";
const TIMEOUT = "chsk/timeout";
const UNEXPECTED = "unexpected";

/** Close codes after which the socket stays closed, and the reason that the state then shows:
 * docs/protocol.rst, "Close codes".
 * @type {Record<number, string>} */
const FINAL = { 1000: "clean", 4001: "replaced", 4005: "signed-out" };

/**
 * How a link ended.
 * @typedef {object} LinkClosed
 * @property {string} reason by its name: docs/protocol.rst, "The state of a client"
 * @property {number} [code] of a WebSocket's close
 * @property {number | null} [status] of an HTTP answer
 * @property {string} [message] the peer's text
 * @property {number} [retryAfterMs] as the server asked
 */

/**
 * A message on its way.
 * @typedef {object} Outgoing
 * @property {any} packed
 * @property {string | null} [id] of its callback; without one it gets no reply
 * @property {any} [cb]
 * @property {number} [timeoutMs] for the reply
 * @property {any} [timer]
 * @property {Link | null} [via] the link that took it
 * @property {number} [number] shown by a POST, which a browser may repeat after a broken connection
 * @property {boolean} [waits] it may wait for the connection
 * @property {any} [uid] the user who sent it while there was no connection, if known
 */

/**
 * A transport, in use or on trial.
 * @typedef {object} Link
 * @property {"ws" | "ajax"} type
 * @property {number} awaited what must come until it is trusted: the handshake, and the pong of a
 *   WebSocket
 * @property {boolean} [busy] messages that it took are still leaving
 * @property {() => void} start
 * @property {(item: Outgoing) => boolean} send whether it takes the message
 * @property {(hard: boolean) => void} probe whether the peer is there; `hard`: it may be gone
 * @property {(code?: number) => void} end
 */

/**
 * What the links know of their channel socket, and tell it.
 * @typedef {object} Owner
 * @property {(link: Link) => "trial" | "open" | "ended"} state "trial": not trusted yet; "ended":
 *   replaced or closed
 * @property {(link: Link, data: any) => any} received a message came; returns its value
 * @property {(link: Link, how: LinkClosed, ev?: any) => void} closed the link ended by itself
 * @property {() => void} opening a WebSocket begins, or was accepted
 * @property {() => {url: string, protocols: string[]}} upgrade what opens a WebSocket
 * @property {(link: Link, signal: AbortSignal) => Promise<any>} poll the answer to a new GET
 * @property {(item: Outgoing, handled: () => void) => Promise<any>} post the answer to a POST;
 *   `handled` is called at its head
 * @property {(item: Outgoing, answer: any) => void} posted this answer to a POST is the last
 * @property {(item: Outgoing) => boolean} wanted somebody waits for its reply, or nobody ever did
 * @property {() => Promise<any>} renew ask for credentials anew
 * @property {Steps} steps
 * @property {any} server what the server said of itself
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

/** The name of a keyword that was read as an object; any other value itself. @param {any} x */
const plain = (x) => (x instanceof Keyword ? x.name : x);

/** Whether `x` is `[id]` or `[id, data]` with a namespaced id. @param {any} x */
export const isEvent = (x) =>
  Array.isArray(x) && x.length < 3 && isName(plain(x[0]), true);

/** `x`, or `["chsk/bad-event", x]` where it is no event. @param {any} x */
export const asEvent = (x) => (isEvent(x) ? x : ["chsk/bad-event", x]);

/** `x`; throws a BadEvent where it is no event. @param {any} x */
export function assertEvent(x) {
  if (isEvent(x)) return x;
  throw new ChskError("BadEvent", `an event is ["ns/name", data], not ${String(x)}`);
}

/** Throw where `token` cannot travel in a header. @param {any} token */
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

/** Throw where `opts` has a name that `known` has not: the names most like it are told first.
 * @param {any} opts @param {any} known */
function assertKnown(opts, known) {
  for (const name in opts) {
    const likeness = (/** @type {string} */ one) =>
      [...one].filter((_, i) => name.includes(one.slice(i, i + 3))).length;
    const names = Object.keys(known).sort((a, b) => likeness(b) - likeness(a));
    if (!names.includes(name)) throw named(name, `not one of ${names}`);
  }
}

/** Throw a TypeError that names an option whose value is wrong. @param {any} opts */
function assertOptions(opts) {
  const atLeast = (/** @type {number} */ least) => (/** @type {any} */ x) =>
    typeof x === "number" && x >= least;
  const callable = (/** @type {any} */ x) => typeof x === "function";
  /** @type {[string, string, (x: any) => any][]} */
  const wanted = [
    ["type", '"auto", "ws" or "ajax"', (x) => ["auto", "ws", "ajax"].includes(x)],
    ["packer", '"edn", "json" or a packer', (x) => x === "edn" || x === "json" || x?.unpack],
    ["clientId", "1 to 64 of A-Za-z0-9_-", (x) => x == null || /^[\w-]{1,64}$/.test(x)],
    ["wsKaliveMs", "milliseconds", atLeast(1)],
    ["lpTimeoutMs", "milliseconds", atLeast(1)],
    ["recvBuf", "a number", atLeast(1)],
    ["offlineQueue", "a number", atLeast(0)],
    ["backoff", "a function", callable],
    ["chskUrl", "a function", callable],
  ];
  for (const [name, what, holds] of wanted) {
    if (!holds(opts[name])) throw named(name, `${what}, not ${opts[name]}`);
  }
  for (const name of ["csrfToken", "auth"]) {
    try {
      if (!callable(opts[name]?.then ?? opts[name])) assertToken(opts[name]);
    } catch (error) {
      throw named(name, error);
    }
  }
}

/** `error` with the name of the option that it concerns. @param {string} name @param {any} error */
const named = (name, error) => new TypeError(`${name}: ${error?.message ?? error}`);

/** Whether `x` is what `chRecv` gives. @param {any} x */
export const isEventMsg = (x) => isEvent(x?.event);

/** Whether a reply is the server's: not chsk/closed, chsk/timeout or chsk/error.
 * @param {any} reply */
export const cbSuccess = (reply) => ![CLOSED, TIMEOUT, ERROR].includes(plain(reply));

/** Whether a reply is one of these three. @param {any} reply */
export const cbError = (reply) => !cbSuccess(reply);

/** Milliseconds to wait before try number `attempt` (from 0): exponential, at most 5 s for the
 * first four minutes or so, then at most 30 s. With full jitter, so that many clients do not come
 * back at once.
 * @param {number} attempt */
export const expBackoff = (attempt) =>
  Math.random() * Math.min(attempt < 100 ? 5_000 : 30_000, 500 * 2 ** attempt);

/** Call `fn` after the backoff of this attempt; returns the undo. @param {() => void} fn */
export function setExpBackoffTimeout(fn, attempt = 0) {
  const timer = setTimeout(fn, expBackoff(attempt));
  return () => clearTimeout(timer);
}

/** @param {() => void} fn @param {number} ms */
const after = (fn, ms) => setTimeout(fn, Math.min(ms, LONGEST_MS));

/** The URL of the server: `path`, relative to the page or a whole URL.
 * @param {string} path @param {any} location @param {boolean} [websocket] */
export function defaultChskUrl(path, location, websocket) {
  const { href } = new URL(path, location?.href);
  return websocket ? href.replace("http", "ws") : href;
}

const LEVELS = ["trace", "debug", "info", "warn", "error", "silent"];
let level = 3;

/** Log to the console from this level on. @param {string} name one of LEVELS */
export function setLoggingLevel(name) {
  level = LEVELS.indexOf(name);
}

/** @param {"debug" | "warn" | "error"} name @param {...any} what */
function log(name, ...what) {
  if (LEVELS.indexOf(name) >= level) console[name]("chsk:", ...what);
}

/** @param {any} error */
const report = (error) => log("error", error);

/** Call a user's function; an error that it throws, or its promise rejects with, is told.
 * @template T @param {() => T} fn @param {(error: any) => void} [tell] */
async function guarded(fn, tell = report) {
  try {
    return await fn();
  } catch (error) {
    tell(error);
  }
}

/** A promise that `signal` may reject. `begin` returns what is done in the end.
 * @param {AbortSignal | undefined} signal
 * @param {(resolve: (value: any) => void, reject: (reason: any) => void) => () => void} begin */
async function abortable(signal, begin) {
  signal?.throwIfAborted();
  /** @type {any} */ let abort;
  /** @type {any} */ let end;
  try {
    return await new Promise((resolve, reject) => {
      end = begin(resolve, reject);
      abort = () => reject(signal?.reason);
      signal?.addEventListener("abort", abort);
    });
  } finally {
    signal?.removeEventListener("abort", abort);
    end?.();
  }
}

/** `undo`, which `signal` calls, too. @param {AbortSignal | undefined} signal @param {() => void} undo */
function until(signal, undo) {
  if (signal?.aborted) undo();
  else signal?.addEventListener("abort", undo, { once: true });
  return undo;
}

// Receiving ------------------------------------------------------------------------------

/** A buffer of event-msgs. When it is full it drops the oldest, and counts these. */
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

  /** @param {any} item @param {number} [bytes] of the message that brought it */
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

  /** All items, until it is closed and empty, `going()` is false or `signal` says so.
   * @param {() => boolean} [going] @param {AbortSignal} [signal] */
  async *items(going = () => true, signal) {
    const wake = () => this.#wake();
    signal?.addEventListener("abort", wake);
    try {
      while (going() && !signal?.aborted) {
        if (this.#items.length) yield this.#shift();
        else if (this.#ended) return;
        else await new Promise((wake) => this.#waiting.push(wake));
      }
    } finally {
      signal?.removeEventListener("abort", wake);
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

/** Call `handler` with each event-msg of `chRecv`, one after another; returns a
 * function that stops this.
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

/** Deprecated: startChskRouter with its arguments in reverse; `handler` gets the event.
 * @param {(event: any, chRecv: RecvChannel) => any} handler @param {RecvChannel} chRecv */
export function startChskRouterLoop(handler, chRecv) {
  log("warn", "use startChskRouter(chRecv, handler)");
  return startChskRouter(chRecv, (ev) => handler(ev.event, chRecv));
}

// HTTP -----------------------------------------------------------------------------------

/** @param {Record<string, any>} [params] null and undefined are left out */
function query(params = {}) {
  return new URLSearchParams(Object.entries(params).filter(([, v]) => v != null));
}

/** @param {string} url @param {Record<string, any>} [params] */
function withQuery(url, params) {
  const text = query(params).toString();
  return text ? url + (url.includes("?") ? "&" : "?") + text : url;
}

/** One request. It never throws: the response map says what happened.
 * @param {any} fetch @param {string} url @param {any} opts */
async function http(fetch, url, { method = "get", params, headers, body, signal, ...opts }) {
  const abort = new AbortController();
  const cut = () => abort.abort("abort");
  const timer = after(() => abort.abort("timeout"), opts.timeoutMs ?? 60_000);
  signal?.addEventListener("abort", cut);
  /** @type {any} */
  const res = { success: false, status: null, error: null, content: null };
  try {
    const form = !body && /post/i.test(method);
    const answer = await fetch(form ? url : withQuery(url, params), {
      method,
      headers,
      body: form ? query(params) : body,
      credentials: opts.withCredentials ? "include" : "same-origin",
      signal: abort.signal,
    });
    if (answer.ok) opts.handled?.();
    res.status = answer.status;
    if (!answer.ok) res.error = answer.status;
    res.contentType = answer.headers.get("content-type");
    const seconds = Math.max(0, parseInt(answer.headers.get("retry-after")));
    res.retryAfterMs = Math.min(seconds, RETRY_AFTER_S) * 1000 || undefined;
    res.content = await (answer.ok && opts.binary ? answer.arrayBuffer() : answer.text());
    if (answer.ok) opts.read?.(res);
    res.success = answer.ok;
    // A login page, a captive portal or a proxy's own page: not the answer of a channel socket.
    const html = /html/.test(res.contentType);
    if (answer.redirected ? html || !answer.ok : answer.ok && html) {
      const [where] = answer.url.split("?");
      res.foreign = answer.redirected ? `a redirect to ${where}` : "a page of HTML";
    }
  } catch (error) {
    res.error = abort.signal.reason ?? "exception";
  }
  clearTimeout(timer);
  signal?.removeEventListener("abort", cut);
  return res;
}

/** A small Ajax call. `callback` gets `{success, status, error, content, contentType}`; `error` is
 * null, a status, or "timeout", "abort", "http-error" (no answer), "no-content" (an empty answer)
 * or "exception" (an answer that cannot be read). Returns `{abort()}`.
 * @param {string} url @param {any} opts @param {(resp: any) => void} callback */
export function ajaxCall(url, opts, callback) {
  const abort = new AbortController();
  /** @param {any} res */
  const read = (res) => {
    const known = /^text|^binary|edn|json|$/.exec(opts.respType + res.contentType);
    const packer = /** @type {any} */ ({ edn, json })[/** @type {any} */ (known)[0]];
    if (packer) res.content = packer.unpack(res.content);
  };
  http(opts.fetch ?? fetch, url, { ...opts, binary: opts.respType === "binary", read, signal: abort.signal }).then((res) => {
    const { status, content } = res;
    if (!status && res.error === "exception") res.error = "http-error";
    if ((content === "" || content?.byteLength === 0) && status < 300 && status !== 204) {
      Object.assign(res, { success: false, error: "no-content", content: null });
    }
    guarded(() => callback(res));
  });
  return abort;
}

// Steps and timers -----------------------------------------------------------------------

/**
 * The order in which the code of one channel socket runs. A user's function may call any method,
 * so none is called during a step: it is called when the outermost step is done, after the
 * functions that were due before. A timer runs a step.
 */
class Steps {
  #depth = 0;
  #ended = false;
  /** @type {(() => any)[]} Calls of users' functions that wait for the end of a step. */
  #calls = [];
  /** @type {Map<any, any>} */ #timers = new Map();
  #tell;

  /** @param {(error: any) => void} tell what a user's function throws */
  constructor(tell) {
    this.#tell = tell;
  }

  /** @template T @param {() => T} [fn] @returns {any} */
  run(fn) {
    this.#depth++;
    try {
      return fn?.();
    } finally {
      this.#depth--;
      while (!this.#depth && this.#calls.length) {
        guarded(/** @type {() => any} */ (this.#calls.shift()), this.#tell);
      }
    }
  }

  /** Call a user's function as soon as no step is under way. @param {() => any} fn */
  call(fn) {
    this.#calls.push(fn);
    this.run();
  }

  /** Start a timer, in place of the one of this name.
   * @param {any} name @param {number} ms @param {() => void} fn */
  later(name, ms, fn) {
    this.stop(name);
    if (this.#ended) return;
    const run = () => {
      this.#timers.delete(name);
      this.run(fn);
    };
    this.#timers.set(name, after(run, ms));
  }

  /** @param {number} ms @returns {Promise<void>} */
  sleep(ms) {
    return new Promise((wake) => this.later(wake, ms, wake));
  }

  /** @param {any} name */
  stop(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }

  /** Stop all timers. @param {boolean} ended whether none starts any more */
  stopAll(ended) {
    for (const name of this.#timers.keys()) this.stop(name);
    this.#ended = ended;
  }
}

// Links ----------------------------------------------------------------------------------

/** @param {Owner} owner @param {any} packer @param {any} opts @returns {Link} */
function webSocketLink(owner, packer, { WebSocket, wsKaliveMs }) {
  const packed = packer.pack([[new Keyword("chsk/ws-ping")], PING]);
  /** @type {any} */ let ws;
  /** @type {any} What the browser says of an error. */ let error;
  let heardAt = 0;
  let pinging = false;

  /** @param {string} [reason] @param {number} [code] @param {string} [message] */
  const closed = (reason = error ? "ws-error" : UNEXPECTED, code, message) =>
    owner.closed(link, { reason, code, message }, error);
  /** @param {string} [reason] @param {number} [code] */
  const giveUp = (reason, code) => {
    link.end(4000);
    closed(reason, code);
  };
  /** @param {number} ms */
  const expectWithin = (ms) => owner.steps.later(link, ms, () => giveUp());
  /** @param {number} pongMs */
  const pingNow = (pongMs) => {
    pinging = true;
    link.send({ packed });
    owner.steps.later(link, pongMs, () => giveUp("ws-ping-timeout", 4000));
  };

  /** @type {Link} */
  const link = {
    type: "ws",
    awaited: 2,
    start() {
      const { url, protocols } = owner.upgrade();
      try {
        ws = new WebSocket(url, protocols);
        ws.binaryType = "arraybuffer";
        ws.onopen = () => {
          link.send({ packed });
          owner.opening();
        };
        ws.onmessage = (/** @type {any} */ ev) => {
          owner.received(link, ev.data);
          const state = owner.state(link);
          // The pong comes behind all that waited for us.
          if (state === "trial") expectWithin(CONNECT_MS);
          if (state !== "open") return;
          heardAt = Date.now();
          pinging = false;
          owner.steps.later(link, wsKaliveMs, () => pingNow(PONG_MS));
        };
        ws.onerror = (/** @type {any} */ ev) => (error = ev);
        ws.onclose = (/** @type {any} */ ev) =>
          closed(ev.wasClean ? "clean" : undefined, ev.code, ev.reason);
      } catch (thrown) {
        error = thrown;
      }
      owner.opening();
      expectWithin(error ? 0 : CONNECT_MS);
    },
    send({ packed }) {
      if (ws?.readyState !== 1) return false;
      ws.send(packed);
      return true;
    },
    probe(hard) {
      if (!pinging && (hard || Date.now() - heardAt > STABLE_MS)) pingNow(PROBE_MS);
    },
    end(code = 1000) {
      owner.steps.stop(link);
      ws?.close(code);
    },
  };
  return link;
}

/** @param {Owner} owner @param {any} packer @returns {Link} */
function ajaxLink(owner, { batch }) {
  /** @type {Outgoing[]} */ const queue = [];
  /** @type {Set<Promise<any>>} Requests under way. */ const posts = new Set();
  /** @type {AbortController} */ let poll;

  const pollAll = async () => {
    while (owner.state(link) !== "ended") {
      poll = new AbortController();
      const answer = await owner.poll(link, poll.signal);
      if (owner.state(link) === "ended") return;
      const { success, status, error, content, retryAfterMs } = answer;
      const word = success && owner.received(link, content);
      if (word === TIMEOUT) await owner.steps.sleep(EMPTY_MS);
      else if (success ? word === ERROR : error !== "abort") {
        owner.closed(link, {
          reason: UNEXPECTED,
          status,
          message: String(content ?? error).trim().slice(0, 200),
          retryAfterMs,
        });
      }
    }
  };

  /** Join to `item` what may leave in the same message. @param {Outgoing} item */
  const fill = (item) => {
    const most = Math.min(owner.server["max-batch"] ?? BATCH_EVENTS, BATCH_EVENTS);
    const all = [item.packed];
    let chars = item.packed.length;
    while (
      all.length < most &&
      queue.length &&
      !queue[0].id &&
      (chars += queue[0].packed.length) < BATCH_CHARS
    ) {
      all.push(/** @type {Outgoing} */ (queue.shift()).packed);
    }
    if (all.length > 1) item.packed = batch(all);
  };

  const postAll = async () => {
    link.busy = true;
    await null; // events that are sent one right after the other leave in one message
    for (let item; (item = queue.shift()); ) {
      if (!owner.wanted(item)) continue;
      if (batch && !item.id) fill(item);
      // Its reply may take long, so later events wait only for the head of the answer, which comes
      // when the server has handled it. A server without a cursor is not ours: it sends no head.
      await new Promise((/** @type {any} */ handled) => {
        const one = post(item, handled);
        posts.add(one);
        one.then(() => posts.delete(one)).then(handled);
        if (item.id && !owner.server.cursor) handled();
      });
      if (posts.size >= POSTS) await Promise.race(posts);
    }
    link.busy = false;
  };

  /** @param {Outgoing} item @param {() => void} handled */
  const post = async (item, handled) => {
    for (let tries = 1; owner.wanted(item); tries++) {
      const answer = await owner.post(item, handled);
      const { status, retryAfterMs } = answer;
      // The server did not handle a message that it answers so: it may be sent again.
      if (/40[13]/.test(status) && tries < 2) await owner.renew();
      else if (/429|503/.test(status) && tries < POST_TRIES) {
        await owner.steps.sleep(retryAfterMs ?? 1000);
      } else return owner.posted(item, answer);
    }
  };

  /** @type {Link} */
  const link = {
    type: "ajax",
    awaited: 1,
    start: pollAll,
    send(item) {
      if (queue.length >= POST_QUEUE) return false;
      queue.push(item);
      if (!link.busy) postAll();
      return true;
    },
    probe: (hard) => hard && poll.abort(),
    end: () => poll.abort(),
  };
  return link;
}

// The channel socket ---------------------------------------------------------------------

/** Options and their defaults; chsk.d.ts says what each is for. */
const DEFAULTS = {
  cursor: undefined, // that of the page
  auth: null,
  clientId: null,
  connect: true,
  csrfToken: undefined, // that of the page
  params: null,
  headers: null,
  keywords: null,
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
  /** @type {string} */ #path;
  #steps = new Steps((error) => this.#tell(error));
  /** @type {Link | null} The one in use. */ #link = null;
  /** @type {Map<Link, [frame: any[], bytes: number][]>} Links that are not trusted yet, and what
   * they brought: one, or Ajax in parallel to a WebSocket. */
  #trials = new Map();
  /** @type {Link | null} The link that was in use before, and may still post what it took. */
  #last = null;
  /** @type {Map<string, Outgoing>} By the ids of their callbacks. */ #pending = new Map();
  /** @type {Outgoing[]} */ #offline = [];
  /** @type {Map<string, Set<any>>} By id; those of onAny() and onError() by names that no id has. */
  #handlers = new Map();
  /** @type {Set<(old: any, now: any) => void>} */ #watchers = new Set();
  /** @type {{epoch?: string, offset?: number, page?: string}} Of the last event; until the first
   * handshake that of the page. */
  #cursor = {};
  #secret = randomText(); // proves to the server that all requests are of one client
  /** @type {string | undefined} */ #resume;
  /** @type {any} What requests need: `{csrf, auth, wsUrl, url}`. */ #access = {};
  #awake = new AbortController(); // ends listening to the page
  #gone = new AbortController(); // ends posts
  #asking = false; // the application's functions for credentials are on the stack
  #foreign = 0; // answers of something else than a channel socket
  #explained = 0; // not 0: the console was told that WebSockets fail, or one has worked
  #turn = 0; // rises with each attempt and each end: tells code after `await` that it is stale
  #polls = 0;
  #sends = 0;
  #callbacks = 0;
  #tries = 0;
  #hurriedAt = 0;
  /** @type {any} The user of this connection; undefined until the next handshake. */ #uid;
  #refusals = 0; // since the last opening
  /** @type {string | undefined} The transport that worked last in this tab. */ #lastType;
  /** @type {LinkClosed | null} How Ajax ended in parallel to a WebSocket. */ #ajaxClosed = null;
  #shortLived = 0; // WebSockets in a row that were cut soon
  #upgradeMs = UPGRADE_MS;
  #openedAt = NaN; // while it is open
  #switchedAt = NaN; // from one link to another

  /** @param {string} [path] @param {any} [opts] */
  constructor(path, opts) {
    const { WebSocket, fetch, location } = globalThis;
    this.#opts = { WebSocket, fetch, location, ...DEFAULTS };
    assertKnown(opts, this.#opts);
    for (const name in opts) if (opts[name] !== undefined) this.#opts[name] = opts[name];
    assertOptions(this.#opts);
    const { packer, type, recvBuf, clientId } = this.#opts;
    this.#cursor.page = this.#opts.cursor ?? meta()?.cursor;
    this.#packer = /** @type {any} */ ({ edn: ednPacker(this.#opts), json })[packer] ?? packer;
    this.#path = path ?? meta()?.path ?? "/chsk";
    this.clientId = clientId ?? randomText();
    this.#lastType = remembered(this.#path);
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
    // Each call is a step. Methods are bound: they work as callbacks, and through a Proxy that a
    // framework put around this object, which has no access to private members.
    const methods = /** @type {any} */ (this);
    for (const name of Object.getOwnPropertyNames(ChannelSocket.prototype)) {
      const method = methods[name];
      if (name === "constructor") continue;
      const value = (/** @type {any[]} */ ...args) =>
        this.#steps.run(() => method.apply(this, args));
      Object.defineProperty(this, name, { value, writable: true, configurable: true });
    }
    // On a server that renders the page there is nothing to connect to.
    if (this.#opts.connect && (location || /^http/.test(this.#path))) this.connect();
  }

  /** Vue and Alpine wrap only plain objects. */
  get [Symbol.toStringTag]() {
    return "ChannelSocket";
  }

  // Events ------------------------------------------------------------------------------

  /** Call `fn(ev)` for events of this id, "*" for those without another handler; returns the undo.
   * @param {string} id @param {(ev: any) => any} fn @param {any} [opts] */
  on(id, fn, opts) {
    id = plain(id);
    if (id !== "*" && !isName(id, true)) {
      throw new ChskError(
        "BadEvent",
        `on(${JSON.stringify(id)}): an id has a namespace, as in on("chat/say", fn); "*" takes ` +
          'all others. The connection is told to watch(fn) and on("chsk/state", fn)',
      );
    }
    return this.#add(id, fn, opts);
  }

  /** Call `fn(ev)` for the next event of this id only; returns the undo.
   * @param {string} id @param {(ev: any) => any} fn @param {any} [opts] */
  once(id, fn, opts) {
    assertFunction(fn);
    const one = (/** @type {any} */ ev) => {
      undo();
      return fn(ev);
    };
    one.fn = fn;
    const undo = this.on(id, one, opts);
    return undo;
  }

  /** Call `fn` for this id no more; without `fn`: no function at all.
   * @param {string} id @param {(ev: any) => any} [fn] */
  off(id, fn) {
    id = plain(id);
    for (const one of this.#handlers.get(id) ?? []) {
      if (!fn || fn === one || fn === one.fn) this.#remove(id, one);
    }
  }

  /** Call `fn(ev)` for every event, before the handlers of its id; returns the undo.
   * @param {(ev: any) => any} fn @param {any} [opts] */
  onAny(fn, opts) {
    return this.#add("any", fn, opts);
  }

  /** Call `fn(error)` for what handlers, watchers and callbacks throw; returns the undo.
   * @param {(error: any) => any} fn @param {any} [opts] */
  onError(fn, opts) {
    return this.#add("error", fn, opts);
  }

  /** @param {string} id @param {any} fn @param {any} [opts] */
  #add(id, fn, opts) {
    assertFunction(fn);
    this.#handlers.set(id, (this.#handlers.get(id) ?? new Set()).add(fn));
    return until(opts?.signal, () => this.#remove(id, fn));
  }

  /** @param {string} id @param {any} fn */
  #remove(id, fn) {
    const fns = this.#handlers.get(id);
    if (fns?.delete(fn) && !fns.size) this.#handlers.delete(id);
  }

  /** Call `fn(old, now)` on every change of state; returns the undo.
   * @param {(old: any, now: any) => void} fn @param {any} [opts] */
  watch(fn, opts) {
    assertFunction(fn);
    this.#watchers.add(fn);
    return until(opts?.signal, () => void this.#watchers.delete(fn));
  }

  /** Tell what a function of the user's threw: in a page it reaches window.onerror.
   * @param {any} error @param {(error: any) => void} [tell] */
  #tell(error, tell = globalThis.reportError ?? report) {
    for (const fn of this.#handlers.get("error") ?? []) guarded(() => fn(error));
    tell(error);
  }

  /** Events that no handler took, until destroyed. @param {any} [opts] */
  async *events(opts) {
    for await (const ev of this.chRecv.items(undefined, opts?.signal)) {
      yield ev.id === "chsk/recv" ? message(ev.data) : ev;
    }
  }

  /** Inject an event, as if it had been pushed. @param {any} event */
  put(event) {
    this.#deliver(assertEvent(event), true);
  }

  /** Whether it left, or waits for the connection. `cb` gets the reply, or one of "chsk/closed",
   * "chsk/timeout", "chsk/error". @param {any} event @param {any} [a] @param {any} [b] */
  send(event, a, b) {
    return this.#send(event, sendOptions(a, b));
  }

  /** @param {any} event @param {any} opts @param {boolean} [waits] */
  #send(event, opts, waits) {
    const { cb, timeoutMs: ms } = opts;
    assertKnown(opts, SEND_OPTIONS);
    assertEvent(event);
    const timeoutMs = ms ?? 10_000;
    if (!(timeoutMs >= 0)) throw named("timeoutMs", `milliseconds, not ${ms}`);
    const id = cb ? `c${++this.#callbacks}` : null;
    /** @type {Outgoing} */
    const item = { packed: this.#pack(event, id), id, cb, timeoutMs, waits };
    const { open, status } = this.#state;
    const queued = (status === "connecting" || status === "waiting") && this.#queue(item);
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

  /** Whether it waits for the connection. @param {Outgoing} item */
  #queue(item) {
    const before = this.#offline.filter(({ waits }) => waits === item.waits).length;
    if (before >= (item.waits ? REQUESTS : this.#opts.offlineQueue)) return false;
    item.uid = this.#uid;
    return !!this.#offline.push(item);
  }

  /** The reply; rejects with ReplyTimeout, ChannelClosed or ReplyError. While a connection is
   * being opened it waits within its timeout.
   * @param {any} event @param {any} [opts] @returns {Promise<any>} */
  request(event, opts) {
    const error = new ChskError("", ""); // has the stack of the caller
    return abortable(opts?.signal, (resolve, reject) => {
      /** @param {any} reply @param {any} details */
      const cb = (reply, details) => {
        if (cbSuccess(reply)) return resolve(reply);
        const why = plain(reply);
        const name =
          /** @type {any} */ ({ [TIMEOUT]: "ReplyTimeout", [CLOSED]: "ChannelClosed" })[why] ??
          "ReplyError";
        const id = plain(event[0]);
        const { message, status } = details ?? {};
        Object.assign(error, { name, message: message ?? `${why}: ${id}`, status, id });
        error.stack = error.stack?.replace(/^Error/, () => `${name}: ${error.message}`);
        const { open, lastClose } = this.#state;
        if (!open && lastClose) error.cause = lastClose;
        reject(error);
      };
      this.#send(event, { ...opts, cb }, true);
      const id = `c${this.#callbacks}`;
      return () => this.#forget(this.#pending.get(id));
    });
  }

  // The connection ----------------------------------------------------------------------

  /** The state, once it is open; rejects with ChannelClosed where it is closed, or not in time.
   * @param {any} [opts] @returns {Promise<any>} */
  ready({ signal, timeoutMs = 10_000 } = {}) {
    return abortable(signal, (resolve, reject) => {
      const closed = (/** @type {string} */ why) =>
        reject(new ChskError("ChannelClosed", why, { cause: this.#state.lastClose }));
      const look = () => {
        const { open, status } = this.#state;
        if (open) resolve(this.#state);
        else if (/closed|refused|destroyed/.test(status)) closed(`it is ${status}`);
      };
      const timer = after(() => closed(`not open within ${timeoutMs} ms`), timeoutMs);
      const undo = this.watch(look);
      look();
      return () => {
        clearTimeout(timer);
        undo();
      };
    });
  }

  /** Open it where it is closed; end the wait where it waits for the next attempt. */
  connect() {
    const { status } = this.#state;
    // Behind what destroy() has left to do.
    if (status === "destroyed") this.#steps.call(() => this.#revive());
    else if (status === "closed" || status === "refused") this.reconnect();
    else if (status === "waiting" && Date.now() - this.#hurriedAt >= HURRY_MS) {
      this.#hurriedAt = Date.now();
      this.#attempt();
    }
  }

  /** Drop the connection, and open again at once: after a login or a logout. */
  reconnect() {
    // Called by the application's own `csrfToken`, `auth` or `chskUrl`: it is connecting already.
    const { status } = this.#state;
    if (status !== "destroyed" && !(this.#asking && status === "connecting")) this.#reopen();
  }

  #revive() {
    if (this.#state.status !== "destroyed") return;
    this.#steps.stopAll(false);
    this.#gone = new AbortController();
    this.chRecv = new RecvChannel(this.#opts.recvBuf);
    this.#reopen();
  }

  #reopen() {
    this.#hangUp(3000, "requested-reconnect");
    this.#uid = undefined; // the next user may be another
    this.#listen();
    this.#attempt();
  }

  /** Close, until `connect()`. */
  disconnect() {
    this.#close("closed");
  }

  /** Close: no timer, no listener, no handler stays. `connect()` begins anew. */
  destroy() {
    this.#close("destroyed");
    this.#gone.abort();
    this.#steps.call(() => {
      this.#handlers.clear();
      this.#watchers.clear();
      this.chRecv.close();
    });
  }

  /** For tests: as if the network had cut the connection. */
  breakConnection() {
    for (const link of this.#link ? [this.#link] : this.#trials.keys()) {
      link.end(3001);
      this.#closed(link, { reason: UNEXPECTED });
    }
  }

  /** @param {string} status */
  #close(status) {
    if (this.#state.status !== "destroyed") {
      this.#hangUp(1000, "requested-disconnect");
      this.#rest(status);
    }
  }

  /** @param {number} code @param {string} reason */
  #hangUp(code, reason) {
    this.#tries = this.#refusals = 0;
    this.#drop(code);
    if (this.#state.open) this.#set({ lastClose: { udt: Date.now(), reason } });
  }

  /** Have no link any more, trusted or not. @param {number} [code] to end the open one with */
  #drop(code) {
    const link = this.#link;
    this.#turn++;
    if (code) link?.end(code);
    this.#endTrials();
    this.#link = null;
    if (link) this.#last = link;
    this.#steps.stop("retry");
    this.#steps.stop("upgrade");
    for (const item of this.#pending.values()) {
      // The answer to a POST still comes.
      if (item.via === link && link?.type === "ws") this.#reply(item, CLOSED);
    }
  }

  #endTrials() {
    this.#steps.stop("parallel");
    for (const link of this.#trials.keys()) link.end();
    this.#trials.clear();
  }

  /** Try nothing any more. @param {string} status */
  #rest(status) {
    this.#awake.abort();
    this.#steps.stopAll(status === "destroyed");
    for (const item of this.#pending.values()) this.#reply(item, CLOSED);
    const { length } = this.#offline.filter((item) => !item.id);
    if (length) log("warn", `${status}: ${length} events that waited to be sent were dropped`);
    this.#offline = [];
    this.#last = null;
    this.#set({ status, udtNextReconnect: null });
  }

  /** @param {string} [transport] */
  #attempt(transport) {
    const { type, WebSocket } = this.#opts;
    if (type !== "auto") transport = type;
    else transport ??= this.#lastType === "ajax" || !WebSocket ? "ajax" : "ws";
    this.#steps.stop("retry");
    this.#ajaxClosed = null;
    this.#set({ status: "connecting", type: transport, udtNextReconnect: null });
    this.#try(transport);
  }

  /** Get credentials, then begin a link. @param {string | undefined} transport */
  async #try(transport) {
    const turn = ++this.#turn;
    const message = await this.#owner.renew();
    if (turn !== this.#turn) return;
    this.#steps.run(() => {
      if (!message) this.#open(transport);
      else if (this.#link) this.#upgradeLater();
      else this.#retry({ reason: UNEXPECTED, message });
    });
  }

  /** Begin a link, on trial. @param {string | undefined} transport */
  #open(transport) {
    const make = transport === "ajax" ? ajaxLink : webSocketLink;
    const link = make(this.#owner, this.#packer, this.#opts);
    this.#trials.set(link, []);
    link.start();
  }

  /** Trust a link, and use it from now on. @param {Link} link */
  #confirm(link) {
    const old = this.#link;
    const auto = this.#opts.type === "auto";
    this.#trials.delete(link);
    const { size } = this.#trials;
    this.#endTrials();
    if (link.type === "ws") this.#explained++;
    this.#link = link;
    if (old) {
      old.end();
      this.#last = old;
      this.#switchedAt = Date.now();
    }
    this.#refusals = 0;
    this.#openedAt = Date.now();
    if (auto && this.#lastType !== link.type) remembered(this.#path, (this.#lastType = link.type));
    if (auto && link.type === "ajax") {
      // A WebSocket that began before Ajax had a cursor would skip what is missed here.
      if (size) this.#try("ws");
      else if (this.#opts.WebSocket) this.#upgradeLater();
    } else if (!this.#shortLived) this.#upgradeMs = UPGRADE_SOON_MS;
  }

  #upgradeLater() {
    if (this.#state.lastWsClose && !this.#explained++) {
      log(
        "warn",
        `no WebSocket gets through to ${this.#access.wsUrl}: see the server's log. ` +
          "Proxies must pass Upgrade and Host (Vite: ws, no changeOrigin)",
      );
    }
    this.#steps.later("upgrade", this.#upgradeMs, () => this.#try("ws"));
    this.#upgradeMs = Math.min(2 * this.#upgradeMs, UPGRADE_CAP_MS);
  }

  /** A link ended by itself: choose the next transport.
   * @param {Link} link @param {LinkClosed} how @param {any} [ev] of a WebSocket's error */
  #closed(link, how, ev) {
    const trial = this.#trials.delete(link);
    if (!trial && link !== this.#link) return;
    const udt = Date.now();
    const { code = 0 } = how;
    const ws = link.type === "ws";
    this.#steps.stop(link);
    if (ws) {
      this.#set({ lastWsClose: { udt, ...how }, ...(ev && { lastWsError: { udt, ev } }) });
    }
    // These codes are the server's decision. Any other end may come from a proxy that lets no
    // WebSocket through, or none for long.
    const decided = code >= 4000 || [1000, 1012, 1013].includes(code);
    const blocked = ws && this.#opts.type === "auto" && !decided;
    let fallBack = blocked && !this.#ajaxClosed;
    if (trial) {
      if (code === 4001) this.#upgradeMs = UPGRADE_SOON_MS; // our own poll replaced it: it works
      if (this.#link) return this.#upgradeLater(); // the application goes on over Ajax
      if (this.#trials.size) {
        if (!ws) this.#ajaxClosed = how;
        return;
      }
      if (this.#lastType === "ajax") this.#lastType = undefined; // neither works now
      how = this.#ajaxClosed ?? how;
    } else {
      const brief = udt - this.#openedAt < STABLE_MS;
      if (ws && brief) this.#shortLived += +blocked;
      else if (ws) {
        this.#shortLived = 0;
        this.#upgradeMs = UPGRADE_SOON_MS;
      }
      fallBack &&= this.#shortLived >= SHORT_LIVED;
      if (fallBack) this.#upgradeMs = Math.max(this.#upgradeMs, UPGRADE_MS);
    }
    this.#drop();
    if (!fallBack) return this.#retry(how);
    this.#set({ lastClose: { udt, reason: "downgrading-ws-to-ajax" } });
    this.#attempt("ajax");
  }

  /** Nothing is open: stay closed, or wait for the next attempt. @param {LinkClosed} how */
  #retry(how) {
    const { code = 0, reason, status, message, retryAfterMs } = how;
    const udt = Date.now();
    const refused = /40[13]/.test(/** @type {any} */ (status));
    const renew = refused && !this.#refusals++; // each attempt asks for credentials anew
    if (udt - this.#openedAt >= STABLE_MS) this.#tries = 0;
    this.#openedAt = NaN;
    // Where our change of transport crossed one of our polls, no other client replaced us.
    const crossed = code === 4001 && udt - this.#switchedAt < STABLE_MS;
    // Where a token has expired the next attempt asks for another.
    const stays = !crossed && message !== "expired";
    const final = refused ? !renew && "refused" : stays && FINAL[code];
    this.#set({ lastClose: { udt, ...how, reason: final || (code === 4005 ? message : reason) } });
    if (final) {
      if (refused) log("error", final, message);
      return this.#rest(refused ? final : "closed");
    }
    if (code === 4003) this.#cursor = {};
    const renamed = status === 409 && !this.#opts.clientId; // another client has the id
    if (renamed) {
      this.clientId = randomText();
      this.#resume = undefined; // it belongs to the old id
    }
    const turn = this.#turn;
    const [, spread = 2] = /spread=(\d+)/.exec(message ?? "") ?? [];
    const ms =
      (renamed ? null : retryAfterMs) ??
      (renew ? 0 : code === 1012 ? Math.random() * 1000 * Number(spread) : this.#backoff());
    if (turn !== this.#turn) return; // `backoff` called connect(), disconnect() …
    this.#set({ status: "waiting", udtNextReconnect: udt + ms });
    this.#steps.later("retry", ms, () => this.#attempt());
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

  // What the links ask and tell ---------------------------------------------------------

  /** @type {Owner} */
  #owner = {
    state: (link) =>
      this.#trials.has(link) ? "trial" : link === this.#link ? "open" : "ended",
    received: (link, data) => {
      const frame = this.#unpack(data);
      const [value, cb] = frame;
      const bytes = data.length ?? data.byteLength;
      const buffered = this.#trials.get(link);
      if (!buffered) this.#receive(link, frame, bytes);
      else {
        // Messages of a trial count once the link is trusted. If it fails, the next link begins at
        // the same cursor, and no event is lost or doubled.
        buffered.push([frame, bytes]);
        const ids = eventsOf(value).map((event) => plain(event?.[0]));
        if (cb === PING || /chsk\/(handshake|close)/.test(String(ids))) link.awaited--;
        if (!link.awaited) {
          this.#confirm(link);
          for (const [frame, bytes] of buffered) this.#receive(link, frame, bytes);
        }
      }
      return plain(value);
    },
    closed: (link, how, ev) => this.#steps.run(() => this.#closed(link, how, ev)),
    // Try Ajax in parallel after some silence of the WebSocket, unless WebSockets have worked.
    opening: () => {
      const alone = !this.#link && !this.#ajaxClosed && this.#trials.size === 1;
      if (alone && this.#opts.type === "auto" && this.#lastType !== "ws") {
        this.#steps.later("parallel", PARALLEL_MS, () => this.#open("ajax"));
      }
    },
    steps: this.#steps,
    server: {},
    // Ask the page, or the application, for tokens and URLs; returns what went wrong.
    renew: async () => {
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
    },
    // A request that was rejected is not sent.
    wanted: ({ id }) => !id || this.#pending.has(id),

    upgrade: () => {
      const { csrf, auth, wsUrl } = this.#access;
      const protocols = ["chsk.v1", `secret.${this.#secret}`];
      // Secrets travel in subprotocols and headers: logs and histories show URLs.
      for (const [name, token] of Object.entries({ resume: this.#resume, csrf, auth })) {
        if (token) protocols.push(`${name}.${base64url(token)}`);
      }
      return { url: withQuery(wsUrl, this.#params({ cursor: this.#here() })), protocols };
    },

    poll: (link, signal) => {
      // Without a handshake the server leaves alone a WebSocket that it may have of us already.
      const asks = this.#trials.has(link) && (this.#state.everOpened || this.#trials.size < 2);
      return this.#http("get", {
        params: { cursor: this.#here(), n: ++this.#polls, "handshake?": asks ? 1 : null },
        timeoutMs: Math.max(
          this.#opts.lpTimeoutMs,
          (this.#owner.server["lp-timeout-ms"] ?? 0) + SLACK_MS,
        ),
        signal,
      });
    },

    post: ({ id, packed, number, timeoutMs }, handled) => {
      const { binary } = this.#packer;
      return this.#http("post", {
        params: { n: number, ...(binary ? { "binary?": true } : { ppstr: packed }) },
        body: binary ? packed : undefined,
        timeoutMs: id ? timeoutMs : this.#opts.lpTimeoutMs,
        signal: id ? this.#gone.signal : undefined, // an event without reply still arrives
        handled,
      });
    },

    posted: (item, { success, status, error, content }) => {
      if (success) {
        const [reply, , details] = this.#unpack(content);
        return this.#reply(item, reply, details);
      }
      log("warn", "a post failed:", content ?? error);
      const reply =
        status || error === "foreign" ? ERROR : error === "timeout" ? TIMEOUT : CLOSED;
      this.#reply(item, reply, { status, message: content?.trim() });
    },
  };

  // Receiving ---------------------------------------------------------------------------

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

  /** @param {Link} link @param {any[]} frame @param {number} bytes */
  #receive(link, [value, cb, third], bytes) {
    if (link !== this.#link) return; // a handler, or the server, has closed it
    const events = cb == null ? eventsOf(value) : [];
    const { epoch, offsets } = cursorOf(third);
    // The offset of a frame without events: there is no event for this client up to it.
    if (!events.length && epoch === this.#cursor.epoch) this.#advance(epoch, offsets[0]);
    if (cb === PING) this.#deliver(["chsk/ws-pong"]);
    if (cb != null) return this.#reply(this.#pending.get(cb), value, third);
    if (plain(value) === "chsk/ws-ping") {
      this.#say(["chsk/ws-pong"]);
      this.#deliver(["chsk/ws-ping"]);
    }
    events.forEach((event, i) => {
      if (link !== this.#link) return;
      if (i in offsets && !this.#advance(epoch, offsets[i])) return;
      // An event with odd data does not end the link.
      guarded(() => this.#steps.run(() => this.#event(link, event, bytes / events.length)));
    });
  }

  /** Move the cursor; false where the event came before.
   * @param {any} epoch @param {number} offset */
  #advance(epoch, offset) {
    const here = this.#cursor;
    if (epoch === here.epoch && offset <= /** @type {number} */ (here.offset)) return false;
    this.#cursor = { epoch, offset };
    return true;
  }

  /** @param {Link} link @param {any[]} event @param {number} bytes */
  #event(link, event, bytes) {
    const [id, data] = event;
    // Ids of the protocol; all others are the application's.
    switch (plain(id)) {
      case "chsk/handshake":
        return this.#handshake(link, data);
      case "chsk/close": // over Ajax, which has no close frames
        link.end();
        return this.#closed(link, { code: 1000, ...data, reason: "clean", message: data?.reason });
      case "chsk/ask":
        return this.#steps.call(() => this.#answer(data));
    }
    this.#deliver(asEvent(event), plain(id) !== "chsk/gap", bytes);
  }

  /** @param {Link} link @param {any} data */
  #handshake(link, [uid, csrf, handshakeData = null, server]) {
    const { everOpened, open } = this.#state;
    const { cursor, resume, recovered } = (this.#owner.server = server ?? {});
    if (resume) this.#resume = resume;
    // Where it is recovered, missed events follow, with offsets above our own cursor.
    if (cursor && !recovered) {
      const { epoch, offsets } = cursorOf(cursor);
      if (epoch !== this.#cursor.epoch) {
        // Another server, which does not know the requests of the last one.
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
    this.#deliver(["chsk/handshake", [this.#uid, csrf, handshakeData]]);
    if (recovered === false) this.#deliver(["chsk/gap"]);
    if (open) return;
    for (const item of this.#offline.splice(0)) {
      if (item.uid === undefined || item.uid === this.#uid) this.#transmit(item);
      else {
        log("warn", "the user changed: a message that waited was dropped");
        this.#reply(item, CLOSED, { message: "the user changed" });
      }
    }
  }

  /** @param {any} ask */
  async #answer([id, event]) {
    const name = plain(event[0]);
    try {
      const [fn] = this.#handlersOf(name) ?? [];
      if (!fn) throw new Error(`no handler for ${name}`);
      this.#say(["chsk/answer", [id, await fn(message([name, event[1]]))]]);
    } catch (error) {
      this.#tell(error, report); // the server is told, too
      this.#say(["chsk/answer", [id, null, String(error)]]);
    }
  }

  /** @param {string} id */
  #handlersOf(id) {
    // Keep-alive is only for handlers of that very id.
    return this.#handlers.get(id) ?? (/^chsk\/ws-/.test(id) ? [] : this.#handlers.get("*"));
  }

  /** Give an event to the handlers of its id, else to those of "*", else to `chRecv`; it is wrapped
   * there where it was `pushed`.
   * @param {any[]} event @param {boolean} [pushed] @param {number} [bytes] */
  #deliver([key, ...data], pushed, bytes) {
    const id = plain(key);
    const event = [id, ...data];
    this.#steps.call(() => {
      const fns = this.#handlersOf(id);
      const call = (/** @type {any} */ fn) => guarded(() => fn(message(event)), (e) => this.#tell(e));
      if (!/^chsk\/ws-/.test(id)) this.#handlers.get("any")?.forEach(call);
      if (fns) fns.forEach(call);
      else {
        const wrapped = pushed && this.#opts.wrapRecv ? ["chsk/recv", event] : event;
        this.chRecv.put(message(wrapped), bytes);
      }
    });
  }

  // Sending -----------------------------------------------------------------------------

  /** @param {any} event @param {string | null} [cb] */
  #pack([id, ...data], cb = null) {
    const limit = this.#owner.server["max-bytes"];
    let packed;
    try {
      packed = this.#packer.pack([[new Keyword(plain(id)), ...data], cb]);
    } catch (error) {
      if (error instanceof PackError) error.message = error.message.replace("value[0][1]", "data");
      throw error;
    }
    // A character is at most three bytes: only a message that may be too large is measured.
    if (packed.length > limit / 3 && new Blob([packed]).size > limit) {
      throw new PackError(`data: over the ${limit} bytes that the server takes`);
    }
    return packed;
  }

  /** Send an event that gets no reply. @param {any[]} event */
  #say(event) {
    this.#transmit({ packed: this.#pack(event) });
  }

  /** @param {Outgoing} item */
  #transmit(item) {
    // What the last link took arrives before what is sent now.
    item.via = this.#last?.busy ? this.#last : this.#link;
    item.number = ++this.#sends;
    if (item.via?.send(item)) return true;
    if (item.via?.type === "ws" && item.waits && this.#queue(item)) {
      item.via = null; // this WebSocket is closing; the request waits for the next link
      return true;
    }
    this.#reply(item, CLOSED);
    return false;
  }

  /** @param {Outgoing | undefined} item @param {any} reply @param {any} [details] */
  #reply(item, reply, details) {
    if (this.#forget(item)) this.#steps.call(() => item?.cb(reply, details));
  }

  /** Nobody waits for its reply any more; whether somebody did. @param {Outgoing | undefined} item */
  #forget(item) {
    if (!item?.id || !this.#pending.delete(item.id)) return false;
    clearTimeout(item.timer);
    this.#offline = this.#offline.filter((one) => one !== item);
    return true;
  }

  // Requests ----------------------------------------------------------------------------

  #here() {
    const { epoch, offset, page } = this.#cursor;
    return epoch ? epoch + ":" + offset : page;
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
  async #http(method, more) {
    const { ajaxOpts, headers, fetch } = this.#opts;
    const { csrf, auth, url } = this.#access;
    const answer = await http(fetch, url, {
      ...ajaxOpts,
      ...more,
      method,
      params: this.#params({ ...ajaxOpts.params, ...more.params }),
      headers: {
        ...ajaxOpts.headers,
        ...headers,
        "X-Chsk-Secret": this.#secret,
        ...(this.#resume && { "X-Chsk-Resume": this.#resume }),
        ...(csrf && { "X-CSRF-Token": csrf }),
        ...(auth && { Authorization: `Bearer ${auth}` }),
        ...(more.body && { "Content-Type": "application/octet-stream" }),
      },
      binary: this.#packer.binary,
    });
    if (answer.foreign) {
      if (answer.success) this.#deliver(["chsk/bad-package", answer.content]);
      const content =
        `${this.#path} is answered by ${answer.foreign}: ` +
        "exempt it from what redirects to a login";
      // The first time it may be a proxy's page, for a moment.
      if (this.#foreign++) return { error: "foreign", content, retryAfterMs: FOREIGN_MS };
      log("error", `${content}, or look at what stands between`);
      return { error: "foreign", content };
    }
    return answer;
  }

  /** The value of an option, or of its function, in time.
   * @param {string} name @param {any} given @param {(value: any) => any} check */
  async #option(name, given, check) {
    const timer = {};
    const late = new Promise((_, reject) =>
      this.#steps.later(timer, CREDENTIALS_MS, () =>
        reject(new Error(`nothing within ${CREDENTIALS_MS / 1000} s`)),
      ),
    );
    try {
      return check(await Promise.race([typeof given === "function" ? given() : given, late]));
    } catch (error) {
      throw named(name, error);
    } finally {
      this.#steps.stop(timer);
    }
  }

  // State and the page ------------------------------------------------------------------

  /** @param {any} patch */
  #set(patch) {
    const old = this.#state;
    if (Object.keys(patch).every((name) => patch[name] === old[name])) return;
    const now = { ...old, ...patch };
    now.open = now.status === "open";
    this.#state = Object.freeze(now);
    for (const fn of this.#watchers) {
      this.#steps.call(() => this.#watchers.has(fn) && fn(old, now));
    }
    this.#deliver(["chsk/state", now]);
  }

  /** Notice what ends a wait, and what says that the connection may be dead. */
  #listen() {
    const tick = () => {
      const late = Date.now() + 2 * TICK_MS;
      this.#steps.later("tick", TICK_MS, () => {
        tick();
        if (Date.now() > late) this.#wake(true); // the machine slept
      });
    };
    tick();
    this.#awake.abort();
    const { signal } = (this.#awake = new AbortController());
    const { document } = globalThis;
    /** @param {any} target @param {string} name @param {() => void} fn */
    const add = (target, name, fn) =>
      target?.addEventListener?.(name, () => this.#steps.run(fn), { signal });
    const look = () => document?.hidden || this.#wake(false);
    add(globalThis, "online", () => this.#wake(true));
    add(globalThis, "offline", () => {
      if (!this.#link) return;
      this.#drop(LEFT);
      this.#retry({ reason: "offline" });
    });
    // A browser does not keep a page with an open connection for the way back to it.
    add(globalThis, "pagehide", () => {
      this.#drop(LEFT);
      const lastClose = { udt: Date.now(), reason: "pagehide" };
      this.#set({ status: "waiting", lastClose, udtNextReconnect: null });
    });
    add(globalThis, "pageshow", look);
    add(globalThis, "focus", look);
    add(document, "visibilitychange", look);
  }

  /** @param {boolean} hard whether an open connection may be dead */
  #wake(hard) {
    const { status, lastClose } = this.#state;
    // Only a new network ends a wait that the server asked for.
    if (status === "waiting" && (hard || !lastClose.retryAfterMs)) this.#attempt();
    this.#link?.probe(hard);
  }
}

// Small things ---------------------------------------------------------------------------

const SEND_OPTIONS = { timeoutMs: 0, cb: 0, flush: 0, signal: 0 }; // and those of `request`

/** The arguments of `send`, which may be one object. @param {any} a @param {any} b */
const sendOptions = (a, b) => (typeof a === "object" && a ? a : { timeoutMs: a, cb: b });

/** @param {any} event */
const message = (event) => ({ id: event[0], data: event[1], event });

/** The events in a message's value: a vector of them, or one.
 * @param {any} value @returns {any[][]} */
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

/** The transport that worked last for this path in this tab, for ten minutes.
 * @param {string} path @param {string} [type] to remember @returns {string | undefined} */
function remembered(path, type) {
  const key = `chsk ${path}`;
  try {
    const { sessionStorage } = globalThis;
    if (type) sessionStorage.setItem(key, `${type} ${Date.now()}`);
    const [was, at] = /** @type {any} */ (sessionStorage.getItem(key)).split(" ");
    if (Date.now() - at < UPGRADE_CAP_MS) return was;
  } catch {
    // Nothing is stored, or the page may not store anything.
  }
}

/** 128 random bits in base64url. */
function randomText() {
  return base64url(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(16))));
}

/** @param {string} text */
const base64url = (text) =>
  btoa(text).replace(/[+/=]/g, (c) => (c === "+" ? "-" : c === "/" ? "_" : ""));

// The seed's functions -------------------------------------------------------------------

/** The seed's map of parts. @param {string} [path] @param {any} [opts]
 * @param {any} [moreOpts] deprecated: give all options in one object */
export function makeChannelSocket(path, opts, moreOpts) {
  if (moreOpts) log("warn", "give all options in one object");
  const { clientUuid: clientId, lpKaliveMs: lpTimeoutMs, ...given } = { ...opts, ...moreOpts };
  const chsk = new ChannelSocket(path, { clientId, lpTimeoutMs, ...given });
  return {
    chsk,
    chRecv: chsk.chRecv,
    sendFn: (/** @type {any} */ event, /** @type {any} */ a, /** @type {any} */ b) =>
      chskSend(chsk, event, a, b),
    get state() {
      return chsk.state;
    },
  };
}

/** As `chsk.send`; `cb` may also be a RecvChannel, which gets `["ev/id.cb", reply]`.
 * @param {ChannelSocket} chsk @param {any} event @param {any} [a] @param {any} [b] */
export function chskSend(chsk, event, a, b) {
  const { cb, ...opts } = sendOptions(a, b);
  const put = (/** @type {any} */ reply) => cb.put([`${plain(event[0])}.cb`, reply]);
  return chsk.send(event, { ...opts, cb: cb instanceof RecvChannel ? put : cb });
}
/** @param {ChannelSocket} chsk */
export const chskReconnect = (chsk) => chsk.reconnect();
/** @param {ChannelSocket} chsk */
export const chskDestroy = (chsk) => chsk.destroy();
