"""A replica of Latchkey, and a client of it."""

import dataclasses
import http.client
import json
import os
import subprocess
import time
import urllib.parse

from cluster import HOST, wait_for

PASSWORD = "correct horse battery"
# Seconds for which reads by cached credentials pass while no database accepts connections. Longer than a failover.
SERVE_STALE = 30
# Seconds for which a request that must succeed is repeated while the database does not answer.
SETTLE = 10


class Replica:
    """A serving process. Leave the context to end it."""

    def __init__(self, name, home, url, port):
        self.name, self.port = name, port
        self._log_file = home / f"{name}.log"
        self._environment = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": url,
            "LATCHKEY__SERVER__LISTEN": f"{HOST}:{port}",
            "LATCHKEY__AUTH__SERVE_STALE_SECONDS": str(SERVE_STALE),
            "LATCHKEY__AUTH__BCRYPT_COST": "10",
            "LATCHKEY__LIMITS__ENABLED": "false",
            "LATCHKEY__LOG__ACCESS_EVERY": "0",
        }
        self.process = None

    def __enter__(self):
        with open(self._log_file, "wb") as log:
            self.process = subprocess.Popen([os.environ["LATCHKEY"], "serve"], env=self._environment, stdout=log,
                                            stderr=log)
        client = Client(self.port)

        def is_ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} has ended")
            return client.send("GET", "/health/ready").status == 200
        wait_for(is_ready, f"{self.name} is not ready")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def create_admin(self, email):
        """Creates an admin on the command line."""
        command = [os.environ["LATCHKEY"], "user", "create", email, "--name", "Augusta", "--role", "admin"]
        password = f"{PASSWORD}\n".encode()
        subprocess.run(command, env=self._environment, input=password, check=True, stdout=subprocess.DEVNULL)

    def log(self):
        """The lines of the log."""
        return self._log_file.read_text(errors="replace").splitlines()


@dataclasses.dataclass
class Answer:
    """The outcome of a request. `status` is 0 if the connection failed."""

    status: int
    body: dict
    sent: float
    received: float
    retry_after: bool = False

    @property
    def is_success(self):
        return 200 <= self.status < 300

    @property
    def is_temporary(self):
        """Whether the response is one that a client may get while the database is down."""
        return (self.status == 503 and self.retry_after) or (self.status == 504 and not self.retry_after)


class Client:
    """A client with one persistent connection."""

    def __init__(self, port):
        self._connection = http.client.HTTPConnection(HOST, port, timeout=10)

    def send(self, method, path, token="", body=None, form=None):
        """Sends a request once, and again only if the persistent connection was closed while it was idle."""
        headers = {"Token": token} if token else {}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body), "application/json"
        if form is not None:
            data, headers["Content-Type"] = urllib.parse.urlencode(form), "application/x-www-form-urlencoded"
        sent = time.monotonic()
        try:
            try:
                return self._exchange(sent, method, path, data, headers)
            except http.client.RemoteDisconnected:
                self._connection.close()
                return self._exchange(sent, method, path, data, headers)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Answer(0, {"error": repr(error)}, sent, time.monotonic())

    def _exchange(self, sent, method, path, data, headers):
        self._connection.request(method, path, data, headers)
        response = self._connection.getresponse()
        text = response.read()
        body = json.loads(text) if text and "json" in response.headers.get("Content-Type", "") else {}
        return Answer(response.status, body, sent, time.monotonic(), "Retry-After" in response.headers)

    def settled(self, *arguments, **named):
        """Sends a request, and again while it was not carried out (503), for up to SETTLE seconds."""
        end = time.monotonic() + SETTLE
        while True:
            answer = self.send(*arguments, **named)
            if answer.status != 503 or time.monotonic() > end:
                return answer
            time.sleep(0.1)

    def must(self, *arguments, **named):
        """Sends a request that must succeed, at the latest when the database answers."""
        answer = self.settled(*arguments, **named)
        if not answer.is_success:
            raise RuntimeError(f"{arguments[:2]}: {answer}")
        return answer.body

    def sign_in(self, email):
        """Signs a user in. Returns the response."""
        return self.send("POST", "/token", form={"grant_type": "password", "username": email, "password": PASSWORD})

    def new_user(self, email):
        """Registers a user and returns the user's token."""
        user = {"name": "Augusta", "surname": "Ada", "email": email, "website": "", "password": PASSWORD}
        self.must("POST", "/register", body=user)
        return self.new_token(email)

    def new_token(self, email):
        """Signs a user in, which must succeed, and returns the token."""
        form = {"grant_type": "password", "username": email, "password": PASSWORD}
        return self.must("POST", "/token", form=form)["access_token"]
