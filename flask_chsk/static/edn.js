// @ts-check
/**
 * EDN and JSON as packers: values to text and back (docs/protocol.rst, "Values").
 *
 * Keywords read as strings, maps as plain objects where their keys allow it, so a handler
 * reads `data.text` whatever the packer. What would be lost or guessed is refused instead:
 * a value that cannot be carried is a PackError with the path to it, a text that is not
 * exactly one well-formed value a SyntaxError. Not a Clojure reader: no metadata, no
 * radix or octal numbers, no namespaced maps, and no tag runs any code.
 */

const MAX_DEPTH = 100;

/** A value that this packer cannot carry; the message starts with the path to it. */
export class PackError extends TypeError {
  name = "PackError";
}

// White space and comments; then a quote, a bracket or `#_`, or a character, or a word. Of white
// space only ASCII's delimits: a keyword may hold the rest.
const LEXEME =
  /(?:[\t-\r ,]+|;.*)*(?:("|#?\{|[[\](){}]|#_)|\\([^][^\t-\r ,;"()[\]{}\\^]*)|([^\t-\r ,;"()[\]{}\\^]*))/uy;
// Without, at either end, the slash and the colon that would give them another meaning.
const NAME = /^(\/|(?![/:#])[^\t-\r ,;"()[\]{}\\^`~@]*[^\t-\r ,;"()[\]{}\\^`~@/:])$/;
// Keys of a plain object that are written as keywords, if all of them are such.
const KEY = /^[A-Za-z*+!_?<>=-][\w*+!?<>=.'-]*(\/[A-Za-z*+!_?<>=-][\w*+!?<>=.'-]*)?$/;
const RATIONAL = /^(.*?)(N|M|\/([1-9]\d*))?$/;
const INSTANT = /^(\d{4}-\d\d-(\d\d))T[\d:.]+(Z|[+-]\d\d:\d\d)$/;

/** @type {any} */
const ATOMS = {
  __proto__: null,
  nil: null,
  true: true,
  false: false,
  "##Inf": Infinity,
  "##-Inf": -Infinity,
  "##NaN": NaN,
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

/** Whether a keyword or symbol can be called so. @param {any} name @param {boolean} [namespaced] */
export const isName = (name, namespaced) =>
  typeof name === "string" && NAME.test(name) && (!namespaced || /^[^/]+\/[^/]+$/.test(name));

/** A string that is written as an EDN keyword: `new Keyword("chat/say")` is `:chat/say`. */
export class Keyword {
  /** @param {string} name */
  constructor(name) {
    if (!isName(name)) throw new PackError(`not a keyword: ${name}`);
    this.name = name;
  }
  toString() {
    return this.name;
  }
}

/** A tagged value that is not an instant or a UUID: `#tag value`, kept so that it writes back. */
export class Tagged {
  /** @param {string} tag @param {any} value */
  constructor(tag, value) {
    if (!isName(tag)) throw new PackError(`not a tag: ${tag}`);
    this.tag = tag;
    this.value = value;
  }
}

// Reading --------------------------------------------------------------------------------

/** What the values of one message are compared by: the same string for equal ones. Each object is
 * looked at once, and known by a number after: sets in sets take as long as other values.
 */
export function comparer() {
  const known = new Map();

  /** @param {any} v @returns {string} */
  const identity = (v) => {
    if (typeof v !== "object" || !v) return writeEdn(v);
    let name = known.get(v);
    if (!name) {
      const text = v instanceof Uint8Array ? `b${v}` : writeObject(v, [], false, identity);
      name = known.get(text) ?? "@" + known.size;
      known.set(text, name).set(v, name);
    }
    return name;
  };
  return identity;
}

/** What reads where a collection, or the text, ends. */
const END = Symbol();
/** @type {any} */
const CLOSING = { "[": "]", "(": ")", "{": "}", "#{": "}" };

/** One EDN text to its value.
 * @param {string} text
 * @param {{keywords?: "string" | "object"}} [options]
 */
export function readEdn(text, { keywords } = {}) {
  const keep = keywords === "object";
  const identity = comparer();
  let at = 0;

  /** @param {string} why @returns {never} */
  const fail = (why) => {
    throw new SyntaxError(`${why} (before character ${at})`);
  };

  /** The next form; END at `close`, or at the text's end where there is nothing to close.
   * @param {number} depth @param {string} [close] @returns {any} */
  const read = (depth, close) => {
    if (depth > MAX_DEPTH) fail("nested too deep");
    const [mark, character, word] = lexeme(depth);
    if (mark === close && (mark || (!character && !word && at === text.length))) return END;
    if (mark === '"') return string();
    if (mark in CLOSING) {
      const items = [];
      for (let item; (item = read(depth + 1, CLOSING[mark])) !== END;) items.push(item);
      return mark === "{" ? map(items) : mark === "#{" ? new Set(distinct(items)) : items;
    }
    if (character) {
      if (/^u[\da-f]{4}$/i.test(character)) return JSON.parse(`"\\${character}"`);
      return CHARACTERS[character] ?? (/^.$/su.test(character) ? character : fail("no character"));
    }
    if (!word) fail(`unexpected ${mark ?? text[at]}`);
    if (word in ATOMS) return ATOMS[word];
    if (word[0] === "#") return tagged(word.slice(1), read(depth + 1));
    if (/^[+-]?\d/.test(word)) return number(word);
    const name = word[0] === ":" ? word.slice(1) : word;
    if (!isName(name)) fail(`not a name: ${word}`);
    return keep && name !== word ? new Keyword(name) : name;
  };

  /** The next quote, bracket, character or word, behind what is to be left out.
   * @param {number} depth @returns {any[]} */
  const lexeme = (depth) => {
    for (;;) {
      LEXEME.lastIndex = at;
      const [, ...found] = /** @type {any[]} */ (LEXEME.exec(text));
      at = LEXEME.lastIndex;
      if (found[0] !== "#_") return found;
      read(depth + 1);
    }
  };

  const string = () => {
    const start = at - 1;
    let end;
    do {
      end = text.indexOf('"', at);
      at = end + 1 || fail("a string without an end");
      while (text[end - 1] === "\\") end--;
    } while ((at - end) % 2 === 0); // an odd number of backslashes: the quote is escaped
    // Its escapes are JSON's, but it may hold bare control characters.
    // eslint-disable-next-line no-control-regex
    return JSON.parse(text.slice(start, at).replace(/[\0-\x1f]/g, (c) => writeEdn(c).slice(1, -1)));
  };

  /** @param {string} word */
  const number = (word) => {
    const [, digits, kind, divisor] = /** @type {any[]} */ (RATIONAL.exec(word));
    const value = Number(digits);
    // No octal numbers, which a leading zero would mean; nor what only Number reads.
    if (isNaN(value) || /^[+-]?0\d|[^\d+\-.e]/i.test(digits)) fail(`not a number: ${word}`);
    if (kind === "M") return digits; // a string keeps its digits, as in JSON
    if (divisor) return value / divisor;
    if (digits.length > 1024) fail("a number of more than 1024 characters");
    return /[.e]/i.test(digits) || Number.isSafeInteger(value) ? value + 0 : BigInt(digits);
  };

  /** @param {any[]} values */
  const distinct = (values) =>
    new Set(values.map(identity)).size < values.length ? fail("not distinct") : values;

  /** @param {any[]} flat */
  const map = (flat) => {
    const keys = distinct(flat.filter((_, i) => i % 2 === 0));
    if (flat.length % 2) fail("a key without a value");
    const pairs = keys.map((key, i) => [key, flat[2 * i + 1]]);
    // With Keyword objects, string keys stay in a Map: so that an echo is exact.
    return keys.every((key) =>
      keep ? key instanceof Keyword && KEY.test(key.name) : typeof key === "string",
    )
      ? Object.fromEntries(pairs) // which takes "__proto__" for a key like any other
      : new Map(/** @type {any} */ (pairs));
  };

  /** @param {string} tag @param {any} of */
  const tagged = (tag, of) => {
    if (tag === "inst") {
      const [, day, ofMonth] = INSTANT.exec(of) ?? [];
      const date = new Date(of);
      // A day that does not exist would roll over into the next month.
      if (isNaN(+date) || new Date(day).getUTCDate() !== Number(ofMonth)) fail(`no instant: ${of}`);
      return date;
    }
    if (tag === "uuid") return /^[\da-f-]{36}$/i.test(of) ? of : fail(`no UUID: ${of}`);
    return of === END ? fail("a tag without a value") : new Tagged(tag, of);
  };

  const value = read(0);
  return value === END || read(0) !== END ? fail("not one value") : value;
}

// Writing --------------------------------------------------------------------------------

/** @param {(string | number)[]} path @param {string} what @returns {never} */
function refuse(path, what) {
  const keys = path.map((key) => `[${JSON.stringify(key)}]`);
  throw new PackError(`value${keys.join("")}: ${what}`);
}

/** @param {any} v @param {(string | number)[]} path @param {boolean} json @returns {string} */
function write(v, path, json) {
  const nil = json ? "null" : "nil";
  switch (typeof v) {
    case "string":
      return JSON.stringify(v);
    case "number":
      if (Number.isFinite(v)) {
        // What is no integer to us shall be none to the reader.
        const digits = String(v);
        return json || Number.isSafeInteger(v) || /[.e]/.test(digits) ? digits : digits + ".0";
      }
      return json ? refuse(path, `${v}`) : `##${v}`.replace("inity", "");
    case "boolean":
      return `${v}`;
    case "bigint":
      return json || BigInt.asIntN(64, v) === v ? `${v}` : `${v}N`;
    case "undefined":
      return nil;
    case "object":
      return v ? writeObject(v, path, json) : nil;
  }
  return refuse(path, `a ${typeof v}`);
}

/** @param {any} v @param {(string | number)[]} path @param {boolean} json
 * @param {(value: any) => string} [inner] what writes the values inside, if not `write`
 * @returns {string} */
function writeObject(v, path, json, inner) {
  if (path.length > MAX_DEPTH) refuse(path, "nested too deep");
  const [gap, colon] = json ? [",", ":"] : [" ", " "];
  /** @param {any} value @param {string | number} key */
  const inside = (value, key) => {
    if (inner) return inner(value);
    path.push(key);
    const text = write(value, path, json);
    path.pop();
    return text;
  };
  /** @param {string[]} texts */
  const distinct = (texts) =>
    new Set(texts).size < texts.length ? refuse(path, "not distinct") : texts;

  if (Array.isArray(v)) return `[${Array.from(v, inside).join(gap)}]`;
  if (v instanceof Keyword) return json ? JSON.stringify(v.name) : `:${v.name}`;
  if (v instanceof Date) {
    const iso = isNaN(+v) ? "" : v.toISOString();
    if (iso.length !== 24) refuse(path, "not a date of this era");
    return json ? `"${iso}"` : `#inst "${iso.slice(0, -1)}-00:00"`;
  }
  if (v instanceof Set) {
    const texts = distinct(Array.from(v, inside)).join(gap);
    return json ? `[${texts}]` : `#{${texts}}`;
  }
  if (v instanceof Map) {
    const keys = distinct(Array.from(v.keys(), inside));
    if (json && keys.some((key) => key[0] !== '"')) refuse(path, "a key that is no string");
    const texts = Array.from(v, ([key, of], i) => keys[i] + colon + inside(of, String(key)));
    return `{${texts.join(gap)}}`;
  }
  if (v instanceof Tagged && !json) return `#${v.tag} ${inside(v.value, v.tag)}`;
  if (typeof v.toJSON === "function") return inside(v.toJSON(), "toJSON()");
  const parent = Object.getPrototypeOf(v);
  // Plain, of whatever realm; a Promise or an instance of a class is rather a mistake.
  if (parent && Object.getPrototypeOf(parent))
    refuse(path, `object of type ${parent.constructor?.name}`);
  const keys = Object.keys(v).filter((key) => v[key] !== undefined);
  const named = !json && keys.every((key) => KEY.test(key));
  const texts = keys.map(
    (key) => (named ? ":" + key : JSON.stringify(key)) + colon + inside(v[key], key),
  );
  return `{${texts.join(gap)}}`;
}

/** One value to its EDN text. @param {any} value */
export const writeEdn = (value) => write(value, [], false);

// Packers --------------------------------------------------------------------------------

/** Joins packed messages without callback, `[event nil]`, to one of `[:chsk/batch [event …]]`.
 * @param {string} head @param {string} gap @param {string} end */
const batcher = (head, gap, end) => (/** @type {string[]} */ packed) =>
  head + packed.map((text) => text.slice(1, -end.length)).join(gap) + "]]" + end;

/** The EDN packer; `keywords: "object"` reads keywords as Keyword, and echoes exactly.
 * @param {{keywords?: "string" | "object"}} [options]
 */
export const ednPacker = (options) => ({
  name: "edn",
  pack: writeEdn,
  /** @param {string} text */
  unpack: (text) => readEdn(text, options),
  batch: batcher("[[:chsk/batch [", " ", " nil]"),
});

export const edn = ednPacker();

export const json = {
  name: "json",
  /** @param {any} value */
  pack: (value) => write(value, [], true),
  /** @param {string} text */
  unpack: (text) => JSON.parse(text, /\d{16}/.test(text) ? exact : undefined),
  batch: batcher('[["chsk/batch",[', ",", ",null]"),
};

/** Where the engine tells a reviver the source text, long integers stay exact.
 * @type {any} @param {string} _key @param {any} v @param {any} context */
const exact = (_key, v, context) =>
  typeof v === "number" && !Number.isSafeInteger(v) && /^-?\d+$/.test(context?.source)
    ? BigInt(context.source)
    : v;
