// What a message costs a page is a matter of its length: a server relays what others sent.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { edn } from "../../flask_chsk/static/edn.js";
import { msgpack } from "../../flask_chsk/static/msgpack.js";
import { transit } from "../../flask_chsk/static/transit.js";

const TIMES = 12; // what it may cost, of what rows of the same length do; it was 20 to 200 times

/** The least of five runs, in ms. @param {() => any} call */
function least(call) {
  let best = Infinity;
  for (let i = 0; i < 5; i++) {
    const start = performance.now();
    call();
    best = Math.min(best, performance.now() - start);
  }
  return best;
}

/** Sets in sets, each with members of its own. */
function nested(depth) {
  /** @type {any} */ let value = null;
  for (let level = 0; level < depth; level++) {
    const members = Array.from({ length: 60 }, (_, n) => new Set([level * 100 + n, "y".repeat(40)]));
    value = new Set([value, ...members]);
  }
  return value;
}

const ROW = { id: 1000, name: "Item 1", price: 1.25, tags: ["a", "b"], due: null };

describe("what a message costs", () => {
  for (const packer of [edn, transit, msgpack]) {
    it(`is no more for sets in sets: ${packer.name}`, (t) => {
      const packed = packer.pack(nested(45));
      const one = packer.pack([ROW]).length - 2;
      const rows = packer.pack(Array(Math.ceil(packed.length / one)).fill(ROW));
      const ratio = least(() => packer.unpack(packed)) / least(() => packer.unpack(rows));
      t.diagnostic(`${ratio.toFixed(1)} times as much as rows`);
      assert.ok(ratio < TIMES, `${ratio} times as much`);
    });
  }

  it("is no stack for what EDN leaves out", () => {
    assert.deepEqual(edn.unpack(`[${"#_1 ".repeat(100_000)}2]`), [2]);
    assert.throws(() => edn.unpack("#_".repeat(200) + "1 ".repeat(201)), /nested too deep/);
  });

  it("is not that of a number of any length", () => {
    assert.throws(() => edn.unpack("9".repeat(100_000)), /more than 1024 characters/);
  });

  it("leaves what is equal and what differs as it was", () => {
    for (const text of ['#{[1] ["1"]}', '#{["a b"] ["a" "b"]}', "#{#{1} [1]}", "#{{1 2} {1 3}}"]) {
      assert.equal(edn.unpack(text).size, 2);
    }
    for (const text of ["#{[1] [1]}", "#{#{{1 2}} #{{1 2}}}", "{[1] 1 [1] 2}"]) {
      assert.throws(() => edn.unpack(text), /not distinct/);
    }
  });
});
