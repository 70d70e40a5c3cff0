// Frequent mistakes in a page, and the whole message that each gets (tests/integration/test_errors_teach.py
// has those of the server).

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { ChannelSocket } from "../../flask_chsk/static/chsk.js";
import { overWs, PATH } from "./fakes.mjs";

const IDS =
  'an id has a namespace, as in on("chat/say", fn); "*" takes all others.' +
  ' The connection is told to watch(fn) and on("chsk/state", fn)';

const MISTAKES = [
  ["an id without namespace", (c) => c.on("say", () => {}), `BadEvent: on("say"): ${IDS}`],
  ["events of Socket.IO", (c) => c.on("connect", () => {}), `BadEvent: on("connect"): ${IDS}`],
  ["no handler", (c) => c.on("chat/say"), "TypeError: not a function: undefined"],
  ["a send without namespace", (c) => c.send(["say", 1]), 'BadEvent: an event is ["ns/name", data], not say,1'],
  ["an event that is a string", (c) => c.send("chat/say", 1), 'BadEvent: an event is ["ns/name", data], not chat/say'],
  ["a request without namespace", (c) => c.request(["say"]), 'BadEvent: an event is ["ns/name", data], not say'],
  ["a function as a value", (c) => c.send(["a/b", { done: () => {} }]), 'PackError: data["done"]: a function'],
  ["an object of a class", (c) => c.send(["a/b", [new (class Order {})()]]), "PackError: data[0]: object of type Order"],
  ["a packer that is not there", () => new ChannelSocket(PATH, { packer: "protobuf" }), 'TypeError: packer: "edn", "json" or a packer, not protobuf'],
  ["an option that is misspelt", () => new ChannelSocket(PATH, { offlineQeue: 9 }), "TypeError: offlineQeue: not one of offlineQueue,backoff,location,csrfToken,type,recvBuf,chskUrl,WebSocket,fetch,cursor,auth,clientId,connect,params,headers,keywords,wsKaliveMs,lpTimeoutMs,packer,wrapRecv,ajaxOpts"],
];

describe("a mistake in a page", () => {
  for (const [name, wrong, message] of MISTAKES) {
    it(`${name} is answered with what to do`, async (t) => {
      const { chsk } = await overWs(t);
      await assert.rejects(
        async () => wrong(chsk),
        (error) => assert.equal(`${error.name}: ${error.message}`, message) ?? true,
      );
      assert.equal(chsk.state.open, true);
    });
  }
});
