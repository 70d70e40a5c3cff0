// The browser's client, driven line by line: `node twin.mjs SCRIPT URL TYPE PACKER WAIT_MS UID`.
// A line in is a step, `["request", event]`; a line out is what it gave, and the states since.

import { createInterface } from "node:readline";

const [script, url, type, packer, waitMs, uid] = process.argv.slice(2);
const { ChannelSocket } = await import(script);
const packers = {
  transit: async () => (await import(script.replace("chsk.js", "transit.js"))).transit,
  msgpack: async () => (await import(script.replace("chsk.js", "msgpack.js"))).msgpack,
};

/** Node 20 says of a WebSocket that was refused only "error"; browsers then say "close", too. */
class WebSocket extends globalThis.WebSocket {
  constructor(...args) {
    super(...args);
    let closed = false;
    this.addEventListener("close", () => (closed = true));
    this.addEventListener("error", () =>
      setTimeout(() => closed || this.dispatchEvent(closeEvent()), 20),
    );
  }
}
const closeEvent = () =>
  Object.assign(new Event("close"), { code: 1006, reason: "", wasClean: false });

const chsk = new ChannelSocket(url, {
  type,
  packer: (await packers[packer]?.()) ?? packer,
  params: { uid },
  backoff: () => Number(waitMs),
  ...(type !== "ajax" && { WebSocket }),
});
const told = [];
const statuses = [""]; // that no step has waited for yet, behind the last one
const asks = [];

const close = (last) => last && [last.reason, last.code ?? null, last.message || null];

function note({ status, type, open, everOpened, firstOpen, lastClose }) {
  if (status !== statuses.at(-1)) statuses.push(status);
  const now = JSON.stringify([status, type, open, everOpened, firstOpen, close(lastClose)]);
  if (now !== told.at(-1)) told.push(now);
}

note(chsk.state); // it connects as it is made
chsk.watch((old, now) => note(now));
for (const id of ["chsk/handshake", "chsk/gap", "test/pushed", "chsk/bad-package"]) {
  chsk.on(id, ({ data }) => void told.push(JSON.stringify([id, data ?? null])));
}
chsk.on("test/question", ({ data }) => ({ got: data }));

async function eventually(condition) {
  const end = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not within 30 s: ${condition}`);
    await new Promise((wake) => setTimeout(wake, 10));
  }
}

const steps = {
  request: (event, timeoutMs) => chsk.request(event, { timeoutMs }),
  send: (event) => chsk.send(event),
  // It was so since the last step that waited: "waiting" may be short.
  async until(status) {
    await eventually(() => statuses.includes(status, 1));
    statuses.splice(0, statuses.indexOf(status, 1));
  },
  over: (type) => eventually(() => chsk.state.open && chsk.state.type === type),
  reconnect: () => chsk.reconnect(),
  disconnect: () => chsk.disconnect(),
  connect: () => chsk.connect(),
  break: () => chsk.breakConnection(),
  destroy: () => chsk.destroy(),
  heard: (count) =>
    eventually(() => told.filter((line) => line.startsWith('["test/pushed"')).length >= count),
  late: () => chsk.state.udtNextReconnect - Date.now() > 50_000,
  told: () => told.splice(0).map((line) => JSON.parse(line)),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [step, ...args] = JSON.parse(line);
  let result;
  try {
    result = (await steps[step](...args)) ?? null;
  } catch (error) {
    result = { error: error.name, status: error.status ?? null };
  }
  console.log(JSON.stringify(result));
}
process.exit(0);
