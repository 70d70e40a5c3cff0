// Types of transit.js.

import type { Packer } from "./chsk.js";

/** Transit, for `new ChannelSocket(path, { packer: transit })`. */
export const transit: Packer<string>;
/** The same; `keywords: "object"` reads keywords as Keyword. */
export function transitPacker(options?: { keywords?: "string" | "object" }): Packer<string>;
