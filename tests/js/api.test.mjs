// What applications expect of a client: to wait for it, to end what was begun, to hear of errors.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { ChannelSocket } from "../../flask_chsk/static/chsk.js";
import { HANDSHAKE, overAjax, overWs, settle, world } from "./fakes.mjs";

const RECOVERED = '[[:chsk/handshake ["ann" nil nil {:cursor "e1:10" :recovered true}]] nil]';

/** How `promise` ended: its value, or the error. */
const outcome = (promise) => promise.catch((error) => error);

/** A window.onerror, as far as `reportError` goes. */
function reported(t) {
  const errors = [];
  globalThis.reportError = (error) => void errors.push(error.message);
  t.after(() => delete globalThis.reportError);
  return errors;
}

describe("connect: false", () => {
  it("connects when connect() is called", async (t) => {
    const here = await world(t, { type: "ws", connect: false });
    assert.equal(here.chsk.state.status, "closed");
    assert.equal(here.sockets.length, 0);
    here.chsk.connect();
    await settle();
    here.socket.opens(HANDSHAKE);
    assert.equal(here.chsk.state.open, true);
  });
});

describe("ready()", () => {
  it("gives the state once it is open, and when it is", async (t) => {
    const here = await world(t, { type: "ws" });
    const ready = here.chsk.ready();
    here.socket.opens(HANDSHAKE);
    assert.equal((await ready).uid, "ann");
    assert.equal(await here.chsk.ready(), here.chsk.state);
    assert.equal(here.timers.size, 2); // keep-alive, and the look whether the machine slept
  });

  it("waits while it tries again", async (t) => {
    const here = await overWs(t);
    here.socket.drops();
    const ready = here.chsk.ready();
    await here.tick(1000);
    here.socket.opens(RECOVERED);
    assert.equal((await ready).open, true);
  });

  it("rejects in time, and says how the connection ended", async (t) => {
    const here = await overWs(t, { backoff: () => 60_000 });
    here.socket.drops(1011, "oops");
    const ready = outcome(here.chsk.ready({ timeoutMs: 5000 }));
    await here.tick(5000);
    const { name, message, cause } = await ready;
    assert.deepEqual([name, message], ["ChannelClosed", "not open within 5000 ms"]);
    assert.deepEqual([cause.code, cause.message], [1011, "oops"]);
  });

  for (const [status, end] of Object.entries({
    closed: (here) => here.socket.drops(4005, "signed out"),
    destroyed: (here) => here.chsk.destroy(),
  })) {
    it(`rejects where it is ${status}, at once and from then on`, async (t) => {
      const here = await world(t, { type: "ws" });
      const waits = outcome(here.chsk.ready());
      end(here);
      await settle();
      for (const ready of [waits, outcome(here.chsk.ready())]) {
        const { name, message } = await ready;
        assert.deepEqual([name, message], ["ChannelClosed", `it is ${status}`]);
      }
    });
  }

  it("rejects with the reason of its signal", async (t) => {
    const here = await world(t, { type: "ws" });
    const abort = new AbortController();
    const ready = outcome(here.chsk.ready({ signal: abort.signal }));
    const before = here.timers.size;
    abort.abort(new Error("left"));
    assert.equal((await ready).message, "left");
    assert.equal(here.timers.size, before - 1);
    assert.equal((await outcome(here.chsk.ready({ signal: abort.signal }))).message, "left");
  });
});

describe("connect() after destroy()", () => {
  it("begins anew with what it was, as StrictMode does it", async (t) => {
    const here = await world(t, { type: "ws", connect: false });
    const { chsk } = here;
    const said = [];
    const effect = () => {
      chsk.on("a/said", ({ data }) => said.push(data));
      chsk.connect();
      return () => chsk.destroy();
    };
    effect()();
    effect();
    await settle();
    assert.equal(here.sockets.length, 1); // that of the effect before was never opened
    here.socket.opens(HANDSHAKE);
    here.socket.says('[[[:a/said 1]] nil "e1:11"]');
    assert.deepEqual(said, [1]);
    assert.equal(chsk.state.open, true);
  });

  it("has its client id, its cursor and its timers again", async (t) => {
    const here = await overWs(t);
    const [{ params, protocols }] = here.sockets;
    here.socket.says('[[[:a/x 1]] nil "e1:11"]');
    here.chsk.destroy();
    await here.tick(60_000);
    assert.equal(here.timers.size, 0);
    here.chsk.connect();
    await settle();
    assert.equal(here.socket.params["client-id"], params["client-id"]);
    assert.equal(here.socket.params.cursor, "e1:11");
    assert.equal(here.socket.protocols[1], protocols[1]); // the secret
    here.socket.opens(RECOVERED);
    here.socket.drops();
    await here.tick(1000);
    assert.equal(here.sockets.length, 3);
  });

  it("posts, and keeps events that nobody takes", async (t) => {
    const here = await overAjax(t);
    here.chsk.destroy();
    here.chsk.connect();
    await settle();
    await here.get.answers(HANDSHAKE);
    const reply = here.chsk.request(["a/b"]);
    await settle();
    await here.post.answers('["done" nil]');
    assert.equal(await reply, "done");
    assert.equal((await here.chsk.chRecv.take()).id, "chsk/state");
  });

  it("does so, too, in the function that destroyed it", async (t) => {
    const here = await overWs(t);
    here.chsk.on("a/again", () => (here.chsk.destroy(), here.chsk.connect()));
    here.socket.says("[[[:a/again]] nil]");
    await settle();
    here.socket.opens(RECOVERED);
    assert.equal(here.chsk.state.open, true);
    assert.equal(here.sockets.length, 2);
  });

  it("stays destroyed without it", async (t) => {
    const here = await overWs(t);
    here.chsk.destroy();
    here.chsk.reconnect();
    await settle();
    assert.equal(here.chsk.state.status, "destroyed");
    assert.equal(here.sockets.length, 1);
  });
});

describe("a handler", () => {
  it("of once() is called once", async (t) => {
    const { chsk, socket } = await overWs(t);
    const heard = [];
    chsk.once("a/x", ({ data }) => heard.push(data));
    const undo = chsk.once("a/y", ({ data }) => heard.push(data));
    undo();
    socket.says("[[[:a/x 1] [:a/x 2] [:a/y 3]] nil]");
    assert.deepEqual(heard, [1]);
  });

  it("of once() answers one question", async (t) => {
    const { chsk, socket } = await overWs(t);
    chsk.once("a/asks", ({ data }) => data + 1);
    socket.says('[[[:chsk/ask ["q1" [:a/asks 1]]]] nil]');
    await settle();
    assert.match(socket.sent.at(-1), /\["q1" 2\]/);
    socket.says('[[[:chsk/ask ["q2" [:a/asks 1]]]] nil]');
    await settle();
    assert.match(socket.sent.at(-1), /\["q2" nil "Error: no handler for a\/asks"\]/);
  });

  it("is removed by off(), alone or with all of its id", async (t) => {
    const { chsk, socket } = await overWs(t);
    const heard = [];
    const one = () => heard.push(1);
    for (const fn of [one, () => heard.push(2), () => heard.push(3)]) chsk.on("a/x", fn);
    chsk.once("a/y", one);
    chsk.off("a/x", one);
    chsk.off("a/y", one);
    chsk.off("a/unknown", one);
    socket.says("[[[:a/x] [:a/y]] nil]");
    chsk.off("a/x");
    socket.says("[[[:a/x]] nil]");
    assert.deepEqual(heard, [2, 3]);
  });

  it("of onAny() hears every event before the others, and takes none", async (t) => {
    const { chsk, socket, tick } = await overWs(t);
    const heard = [];
    chsk.on("a/x", () => heard.push("handler"));
    const undo = chsk.onAny(({ id, data }) => heard.push(id, data));
    socket.says("[[[:a/x 1] [:a/y 2]] nil]");
    chsk.put(["a/own", 3]);
    await tick(25_000);
    socket.says('["pong" "ping"]'); // keep-alive is not told
    undo();
    socket.says("[[[:a/y 4]] nil]");
    assert.deepEqual(heard, ["a/x", 1, "handler", "a/y", 2, "a/own", 3]);
    const rest = [];
    for (let i = 0; i < 6; i++) rest.push((await chsk.chRecv.take()).event[1]);
    assert.deepEqual(rest.slice(3), [["a/y", 2], ["a/own", 3], ["a/y", 4]]);
  });

  it("has to be a function, of an id with a namespace", async (t) => {
    const { chsk } = await overWs(t);
    assert.throws(() => chsk.once("say", () => {}), /on\("say"\): an id has a namespace/);
    for (const name of ["once", "on"]) assert.throws(() => chsk[name]("a/x", 7), /not a function: 7/);
    for (const name of ["onAny", "onError"]) assert.throws(() => chsk[name](), /not a function/);
  });
});

describe("an AbortSignal", () => {
  it("removes handlers and watchers", async (t) => {
    const { chsk, socket } = await overWs(t);
    const abort = new AbortController();
    const heard = [];
    const until = { signal: abort.signal };
    chsk.on("a/x", () => heard.push("on"), until);
    chsk.once("a/x", () => heard.push("once"), until);
    chsk.onAny(() => heard.push("any"), until);
    chsk.onError(() => heard.push("error"), until);
    chsk.watch(() => heard.push("watch"), until);
    abort.abort();
    for (const name of ["on", "once"]) chsk[name]("a/x", () => heard.push("late"), until);
    socket.says("[[[:a/x]] nil]");
    chsk.disconnect();
    assert.deepEqual(heard, []);
  });

  it("rejects a request, whose reply is ignored then", async (t) => {
    const { chsk, socket, timers } = await overWs(t);
    const abort = new AbortController();
    const before = timers.size;
    const reply = outcome(chsk.request(["a/b"], { signal: abort.signal }));
    assert.equal(timers.size, before + 1);
    abort.abort();
    assert.equal((await reply).name, "AbortError");
    assert.equal(timers.size, before);
    socket.says('["late" "c1"]');
    assert.equal(chsk.state.open, true);
  });

  it("keeps a request that waits from leaving", async (t) => {
    const here = await world(t, { type: "ws" });
    const abort = new AbortController();
    const aborted = outcome(here.chsk.request(["a/b", 1], { signal: abort.signal }));
    const reply = here.chsk.request(["a/b", 2]);
    abort.abort(new Error("left"));
    assert.equal((await aborted).message, "left");
    here.socket.opens(HANDSHAKE);
    assert.deepEqual(here.socket.sent, ['[[:a/b 2] "c2"]']);
    here.socket.says('["done" "c2"]');
    assert.equal(await reply, "done");
    const never = await outcome(here.chsk.request(["a/b", 3], { signal: abort.signal }));
    assert.equal(never.message, "left");
    assert.equal(here.socket.sent.length, 1);
  });

  it("is not listened to any more when the reply is there", async (t) => {
    const { chsk, socket } = await overWs(t);
    const { signal } = new AbortController();
    let listeners = 0;
    t.mock.method(signal, "addEventListener", () => listeners++);
    t.mock.method(signal, "removeEventListener", () => listeners--);
    const reply = chsk.request(["a/b"], { signal });
    assert.equal(listeners, 1);
    socket.says('["done" "c1"]');
    assert.equal(await reply, "done");
    assert.equal(listeners, 0);
  });

  it("ends an iteration over events, waiting or not", async (t) => {
    const { chsk, socket } = await overWs(t);
    const abort = new AbortController();
    const heard = [];
    const all = (async () => {
      for await (const ev of chsk.events({ signal: abort.signal })) heard.push(ev.id);
    })();
    await settle();
    socket.says("[[[:a/x]] nil]");
    await settle();
    abort.abort();
    await all;
    socket.says("[[[:a/y]] nil]");
    assert.equal(heard.at(-1), "a/x");
    assert.equal((await chsk.chRecv.take()).id, "chsk/recv");
  });
});

describe("an error", () => {
  it("of the application's functions is told to onError and to window.onerror", async (t) => {
    const global = reported(t);
    const { chsk, socket } = await overWs(t);
    const heard = [];
    const fail = (what) => () => {
      throw new Error(what);
    };
    chsk.onError((error) => heard.push(error.message));
    chsk.onError(fail("of onError"));
    chsk.on("a/x", fail("handler"));
    chsk.on("a/x", async () => fail("promise")());
    chsk.onAny((ev) => ev.id === "a/x" && fail("any")());
    chsk.send(["a/b"], 1000, fail("callback"));
    socket.says("[[[:a/x]] nil]");
    socket.says('[1 "c1"]');
    chsk.on("a/asks", fail("answer"));
    socket.says('[[[:chsk/ask ["q1" [:a/asks]]]] nil]');
    chsk.watch(fail("watcher"));
    chsk.disconnect();
    await settle();
    const all = ["answer", "any", "callback", "handler", "promise", "watcher"];
    assert.deepEqual([...new Set(heard)].sort(), all);
    // Whoever asked is told of the error of an answer.
    assert.deepEqual(global, heard.filter((message) => message !== "answer"));
    assert.equal(chsk.state.status, "closed");
  });

  it("of a request has the event's id and the stack of who called", async (t) => {
    const { chsk, socket } = await overWs(t);
    const replies = [];
    async function whoCalled() {
      replies.push(outcome(chsk.request(["a/b"])), outcome(chsk.request(["a/c"], { timeoutMs: 0 })));
    }
    await whoCalled();
    socket.says('[:chsk/error "c1" {:status 403 :message "not yours"}]');
    const { name, message, status, id, stack, cause } = await replies[0];
    assert.deepEqual([name, message, status, id], ["ReplyError", "not yours", 403, "a/b"]);
    assert.match(stack, /^ReplyError: not yours\n/);
    assert.match(stack, /whoCalled/);
    assert.equal(cause, undefined);
  });

  it("of a request says how the connection ended, where it is not open", async (t) => {
    const { chsk, socket } = await overWs(t);
    const reply = outcome(chsk.request(["a/b"]));
    socket.drops(4003, "bye");
    const { name, id, cause } = await reply;
    assert.deepEqual([name, id, cause.code, cause.message], ["ChannelClosed", "a/b", 4003, "bye"]);
    chsk.disconnect();
    assert.equal((await outcome(chsk.request(["a/b"]))).cause, cause);
  });
});

describe("a channel socket that was made where no page is", () => {
  it("is destroyed and made to connect as any other", () => {
    const chsk = new ChannelSocket("/chsk", { connect: false });
    chsk.destroy();
    assert.equal(chsk.state.status, "destroyed");
  });
});
