// @ts-check
/**
 * Transit as a packer of chsk.js: `new ChannelSocket(path, { packer: transit })`
 * (docs/protocol.rst, "Values").
 *
 * JSON text, in its compact form. Written without cache codes, so that packed events can be
 * joined; read with them or without, in the verbose form too. As in edn.js: keywords read as
 * strings, maps as plain objects where their keys allow it, UUIDs and decimals as strings, and
 * what cannot be carried exactly is a PackError with the path to it.
 */

import { comparer } from "./edn.js";
import {
  MAX_DEPTH,
  distinctRead,
  integerRead,
  keywordRead,
  mapRead,
  taggedRead,
  written,
} from "./values.js";

const CODES = 44 * 44;
const COLLECTIONS = /^(set|list|cmap|ratio)$/;
const SPECIAL = { __proto__: null, NaN: NaN, INF: Infinity, "-INF": -Infinity };

// Writing --------------------------------------------------------------------------------

/** @param {number} v */
const float = (v) => {
  if (!Number.isFinite(v)) return `~z${v}`.replace("Infinity", "INF");
  // JSON would make an integer of a large float.
  return Number.isInteger(v) ? `~d${v}` : v;
};

/** A node as a key, which is a string. @param {any} node */
const asKey = (node) => {
  if (node === null) return "~_";
  if (typeof node === "boolean") return node ? "~?t" : "~?f";
  return typeof node === "number" ? (Number.isInteger(node) ? "~i" : "~d") + node : node;
};

/** @type {import("./values.js").Format<any>} */
const NODES = {
  nil: null,
  boolean: (v) => v,
  integer: (v) => v + 0, // no integer is -0
  float,
  bigint: (v) => (BigInt.asIntN(64, v) === v ? "~i" : "~n") + v,
  string: (v) => (/^[~^`]/.test(v) ? `~${v}` : v),
  keyword: (name) => `~:${name}`,
  millis: (ms) => `~m${ms}`,
  bytes: (v) => `~b${btoa(Array.from(v, (byte) => String.fromCharCode(byte)).join(""))}`,
  array: (items) => items,
  set: (items) => ["~#set", items],
  map: (keys, values) => {
    const composite = keys.some(Array.isArray);
    const flat = keys.flatMap((key, i) => [composite ? key : asKey(key), values[i]]);
    return composite ? ["~#cmap", flat] : ["^ ", ...flat];
  },
  tagged: (tag, value, refuse) =>
    COLLECTIONS.test(tag) || Object.hasOwn(LETTERS, tag)
      ? refuse(`the tag ${tag} has a type of its own`)
      : [`~#${tag}`, value],
};

/** @param {any} value */
const pack = (value) => {
  const node = written(value, NODES, JSON.stringify);
  return JSON.stringify(Array.isArray(node) ? node : ["~#'", node]);
};

// Reading --------------------------------------------------------------------------------

/** @param {string} what @returns {never} */
const fail = (what) => {
  throw new SyntaxError(what);
};

/** What `~#tag` is, until what it stands before is read. */
class Tag {
  /** @param {string} name */
  constructor(name) {
    this.name = name;
  }
}

/** @param {string} text */
const number = (text) =>
  /^[+-]?\d+(\.\d*)?(e[+-]?\d+)?$/i.test(text) ? Number(text) : fail(`no number: ${text}`);

/** @param {string} text */
const integer = (text) => {
  if (text.length > 1024) fail("a number of more than 1024 characters");
  return /^-?\d+$/.test(text) ? integerRead(BigInt(text)) : number(text); // 1.5 as a key
};

/** @param {any} of */
const date = (of) => (isNaN(+new Date(of)) ? fail(`no instant: ${of}`) : new Date(of));

/** @type {{[letter: string]: (text: string, keep: boolean) => any}} */
const LETTERS = {
  _: (text) => (text ? fail("nil has nothing behind it") : null),
  "?": (text) => (/^[tf]$/.test(text) ? text === "t" : fail(`no boolean: ${text}`)),
  i: integer,
  n: integer,
  d: number,
  z: (text) => /** @type {any} */ (SPECIAL)[text] ?? fail(`no number: ${text}`),
  f: (text) => (number(text), text), // a string keeps its digits, as in JSON
  b: (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)),
  ":": keywordRead,
  $: (text) => keywordRead(text, false),
  c: (text) => (/^.$/su.test(text) ? text : fail(`no character: ${text}`)),
  u: (text) => (/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(text) ? text : fail("no UUID")),
  m: (text) => date(Number(integer(text))),
  t: (text) => date(/^\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)$/.test(text) ? text : NaN),
  "'": (text) => text,
};

/** @param {string} text @param {boolean} keep */
function read(text, keep) {
  const identity = comparer();
  /** @type {any[]} */ const cached = [];

  /** @param {string} s @param {boolean} [asKey] */
  const string = (s, asKey) => {
    if (s[0] === "^") return coded(s);
    const value = s[0] === "~" ? tilded(s) : s;
    if (s.length > 3 && (asKey || /^~[:$#]/.test(s))) cached.push(value);
    return value;
  };

  /** @param {string} s */
  const tilded = (s) => {
    const letter = s[1];
    const rest = s.slice(2);
    if (letter === "#") return rest ? new Tag(rest) : fail("a tag without a name");
    if (/^~[~^`]/.test(s)) return s.slice(1);
    if (Object.hasOwn(LETTERS, letter)) return LETTERS[letter](rest, keep);
    return taggedRead(letter, rest);
  };

  /** @param {string} code */
  const coded = (code) => {
    if (!/^\^[0-[]{1,2}$/.test(code)) fail(`no cache code: ${code}`);
    const [high, low] = Array.from(code.slice(1).padStart(2, "0"), (c) => c.charCodeAt(0) - 48);
    const index = high * 44 + low;
    // Writers begin again when they have used all codes: the last under this one counts.
    const rounds = Math.floor((cached.length - 1 - index) / CODES);
    return rounds < 0 ? fail(`nothing cached for ${code}`) : cached[index + rounds * CODES];
  };

  /** @param {any} v @returns {any} */
  const whole = (v) => (v instanceof Tag ? fail(`nothing stands behind the tag ${v.name}`) : v);

  /** @param {any[]} keys @param {any[]} values @param {number} depth */
  const map = (keys, values, depth) => {
    if (keys.length !== values.length) fail("a key without a value");
    /** @type {any[]} */ const readKeys = [];
    const readValues = values.map((v, i) => {
      const key = keys[i];
      readKeys.push(whole(typeof key === "string" ? string(key, true) : value(key, depth)));
      return value(v, depth);
    });
    return mapRead(readKeys, readValues, keep, identity);
  };

  /** @param {Tag} tag @param {any} node @param {number} depth */
  const tagged = ({ name }, node, depth) => {
    if (COLLECTIONS.test(name)) {
      if (!Array.isArray(node)) return fail(`an array stands behind the tag ${name}`);
      const items = node.map((item) => value(item, depth));
      if (name === "set") return new Set(distinctRead(items, identity));
      if (name === "list") return items;
      const odd = items.filter((_, i) => i % 2);
      const even = items.filter((_, i) => i % 2 === 0);
      if (name === "cmap") {
        if (odd.length < even.length) fail("a key without a value");
        return mapRead(even, odd, keep, identity);
      }
      return Number(items[0]) / (Number(items[1]) || fail("no ratio"));
    }
    const of = value(node, depth);
    if (name === "'") return of;
    if (name === "m" && typeof of === "number") return date(of);
    if (Object.hasOwn(LETTERS, name)) {
      return typeof of === "string" ? LETTERS[name](of, keep) : fail(`no ${name}`);
    }
    return taggedRead(name, of);
  };

  /** @param {any} node @param {number} depth @returns {any} */
  const value = (node, depth) => {
    if (typeof node === "string") return /^[~^]/.test(node) ? whole(string(node)) : node;
    if (typeof node !== "object" || !node) return node;
    if (depth === 0) fail("nested too deep");
    depth--;
    if (!Array.isArray(node)) {
      const keys = Object.keys(node);
      if (keys.length !== 1) return map(keys, Object.values(node), depth);
      const key = string(keys[0], true);
      if (key instanceof Tag) return tagged(key, node[keys[0]], depth);
      return mapRead([key], [value(node[keys[0]], depth)], keep, identity);
    }
    const [head, ...rest] = node;
    if (head === "^ ") {
      return map(
        rest.filter((_, i) => i % 2 === 0),
        rest.filter((_, i) => i % 2),
        depth,
      );
    }
    const first = typeof head === "string" && /^[~^]/.test(head) ? string(head) : head;
    if (first instanceof Tag) {
      return rest.length === 1 ? tagged(first, rest[0], depth) : fail("a tag tags one value");
    }
    if (first !== head) return [first, ...rest.map((item) => value(item, depth))];
    return node.map((item) => value(item, depth));
  };

  return value(JSON.parse(text), MAX_DEPTH);
}

// The packer -----------------------------------------------------------------------------

/** The packer; `keywords: "object"` reads keywords as Keyword, and echoes exactly.
 * @param {{keywords?: "string" | "object"}} [options]
 */
export const transitPacker = ({ keywords } = {}) => ({
  name: "transit",
  binary: false,
  contentType: "application/transit+json",
  pack,
  /** @param {string} text */
  unpack: (text) => {
    try {
      return read(text, keywords === "object");
    } catch (error) {
      throw error instanceof SyntaxError ? error : new SyntaxError(String(error));
    }
  },
  /** Several packed `[event nil]` as one of `[:chsk/batch [event …]]`. @param {string[]} packed */
  batch: (packed) =>
    `[["~:chsk/batch",[${packed.map((text) => text.slice(1, -",null]".length))}]],null]`,
});

export const transit = transitPacker();
