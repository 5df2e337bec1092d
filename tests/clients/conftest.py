"""Fixtures that start Latchkey as a process, on either database."""

import os
import secrets
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import requests

LATCHKEY = os.environ["LATCHKEY"]
TOOLS = Path(os.environ["CLIENT_TOOLS"])
PASSWORD = "correct horse battery"
LEVELS = Path(__file__).parents[2] / "docs/levels.md"


def free_port():
    """Returns a port that is free on all addresses, and likely to stay free for a moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    """Waits until the process listens on the port. Fails if it ends before."""
    for _ in range(200):
        assert process.poll() is None, f"{process.args} has ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"{process.args} does not listen on {port}")


def end(process):
    """Stops a process with SIGTERM."""
    process.send_signal(signal.SIGTERM)
    process.wait(15)


def scopes_of(role):
    """The scopes of a role, as docs/levels.md lists them."""
    text = LEVELS.read_text()
    table = text[text.index("| Scope |"):].split("\n\n")[0]
    header, _, *rows = [[cell.strip().strip("`") for cell in line.split("|")] for line in table.splitlines()]
    return {row[1] for row in rows if row[header.index(role)] == "yes"}



class Latchkey:
    """A running server with an admin, Ada, and a member, Grace."""

    def __init__(self, database_url, profile, folder, settings):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": database_url,
            "LATCHKEY__SERVER__LISTEN": f"127.0.0.1:{self.port}",
            "LATCHKEY__SERVER__SHUTDOWN_DELAY": "0",
            "LATCHKEY__HTTP__PUBLIC_URL": self.url,
            "LATCHKEY__HTTP__STATUS_CODES": profile,
            # The minimum, to save time.
            "LATCHKEY__AUTH__BCRYPT_COST": "10",
            "RUST_LOG": "warn",
        }
        self.folder = folder
        if settings:
            (folder / "latchkey.toml").write_text(settings)
            self.environment["LATCHKEY_CONFIG"] = str(folder / "latchkey.toml")
        self.command("migrate", "up")
        for email, name, role in [
            ("ada@example.org", "Augusta", "admin"),
            ("grace@example.org", "Grace", "member"),
        ]:
            self.command("user", "create", email, "--name", name, "--role", role, stdin=PASSWORD + "\n")
        self.start()

    def command(self, *arguments, stdin=""):
        """Runs a command of the program and returns its output."""
        done = subprocess.run(
            [LATCHKEY, *arguments],
            input=stdin, env=self.environment, cwd=self.folder, text=True, capture_output=True, check=False, timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self):
        self.process = subprocess.Popen([LATCHKEY], env=self.environment, cwd=self.folder)
        wait_for(self.port, self.process)

    def stop(self):
        end(self.process)

    def sign_in(self, email="grace@example.org", **form):
        """Returns a new token, which replaces the previous one."""
        form = {"grant_type": "password", "username": email, "password": PASSWORD, **form}
        answer = requests.post(f"{self.url}/token", data=form, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    def key(self, *scopes, email="grace@example.org", **more):
        """Creates an API key of a user and returns the response."""
        response = requests.post(
            f"{self.url}/me/keys",
            json={"name": "test", "scopes": list(scopes), **more},
            headers={"Token": self.sign_in(email)},
            timeout=10,
        )
        assert response.status_code == 201, response.text
        return response.json()


@contextmanager
def empty_database(kind, folder):
    """Creates a separate database and yields its URL."""
    if kind == "sqlite":
        yield f"sqlite://{folder}/latchkey.db"
        return
    server = os.environ["TEST_POSTGRES_URL"]
    name = f"clients_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as postgres:
        postgres.execute(f"CREATE DATABASE {name}")
        try:
            yield server.replace("/postgres?", f"/{name}?")
        finally:
            postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request, tmp_path):
    """The URL of a separate empty database."""
    with empty_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture(params=["fastapi", "rfc"])
def profile(request):
    """The status profile."""
    return request.param


@pytest.fixture
def start(database_url, profile, tmp_path):
    """Starts a server with settings in TOML. It is stopped after the test."""
    started = []

    def started_with(settings=""):
        server = Latchkey(database_url, profile, tmp_path, settings)
        started.append(server)
        return server

    yield started_with
    for server in started:
        server.stop()


@pytest.fixture
def latchkey(start):
    """A server with the default settings."""
    return start()
