// The seed's functions, and the ways in which an application takes events.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import {
  ChannelSocket,
  Keyword,
  RecvChannel,
  ajaxCall,
  asEvent,
  assertEvent,
  cbError,
  cbSuccess,
  chskDestroy,
  chskReconnect,
  chskSend,
  defaultChskUrl,
  expBackoff,
  isEvent,
  isEventMsg,
  makeChannelSocket,
  setExpBackoffTimeout,
  setLoggingLevel,
  startChskRouter,
  startChskRouterLoop,
} from "../../flask_chsk/static/chsk.js";
import { PATH, overAjax, overWs, settle, world } from "./fakes.mjs";

describe("events", () => {
  it("are told from what is none", () => {
    const good = [["a/b"], ["a/b", 1], [new Keyword("a/b"), null], ["a.b/c-d?"]];
    const bad = [[], ["a"], ["a/b", 1, 2], ["a/b/c"], ["/b"], ["a/"], [":a/b"], ["a b/c"], "a/b"];
    bad.push(null, undefined, {}, [["a/b"]], [null]);
    assert.deepEqual(
      good.map(isEvent),
      good.map(() => true),
    );
    assert.deepEqual(
      bad.map(isEvent),
      bad.map(() => false),
    );
    assert.deepEqual(asEvent(["a/b"]), ["a/b"]);
    assert.deepEqual(asEvent("nonsense"), ["chsk/bad-event", "nonsense"]);
    assert.throws(() => assertEvent("nonsense"), { name: "BadEvent" });
    assert.equal(isEventMsg({ id: "a/b", data: 1, event: ["a/b", 1] }), true);
    assert.equal(isEventMsg({ id: "a/b" }), false);
  });

  it("have replies, or one of three words", () => {
    const failures = ["chsk/closed", "chsk/timeout", "chsk/error", new Keyword("chsk/error")];
    assert.deepEqual(failures.map(cbSuccess), [false, false, false, false]);
    assert.deepEqual(failures.map(cbError), [true, true, true, true]);
    assert.deepEqual([null, false, "closed", {}].map(cbSuccess), [true, true, true, true]);
  });
});

describe("defaultChskUrl", () => {
  const location = { href: "https://example.org:8443/app/page?q#top" };
  it("follows the page, a path, or a whole URL", () => {
    assert.deepEqual(
      [
        defaultChskUrl("/app/chsk", location),
        defaultChskUrl("/app/chsk", location, true),
        defaultChskUrl("http://other.org/chsk?a=1", location, true),
        defaultChskUrl("https://other.org/chsk", undefined),
      ],
      [
        "https://example.org:8443/app/chsk",
        "wss://example.org:8443/app/chsk",
        "ws://other.org/chsk?a=1",
        "https://other.org/chsk",
      ],
    );
  });
});

describe("expBackoff", () => {
  it("doubles up to its cap, with full jitter", (t) => {
    t.mock.method(Math, "random", () => 0.5);
    assert.deepEqual(
      [0, 1, 2, 3, 4, 99, 100, 5000].map((attempt) => expBackoff(attempt)),
      [250, 500, 1000, 2000, 2500, 2500, 15_000, 15_000],
    );
    t.mock.method(Math, "random", () => 0);
    assert.equal(expBackoff(9), 0);
  });

  it("calls later, unless it is undone", (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    t.mock.method(Math, "random", () => 1);
    const called = [];
    setExpBackoffTimeout(() => called.push(0));
    setExpBackoffTimeout(() => called.push(2), 2);
    setExpBackoffTimeout(() => called.push("never"))();
    t.mock.timers.tick(500);
    assert.deepEqual(called, [0]);
    t.mock.timers.tick(1500);
    assert.deepEqual(called, [0, 2]);
  });
});

describe("RecvChannel", () => {
  it("forgets the oldest, and counts them", async () => {
    const channel = new RecvChannel(2);
    for (const n of [1, 2, 3]) channel.put(n);
    assert.equal(channel.dropped, 1);
    assert.deepEqual([await channel.take(), await channel.take()], [2, 3]);
  });

  it("serves whoever waits, and ends when closed", async () => {
    const channel = new RecvChannel(2);
    const taken = [channel.take(), channel.take(), channel.take()];
    channel.put("a");
    channel.put("b");
    channel.close();
    channel.put("late");
    assert.deepEqual(await Promise.all(taken), ["a", "b", undefined]);
  });
});

describe("startChskRouter", () => {
  it("calls the handler with one event after another, until stopped", async () => {
    const channel = new RecvChannel(10);
    const seen = [];
    const stop = startChskRouter(channel, async (n) => {
      seen.push(`${n} begins`);
      await settle();
      seen.push(`${n} ends`);
      if (n === 1) throw new Error("reported, no more");
    });
    channel.put(1);
    channel.put(2);
    for (let i = 0; i < 4; i++) await settle();
    stop();
    channel.put(3);
    await settle();
    assert.deepEqual(seen, ["1 begins", "1 ends", "2 begins", "2 ends"]);
    assert.equal(await channel.take(), 3);
  });
});

describe("traceEvs", () => {
  it("tells the console of each event", async (t) => {
    const debug = t.mock.method(console, "debug", () => {});
    setLoggingLevel("debug");
    t.after(() => setLoggingLevel("silent"));
    const channel = new RecvChannel(10);
    t.after(startChskRouter(channel, () => {}, { traceEvs: true }));
    channel.put({ id: "a/b", data: 1, event: ["a/b", 1] });
    await settle();
    assert.deepEqual(
      debug.mock.calls.map((call) => call.arguments),
      [["chsk:", ["a/b", 1]]],
    );
  });
});

describe("startChskRouterLoop", () => {
  it("takes its arguments in reverse, and warns", async (t) => {
    const warn = t.mock.method(console, "warn", () => {});
    setLoggingLevel("warn");
    t.after(() => setLoggingLevel("silent"));
    const channel = new RecvChannel(10);
    const seen = [];
    const stop = startChskRouterLoop((event, chRecv) => seen.push([event, chRecv]), channel);
    channel.put({ id: "a/b", data: 1, event: ["a/b", 1] });
    await settle();
    stop();
    assert.deepEqual(seen, [[["a/b", 1], channel]]);
    assert.deepEqual(warn.mock.calls[0].arguments, [
      "chsk:",
      "use startChskRouter(chRecv, handler)",
    ]);
  });
});

describe("ajaxCall", () => {
  const call = (opts, answer) =>
    new Promise((resolve) => {
      let sent;
      const fetch = async (url, init) => {
        sent = [init.method, url, init.body && String(init.body)];
        return answer();
      };
      ajaxCall("/route", { fetch, ...opts }, (resp) => resolve([sent, resp]));
    });

  it("gives a response map, its content by its type", async () => {
    const headers = { "content-type": "application/edn" };
    const [sent, resp] = await call(
      { params: { a: 1, b: null } },
      () => new Response("{:a [1]}", { headers }),
    );
    assert.deepEqual(sent, ["get", "/route?a=1", undefined]);
    assert.deepEqual(resp, {
      success: true,
      status: 200,
      error: null,
      content: { a: [1] },
      contentType: "application/edn",
      retryAfterMs: undefined,
    });
  });

  it("posts a form, and reads as it is told to", async () => {
    const [sent, resp] = await call(
      { method: "post", params: { a: "1 2" }, respType: "text" },
      () => new Response("[1]", { headers: { "content-type": "application/json" } }),
    );
    assert.deepEqual(sent, ["post", "/route", "a=1+2"]);
    assert.equal(resp.content, "[1]");
  });

  it("reads each type as what it is, where respType does not say", async () => {
    for (const respType of [undefined, "auto"]) {
      for (const [type, content] of [
        ["application/edn", [1]],
        ["text/edn", [1]],
        ["application/json; charset=utf-8", [1]],
        ["text/plain", "[1]"],
        [undefined, "[1]"],
      ]) {
        const body = new TextEncoder().encode("[1]"); // bytes, so that Node adds no type
        const headers = type && { "content-type": type };
        const [, resp] = await call({ respType }, () => new Response(body, { headers }));
        assert.deepEqual(resp.content, content, type);
      }
    }
  });

  it("tells what went wrong", async () => {
    const [, gone] = await call({}, () => new Response("gone", { status: 410 }));
    const [, odd] = await call({ respType: "json" }, () => new Response("{"));
    const [, cut] = await call({}, () => {
      throw new TypeError("network");
    });
    const [, empty] = await call({}, () => new Response(""));
    const [, none] = await call({ respType: "edn" }, () => new Response(""));
    const [, nothing] = await call({}, () => new Response(null, { status: 204 }));
    assert.deepEqual(
      [gone, odd, cut, empty, none, nothing].map(({ success, status, error, content }) => [
        success,
        status,
        error,
        content,
      ]),
      [
        [false, 410, 410, "gone"],
        [false, 200, "exception", "{"],
        [false, null, "http-error", null],
        [false, 200, "no-content", null],
        [false, 200, "no-content", null],
        [true, 204, null, ""],
      ],
    );
  });

  it("ends after its timeout, or by abort()", async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    const fetch = (url, { signal }) =>
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    const errors = [];
    ajaxCall("/slow", { fetch, timeoutMs: 100 }, (resp) => errors.push(resp.error));
    const call = ajaxCall("/slow", { fetch }, (resp) => errors.push(resp.error));
    call.abort();
    await settle();
    t.mock.timers.tick(100);
    await settle();
    assert.deepEqual(errors, ["abort", "timeout"]);
  });
});

describe("makeChannelSocket", () => {
  it("gives the seed's map, and functions that take the socket", async (t) => {
    const made = makeChannelSocket();
    assert.ok(made.chsk instanceof ChannelSocket);
    assert.equal(made.chRecv, made.chsk.chRecv);
    assert.equal(made.state, made.chsk.state);
    assert.equal(made.sendFn(["a/b"]), false);
    const { chsk, socket, sockets } = await overWs(t);
    assert.equal(chskSend(chsk, ["a/b", 1]), true);
    assert.deepEqual(socket.sent, ["[[:a/b 1] nil]"]);
    chskReconnect(chsk);
    await settle();
    assert.equal(sockets.length, 2);
    chskDestroy(chsk);
    assert.equal(chsk.state.status, "destroyed");
  });
});

describe("the seed's spellings", () => {
  it("are taken, the older ones with a warning where there is a newer", async (t) => {
    const warn = t.mock.method(console, "warn", () => {});
    setLoggingLevel("warn");
    t.after(() => setLoggingLevel("silent"));
    const { chsk } = makeChannelSocket("/chsk", { type: "ws" }, { clientUuid: "me" });
    assert.deepEqual([chsk.clientId, chsk.state.type], ["me", "ws"]);
    assert.deepEqual(
      warn.mock.calls.map((call) => call.arguments[1]),
      ["give all options in one object"],
    );
  });

  it("include lpKaliveMs for lpTimeoutMs", async (t) => {
    const { fetch, calls, tick } = await world(t, { type: "ws" });
    for (const name of ["lpTimeoutMs", "lpKaliveMs"]) {
      const { chsk } = makeChannelSocket(PATH, { type: "ajax", fetch, [name]: 40_000 });
      await settle();
      const poll = calls.at(-1);
      await tick(39_999);
      assert.equal(poll.aborted, false, name);
      await tick(1);
      assert.equal(poll.aborted, true, name);
      chsk.destroy();
    }
  });

  it("include a url function of path, location, and whether it is for a WebSocket", async (t) => {
    const asked = [];
    const location = { href: "https://example.org/page" };
    const chskUrl = (...args) => {
      asked.push(args);
      return `${args[2] ? "wss" : "https"}://other.org/chsk`;
    };
    const here = await world(t, { type: "auto", chskUrl, location });
    assert.deepEqual(asked, [
      [PATH, location, true],
      [PATH, location, false],
    ]);
    assert.equal(here.socket.url.origin, "wss://other.org");
    here.socket.drops();
    await settle();
    assert.equal(here.get.url.origin, "https://other.org");
  });

  it("include a channel as callback, and options in one object", async (t) => {
    const { chsk, socket } = await overWs(t);
    const replies = new RecvChannel(10);
    assert.equal(chskSend(chsk, ["a/b", 1], 5000, replies), true);
    assert.equal(chskSend(chsk, ["a/c"], { timeoutMs: 5000, cb: replies, flush: true }), true);
    socket.says('[{:ok 1} "c1"]');
    socket.says('[:chsk/error "c2"]');
    assert.deepEqual(
      [await replies.take(), await replies.take()],
      [
        ["a/b.cb", { ok: 1 }],
        ["a/c.cb", "chsk/error"],
      ],
    );
  });
});

describe("the console", () => {
  it("is told from the chosen level on", async (t) => {
    const warn = t.mock.method(console, "warn", () => {});
    const error = t.mock.method(console, "error", () => {});
    const fails = () => {
      throw new Error("mine");
    };
    const { chsk } = await overWs(t);
    chsk.on("a/b", fails);
    chsk.put(["a/b"]);
    setLoggingLevel("error");
    t.after(() => setLoggingLevel("silent"));
    chsk.put(["a/b"]);
    assert.equal(error.mock.callCount(), 1);
    assert.equal(error.mock.calls[0].arguments[1].message, "mine");
    assert.equal(warn.mock.callCount(), 0);
  });
});

describe("keywords as objects", () => {
  it("are ids all the same, and stay what they are in data", async (t) => {
    const { chsk, socket } = await overWs(t, { keywords: "object" });
    assert.equal(chsk.state.uid, "ann");
    const events = [];
    chsk.on("a/b", (ev) => events.push(ev));
    socket.says("[[[:a/b {:k :v}]] nil]");
    const reply = chsk.request(["a/b"]).catch((error) => error.name);
    socket.says('[:chsk/timeout "c1"]');
    const data = { k: new Keyword("v") };
    assert.deepEqual(events, [{ id: "a/b", data, event: ["a/b", data] }]);
    assert.equal(await reply, "ReplyTimeout");
  });
});

describe("what is no channel socket", () => {
  it("is told, and tried again with patience", async (t) => {
    const here = await world(t, { type: "ajax" });
    const events = here.heard();
    await here.get.answers("<html>please log in</html>", 200, { "content-type": "text/html" });
    assert.deepEqual(events, [["chsk/bad-package", "<html>please log in</html>"]]);
    assert.equal(here.chsk.state.status, "waiting");
    await here.tick(999);
    assert.equal(here.gets().length, 1);
    await here.tick(1);
    assert.equal(here.gets().length, 2);
  });
});

describe("odd frames", () => {
  const odd = [
    "nil",
    "5",
    "[]",
    "[nil]",
    "[nil nil]",
    "[[] nil]",
    "[[[:a/x] 5] nil]",
    "[[[:chsk/ask nil]] nil]",
    "[[[:chsk/ask [1]]] nil]",
    "[[:chsk/handshake nil] nil]",
    "[1 {:no :such}]",
    '[[[:a/x]] nil "nonsense"]',
    '[:chsk/ws-ping nil "e1:x,+"]',
  ];

  it("end no WebSocket", async (t) => {
    const { chsk, socket } = await overWs(t);
    for (const text of odd) socket.says(text);
    socket.says('[[[:a/last]] nil "e1:11"]');
    await settle();
    assert.equal(chsk.state.open, true);
    assert.equal(chsk.chRecv.dropped, 0);
    const ids = [];
    const bad = [];
    chsk.on("chsk/bad-event", (ev) => bad.push(ev.data));
    for (const text of ["[[5] nil]", "[[[]] nil]"]) socket.says(text);
    chsk.destroy();
    for await (const ev of chsk.events()) if (ev.id.startsWith("a/")) ids.push(ev.id);
    assert.deepEqual(ids, ["a/x", "a/x", "a/last"]);
    assert.deepEqual(bad, [[5], []]);
  });

  it("end no polling", async (t) => {
    const here = await overAjax(t);
    for (const text of odd) {
      await here.get.answers(text);
      await here.tick(1000);
      if (here.get.params["handshake?"]) await here.get.answers('[[:chsk/handshake ["ann"]] nil]');
    }
    assert.equal(here.chsk.state.open, true);
    assert.equal(here.get.done, false);
  });

  it("may carry a cursor on a reply", async (t) => {
    const here = await overWs(t);
    const reply = here.chsk.request(["a/b"]);
    here.socket.says('[[[:no/event]] "c1" "e1:20"]');
    assert.deepEqual(await reply, [["no/event"]]);
    here.socket.drops();
    await here.tick(1000);
    assert.equal(here.socket.params.cursor, "e1:20");
  });
});

describe("what waits while closed", () => {
  it("is kept by reconnect(), and given up by disconnect()", async (t) => {
    const here = await world(t, { type: "ws", offlineQueue: 5 });
    here.chsk.send(["a/b", 1]);
    const given = here.chsk.request(["a/b", 2]).catch((error) => error.name);
    here.chsk.reconnect();
    await settle();
    here.socket.opens();
    assert.deepEqual(here.socket.sent, ["[[:a/b 1] nil]", '[[:a/b 2] "c1"]']);
    here.chsk.disconnect();
    assert.equal(await given, "ChannelClosed");
  });

  it("leaves no more when its time is over", async (t) => {
    const here = await world(t, { type: "ws", offlineQueue: 5 });
    const late = here.chsk.request(["a/b", 1], { timeoutMs: 1000 }).catch((error) => error.name);
    await here.tick(1000);
    here.socket.opens();
    assert.deepEqual([await late, here.socket.sent], ["ReplyTimeout", []]);
  });
});

describe("posts", () => {
  it("wait in a line of limited length", async (t) => {
    const { chsk } = await overAjax(t);
    const sent = [];
    for (let n = 0; n < 1100; n++) sent.push(chsk.send(["a/b", n]));
    assert.equal(sent.filter(Boolean).length, 1000);
    assert.equal(sent.lastIndexOf(true), 999);
  });
});
