// Whatever an application calls, from whatever place it is called back: what is left is as asked.

import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";

import { setLoggingLevel } from "../../flask_chsk/static/chsk.js";
import { HANDSHAKE, world } from "./fakes.mjs";

/** What an application may call, and the status that is right after it in place of its own. */
const CALLS = {
  connect: [(chsk) => chsk.connect(), { closed: "open" }],
  reconnect: [(chsk) => chsk.reconnect(), { closed: "open" }],
  disconnect: [(chsk) => chsk.disconnect(), { open: "closed" }],
  "disconnect, then connect": [(chsk) => (chsk.disconnect(), chsk.connect()), { closed: "open" }],
  destroy: [(chsk) => chsk.destroy(), { open: "destroyed", closed: "destroyed" }],
  breakConnection: [(chsk) => chsk.breakConnection(), {}],
  send: [(chsk) => chsk.send(["a/said", 1]), {}],
  "send, with a callback": [(chsk) => chsk.send(["a/said", 1], 1000, () => {}), {}],
  request: [(chsk) => void chsk.request(["a/asked", 1], { timeoutMs: 1000 }).catch(() => {}), {}],
  put: [(chsk) => chsk.put(["a/put", 1]), {}],
  on: [(chsk) => chsk.on("a/other", () => {}), {}],
  once: [(chsk) => chsk.once("a/other", () => {}), {}],
  off: [(chsk) => chsk.off("a/other"), {}],
  ready: [(chsk) => void chsk.ready({ timeoutMs: 1000 }).catch(() => {}), {}],
  watch: [(chsk) => chsk.watch(() => {}), {}],
};

/** Where an application is called back: `options(call)` and `listen(chsk, call)` see to it. */
const PLACES = {
  ...Object.fromEntries(
    ["connecting", "open", "waiting", "closed"].flatMap((status) => [
      [
        `watch: ${status}`,
        { listen: (chsk, call) => chsk.watch((_, now) => now.status === status && call()) },
      ],
      [
        `chsk/state: ${status}`,
        { listen: (chsk, call) => chsk.on("chsk/state", ({ data }) => data.status === status && call()) },
      ],
    ]),
  ),
  "chsk/handshake": { listen: (chsk, call) => chsk.on("chsk/handshake", call) },
  "a handler": { listen: (chsk, call) => chsk.on("a/x", call) },
  "the handler of all": { listen: (chsk, call) => chsk.on("*", call) },
  "a handler that is asked": { listen: (chsk, call) => chsk.on("a/asks", call) },
  "an event of chRecv": { listen: (chsk, call) => chsk.chRecv.take().then(call) },
  "a reply": { listen: (chsk, call) => (chsk.test = { replied: call }) },
  "a reply that never came": { listen: (chsk, call) => (chsk.test = { rejected: call }) },
  backoff: { options: (call) => ({ backoff: () => (call(), 1000) }) },
  csrfToken: { options: (call) => ({ csrfToken: () => (call(), "token") }) },
  auth: { options: (call) => ({ auth: async () => (await null, call(), "token") }) },
  chskUrl: {
    options: (call) => ({
      chskUrl: (path, _, websocket) => (call(), websocket ? path.replace("http", "ws") : path),
    }),
  },
};

/** Time passes, and the server answers whatever is asked. */
async function serve(here, seconds = 3) {
  for (let round = 0; round < seconds * 2; round++) {
    for (const socket of here.sockets.filter((one) => one.readyState !== 3)) {
      if (!socket.readyState) {
        if (here.websockets) socket.opens();
        else socket.drops();
      }
      for (const message of socket.sent.splice(0)) {
        const [, cb] = /"(c[0-9]+|ping)"/.exec(message) ?? [];
        if (cb) socket.says(`["reply" "${cb}"]`);
      }
    }
    for (const call of here.calls.filter((one) => !one.done && !one.aborted)) {
      if (call.method === "POST") call.answers('["reply" nil]');
      else if (call.params["handshake?"]) call.answers(HANDSHAKE);
    }
    await here.tick(500);
  }
}

let offset = 10;

/** The server says `event`, over what is open. */
async function push(here, event) {
  const frame = `[[${event}] nil "e1:${++offset}"]`;
  if (here.chsk.state.type === "ws") here.socket?.says(frame);
  else await here.get?.answers(frame);
}

/** A life with all that happens in one: `place` is where `call(chsk)` is made, once. */
async function live(t, { blocked, closes, ...opts }, { options, listen } = {}, call) {
  let here;
  let [calls, armed] = [0, false];
  const once = () => {
    if (armed && !calls++) call?.(here.chsk);
  };
  here = await world(t, { ...opts, ...options?.(once) });
  here.websockets = opts.type !== "ajax" && !blocked;
  armed = true;
  const { chsk } = here;
  listen?.(chsk, once);
  chsk.on("a/asks", () => "answer");
  await serve(here);
  chsk.send(["a/first", 1], 1000, () => chsk.test?.replied?.());
  await serve(here, 1);
  await push(here, "[:a/x 1]");
  await push(here, '[:chsk/ask ["q1" [:a/asks 1]]]');
  await push(here, "[:a/x 2]");
  await serve(here, 1);
  chsk.send(["a/second", 1], 1000, (reply) => reply === "chsk/closed" && chsk.test?.rejected?.());
  if (chsk.state.type === "ws") here.socket?.drops();
  else await here.get?.fails();
  await here.tick(0);
  chsk.send(["a/third", 1], 1000, (reply) => reply === "chsk/closed" && chsk.test?.rejected?.());
  await serve(here);
  if (closes) chsk.disconnect();
  await serve(here);
  return { here, calls };
}

/** What is left of one, after all. */
const left = (here) => ({
  status: here.chsk.state.status,
  open: here.chsk.state.open,
  connections: here.connections(),
  timers: here.timers.size,
});

for (const [transport, opts] of Object.entries({
  "a WebSocket": { type: "ws" },
  Ajax: { type: "ajax" },
  "Ajax in place of a WebSocket": { type: "auto", blocked: true },
})) {
  describe(`over ${transport}, an application may call`, () => {
    for (const [name, [call, others]] of Object.entries(CALLS)) {
      it(`${name}, from anywhere`, async (t) => {
        const errors = t.mock.method(console, "error", () => {});
        setLoggingLevel("error");
        t.after(() => setLoggingLevel("silent"));
        /** How often it was called, and what is left, of a life with `call` at `place`. */
        const ends = async (closes, ...args) => {
          const { here, calls } = await live(t, { ...opts, closes }, ...args);
          const rest = left(here);
          here.chsk.destroy();
          await here.tick(0);
          mock.timers.reset();
          return { calls, ...rest };
        };
        const { calls: none, ...open } = await ends(false);
        assert.equal(open.status, "open");
        const gone = { open: false, connections: 0, timers: 0 };
        for (const [where, place] of Object.entries(PLACES)) {
          const closes = where.endsWith("closed");
          const status = others[closes ? "closed" : "open"] ?? (closes ? "closed" : "open");
          const { calls, ...now } = await ends(closes, place, call);
          assert.equal(calls > none, true, `${where} was never called`);
          const wanted = status === "open" ? open : { ...gone, status };
          assert.deepEqual(now, wanted, `${name} from ${where}`);
        }
        const ours = errors.mock.calls.filter((one) => one.arguments[0] === "chsk:");
        assert.deepEqual(ours.map((one) => one.arguments[1]), []);
      });
    }
  });
}

describe("an application that reconnects whenever it is told something", () => {
  it("connects once, and does not stop the page", async (t) => {
    const here = await world(t, { type: "ws" });
    here.chsk.watch((_, now) => now.open || here.chsk.reconnect());
    here.socket.drops();
    await here.tick(5000);
    assert.equal(here.chsk.state.status, "connecting");
    assert.equal(here.connections(), 1);
    here.socket.opens();
    assert.equal(here.chsk.state.status, "open");
  });
});
