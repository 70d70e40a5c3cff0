// The page's half of the example. It begins at connect(): one socket, and what it does with
// the events that come.

import { ChannelSocket } from "../chsk/static/chsk.js";

const MEASURE_MS = 3000;
const SETTLED_MS = 300; // a page that still loads would measure itself
const LOG_LINES = 40;
const CURVE_POINTS = 40;
const RUN = 500;

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);
const { uid: me, login } = document.body.dataset;

/** @type {ChannelSocket} */
let chsk;
let eventsIn = 0;
let eventsOut = 0;

// The socket -----------------------------------------------------------------------------

/** Open a socket, in place of the one before. `?transport=ajax` holds a page to long-polling. */
function connect() {
  const type = new URLSearchParams(location.search).get("transport") ?? "auto";
  chsk?.destroy();
  chsk = new ChannelSocket(undefined, { type });
  chsk.watch((old, now) => showState(now));
  on("chsk/handshake", ([uid, csrfToken, data]) => {
    showPresent(data.present);
    catchUp();
    setTimeout(measure, SETTLED_MS);
  });
  on("chsk/gap", catchUp); // too long away: what was missed is not coming by itself
  on("chat/said", showLine);
  on("chat/present", showPresent);
  on("notice/new", showNotice);
  on("wire/handled", showHandled);
  showState(chsk.state);
}

/** As chsk.on, and noted. @param {string} id @param {(data: any) => void} fn */
function on(id, fn) {
  chsk.on(id, (ev) => {
    if (!id.startsWith("chsk/")) noted("in", ev.event);
    fn(ev.data);
  });
}

/** As chsk.send, and noted. @param {any[]} event */
function send(event) {
  if (!chsk.send(event)) return false;
  noted("out", event);
  return true;
}

/** As chsk.request, and noted. @param {any[]} event @param {any} [opts] */
async function request(event, opts) {
  if (chsk.state.open) noted("out", event);
  return chsk.request(event, opts);
}

/** What went wrong with a request, in words. @param {any} error */
function inWords({ name, message }) {
  if (name === "ReplyError") return message; // the server's own
  if (name === "ReplyTimeout") return "No reply came in time.";
  return "Not connected just now: try again in a moment.";
}

// Chat -----------------------------------------------------------------------------------

const seen = new Set();

/** Send what was typed; the reply says that everybody is being told. @param {Event} submit */
async function say(submit) {
  submit.preventDefault();
  const input = $("text");
  const text = input.value;
  $("say-error").textContent = "";
  try {
    await request(["chat/say", { text }]);
    if (input.value === text) input.value = "";
  } catch (error) {
    $("say-error").textContent = inWords(error);
  }
}

/** Ask for the last lines; a line that is shown already is not shown again. */
async function catchUp() {
  try {
    for (const line of await request(["chat/recent"])) showLine(line);
  } catch {
    // Closed again: the next handshake asks anew.
  }
}

/** @param {{id: string, who: string, text: string, at: Date}} line */
function showLine({ id, who, text, at }) {
  if (seen.has(id)) return;
  seen.add(id);
  const lines = $("lines");
  const line = element("p", { className: who === me ? "line mine" : "line" });
  const time = element("time", { textContent: clock(at), dateTime: at.toISOString() });
  line.dataset.at = String(at.getTime());
  line.append(element("b", { textContent: who }), " ", time, element("span", { textContent: text }));
  const later = [...lines.children].find((other) => Number(other.dataset.at) > at.getTime());
  lines.querySelector(".nothing")?.remove();
  lines.insertBefore(line, later ?? null);
  lines.scrollTop = lines.scrollHeight;
}

/** @param {{name: string, ws: boolean, ajax: boolean}[]} people */
function showPresent(people) {
  const to = $("to").value;
  $("present").replaceChildren(
    ...people.map(({ name, ws, ajax }) => {
      const via = [ws && "WebSocket", ajax && "Ajax"].filter(Boolean).join(", ");
      const item = element("li", { className: name === me ? "mine" : "" });
      item.append(element("span", { textContent: name }), element("small", { textContent: via }));
      return item;
    }),
  );
  $("to").replaceChildren(
    ...people.map(({ name }) => element("option", { textContent: name, selected: name === to })),
  );
}

// A push from an ordinary form -------------------------------------------------------------

/** Post the form as a browser does, but stay on the page. @param {SubmitEvent} submit */
async function postNotice(submit) {
  submit.preventDefault();
  const form = /** @type {HTMLFormElement} */ (submit.target);
  const answer = await fetch(form.action, { method: "post", body: new FormData(form) });
  $("notice-answer").textContent = await answer.text();
}

/** @param {{from: string, text: string}} notice */
function showNotice({ from, text }) {
  const notice = element("p", { className: "notice" });
  const close = element("button", { textContent: "Dismiss" });
  close.onclick = () => {
    notice.remove();
    $("text").focus();
  };
  notice.append(element("b", { textContent: from }), element("span", { textContent: text }), close);
  $("notices").replaceChildren(notice);
}

// The panel --------------------------------------------------------------------------------

/** As if the network had gone: the socket comes back by itself, and misses nothing. */
function cut() {
  chsk.breakConnection();
}

/** Close and open at once; what a page does after its user changed. */
function reconnect() {
  chsk.reconnect();
}

/** Hold this page to long-polling, or let it choose again. */
function forceAjax() {
  const url = new URL(location.href);
  if (url.searchParams.get("transport") === "ajax") url.searchParams.delete("transport");
  else url.searchParams.set("transport", "ajax");
  history.replaceState(null, "", url);
  connect();
}

/** A request with its reply. */
async function whoami() {
  $("reply").hidden = false;
  try {
    const reply = await request(["wire/whoami"]);
    const lines = Object.entries(reply).map(([key, value]) => `${key}: ${value}`);
    $("reply").textContent = lines.join("\n");
  } catch (error) {
    $("reply").textContent = inWords(error);
  }
}

let expected = 0;
let inOrder = true;
let beganAt = 0;

/** Send as fast as a loop goes; each number comes back when its handler has run. */
function sendNumbers() {
  expected = 0;
  inOrder = true;
  beganAt = performance.now();
  const cells = Array.from({ length: RUN }, () => document.createElement("i"));
  $("cells").replaceChildren(...cells);
  $("cells").hidden = false;
  $("order").textContent = "";
  for (let n = 0; n < RUN; n++) {
    if (send(["wire/number", n])) continue;
    $("order").textContent = `Not connected: ${n} of ${RUN} were sent.`;
    return;
  }
}

/** @param {number} n */
function showHandled(n) {
  inOrder &&= n === expected;
  expected++;
  $("cells").children[n]?.classList.add(inOrder ? "done" : "late");
  if (expected !== RUN) return;
  const ms = Math.round(performance.now() - beganAt);
  $("order").textContent = `${RUN} handled ${inOrder ? "in order" : "OUT OF ORDER"} in ${ms} ms`;
}

/** @type {number[]} */
const trips = [];

/** Time a request that does nothing; not noted, or the log would hold little else. */
async function measure() {
  const began = performance.now();
  try {
    await chsk.request(["wire/ping"], { timeoutMs: 5000 });
  } catch {
    return;
  }
  const ms = performance.now() - began;
  $("trip").textContent = `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  trips.push(ms);
  trips.splice(0, trips.length - CURVE_POINTS);
  const most = Math.max(...trips, 1);
  const at = (/** @type {number} */ trip, /** @type {number} */ i) =>
    `${(i * 100) / (CURVE_POINTS - 1)},${23 - (trip / most) * 21}`;
  $("curve").setAttribute("points", trips.map(at).join(" "));
}

const WORDS = {
  connecting: "connecting",
  open: "open",
  waiting: "waiting to try again",
  closed: "closed",
  refused: "refused: reload the page",
};
const TRANSPORTS = { ws: "WebSocket", ajax: "Ajax", auto: "–" };

/** @param {any} state */
function showState({ status, type, lastClose }) {
  if (lastClose?.reason === "signed-out" || lastClose?.status === 401) {
    location.assign(/** @type {string} */ (login));
    return;
  }
  if (status === "destroyed") return; // another took its place
  $("state").textContent = WORDS[status] ?? status;
  $("transport").textContent = TRANSPORTS[type];
  $("status").textContent = status === "open" ? TRANSPORTS[type] : WORDS[status];
  $("status").className = `status ${status}`;
  $("ajax").setAttribute("aria-pressed", String(location.search.includes("transport=ajax")));
  if (status !== "open") $("trip").textContent = "–";
}

/** Count an event and put it into the log; a run of equal ids is one line, the newest one's.
 * @param {"in" | "out"} way @param {any[]} event */
function noted(way, [id, data]) {
  if (way === "in") $("in").textContent = String(++eventsIn);
  else $("out").textContent = String(++eventsOut);
  const log = $("log");
  const text = data === undefined ? "" : JSON.stringify(data);
  const last = log.firstElementChild;
  if (last?.dataset.key === way + id) {
    last.dataset.times = String(Number(last.dataset.times) + 1);
    last.querySelector("code").textContent = text;
    last.querySelector("small").textContent = `× ${last.dataset.times}`;
    return;
  }
  const item = element("li", { className: way });
  Object.assign(item.dataset, { key: way + id, times: "1" });
  item.append(
    element("span", { className: "hidden", textContent: way === "in" ? "in: " : "out: " }),
    element("b", { textContent: id }),
    " ",
    element("code", { textContent: text }),
    element("small", {}),
  );
  log.prepend(item);
  while (log.children.length > LOG_LINES) log.lastElementChild.remove();
}

// Small things -----------------------------------------------------------------------------

/** @param {string} name @param {object} properties @returns {any} */
const element = (name, properties) => Object.assign(document.createElement(name), properties);

/** @param {Date} at */
const clock = (at) => at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

$("say").onsubmit = say;
$("notice").onsubmit = postNotice;
$("cut").onclick = cut;
$("reconnect").onclick = reconnect;
$("ajax").onclick = forceAjax;
$("whoami").onclick = whoami;
$("numbers").onclick = sendNumbers;
setInterval(() => chsk.state.open && !document.hidden && measure(), MEASURE_MS);
connect();
