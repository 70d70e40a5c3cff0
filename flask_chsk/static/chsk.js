// @ts-check
/**
 * The browser's end of flask_chsk: one event channel, over WebSocket where it works and
 * long-polling where it does not (PROTOCOL 1-9).
 *
 * Two transports, WsLink and AjaxLink, look alike to the ChannelSocket that owns them:
 * frames come up, packed messages go down, and a link ends once. Which one carries an event
 * is nobody's business above them. It refuses to store anything beyond the page, to repeat a
 * send that has no key, and to deliver an event twice.
 */

import { Keyword, PackError, Tagged, UnpackError, edn, ednPacker, json } from "./edn.js";

export { Keyword, PackError, Tagged, UnpackError, edn, ednPacker, json };

const BATCH_EVENTS = 64; // half of what the server lets wait for one client's handlers
const BATCH_CHARS = 65536;
const CLOSED = "chsk/closed";
const ERROR = "chsk/error";
const HASTY_MS = 1_000;
const PING = "ping"; // the callback id of our keep-alives; those of sends are c1, c2, …
const POST_QUEUE = 1000; // events; a server this far away is as good as closed
const PROBE_MS = 3_000; // a live server answers a ping sooner than a user loses patience
const STABLE_MS = 5_000;
const TICK_MS = 5_000;
const TIMEOUT = "chsk/timeout";
const UPGRADE_MS = 30_000;
const UPGRADE_CAP_MS = 600_000;

/** Close codes after which the socket stays closed, and the reason told (PROTOCOL 8). */
const FINAL = /** @type {Record<number, string>} */ ({
  1000: "clean",
  4001: "replaced",
  4005: "signed-out",
});
/** Close codes that are the server's word, not a sign that WebSockets do not work here. */
const SPOKEN = new Set([1000, 1012, 1013, 4001, 4002, 4003, 4004, 4005]);

// Values of the seed ---------------------------------------------------------------------

const ID = /^[^\s,;"()[\]{}\\@^`~/:#][^\s,;"()[\]{}\\@^`~/]*\/[^\s,;"()[\]{}\\@^`~]+$/;

/** An error of this package; `name` says which. */
export class ChskError extends Error {
  /** @param {string} name @param {string} message @param {object} [more] */
  constructor(name, message, more) {
    super(message);
    this.name = name;
    Object.assign(this, more);
  }
}

/** Why `x` is no event; nothing where it is one. @param {any} x */
function flaw(x) {
  if (!Array.isArray(x) || x.length < 1 || x.length > 2) return "not [id] or [id, data]";
  if (!ID.test(String(x[0]))) return 'its id is not namespaced, as "chat/say" is';
}

/** Whether `x` is `[id]` or `[id, data]` with a namespaced id. @param {any} x */
export const isEvent = (x) => !flaw(x);

/** `x`, or `["chsk/bad-event", x]` where it is none. @param {any} x */
export const asEvent = (x) => (isEvent(x) ? x : ["chsk/bad-event", x]);

/** `x`, or a thrown BadEvent that says what is wrong. @param {any} x */
export function assertEvent(x) {
  const why = flaw(x);
  if (why) throw new ChskError("BadEvent", `not an event (${why}): ${short(x)}`);
  return x;
}

/** Whether `x` is what `chRecv` gives. @param {any} x */
export const isEventMsg = (x) => !!x && isEvent(x.event) && x.id === x.event[0];

/** Whether a reply is a real one: not chsk/closed, chsk/timeout or chsk/error. @param {any} reply */
export const cbSuccess = (reply) => ![CLOSED, TIMEOUT, ERROR].includes(word(reply));

/** A keyword read as an object says its name, all else itself. @param {any} x */
const word = (x) => (x instanceof Keyword ? x.name : x);

/** @param {any} x */
function short(x) {
  try {
    return String(JSON.stringify(x)).slice(0, 80);
  } catch {
    return String(x);
  }
}

/** Milliseconds to wait before try number `attempt` (from 0): capped, with full jitter.
 * @param {number} attempt */
export const expBackoff = (attempt, { baseMs = 500, capMs = 30_000 } = {}) =>
  Math.random() * Math.min(capMs, baseMs * 2 ** Math.min(attempt, 30));

/** Call `fn` after the backoff of this attempt; returns its undo.
 * @param {() => void} fn */
export function setExpBackoffTimeout(fn, attempt = 0) {
  const timer = setTimeout(fn, expBackoff(attempt));
  return () => clearTimeout(timer);
}

/** Where the server is. `path` may be a whole URL; a missing one is the page's own path.
 * @param {string | undefined} path @param {any} location @param {boolean} [websocket] */
export function defaultChskUrl(path, location, websocket) {
  const url = /^https?:/.test(path ?? "")
    ? /** @type {string} */ (path)
    : `${location.protocol}//${location.host}${path ?? location.pathname}`;
  return websocket ? url.replace(/^http/, "ws") : url;
}

const LEVELS = ["trace", "debug", "info", "warn", "error", "silent"];
let level = 3;

/** From which level on the console is told: trace debug info warn error silent. @param {string} name */
export function setLoggingLevel(name) {
  if (!LEVELS.includes(name)) throw new RangeError(`unknown level ${name}: one of ${LEVELS}`);
  level = LEVELS.indexOf(name);
}

/** @param {"debug" | "warn" | "error"} name @param {...any} what */
function log(name, ...what) {
  if (LEVELS.indexOf(name) >= level) console[name]("chsk:", ...what);
}

/** A user's function failed; nobody else may suffer. @param {any} error */
const report = (error) => log("error", error);

/** @template T @param {() => T} fn @returns {T | undefined} */
function guarded(fn) {
  try {
    const result = /** @type {any} */ (fn());
    if (typeof result?.then === "function") result.then(undefined, report);
    return result;
  } catch (error) {
    report(error);
  }
}

// Receiving ------------------------------------------------------------------------------

/** A buffer of event-msgs that forgets the oldest when it is full, and counts them. */
export class RecvChannel {
  /** @type {any[]} */ #items = [];
  /** @type {((item: any) => void)[]} */ #takers = [];
  #limit;
  #ended = false;
  dropped = 0;

  /** @param {number} [limit] */
  constructor(limit = 2048) {
    this.#limit = limit;
  }

  /** @param {any} item */
  put(item) {
    if (this.#ended) return;
    const taker = this.#takers.shift();
    if (taker) return taker(item);
    this.#items.push(item);
    if (this.#items.length > this.#limit) {
      this.#items.shift();
      this.dropped++;
    }
  }

  /** The next item; undefined once closed and empty, or when `signal` aborts.
   * @param {AbortSignal} [signal] @returns {Promise<any>} */
  take(signal) {
    return new Promise((resolve) => {
      if (signal?.aborted || (this.#ended && !this.#items.length)) return resolve(undefined);
      if (this.#items.length) return resolve(this.#items.shift());
      this.#takers.push(resolve);
      signal?.addEventListener("abort", () => {
        this.#takers = this.#takers.filter((taker) => taker !== resolve);
        resolve(undefined);
      });
    });
  }

  /** What is buffered can still be taken; whoever waits gets undefined. */
  close() {
    this.#ended = true;
    for (const taker of this.#takers.splice(0)) taker(undefined);
  }

  async *[Symbol.asyncIterator]() {
    for (let item; (item = await this.take()) !== undefined;) yield item;
  }
}

/** Call `handler` with each event-msg of `chRecv`, one after another; returns the stop.
 * @param {RecvChannel} chRecv @param {(ev: any) => any} handler */
export function startChskRouter(chRecv, handler, { traceEvs = false } = {}) {
  const stop = new AbortController();
  (async () => {
    for (let ev; (ev = await chRecv.take(stop.signal)) !== undefined;) {
      if (traceEvs) log("debug", ev.event);
      try {
        await handler(ev);
      } catch (error) {
        report(error);
      }
    }
  })();
  return () => stop.abort();
}

// HTTP -----------------------------------------------------------------------------------

/** @param {Record<string, any>} [params] */
function query(params = {}) {
  const out = new URLSearchParams();
  for (const [k, v] of Object.entries(params)) if (v != null) out.set(k, v);
  return out;
}

/** @param {string} url @param {Record<string, any>} [params] */
function withQuery(url, params) {
  const text = String(query(params));
  return text ? url + (url.includes("?") ? "&" : "?") + text : url;
}

/** One request, and never an exception: what came of it is the response map.
 * @param {any} fetch @param {string} url @param {any} opts */
async function http(fetch, url, { method = "get", params, headers, body, timeoutMs, ...opts }) {
  const abort = new AbortController();
  let error = "abort";
  const cut = () => abort.abort();
  const timer = timeoutMs && setTimeout(() => ((error = "timeout"), cut()), timeoutMs);
  opts.signal?.addEventListener("abort", cut);
  const res = /** @type {any} */ ({ success: false, status: null, error: null, content: null });
  try {
    const form = /^post$/i.test(method) && body === undefined;
    const answer = await fetch(form ? url : withQuery(url, params), {
      method: method.toUpperCase(),
      headers,
      body: form ? query(params) : body,
      cache: "no-store",
      credentials: opts.withCredentials ? "include" : "same-origin",
      signal: abort.signal,
    });
    res.status = answer.status;
    res.contentType = answer.headers.get("content-type") ?? "";
    const after = answer.headers.get("retry-after");
    if (after)
      res.retryAfterMs = Math.max(0, Number(after) * 1000 || Date.parse(after) - Date.now()) || 0;
    const type =
      (opts.respType ?? "auto") !== "auto"
        ? opts.respType
        : (/\b(edn|json)\b/.exec(res.contentType)?.[0] ?? "text");
    const content = type === "binary" ? await answer.arrayBuffer() : await answer.text();
    const packer = type === "edn" ? edn : type === "json" ? json : null;
    res.content = packer && answer.ok ? packer.unpack(content) : content;
    res.success = answer.ok;
    if (!answer.ok) res.error = answer.status;
  } catch (e) {
    res.error = abort.signal.aborted ? error : "exception";
    res.exception = e;
  }
  clearTimeout(timer);
  opts.signal?.removeEventListener("abort", cut);
  return res;
}

/** A small Ajax call. `callback` gets `{success, status, error, content, contentType}`; `error` is
 * a status, "timeout", "abort" or "exception", or null. Returns `{abort()}`.
 * @param {string} url @param {any} opts @param {(resp: any) => void} callback */
export function ajaxCall(url, opts, callback) {
  const abort = new AbortController();
  http(opts.fetch ?? globalThis.fetch, url, { ...opts, signal: abort.signal }).then((res) =>
    guarded(() => callback(res)),
  );
  return { abort: () => abort.abort() };
}

// Links ----------------------------------------------------------------------------------

/**
 * What a link tells its owner, and asks of it.
 * @typedef {{
 *   opts: any,
 *   frame: (link: Link, data: any) => boolean,
 *   opened: (link: Link) => void,
 *   wsError: (event: any) => void,
 *   down: (link: Link, cut: Cut) => void,
 *   reply: (item: Item, reply: any, details?: any) => void,
 *   unpack: (data: any) => any,
 *   pollParams: (link: AjaxLink) => any,
 *   http: (method: string, params: any, opts: any) => Promise<any>,
 *   ask: () => Promise<boolean>,
 *   pingMessage: any,
 *   lpTimeoutMs: () => number,
 * }} Host
 * @typedef {{code?: number, reason?: string, why?: string, status?: number | null, message?: string,
 *   retryAfterMs?: number, clean?: boolean}} Cut
 * @typedef {{id: string | null, packed: any, cb?: any, name?: string, key?: any, timeoutMs?: number,
 *   timer?: any, via?: Link}} Item
 * @typedef {WsLink | AjaxLink} Link
 */

class WsLink {
  type = "ws";
  busy = false;
  /** What came before it was trusted. @type {any[]} */ held = [];
  /** @type {Host} */ #host;
  /** @type {any} */ #ws;
  /** @type {any} */ #timer;
  #errored = false;
  #pinging = false;
  #heardAt = 0;

  /** @param {Host} host @param {string} url @param {string[]} protocols
   * @param {string | null} cursor @param {boolean} roundTrip whether a ping has to come back first */
  constructor(host, url, protocols, cursor, roundTrip) {
    this.#host = host;
    this.cursor = cursor;
    this.wants = roundTrip ? 2 : 1; // the handshake; the pong
    this.#timer = setTimeout(() => this.#end({ why: "timeout" }, 4000), host.opts.connectTimeoutMs);
    let ws;
    try {
      ws = this.#ws = new host.opts.WebSocket(url, protocols);
    } catch (error) {
      host.wsError(error);
      queueMicrotask(() => this.#end({ why: "ws-error" }));
      return;
    }
    ws.binaryType = "arraybuffer";
    ws.onopen = () => {
      host.opened(this);
      if (roundTrip) this.send({ packed: host.pingMessage });
    };
    ws.onmessage = (/** @type {any} */ ev) => {
      this.#heard();
      host.frame(this, ev.data);
    };
    ws.onerror = (/** @type {any} */ ev) => {
      this.#errored = true;
      host.wsError(ev);
    };
    ws.onclose = (/** @type {any} */ ev) => {
      const why = ev.wasClean ? "clean" : this.#errored ? "ws-error" : "unexpected";
      this.#end({ code: ev.code, reason: ev.reason, clean: ev.wasClean, why });
    };
  }

  /** From now on silence is judged. */
  trust() {
    this.wants = 0;
    this.#heard();
  }

  /** @param {{packed: any}} item */
  send({ packed }) {
    if (this.#ws?.readyState !== 1) return false;
    this.#ws.send(packed);
    return true;
  }

  /** After a sleep, or when looked at again: is the other end still there? @param {boolean} hard */
  probe(hard) {
    if (!this.#pinging && (hard || Date.now() - this.#heardAt > STABLE_MS)) this.#ping(PROBE_MS);
  }

  /** Leave without a word to the owner. @param {number} [code] */
  end(code) {
    clearTimeout(this.#timer);
    const ws = this.#ws;
    this.#ws = null;
    if (!ws) return;
    ws.onopen = ws.onmessage = ws.onerror = ws.onclose = null;
    try {
      if (ws.readyState < 2) ws.close(code ?? 1000);
    } catch (error) {
      report(error);
    }
  }

  #heard() {
    if (this.wants) return;
    this.#heardAt = Date.now();
    this.#pinging = false;
    clearTimeout(this.#timer);
    const { wsKaliveMs, wsPingTimeoutMs } = this.#host.opts;
    this.#timer = setTimeout(() => this.#ping(wsPingTimeoutMs), wsKaliveMs);
  }

  /** @param {number} withinMs */
  #ping(withinMs) {
    this.#pinging = true;
    this.send({ packed: this.#host.pingMessage });
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => this.#end({ code: 4000, why: "ws-ping-timeout" }, 4000),
      withinMs,
    );
  }

  /** @param {Cut} cut @param {number} [code] */
  #end(cut, code) {
    this.end(code);
    this.#host.down(this, cut);
  }
}

class AjaxLink {
  type = "ajax";
  /** Whether events without callback are still on their way out. */
  busy = false;
  wants = 1;
  /** @type {any[]} */ held = [];
  /** @type {string | null} */ cursor = null;
  /** @type {Host} */ #host;
  /** @type {Item[]} */ #queue = [];
  #pumping = false;
  #ended = false;
  /** While a WebSocket is tried: 1 before its socket is open, 2 after it. */ #hold = 0;
  /** @type {(() => void) | null} */ #release = null;
  /** @type {AbortController | null} */ #poll = null;
  #posts = new AbortController();
  #again = false;
  /** @type {any} */ #timer;

  /** @param {Host} host */
  constructor(host) {
    this.#host = host;
    this.#run();
  }

  trust() {
    this.wants = 0;
  }

  /** @param {Item} item */
  send(item) {
    if (this.#queue.length >= POST_QUEUE) return false;
    this.#queue.push(item);
    if (!item.id) this.busy = true;
    this.#pump();
    return true;
  }

  /** @param {boolean} hard */
  probe(hard) {
    if (!hard || !this.#poll) return;
    this.#again = true;
    this.#poll.abort();
  }

  /** Poll no more, or only after the trial: a new poll would take the client back from the
   * WebSocket that is being tried. @param {0 | 1 | 2} hold */
  hold(hold) {
    this.#hold = hold;
    if (!hold) this.#release?.();
  }

  /** Posts that are under way finish; with a `code`, they are cut too. @param {number} [code] */
  end(code) {
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#poll?.abort();
    this.#release?.();
    if (code) {
      this.#queue = [];
      this.#posts.abort();
    }
  }

  async #run() {
    while (!this.#ended) {
      const abort = (this.#poll = new AbortController());
      const params = this.#host.pollParams(this);
      if (this.wants) params["handshake?"] = 1;
      const since = Date.now();
      const res = await this.#host.http("get", params, {
        timeoutMs: this.#host.lpTimeoutMs(),
        signal: abort.signal,
      });
      this.#poll = null;
      if (this.#ended) return;
      if (this.#again) {
        this.#again = false;
        continue;
      }
      if (!res.success) {
        this.end();
        return this.#host.down(this, {
          why: "unexpected",
          status: res.status,
          message: res.status ? res.content : undefined,
          retryAfterMs: res.retryAfterMs,
        });
      }
      const empty = this.#host.frame(this, res.content);
      if (this.#ended) return;
      // An empty answer that came at once means that something took this poll's place.
      const hasty = empty && Date.now() - since < HASTY_MS;
      if (hasty || this.#hold === 2) {
        await new Promise((resolve) => {
          this.#release = /** @type {any} */ (resolve);
          if (!this.#hold) this.#timer = setTimeout(resolve, HASTY_MS);
        });
      }
    }
  }

  async #pump() {
    if (this.#pumping) return;
    this.#pumping = true;
    await null; // what is sent in one go leaves in one batch
    for (let item; (item = this.#queue.shift());) {
      if (item.id) {
        this.#post(item); // its reply may take long: later events do not wait for it
        continue;
      }
      const batch = [item.packed];
      const join = this.#host.opts.packer.batch;
      let chars = item.packed.length;
      while (join && this.#queue.length && !this.#queue[0].id && batch.length < BATCH_EVENTS) {
        chars += this.#queue[0].packed.length;
        if (chars > BATCH_CHARS) break;
        batch.push(/** @type {Item} */ (this.#queue.shift()).packed);
      }
      await this.#post(batch.length > 1 ? { ...item, packed: join(batch) } : item);
    }
    this.#pumping = false;
    this.busy = false;
  }

  /** @param {Item} item */
  async #post(item) {
    const { packer } = this.#host.opts;
    const { signal } = this.#posts;
    /** @type {any} */
    let res;
    for (let tries = 0; tries < 5; tries++) {
      res = await this.#host.http(
        "post",
        packer.binary ? { "binary?": true } : { ppstr: item.packed },
        {
          timeoutMs: item.id ? item.timeoutMs : this.#host.opts.lpTimeoutMs,
          body: packer.binary ? item.packed : undefined,
          signal,
        },
      );
      if (signal.aborted) return;
      // Refused before it was looked at, so it may be said again.
      if ((res.status === 401 || res.status === 403) && !tries && (await this.#host.ask()))
        continue;
      if (res.status !== 429 && res.status !== 503) break;
      await new Promise((resolve) => setTimeout(resolve, res.retryAfterMs ?? 1000));
    }
    if (res.success) {
      if (!item.id) return;
      try {
        const [reply, , details] = this.#host.unpack(res.content);
        return this.#host.reply(item, reply, details);
      } catch (error) {
        report(error);
        return this.#host.reply(item, ERROR);
      }
    }
    const said = res.status ? res.content : res.error;
    log("warn", "a post failed:", said);
    if (!res.status) return this.#host.reply(item, res.error === "timeout" ? TIMEOUT : CLOSED);
    this.#host.reply(item, ERROR, { status: res.status, message: String(said) });
  }
}

// The channel socket ---------------------------------------------------------------------

/** Options and their defaults; chsk.d.ts says what each is for. */
const DEFAULTS = {
  type: "auto",
  recvBuf: 2048,
  wsKaliveMs: 25_000,
  wsPingTimeoutMs: 10_000,
  lpTimeoutMs: 25_000,
  connectTimeoutMs: 5_000,
  chskUrl: defaultChskUrl,
  packer: "edn",
  keywords: "string",
  backoff: expBackoff,
  wrapRecv: true,
  offlineQueue: 0,
};

export class ChannelSocket {
  /** @type {any} */ #opts;
  /** @type {string} */ #path;
  /** @type {any} */ #state;
  /** @type {Host} */ #host;
  /** @type {Link | null} The trusted one. */ #link = null;
  /** @type {Link | null} The one that is being tried. */ #candidate = null;
  /** @type {AjaxLink | null} Still posting what was sent before the WebSocket took over. */
  #draining = null;
  /** @type {Map<string, Item>} */ #pending = new Map();
  /** @type {Item[]} */ #offline = [];
  /** @type {Map<string, Set<(ev: any) => any>>} */ #handlers = new Map();
  /** @type {Set<(old: any, now: any) => void>} */ #watchers = new Set();
  /** @type {Map<string, any>} */ #timers = new Map();
  /** @type {(() => void)[]} */ #unlisten = [];
  /** @type {{epoch: string, offset: number} | null} */ #cursor = null;
  /** @type {string | undefined} */ #resume;
  /** @type {any} What the server told of itself. */ #server = {};
  /** @type {{csrf?: any, auth?: any}} */ #credentials = {};
  #turn = 0; // attempts that an `await` outlived know by it
  #polls = 0;
  #sends = 0;
  #tries = 0;
  #renewed = false; // refused since the last handshake, and tried with new credentials
  #downgraded = false; // WebSockets failed where Ajax works
  #upgradeMs = UPGRADE_MS;
  #upgradedAt = 0;

  /** @param {string} [path] @param {any} [opts] */
  constructor(path, opts = {}) {
    this.#opts = { WebSocket: globalThis.WebSocket, fetch: globalThis.fetch, ...DEFAULTS, ...opts };
    const { packer, keywords, type } = this.#opts;
    if (packer === "edn") this.#opts.packer = ednPacker({ keywords });
    else if (packer === "json") this.#opts.packer = json;
    else if (typeof packer?.pack !== "function") throw new TypeError(`unknown packer ${packer}`);
    if (!["auto", "ws", "ajax"].includes(type)) throw new TypeError(`type is auto, ws or ajax`);
    this.clientId = opts.clientId ?? randomId();
    if (!/^[\w-]{1,64}$/.test(this.clientId)) throw new TypeError("clientId: 1-64 of A-Za-z0-9_-");
    this.chRecv = new RecvChannel(this.#opts.recvBuf);
    this.#path = path ?? meta()?.path ?? "/chsk";
    this.#state = Object.freeze({
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
    });
    this.#host = {
      opts: this.#opts,
      frame: (link, data) => this.#frame(link, data),
      opened: (link) => link === this.#candidate && this.#hold(2),
      wsError: (ev) => this.#set({ lastWsError: { udt: Date.now(), ev } }),
      down: (link, cut) => this.#down(link, cut),
      reply: (item, reply, details) => {
        if (reply !== CLOSED || !this.#keep(item)) this.#reply(item, reply, details);
        else if (this.#state.open) this.#later("again", this.#opts.backoff(0), () => this.#flush());
      },
      unpack: this.#opts.packer.unpack,
      pollParams: (link) => ({
        cursor: (link.cursor = this.#here()),
        resume: this.#resume,
        n: ++this.#polls,
      }),
      http: (method, params, more) => this.#http(method, params, more),
      ask: () => this.#ask(),
      pingMessage: this.#opts.packer.pack([[new Keyword("chsk/ws-ping")], PING]),
      lpTimeoutMs: () =>
        Math.max(this.#opts.lpTimeoutMs, (this.#server["lp-timeout-ms"] ?? 0) + 5_000),
    };
    // Rendered on a server: nothing to connect to, and nobody to wait for it.
    if (globalThis.location || /^https?:/.test(this.#path)) this.connect();
  }

  /** A frozen snapshot; every change makes a new one. */
  get state() {
    return this.#state;
  }

  // Events ------------------------------------------------------------------------------

  /** Call `fn(ev)` for events of this id, "*" for those that no other takes; returns the undo.
   * @param {string} id @param {(ev: any) => any} fn */
  on(id, fn) {
    const fns = this.#handlers.get(id) ?? new Set();
    this.#handlers.set(id, fns.add(fn));
    return () => {
      fns.delete(fn);
      if (!fns.size && this.#handlers.get(id) === fns) this.#handlers.delete(id);
    };
  }

  /** Call `fn(old, now)` on every change of state; returns the undo.
   * @param {(old: any, now: any) => void} fn */
  watch(fn) {
    this.#watchers.add(fn);
    return () => this.#watchers.delete(fn);
  }

  /** Events that no handler took, until destroyed. */
  async *events() {
    for await (const ev of this.chRecv) {
      yield ev.id === "chsk/recv" ? message(ev.data) : ev;
    }
  }

  /** Inject an event, as if it had been pushed. @param {any} event */
  put(event) {
    this.#deliver(assertEvent(event), true);
  }

  /** Whether it left, or waits in line. `cb` gets the reply, or one of the three that are not
   * the server's. @param {any} event @param {any} [a] @param {any} [b] */
  send(event, a, b) {
    const opts = a && typeof a === "object" ? a : { timeoutMs: a, cb: b };
    return this.#send(event, opts);
  }

  /** The reply; rejects with ReplyTimeout, ChannelClosed or ReplyError.
   * @param {any} event @param {any} [opts] @returns {Promise<any>} */
  request(event, opts) {
    return new Promise((resolve, reject) => {
      const id = event?.[0];
      /** @param {any} reply @param {any} details */
      const cb = (reply, details) => {
        if (cbSuccess(reply)) return resolve(reply);
        const why = word(reply);
        if (why === TIMEOUT) reject(new ChskError("ReplyTimeout", `no reply to ${id} in time`));
        else if (why === CLOSED) reject(new ChskError("ChannelClosed", `${id}: not open`));
        else
          reject(
            new ChskError("ReplyError", details?.message ?? `${id} failed`, {
              status: details?.status,
            }),
          );
      };
      this.#send(event, { ...opts, cb });
    });
  }

  // Coming and going --------------------------------------------------------------------

  /** Open, where it is closed. */
  connect() {
    const { status } = this.#state;
    if (status !== "closed" && status !== "refused") return;
    this.#listen();
    this.#tries = 0;
    this.#attempt();
  }

  /** Close, and open again at once: after a login or a logout. */
  reconnect() {
    if (this.#state.status === "destroyed") return;
    this.#hangUp(3000, "requested-reconnect");
    this.#listen();
    this.#attempt();
  }

  /** Close, until `connect()`. */
  disconnect() {
    if (this.#state.status === "destroyed") return;
    this.#hangUp(1000, "requested-disconnect");
    this.#rest("closed");
  }

  /** Close for good: no timer, no listener, no handler stays. */
  destroy() {
    if (this.#state.status === "destroyed") return;
    this.#hangUp(1000, "requested-disconnect");
    this.#rest("destroyed");
    this.#handlers.clear();
    this.#watchers.clear();
    this.chRecv.close();
  }

  /** For tests: as if the network had cut the connection. */
  breakConnection() {
    const link = this.#link ?? this.#candidate;
    if (!link) return;
    link.end(3001);
    this.#down(link, { why: "unexpected" });
  }

  /** @param {number} code @param {string} why */
  #hangUp(code, why) {
    this.#turn++;
    this.#tries = 0;
    this.#renewed = false;
    for (const name of this.#timers.keys()) this.#stop(name);
    for (const link of [this.#link, this.#candidate, this.#draining]) link?.end(code);
    this.#link = this.#candidate = this.#draining = null;
    for (const item of [...this.#pending.values()]) this.#reply(item, CLOSED);
    this.#offline = [];
    if (this.#state.open) this.#set({ lastClose: { udt: Date.now(), reason: why } });
  }

  /** @param {string} status */
  #rest(status) {
    for (const undo of this.#unlisten.splice(0)) undo();
    for (const name of this.#timers.keys()) this.#stop(name);
    this.#set({ status, udtNextReconnect: null });
  }

  /** @param {string} [type] */
  async #attempt(type) {
    const auto = this.#opts.type === "auto";
    type ??= auto ? (this.#downgraded || !this.#opts.WebSocket ? "ajax" : "ws") : this.#opts.type;
    this.#stop("retry");
    this.#set({ status: "connecting", type, udtNextReconnect: null });
    await this.#try(type);
  }

  /** Begin a link of this type; it counts once it is trusted. @param {string} type */
  async #try(type) {
    const turn = ++this.#turn;
    const asked = await this.#ask();
    if (turn !== this.#turn) return;
    try {
      if (!asked) throw new Error("no credentials");
      this.#candidate = type === "ajax" ? new AjaxLink(this.#host) : this.#webSocket();
    } catch (error) {
      report(error);
      if (this.#link) this.#upgradeLater();
      else this.#retry({});
    }
  }

  #webSocket() {
    const { csrf, auth } = this.#credentials;
    const cursor = this.#here();
    const params = { ...this.#params(), cursor, resume: this.#resume, n: ++this.#polls };
    const protocols = [];
    if (csrf) protocols.push(`csrf.${base64url(csrf)}`);
    if (auth) protocols.push(`auth.${base64url(auth)}`);
    // Offered only with something beside it: a browser fails where a server selects none.
    if (protocols.length) protocols.unshift("chsk.v1");
    this.#hold(1);
    const roundTrip = this.#opts.type === "auto";
    return new WsLink(this.#host, withQuery(this.#url(true), params), protocols, cursor, roundTrip);
  }

  /** @param {0 | 1 | 2} hold */
  #hold(hold) {
    if (this.#link instanceof AjaxLink) this.#link.hold(hold);
  }

  /** @param {Link} link */
  #adopt(link) {
    const old = this.#link;
    this.#link = link;
    this.#candidate = null;
    link.trust();
    if (old) {
      old.end();
      this.#upgradedAt = Date.now();
      if (old instanceof AjaxLink && old.busy) this.#draining = old;
    }
    this.#renewed = false;
    this.#later("stable", STABLE_MS, () => (this.#tries = 0));
    this.#downgraded = this.#opts.type === "auto" && link.type === "ajax" && !!this.#opts.WebSocket;
    if (this.#downgraded) this.#upgradeLater();
    else this.#upgradeMs = UPGRADE_MS;
    for (const frame of link.held.splice(0)) {
      if (this.#link === link) this.#receive(link, frame);
    }
  }

  #upgradeLater() {
    this.#later("upgrade", this.#upgradeMs, () => this.#try("ws"));
    this.#upgradeMs = Math.min(this.#upgradeMs * 2, UPGRADE_CAP_MS);
  }

  /** A link ended by itself. @param {Link} link @param {Cut} cut */
  #down(link, cut) {
    const udt = Date.now();
    const { code, reason } = cut;
    if (link.type === "ws") this.#set({ lastWsClose: { udt, code, reason, clean: cut.clean } });
    if (link === this.#candidate) {
      this.#candidate = null;
      if (this.#link) {
        // An upgrade that failed: the poll goes on, and nobody noticed.
        this.#hold(0);
        return this.#upgradeLater();
      }
      if (link.type === "ws" && this.#opts.type === "auto" && !SPOKEN.has(code ?? 0)) {
        this.#set({ lastClose: { udt, reason: "downgrading-ws-to-ajax" } });
        this.#attempt("ajax");
        return;
      }
      this.#downgraded = false; // neither worked, so nothing is known of WebSockets
    } else if (link !== this.#link) return;
    this.#link = null;
    // An upgrade that was under way ends with it; what is next begins afresh.
    this.#turn++;
    this.#candidate?.end();
    this.#candidate = null;
    this.#stop("stable");
    this.#stop("upgrade");
    for (const item of [...this.#pending.values()]) {
      // Posts answer for themselves. What has a key is said again.
      if (item.via === link && link.type === "ws" && !this.#keep(item)) this.#reply(item, CLOSED);
    }
    if (link instanceof AjaxLink && link.busy) this.#draining = link;
    this.#retry(cut);
  }

  /** @param {Cut} cut */
  #retry({ code = 0, reason = "", why = "unexpected", status, message, retryAfterMs }) {
    const udt = Date.now();
    const refused = status === 401 || status === 403;
    const renew = refused && !this.#renewed; // every attempt asks for credentials anew
    this.#renewed ||= refused;
    // Our own switch may cross a poll of ours: then nobody else replaced us.
    const crossed = code === 4001 && udt - this.#upgradedAt < STABLE_MS;
    const final = refused ? !renew && "refused" : !crossed && FINAL[code];
    const lastClose = { udt, reason: final || why, code, status, message: message ?? reason };
    if (final) {
      for (const item of this.#pending.values()) this.#reply(item, CLOSED);
      this.#offline = [];
      this.#set({ lastClose });
      if (refused) log("error", "refused:", message);
      return this.#rest(refused ? "refused" : "closed");
    }
    if (code === 4003) this.#cursor = null;
    const ms =
      retryAfterMs ??
      (renew
        ? 0
        : code === 1012
          ? Math.random() * Number(/spread=([\d.]+)/.exec(reason)?.[1] ?? 2) * 1000
          : this.#opts.backoff(this.#tries++));
    this.#set({ status: "waiting", lastClose, udtNextReconnect: udt + ms });
    // A wait that the server asked for is not cut short by waking up.
    this.#later(retryAfterMs === undefined ? "retry" : "ordered", ms, () => this.#attempt());
  }

  // Frames ------------------------------------------------------------------------------

  /** One message from a link; whether it was an empty one. @param {Link} link @param {any} data */
  #frame(link, data) {
    if (link !== this.#link && link !== this.#candidate) return false;
    let frame;
    try {
      frame = this.#host.unpack(data);
      if (!Array.isArray(frame) || !frame.length) throw new UnpackError("not [value cb]");
    } catch (error) {
      report(error);
      this.#deliver(["chsk/bad-package", data]);
      return false;
    }
    if (link === this.#link) this.#receive(link, frame);
    else {
      // What an untrusted link says counts only when it is trusted: if it fails, the next one
      // begins at the same cursor, and nothing is lost or doubled.
      const [value, cb] = frame;
      const close = eventsOf(value).find((event) => word(event[0]) === "chsk/close");
      if (close) return (this.#closed(link, close[1]), false);
      link.held.push(frame);
      if (cb === PING || (Array.isArray(value) && word(value[0]) === "chsk/handshake")) {
        if (!--link.wants) this.#adopt(link);
      }
    }
    return word(frame[0]) === TIMEOUT;
  }

  /** @param {Link} link @param {any[]} frame */
  #receive(link, [value, cb, third]) {
    const events = eventsOf(value);
    if (typeof third === "string" && !events.length) this.#advance(third);
    if (cb === PING) return this.#deliver(["chsk/ws-pong"]);
    if (cb != null) {
      const item = this.#pending.get(cb);
      return item && this.#reply(item, value, third);
    }
    if (word(value) === "chsk/ws-ping") {
      this.#transmit({ id: null, packed: this.#pack(["chsk/ws-pong"]) });
      return this.#deliver(["chsk/ws-ping"]);
    }
    const [epoch, offsets] = cursorOf(third);
    events.forEach((event, i) => {
      if (this.#link !== link) return; // a handler, or the server, closed it
      const offset = offsets[i];
      if (Number.isSafeInteger(offset)) {
        if (this.#cursor?.epoch === epoch && offset <= this.#cursor.offset) return;
        this.#cursor = { epoch, offset };
      }
      this.#event(link, event);
    });
  }

  /** A frame without events tells how far there is nothing more. @param {string} text */
  #advance(text) {
    const [epoch, [offset]] = cursorOf(text);
    if (this.#cursor?.epoch === epoch && offset > this.#cursor.offset) {
      this.#cursor = { epoch, offset };
    }
  }

  /** @param {Link} link @param {any} event */
  #event(link, event) {
    const id = word(event[0]);
    const data = event[1];
    if (id === "chsk/handshake") this.#handshake(link, data);
    else if (id === "chsk/close") this.#closed(link, data);
    else if (id === "chsk/ask") this.#answer(data);
    else this.#deliver([id, ...event.slice(1)], id !== "chsk/gap");
  }

  /** @param {Link} link @param {any} data */
  #handshake(link, [uid, csrf, data = null, server]) {
    const { everOpened, status } = this.#state;
    if (word(uid) === "sente/nil-uid") uid = null;
    this.#server = server ?? {};
    const { cursor, resume, recovered } = this.#server;
    this.#resume = resume ?? this.#resume;
    const gap = link.cursor !== null && recovered === false;
    // Where it is recovered, what was missed is still to come: above our own cursor.
    if (cursor && !(this.#cursor && recovered)) {
      const [epoch, [offset]] = cursorOf(cursor);
      if (Number.isSafeInteger(offset)) this.#cursor = { epoch, offset };
    }
    this.#credentials.csrf ??= csrf;
    this.#set({
      status: "open",
      type: link.type,
      everOpened: true,
      firstOpen: !everOpened,
      uid,
      csrfToken: this.#credentials.csrf ?? null,
      handshakeData: data,
      udtNextReconnect: null,
    });
    this.#deliver(["chsk/handshake", [uid, csrf, data]]);
    if (gap) this.#deliver(["chsk/gap"]);
    if (status !== "open") this.#flush();
  }

  /** The server closes, over a link that has no close frames. @param {Link} link @param {any} data */
  #closed(link, data) {
    link.end();
    const { code = 1000, reason = "" } = data ?? {};
    this.#down(link, { code, reason, why: "clean", clean: true });
  }

  /** @param {any} ask */
  async #answer([id, event]) {
    const name = word(event[0]);
    let answer;
    try {
      const [fn] = this.#handlers.get(name) ?? this.#handlers.get("*") ?? [];
      if (!fn) throw new Error(`no handler for ${name}`);
      answer = this.#pack(["chsk/answer", [id, await fn(message([name, ...event.slice(1)]))]]);
    } catch (error) {
      report(error);
      const why = String(/** @type {any} */ (error)?.message ?? error);
      answer = this.#pack(["chsk/answer", [id, null, why]]);
    }
    this.#transmit({ id: null, packed: answer });
  }

  /** To the handlers of its id, else of "*", else into `chRecv`.
   * @param {any} event @param {boolean} [pushed] */
  #deliver(event, pushed = false) {
    const [id] = event;
    const own = this.#handlers.get(id);
    const keepAlive = id === "chsk/ws-ping" || id === "chsk/ws-pong";
    const fns = own ?? (keepAlive ? [] : this.#handlers.get("*"));
    if (fns) for (const fn of [...fns]) guarded(() => fn(message(event)));
    else this.chRecv.put(message(pushed && this.#opts.wrapRecv ? ["chsk/recv", event] : event));
  }

  // Sending -----------------------------------------------------------------------------

  /** @param {any} event @param {any} opts */
  #send(event, { cb, timeoutMs = 10_000, key }) {
    assertEvent(event);
    const id = cb || key !== undefined ? `c${++this.#sends}` : null;
    const packed = this.#pack(event, id, key);
    /** @type {Item} */
    const item = { id, packed, cb, key, timeoutMs, name: word(event[0]) };
    const { status } = this.#state;
    const waits =
      (status === "connecting" || status === "waiting") &&
      this.#offline.length < this.#opts.offlineQueue;
    if (status !== "open" && !waits) {
      queueMicrotask(() => answer(item, CLOSED));
      return false;
    }
    if (id) {
      this.#pending.set(id, item);
      item.timer = setTimeout(() => this.#reply(item, TIMEOUT), timeoutMs);
    }
    if (waits) this.#offline.push(item);
    else return this.#transmit(item);
    return true;
  }

  /** @param {any} event @param {string | null} [cb] @param {any} [key] */
  #pack(event, cb = null, key) {
    /** @type {any[]} */
    const whole = [[new Keyword(word(event[0])), ...event.slice(1)], cb];
    if (key !== undefined) whole.push({ key });
    let packed;
    try {
      packed = this.#opts.packer.pack(whole);
    } catch (error) {
      if (error instanceof PackError) error.message = error.message.replace("value[0][1]", "data");
      throw error;
    }
    const limit = this.#server["max-bytes"] ?? Infinity;
    // Characters are up to three bytes: count only what could be too much.
    const size = packed.byteLength ?? packed.length;
    if (
      size * 3 > limit &&
      (packed.byteLength ?? new TextEncoder().encode(packed).length) > limit
    ) {
      throw new PackError(`${word(event[0])}: over the ${limit} bytes that the server takes`);
    }
    return packed;
  }

  /** @param {Item} item */
  #transmit(item) {
    // What was sent before the WebSocket took over arrives before what is sent now.
    if (!this.#draining?.busy) this.#draining = null;
    item.via = this.#draining ?? this.#link ?? undefined;
    const sent = !!item.via?.send(item);
    if (!sent) this.#reply(item, CLOSED);
    return sent;
  }

  /** Send what waited for the opening. */
  #flush() {
    for (const item of this.#offline.splice(0)) {
      if (!item.id || this.#pending.has(item.id)) this.#transmit(item);
    }
  }

  /** Whether this item may be said again, after a cut. @param {Item} item */
  #keep(item) {
    const keeps = item.key !== undefined && !!item.id && this.#pending.has(item.id);
    if (keeps) this.#offline.push(item);
    return keeps;
  }

  /** @param {Item} item @param {any} reply @param {any} [details] */
  #reply(item, reply, details) {
    if (!item.id || !this.#pending.delete(item.id)) return;
    clearTimeout(item.timer);
    answer(item, reply, details);
  }

  // Circumstances -----------------------------------------------------------------------

  #here() {
    return this.#cursor && `${this.#cursor.epoch}:${this.#cursor.offset}`;
  }

  #params() {
    return {
      ...this.#opts.params,
      "client-id": this.clientId,
      udt: Date.now(),
      packer: this.#opts.packer.name,
      v: 1,
    };
  }

  /** @param {boolean} websocket */
  #url(websocket) {
    return this.#opts.chskUrl(this.#path, globalThis.location, websocket);
  }

  /** @param {string} method @param {any} params @param {any} more */
  #http(method, params, more) {
    const { ajaxOpts, headers, packer, fetch } = this.#opts;
    const { csrf, auth } = this.#credentials;
    return http(fetch, this.#url(false), {
      ...ajaxOpts,
      ...more,
      method,
      params: { ...ajaxOpts?.params, ...this.#params(), ...params },
      headers: {
        ...ajaxOpts?.headers,
        ...headers,
        ...(csrf && { "X-CSRF-Token": csrf }),
        ...(auth && { Authorization: `Bearer ${auth}` }),
        ...(more.body !== undefined && { "Content-Type": "application/octet-stream" }),
      },
      respType: packer.binary ? "binary" : "text",
    });
  }

  /** Ask the page, or the application, for its credentials; whether they were had. */
  async #ask() {
    const { csrfToken = meta()?.csrfToken, auth } = this.#opts;
    try {
      const asked = [csrfToken, auth].map((x) => (typeof x === "function" ? x() : x));
      const [csrf, bearer] = await Promise.all(asked);
      this.#credentials = { csrf, auth: bearer };
      return true;
    } catch (error) {
      report(error);
      return false;
    }
  }

  /** @param {any} patch */
  #set(patch) {
    const old = this.#state;
    if (Object.keys(patch).every((k) => old[k] === patch[k])) return;
    const now = { ...old, ...patch };
    now.open = now.status === "open";
    this.#state = Object.freeze(now);
    for (const fn of [...this.#watchers]) guarded(() => fn(old, now));
    this.#deliver(["chsk/state", now]);
  }

  /** @param {string} name @param {number} ms @param {() => void} fn */
  #later(name, ms, fn) {
    this.#stop(name);
    const run = () => (this.#timers.delete(name), fn());
    this.#timers.set(name, setTimeout(run, ms));
  }

  /** @param {string} name */
  #stop(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }

  /** Notice when waiting any longer makes no sense, or silence may mean a sleep. */
  #listen() {
    const tick = (/** @type {number} */ due) =>
      this.#later("tick", TICK_MS, () => {
        const now = Date.now();
        if (now - due > TICK_MS) this.#wake(true); // timers stand still in a machine that sleeps
        tick(now + TICK_MS);
      });
    tick(Date.now() + TICK_MS);
    if (this.#unlisten.length) return;
    /** @param {any} target @param {string} name @param {() => void} fn */
    const add = (target, name, fn) => {
      if (!target?.addEventListener) return;
      target.addEventListener(name, fn);
      this.#unlisten.push(() => target.removeEventListener(name, fn));
    };
    const page = globalThis.document;
    add(globalThis, "online", () => this.#wake(true));
    add(globalThis, "pageshow", () => this.#wake(false));
    add(page, "visibilitychange", () => page.visibilityState === "visible" && this.#wake(false));
  }

  /** @param {boolean} hard whether what is open may be dead */
  #wake(hard) {
    if (this.#timers.has("retry")) this.#attempt();
    this.#link?.probe(hard);
  }
}

// Small things ---------------------------------------------------------------------------

/** @param {any} event */
const message = (event) => ({ id: event[0], data: event[1], event });

/** The events in a frame's value: a vector of them, or one. @param {any} value @returns {any[][]} */
function eventsOf(value) {
  if (!Array.isArray(value) || !value.length) return [];
  return Array.isArray(value[0]) ? value : [value];
}

/** `"e7f3:1042,+1,+7"` as its epoch and offsets. @param {any} text @returns {[string, number[]]} */
function cursorOf(text) {
  const [epoch, list = "x"] = typeof text === "string" ? text.split(":") : [""];
  let at = 0;
  return [epoch, list.split(",").map((step) => (at += Number(step)))];
}

/** @param {Item} item @param {any} reply @param {any} [details] */
function answer({ cb, name }, reply, details) {
  if (typeof cb === "function") guarded(() => cb(reply, details));
  else if (cb) guarded(() => cb.put([`${name}.cb`, reply]));
}

/** @returns {any} */
const meta = () =>
  /** @type {any} */ (globalThis.document?.querySelector?.('meta[name="chsk"]'))?.dataset;

function randomId() {
  const bytes = new Uint8Array(16);
  // Ids open nothing (PROTOCOL 9): without a crypto, chance has to do.
  if (globalThis.crypto) crypto.getRandomValues(bytes);
  else bytes.forEach((_, i) => (bytes[i] = Math.random() * 256));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

/** @param {any} text */
function base64url(text) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(String(text)));
  return btoa(bytes).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
}

// The seed's functions -------------------------------------------------------------------

/** The seed's map of parts. @param {string} [path] @param {any} [opts] */
export function makeChannelSocket(path, opts) {
  const chsk = new ChannelSocket(path, opts);
  return {
    chsk,
    chRecv: chsk.chRecv,
    /** @param {[any, any?, any?]} args */
    sendFn: (...args) => chsk.send(...args),
    get state() {
      return chsk.state;
    },
  };
}

/** @param {ChannelSocket} chsk @param {[any, any?, any?]} args */
export const chskSend = (chsk, ...args) => chsk.send(...args);
/** @param {ChannelSocket} chsk */
export const chskInit = (chsk) => chsk.connect();
/** @param {ChannelSocket} chsk */
export const chskReconnect = (chsk) => chsk.reconnect();
/** @param {ChannelSocket} chsk */
export const chskDestroy = (chsk) => chsk.destroy();
