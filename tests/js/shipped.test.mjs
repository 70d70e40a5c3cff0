// What pages load: how large it is, and whether its types are true.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { world } from "./fakes.mjs";

const STATIC = fileURLToPath(new URL("../../flask_chsk/static/", import.meta.url));
const HERE = fileURLToPath(new URL(".", import.meta.url));

/** The packages, or null where `npm install` has not been run in this folder. */
async function installed(t, ...names) {
  try {
    return await Promise.all(names.map((name) => import(name)));
  } catch (error) {
    t.skip(`npm install in tests/js brings ${names.join(" and ")}: ${error.message}`);
    return null;
  }
}

describe("chsk.js, with EDN and JSON", () => {
  /** Bytes that an import adds to a page: bundled, minified, gzipped. */
  async function size(packages, imports) {
    const [{ build }, { minify }] = packages;
    const bundle = await build({
      stdin: { contents: imports, resolveDir: STATIC },
      bundle: true,
      format: "esm",
      target: "es2022",
      write: false,
    });
    const options = { module: true, ecma: 2020, compress: { passes: 3, unsafe_arrows: true } };
    const { code } = await minify(bundle.outputFiles[0].text, options);
    return gzipSync(code, { level: 9 }).length;
  }

  // 0.6 kB of it are what applications expect of a client: ready(), once(), off(), onAny(), onError(),
  // AbortSignal, errors with the caller's stack, connect() after destroy().
  it("costs a page at most 11.4 kB", async (t) => {
    const packages = await installed(t, "esbuild", "terser");
    if (!packages) return;
    const bytes = await size(packages, 'export { ChannelSocket } from "./chsk.js"');
    t.diagnostic(`ChannelSocket with EDN and JSON: ${bytes} bytes, minified and gzipped`);
    assert.ok(bytes <= 11_400, `${bytes} bytes`);
  });

  it("costs little more with all the seed's functions", async (t) => {
    const packages = await installed(t, "esbuild", "terser");
    if (!packages) return;
    const bytes = await size(packages, 'export * from "./chsk.js"');
    t.diagnostic(`everything: ${bytes} bytes, minified and gzipped`);
    assert.ok(bytes <= 12_100, `${bytes} bytes`);
  });
});

describe("the types", () => {
  async function compile(t, ...args) {
    if (!(await installed(t, "typescript"))) return;
    const tsc = `${HERE}node_modules/.bin/tsc`;
    const common = "--noEmit --strict --target es2022 --lib es2022,dom,dom.iterable --types".split(
      " ",
    );
    try {
      execFileSync(tsc, [...common, "", ...args], { encoding: "utf8" });
    } catch (error) {
      assert.fail(error.stdout || error);
    }
  }

  it("of chsk.d.ts hold what they promise", (t) =>
    compile(t, "--module", "nodenext", `${HERE}types.ts`));

  it("in the comments of the sources are right", (t) =>
    compile(t, "--module", "esnext", "--allowJs", "--checkJs", `${STATIC}chsk.js`));

  it("name what there is", async (t) => {
    const chsk = await import("../../flask_chsk/static/chsk.js");
    const text = await readFile(`${STATIC}chsk.d.ts`, "utf8");
    const typed = [...text.matchAll(/^export (?:function|class|const) (\w+)/gm)].map((m) => m[1]);
    assert.deepEqual(typed.sort(), Object.keys(chsk).sort());
  });

  it("name all that can be reached from a channel socket and its chRecv", async (t) => {
    const { chsk } = await world(t);
    const text = await readFile(`${STATIC}chsk.d.ts`, "utf8");
    for (const [name, object] of [
      ["ChannelSocket", chsk],
      ["RecvChannel", chsk.chRecv],
    ]) {
      const [, body] = new RegExp(`^export class ${name}\\b[^]*?\\{\n([^]*?)^\\}`, "m").exec(text);
      const typed = [...body.matchAll(/^ {2}(?:readonly )?([a-zA-Z]+)[(:<]/gm)].map((m) => m[1]);
      const proto = Object.getOwnPropertyNames(Object.getPrototypeOf(object));
      const reached = new Set([...Object.getOwnPropertyNames(object), ...proto]);
      assert.deepEqual([...new Set(typed)].sort(), [...reached].sort());
    }
  });
});
