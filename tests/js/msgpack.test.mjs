// MessagePack in the browser: against what Sente's packer wrote, and against itself.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";

import { Keyword, Tagged, readEdn } from "../../flask_chsk/static/edn.js";
import { msgpack, msgpackPacker } from "../../flask_chsk/static/msgpack.js";

const { pack, unpack, batch } = msgpack;
const exact = msgpackPacker({ keywords: "object" });
const K = (name) => new Keyword(name);
const hex = (bytes) => Buffer.from(bytes).toString("hex");
const bytes = (text) => new Uint8Array(Buffer.from(text.replaceAll(" ", ""), "hex"));

const VECTORS = readFileSync(new URL("../unit/packers/vectors/msgpack.jsonl", import.meta.url), "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line))
  .filter((vector) => vector.msgpack);

// Values that JavaScript has no type for, or one for two.
const NOT_IN_JAVASCRIPT = /^(sym|ns\/sym|\\a|2\/3|1\.0M|\[1 1N 1\.0\]|#uuid .*)$/;
// Where Sente shortens keys, which we only read.
const SHORTENED = /d408/;

describe("what Sente's packer wrote", () => {
  for (const { edn, msgpack: packed, reads_back } of VECTORS) {
    it(`is read: ${edn}`, () => {
      const text = reads_back.startsWith("#object") ? edn : reads_back;
      assert.deepEqual(exact.unpack(bytes(packed)), readEdn(text, { keywords: "object" }));
      assert.deepEqual(unpack(bytes(packed)), readEdn(text));
    });
    if (NOT_IN_JAVASCRIPT.test(edn) || SHORTENED.test(packed)) continue;
    it(`is written: ${edn}`, () => {
      assert.equal(hex(exact.pack(readEdn(edn, { keywords: "object" }))), packed);
    });
  }
});

describe("what is written", () => {
  for (const [value, packed] of [
    [[31, 32, 127, -32, -33], "95 1f 20 7f e0 d0df"],
    [[255, 256, 65535, 65536, 2 ** 32 - 1], "95 ccff cd0100 cdffff ce00010000 ceffffffff"],
    [[-128, -129, -32768, -32769], "94 d080 d1ff7f d18000 d2ffff7fff"],
    [[-(2 ** 31), -(2 ** 31) - 1, 2 ** 53 - 1], "93 d280000000 d3ffffffff7fffffff d3001fffffffffffff"],
    [[5n, 2n ** 63n - 1n, -(2n ** 63n)], "93 05 d37fffffffffffffff d38000000000000000"],
    [[0.5, -0, 1e17, Infinity], "94 cb3fe0000000000000 00 cb4376345785d8a000 cb7ff0000000000000"],
    [[undefined, null], "92 c0c0"],
    [Uint8Array.of(1, 2), "c4020102"],
    [Uint8Array.of(1, 2).buffer, "c4020102"],
    [{ a: 1, gone: undefined }, "81 d40061 01"],
    [{ a: 1, "b c": 2 }, "82 a161 01 a3622063 02"],
    [new Map([["a", 1], [[1], 2]]), "82 a161 01 9101 02"],
    [new Set([1]), "d5049101"],
    [new Date(-1), "c70cff 3b8b87c0 ffffffffffffffff"],
  ]) {
    it(packed, () => assert.equal(hex(pack(value)), packed.replaceAll(" ", "")));
  }

  it("has the smallest headers", () => {
    for (const length of [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536]) {
      for (const value of [
        "x".repeat(length),
        new Uint8Array(length),
        Array(length).fill(null),
        new Map(Array.from({ length }, (_, n) => [n, n])),
        new Set(Array.from({ length }, (_, n) => n)),
      ]) {
        const back = unpack(pack(value));
        assert.deepEqual(length || !(value instanceof Map) ? back : new Map(), value);
      }
    }
    assert.equal(hex(pack("x".repeat(256)).subarray(0, 3)), "da0100");
    assert.equal(hex(pack(Array(65_536).fill(0)).subarray(0, 5)), "dd00010000");
  });

  it("is joined to a batch", () => {
    const events = Array.from({ length: 20 }, (_, n) => ["a/b", { n }]);
    const packed = events.map(([id, data]) => pack([[K(id), data], null]));
    assert.deepEqual(unpack(batch(packed)), [["chsk/batch", events], null]);
    assert.deepEqual(exact.unpack(batch(packed))[0][0], K("chsk/batch"));
  });
});

describe("what cannot be written is refused with its path", () => {
  for (const [value, message] of [
    [{ a: [2n ** 63n] }, 'value["a"][0]: an integer past 64 bits'],
    [[new Tagged("a", 1)], "value[0]: object of type Tagged"],
    [["\udc00"], "value[0]: half of a surrogate pair"],
    [[() => 1], "value[0]: a function"],
    [new Set([[1], [1]]), "value: not distinct"],
  ]) {
    it(message, () => assert.throws(() => pack(value), { name: "PackError", message }));
  }
});

describe("what is read", () => {
  for (const [packed, value] of [
    ["cf0000000000000005", 5],
    ["cfffffffffffffffff", 2n ** 64n - 1n],
    ["ca3fc00000", 1.5],
    ["dd0000000101", [1]],
    ["df00000001 d40061 01", { a: 1 }],
    ["c70404dc000101", new Set([1])],
    ["d70500000001ffffffff", [1, -1]],
    ["d6063fc00000", [1.5]],
    ["d7073ff8000000000000", [1.5]],
    ["d6ff65937d25", new Date(1704164645000)],
    ["d7ffa1a5d60065937d25", new Date(1704164645678)],
    ["92 81d4006101 81d4080002", [{ a: 1 }, { a: 2 }]],
    ["81d40061 82 d4006201 d4080002", { a: { b: 1, a: 2 } }],
    ["93 81d4006101 82d4006102d4006203 81d4080104", [{ a: 1 }, { a: 2, b: 3 }, { b: 4 }]],
  ]) {
    it(packed, () => assert.deepEqual(unpack(bytes(packed)), value));
  }

  it("from any place in a buffer", () => {
    const whole = bytes("c0c0 93 01 cb3ff8000000000000 a161 c0");
    assert.deepEqual(unpack(whole.subarray(2, -1)), [1, 1.5, "a"]);
    assert.deepEqual(unpack(bytes("9101").buffer), [1]);
  });

  for (const packed of [
    "", "0000", "c1", "91", "81", "a261", "d9", "cd00", "c7", "c7020061", "a1ff", "a3eda080", "d400ff",
    "ddffffffff", "dfffffffff", "dbffffffff", "c6ffffffff", "82d4006101d4006102", "d40800", "81d4080001",
    "d40a00", "c70000", "d4003a", "c70002", "d5026161", "d5030100", "d40301", "d40480", "d5049200", "d5049001",
    "c704049201 01", "d40501", "c70009", "c70dff00000000000000000000000000", "c70cff3b9aca000000000000000000",
    "c70cff000000007fffffffffffffff", "91".repeat(200) + "c0", "91".repeat(100_000) + "c0", "d6049201",
  ]) {
    it(`not ${packed.slice(0, 40)}`, () => assert.throws(() => unpack(bytes(packed)), SyntaxError));
  }
});

describe("the types in the comments", () => {
  it("are right", async (t) => {
    const compiler = new URL("node_modules/.bin/tsc", import.meta.url);
    if (!existsSync(compiler)) return t.skip("npm install in tests/js brings typescript");
    const options = "--noEmit --strict --target es2022 --lib es2022,dom,dom.iterable --types";
    const sources = ["transit.js", "msgpack.js"].map((name) =>
      fileURLToPath(new URL(`../../flask_chsk/static/${name}`, import.meta.url)),
    );
    const more = ["", "--module", "esnext", "--allowJs", "--checkJs", ...sources];
    try {
      execFileSync(fileURLToPath(compiler), [...options.split(" "), ...more], { encoding: "utf8" });
    } catch (error) {
      assert.fail(error.stdout || error);
    }
  });
});
