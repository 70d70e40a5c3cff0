// A socket and a fetch that do what a test says, and a clock that is turned by hand.

import { webcrypto } from "node:crypto";
import { mock } from "node:test";

import { ChannelSocket, setLoggingLevel } from "../../flask_chsk/static/chsk.js";

setLoggingLevel("silent");
globalThis.crypto ??= webcrypto; // before Node 20

export const PATH = "http://example.org/chsk";
export const HANDSHAKE = '[[:chsk/handshake ["ann" nil nil {:cursor "e1:10" :resume "tok"}]] nil]';

export class FakeSocket {
  /** @type {FakeSocket[]} */ static all = [];
  readyState = 0;
  /** @type {any[]} */ sent = [];
  closedWith = null;

  constructor(url, protocols) {
    this.url = new URL(url);
    this.protocols = protocols;
    FakeSocket.all.push(this);
  }
  get params() {
    return Object.fromEntries(this.url.searchParams);
  }
  /** What a subprotocol carries, such as `secret`; undefined where it is not offered. */
  shown(name) {
    return this.protocols.find((one) => one.startsWith(`${name}.`))?.slice(name.length + 1);
  }
  send(data) {
    this.sent.push(data);
  }
  close(code) {
    this.closedWith = code;
    this.readyState = 3;
  }

  // What the other side does:
  open() {
    this.readyState = 1;
    this.onopen?.({});
  }
  says(data) {
    this.onmessage?.({ data });
  }
  drops(code = 1006, reason = "", wasClean = code !== 1006) {
    this.readyState = 3;
    if (!wasClean) this.onerror?.({ type: "error" });
    this.onclose?.({ code, reason, wasClean });
  }
  /** Up to the point where it is trusted. */
  opens(handshake = HANDSHAKE, pong = '["pong" "ping"]') {
    this.open();
    this.says(handshake);
    this.says(pong);
    this.sent.shift(); // the ping
  }
}

/** One fetch that somebody waits for. */
class Call {
  constructor(url, init) {
    const at = new URL(url);
    this.url = at;
    this.method = init.method.toUpperCase();
    this.headers = init.headers;
    this.params = Object.fromEntries(
      init.body instanceof URLSearchParams ? init.body : at.searchParams,
    );
    this.body = init.body;
    this.credentials = init.credentials;
    this.aborted = false;
    this.done = false;
    this.answered = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    init.signal.addEventListener("abort", () => {
      this.aborted = true;
      this.reject(new DOMException("aborted", "AbortError"));
    });
  }
  answers(body, status = 200, headers = { "content-type": "application/edn" }) {
    this.done = true;
    this.resolve(new Response(body, { status, headers }));
    this.rest?.enqueue(new TextEncoder().encode(body));
    this.rest?.close();
    return settle();
  }
  /** Nothing but the head; then it answers. */
  begins() {
    const body = new ReadableStream({ start: (rest) => (this.rest = rest) });
    this.resolve(new Response(body));
    return settle();
  }
  fails() {
    this.done = true;
    this.reject(new TypeError("network"));
    return settle();
  }
}

/** Until nothing is left to do but wait. */
export async function settle() {
  for (let i = 0; i < 8; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** Whose timers of the mocked clock are running; ends with the mock. */
function countTimers() {
  const { setTimeout, clearTimeout } = globalThis;
  const running = new Set();
  globalThis.setTimeout = (fn, ms) => {
    const timer = setTimeout(() => {
      running.delete(timer);
      fn();
    }, ms);
    running.add(timer);
    return timer;
  };
  globalThis.clearTimeout = (timer) => {
    running.delete(timer);
    clearTimeout(timer);
  };
  return running;
}

/** A channel socket in a world of its own; ends with the test. `handshake` and `pong` are what the
 * server says. */
export async function world(t, { handshake, pong, ...opts } = {}) {
  FakeSocket.all = [];
  const calls = [];
  const fetch = (url, init) => {
    const call = new Call(url, init);
    calls.push(call);
    return call.answered;
  };
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  const timers = countTimers();
  const chsk = new ChannelSocket(PATH, {
    WebSocket: FakeSocket,
    fetch,
    clientId: "cid",
    backoff: () => 1000,
    ...opts,
  });
  t.after(async () => {
    chsk.destroy();
    await settle(); // what ends now starts nothing on the real clock
    mock.timers.reset();
  });
  await settle();
  const here = {
    chsk,
    fetch,
    calls,
    gets: () => calls.filter((call) => call.method === "GET"),
    posts: () => calls.filter((call) => call.method === "POST"),
    sockets: FakeSocket.all,
    timers,
    /** Connections that are not closed, and polls that wait for their end. */
    connections: () =>
      FakeSocket.all.filter((one) => one.readyState !== 3).length +
      here.gets().filter((call) => !call.aborted && !call.done).length,
    get socket() {
      return FakeSocket.all.at(-1);
    },
    get get() {
      return here.gets().at(-1);
    },
    get post() {
      return here.posts().at(-1);
    },
    /** Ids and data of what arrives from now on, states and keep-alives left out. */
    heard() {
      const events = [];
      chsk.on("*", (ev) => {
        if (!/^chsk\/(state|ws-)/.test(ev.id)) events.push(ev.event);
      });
      return events;
    },
    /** Time passes, second by second; in a leap it is what a machine sees that slept. */
    async tick(ms, step = 1000) {
      for (; ms > 0; ms -= step) {
        mock.timers.tick(Math.min(step, ms));
        await settle();
      }
    },
    /** Time passes while the server ends each poll after 20 s. */
    async idles(ms) {
      for (; ms > 20_000; ms -= 20_000) {
        await here.tick(20_000);
        await here.get.answers("[:chsk/timeout nil]");
      }
      await here.tick(ms);
    },
    sleeps: (ms) => here.tick(ms, ms),
  };
  return here;
}

/** An open one, over a WebSocket. */
export async function overWs(t, opts) {
  const here = await world(t, { type: "ws", ...opts });
  here.socket.opens(opts?.handshake, opts?.pong);
  await settle();
  return here;
}

/** An open one, over Ajax, with its poll parked. */
export async function overAjax(t, opts) {
  const here = await world(t, { type: "ajax", ...opts });
  await here.get.answers(opts?.handshake ?? HANDSHAKE);
  return here;
}
