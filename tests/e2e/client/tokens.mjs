// A page with a token that expires: `node tokens.mjs SCRIPT SITE TYPE NAME`. It prints how its
// connection ended, each token that it was given, and what it heard.

const [script, site, type, name] = process.argv.slice(2);
const { ChannelSocket } = await import(script);
const say = (/** @type {any[]} */ ...what) => console.log(JSON.stringify(what));

const auth = async () => {
  const answer = await fetch(`${site}/token`, {
    method: "POST",
    body: new URLSearchParams({ name }),
  });
  say("asked");
  return (await answer.json()).token;
};
const chsk = new ChannelSocket(`${site}/chsk`, { type, auth });
chsk.on("test/item", ({ data }) => say("item", data));
chsk.watch((old, now) => {
  if (now.lastClose !== old.lastClose) say("closed", now.lastClose.reason, now.lastClose.code);
  if (now.status !== old.status) say(now.status);
});
process.stdin.on("end", () => process.exit(0)).resume();
