// When the channel socket comes, goes, changes its transport, and when it does not.

import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";

import { ChannelSocket, expBackoff } from "../../flask_chsk/static/chsk.js";
import { HANDSHAKE, overAjax, overWs, settle, world } from "./fakes.mjs";

const RECOVERED = '[[:chsk/handshake ["ann" nil nil {:cursor "e1:10" :recovered true}]] nil]';
const AT_PAGE = '[[:chsk/handshake ["ann" nil nil {:cursor "e1:7" :resume "tok"}]] nil]';
const LOST = '[[:chsk/handshake ["ann" nil nil {:cursor "e9:70" :recovered false}]] nil]';

/** An automatic one that found WebSockets blocked, with its poll parked. */
async function downgraded(t, opts) {
  const here = await world(t, opts);
  here.socket.drops();
  await settle();
  await here.get.answers(HANDSHAKE);
  return here;
}

describe("a lost WebSocket", () => {
  it("is opened again after the backoff, with cursor and resume", async (t) => {
    const asked = [];
    const here = await overWs(t, { backoff: (attempt) => asked.push(attempt) * 1000 });
    const events = here.heard();
    here.socket.says('[[[:a/x 1]] nil "e1:11"]');
    here.socket.drops();
    assert.equal(here.chsk.state.status, "waiting");
    assert.equal(here.chsk.state.udtNextReconnect, Date.now() + 1000);
    await here.tick(999);
    assert.equal(here.sockets.length, 1);
    await here.tick(1);
    assert.equal(here.socket.params.cursor, "e1:11");
    assert.equal(here.socket.shown("resume"), "dG9r");
    here.socket.opens(RECOVERED);
    here.socket.says('[[[:a/x 1] [:a/x 2]] nil "e1:11,+3"]');
    assert.deepEqual(events, [
      ["a/x", 1],
      ["chsk/handshake", ["ann", null, null]],
      ["a/x", 2],
    ]);
    assert.deepEqual(asked.slice(0, 1), [0]);
  });

  it("tells what happened", async (t) => {
    const here = await overWs(t);
    here.socket.drops(1011, "oops");
    const udt = Date.now();
    const { open, everOpened, lastClose, lastWsClose } = here.chsk.state;
    assert.deepEqual(
      { open, everOpened, lastClose, lastWsClose },
      {
        open: false,
        everOpened: true,
        lastClose: { udt, reason: "clean", code: 1011, message: "oops" },
        lastWsClose: { udt, reason: "clean", code: 1011, message: "oops" },
      },
    );
  });

  for (const [kind, over] of Object.entries({ overWs, overAjax })) {
    it(`begins at the cursor of its page, until it has one of its own (${kind})`, async (t) => {
      const here = await over(t, { cursor: "e1:7.signed", handshake: AT_PAGE });
      assert.equal((here.sockets[0] ?? here.gets()[0]).params.cursor, "e1:7.signed");
      const events = here.heard();
      const message = '[[[:a/x 1] [:chsk/gap {:reason "page"}]] nil "e1:9,+3"]';
      if (kind === "overWs") here.socket.says(message);
      else await here.get.answers(message);
      assert.deepEqual(events, [["a/x", 1], ["chsk/gap", { reason: "page" }]]);
      here.chsk.reconnect();
      await here.tick(1000);
      const next = kind === "overWs" ? here.socket : here.get;
      assert.equal(next.params.cursor, "e1:12");
    });
  }

  it("shows the cursor of its page no more after the application closed it", async (t) => {
    const here = await overWs(t, { cursor: "e1:7.signed", handshake: AT_PAGE });
    here.socket.drops(4003);
    await here.tick(1000);
    assert.equal(here.socket.params.cursor, undefined);
  });

  it("tells of a gap where the server could not recover, and goes on from now", async (t) => {
    const here = await overWs(t);
    const events = here.heard();
    here.socket.drops();
    await here.tick(1000);
    here.socket.opens(LOST);
    here.socket.says('[[[:a/x 1]] nil "e9:71"]');
    assert.deepEqual(events, [["chsk/handshake", ["ann", null, null]], ["chsk/gap"], ["a/x", 1]]);
    here.socket.drops();
    await here.tick(1000);
    assert.equal(here.socket.params.cursor, "e9:71");
  });

  it("backs off further only until a connection was stable for 5 s", async (t) => {
    const attempts = [];
    const here = await overWs(t, { backoff: (attempt) => (attempts.push(attempt), 100) });
    for (const stableMs of [0, 4900, 5000, 0]) {
      await here.tick(stableMs);
      here.socket.drops();
      await here.tick(100);
      here.socket.opens();
    }
    assert.deepEqual(attempts, [0, 1, 0, 1]);
  });
});

describe("a server that is away for two minutes", () => {
  it("is asked at least every 5 s, by all chance", async (t) => {
    const here = await overWs(t, { backoff: expBackoff });
    t.mock.method(Math, "random", () => 0.999);
    let longest = 0;
    for (let triedAt = Date.now(), until = triedAt + 120_000; Date.now() < until; ) {
      const tries = here.sockets.length;
      here.socket.drops();
      while (here.sockets.length === tries) await here.tick(100, 100);
      longest = Math.max(longest, Date.now() - triedAt);
      triedAt = Date.now();
    }
    assert.equal(longest, 5000);
    here.socket.opens(RECOVERED);
    assert.equal(here.chsk.state.open, true);
  });
});

describe("a close code", () => {
  for (const [code, reason] of [
    [1000, "clean"],
    [4001, "replaced"],
    [4005, "signed-out"],
  ]) {
    it(`${code} stays closed: ${reason}`, async (t) => {
      const here = await overWs(t);
      here.socket.drops(code);
      await here.tick(600_000);
      assert.equal(here.sockets.length, 1);
      assert.equal(here.chsk.state.status, "closed");
      assert.equal(here.chsk.state.lastClose.reason, reason);
      here.chsk.connect();
      await settle();
      assert.equal(here.sockets.length, 2);
    });
  }

  it("4005 with the reason expired reconnects after the backoff, with a fresh token", async (t) => {
    let tokens = 0;
    const here = await overWs(t, { auth: () => `token${tokens++}` });
    here.socket.drops(4005, "expired");
    const { status, lastClose } = here.chsk.state;
    assert.deepEqual([status, lastClose.reason, lastClose.code], ["waiting", "expired", 4005]);
    await here.tick(1000);
    assert.equal(atob(here.socket.shown("auth")), "token1");
    assert.equal(here.socket.params.cursor, "e1:10");
    assert.equal(here.socket.shown("resume"), "dG9r");
  });

  it("4005 with the reason expired, in the answer to a poll, does the same", async (t) => {
    let tokens = 0;
    const here = await overAjax(t, { auth: () => `token${tokens++}` });
    await here.get.answers('[[[:chsk/close {:code 4005 :reason "expired"}]] nil]');
    assert.equal(here.chsk.state.lastClose.reason, "expired");
    await here.tick(1000);
    assert.equal(here.get.headers.Authorization, "Bearer token1");
  });

  for (const code of [1002, 1003, 1007, 1009, 1011, 1013, 4000, 4002, 4004]) {
    it(`${code} reconnects after the backoff, with the cursor`, async (t) => {
      const here = await overWs(t);
      here.socket.drops(code);
      assert.equal(here.chsk.state.lastClose.code, code);
      await here.tick(1000);
      assert.equal(here.socket.params.cursor, "e1:10");
      assert.equal(here.sockets.length, 2);
    });
  }

  it("1012 reconnects somewhere within the spread", async (t) => {
    const here = await overWs(t);
    t.mock.method(Math, "random", () => 0.5);
    here.socket.drops(1012, "spread=30");
    assert.equal(here.chsk.state.udtNextReconnect, Date.now() + 15_000);
    await here.tick(15_000);
    here.socket.opens();
    here.socket.drops(1012);
    assert.equal(here.chsk.state.udtNextReconnect, Date.now() + 1000);
  });

  it("4003 begins a fresh session, without a cursor", async (t) => {
    const here = await overWs(t);
    here.socket.drops(4003);
    await here.tick(1000);
    assert.equal(here.socket.params.cursor, undefined);
    assert.equal(here.socket.shown("resume"), "dG9r");
  });

  it("means the same where a poll brings it", async (t) => {
    const here = await overAjax(t);
    await here.get.answers('[[[:chsk/close {:code 4005 :reason "bye"}]] nil]');
    await here.tick(60_000);
    const { status, lastClose } = here.chsk.state;
    assert.equal(status, "closed");
    assert.deepEqual([lastClose.reason, lastClose.message], ["signed-out", "bye"]);
    assert.equal(here.gets().length, 2);
  });

  it("brought by a poll may ask to come back", async (t) => {
    const here = await overAjax(t);
    await here.get.answers('[[[:chsk/close {:code 4003 :reason "again"}]] nil]');
    await here.tick(1000);
    assert.deepEqual([here.get.params["handshake?"], here.get.params.cursor], ["1", undefined]);
  });

  it("is heard in place of a handshake, too", async (t) => {
    const here = await world(t, { type: "ajax" });
    await here.get.answers("[[[:chsk/close {:code 4005}]] nil]");
    assert.equal(here.chsk.state.lastClose.reason, "signed-out");
    assert.equal(here.chsk.state.status, "closed");
  });
});

describe("silence", () => {
  it("is answered with a ping, and then with a new connection", async (t) => {
    const here = await overWs(t);
    const first = here.socket;
    await here.tick(24_999);
    assert.deepEqual(first.sent, []);
    await here.tick(1);
    assert.deepEqual(first.sent, ['[[:chsk/ws-ping] "ping"]']);
    await here.tick(9_999);
    assert.equal(first.closedWith, null);
    await here.tick(1);
    assert.equal(first.closedWith, 4000);
    assert.equal(here.chsk.state.lastClose.reason, "ws-ping-timeout");
    await here.tick(1000);
    assert.equal(here.sockets.length, 2);
  });

  it("ends with any sign of life", async (t) => {
    const here = await overWs(t);
    await here.tick(25_000);
    here.socket.says('["pong" "ping"]');
    await here.tick(24_999);
    here.socket.says("[[[:a/x]] nil]");
    await here.tick(24_999);
    assert.equal(here.socket.sent.length, 1);
    assert.equal(here.chsk.state.open, true);
  });
});

describe("auto", () => {
  it("trusts a WebSocket only after a first round trip", async (t) => {
    const { chsk, socket, heard } = await world(t);
    const events = heard();
    socket.open();
    assert.deepEqual(socket.sent, ['[[:chsk/ws-ping] "ping"]']);
    socket.says(HANDSHAKE);
    socket.says('[[[:a/x 1]] nil "e1:11"]');
    assert.equal(chsk.state.status, "connecting");
    assert.deepEqual(events, []);
    socket.says('["pong" "ping"]');
    assert.equal(chsk.state.open, true);
    assert.deepEqual(events, [
      ["chsk/handshake", ["ann", null, null]],
      ["a/x", 1],
    ]);
  });

  it("falls back to Ajax at once where WebSockets fail", async (t) => {
    const here = await downgraded(t);
    const { open, type, lastClose } = here.chsk.state;
    assert.deepEqual([open, type], [true, "ajax"]);
    assert.equal(lastClose.reason, "downgrading-ws-to-ajax");
  });

  it("falls back after 5 s where nothing comes back any more, though WebSockets worked", async (t) => {
    for (const until of ["", "open", "handshake"]) {
      const here = await overWs(t, { type: "auto" });
      here.socket.drops(4002);
      await here.tick(1000);
      if (until) here.socket.open();
      if (until === "handshake") here.socket.says(HANDSHAKE);
      await here.tick(4999);
      assert.equal(here.calls.length, 0);
      await here.tick(1);
      assert.equal(here.socket.closedWith, 4000);
      assert.equal(here.get.params["handshake?"], "1");
      here.chsk.destroy();
      mock.timers.reset();
    }
  });

  it("waits for a pong that comes slowly, behind what was missed", async (t) => {
    const here = await overWs(t, { type: "auto" });
    here.socket.drops(4002);
    await here.tick(1000);
    here.socket.open();
    here.socket.says(RECOVERED);
    for (const offset of [11, 12, 13]) {
      await here.tick(4900);
      here.socket.says(`[[[:a/x ${offset}]] nil "e1:${offset}"]`);
    }
    here.socket.says('["pong" "ping"]');
    assert.equal(here.chsk.state.open, true);
    await here.tick(4900);
    assert.equal(here.socket.closedWith, null);
  });

  it("tries Ajax beside a WebSocket that says nothing for a second", async (t) => {
    const here = await world(t);
    await here.tick(999);
    assert.equal(here.calls.length, 0);
    await here.tick(1);
    assert.equal(here.get.params["handshake?"], undefined); // evicts no WebSocket
    await here.get.answers(HANDSHAKE);
    assert.deepEqual([here.chsk.state.open, here.chsk.state.type], [true, "ajax"]);
    await here.tick(0);
    assert.equal(here.sockets.length, 2); // the second knows the cursor
    await here.tick(5000);
    assert.equal(here.socket.closedWith, 4000);
    assert.equal(here.chsk.state.type, "ajax");
    await here.get.answers("[:chsk/timeout nil]");
    await here.idles(30_000);
    assert.equal(here.sockets.length, 3); // the next try
  });

  it("tries Ajax beside one that opened and says nothing more", async (t) => {
    const here = await world(t);
    await here.tick(900);
    here.socket.open();
    await here.tick(999);
    assert.equal(here.calls.length, 0);
    await here.tick(1);
    assert.equal(here.gets().length, 1);
  });

  it("prefers the WebSocket that is slow, but sooner", async (t) => {
    const here = await world(t);
    await here.tick(1000);
    // The server has this WebSocket already: it says so, and is asked again.
    await here.get.answers("[:chsk/timeout nil]");
    await here.tick(250);
    assert.equal(here.gets().length, 2);
    here.socket.opens();
    assert.equal(here.chsk.state.type, "ws");
    assert.equal(here.get.aborted, true);
    await here.tick(20_000);
    assert.deepEqual([here.sockets.length, here.gets().length], [1, 2]);
  });

  it("takes over the WebSocket that comes after Ajax", async (t) => {
    const here = await world(t);
    await here.tick(1000);
    await here.get.answers(HANDSHAKE);
    assert.equal(here.chsk.state.type, "ajax");
    await here.tick(0);
    here.socket.opens(RECOVERED);
    assert.deepEqual([here.chsk.state.type, here.sockets.length], ["ws", 2]);
  });

  it("tries a WebSocket anew that began without a cursor, when Ajax has one", async (t) => {
    const here = await world(t);
    await here.tick(1000);
    const first = here.socket;
    await here.get.answers(HANDSHAKE);
    await here.tick(0);
    assert.deepEqual([first.closedWith, here.sockets.length], [1000, 2]);
    const cursors = here.sockets.map(({ url }) => new URL(url).searchParams.get("cursor"));
    assert.deepEqual(cursors, [null, "e1:10"]);
  });

  it("asks for a handshake once the WebSocket beside has failed", async (t) => {
    const here = await world(t);
    await here.tick(1000);
    await here.get.answers("[:chsk/timeout nil]");
    here.socket.drops();
    await here.tick(250);
    assert.equal(here.get.params["handshake?"], "1");
    await here.get.answers(HANDSHAKE);
    assert.equal(here.chsk.state.type, "ajax");
  });

  it("soon tries again a WebSocket that was replaced by the poll beside it", async (t) => {
    const here = await world(t);
    await here.tick(1000);
    here.socket.drops(4001);
    await here.get.answers(HANDSHAKE);
    assert.equal(here.chsk.state.type, "ajax");
    await here.tick(2000);
    assert.equal(here.sockets.length, 2);
  });

  it("waits for the WebSocket where Ajax fails beside it, and tries Ajax no more then", async (t) => {
    const here = await world(t);
    await here.tick(1000);
    await here.get.answers("no", 503, { "retry-after": "7" });
    assert.equal(here.chsk.state.status, "connecting");
    here.socket.drops();
    assert.equal(here.chsk.state.status, "waiting");
    assert.equal(here.chsk.state.udtNextReconnect, Date.now() + 7000);
    assert.equal(here.gets().length, 1);
  });

  it("ends both where it is told to", async (t) => {
    for (const end of ["disconnect", "destroy", "reconnect"]) {
      const here = await world(t);
      await here.tick(1000);
      here.chsk[end]();
      await settle();
      assert.equal(here.get.aborted, true);
      assert.notEqual(here.sockets[0].closedWith, null);
      assert.equal(here.sockets.length, end === "reconnect" ? 2 : 1);
      here.chsk.destroy();
      mock.timers.reset();
    }
  });

  it("remembers for the tab what worked, for ten minutes", async (t) => {
    const stored = new Map();
    globalThis.sessionStorage = {
      getItem: (key) => stored.get(key) ?? null,
      setItem: (key, value) => stored.set(key, value),
    };
    t.after(() => delete globalThis.sessionStorage);
    const first = await downgraded(t);
    first.chsk.destroy();
    mock.timers.reset();
    const next = await world(t);
    assert.deepEqual([next.sockets.length, next.gets().length], [0, 1]);
    await next.get.answers(HANDSHAKE);
    await next.idles(30_000);
    next.socket.opens(RECOVERED); // WebSockets pass by now
    next.chsk.destroy();
    mock.timers.reset();
    const third = await world(t);
    assert.deepEqual([third.sockets.length, third.gets().length], [1, 0]);
    await third.tick(4999);
    assert.equal(third.gets().length, 0); // they worked, so nothing is tried beside
    third.chsk.destroy();
    mock.timers.reset();
    stored.forEach((_, key) => stored.set(key, `ajax ${1_000_000 - 600_000}`));
    const late = await world(t);
    assert.deepEqual([late.sockets.length, late.gets().length], [1, 0]);
  });

  it("does without the tab's memory where that is forbidden", async (t) => {
    Object.defineProperty(globalThis, "sessionStorage", {
      configurable: true,
      get() {
        throw new Error("SecurityError");
      },
    });
    t.after(() => delete globalThis.sessionStorage);
    assert.equal((await downgraded(t)).chsk.state.open, true);
  });

  it("falls back where there is no WebSocket at all, or none can be made", async (t) => {
    const without = await world(t, { WebSocket: null });
    assert.equal(without.gets().length, 1);
    without.chsk.destroy();
    mock.timers.reset();
    const forbidden = await world(t, {
      WebSocket: class {
        constructor() {
          throw new Error("insecure");
        }
      },
    });
    await forbidden.tick(1);
    assert.equal(forbidden.gets().length, 1);
  });

  it("does not fall back where the server spoke", async (t) => {
    const here = await world(t);
    here.socket.drops(1013, "full");
    await here.tick(1000);
    assert.deepEqual([here.sockets.length, here.calls.length], [2, 0]);
  });

  it("tries WebSockets first again where Ajax failed, too", async (t) => {
    const here = await world(t);
    here.socket.drops();
    await settle();
    await here.get.fails();
    await here.tick(1000);
    assert.equal(here.sockets.length, 2);
  });

  it("drops what an untrusted WebSocket said, and loses nothing by it", async (t) => {
    const here = await world(t);
    const events = here.heard();
    here.socket.open();
    here.socket.says(HANDSHAKE);
    here.socket.says('[[[:a/x 1]] nil "e1:11"]');
    await here.tick(5000);
    await here.get.answers(HANDSHAKE);
    await here.get.answers('[[[:a/x 1]] nil "e1:11"]');
    assert.deepEqual(events, [
      ["chsk/handshake", ["ann", null, null]],
      ["a/x", 1],
    ]);
  });
});

describe("WebSockets that are cut soon", () => {
  /** Cut after 300 ms, twice. */
  async function flapping(t) {
    const here = await overWs(t, { type: "auto" });
    await here.tick(300, 300);
    here.socket.drops();
    await here.tick(1000);
    here.socket.opens(RECOVERED);
    await here.tick(300, 300);
    here.socket.drops();
    await settle();
    return here;
  }

  it("give way to Ajax at once after the second", async (t) => {
    const here = await flapping(t);
    assert.equal(here.get.params["handshake?"], "1");
    assert.equal(here.get.params.cursor, "e1:10");
    await here.get.answers(RECOVERED);
    assert.deepEqual([here.chsk.state.open, here.chsk.state.type], [true, "ajax"]);
  });

  it("are tried again ever more seldom, and Ajax is back at once", async (t) => {
    const here = await flapping(t);
    await here.get.answers(RECOVERED);
    for (const seconds of [30, 60, 120, 240, 480, 600, 600]) {
      const tries = here.sockets.length;
      await here.idles(seconds * 1000 - 1000);
      assert.equal(here.sockets.length, tries, `${seconds} s`);
      await here.tick(1000);
      assert.equal(here.sockets.length, tries + 1, `${seconds} s`);
      here.socket.opens(RECOVERED);
      assert.equal(here.chsk.state.type, "ws");
      await here.tick(300, 300);
      here.socket.drops();
      await settle();
      assert.equal(here.get.params["handshake?"], "1");
      await here.get.answers(RECOVERED);
    }
  });

  it("are trusted again once one has lasted", async (t) => {
    const here = await flapping(t);
    await here.get.answers(RECOVERED);
    await here.idles(30_000);
    here.socket.opens(RECOVERED);
    await here.tick(5000);
    here.socket.drops();
    assert.equal(here.chsk.state.status, "waiting");
    await here.tick(1000);
    assert.equal(here.chsk.state.type, "ws");
  });

  it("by the server's own word say nothing of the way", async (t) => {
    const here = await overWs(t, { type: "auto" });
    for (let n = 0; n < 4; n++) {
      here.socket.drops(1012);
      await here.tick(2000);
      here.socket.opens(RECOVERED);
    }
    assert.deepEqual([here.chsk.state.type, here.gets().length], ["ws", 0]);
  });

  it("are all there is where the application wants nothing else", async (t) => {
    const here = await overWs(t);
    for (let n = 0; n < 4; n++) {
      here.socket.drops();
      await here.tick(1000);
      here.socket.opens(RECOVERED);
    }
    assert.deepEqual([here.chsk.state.type, here.gets().length], ["ws", 0]);
  });
});

describe("the way back from Ajax", () => {
  it("is tried after 30 s, then ever more seldom, to every 10 minutes", async (t) => {
    const here = await downgraded(t);
    const at = [];
    const began = Date.now();
    for (let seconds = 0; seconds < 2400; seconds++) {
      await here.tick(1000);
      if (here.get.aborted || !here.get) break;
      if (here.sockets.length > at.length + 1) {
        at.push((Date.now() - began) / 1000);
        here.socket.drops();
      }
      if (seconds % 20 === 19) await here.get.answers('[:chsk/timeout nil "e1:10"]');
    }
    assert.deepEqual(at, [30, 90, 210, 450, 930, 1530, 2130]);
    assert.equal(here.chsk.state.type, "ajax");
    assert.equal(here.chsk.state.open, true);
  });

  it("is tried after 2 s where a WebSocket has worked on this page", async (t) => {
    const here = await overWs(t, { type: "auto" });
    here.socket.drops();
    await here.tick(1000);
    here.socket.drops();
    await settle();
    await here.get.answers(HANDSHAKE);
    assert.equal(here.chsk.state.type, "ajax");
    await here.tick(1999);
    assert.equal(here.sockets.length, 2);
    await here.tick(1);
    assert.equal(here.sockets.length, 3);
    here.socket.drops();
    await here.tick(3999);
    assert.equal(here.sockets.length, 3);
    await here.tick(1);
    assert.equal(here.sockets.length, 4);
    here.socket.opens(RECOVERED);
    await settle();
    assert.equal(here.chsk.state.type, "ws");
  });

  it("changes over with nothing lost, doubled, or out of order", async (t) => {
    const here = await downgraded(t);
    const events = here.heard();
    const states = [];
    here.chsk.watch((old, now) => states.push([now.status, now.type]));
    await here.get.answers('[[[:a/x 1]] nil "e1:11"]');
    await here.idles(30_000);
    const { socket } = here;
    assert.equal(socket.params.cursor, "e1:11");
    socket.open();
    await here.get.answers('[[[:a/x 2]] nil "e1:12"]');
    socket.says(RECOVERED.replace("e1:10", "e1:11"));
    socket.says('[[[:a/x 2] [:a/x 3]] nil "e1:12,+1"]');
    assert.deepEqual(events, [
      ["a/x", 1],
      ["a/x", 2],
    ]);
    const parked = here.get;
    socket.says('["pong" "ping"]');
    await settle();
    assert.equal(parked.aborted, true);
    assert.deepEqual(events, [
      ["a/x", 1],
      ["a/x", 2],
      ["chsk/handshake", ["ann", null, null]],
      ["a/x", 3],
    ]);
    assert.deepEqual(states, [["open", "ws"]]);
    const polls = here.gets().length;
    await here.tick(10_000);
    assert.equal(here.gets().length, polls);
  });

  it("does not poll again at once when the WebSocket takes over", async (t) => {
    const here = await downgraded(t);
    await here.idles(30_000);
    here.socket.open();
    const polls = here.gets().length;
    await here.get.answers('[:chsk/timeout nil "e1:10"]');
    here.socket.says(RECOVERED);
    here.socket.says('["pong" "ping"]');
    await here.tick(1000);
    assert.equal(here.gets().length, polls);
    assert.equal(here.chsk.state.type, "ws");
  });

  it("lets what was posted before arrive before what is sent after", async (t) => {
    const here = await downgraded(t);
    await here.idles(29_000);
    here.chsk.send(["a/b", 1]);
    await settle();
    here.chsk.send(["a/b", 2]);
    await here.tick(1000);
    here.socket.opens(RECOVERED);
    here.chsk.send(["a/b", 3]);
    assert.deepEqual(here.socket.sent, []);
    await here.posts()[0].answers("[:chsk/dummy-cb-200 nil]");
    await here.posts()[1].answers("[:chsk/dummy-cb-200 nil]");
    here.chsk.send(["a/b", 4]);
    assert.deepEqual(
      here.posts().map((post) => post.params.ppstr),
      ["[[:a/b 1] nil]", "[[:chsk/batch [[:a/b 2] [:a/b 3]]] nil]"],
    );
    assert.deepEqual(here.socket.sent, ["[[:a/b 4] nil]"]);
  });

  it("survives a poll of ours that crossed it", async (t) => {
    const here = await downgraded(t);
    await here.idles(30_000);
    here.socket.opens(RECOVERED);
    here.socket.drops(4001);
    assert.equal(here.chsk.state.status, "waiting");
    await here.tick(1000);
    assert.equal(here.sockets.length, 3);
  });

  it("gives a reply that a post still waits for", async (t) => {
    const here = await downgraded(t);
    const reply = here.chsk.request(["a/slow"], { timeoutMs: 60_000 });
    await here.idles(30_000);
    here.socket.opens(RECOVERED);
    await here.posts()[0].answers("[7 nil]");
    assert.equal(await reply, 7);
  });
});

describe("a client id that somebody else holds", () => {
  const held = (here) => here.get.answers("held by another client", 409, { "retry-after": "2" });

  it("is replaced by a new one, and what was missed is told", async (t) => {
    const here = await overAjax(t, { clientId: undefined });
    const [before, events] = [here.chsk.clientId, here.heard()];
    await held(here);
    assert.equal(here.chsk.state.status, "waiting");
    await here.tick(1000);
    assert.notEqual(here.chsk.clientId, before);
    assert.equal(here.get.params["client-id"], here.chsk.clientId);
    assert.equal(here.get.params.cursor, "e1:10");
    assert.equal(here.get.headers["X-Chsk-Resume"], undefined);
    await here.get.answers(
      '[[:chsk/handshake ["ann" nil nil {:cursor "e1:30" :resume "r" :recovered false}]] nil]',
    );
    assert.deepEqual(events.at(-1), ["chsk/gap"]);
  });

  it("is asked for again, where the application fixed it", async (t) => {
    const here = await overAjax(t, { clientId: "fixed" });
    await held(here);
    await here.tick(1000);
    assert.equal(here.gets().length, 2); // waits as long as the server asked
    await here.tick(1000);
    assert.equal(here.get.params["client-id"], "fixed");
    assert.equal(here.chsk.state.status, "connecting");
  });
});

describe("a refusal", () => {
  it("asks once more for the token, then stops", async (t) => {
    let n = 0;
    const here = await world(t, { csrfToken: () => `t${++n}` });
    here.socket.drops();
    await settle();
    await here.get.answers("CSRF token is missing", 403);
    await here.tick(1);
    here.socket.drops();
    await settle();
    await here.get.answers("CSRF token is wrong", 403);
    await here.tick(600_000);
    const { status, lastClose } = here.chsk.state;
    assert.equal(status, "refused");
    assert.deepEqual(
      [lastClose.reason, lastClose.status, lastClose.message],
      ["refused", 403, "CSRF token is wrong"],
    );
    assert.deepEqual([here.sockets.length, here.gets().length], [2, 2]);
    assert.equal(here.socket.shown("csrf"), "dDM");
  });

  it("is over when the new token is taken", async (t) => {
    const here = await world(t, { type: "ajax", csrfToken: async () => "t" });
    await here.get.answers("CSRF", 403);
    await here.tick(1);
    await here.get.answers(HANDSHAKE);
    assert.equal(here.chsk.state.open, true);
    await here.get.answers("CSRF", 403);
    await here.tick(1);
    assert.equal(here.get.params["handshake?"], "1");
  });

  it("with 401 is no reason to change the transport", async (t) => {
    const here = await world(t);
    here.socket.drops();
    await settle();
    await here.get.answers("sign in first", 401);
    await here.tick(1);
    assert.equal(here.sockets.length, 2);
  });

  it("ends with connect()", async (t) => {
    const here = await world(t, { type: "ajax" });
    for (let i = 0; i < 2; i++) {
      await here.get.answers("no", 403);
      await here.tick(1);
    }
    here.chsk.connect();
    await settle();
    await here.get.answers(HANDSHAKE);
    assert.equal(here.chsk.state.open, true);
  });

  it("by credentials that cannot be had is tried again later", async (t) => {
    let down = true;
    const here = await world(t, {
      type: "ws",
      auth: async () => {
        if (down) throw new Error("offline");
        return "jwt";
      },
    });
    assert.equal(here.sockets.length, 0);
    assert.equal(here.chsk.state.status, "waiting");
    down = false;
    await here.tick(1000);
    assert.deepEqual(here.socket.protocols, ["chsk.v1", `secret.${here.socket.shown("secret")}`, "auth.and0"]);
  });
});

describe("waking up", () => {
  /** A window and a document, as far as they are listened to. */
  function page(t) {
    const targets = { document: new EventTarget(), window: new EventTarget() };
    Object.assign(targets.document, { hidden: false, querySelector: () => null });
    const listeners = [];
    globalThis.document = targets.document;
    globalThis.addEventListener = (name, fn, opts) => {
      listeners.push(name);
      targets.window.addEventListener(name, fn, opts);
    };
    t.after(() => {
      delete globalThis.document;
      delete globalThis.addEventListener;
    });
    return {
      document: targets.document,
      happens: (name) => targets.window.dispatchEvent(new Event(name)),
      looks: () => targets.document.dispatchEvent(new Event("visibilitychange")),
    };
  }

  for (const how of ["online", "pageshow", "focus", "visibilitychange"]) {
    it(`by ${how} ends the wait for the next attempt`, async (t) => {
      const window = page(t);
      const here = await overWs(t, { backoff: () => 30_000 });
      here.socket.drops();
      if (how === "visibilitychange") {
        window.document.hidden = true;
        window.looks();
        await settle();
        assert.equal(here.sockets.length, 1);
        window.document.hidden = false;
        window.looks();
      } else window.happens(how);
      await settle();
      assert.equal(here.sockets.length, 2);
    });
  }

  it("by focus does not end a wait that the server asked for", async (t) => {
    const window = page(t);
    const here = await world(t, { type: "ajax" });
    await here.get.answers("restarting", 503, { "retry-after": "7" });
    assert.equal(here.chsk.state.udtNextReconnect, Date.now() + 7000);
    window.happens("focus");
    await here.tick(6999);
    assert.equal(here.gets().length, 1);
    await here.tick(1);
    assert.equal(here.gets().length, 2);
  });

  it("by online, or connect(), ends that wait, too", async (t) => {
    const window = page(t);
    const here = await world(t, { type: "ajax" });
    for (const end of [() => window.happens("online"), () => here.chsk.connect()]) {
      const tries = here.gets().length;
      await here.get.answers("restarting", 503, { "retry-after": "60" });
      end();
      await settle();
      assert.equal(here.gets().length, tries + 1);
    }
  });

  it("by connect() is no way to try all the time", async (t) => {
    const here = await world(t, { type: "ajax", backoff: () => 5000 });
    here.chsk.watch((_, now) => now.status === "waiting" && here.chsk.connect());
    for (let second = 0; second < 10; second++) {
      for (let n = 0; n < 3; n++) if (!here.get.done) await here.get.answers("no", 500);
      await here.tick(1000);
    }
    assert.ok(here.gets().length <= 12, `${here.gets().length} tries in 10 s`);
  });

  it("is the same where the page was offline: it says so, and comes back by itself", async (t) => {
    const window = page(t);
    for (const type of ["ws", "ajax"]) {
      const here = await (type === "ws" ? overWs : overAjax)(t, { backoff: () => 5000 });
      window.happens("offline");
      const { status, lastClose, open } = here.chsk.state;
      assert.deepEqual([status, lastClose.reason, open], ["waiting", "offline", false]);
      assert.equal(here.chsk.send(["a/b"]), false);
      const tries = here.sockets.length + here.gets().length;
      window.happens("online");
      await settle();
      assert.equal(here.sockets.length + here.gets().length, tries + 1);
      if (type === "ws") assert.equal(here.sockets[0].closedWith, 3002);
      here.chsk.destroy();
      mock.timers.reset();
    }
  });

  it("finds a page that was left closed, and opens it where it was", async (t) => {
    const window = page(t);
    const here = await overWs(t);
    window.happens("pagehide");
    assert.equal(here.socket.closedWith, 3002);
    const { status, lastClose, udtNextReconnect } = here.chsk.state;
    assert.deepEqual([status, lastClose.reason, udtNextReconnect], ["waiting", "pagehide", null]);
    await here.tick(60_000);
    assert.equal(here.sockets.length, 1); // it is frozen, and begins nothing where it is not
    window.happens("pageshow");
    await settle();
    assert.deepEqual([here.sockets.length, here.socket.params.cursor], [2, "e1:10"]);
  });

  it("leaves a page alone that was closed before it was left", async (t) => {
    const window = page(t);
    const here = await overWs(t);
    here.chsk.disconnect();
    window.happens("pagehide");
    window.happens("pageshow");
    await settle();
    assert.deepEqual([here.sockets.length, here.chsk.state.status], [1, "closed"]);
  });

  it("from sleep ends it, too", async (t) => {
    const here = await overWs(t, { backoff: () => 3_600_000 });
    here.socket.drops();
    await here.tick(60_000);
    assert.equal(here.sockets.length, 1);
    await here.sleeps(120_000);
    assert.equal(here.sockets.length, 2);
  });

  it("from sleep asks an open WebSocket whether it is still there", async (t) => {
    const here = await overWs(t, { wsKaliveMs: 3_600_000 });
    await here.sleeps(120_000);
    assert.deepEqual(here.socket.sent, ['[[:chsk/ws-ping] "ping"]']);
    await here.tick(3000);
    assert.equal(here.chsk.state.lastClose.reason, "ws-ping-timeout");
  });

  it("when looked at asks only after some silence", async (t) => {
    const window = page(t);
    const here = await overWs(t);
    await here.tick(4000);
    window.looks();
    assert.deepEqual(here.socket.sent, []);
    await here.tick(2000);
    window.looks();
    window.looks();
    assert.deepEqual(here.socket.sent, ['[[:chsk/ws-ping] "ping"]']);
  });

  it("online begins a new poll in place of one that may be dead", async (t) => {
    const window = page(t);
    const here = await overAjax(t);
    const dead = here.get;
    window.happens("online");
    await settle();
    assert.equal(dead.aborted, true);
    assert.equal(here.get.params.cursor, "e1:10");
    assert.equal(here.chsk.state.open, true);
  });
});

describe("the application's wishes", () => {
  it("disconnect and connect", async (t) => {
    const here = await overWs(t);
    here.chsk.disconnect();
    assert.equal(here.socket.closedWith, 1000);
    assert.equal(here.chsk.state.status, "closed");
    assert.equal(here.chsk.state.lastClose.reason, "requested-disconnect");
    await here.tick(600_000);
    assert.equal(here.sockets.length, 1);
    here.chsk.connect();
    here.chsk.connect();
    await settle();
    assert.equal(here.sockets.length, 2);
    assert.equal(here.socket.params.cursor, "e1:10");
  });

  it("reconnect, at once, and from a wait", async (t) => {
    const here = await overWs(t);
    here.chsk.reconnect();
    assert.equal(here.sockets[0].closedWith, 3000);
    assert.equal(here.chsk.state.lastClose.reason, "requested-reconnect");
    await settle();
    here.socket.drops();
    here.chsk.reconnect();
    await settle();
    await here.tick(60_000);
    assert.equal(here.sockets.length >= 3, true);
  });

  it("breakConnection is a cut like any other", async (t) => {
    const here = await overWs(t);
    here.chsk.breakConnection();
    assert.equal(here.chsk.state.status, "waiting");
    await here.tick(1000);
    assert.equal(here.sockets.length, 2);
  });

  it("destroy, and nothing stirs any more", async (t) => {
    for (const open of [overWs, overAjax, downgraded]) {
      const here = await open(t);
      let calls = 0;
      here.chsk.on("*", () => calls++);
      const reply = here.chsk.request(["a/b"]).catch((e) => e.name);
      await settle();
      here.chsk.destroy();
      here.chsk.destroy();
      here.chsk.reconnect();
      here.chsk.disconnect();
      assert.equal(await reply, "ChannelClosed");
      assert.equal(here.chsk.state.status, "destroyed");
      const before = [here.sockets.length, here.calls.length, calls];
      await here.tick(700_000, 5000);
      assert.deepEqual([here.sockets.length, here.calls.length, calls], before);
      assert.deepEqual(
        here.calls.filter((call) => !call.aborted && !call.done),
        [],
      );
      mock.timers.reset();
    }
  });

  it("may be made where no page is, and waits there for nothing", () => {
    const chsk = new ChannelSocket();
    assert.equal(chsk.state.status, "closed");
    chsk.destroy();
  });

  it("may be found in the page", async (t) => {
    globalThis.document = {
      querySelector: (selector) =>
        selector === 'meta[name="chsk"]' && {
          dataset: { path: "/app/chsk", csrfToken: "tok", cursor: "e1:7.signed" },
        },
    };
    t.after(() => delete globalThis.document);
    const location = { href: "https://example.org:8443/app/page?x#y" };
    const { WebSocket } = {
      WebSocket: class {
        constructor(...args) {
          WebSocket.args = args;
        }
        close() {}
      },
    };
    const chsk = new ChannelSocket(undefined, { WebSocket, location, clientId: "cid" });
    chsk.connect();
    await settle();
    chsk.destroy();
    const [url, protocols] = WebSocket.args;
    assert.match(url, /^wss:\/\/example\.org:8443\/app\/chsk\?client-id=cid&/);
    assert.equal(new URL(url).searchParams.get("cursor"), "e1:7.signed");
    assert.deepEqual(protocols.slice(2), ["csrf.dG9r"]);
  });
});

describe("Retry-After", () => {
  for (const [said, ms] of [
    ["7", 7000],
    ["3000000", 60_000],
    ["-5", 1000],
    ["0", 1000],
    ["soon", 1000],
    ["0.001", 1000],
    ["Wed, 21 Oct 2037 07:28:00 GMT", 1000],
  ]) {
    it(`of ${said} waits for ${ms} ms`, async (t) => {
      const here = await world(t, { type: "ajax", backoff: () => 1000 });
      await here.get.answers("later", 503, { "retry-after": said });
      assert.equal(here.chsk.state.udtNextReconnect, Date.now() + ms);
    });
  }

  it("of a post is bounded, too", async (t) => {
    const here = await overAjax(t);
    here.chsk.send(["a/b"]);
    await settle();
    await here.post.answers("later", 503, { "retry-after": "3600" });
    await here.tick(60_000, 20_000);
    assert.equal(here.posts().length, 2);
  });
});

describe("a request", () => {
  it("waits for the first connection, and for the next", async (t) => {
    const here = await world(t, { type: "ws" });
    const first = here.chsk.request(["a/b", 1]);
    here.socket.opens();
    assert.deepEqual(here.socket.sent, ['[[:a/b 1] "c1"]']);
    here.socket.says('[1 "c1"]');
    assert.equal(await first, 1);
    here.socket.drops(1012);
    const next = here.chsk.request(["a/b", 2]);
    await here.tick(2000);
    here.socket.opens(RECOVERED);
    here.socket.says('[2 "c2"]');
    assert.equal(await next, 2);
  });

  it("waits where its WebSocket is closing already", async (t) => {
    const here = await overWs(t);
    here.socket.readyState = 2;
    const reply = here.chsk.request(["a/b"]);
    assert.equal(here.chsk.send(["a/b"]), false);
    here.socket.drops(1012);
    await here.tick(2000);
    here.socket.opens(RECOVERED);
    here.socket.says('[:ok "c1"]');
    assert.equal(await reply, "ok");
  });

  it("waits no longer than its timeout, and says why", async (t) => {
    const here = await world(t, { type: "ws" });
    const reply = here.chsk.request(["a/b"], { timeoutMs: 1000 }).catch((error) => error);
    await here.tick(1000);
    const { name, message } = await reply;
    assert.deepEqual([name, message], ["ReplyTimeout", "not open yet: a/b"]);
    here.socket.opens();
    assert.deepEqual(here.socket.sent, []);
  });

  it("that had left when the connection broke is rejected", async (t) => {
    const here = await overWs(t);
    const reply = here.chsk.request(["a/b"]);
    here.socket.drops();
    await assert.rejects(reply, { name: "ChannelClosed" });
  });

  it("does not wait where nobody tries to connect", async (t) => {
    const here = await overWs(t);
    here.chsk.disconnect();
    await assert.rejects(here.chsk.request(["a/b"]), { name: "ChannelClosed" });
    here.chsk.connect();
    const waiting = here.chsk.request(["a/b"]);
    here.chsk.disconnect();
    await assert.rejects(waiting, { name: "ChannelClosed" });
  });

  it("waits for the user who made it", async (t) => {
    const bob = '[[:chsk/handshake ["bob" nil nil {:cursor "e1:10" :recovered false}]] nil]';
    const here = await overWs(t);
    here.socket.drops();
    const anns = here.chsk.request(["a/b", "ann"]);
    await here.tick(1000);
    here.socket.opens(bob);
    await assert.rejects(anns, { name: "ChannelClosed", message: "the user changed" });
    assert.deepEqual(here.socket.sent, []);
  });

  it("of whoever signed in waits for the connection of theirs", async (t) => {
    const bob = '[[:chsk/handshake ["bob" nil nil {:cursor "e1:10" :recovered false}]] nil]';
    const here = await overWs(t);
    here.socket.drops();
    const anns = here.chsk.request(["a/b", "ann"]);
    here.chsk.reconnect(); // signed in as bob
    here.chsk.request(["a/b", "bob"]).catch(() => {});
    await settle();
    here.socket.opens(bob);
    await assert.rejects(anns, { name: "ChannelClosed" });
    assert.deepEqual(here.socket.sent, ['[[:a/b "bob"] "c2"]']);
  });

  it("is one of 1000 that wait, at most", async (t) => {
    const here = await world(t, { type: "ws" });
    const lost = [];
    for (let n = 0; n < 1100; n++) here.chsk.request(["a/b", n]).catch((e) => lost.push(e.name));
    await settle();
    assert.deepEqual([lost.length, lost[0]], [100, "ChannelClosed"]);
  });

  it("takes no place of sends that wait, nor makes them wait", async (t) => {
    const here = await world(t, { type: "ws", offlineQueue: 1 });
    here.chsk.request(["a/b"]).catch(() => {});
    assert.deepEqual([here.chsk.send(["a/c"]), here.chsk.send(["a/c"])], [true, false]);
    const reply = await new Promise((cb) => here.chsk.send(["a/c"], 1000, cb));
    assert.equal(reply, "chsk/closed");
  });
});
