"""
Login with tokens: a small web backend with users, and a page that sends its tokens to the LHTTP server.

Both programs share a secret. Start them in the same directory::

    (umask 077; openssl rand -hex 32 > secret)
    python examples/token_login/backend.py 8000 secret 8081
    twistd -n lhttp --port 8081 --jwt-key-file secret --jwt-audience chat --login-timeout 10

Open http://127.0.0.1:8000/ and log in as ``alice`` with the password ``sesame``, or as ``bob`` with ``marmalade``.
The backend remembers the browser with a cookie and makes a new token whenever the page asks for one. The JavaScript
client sends it to the LHTTP server on each connection, and another one before it expires.
"""

import hashlib
import hmac
import json
import secrets
import sys
import time
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt

LIFETIME = 180
"""
Seconds for which a token is valid. A user who is locked out of the backend leaves the chat after this time at the
latest.

Browsers delay the timers of hidden pages for up to a minute. Half of the lifetime should be longer than that.
"""

MAX_SIZE = 4_096
MAX_SESSIONS = 10_000


def digest(password: str, salt: bytes) -> bytes:
    """Return the digest of a password, which the backend stores."""
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


SALT = secrets.token_bytes(16)
USERS = {name: digest(password, SALT) for name, password in (("alice", "sesame"), ("bob", "marmalade"))}


class Backend(BaseHTTPRequestHandler):
    """Answers ``GET /``, ``POST /login``, ``POST /logout`` and ``GET /token``."""

    protocol_version = "HTTP/1.1"
    secret: bytes
    page: bytes
    sessions: dict[str, str] = {}  # noqa: RUF012 - shared by all requests, as it should be

    def do_GET(self) -> None:
        """Return the page, or a token for the user of this browser."""
        if self.path == "/":
            self._answer(200, self.page, "text/html; charset=utf-8")
            return
        user = self.sessions.get(self._session())
        if self.path != "/token":
            self._answer(404, b"there is no such page\n")
        elif user is None:
            self._answer(401, b"log in first\n")
        else:
            claims = {"sub": user, "aud": "chat", "exp": int(time.time()) + LIFETIME}
            token = jwt.encode(claims, self.secret, algorithm="HS256")
            self._answer(200, json.dumps({"token": token}).encode(), "application/json")

    def do_POST(self) -> None:
        """Let a user in or out."""
        size = int(self.headers.get("Content-Length", "0"))
        if size > MAX_SIZE or self.headers.get("Content-Type") != "application/json":  # other sites cannot send JSON
            self.close_connection = True
            self._answer(400, b"send JSON\n")
            return
        content = json.loads(self.rfile.read(size))
        if self.path == "/logout":
            self.sessions.pop(self._session(), None)
            self._answer(200, b"")
            return
        user, password = str(content.get("user")), str(content.get("password"))
        if not hmac.compare_digest(USERS.get(user, b""), digest(password, SALT)):
            self._answer(403, b"wrong user or password\n")
            return
        if len(self.sessions) >= MAX_SESSIONS:
            self.sessions.clear()
        session = secrets.token_urlsafe()
        self.sessions[session] = user
        self._answer(200, b"", cookie=f"session={session}; HttpOnly; SameSite=Strict; Path=/")

    def _session(self) -> str:
        found = SimpleCookie(self.headers.get("Cookie", "")).get("session")
        return found.value if found else ""

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8", cookie: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: backend.py PORT SECRET-FILE PORT-OF-THE-LHTTP-SERVER")
    Backend.secret = Path(sys.argv[2]).read_bytes().strip()
    Backend.page = Path(__file__).with_name("index.html").read_bytes().replace(b"8081", sys.argv[3].encode())
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Backend).serve_forever()
