// EDN and JSON: what round-trips, what reads as what, what is refused and why.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import {
  Keyword,
  PackError,
  Tagged,
  ednPacker,
  isName,
  json,
  readEdn,
  writeEdn,
} from "../../flask_chsk/static/edn.js";

const exact = ednPacker({ keywords: "object" });

/** What `fn` throws, in words. */
function thrown(fn) {
  try {
    return `returned ${fn()}`;
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
}

describe("EDN reads", () => {
  const cases = {
    "nil true false": null,
    "[nil true false]": [null, true, false],
    "[0 -0 +7 42 -42 101 10N 0N]": [0, 0, 7, 42, -42, 101, 10, 0],
    "[9007199254740991 9007199254740992 -9223372036854775808 123456789012345678901234567890N]": [
      9007199254740991,
      9007199254740992n,
      -9223372036854775808n,
      123456789012345678901234567890n,
    ],
    "[1.5 -0.25 1e3 1.5E-3 1. 1e400 ##Inf ##-Inf ##NaN]": [
      1.5,
      -0.25,
      1000,
      0.0015,
      1,
      Infinity,
      Infinity,
      -Infinity,
      NaN,
    ],
    "[1.50M 7M 1/4 -3/2]": ["1.50", "7", 0.25, -1.5],
    '["" "a\\tb" "\\"\\\\" "\\u00e9中😀" "two\nlines" "a,b;c"]': [
      "",
      "a\tb",
      '"\\',
      "é中😀",
      "two\nlines",
      "a,b;c",
    ],
    "[\\a \\newline \\space \\tab \\return \\formfeed \\backspace \\u00e9 \\( \\\\ \\😀]": [
      "a",
      "\n",
      " ",
      "\t",
      "\r",
      "\f",
      "\b",
      "é",
      "(",
      "\\",
      "😀",
    ],
    "[:a :a/b :a.b-c/d_e!?*+<>= :1 :é :a#b]": ["a", "a/b", "a.b-c/d_e!?*+<>=", "1", "é", "a#b"],
    "[foo foo.bar/baz / + -> nilly]": ["foo", "foo.bar/baz", "/", "+", "->", "nilly"],
    "(1 (2) [])": [1, [2], []],
    "{}": {},
    '{:a 1, "b" {:c/d nil}}': { a: 1, b: { "c/d": null } },
    "{1 :one nil :none}": new Map([
      [1, "one"],
      [null, "none"],
    ]),
    "{[1 2] 3, :a 4}": new Map([
      [[1, 2], 3],
      ["a", 4],
    ]),
    "#{1 :a [2]}": new Set([1, "a", [2]]),
    '#inst "2024-01-02T03:04:05.678-00:00"': new Date("2024-01-02T03:04:05.678Z"),
    '#inst "2024-02-29T23:59:59.123456789+01:30"': new Date("2024-02-29T22:29:59.123Z"),
    '#uuid "0188f5a0-9d33-7c3f-8a70-0123456789ab"': "0188f5a0-9d33-7c3f-8a70-0123456789ab",
    "#app/point [1 2]": new Tagged("app/point", [1, 2]),
    "[1 #_ 2 #_#_ 3 [4] 5 #_6]": [1, 5],
    "; a comment\n [1 ; two\n 3], ; end": [1, 3],
    '[:a"b"[1]{:c(2)}#{3}]': ["a", "b", [1], { c: [2] }, new Set([3])],
  };
  delete cases["nil true false"];
  for (const [text, value] of Object.entries(cases)) {
    it(text.replaceAll("\n", "⏎"), () => assert.deepEqual(readEdn(text), value));
  }

  it("keywords as objects, where they are asked for", () => {
    assert.deepEqual(exact.unpack('[:a "a" sym {:a 1} {"a" 1} {:a 1 "b" 2}]'), [
      new Keyword("a"),
      "a",
      "sym",
      { a: 1 },
      new Map([["a", 1]]),
      new Map([
        [new Keyword("a"), 1],
        ["b", 2],
      ]),
    ]);
  });

  it("__proto__ as a key like any other", () => {
    for (const value of [
      readEdn("{:__proto__ {:admin true}}"),
      json.unpack('{"__proto__":{"admin":true}}'),
    ]) {
      assert.equal(value.admin, undefined);
      assert.deepEqual(Object.keys(value), ["__proto__"]);
      assert.equal(Object.getPrototypeOf(value), Object.prototype);
    }
    assert.equal(writeEdn(readEdn("{:__proto__ 1}")), "{:__proto__ 1}");
  });

  it("long strings and many escapes without a deep stack", () => {
    for (const text of ["x".repeat(1e6), '"\\\n'.repeat(3e5), "\\".repeat(1e6)]) {
      assert.equal(readEdn(writeEdn(text)), text);
    }
  });
});

describe("EDN refuses to read", () => {
  for (const text of [
    ...'[1|1]|[1}|{:a}|{1 2 3}|"open|"\\x"|"\\u12"|\\|\\nope|:|::a|:/a|:a/|a/|/a|1a|01|-012'.split(
      "|",
    ),
    ...'0x1F|2r101|1e|1_000|--1:|1/0|#_|[#_]|#|#foo|##Foo|#"re"|#\'var|#:a{:b 1}|^{:a 1} {}|`a|~a|@a'.split(
      "|",
    ),
    ...'{:a 1 :a 2}|{:a 1 "a" 2}|#{1 1}|#{[1] (1)}|{1N :a 1 :b}|1 2|1 2]||; only'.split("|"),
    '#inst "2024-02-30T00:00:00Z"',
    '#inst "2024-13-01T00:00:00Z"',
    '#inst "today"',
    "#inst 5",
    "#uuid 5",
    '#uuid "x"',
    "[".repeat(101) + "]".repeat(101),
    "#_".repeat(101) + "1",
  ]) {
    it(text.slice(0, 40) || "nothing", () => {
      assert.match(
        thrown(() => readEdn(text)),
        /^(SyntaxError|PackError): /,
      );
    });
  }
});

describe("EDN writes", () => {
  const cases = [
    [null, "nil"],
    [undefined, "nil"],
    [
      [1, -2, 2 ** 53 - 1, 1.5, 1e21, 2 ** 53, 5.0, -0],
      "[1 -2 9007199254740991 1.5 1e+21 9007199254740992.0 5 0]",
    ],
    [[NaN, Infinity, -Infinity], "[##NaN ##Inf ##-Inf]"],
    [
      [2n ** 53n, -(2n ** 63n), 2n ** 63n],
      "[9007199254740992 -9223372036854775808 9223372036854775808N]",
    ],
    ['a"b\\c\n\u0000é', '"a\\"b\\\\c\\n\\u0000é"'],
    [new Keyword("chat/say"), ":chat/say"],
    [{ a: 1, "b/c": { "d-e?": [] } }, "{:a 1 :b/c {:d-e? []}}"],
    [{ a: 1, "x y": 2 }, '{"a" 1 "x y" 2}'],
    [{ a: 1, 2: 3 }, '{"2" 3 "a" 1}'],
    [{ a: undefined, b: [undefined] }, "{:b [nil]}"],
    [Object.assign(Object.create(null), { a: 1 }), "{:a 1}"],
    [new Map([["a", 1]]), '{"a" 1}'],
    [
      new Map([
        [new Keyword("a"), 1],
        [[1], 2],
      ]),
      "{:a 1 [1] 2}",
    ],
    [new Set([1, "a"]), '#{1 "a"}'],
    [new Date(Date.UTC(2024, 0, 2, 3, 4, 5, 6)), '#inst "2024-01-02T03:04:05.006-00:00"'],
    [new Tagged("app/point", { x: 1 }), "#app/point {:x 1}"],
    [new URL("http://a.b/c"), '"http://a.b/c"'],
    [[, 1], "[nil 1]"],
  ];
  for (const [value, text] of cases) it(text, () => assert.equal(writeEdn(value), text));

  it("back what it read", () => {
    for (const text of [
      '[[:chat/say {:text "hi" :n [1 2.5 nil true]}] "c1"]',
      '{:a {"b" :c} "d" #{:e "f"} :g/h #inst "2024-01-02T03:04:05.678-00:00"}',
      "[123456789012345678901234567890N ##Inf #x/y [:z]]",
    ]) {
      assert.equal(writeEdn(exact.unpack(text)), text);
    }
  });
});

describe("What cannot be carried", () => {
  class Room {}
  const circle = {};
  circle.self = circle;
  const both = [
    [{ when: [0, () => 1] }, 'PackError: value["when"][1]: a function'],
    [{ a: { b: Symbol("s") } }, 'PackError: value["a"]["b"]: a symbol'],
    [{ room: new Room() }, 'PackError: value["room"]: object of type Room'],
    [[Promise.resolve()], "PackError: value[0]: object of type Promise"],
    [[new Uint8Array(2)], "PackError: value[0]: object of type Uint8Array"],
    [{ at: new Date(NaN) }, 'PackError: value["at"]: not a date of this era'],
    [[new Date(9e14)], "PackError: value[0]: not a date of this era"],
  ];
  for (const [value, error] of both) {
    it(`is refused with the path to it: ${error}`, () => {
      assert.equal(
        thrown(() => writeEdn(value)),
        error,
      );
      assert.equal(
        thrown(() => json.pack(value)),
        error,
      );
    });
  }

  it("is refused where it would not read back", () => {
    assert.deepEqual(
      [
        () => writeEdn(circle).length,
        () => writeEdn({ tags: new Set([[1], [1]]) }),
        () =>
          writeEdn(
            new Map([
              [[1], 1],
              [[1], 2],
            ]),
          ),
        () => json.pack([NaN]),
        () => json.pack(new Map([[1, 2]])),
        () => json.pack([new Tagged("x/y", 1)]),
        () => new Keyword("a b"),
        () => new Keyword(""),
        () => new Tagged("::", 1),
      ].map((fn) => thrown(fn).replace(/(\["self"\])+/, '["self"]…')),
      [
        'PackError: value["self"]…: nested too deep',
        'PackError: value["tags"]: not distinct',
        "PackError: value: not distinct",
        "PackError: value[0]: NaN",
        "PackError: value: a key that is no string",
        "PackError: value[0]: object of type Tagged",
        "PackError: not a keyword: a b",
        "PackError: not a keyword: ",
        "PackError: not a tag: ::",
      ],
    );
    assert.ok(new PackError() instanceof TypeError);
  });
});

describe("JSON", () => {
  it("writes what has no JSON as strings and arrays", () => {
    assert.equal(
      json.pack([
        new Keyword("chat/say"),
        new Date(0),
        new Set([1]),
        new Map([
          ["a", 1],
          [new Keyword("b"), 2],
        ]),
        { a: undefined, "b c": 2n ** 60n },
        undefined,
      ]),
      '["chat/say","1970-01-01T00:00:00.000Z",[1],{"a":1,"b":2},{"b c":1152921504606846976},null]',
    );
  });

  it("reads long integers exactly, where the engine allows", () => {
    const [long, short, float] = json.unpack("[1152921504606846977,9007199254740991,1e300]");
    let told = false;
    JSON.parse("1", (_key, value, context) => ((told = !!context?.source), value));
    assert.equal(long, told ? 1152921504606846977n : 1152921504606846976);
    assert.deepEqual([short, float], [9007199254740991, 1e300]);
  });

  it("refuses what is none", () => {
    assert.match(
      thrown(() => json.unpack("[1")),
      /^SyntaxError: /,
    );
  });
});

describe("A batch", () => {
  it("joins packed events without packing them again", () => {
    for (const packer of [ednPacker(), json]) {
      const events = [["a/b", { n: 1 }], ["c/d"]].map(([id, ...data]) => [
        new Keyword(id),
        ...data,
      ]);
      const packed = packer.batch(events.map((event) => packer.pack([event, null])));
      assert.equal(packed, packer.pack([[new Keyword("chsk/batch"), events], null]));
    }
  });
});

describe("A name", () => {
  it("is what EDN reads back", () => {
    const names = ["a", "a/b", "/", "a.b/c", "-", "a:b", "", "a/", "/a", ":a", "a b", "#a", 5];
    assert.deepEqual(
      names.filter((name) => isName(name)),
      ["a", "a/b", "/", "a.b/c", "-", "a:b"],
    );
    assert.deepEqual(
      ["a/b", "a", "a/b/c", "a.b/c-d"].filter((name) => isName(name, true)),
      ["a/b", "a.b/c-d"],
    );
  });
});
