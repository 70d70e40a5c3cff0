// What answers in place of a channel socket: a login page, a portal, a proxy's own page.

import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";

import { setLoggingLevel } from "../../flask_chsk/static/chsk.js";
import { HANDSHAKE, overAjax, settle, world } from "./fakes.mjs";

const HTML = { "content-type": "text/html; charset=utf-8" };

/** An answer, perhaps of where the request was redirected to. */
async function answers(call, body, status, headers, redirectedTo) {
  const answer = new Response(body, { status, headers });
  if (redirectedTo) {
    Object.defineProperty(answer, "redirected", { value: true });
    Object.defineProperty(answer, "url", { value: redirectedTo });
  }
  call.resolve(answer);
  await settle();
}

/** What the console is told meanwhile. */
function told(t) {
  setLoggingLevel("warn");
  const error = mock.method(console, "error", () => {});
  t.after(() => {
    setLoggingLevel("silent");
    error.mock.restore();
  });
  const ours = /^chsk:/; // Node itself warns here, too
  return () => error.mock.calls.map((call) => call.arguments.join(" ")).filter((line) => ours.test(line));
}

const LOGIN = "http://example.org/login?next=/chsk";
const MESSAGE = (what) => `http://example.org/chsk is answered by ${what}: exempt it from what redirects to a login`;

describe("what is no channel socket", () => {
  for (const [name, status, headers, at, what] of [
    ["a page of HTML", 200, HTML, undefined, "a page of HTML"],
    ["a redirect to a login page", 200, HTML, LOGIN, "a redirect to http://example.org/login"],
    ["a redirect to a refusal", 401, {}, LOGIN, "a redirect to http://example.org/login"],
    ["a redirect to a refusal of HTML", 403, HTML, LOGIN, "a redirect to http://example.org/login"],
  ]) {
    it(`${name} is told once, and tried again slowly and for ever`, async (t) => {
      const console = told(t);
      const here = await world(t, { type: "ajax" });
      for (let i = 1; i < 6; i++) {
        assert.equal(here.gets().length, i);
        await answers(here.get, "<html>", status, headers, at);
        const { lastClose, udtNextReconnect, status: now } = here.chsk.state;
        assert.deepEqual([now, lastClose.reason, lastClose.message], ["waiting", "unexpected", MESSAGE(what)]);
        // Perhaps it was a proxy's page, for a moment: the first time it waits as ever.
        const ms = i === 1 ? 1000 : 15_000;
        assert.equal(udtNextReconnect - Date.now(), ms);
        await here.tick(ms);
      }
      assert.deepEqual(console(), [`chsk: ${MESSAGE(what)}, or look at what stands between`]);
      await here.get.answers(HANDSHAKE);
      assert.equal(here.chsk.state.open, true);
    });
  }

  it("answers a request with an error", async (t) => {
    const here = await overAjax(t);
    const message = MESSAGE("a redirect to http://example.org/login");
    const refused = assert.rejects(here.chsk.request(["a/b"]), { name: "ReplyError", message });
    await settle();
    await answers(here.post, "<html>", 200, HTML, LOGIN);
    await refused;
  });

  it("is not a redirect that leads to one", async (t) => {
    const here = await world(t, { type: "ajax" });
    await answers(here.get, HANDSHAKE, 200, { "content-type": "application/edn" }, "https://example.org/chsk");
    assert.equal(here.chsk.state.open, true);
  });
});
