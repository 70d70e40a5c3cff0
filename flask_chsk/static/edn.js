// @ts-check
/**
 * EDN and JSON as packers: values to text and back (PROTOCOL 11, "JavaScript").
 *
 * Keywords read as strings, maps as plain objects where their keys allow it, so a handler
 * reads `data.text` whatever the packer. What would be lost or guessed is refused instead:
 * a value that cannot be carried is a PackError with the path to it, a text that is not
 * exactly one well-formed value an UnpackError. Not a Clojure reader: no metadata, no
 * radix or octal numbers, no namespaced maps, and no tag runs any code.
 */

const MAX_DEPTH = 100;

/** A value that this packer cannot carry; the message starts with the path to it. */
export class PackError extends TypeError {
  get name() {
    return "PackError";
  }
}

/** Text that is not exactly one well-formed value. */
export class UnpackError extends SyntaxError {
  get name() {
    return "UnpackError";
  }
}

// Up to the next delimiter. Of white space only ASCII's delimits: a keyword may hold the rest.
const TOKEN = /[^\t-\r ,;"()[\]{}\\^]*/y;
// Without, at either end, the slash and the colon that would give them another meaning.
const NAME =
  /^(\/|[^\t-\r ,;"()[\]{}\\^`~@/:]([^\t-\r ,;"()[\]{}\\^`~@]*[^\t-\r ,;"()[\]{}\\^`~@/:])?)$/;
// Keys of a plain object that are written as keywords, if all of them are such (PROTOCOL 11).
const KEY = /^[A-Za-z*+!_?<>=-][\w*+!?<>=.'-]*(\/[A-Za-z*+!_?<>=-][\w*+!?<>=.'-]*)?$/;
const NUMBER = /^[+-]?(0|[1-9]\d*)(N|\/(\d+)|(\.\d*)?([eE][+-]?\d+)?(M?))$/;
const INSTANT =
  /^(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?)?)?)?(?:Z|([+-])(\d\d):(\d\d))?$/;
const UUID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i;

/** @type {any} */
const ATOMS = { __proto__: null, nil: null, true: true, false: false };
/** @type {any} */
const SYMBOLIC = { __proto__: null, Inf: Infinity, "-Inf": -Infinity, NaN };
/** @type {any} */
const ESCAPES = {
  __proto__: null,
  t: "\t",
  r: "\r",
  n: "\n",
  b: "\b",
  f: "\f",
  '"': '"',
  "\\": "\\",
};
/** @type {any} */
const CHARACTERS = {
  __proto__: null,
  newline: "\n",
  return: "\r",
  space: " ",
  tab: "\t",
  formfeed: "\f",
  backspace: "\b",
};

/** A string that is written as an EDN keyword: `new Keyword("chat/say")` is `:chat/say`. */
export class Keyword {
  /** @param {string} name */
  constructor(name) {
    if (!NAME.test(name)) throw new PackError(`not a keyword: ${JSON.stringify(name)}`);
    this.name = name;
    Object.freeze(this);
  }
  toString() {
    return this.name;
  }
  toJSON() {
    return this.name;
  }
}

/** A tagged value that is not an instant or a UUID: `#tag value`, kept so that it writes back. */
export class Tagged {
  /** @param {string} tag @param {any} value */
  constructor(tag, value) {
    if (!/^[a-z]/i.test(tag) || !NAME.test(tag)) {
      throw new PackError(`not a tag: ${JSON.stringify(tag)}`);
    }
    this.tag = tag;
    this.value = value;
  }
}

// Reading --------------------------------------------------------------------------------

/** What a discarded form (`#_`) reads as. */
const NOTHING = Symbol();

/** One EDN text to its value.
 * @param {string} text
 * @param {{keywords?: "string" | "object"}} [options]
 */
export function readEdn(text, { keywords = "string" } = {}) {
  const keep = keywords === "object";
  let at = 0;
  let slash = -1; // the next backslash at or after `at`, found once for many strings

  /** @param {string} why @returns {never} */
  const fail = (why) => {
    throw new UnpackError(`${why} (near character ${at})`);
  };

  /** Past white space and comments; the code there, NaN at the end. */
  const skip = () => {
    for (;;) {
      const c = text.charCodeAt(at);
      if (c === 32 || c === 44 || (c >= 9 && c <= 13)) at++;
      else if (c === 59) at = (text.indexOf("\n", at) + 1 || text.length + 1) - 1;
      else return c;
    }
  };

  const token = () => {
    TOKEN.lastIndex = at;
    TOKEN.test(text);
    return text.slice(at, (at = TOKEN.lastIndex));
  };

  const string = () => {
    const start = ++at;
    const end = text.indexOf('"', start);
    if (slash < start) slash = (text.indexOf("\\", start) + 1 || Infinity) - 1;
    if (end < 0) fail("a string does not end");
    if (end < slash) {
      at = end + 1;
      return text.slice(start, end);
    }
    for (let c; (c = text.charCodeAt(at)) !== 34; at += c === 92 ? 2 : 1) {
      if (c !== c) fail("a string does not end");
    }
    return text
      .slice(start, at++)
      .replace(/\\(u[\da-fA-F]{4}|[0-3]?[0-7]{1,2}|[^])/g, (all, code) => {
        if (code.length === 5) return String.fromCharCode(parseInt(code.slice(1), 16));
        if (code >= "0" && code < "8") return String.fromCharCode(parseInt(code, 8));
        return ESCAPES[code] ?? fail(`unknown escape ${all}`);
      });
  };

  const character = () => {
    const first = String.fromCodePoint(text.codePointAt(++at) ?? fail("a character is missing"));
    at += first.length;
    const word = first + token();
    if (word === first) return first;
    if (CHARACTERS[word]) return CHARACTERS[word];
    if (/^u[\da-fA-F]{4}$/.test(word)) return String.fromCharCode(parseInt(word.slice(1), 16));
    return fail(`unknown character \\${word}`);
  };

  /** @param {string} word */
  const number = (word) => {
    const m = NUMBER.exec(word) ?? fail(`not a number: ${word}`);
    if (m[6]) return word.slice(0, -1); // a decimal: the string keeps its digits, as in JSON
    if (m[4] || m[5]) return Number(word);
    if (m[3]) {
      const ratio = Number(word.split("/")[0]) / Number(m[3]);
      return Number.isFinite(ratio) ? ratio : fail("division by zero");
    }
    const digits = m[2] ? word.slice(0, -1) : word;
    const small = Number(digits) + 0; // + 0: there is no integer -0
    return Number.isSafeInteger(small) ? small : BigInt(digits);
  };

  /** @param {number} close @param {number} depth */
  const items = (close, depth) => {
    if (depth > MAX_DEPTH) fail(`nested over ${MAX_DEPTH} deep`);
    /** @type {any[]} */
    const out = [];
    for (at++; skip() !== close;) {
      const item = form(depth);
      if (item !== NOTHING) out.push(item);
    }
    at++;
    return out;
  };

  /** Equal values have equal identities. @param {any} v */
  const identity = (v) =>
    typeof v !== "object" || v === null ? v : v instanceof Keyword ? `:${v}` : writeEdn(v);

  /** @param {any[]} values */
  const distinct = (values) => {
    if (new Set(values.map(identity)).size < values.length) fail("a key or set member twice");
    return values;
  };

  /** @param {number} depth */
  const map = (depth) => {
    const flat = items(125, depth);
    if (flat.length % 2) fail("a map needs an even number of forms");
    /** @type {Record<string, any>} */
    const object = {};
    let plain = true;
    let count = 0;
    for (let i = 0; plain && i < flat.length; i += 2) {
      let key = flat[i];
      // With Keyword objects, string keys stay in a Map: so an echo is exact.
      if (keep) key = key instanceof Keyword && KEY.test(key.name) ? key.name : null;
      plain = typeof key === "string";
      if (key === "__proto__") {
        Object.defineProperty(object, key, {
          value: flat[i + 1],
          enumerable: true,
          configurable: true,
          writable: true,
        });
      } else object[key] = flat[i + 1];
    }
    if (plain) {
      for (const _ in object) count++;
      return count * 2 === flat.length ? object : fail("a key twice");
    }
    distinct(flat.filter((_, i) => i % 2 === 0));
    const out = new Map();
    for (let i = 0; i < flat.length; i += 2) out.set(flat[i], flat[i + 1]);
    return out;
  };

  /** @param {string} tag @param {any} value */
  const tagged = (tag, value) => {
    if (tag === "inst") return instant(value) ?? fail(`not an instant: ${value}`);
    if (tag === "uuid") return UUID.test(value) ? value : fail(`not a UUID: ${value}`);
    if (!/^[a-z]/i.test(tag) || !NAME.test(tag)) fail(`unknown #${tag}`);
    return new Tagged(tag, value);
  };

  /** @param {number} depth @returns {any} */
  const value = (depth) => {
    if (depth > MAX_DEPTH) fail(`nested over ${MAX_DEPTH} deep`);
    for (;;) {
      const v = form(depth);
      if (v !== NOTHING) return v;
    }
  };

  /** @param {number} depth @returns {any} */
  const form = (depth) => {
    const c = skip();
    if (c === 34) return string();
    if (c === 91) return items(93, depth + 1);
    if (c === 123) return map(depth + 1);
    if (c === 40) return items(41, depth + 1);
    if (c === 92) return character();
    if (c === 35) {
      const next = text[++at];
      if (next === "{") return new Set(distinct(items(125, depth + 1)));
      if (next === "_") {
        at++;
        value(depth + 1);
        return NOTHING;
      }
      const tag = token();
      if (tag[0] === "#") return SYMBOLIC[tag.slice(1)] ?? fail(`unknown #${tag}`);
      return tagged(tag, value(depth + 1));
    }
    const word = token();
    if (!word) fail(c === c ? `unexpected ${text[at]}` : "the text ends early");
    if (c === 58) {
      const name = word.slice(1);
      if (!NAME.test(name)) fail(`not a keyword: ${word}`);
      return keep ? new Keyword(name) : name;
    }
    if (/^[+-]?\d/.test(word)) return number(word);
    if (word in ATOMS) return ATOMS[word];
    return NAME.test(word) && word[0] !== "'" ? word : fail(`not a symbol: ${word}`);
  };

  const result = value(0);
  while (skip() === 35 && text[at + 1] === "_") form(0);
  if (at < text.length) fail("more than one value");
  return result;
}

/** @param {any} text */
function instant(text) {
  const m = INSTANT.exec(text);
  if (!m) return;
  const [, y, mo = "01", d = "01", h = "00", mi = "00", s = "00", f = "", sign, oh, om] = m;
  const iso = `${y}-${mo}-${d}T${h}:${mi}:${s}.${f.padEnd(3, "0").slice(0, 3)}Z`;
  const date = new Date(iso);
  // A day or an hour that does not exist would roll over into another.
  if (isNaN(+date) || date.toISOString() !== iso) return;
  return sign ? new Date(+date - Number(sign + 1) * (Number(oh) * 60 + Number(om)) * 60_000) : date;
}

// Writing --------------------------------------------------------------------------------

/** @param {(string | number)[]} path @param {string} what @returns {never} */
function refuse(path, what) {
  const shown = path.length > 8 ? path.slice(0, 8).concat("…") : path;
  throw new PackError(`value${shown.map((k) => `[${JSON.stringify(k)}]`).join("")}: ${what}`);
}

/** @param {any} v @param {(string | number)[]} path @param {boolean} json @returns {string} */
function write(v, path, json) {
  switch (typeof v) {
    case "string":
      return JSON.stringify(v);
    case "number":
      if (Number.isSafeInteger(v)) return String(v);
      if (Number.isFinite(v)) {
        const digits = String(v);
        return json || /[.e]/.test(digits) ? digits : digits + ".0";
      }
      return json ? refuse(path, `${v}`) : v !== v ? "##NaN" : v > 0 ? "##Inf" : "##-Inf";
    case "boolean":
      return String(v);
    case "bigint":
      return json || BigInt.asIntN(64, v) === v ? String(v) : `${v}N`;
    case "undefined":
      return json ? "null" : "nil";
    case "object":
      return v === null ? (json ? "null" : "nil") : writeObject(v, path, json);
  }
  return refuse(path, `a ${typeof v}`);
}

/** @param {any} v @param {(string | number)[]} path @param {boolean} json @returns {string} */
function writeObject(v, path, json) {
  if (path.length > MAX_DEPTH) refuse(path, `nested over ${MAX_DEPTH} deep, or in a circle`);
  /** @param {any} value @param {string | number} key */
  const inside = (value, key) => {
    path.push(key);
    const text = write(value, path, json);
    path.pop();
    return text;
  };
  /** @param {string[]} texts */
  const distinct = (texts) =>
    new Set(texts).size < texts.length ? refuse(path, "a key or set member twice") : texts;
  const gap = json ? "," : " ";

  if (Array.isArray(v)) {
    let text = "[";
    for (let i = 0; i < v.length; i++) text += (i ? gap : "") + inside(v[i], i);
    return text + "]";
  }
  if (v instanceof Keyword) return json ? JSON.stringify(v.name) : `:${v.name}`;
  if (v instanceof Date) {
    const iso = isNaN(+v) ? "" : v.toISOString();
    if (iso.length !== 24) refuse(path, "a date without a four-digit year");
    return json ? `"${iso}"` : `#inst "${iso.slice(0, -1)}-00:00"`;
  }
  if (v instanceof Set) {
    const texts = distinct([...v].map(inside)).join(gap);
    return json ? `[${texts}]` : `#{${texts}}`;
  }
  if (v instanceof Map) {
    const keys = distinct([...v.keys()].map((k) => inside(k, "key")));
    if (json && keys.some((k) => k[0] !== '"')) refuse(path, "a map key that is not a string");
    const texts = [...v].map(([k, x], i) => keys[i] + (json ? ":" : " ") + inside(x, String(k)));
    return `{${texts.join(gap)}}`;
  }
  if (v instanceof Tagged && !json) return `#${v.tag} ${inside(v.value, v.tag)}`;
  if (typeof v.toJSON === "function") return inside(v.toJSON(), "toJSON()");
  const parent = Object.getPrototypeOf(v);
  // Plain, of whatever realm; a Promise or a class instance is rather a mistake.
  if (parent && Object.getPrototypeOf(parent)) {
    refuse(path, `object of type ${parent.constructor?.name}`);
  }
  const keys = Object.keys(v).filter((k) => v[k] !== undefined);
  const named = !json && keys.every((k) => KEY.test(k));
  const texts = keys.map(
    (k) => (named ? `:${k} ` : JSON.stringify(k) + (json ? ":" : " ")) + inside(v[k], k),
  );
  return `{${texts.join(gap)}}`;
}

/** One value to its EDN text. @param {any} value */
export function writeEdn(value) {
  return write(value, [], false);
}

// Packers --------------------------------------------------------------------------------

/** The EDN packer; `keywords: "object"` reads keywords as Keyword, and echoes exactly.
 * @param {{keywords?: "string" | "object"}} [options]
 */
export function ednPacker(options) {
  return {
    name: "edn",
    binary: false,
    contentType: "application/edn",
    pack: writeEdn,
    /** @param {string} text */
    unpack: (text) => readEdn(text, options),
    /** Several packed `[event nil]` as one `[[:chsk/batch [event …]] nil]`.
     * @param {string[]} packed */
    batch: (packed) => `[[:chsk/batch [${packed.map((p) => p.slice(1, -5)).join(" ")}]] nil]`,
  };
}

/** Where the engine tells a reviver the source text, long integers stay exact.
 * @type {any} @param {string} _key @param {any} v @param {{source: string}} [context] */
const exact = (_key, v, context) =>
  Number.isInteger(v) && !Number.isSafeInteger(v) && /^-?\d+$/.test(context?.source ?? "")
    ? BigInt(/** @type {any} */ (context).source)
    : v;

export const edn = ednPacker();

export const json = {
  name: "json",
  binary: false,
  contentType: "application/json",
  /** @param {any} value */
  pack: (value) => write(value, [], true),
  /** @param {string} text */
  unpack(text) {
    try {
      return JSON.parse(text, /\d{16}/.test(text) ? exact : undefined);
    } catch (error) {
      throw new UnpackError(/** @type {Error} */ (error).message);
    }
  },
  /** @param {string[]} packed */
  batch: (packed) => `[["chsk/batch",[${packed.map((p) => p.slice(1, -6)).join(",")}]],null]`,
};
