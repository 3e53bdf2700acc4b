// Calls the API with the operator's key. The key is in sessionStorage, until the tab is closed.

const KEY = "lhttp-admin-key";
const PATIENCE = 20_000;

/** An error: the server refused a call, or cannot be reached. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

let own = null;
let loggedOut = () => {};

/** Set the function to call when the key is no longer valid. */
export function onLogout(call) {
  loggedOut = call;
}

/** Return the name, methods and channels of the key; null before login. */
export function key() {
  return own;
}

/** Return whether the key may call a method. */
export function may(method) {
  return own !== null && own.methods.includes(method);
}

/** Return whether the key may use all channels. */
export function mayUseAll() {
  return own !== null && own.channels.includes(">");
}

/** Return the text that says why the key may not call a method. */
export function refusal(method) {
  return `The key ${own?.name ?? ""} may not call ${method}.`;
}

/** Return whether there is a key from before the page was loaded. */
export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

/** Log in with a secret, or with the one from before. Throws a Problem if it is not valid. */
export async function login(secret = sessionStorage.getItem(KEY)) {
  const found = await ask("GET", "/api/key", secret);
  sessionStorage.setItem(KEY, secret);
  own = found;
  return found;
}

/** Forget the key. */
export function logout(why = "") {
  sessionStorage.removeItem(KEY);
  own = null;
  loggedOut(why);
}

/** Call a method of the API, and return its answer. Throws a Problem, or an AbortError. */
export async function call(method, params = {}, signal = undefined) {
  const secret = sessionStorage.getItem(KEY);
  if (secret === null) throw new Problem(401, "log in first");
  try {
    return await ask("POST", `/api/${method}`, secret, params, signal);
  } catch (error) {
    if (error.status === 401) logout("The key is not valid any more.");
    throw error;
  }
}

async function ask(method, path, secret, params, signal) {
  if (!/^[!-~]+$/.test(secret ?? "")) throw new Problem(401, "a key is one line of visible ASCII characters");
  const limit = AbortSignal.timeout(PATIENCE);
  const headers = { Authorization: `Bearer ${secret}` };
  if (params !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: params === undefined ? undefined : JSON.stringify(params),
      signal: signal === undefined ? limit : AbortSignal.any([limit, signal]),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, "The server cannot be reached.");
  }
  const found = await response.json().catch(() => ({}));
  if (!response.ok) throw new Problem(response.status, found.detail ?? `The server answers with ${response.status}.`);
  return found;
}
