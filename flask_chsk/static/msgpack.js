// @ts-check
/**
 * MessagePack as a packer of chsk.js: `new ChannelSocket(path, { packer: msgpack })`, with the
 * extension types of Sente's packer (docs/protocol.rst, "Values").
 *
 * Written without the cache of keys, so that packed events can be joined; read with it or without.
 * As in edn.js: keywords read as strings, maps as plain objects where their keys allow it, UUIDs as
 * strings. What cannot be carried exactly is a PackError with the path to it. No general codec:
 * other extension types are refused.
 */

import { Keyword, comparer } from "./edn.js";
import { MAX_DEPTH, distinctRead, integerRead, keywordRead, mapRead, written } from "./values.js";

// Extension types of Sente's packer.
const [KEYWORD, SYMBOL, CHAR, RATIO, SET, INT32S, FLOAT32S, FLOAT64S, CACHED_KEY, UUID] =
  Array(10).keys();
const TIMESTAMP = -1;
const MOST_CACHED = 256;
const HIGH = 2 ** 32;

// Writing --------------------------------------------------------------------------------

const utf8 = new TextEncoder();
const latin1 = new TextDecoder("latin1"); // each byte another character

/** One after another. @param {Uint8Array[]} parts */
function joined(parts) {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** A lead byte and a number of `size` bytes. @param {number} lead @param {number} size
 * @param {(view: DataView) => void} fill sets what stands from 1 on */
function sized(lead, size, fill) {
  const bytes = new Uint8Array(1 + size);
  bytes[0] = lead;
  fill(new DataView(bytes.buffer));
  return bytes;
}

/** The header of what has a length: one byte for the short ones, then the smallest that holds it.
 * @param {number} length @param {number} most for which `fix` has room @param {number} fix
 * @param {number | null} lead8 @param {number} lead16 */
function header(length, most, fix, lead8, lead16) {
  if (length <= most) return Uint8Array.of(fix | length);
  if (lead8 && length < 256) return Uint8Array.of(lead8, length);
  if (length < 65_536) return sized(lead16, 2, (view) => view.setUint16(1, length));
  return sized(lead16 + 1, 4, (view) => view.setUint32(1, length));
}

/** @param {number} type @param {Uint8Array} content */
function extension(type, content) {
  const fix = [1, 2, 4, 8, 16].indexOf(content.length);
  const head = fix < 0 ? header(content.length, -1, 0, 0xc7, 0xc8) : Uint8Array.of(0xd4 + fix);
  return joined([head, Uint8Array.of(type), content]);
}

/** @param {number} v */
function integer(v) {
  if (v >= -32 && v < 128) return Uint8Array.of(v);
  if (v > 0) {
    if (v < 256) return Uint8Array.of(0xcc, v);
    if (v < 65_536) return sized(0xcd, 2, (view) => view.setUint16(1, v));
    if (v < HIGH) return sized(0xce, 4, (view) => view.setUint32(1, v));
  } else {
    if (v >= -128) return Uint8Array.of(0xd0, v);
    if (v >= -32_768) return sized(0xd1, 2, (view) => view.setInt16(1, v));
    if (v >= -HIGH / 2) return sized(0xd2, 4, (view) => view.setInt32(1, v));
  }
  return sized(0xd3, 8, (view) => view.setBigInt64(1, BigInt(v)));
}

/** @param {Uint8Array[]} items */
const array = (items) => joined([header(items.length, 15, 0x90, null, 0xdc), ...items]);

/** @type {import("./values.js").Format<Uint8Array>} */
const BYTES = {
  nil: Uint8Array.of(0xc0),
  boolean: (v) => Uint8Array.of(v ? 0xc3 : 0xc2),
  integer,
  float: (v) => sized(0xcb, 8, (view) => view.setFloat64(1, v)),
  bigint: (v, refuse) => {
    if (BigInt.asIntN(64, v) !== v) refuse("an integer past 64 bits");
    const small = integerRead(v);
    if (typeof small === "number") return integer(small);
    return sized(0xd3, 8, (view) => view.setBigInt64(1, v));
  },
  string: (v) => {
    const content = utf8.encode(v);
    return joined([header(content.length, 31, 0xa0, 0xd9, 0xda), content]);
  },
  keyword: (name) => extension(KEYWORD, utf8.encode(name)),
  millis: (ms) => {
    const content = new Uint8Array(12);
    const view = new DataView(content.buffer);
    const seconds = Math.floor(ms / 1000);
    view.setUint32(0, (ms - seconds * 1000) * 1e6);
    view.setBigInt64(4, BigInt(seconds));
    return extension(TIMESTAMP, content);
  },
  bytes: (v) => joined([header(v.length, -1, 0, 0xc4, 0xc5), v]),
  array,
  set: (items) => extension(SET, array(items)),
  map: (keys, values) =>
    joined([header(keys.length, 15, 0x80, null, 0xde), ...keys.flatMap((key, i) => [key, values[i]])]),
};

/** @param {any} value */
const pack = (value) => written(value, BYTES, (bytes) => latin1.decode(bytes));

// Reading --------------------------------------------------------------------------------

/** @param {string} what @returns {never} */
const fail = (what) => {
  throw new SyntaxError(what);
};

/** @param {ArrayBuffer | Uint8Array} data @param {boolean} keep */
function read(data, keep) {
  const identity = comparer();
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  /** @type {any[]} */ const keys = []; // that stood as such before; keywords apart from strings
  const seen = new Set();
  let at = 0;
  let named = false; // whether what was just read is a keyword

  /** Step over so many bytes, and where they begin. @param {number} length */
  const step = (length) => {
    if (length > bytes.length - at) fail("the message ends too early");
    at += length;
    return at - length;
  };
  /** @param {number} size */
  const uint = (size) => {
    const start = step(size);
    return size === 1 ? bytes[start] : size === 2 ? view.getUint16(start) : view.getUint32(start);
  };
  /** @param {number} length */
  const slice = (length) => bytes.subarray(step(length), at);
  /** @param {number} length */
  const string = (length) => text.decode(slice(length));

  /** @param {number} count @param {number} depth */
  const items = (count, depth) => {
    if (!depth) fail("nested too deep");
    if (count > bytes.length - at) fail("an array of more items than there are bytes");
    return Array.from({ length: count }, () => value(depth - 1));
  };

  /** @param {number} count @param {number} depth */
  const map = (count, depth) => {
    if (!depth) fail("nested too deep");
    if (2 * count > bytes.length - at) fail("a map of more items than there are bytes");
    /** @type {any[]} */ const all = [];
    const values = Array.from({ length: count }, () => {
      all.push(key(depth - 1));
      return value(depth - 1);
    });
    return mapRead(all, values, keep, identity);
  };

  /** @param {number} depth */
  const key = (depth) => {
    if (bytes[at] === 0xd4 && bytes[at + 1] === CACHED_KEY) {
      at += 2;
      const index = uint(1);
      return index < keys.length ? keys[index] : fail(`no key ${index} before`);
    }
    named = false;
    const read = value(depth);
    if (typeof read === "string" || read instanceof Keyword) {
      const known = (named ? ":" : '"') + read;
      if (!seen.has(known) && keys.length < MOST_CACHED) {
        seen.add(known);
        keys.push(read);
      }
    }
    return read;
  };

  /** @param {number} length @param {number} depth @returns {any} */
  const ext = (length, depth) => {
    const type = view.getInt8(step(1));
    const start = step(length);
    const end = at;
    const numbers = (/** @type {number} */ size, /** @type {(at: number) => number} */ get) =>
      length % size
        ? fail("an array that ends within a number")
        : Array.from({ length: length / size }, (_, i) => get(start + i * size));
    switch (type) {
      case KEYWORD: {
        const keyword = keywordRead(text.decode(bytes.subarray(start, end)), keep);
        named = true;
        return keyword;
      }
      case SYMBOL:
        return keywordRead(text.decode(bytes.subarray(start, end)), false);
      case CHAR: {
        const char = text.decode(bytes.subarray(start, end));
        return /^.$/su.test(char) ? char : fail(`no character: ${char}`);
      }
      case RATIO: {
        at = start;
        const [over, under] = items(2, depth);
        if (at !== end || !Number(under)) fail("no ratio");
        return Number(over) / Number(under);
      }
      case SET: {
        at = start;
        const members = /^(9.|dc|dd)$/.test(bytes[at]?.toString(16)) ? value(depth) : fail("no set");
        if (at !== end) fail("a set of another length than was said");
        return new Set(distinctRead(members, identity));
      }
      case INT32S:
        return numbers(4, (i) => view.getInt32(i));
      case FLOAT32S:
        return numbers(4, (i) => view.getFloat32(i));
      case FLOAT64S:
        return numbers(8, (i) => view.getFloat64(i));
      case UUID: {
        const uuid = text.decode(bytes.subarray(start, end));
        return /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(uuid) ? uuid : fail("no UUID");
      }
      case TIMESTAMP:
        return timestamp(start, length);
    }
    return fail(`no extension type ${type}`);
  };

  /** @param {number} start @param {number} length */
  const timestamp = (start, length) => {
    let nanos = 0;
    let seconds;
    if (length === 4) seconds = view.getUint32(start);
    else if (length === 8) {
      const first = view.getUint32(start);
      nanos = first >>> 2;
      seconds = (first & 3) * HIGH + view.getUint32(start + 4);
    } else if (length === 12) {
      nanos = view.getUint32(start);
      seconds = Number(view.getBigInt64(start + 4));
    } else return fail("a timestamp has 4, 8 or 12 bytes");
    const date = new Date(seconds * 1000 + Math.floor(nanos / 1e6));
    return nanos < 1e9 && !isNaN(+date) ? date : fail("no timestamp");
  };

  /** @param {number} depth @returns {any} */
  const value = (depth) => {
    const lead = uint(1);
    if (lead < 0x80) return lead;
    if (lead < 0x90) return map(lead & 15, depth);
    if (lead < 0xa0) return items(lead & 15, depth);
    if (lead < 0xc0) return string(lead & 31);
    if (lead >= 0xe0) return lead - 256;
    switch (lead) {
      case 0xc0:
        return null;
      case 0xc2:
      case 0xc3:
        return lead === 0xc3;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return slice(uint(1 << (lead - 0xc4))).slice();
      case 0xc7:
      case 0xc8:
      case 0xc9:
        return ext(uint(1 << (lead - 0xc7)), depth);
      case 0xca:
        return view.getFloat32(step(4));
      case 0xcb:
        return view.getFloat64(step(8));
      case 0xcc:
      case 0xcd:
      case 0xce:
        return uint(1 << (lead - 0xcc));
      case 0xcf:
        return integerRead(view.getBigUint64(step(8)));
      case 0xd0:
        return view.getInt8(step(1));
      case 0xd1:
        return view.getInt16(step(2));
      case 0xd2:
        return view.getInt32(step(4));
      case 0xd3:
        return integerRead(view.getBigInt64(step(8)));
      case 0xd4:
      case 0xd5:
      case 0xd6:
      case 0xd7:
      case 0xd8:
        return ext(1 << (lead - 0xd4), depth);
      case 0xd9:
      case 0xda:
      case 0xdb:
        return string(uint(1 << (lead - 0xd9)));
      case 0xdc:
      case 0xdd:
        return items(uint(2 << (lead - 0xdc)), depth);
      case 0xde:
      case 0xdf:
        return map(uint(2 << (lead - 0xde)), depth);
    }
    return fail("no value begins with the byte c1");
  };

  const whole = value(MAX_DEPTH);
  return at === bytes.length ? whole : fail("more than one value");
}

// The packer -----------------------------------------------------------------------------

/** The packer; `keywords: "object"` reads keywords as Keyword, and echoes exactly.
 * @param {{keywords?: "string" | "object"}} [options]
 */
export const msgpackPacker = ({ keywords } = {}) => ({
  name: "msgpack",
  binary: true,
  contentType: "application/msgpack",
  pack,
  /** @param {ArrayBuffer | Uint8Array} data */
  unpack: (data) => {
    try {
      return read(data, keywords === "object");
    } catch (error) {
      throw error instanceof SyntaxError ? error : new SyntaxError(String(error));
    }
  },
  /** Several packed `[event nil]` as one of `[:chsk/batch [event …]]`.
   * @param {Uint8Array[]} packed */
  batch: (packed) =>
    array([
      array([BYTES.keyword("chsk/batch"), array(packed.map((bytes) => bytes.subarray(1, -1)))]),
      BYTES.nil,
    ]),
});

export const msgpack = msgpackPacker();
