// What the channel socket says and understands, transport by transport.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { json } from "../../flask_chsk/static/edn.js";
import { ChannelSocket } from "../../flask_chsk/static/chsk.js";
import { FakeSocket, HANDSHAKE, PATH, overAjax, overWs, settle, world } from "./fakes.mjs";

describe("over a WebSocket", () => {
  it("asks for the path with the client id, the packer and the version", async (t) => {
    const { socket } = await world(t, { params: { room: "a b" } });
    assert.equal(socket.url.origin + socket.url.pathname, "ws://example.org/chsk");
    assert.deepEqual(socket.params, {
      room: "a b",
      "client-id": "cid",
      udt: "1000000",
      packer: "edn",
      v: "1",
    });
    assert.deepEqual(socket.protocols, ["chsk.v1", `secret.${socket.shown("secret")}`]);
  });

  it("gives CSRF token and bearer as subprotocols", async (t) => {
    const { socket } = await world(t, { csrfToken: "a>b?c~~", auth: async () => "jwt" });
    assert.equal(socket.protocols[0], "chsk.v1");
    assert.equal(socket.shown("csrf"), "YT5iP2N-fg");
    assert.equal(socket.shown("auth"), "and0");
  });

  it("shows a secret of 128 bits, its own for its life and never in a URL", async (t) => {
    const { chsk, sockets, socket, tick } = await overWs(t);
    const secret = socket.shown("secret");
    assert.match(secret, /^[A-Za-z0-9_-]{22}$/);
    socket.drops();
    await tick(1000);
    assert.equal(sockets[1].shown("secret"), secret);
    assert.ok(!sockets.some((one) => one.url.href.includes(secret)));
    const other = new ChannelSocket(PATH, { WebSocket: FakeSocket, type: "ws" });
    t.after(() => other.destroy());
    await settle();
    assert.notEqual(FakeSocket.all.at(-1).shown("secret"), secret);
    assert.notEqual(other.clientId, chsk.clientId);
  });

  it("tells the application of the handshake", async (t) => {
    const { chsk, socket } = await world(t, { type: "ws", csrfToken: "t" });
    const heard = [];
    chsk.on("chsk/handshake", (ev) => heard.push(ev.event));
    socket.opens('[[:chsk/handshake ["ann" nil {:motd "hi"} {:cursor "e1:10"}]] nil]');
    assert.deepEqual(heard, [["chsk/handshake", ["ann", null, { motd: "hi" }]]]);
    assert.deepEqual(chsk.state, {
      status: "open",
      type: "ws",
      open: true,
      everOpened: true,
      firstOpen: true,
      uid: "ann",
      csrfToken: "t",
      handshakeData: { motd: "hi" },
      lastWsError: null,
      lastWsClose: null,
      lastClose: null,
      udtNextReconnect: null,
    });
  });

  it("understands the anonymous of Sente's servers", async (t) => {
    const { chsk } = await overWs(t, {
      handshake: "[[:chsk/handshake [:sente/nil-uid nil nil]] nil]",
    });
    assert.equal(chsk.state.uid, null);
    assert.equal(chsk.state.open, true);
  });

  it("sends events as they are made", async (t) => {
    const { chsk, socket } = await overWs(t);
    assert.equal(chsk.send(["chat/say", { text: "hi" }]), true);
    assert.equal(chsk.send(["chat/bye"]), true);
    assert.deepEqual(socket.sent, ['[[:chat/say {:text "hi"}] nil]', "[[:chat/bye] nil]"]);
  });

  it("gives a reply to the callback that asked, once", async (t) => {
    const { chsk, socket } = await overWs(t);
    const replies = [];
    chsk.send(["a/b", 1], 5000, (reply) => replies.push(["first", reply]));
    chsk.send(["a/b", 2], { timeoutMs: 5000, cb: (reply) => replies.push(["second", reply]) });
    assert.deepEqual(socket.sent, ['[[:a/b 1] "c1"]', '[[:a/b 2] "c2"]']);
    socket.says('[{:ok true} "c2"]');
    socket.says('[nil "c1"]');
    socket.says('[nil "c1"]');
    assert.deepEqual(replies, [
      ["second", { ok: true }],
      ["first", null],
    ]);
  });

  it("answers callbacks itself where the server does not", async (t) => {
    const { chsk, socket, tick } = await overWs(t);
    const replies = [];
    chsk.send(["a/slow"], 3000, (reply) => replies.push(reply));
    await tick(3000);
    chsk.send(["a/cut"], 3000, (reply) => replies.push(reply));
    socket.drops();
    chsk.send(["a/late"], 3000, (reply) => replies.push(reply));
    await settle();
    assert.deepEqual(replies, ["chsk/timeout", "chsk/closed", "chsk/closed"]);
  });

  it("rejects a request by name of what happened", async (t) => {
    const { chsk, socket, tick } = await overWs(t);
    const outcome = (promise) => promise.catch((e) => [e.name, e.message, e.status]);
    const ok = chsk.request(["a/ok"]);
    const slow = outcome(chsk.request(["a/slow"], { timeoutMs: 100 }));
    const bad = outcome(chsk.request(["a/bad"]));
    const cut = outcome(chsk.request(["a/cut"]));
    const wrong = outcome(chsk.request(["wrong"]));
    socket.says('[7 "c1"]');
    socket.says('[:chsk/error "c3" {:status 400 :message "no text"}]');
    await tick(100);
    socket.drops();
    assert.equal(await ok, 7);
    assert.deepEqual(await slow, ["ReplyTimeout", "chsk/timeout: a/slow", undefined]);
    assert.deepEqual(await bad, ["ReplyError", "no text", 400]);
    assert.deepEqual(await cut, ["ChannelClosed", "chsk/closed: a/cut", undefined]);
    assert.equal((await wrong)[0], "BadEvent");
  });

  it("delivers pushes in order and drops what it already has", async (t) => {
    const { chsk, socket, heard } = await overWs(t);
    const events = heard();
    socket.says('[[[:a/x 1] [:a/x 2] [:a/x 3]] nil "e1:9,+1,+5"]');
    socket.says('[[[:a/x 3] [:a/x 4]] nil "e1:15,+7"]');
    socket.says("[[[:a/direct]] nil]");
    assert.deepEqual(events, [["a/x", 3], ["a/x", 4], ["a/direct"]]);
    chsk.breakConnection();
  });

  it("takes a cursor from frames without events, upwards in its epoch only", async (t) => {
    const { socket, sockets, tick } = await overWs(t);
    socket.says('[:chsk/ws-ping nil "e1:50"]');
    socket.says('[:chsk/ws-ping nil "e1:40"]');
    socket.says('[:chsk/ws-ping nil "e2:60"]');
    socket.drops();
    await tick(1000);
    assert.equal(sockets[1].params.cursor, "e1:50");
    assert.equal(sockets[1].shown("resume"), "dG9r");
  });

  it("follows pushes into a new epoch", async (t) => {
    const { socket, sockets, heard, tick } = await overWs(t);
    const events = heard();
    socket.says('[[[:chsk/gap nil]] nil "e2:5"]');
    socket.says('[[[:a/x 1]] nil "e2:6"]');
    socket.drops();
    await tick(1000);
    assert.deepEqual(events, [
      ["chsk/gap", null],
      ["a/x", 1],
    ]);
    assert.equal(sockets[1].params.cursor, "e2:6");
  });

  it("answers pings, and sends its own", async (t) => {
    const { chsk, socket, tick } = await overWs(t, { wsKaliveMs: 4000 });
    const pings = [];
    chsk.on("chsk/ws-ping", (ev) => pings.push(ev.id));
    socket.says("[:chsk/ws-ping nil]");
    await tick(4000);
    socket.says('["pong" "ping"]');
    assert.deepEqual(socket.sent, ["[[:chsk/ws-pong] nil]", '[[:chsk/ws-ping] "ping"]']);
    assert.deepEqual(pings, ["chsk/ws-ping"]);
  });

  it("tells of a text that it cannot read, and goes on", async (t) => {
    const { socket, heard } = await overWs(t);
    const events = heard();
    socket.says("[[[:a/x");
    socket.says("[[[:a/x 1]] nil]");
    assert.deepEqual(events, [
      ["chsk/bad-package", "[[[:a/x"],
      ["a/x", 1],
    ]);
  });

  it("speaks JSON", async (t) => {
    const { chsk, socket, heard } = await overWs(t, {
      packer: "json",
      handshake: '[["chsk/handshake",["ann",null,null,{"cursor":"e1:10"}]],null]',
      pong: '["pong","ping"]',
    });
    const events = heard();
    socket.says('[[["a/x",{"n":1}]],null,"e1:11"]');
    const reply = chsk.request(["a/ask", { n: 2 }]);
    socket.says('["yes","c1"]');
    assert.equal(await reply, "yes");
    assert.deepEqual(events, [["a/x", { n: 1 }]]);
    assert.equal(socket.params.packer, "json");
    assert.deepEqual(socket.sent, ['[["a/ask",{"n":2}],"c1"]']);
  });

  it("speaks any packer, binary ones too", async (t) => {
    const hex = {
      name: "hex",
      binary: true,
      contentType: "application/x-hex",
      pack: (value) => new TextEncoder().encode(json.pack(value)),
      unpack: (data) => JSON.parse(new TextDecoder().decode(data)),
    };
    const { chsk, socket } = await world(t, { type: "ws", packer: hex });
    const handshake = hex.pack([["chsk/handshake", [null, null, null, {}]], null]);
    socket.opens(handshake, hex.pack(["pong", "ping"]));
    chsk.send(["a/b", 1]);
    assert.deepEqual(hex.unpack(socket.sent.at(-1)), [["a/b", 1], null]);
  });

  it("refuses in the caller what cannot be sent", async (t) => {
    const { chsk, socket } = await overWs(t, {
      handshake: "[[:chsk/handshake [nil nil nil {:max-bytes 40}]] nil]",
    });
    const name = (fn) => {
      try {
        fn();
      } catch (e) {
        return `${e.name}: ${e.message}`;
      }
    };
    assert.deepEqual(
      [
        () => chsk.send("chat/say"),
        () => chsk.send(["say"]),
        () => chsk.send(["chat/say", 1, 2]),
        () => chsk.send(["chat/say", { when: [0, () => 1] }]),
        () => chsk.send(["chat/say", "ü".repeat(20)]),
      ].map(name),
      [
        'BadEvent: an event is ["ns/name", data], not chat/say',
        'BadEvent: an event is ["ns/name", data], not say',
        'BadEvent: an event is ["ns/name", data], not chat/say,1,2',
        'PackError: data["when"][1]: a function',
        "PackError: data: over the 40 bytes that the server takes",
      ],
    );
    assert.deepEqual(socket.sent, []);
  });
});

describe("asks", () => {
  const asks = ["[:q/now 1]", "[:q/later]", "[:q/fails]", "[:q/none]", "[:q/odd]"];
  const frame = `[[${asks.map((q, i) => `[:chsk/ask ["i${i}" ${q}]]`).join(" ")}] nil]`;
  const answers = [
    '[:chsk/answer ["i3" nil "Error: no handler for q/none"]]',
    '[:chsk/answer ["i0" 2]]',
    '[:chsk/answer ["i2" nil "Error: broken"]]',
    '[:chsk/answer ["i4" nil "PackError: data[1]: a function"]]',
    '[:chsk/answer ["i1" ["q/later" null]]]',
  ];
  function handle(chsk) {
    chsk.on("q/now", (ev) => ev.data + 1);
    chsk.on("q/later", async (ev) => [ev.id, ev.data ?? null]);
    chsk.on("q/odd", () => () => 1);
    chsk.on("q/fails", () => {
      throw new Error("broken");
    });
  }

  it("are answered by the handler's value or promise over a WebSocket", async (t) => {
    const { chsk, socket } = await overWs(t);
    handle(chsk);
    socket.says(frame);
    await settle();
    assert.deepEqual(
      new Set(socket.sent.map((sent) => sent.replace("nil]]] nil]", "null]]] nil]"))),
      new Set(answers.map((answer) => `[${answer} nil]`)),
    );
  });

  it("are answered by posts over Ajax", async (t) => {
    const { chsk, get, posts } = await overAjax(t);
    handle(chsk);
    await get.answers(frame);
    for (let i = 0; i < 4; i++) await posts()[i]?.answers("[:chsk/dummy-cb-200 nil]");
    const said = posts()
      .map((post) => post.params.ppstr)
      .join();
    for (const id of ["i0", "i1", "i2", "i3", "i4"]) {
      assert.ok(said.includes(`[:chsk/answer ["${id}" `), `${id} in ${said}`);
    }
  });
});

describe("over Ajax", () => {
  it("shakes hands, then polls with cursor, resume and a rising n", async (t) => {
    const { chsk, gets } = await overAjax(t, { csrfToken: "tok", headers: { "X-App": "1" } });
    assert.deepEqual(
      gets().map((call) => call.params),
      [
        { "client-id": "cid", udt: "1000000", packer: "edn", v: "1", n: "1", "handshake?": "1" },
        {
          "client-id": "cid",
          udt: "1000000",
          packer: "edn",
          v: "1",
          n: "2",
          cursor: "e1:10",
        },
      ],
    );
    const secret = gets()[0].headers["X-Chsk-Secret"];
    assert.match(secret, /^[A-Za-z0-9_-]{22}$/);
    assert.deepEqual(gets()[1].headers, {
      "X-App": "1",
      "X-CSRF-Token": "tok",
      "X-Chsk-Secret": secret,
      "X-Chsk-Resume": "tok",
    });
    assert.equal(chsk.state.open, true);
    assert.equal(chsk.state.type, "ajax");
  });

  it("delivers what a poll brings and acknowledges it with the next", async (t) => {
    const here = await overAjax(t);
    const events = here.heard();
    await here.get.answers('[[[:a/x 1] [:a/x 2]] nil "e1:11,+4"]');
    await here.tick(20_000);
    await here.get.answers('[:chsk/timeout nil "e1:20"]');
    await here.tick(250);
    assert.deepEqual(events, [
      ["a/x", 1],
      ["a/x", 2],
    ]);
    assert.deepEqual(
      here.gets().map((call) => call.params.cursor),
      [undefined, "e1:10", "e1:15", "e1:20"],
    );
  });

  it("posts an event as a form", async (t) => {
    const { chsk, post, posts } = await overAjax(t, {
      auth: "jwt",
      ajaxOpts: { withCredentials: true },
    });
    assert.equal(chsk.send(["a/b", "x & y"]), true);
    await settle();
    const [call] = posts();
    assert.deepEqual(call.params, {
      "client-id": "cid",
      udt: "1000000",
      packer: "edn",
      v: "1",
      n: "1",
      ppstr: '[[:a/b "x & y"] nil]',
    });
    assert.equal(call.headers.Authorization, "Bearer jwt");
    assert.equal(call.credentials, "include");
    assert.equal(post, undefined);
  });

  it("adds the params and headers of ajaxOpts", async (t) => {
    const ajaxOpts = { params: { a: 1 }, headers: { "X-App": "2", "X-Other": "3" } };
    const { get } = await overAjax(t, { ajaxOpts, params: { b: 2 }, headers: { "X-App": "1" } });
    assert.deepEqual([get.params.a, get.params.b], ["1", "2"]);
    assert.deepEqual([get.headers["X-App"], get.headers["X-Other"]], ["1", "3"]);
  });

  it("batches no more than the server says", async (t) => {
    const handshake = '[[:chsk/handshake ["ann" nil nil {:cursor "e1:10" :max-batch 2}]] nil]';
    const { chsk, posts } = await overAjax(t, { handshake });
    for (const n of [1, 2, 3]) chsk.send(["a/b", n]);
    await settle();
    assert.equal(posts()[0].params.ppstr, "[[:chsk/batch [[:a/b 1] [:a/b 2]]] nil]");
  });

  it("keeps one post in flight and batches what gathers meanwhile", async (t) => {
    const { chsk, posts } = await overAjax(t);
    chsk.send(["a/b", 1]);
    await settle();
    chsk.send(["a/b", 2]);
    const changed = { n: 3 };
    chsk.send(["a/b", changed]);
    changed.n = 4; // what was sent stays sent
    await settle();
    assert.equal(posts().length, 1);
    await posts()[0].answers("[:chsk/dummy-cb-200 nil]");
    assert.deepEqual(
      posts().map((post) => post.params.ppstr),
      ["[[:a/b 1] nil]", "[[:chsk/batch [[:a/b 2] [:a/b {:n 3}]]] nil]"],
    );
  });

  it("holds later events back until one was handled, not for its reply", async (t) => {
    const { chsk, posts } = await overAjax(t);
    const reply = chsk.request(["a/slow"]);
    chsk.send(["a/b", 2]);
    await settle();
    assert.equal(posts().length, 1);
    await posts()[0].begins();
    assert.deepEqual(
      posts().map((post) => post.params.ppstr),
      ['[[:a/slow] "c1"]', "[[:a/b 2] nil]"],
    );
    await posts()[0].answers("[{:ok true} nil]");
    assert.deepEqual(await reply, { ok: true });
  });

  it("holds nothing back at a server that is not ours", async (t) => {
    const handshake = '[[:chsk/handshake ["ann" nil nil]] nil]';
    const { chsk, posts } = await overAjax(t, { handshake });
    chsk.send(["a/slow"], 10_000, () => {});
    chsk.send(["a/b", 2]);
    await settle();
    assert.equal(posts().length, 2);
  });

  it("tells who asked what became of a post", async (t) => {
    const { chsk, posts } = await overAjax(t);
    const outcome = (id) => chsk.request([id]).catch((e) => [e.name, e.message, e.status]);
    const all = Promise.all(["a/error", "a/timeout", "a/big", "a/network"].map(outcome));
    await settle();
    await posts()[0].answers('[:chsk/error nil {:status 403 :message "not yours"}]');
    await posts()[1].answers("[:chsk/timeout nil]");
    await posts()[2].answers("over 1 MiB", 413, { "content-type": "text/plain" });
    await posts()[3].fails();
    assert.deepEqual(await all, [
      ["ReplyError", "not yours", 403],
      ["ReplyTimeout", "chsk/timeout: a/timeout", undefined],
      ["ReplyError", "over 1 MiB", 413],
      ["ChannelClosed", "chsk/closed: a/network", null],
    ]);
  });

  it("posts again after the time that a busy server asks for", async (t) => {
    const { chsk, posts, tick } = await overAjax(t);
    const reply = chsk.request(["a/b"], { timeoutMs: 9000 });
    await settle();
    await posts()[0].answers("busy", 429, { "retry-after": "3" });
    await tick(2999);
    assert.equal(posts().length, 1);
    await tick(1);
    await posts()[1].answers("[1 nil]");
    assert.equal(await reply, 1);
  });

  it("asks for a new token when a post is refused, and posts once more", async (t) => {
    let n = 0;
    const { chsk, posts } = await overAjax(t, { csrfToken: async () => `t${++n}` });
    const reply = chsk.request(["a/b"]).catch((e) => [e.name, e.status]);
    await settle();
    await posts()[0].answers("CSRF", 403);
    await posts()[1].answers("CSRF", 403);
    assert.deepEqual(
      posts().map((post) => post.headers["X-CSRF-Token"]),
      ["t1", "t2"],
    );
    assert.deepEqual(await reply, ["ReplyError", 403]);
  });

  it("takes a handshake in place of an answer for a new session", async (t) => {
    const here = await overAjax(t);
    const events = here.heard();
    await here.get.answers(
      '[[:chsk/handshake ["ann" nil nil {:cursor "e2:5" :recovered false}]] nil]',
    );
    assert.deepEqual(events, [["chsk/handshake", ["ann", null, null]], ["chsk/gap"]]);
    assert.equal(here.get.params.cursor, "e2:5");
  });

  it("waits a little after an empty answer", async (t) => {
    const here = await overAjax(t);
    await here.get.answers("[:chsk/timeout nil]");
    assert.equal(here.gets().length, 2);
    await here.tick(250);
    assert.equal(here.gets().length, 3);
  });

  it("waits longer for a poll than the server holds it", async (t) => {
    const handshake = "[[:chsk/handshake [nil nil nil {:lp-timeout-ms 50000}]] nil]";
    const here = await overAjax(t, { handshake });
    await here.tick(54_999);
    assert.equal(here.get.aborted, false);
    await here.tick(1);
    assert.equal(here.get.aborted, true);
    assert.equal(here.chsk.state.status, "waiting");
  });

  it("posts binary messages as they are, the rest in the query", async (t) => {
    const hex = {
      name: "hex",
      binary: true,
      pack: (value) => new TextEncoder().encode(json.pack(value)),
      unpack: (data) => JSON.parse(new TextDecoder().decode(data)),
    };
    const here = await world(t, { type: "ajax", packer: hex });
    await here.get.answers(hex.pack([["chsk/handshake", [null, null, null, {}]], null]));
    const replies = [here.chsk.request(["a/b", 1]), here.chsk.request(["a/b", 2])];
    await settle();
    const [post] = here.posts();
    assert.deepEqual(hex.unpack(post.body), [["a/b", 1], "c1"]);
    assert.equal(post.params["binary?"], "true");
    assert.equal(post.params["client-id"], "cid");
    assert.equal(post.headers["Content-Type"], "application/octet-stream");
    for (const [i, call] of here.posts().entries()) await call.answers(hex.pack([i, null]));
    assert.deepEqual(await Promise.all(replies), [0, 1]);
  });
});

describe("the application", () => {
  it("gets what no handler took from chRecv, wrapped as the seed wraps it", async (t) => {
    const { chsk, socket } = await overWs(t);
    const taken = [];
    const undo = chsk.on("a/x", (ev) => taken.push(ev));
    socket.says("[[[:a/x 1] [:a/y 2]] nil]");
    undo();
    socket.says("[[[:a/x 3]] nil]");
    const rest = [];
    for (let i = 0; i < 5; i++) rest.push((await chsk.chRecv.take()).event);
    assert.deepEqual(taken, [{ id: "a/x", data: 1, event: ["a/x", 1] }]);
    assert.deepEqual(
      rest.map(([id, data]) => [id, id === "chsk/state" ? data.status : data]),
      [
        ["chsk/state", "connecting"],
        ["chsk/state", "open"],
        ["chsk/handshake", ["ann", null, null]],
        ["chsk/recv", ["a/y", 2]],
        ["chsk/recv", ["a/x", 3]],
      ],
    );
  });

  it("gets a gap from chRecv as the client's own event", async (t) => {
    const { chsk, socket } = await overWs(t, { handshake: '[[:chsk/handshake ["ann" nil nil {:recovered false}]] nil]' });
    socket.says("[[[:chsk/gap]] nil]");
    chsk.destroy();
    const told = [];
    for await (const ev of chsk.chRecv) if (ev.id !== "chsk/state") told.push(ev.id);
    assert.deepEqual(told, ["chsk/handshake", "chsk/gap", "chsk/gap"]);
  });

  it("is told of keep-alive only where it asks for it by name", async (t) => {
    const { chsk, socket, tick } = await overWs(t);
    const [all, pongs] = [[], []];
    socket.says("[:chsk/ws-ping nil]");
    chsk.on("*", (ev) => all.push(ev.id));
    chsk.on("chsk/ws-pong", (ev) => pongs.push(ev.id));
    socket.says("[:chsk/ws-ping nil]");
    await tick(25_000);
    socket.says('["pong" "ping"]');
    assert.deepEqual([all, pongs], [[], ["chsk/ws-pong"]]);
    const taken = [];
    chsk.destroy();
    for await (const ev of chsk.chRecv) taken.push(ev.id);
    assert.equal(taken.includes("chsk/ws-ping"), false);
  });

  it("iterates over events until the socket is destroyed", async (t) => {
    const { chsk, socket } = await overWs(t, { recvBuf: 2 });
    socket.says("[[[:a/x 1] [:a/x 2]] nil]");
    chsk.put(["a/own", 3]);
    assert.equal(chsk.chRecv.dropped, 4);
    const events = [];
    const all = (async () => {
      for await (const ev of chsk.events()) events.push(ev.event);
    })();
    await settle();
    chsk.destroy();
    await all;
    assert.deepEqual(
      events.filter(([id]) => id !== "chsk/state"),
      [
        ["a/x", 2],
        ["a/own", 3],
      ],
    );
  });

  it("may throw in any handler without harm", async (t) => {
    const { chsk, socket } = await overWs(t);
    const events = [];
    const bad = () => {
      throw new Error("mine");
    };
    chsk.on("a/x", bad);
    chsk.on("a/x", async () => bad());
    chsk.on("a/x", (ev) => events.push(ev.data));
    chsk.watch(bad);
    chsk.send(["a/b"], 1000, bad);
    socket.says("[[[:a/x 1]] nil]");
    socket.says('[1 "c1"]');
    socket.says("[[[:a/x 2]] nil]");
    await settle();
    assert.deepEqual(events, [1, 2]);
    assert.equal(chsk.state.open, true);
  });

  it("sees old and new state, and stops watching", async (t) => {
    const { chsk, socket } = await overWs(t);
    const seen = [];
    const undo = chsk.watch((old, now) => seen.push([old.status, now.status]));
    chsk.disconnect();
    undo();
    chsk.connect();
    assert.deepEqual(seen.at(-1), ["open", "closed"]);
    assert.equal(socket.closedWith, 1000);
  });

  it("keeps what it sends while closed, in order, where it was asked to", async (t) => {
    const { chsk, socket } = await world(t, { type: "ws", offlineQueue: 1 });
    const reply = chsk.request(["a/ask"]);
    const sent = [chsk.send(["a/b", 1]), chsk.send(["a/b", 2])];
    assert.deepEqual(sent, [true, false]);
    socket.opens();
    assert.deepEqual(socket.sent, ['[[:a/ask] "c1"]', "[[:a/b 1] nil]"]);
    socket.says('[1 "c1"]');
    assert.equal(await reply, 1);
  });
});
