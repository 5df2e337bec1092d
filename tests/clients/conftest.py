"""The program as a client meets it: a process, a socket, and either database."""

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


def free_port():
    """A port that is free on every address, and likely to be so a moment later."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    """Until somebody listens, or the process has ended."""
    for _ in range(200):
        assert process.poll() is None, f"{process.args} has ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"{process.args} does not listen on {port}")


def end(process):
    """As an operator would."""
    process.send_signal(signal.SIGTERM)
    process.wait(15)


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
            # The least that is allowed: no test here is about the time of a hash.
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
        """One of the program's other commands; what it prints."""
        done = subprocess.run(
            [LATCHKEY, *arguments],
            input=stdin, env=self.environment, cwd=self.folder, text=True, capture_output=True, check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self):
        self.process = subprocess.Popen([LATCHKEY], env=self.environment, cwd=self.folder)
        wait_for(self.port, self.process)

    def stop(self):
        end(self.process)

    def sign_in(self, email="grace@example.org", **form):
        """A new token, which ends the one before."""
        form = {"grant_type": "password", "username": email, "password": PASSWORD, **form}
        answer = requests.post(f"{self.url}/token", data=form, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    def key(self, *scopes, email="grace@example.org", **more):
        """An API key of a user, with its id."""
        made = requests.post(
            f"{self.url}/me/keys",
            json={"name": "test", "scopes": list(scopes), **more},
            headers={"Token": self.sign_in(email)},
            timeout=10,
        )
        assert made.status_code == 201, made.text
        return made.json()


@contextmanager
def empty_database(kind, folder):
    """The address of one that nobody else has."""
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
    """An empty database that nobody else has."""
    with empty_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture(params=["fastapi", "rfc"])
def profile(request):
    """The status profile."""
    return request.param


@pytest.fixture
def start(database_url, profile, tmp_path):
    """Starts a server with settings in TOML; it ends with the test."""
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
