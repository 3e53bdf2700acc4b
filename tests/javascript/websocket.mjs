// A WebSocket without a server: the test opens it, answers on it and ends it.

/** All that were made, in order; a test empties it first. */
export const sockets = [];

export class FakeWebSocket {
  readyState = 0;
  bufferedAmount = 0;
  sent = [];
  closed = null;

  constructor(...args) {
    this.args = args;
    sockets.push(this);
  }

  send(data) {
    this.sent.push(data);
  }

  close(...args) {
    this.readyState = 2;
    this.closed = args;
  }

  open() {
    this.readyState = 1;
    this.onopen({});
  }

  end(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  get token() {
    return /receipt:(.*)\r\n/.exec(this.sent.at(-1))[1];
  }

  answer(token = this.token) {
    this.onmessage({ data: `LHTTP/1.0 receipt\r\nreceipt-id:${token}\r\n\r\n` });
  }

  fail(status, token = this.token) {
    this.onmessage({ data: `LHTTP/1.0 error\r\nstatus:${status}\r\nreason:why\r\nreceipt-id:${token}\r\n\r\n` });
  }
}
