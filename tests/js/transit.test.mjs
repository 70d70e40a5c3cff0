// Transit in the browser: against the codec of those who made the format, and against itself.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { Keyword, PackError, Tagged } from "../../flask_chsk/static/edn.js";
import { transit, transitPacker } from "../../flask_chsk/static/transit.js";

const { pack, unpack, batch } = transit;
const exact = transitPacker({ keywords: "object" });
const K = (name) => new Keyword(name);

const library = await import("transit-js").then(
  (module) => module.default,
  () => null,
);
const without = library ? false : "npm install in tests/js brings transit-js";

describe("what is written", () => {
  for (const [value, text] of [
    [[null, undefined, true, false], "[null,null,true,false]"],
    [[0, -0, 1.5, 1e17, 2 ** 53], '[0,0,1.5,"~d100000000000000000","~d9007199254740992"]'],
    [[NaN, Infinity, -Infinity], '["~zNaN","~zINF","~z-INF"]'],
    [[5n, 2n ** 63n - 1n, 2n ** 63n], '["~i5","~i9223372036854775807","~n9223372036854775808"]'],
    [["", "a~", "~a", "^ ", "`"], '["","a~","~~a","~^ ","~`"]'],
    [[K("chat/say")], '["~:chat/say"]'],
    [{ text: "hi", "ns/name": 1, gone: undefined }, '["^ ","~:text","hi","~:ns/name",1]'],
    [{ text: 1, "two words": 2 }, '["^ ","text",1,"two words",2]'],
    [new Map([["text", 1]]), '["^ ","text",1]'],
    [
      new Map([[1, 0], [1.5, 0], [null, 0], [true, 0], [K("a"), 0]]),
      '["^ ","~i1",0,"~d1.5",0,"~_",0,"~?t",0,"~:a",0]',
    ],
    [new Map([[[1, { a: 2 }], 3]]), '["~#cmap",[[1,["^ ","~:a",2]],3]]'],
    [new Set([1, "a", new Set()]), '["~#set",[1,"a",["~#set",[]]]]'],
    [[new Date(0), new Date(-1)], '["~m0","~m-1"]'],
    [[Uint8Array.of(0, 255), Uint8Array.of(97).buffer], '["~bAP8=","~bYQ=="]'],
    [new Tagged("geo/point", [1]), '["~#geo/point",[1]]'],
    [{ toJSON: () => ["x"] }, '["x"]'],
    [1, `["~#'",1]`],
    ["a", `["~#'","a"]`],
  ]) {
    it(text, () => assert.equal(pack(value), text));
  }

  it("is joined to a batch", () => {
    const events = [["a/b", 1], ["c/d", { e: [] }]];
    const packed = events.map(([id, data]) => pack([[K(id), data], null]));
    assert.deepEqual(unpack(batch(packed)), [["chsk/batch", events], null]);
  });
});

describe("what cannot be written is refused with its path", () => {
  const circle = [];
  circle.push(circle);
  for (const [value, message] of [
    [{ a: [() => 1] }, 'value["a"][0]: a function'],
    [[Symbol("a")], "value[0]: a symbol"],
    [{ a: Promise.resolve() }, 'value["a"]: object of type Promise'],
    [[new Date(NaN)], "value[0]: not a date"],
    [["\ud800"], "value[0]: half of a surrogate pair"],
    [new Map([[[1], 1], [[1], 2]]), "value: not distinct"],
    [[new Set([[1], [1]])], "value[0]: not distinct"],
    [[new Tagged("set", [])], "value[0]: the tag set has a type of its own"],
    [[new Tagged("m", 1)], "value[0]: the tag m has a type of its own"],
    [circle, /^value(\[0\])+: nested too deep$/],
  ]) {
    it(String(message), () => {
      const expected = typeof message === "string" ? { name: "PackError", message } : message;
      assert.throws(() => pack(value), typeof message === "string" ? expected : PackError);
    });
  }
});

describe("what is read", () => {
  for (const [text, value] of [
    ['["~#\'","~:a"]', "a"],
    ['{"~#\'":[1]}', [1]],
    ['["~:a/b","~$a","~ca","~~a","~^a","~`a","`a"]', ["a/b", "a", "a", "~a", "^a", "`a", "`a"]],
    ['["~i5","~n5","~d5","~d1.5e3","~i1.5","~_","~?t","~?f"]', [5, 5, 5, 1500, 1.5, null, true, false]],
    ['["~i9007199254740993","~n-9007199254740993"]', [9007199254740993n, -9007199254740993n]],
    ['["~zNaN","~zINF","~z-INF","~f1.50"]', [NaN, Infinity, -Infinity, "1.50"]],
    ['["~m5","~t1970-01-01T00:00:00.005Z",["~#m",5]]', [new Date(5), new Date(5), new Date(5)]],
    ['"~u00000000-0000-0000-0000-0000000000aB"', "00000000-0000-0000-0000-0000000000aB"],
    ['"~bAP8="', Uint8Array.of(0, 255)],
    ['["^ ","~:a",1,"b",["^ "]]', { a: 1, b: {} }],
    ['["^ ","~i1",1]', new Map([[1, 1]])],
    ['["^ ","__proto__",1]', JSON.parse('{"__proto__":1}')],
    ['{"~:a":{"~#set":[1]},"b":{"~#list":[]}}', { a: new Set([1]), b: [] }],
    ['["~#cmap",[[1],2]]', new Map([[[1], 2]])],
    ['["~#cmap",["a",2]]', { a: 2 }],
    ['["~#ratio",["~n1","~n4"]]', 0.25],
    ['[["~#geo/point",[1]],["~#r","http://a"],"~rhttp://a"]', [new Tagged("geo/point", [1]), new Tagged("r", "http://a"), new Tagged("r", "http://a")]],
    // cache codes
    ['["~:ab","^0","~:a","~$xy","^1"]', ["ab", "ab", "a", "xy", "xy"]],
    ['[["^ ","abcd",1,"abc",2],["^ ","^0",3]]', [{ abcd: 1, abc: 2 }, { abcd: 3 }]],
    ['[["~#set",[1]],["^0",[2]]]', [new Set([1]), new Set([2])]],
    ['[["^ ","😀😀",1],["^ ","^0",2]]', [{ "😀😀": 1 }, { "😀😀": 2 }]],
  ]) {
    it(text, () => assert.deepEqual(unpack(text), value));
  }

  it("keeps keywords where that is asked for", () => {
    const text = '["~:a",["^ ","~:a",1],["^ ","b",2],["~#set",["~:a","a"]]]';
    const value = [K("a"), { a: 1 }, new Map([["b", 2]]), new Set([K("a"), "a"])];
    assert.deepEqual(exact.unpack(text), value);
    assert.equal(exact.pack(value), text);
  });

  for (const text of [
    "", "[", "[1", "nil", '"~"', '["~:"]', '["~::a"]', '"^0"', '"^ "', '["~:ab","^1"]', '"^!"',
    '"~#set"', '["~#set"]', '["~#set",1]', '["~#set",[1,1]]', '["~#set",[[1],[1]]]', '["~#",1]',
    '["^ ","~:a"]', '["^ ","~:a",1,"a",2]', '["^ ","a",1,"a",2]', '["~#cmap",[1]]', '["~#ratio",[1,0]]',
    '["~#m","x"]', '["~#i",5]', '"~ia"', '"~d"', '"~zinf"', '"~?x"', '"~_x"', '"~cab"', '"~u1"', '"~b!"',
    '"~t2024"', '"~mx"', '"~i' + "1".repeat(1025) + '"', "[".repeat(200) + "]".repeat(200),
    "[".repeat(200_000),
  ]) {
    it(`not ${text.slice(0, 30)}`, () => assert.throws(() => unpack(text), SyntaxError));
  }
});

describe("transit-js", { skip: without }, () => {
  const reader = library?.reader("json");
  const [compact, verbose] = ["json", "json-verbose"].map((type) => library?.writer(type));
  const deep = { rows: Array.from({ length: 50 }, (_, n) => ({ name: `n${n}`, tags: new Set([n]) })) };

  for (const [label, value] of Object.entries({
    scalars: [null, true, 1, -1.5, NaN, Infinity, "~a", "^a", "`a", "é😀", new Date(5)],
    names: [K("a"), K("chat/say"), K("long-enough"), K("long-enough"), K("😀")],
    "large integers": [9007199254740993n, -(2n ** 63n), 2n ** 70n],
    bytes: [Uint8Array.of(0, 1, 255)],
    maps: [{ a: { "b c": [] } }, new Map([[1, 2], [true, 3], [[1], 4]]), new Map([["abcd", 1]])],
    tags: [new Tagged("geo/point", [1, { x: 2 }])],
    rows: deep,
    "more keys than codes": Array.from({ length: 4500 }, (_, n) => ({ [`key-${n % 3000}`]: n })),
  })) {
    it(`reads our ${label}, and we read what it writes`, () => {
      const value_ = reader.read(exact.pack(value));
      const expected = exact.unpack(exact.pack(value));
      assert.deepEqual(exact.unpack(compact.write(value_)), expected);
      assert.deepEqual(exact.unpack(verbose.write(value_)), expected);
    });
  }
});
