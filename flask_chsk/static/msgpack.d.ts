// Types of msgpack.js.

import type { Packer } from "./chsk.js";

/** MessagePack, for `new ChannelSocket(path, { packer: msgpack })`. */
export const msgpack: Packer<Uint8Array>;
/** The same; `keywords: "object"` reads keywords as Keyword. */
export function msgpackPacker(options?: { keywords?: "string" | "object" }): Packer<Uint8Array>;
