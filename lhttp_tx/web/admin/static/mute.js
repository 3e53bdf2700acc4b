// The buttons that mute clients, and that lift mutes.

import { call, may } from "./api.js";
import { ask, attempt, field, reached } from "./dialog.js";
import { el, name } from "./dom.js";

const DURATIONS = [
  [60, "1 minute"],
  [600, "10 minutes"],
  [3_600, "1 hour"],
  [86_400, "1 day"],
  [604_800, "7 days"],
];

function choice(options, chosen) {
  return el("select", {}, options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
}

/** Ask for how long to mute, and mute. whoms are pairs of parameters of the API and a text; the first is chosen. */
function mute(title, whoms) {
  const who = choice(whoms.map(([, text], index) => [index, text]), 0);
  const seconds = choice(DURATIONS, 600);
  return ask({
    title,
    children: [
      whoms.length > 1 ? field("Who", who) : null,
      field("For", seconds, "The client stays connected and receives. What it publishes is refused."),
    ],
    verb: "Mute",
    isDangerous: false,
    act: async () => reached("muted", await call("mute", { ...whoms[Number(who.value)][0], seconds: Number(seconds.value) })),
  });
}

/** Return the buttons for a user, who need not be connected. */
export function userMuteButtons(user) {
  const whoms = [[{ user }, "The user"]];
  const give = el("button", { type: "button", click: () => mute(["Mute the user ", name(user)], whoms) }, "Mute");
  return [may("mute") ? give : null, may("unmute") ? liftButton(() => ({ user }), () => {}) : null];
}

/** Return the buttons for a connection, and a function that shows what the API says about it. */
export function connectionMuteButtons(connection, done) {
  let whoms = [];
  let lifted = {};
  const give = el("button", { type: "button", hidden: true }, "Mute");
  const lift = liftButton(() => lifted, done);
  lift.hidden = true;
  give.addEventListener("click", async () => {
    if (await mute(["Mute the connection ", name(connection)], whoms)) await attempt(give, done);
  });

  function update({ user, muted, user_muted }) {
    whoms = [[{ connection }, "Only this connection"]];
    if (user !== null) whoms.push([{ user }, `The user \u2068${user}\u2069, on all connections`]);
    lifted = user_muted ? { user } : { connection };
    give.hidden = !may("mute");
    lift.hidden = !(may("unmute") && muted);
  }

  return [[give, lift], update];
}

function liftButton(whom, done) {
  const button = el("button", { type: "button" }, "Unmute");
  button.addEventListener("click", () =>
    attempt(button, async () => {
      reached("no longer muted", await call("unmute", whom()));
      await done();
    }),
  );
  return button;
}
