// Not run: tests/js/shipped.test.mjs has the compiler read it, and every expected error must be one.

import {
  ChannelSocket,
  cbSuccess,
  isEvent,
  makeChannelSocket,
  type State,
} from "../../flask_chsk/static/chsk.js";

type Push = { "chat/said": { text: string }; "clock/tick": number };
type Calls = {
  "chat/say": { data: { text: string }; reply: { ok: boolean } };
  "chat/leave": { data: undefined; reply: null };
};

const chsk = new ChannelSocket<Push, Calls>("/chsk", {
  csrfToken: async () => "token",
  offlineQueue: 10,
});

const undo: () => void = chsk.on("chat/said", (ev) => ev.data.text.length);
chsk.on("chsk/state", (ev) => ev.data.open);
chsk.on("*", (ev) => ev.id);
// @ts-expect-error: no such data
chsk.on("chat/said", (ev) => ev.data.nothing);
// @ts-expect-error: no such event
chsk.on("chat/sad", () => 1);

const sent: boolean = chsk.send(["chat/say", { text: "hi" }]);
chsk.send(["chat/leave"]);
chsk.send(["chat/say", { text: "hi" }], 1000, (reply) => cbSuccess(reply) && reply.ok);
chsk.send(["chat/say", { text: "hi" }], { cb: (reply) => reply });
// @ts-expect-error: wrong data
chsk.send(["chat/say", { txt: "hi" }]);
// @ts-expect-error: data is missing
chsk.send(["chat/say"]);

async function asks() {
  const { ok } = await chsk.request(["chat/say", { text: "hi" }], { timeoutMs: 100 });
  const yes: boolean = ok;
  // @ts-expect-error: not in the reply
  (await chsk.request(["chat/say", { text: "hi" }])).no;
  for await (const ev of chsk.events()) if (isEvent(ev.event)) return yes;
}

chsk.watch((old: State, now: State) => old.open !== now.open);
// @ts-expect-error: read only
chsk.state.open = true;

const loose = new ChannelSocket();
loose.on("any/thing", (ev) => ev.data.at.all);
loose.send(["any/thing", 1]);
loose.send(["any/thing"]);
makeChannelSocket().sendFn(["any/thing", [1]], 100, (reply) => reply);

export { asks, sent, undo };

// Ends, and errors.
async function ends(signal: AbortSignal) {
  const chsk = new ChannelSocket<{ "a/said": number }, { "a/say": { data: string; reply: boolean } }>(
    "/chsk",
    { connect: false },
  );
  const undo: () => void = chsk.once("a/said", ({ data }) => data.toFixed(), { signal });
  chsk.off("a/said", undo);
  chsk.off("a/said");
  chsk.onAny(({ id }) => id.length, { signal });
  chsk.onError((error) => error instanceof Error, { signal });
  chsk.watch((old, now) => now.open, { signal });
  const { uid }: { uid: string | null } = await chsk.ready({ signal, timeoutMs: 5000 });
  const reply: boolean = await chsk.request(["a/say", "hi"], { signal, timeoutMs: 5000 });
  for await (const ev of chsk.events({ signal })) ev.id;
  // @ts-expect-error: no such event
  chsk.once("a/other", () => {});
  // @ts-expect-error: a number
  chsk.ready({ timeoutMs: "5" });
  return [uid, reply];
}
void ends;
