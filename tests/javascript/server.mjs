// `twistd lhttp` as a process, for the tests in Node. LHTTP_TWISTD names the program; by default it is on the PATH.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const PROCESSORS = fileURLToPath(new URL("../integration/_processors.py", import.meta.url));
const directory = mkdtempSync(join(tmpdir(), "lhttp-"));

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Write a file that a server reads; returns its path. */
export function makeFile(name, content) {
  const path = join(directory, name);
  writeFileSync(path, content, { mode: 0o600 });
  return path;
}

/** Start a server; `kill` ends it without a word to its clients, `stop` as an operator would. */
export async function startServer(port = 0, options = []) {
  const processors = ["echo", "other", "refuse", "parts", "hang", "rewrite", "hang_up"];
  const child = spawn(
    process.env.LHTTP_TWISTD ?? "twistd",
    [
      ...["-n", "--pidfile=", "lhttp", "--no-plugins", "--port", `tcp:${port}:interface=127.0.0.1`, ...options],
      ...processors.flatMap((name) => ["--processor", `${PROCESSORS}:${name}`]),
    ],
    { cwd: directory, stdio: ["ignore", "pipe", "inherit"] },
  );
  process.once("exit", () => child.kill("SIGKILL"));
  let log = "";
  const listening = new Promise((resolve, reject) => {
    child.stdout.on("data", (data) => {
      log += data;
      const found = /listening on 127\.0\.0\.1:(\d+)/.exec(log);
      if (found) resolve(Number(found[1]));
    });
    child.once("exit", () => reject(new Error(`the server ended:\n${log}`)));
    child.once("error", reject);
  });
  const end = (signal) => async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill(signal);
      await once(child, "exit");
    }
  };
  const server = { port: await listening, kill: end("SIGKILL"), stop: end("SIGTERM") };
  server.url = `ws://127.0.0.1:${server.port}/`;
  return server;
}
