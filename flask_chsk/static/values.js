// @ts-check
/**
 * What transit.js and msgpack.js share: the walk over a value that is written, and maps as they
 * are read (docs/protocol.rst, "Values"). The rules are those of edn.js; no format is known here.
 */

import { Keyword, PackError, Tagged } from "./edn.js";

export const MAX_DEPTH = 100;

// Keys of a plain object that are written as keywords, if all of them are such.
const KEY = /^[A-Za-z*+!_?<>=-][\w*+!?<>=.'-]*(\/[A-Za-z*+!_?<>=-][\w*+!?<>=.'-]*)?$/;

/**
 * A format's side of the walk: each kind of value to what it is packed as. `refuse` throws.
 * @template P
 * @typedef {{
 *   nil: P,
 *   boolean: (v: boolean) => P,
 *   integer: (v: number) => P,
 *   float: (v: number) => P,
 *   bigint: (v: bigint, refuse: (what: string) => never) => P,
 *   string: (v: string) => P,
 *   keyword: (name: string) => P,
 *   millis: (ms: number) => P,
 *   bytes: (v: Uint8Array) => P,
 *   array: (items: P[]) => P,
 *   set: (items: P[]) => P,
 *   map: (keys: P[], values: P[]) => P,
 *   tagged?: (tag: string, value: P, refuse: (what: string) => never) => P,
 * }} Format
 */

/** `value` packed.
 * @template P
 * @param {any} value @param {Format<P>} format @param {(packed: P) => string} text what tells two
 *   packed values apart
 * @returns {P}
 */
export function written(value, format, text) {
  /** @type {(string | number)[]} */
  const path = [];

  /** @param {string} what @returns {never} */
  const refuse = (what) => {
    const keys = path.map((key) => `[${JSON.stringify(key)}]`);
    throw new PackError(`value${keys.join("")}: ${what}`);
  };

  /** @param {any} v @param {string | number} key */
  const inside = (v, key) => {
    path.push(key);
    const packed = walk(v);
    path.pop();
    return packed;
  };

  /** @param {P[]} items */
  const distinct = (items) =>
    new Set(items.map(text)).size < items.length ? refuse("not distinct") : items;

  /** @param {any} v @returns {P} */
  const walk = (v) => {
    switch (typeof v) {
      case "string":
        return /\p{Surrogate}/u.test(v) ? refuse("half of a surrogate pair") : format.string(v);
      case "number":
        return Number.isSafeInteger(v) ? format.integer(v) : format.float(v);
      case "boolean":
        return format.boolean(v);
      case "bigint":
        return format.bigint(v, refuse);
      case "undefined":
        return format.nil;
      case "object":
        return v ? object(v) : format.nil;
    }
    return refuse(`a ${typeof v}`);
  };

  /** @param {any} v @returns {P} */
  const object = (v) => {
    if (path.length > MAX_DEPTH) refuse("nested too deep");
    if (Array.isArray(v)) return format.array(Array.from(v, inside));
    if (v instanceof Keyword) return format.keyword(v.name);
    if (v instanceof Date) return isNaN(+v) ? refuse("not a date") : format.millis(+v);
    if (v instanceof Set) return format.set(distinct(Array.from(v, inside)));
    if (v instanceof Map) {
      const values = Array.from(v, ([key, of]) => inside(of, String(key)));
      return format.map(distinct(Array.from(v.keys(), inside)), values);
    }
    if (v instanceof Tagged && format.tagged) {
      return format.tagged(v.tag, inside(v.value, v.tag), refuse);
    }
    if (v instanceof Uint8Array) return format.bytes(v);
    if (v instanceof ArrayBuffer) return format.bytes(new Uint8Array(v));
    if (typeof v.toJSON === "function") return inside(v.toJSON(), "toJSON()");
    const parent = Object.getPrototypeOf(v);
    // Plain, of whatever realm; a Promise or an instance of a class is rather a mistake.
    if (parent && Object.getPrototypeOf(parent)) {
      refuse(`object of type ${parent.constructor?.name}`);
    }
    const keys = Object.keys(v).filter((key) => v[key] !== undefined);
    const named = keys.every((key) => KEY.test(key));
    return format.map(
      keys.map((key) => (named ? format.keyword(key) : format.string(key))),
      keys.map((key) => inside(v[key], key)),
    );
  };

  return walk(value);
}

/** Keys and values as they are read: an object where the keys allow it, else a Map.
 * @param {any[]} keys @param {any[]} values @param {boolean} keep keywords are objects: then string
 *   keys stay in a Map, so that an echo is exact
 * @param {(key: any) => any} identity what two keys are compared by
 */
export function mapRead(keys, values, keep, identity) {
  /** @type {[any, any][]} */
  const pairs = keys.map((key, i) => [key, values[i]]);
  const simple = (/** @type {any} */ key) =>
    keep ? key instanceof Keyword && KEY.test(key.name) : typeof key === "string";
  if (keys.every(simple)) {
    const object = Object.fromEntries(pairs); // which takes "__proto__" for a key like any other
    if (Object.keys(object).length === keys.length) return object;
  }
  distinctRead(keys, identity);
  return new Map(pairs);
}

/** The items, which all differ. @param {any[]} items @param {(item: any) => any} identity */
export function distinctRead(items, identity) {
  if (new Set(items.map(identity)).size < items.length) throw new SyntaxError("not distinct");
  return items;
}

/** A number where it is exact, else a BigInt. @param {bigint} big */
export const integerRead = (big) => (Number.isSafeInteger(Number(big)) ? Number(big) : big);

/** A name as it is read. @param {string} name @param {boolean} keep @returns {any} */
export function keywordRead(name, keep) {
  if (!name || name[0] === ":") throw new SyntaxError(`no keyword: ${name}`);
  if (!keep) return name;
  try {
    return new Keyword(name);
  } catch (error) {
    throw new SyntaxError(String(error));
  }
}

/** A tagged value as it is read. @param {string} tag @param {any} value */
export function taggedRead(tag, value) {
  try {
    return new Tagged(tag, value);
  } catch (error) {
    throw new SyntaxError(String(error));
  }
}
