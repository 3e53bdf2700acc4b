/*
 * LHTTP over plain HTTP requests, for networks that break WebSocket. MIT licence.
 *
 * lhttp.js loads it from the same directory. HttpSocket has those parts of the interface of a WebSocket that the client
 * needs. It receives messages by a stream or by long polling, and sends messages by requests, each of which may go to
 * another node. Lost messages are requested again, or sent again, so that none is missing or comes twice.
 */
(function (root) {
  "use strict";

  const MAX_BATCH = 32768; // the most bytes of a request with several messages
  const MAX_COUNT = 100; // the most messages of a request
  const FIRST_BYTES = 5000; // milliseconds in which a stream must begin; a proxy may hold it back
  const SLACK = 10000; // milliseconds that an answer may be late
  const LAST_WORDS = 2000; // milliseconds to send the remaining messages when the socket is closed
  const GRACE = 1000; // milliseconds to receive the reason why a session has ended
  const MAX_EMPTY = 3; // empty streams in a row
  const TOO_LARGE = 413; // the HTTP status when a message is too large for the server
  const CLOSE = /^LHTTP\/1\.0 close\r\ncode:(\d{3,4})\r\nreason:([^\r\n]*)\r\n\r\n$/;

  const encoder = new TextEncoder();
  const sleep = (delay) => new Promise((resolve) => setTimeout(resolve, delay));

  /** The session has ended, or the server refuses it. After other errors, the request is repeated. */
  class Refusal extends Error {
    constructor(text, status = 0) {
      super(text);
      this.status = status;
    }
  }

  class HttpSocket {
    binaryType = "arraybuffer";
    bufferedAmount = 0;
    protocol = "";
    readyState = 0;
    onopen = null;
    onmessage = null;
    onerror = null;
    onclose = null;
    #base;
    #search;
    #mode;
    #credentials;
    #secret = "";
    #told = {};
    #queue = [];
    #sending = null;
    #number = 0;
    #last = 0; // number of the last received message
    #acknowledged = 0;
    #unacknowledged = 0; // received characters that were not acknowledged
    #most = MAX_COUNT;
    #stop = new AbortController();

    /**
     * @param url the address of the WebSocket.
     * @param options {mode, base}: *mode* is "stream" or "poll"; *base* has /connect and /send below it, by default the
     *   root of the host.
     */
    constructor(url, { mode, base }) {
      this.#base = baseOf(url, base);
      this.#search = new URL(url).search;
      this.#mode = mode;
      this.#credentials = root.location?.origin === this.#base.origin ? "same-origin" : "include";
      this.#run();
    }

    /** Resolve with whether the server answers requests. */
    static async reaches(url, base) {
      try {
        await root.fetch(new URL("connect", baseOf(url, base)), { mode: "no-cors", credentials: "omit", cache: "no-store" });
        return true;
      } catch {
        return false;
      }
    }

    async #run() {
      try {
        await this.#connect();
        await (this.#mode === "poll" ? this.#poll() : this.#stream());
      } catch (error) {
        this.#closed(1006, error instanceof Refusal ? error.message : "");
      }
    }

    #request(path, options = {}, { timeout = 0, headers = {} } = {}) {
      const stop = new AbortController();
      const abort = () => stop.abort();
      this.#stop.signal.addEventListener("abort", abort);
      const timer = timeout ? setTimeout(abort, timeout) : null;
      const done = () => {
        clearTimeout(timer);
        this.#stop.signal.removeEventListener("abort", abort);
      };
      if (this.#secret) headers.Authorization = `Bearer ${this.#secret}`;
      const rest = { cache: "no-store", credentials: this.#credentials, headers, signal: stop.signal };
      const answer = root.fetch(new URL(path, this.#base), { ...rest, ...options });
      return { answer, abort, done };
    }

    /** Return the answer to a request as text. Throws a Refusal if the request must not be repeated. */
    async #ask(path, options, more) {
      const { answer, done } = this.#request(path, options, more);
      try {
        const response = await answer;
        const text = await response.text();
        if (response.ok) return text;
        await this.#judge(response.status, text);
        throw new Error(text);
      } finally {
        done();
      }
    }

    async #judge(status, text) {
      if (status < 500 && status !== 429 && status !== 408) throw new Refusal(text.trim(), status);
    }

    async #connect() {
      const begin = () => this.#ask(`connect${this.#search}`, { method: "POST" });
      let told;
      try {
        told = await begin();
      } catch (error) {
        // If the server allows all origins with `*`, the browser does not allow cookies.
        if (this.#credentials === "same-origin" || error instanceof Refusal) throw error;
        this.#credentials = "omit";
        told = await begin();
      }
      this.#told = JSON.parse(told);
      this.#secret = this.#told.session;
      if (this.readyState !== 0) this.#leave();
      else if (this.#mode === "poll") this.#opened();
    }

    #opened() {
      if (this.readyState !== 0) return;
      this.readyState = 1;
      this.onopen?.({ type: "open" });
    }

    get #isOver() {
      return this.readyState > 1;
    }

    /** Call *action* until it succeeds, or until the session must have ended. */
    async #persist(action) {
      let heard = Date.now();
      for (let failures = 0; !this.#isOver;) {
        try {
          await action();
          heard = Date.now();
          failures = 0;
        } catch (error) {
          if (this.#isOver) return;
          if (error instanceof Refusal || Date.now() - heard > this.#told.timeout * 1000) throw error;
          failures += 1;
          await sleep(Math.random() * Math.min(5000, 250 * 2 ** failures));
        }
      }
    }

    #poll() {
      const timeout = this.#told.wait * 1000 + SLACK;
      return this.#persist(async () => {
        const { messages } = JSON.parse(await this.#ask(`connect?poll=1&after=${this.#last}`, {}, { timeout }));
        this.#acknowledged = this.#last;
        for (const message of messages) this.#take(this.#last + 1, message);
      });
    }

    #stream() {
      let empty = 0;
      return this.#persist(async () => {
        const before = this.#last;
        await this.#readStream();
        empty = this.#last > before ? 0 : empty + 1;
        if (empty >= MAX_EMPTY) throw new Refusal("streams are cut");
        if (empty) throw new Error("the stream has ended");
      });
    }

    async #readStream() {
      const { answer, abort, done } = this.#request(`connect?after=${this.#last}`, {}, { headers: { Accept: "text/event-stream" } });
      let timer = setTimeout(abort, FIRST_BYTES);
      let begun = false;
      try {
        const response = await answer;
        if (!response.ok) {
          const text = await response.text();
          await this.#judge(response.status, text);
          throw new Error(text);
        }
        const decoder = new TextDecoder();
        const reader = response.body.getReader();
        let rest = "";
        for (;;) {
          const { done: isEnd, value } = await reader.read();
          if (isEnd) return;
          begun = true;
          clearTimeout(timer);
          timer = setTimeout(abort, this.#told.wait * 1000 + SLACK);
          this.#opened();
          const events = (rest + decoder.decode(value, { stream: true })).split("\n\n");
          rest = events.pop();
          for (const event of events) this.#takeEvent(event);
          if (this.#isOver) return;
        }
      } catch (error) {
        if (this.readyState === 0 && !begun) throw new Refusal("streams are held back");
        throw error;
      } finally {
        clearTimeout(timer);
        done();
      }
    }

    #takeEvent(event) {
      if (!event.startsWith("id: ")) return;
      const end = event.indexOf("\ndata: ");
      this.#take(Number(event.slice(4, end)), JSON.parse(event.slice(end + 7)));
      this.#unacknowledged += event.length;
      if (this.#unacknowledged > this.#told.buffer / 8) this.#pump(true);
    }

    #take(number, message) {
      if (this.#isOver || number <= this.#last) return;
      this.#last = number;
      const isText = typeof message === "string";
      const end = isText ? CLOSE.exec(message) : null;
      if (end) this.#closed(Number(end[1]), end[2]);
      else this.onmessage?.({ type: "message", data: isText ? message : bytesOf(message.base64).buffer });
    }

    /** @param data a string, or bytes. */
    send(data) {
      if (this.readyState === 0) throw new Error("the socket is not open yet");
      if (this.#isOver) return;
      const isText = typeof data === "string";
      const bytes = isText ? encoder.encode(data) : ArrayBuffer.isView(data) ? data : new Uint8Array(data);
      this.#queue.push({ bytes, isText });
      this.bufferedAmount += bytes.length;
      this.#pump();
    }

    /** Send waiting messages, one request at a time; or an empty request, to acknowledge. */
    #pump(acknowledges = false) {
      if (this.#sending || this.readyState === 3 || !(acknowledges || this.#queue.length)) return;
      this.#sending = this.#sendAll().then(
        () => {
          this.#sending = null;
          this.#pump();
        },
        async () => {
          this.#sending = null;
          await sleep(GRACE);
          this.#closed(1006, "");
        },
      );
    }

    async #sendAll() {
      const batch = this.#nextBatch();
      const parts = batch.map(({ bytes }) => bytes);
      const body = batch.length === 1 ? parts : parts.flatMap((bytes) => [`${bytes.length}\n`, bytes]);
      const type = batch.length && !batch[0].isText ? "application/octet-stream" : "text/plain; charset=utf-8";
      if (batch.length) this.#number += 1;
      const number = batch.length ? `number=${this.#number}&` : "";
      const began = Date.now();
      for (let failures = 0; ; failures += 1) {
        if (this.readyState === 3) return;
        const after = this.#last;
        try {
          const headers = { "Content-Type": type };
          await this.#ask(`send?${number}after=${after}`, { method: "POST", body: new Blob(body) }, { headers, timeout: 30000 });
          if (this.#acknowledged < after) this.#unacknowledged = 0;
          this.#acknowledged = after;
          break;
        } catch (error) {
          if (error.status === TOO_LARGE && batch.length) {
            this.#refuse(batch, error.message);
            return;
          }
          // If the session has ended, the receiving side gets the reason.
          if (error instanceof Refusal || Date.now() - began > this.#told.timeout * 1000) throw error;
          await sleep(Math.random() * Math.min(5000, 250 * 2 ** failures));
        }
      }
      for (const { bytes } of batch) this.bufferedAmount -= bytes.length;
    }

    /** Answer a message that is too large for the server, as the server does over a WebSocket; try several one by one. */
    #refuse(batch, reason) {
      this.#number -= 1; // the server has not counted the request
      if (batch.length > 1) {
        this.#most = 1;
        this.#queue.unshift(...batch);
        return;
      }
      const [{ bytes }] = batch;
      this.bufferedAmount -= bytes.length;
      const [head] = new TextDecoder().decode(bytes).split("\r\n\r\n", 1);
      const [, token] = /\r\nreceipt:([^\r\n]*)/i.exec(head) ?? [];
      const answered = token === undefined ? "" : `receipt-id:${token}\r\n`;
      const why = reason.replace(/[\r\n]+/g, " ");
      this.onmessage?.({ type: "message", data: `LHTTP/1.0 error\r\nstatus:413\r\nreason:${why}\r\n${answered}\r\n` });
    }

    #nextBatch() {
      const batch = [];
      let size = 0;
      while (this.#queue.length && batch.length < this.#most) {
        const { bytes, isText } = this.#queue[0];
        size += bytes.length + 8;
        if (batch.length && (size > MAX_BATCH || isText !== batch[0].isText)) break;
        batch.push(this.#queue.shift());
      }
      return batch;
    }

    /** End the session, after sending the messages given to `send`. */
    close(code = 1005, reason = "") {
      if (this.#isOver) return;
      const wasOpen = this.readyState === 1;
      this.readyState = 2;
      const idle = async () => {
        while (this.#sending) await this.#sending.catch(() => {});
      };
      Promise.race([wasOpen ? idle() : null, sleep(LAST_WORDS)]).then(() => {
        this.#leave();
        this.#closed(wasOpen ? code : 1006, reason);
      });
    }

    /** End the session, unless that was done before. One that is left behind would count as a connection of the user. */
    #leave() {
      if (!this.#secret) return;
      const headers = { Authorization: `Bearer ${this.#secret}` };
      this.#secret = "";
      const options = { method: "DELETE", headers, keepalive: true, credentials: this.#credentials };
      root.fetch(new URL("connect", this.#base), options).catch(() => {}); // otherwise the session times out
    }

    #closed(code, reason) {
      if (this.readyState === 3) return;
      this.readyState = 3;
      this.#stop.abort();
      if (code === 1006) this.#leave();
      this.onclose?.({ type: "close", code, reason, wasClean: code !== 1006 });
    }
  }

  function baseOf(url, base) {
    const address = new URL(url);
    address.protocol = address.protocol === "wss:" ? "https:" : "http:";
    return base ? new URL(base, root.location?.href ?? address) : new URL("/", address);
  }

  function bytesOf(base64) {
    return Uint8Array.from(root.atob(base64), (char) => char.charCodeAt(0));
  }

  root[Symbol.for("lhttp-tx HttpSocket 0.1.0")] = HttpSocket; // where lhttp.js finds it
})(globalThis);
