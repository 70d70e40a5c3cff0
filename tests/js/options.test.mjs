// What an application gives: it holds, or it is named at once.

import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";

import { ChannelSocket, Keyword, RecvChannel, setLoggingLevel } from "../../flask_chsk/static/chsk.js";
import { FakeSocket, HANDSHAKE, PATH, overAjax, overWs, settle, world } from "./fakes.mjs";

/** What the console is warned of from now on. */
function warnings(t) {
  const { mock } = t.mock.method(console, "warn", () => {});
  setLoggingLevel("warn");
  t.after(() => setLoggingLevel("silent"));
  return () =>
    mock.calls.filter((one) => one.arguments[0] === "chsk:").map((one) => one.arguments[1]);
}

describe("an option", () => {
  it("that is undefined is as one that is left out", async (t) => {
    const names = ["packer", "backoff", "type", "chskUrl", "recvBuf", "wsKaliveMs", "keywords"];
    const here = await overWs(t, {
      ...Object.fromEntries(names.map((name) => [name, undefined])),
      type: "ws",
    });
    here.socket.drops();
    assert.equal(here.chsk.state.status, "waiting");
    assert.equal(here.socket.params.packer, "edn");
  });

  for (const [name, value, wanted] of [
    ["type", "websocket", '"auto", "ws" or "ajax", not websocket'],
    ["packer", "transit", '"edn", "json" or a packer, not transit'],
    ["packer", null, '"edn", "json" or a packer, not null'],
    ["clientId", "a b", "1 to 64 of A-Za-z0-9_-, not a b"],
    ["wsKaliveMs", "25s", "milliseconds, not 25s"],
    ["lpTimeoutMs", 0, "milliseconds, not 0"],
    ["recvBuf", -1, "a number, not -1"],
    ["offlineQueue", true, "a number, not true"],
    ["backoff", 1000, "a function, not 1000"],
    ["chskUrl", "/chsk", "a function, not /chsk"],
    ["auth", "tök€n", "must be a string of ASCII characters; encode others, as base64"],
    ["csrfToken", 7, "must be a string of ASCII characters; encode others, as base64"],
  ]) {
    it(`${name} cannot be ${value}, and the error says so`, () => {
      assert.throws(() => new ChannelSocket(PATH, { [name]: value }), {
        name: "TypeError",
        message: `${name}: ${wanted}`,
      });
    });
  }

  for (const [name, first] of [
    ["backof", "backoff"],
    ["csrf", "csrfToken"],
    ["csrf_token", "csrfToken"],
    ["timeout", "lpTimeoutMs"],
    ["wsKalive", "wsKaliveMs"],
    ["recvBufOrN", "recvBuf"],
    ["wrapRecvEvs", "wrapRecv"],
    ["url", "chskUrl"],
    ["client_id", "clientId"],
    ["header", "headers"],
  ]) {
    it(`${name} does not exist, and the error names ${first} first of those that do`, () => {
      const all =
        "WebSocket ajaxOpts auth backoff chskUrl clientId connect csrfToken cursor fetch headers keywords location " +
        "lpTimeoutMs offlineQueue packer params recvBuf type wrapRecv wsKaliveMs";
      assert.throws(
        () => new ChannelSocket(PATH, { [name]: undefined }),
        ({ message }) => {
          const [said, names] = message.split("not one of ");
          assert.equal(said, `${name}: `);
          assert.equal(names.split(",")[0], first);
          assert.equal(names.split(",").sort().join(" "), all);
          return true;
        },
      );
    });
  }

  const never = new Promise(() => {});
  for (const [name, opts, message] of [
    ["auth", { auth: () => "tök€n" }, /^auth: must be a string of ASCII/],
    ["auth", { auth: async () => 7 }, /^auth: must be a string of ASCII/],
    ["csrfToken", { csrfToken: Promise.resolve("é") }, /^csrfToken: must be a string of ASCII/],
    ["chskUrl", { chskUrl: () => undefined }, /^chskUrl: must return a URL, not undefined/],
    ["auth", { auth: async () => { throw new Error("offline"); } }, /^auth: offline/],
    ["csrfToken", { csrfToken: never }, /^csrfToken: nothing within 10 s/],
    ["auth", { auth: () => never }, /^auth: nothing within 10 s/],
    ["chskUrl", { chskUrl: () => never }, /^chskUrl: nothing within 10 s/],
  ]) {
    it(`${name} that says nothing of use is named, and asked again: ${message.source}`, async (t) => {
      const here = await world(t, { type: "ws", ...opts });
      await here.tick(10_000);
      assert.equal(here.sockets.length, 0);
      assert.equal(here.chsk.state.lastClose.reason, "unexpected");
      assert.match(here.chsk.state.lastClose.message, message);
      assert.ok(here.chsk.state.udtNextReconnect);
    });
  }

  for (const wrong of [NaN, undefined, -1, "soon"]) {
    it(`backoff that returns ${wrong} is replaced by the usual one`, async (t) => {
      const here = await overWs(t, { backoff: () => wrong });
      here.socket.drops();
      assert.equal(here.chsk.state.status, "waiting");
      await here.tick(1000);
      assert.equal(here.sockets.length, 2);
    });
  }

  it("backoff that fails, too", async (t) => {
    const here = await overWs(t, {
      backoff() {
        throw new Error("oops");
      },
    });
    here.socket.drops();
    await here.tick(1000);
    assert.equal(here.sockets.length, 2);
  });

  it("may be Infinity where it is a time", async (t) => {
    const here = await overWs(t, { backoff: () => Infinity, wsKaliveMs: Infinity });
    let reply;
    here.chsk.send(["a/b"], Infinity, (it) => (reply = it));
    await here.tick(600_000, 5_000);
    assert.equal(here.socket.closedWith, null);
    assert.equal(reply, undefined);
    here.socket.says('[7 "c1"]');
    assert.equal(reply, 7);
    here.socket.drops();
    await here.tick(600_000, 5_000);
    assert.equal(here.sockets.length, 1);
  });

  it("an option of send or request that is none names the one that was meant", async (t) => {
    const here = await overWs(t);
    const message = "timeout: not one of timeoutMs,cb,flush,signal";
    assert.throws(() => here.chsk.send(["a/b"], { timeout: 5 }), { name: "TypeError", message });
    await assert.rejects(here.chsk.request(["a/b"], { timeout: 5 }), { message });
    await assert.rejects(here.chsk.request(["a/b"], { singal: null }), {
      message: /^singal: not one of signal,/,
    });
  });

  it("timeoutMs is a number", async (t) => {
    const here = await overWs(t);
    for (const timeoutMs of ["5s", NaN, -1]) {
      const message = `timeoutMs: milliseconds, not ${timeoutMs}`;
      assert.throws(() => here.chsk.send(["a/b"], timeoutMs, () => {}), { message });
      await assert.rejects(here.chsk.request(["a/b"], { timeoutMs }), { message });
    }
    assert.deepEqual(here.socket.sent, []);
  });
});

describe("a handler", () => {
  for (const id of ["connect", "disconnect", "message", "say", ":chat/say", "", null]) {
    it(`of ${id} would never be called, so the error names the right way`, async (t) => {
      const { chsk } = await world(t);
      assert.throws(() => chsk.on(id, () => {}), {
        name: "BadEvent",
        message:
          `on(${JSON.stringify(id)}): an id has a namespace, as in on("chat/say", fn); "*" takes ` +
          'all others. The connection is told to watch(fn) and on("chsk/state", fn)',
      });
    });
  }

  it("may be of a keyword", async (t) => {
    const { chsk } = await world(t);
    const heard = [];
    chsk.on(new Keyword("chat/say"), (ev) => heard.push(ev.data));
    chsk.put(["chat/say", 1]);
    assert.deepEqual(heard, [1]);
  });

  it("is a function", async (t) => {
    const { chsk } = await world(t);
    assert.throws(() => chsk.on("a/b"), { message: "not a function: undefined" });
    assert.throws(() => chsk.watch({}), TypeError);
  });
});

describe("the object", () => {
  /** What Vue 3 and Alpine make of what is put into their state: vuejs/core, reactive.ts. */
  function reactive(target) {
    const type = Object.prototype.toString.call(target).slice(8, -1);
    const known = ["Object", "Array", "Map", "Set", "WeakMap", "WeakSet"].includes(type);
    if (!known || target.__v_skip || !Object.isExtensible(target)) return target;
    return anyProxy(target);
  }

  /** A Proxy around it and all that is read from it. */
  const anyProxy = (target) =>
    new Proxy(target, {
      get(from, key, receiver) {
        const value = Reflect.get(from, key, receiver);
        return value && typeof value === "object" ? reactive(value) : value;
      },
      set: Reflect.set,
    });

  for (const [name, wrap] of Object.entries({ "Vue's reactive": reactive, "a Proxy": anyProxy })) {
    it(`works within ${name}`, async (t) => {
      const here = await overWs(t);
      const chsk = wrap(here.chsk);
      const heard = [];
      chsk.watch((_, now) => heard.push(now.status));
      chsk.on("a/x", (ev) => heard.push(ev.data));
      assert.equal(chsk.state.open, true);
      assert.equal(chsk.clientId, "cid");
      assert.equal(chsk.send(["a/b"]), true);
      const asked = chsk.request(["a/b"]);
      here.socket.says('[[[:a/x 1]] nil "e1:11"]');
      here.socket.says('[7 "c1"]');
      assert.equal(await asked, 7);
      here.socket.says('[[[:a/y 2]] nil "e1:12"]');
      let taken;
      while (taken?.id !== "chsk/recv") taken = await chsk.chRecv.take();
      assert.deepEqual(taken.data, ["a/y", 2]);
      chsk.disconnect();
      chsk.connect();
      await settle();
      chsk.destroy();
      assert.deepEqual(heard, [1, "open", "closed", "connecting", "destroyed"]);
      assert.equal(here.connections(), 0);
    });
  }

  it("is left alone by Vue's reactive, as its chRecv is", async (t) => {
    const { chsk } = await world(t);
    assert.equal(reactive(chsk), chsk);
    assert.equal(reactive(chsk.chRecv), chsk.chRecv);
    assert.equal(reactive({ chsk }).chsk, chsk);
  });

  it("has methods that may be given away", async (t) => {
    const here = await overWs(t);
    const { send, reconnect, state } = here.chsk;
    assert.equal(send(["a/b"]), true);
    [0].forEach(reconnect);
    await settle();
    assert.equal(here.sockets.length, 2);
    assert.equal(state.open, true); // it is a snapshot
  });

  it("may be derived from", async (t) => {
    class Chat extends ChannelSocket {
      said = 0;
      send(...args) {
        this.said++;
        return super.send(...args);
      }
    }
    const chsk = new Chat(PATH, { WebSocket: FakeSocket, type: "ws" });
    t.after(() => chsk.destroy());
    const { send } = chsk;
    assert.equal(send(["a/b"]), false);
    assert.equal(chsk.said, 1);
  });
});

describe("what nobody waits for any more", () => {
  it("is not posted after destroy() or disconnect()", async (t) => {
    for (const end of ["destroy", "disconnect"]) {
      const here = await overAjax(t);
      const asked = [1, 2, 3, 4, 5, 6].map((n) => here.chsk.request(["a/b", n]));
      const rejected = Promise.allSettled(asked);
      await settle();
      assert.equal(here.posts().length, 1);
      here.chsk[end]();
      if (end === "disconnect") await here.post.answers('["done" nil]');
      await here.tick(20_000);
      assert.equal(here.posts().length, 1);
      assert.deepEqual(
        (await rejected).map((one) => one.reason?.name),
        Array(6).fill("ChannelClosed"),
      );
      here.chsk.destroy();
      mock.timers.reset();
    }
  });

  it("is not posted after its time", async (t) => {
    const here = await overAjax(t);
    const late = here.chsk.request(["a/b", 2], { timeoutMs: 1000 }).catch((error) => error.name);
    here.chsk.send(["a/b", 3]);
    await settle();
    const queued = here.chsk.request(["a/b", 4], { timeoutMs: 1000 }).catch((error) => error.name);
    await here.tick(1000);
    assert.deepEqual(await Promise.all([late, queued]), ["ReplyTimeout", "ReplyTimeout"]);
    await here.tick(5000);
    assert.deepEqual(
      here.posts().map((post) => post.params.ppstr),
      ['[[:a/b 2] "c1"]', "[[:a/b 3] nil]"],
    );
  });

  it("is not posted again where the server said later", async (t) => {
    const here = await overAjax(t);
    const late = here.chsk.request(["a/b"], { timeoutMs: 500 }).catch((error) => error.name);
    await settle();
    await here.post.answers("busy", 503);
    await here.tick(5000);
    assert.equal(await late, "ReplyTimeout");
    assert.equal(here.posts().length, 1);
  });

  it("but what was sent without a callback leaves, though the page is done", async (t) => {
    const here = await overAjax(t);
    assert.equal(here.chsk.send(["a/bye", 1]), true);
    here.chsk.destroy();
    await settle();
    assert.equal(here.post.params.ppstr, "[[:a/bye 1] nil]");
    assert.equal(here.post.aborted, false);
    await here.post.answers("later", 503);
    await here.tick(20_000);
    assert.equal(here.posts().length, 1);
    assert.equal(here.timers.size, 0);
  });
});

describe("the offline queue", () => {
  it("is sent before what is sent on opening", async (t) => {
    const here = await world(t, { type: "ws", offlineQueue: 9 });
    here.chsk.watch((old, now) => now.open && !old.open && here.chsk.send(["a/b", "B"]));
    here.chsk.on("chsk/handshake", () => here.chsk.send(["a/b", "C"]));
    here.chsk.send(["a/b", "A"]);
    here.socket.opens(HANDSHAKE);
    assert.deepEqual(here.socket.sent, ['[[:a/b "A"] nil]', '[[:a/b "B"] nil]', '[[:a/b "C"] nil]']);
  });

  it("is told of what disconnect() and destroy() drop", async (t) => {
    const warned = warnings(t);
    const here = await world(t, { type: "ws", offlineQueue: 9 });
    const replies = [];
    here.chsk.send(["a/b", 1]);
    here.chsk.send(["a/b", 2]);
    here.chsk.send(["a/b", 3], 1000, (reply) => replies.push(reply));
    here.chsk.disconnect();
    assert.deepEqual(replies, ["chsk/closed"]);
    assert.deepEqual(warned(), ["closed: 2 events that waited to be sent were dropped"]);
  });
});

describe("the console", () => {
  it("is told once where no WebSocket gets through", async (t) => {
    const warned = warnings(t);
    const here = await world(t);
    here.socket.drops();
    await settle();
    assert.deepEqual(warned(), []);
    await here.get.answers(HANDSHAKE);
    assert.equal(here.chsk.state.type, "ajax");
    await here.idles(100_000);
    assert.ok(here.sockets.length > 1);
    here.socket.drops();
    assert.equal(warned().length, 1);
    assert.match(warned()[0], /^no WebSocket gets through to ws:\/\/example\.org\/chsk: .*changeOrigin/);
  });

  it("is told nothing of a WebSocket that was cut, or where there is none", async (t) => {
    const warned = warnings(t);
    for (const opts of [{ WebSocket: null }, {}]) {
      const here = await world(t, opts);
      here.socket?.opens();
      for (let cuts = 0; cuts < 3; cuts++) {
        here.socket?.drops();
        await here.tick(1000);
      }
      await here.get.answers(HANDSHAKE);
      assert.equal(here.chsk.state.type, "ajax");
      here.chsk.destroy();
      mock.timers.reset();
    }
    assert.deepEqual(warned(), []);
  });
});

describe("what nobody takes", () => {
  it("is bounded in bytes, too, and the console is told once", async (t) => {
    const warned = warnings(t);
    const { chsk, socket } = await overWs(t);
    for (let n = 0; n < 3000; n++) {
      socket.says(`[[[:a/x ["${"x".repeat(20_000)}" ${n}]]] nil "e1:${11 + n}"]`);
    }
    chsk.chRecv.close();
    const kept = [];
    for await (const ev of chsk.chRecv) kept.push(ev);
    const bytes = kept.length * 20_000;
    assert.ok(bytes > 4_000_000 && bytes < 4_400_000, `${bytes} bytes`);
    assert.deepEqual(kept.at(-1).data[1][1], 2999); // the oldest went
    assert.ok(chsk.chRecv.dropped > 2700);
    assert.deepEqual(warned(), [
      "events that nobody takes are dropped: use on(id, fn), or read chRecv",
    ]);
  });

  it("is kept where it is one event, however large", async (t) => {
    const { chsk, socket } = await overWs(t);
    socket.says(`[[[:a/x "${"x".repeat(5_000_000)}"]] nil "e1:11"]`);
    chsk.chRecv.close();
    const kept = [];
    for await (const ev of chsk.chRecv) kept.push(ev);
    assert.deepEqual(kept.map((ev) => ev.id), ["chsk/recv"]);
  });

  it("leaves room again when it is read", () => {
    const channel = new RecvChannel(10);
    for (let n = 0; n < 5; n++) {
      channel.put(n, 4_000_000);
      channel.take();
    }
    assert.equal(channel.dropped, 0);
  });
});

describe("the connections of a tab on long-polling", () => {
  it("are four at most, while replies are late: six are open to a host", async (t) => {
    const here = await overAjax(t);
    const asked = [1, 2, 3, 4, 5].map((n) => here.chsk.request(["a/slow", n]));
    const open = () => here.posts().filter((call) => !call.done).length;
    for (const expected of [1, 2, 3]) {
      await settle();
      assert.equal(open(), expected);
      await here.post.begins(); // it was handled, and its reply is still to come
    }
    await settle();
    assert.equal(open(), 3);
    assert.equal(here.connections(), 1);
    await here.posts()[1].answers('["two" nil]');
    assert.equal(await asked[1], "two");
    assert.equal(here.posts().length, 4);
    for (const n of [0, 2, 3, 4]) {
      await here.posts()[n].answers(`[${n} nil]`);
      assert.equal(await asked[n], n);
    }
  });
});
