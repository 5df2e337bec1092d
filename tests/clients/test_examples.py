"""The services of examples/, as they stand, between a client and Latchkey."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from conftest import LATCHKEY, TOOLS, Latchkey, empty_database, end, free_port, wait_for
from test_proxies import BAD_TOKEN, CHALLENGE, UNAUTHENTICATED, Client, nginx

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BAD_TOKENS = 5
SETTINGS = f"""
[http]
trusted_proxies = ["127.0.0.1"]

[limits.invalid_tokens]
burst = {BAD_TOKENS}
per_hour = 60
"""
# The longest time in seconds that a service may wait for Latchkey: its own limit is 2.
MAX_WAIT = 5
SCOPE = "notes:read"


def copied(name, folder):
    """Copies an example without changes, so that nothing is written beside the sources."""
    shutil.copytree(EXAMPLES / name, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    return folder


def fastapi(folder, port, latchkey):
    copied("fastapi", folder)
    return [sys.executable, "-m", "uvicorn", "main:app", "--port", str(port), "--log-level", "warning"]


def express(folder, port, latchkey):
    (copied("express", folder) / "node_modules").symlink_to(TOOLS / "node_modules")
    return ["node", "main.js"]


def go(folder, port, latchkey):
    copied("go", folder)
    environment = {"HOME": str(folder), **os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GOPROXY": "off"}
    subprocess.run(["go", "build", "-o", "notes", "."], cwd=folder, env=environment, check=True, timeout=300)
    return [folder / "notes"]


def actix(folder, port, latchkey):
    return [Path(LATCHKEY).parent / "notes"]


def static_site(folder, port, latchkey):
    text = (copied("nginx", folder) / "notes.conf").read_text()
    for written, here in [("127.0.0.1:8080", latchkey), ("127.0.0.1:8005", f"127.0.0.1:{port}"), ("/srv/notes", f"{folder}/site")]:
        assert text.count(written) == 1, written
        text = text.replace(written, here)
    (folder / "nginx.conf").write_text(text)
    return nginx(folder)


SERVICES = {"fastapi": fastapi, "express": express, "go": go, "actix": actix, "nginx": static_site}


class Service:
    """A running example, which asks the server at this address."""

    def __init__(self, name, folder, latchkey, port=None):
        self.name, self.port = name, port or free_port()
        environment = {
            # Debian installs servers in /usr/sbin, which is not in every user's PATH.
            "PATH": os.environ["PATH"] + ":/usr/sbin",
            "LATCHKEY_URL": f"http://{latchkey}",
            "PORT": str(self.port),
        }
        self.process = subprocess.Popen(SERVICES[name](folder, self.port, latchkey), env=environment, cwd=folder)
        wait_for(self.port, self.process)

    def passes(self, client, *headers):
        """Sends a request that must pass, and returns the body."""
        answer = client.ask("GET", "/notes", *headers)
        assert answer.status == 200, answer
        body = json.loads(answer.body)
        assert body["notes"] == ["Buy milk"]
        return body

    def rejects(self, client, *headers, method="GET"):
        """Sends a request that must not pass, and returns the response."""
        answer = client.ask(method, "/notes", *headers)
        assert answer.status >= 400 and b"milk" not in answer.body, answer
        return answer


@pytest.fixture(scope="module", params=["fastapi", "rfc"])
def latchkey(request, tmp_path_factory):
    """A server for all tests of this file, in both status profiles."""
    folder = tmp_path_factory.mktemp("latchkey")
    with empty_database("sqlite", folder) as database_url:
        server = Latchkey(database_url, request.param, folder, SETTINGS)
        server.profile = request.param
        yield server
        server.stop()


@pytest.fixture(scope="module", params=SERVICES)
def service(request, latchkey, tmp_path_factory):
    """Each example with Latchkey."""
    service = Service(request.param, tmp_path_factory.mktemp(request.param), f"127.0.0.1:{latchkey.port}")
    yield service
    end(service.process)


def issue(latchkey, *scopes):
    """Issues a key on the account of Ada."""
    scopes = [f"--scope={scope}" for scope in scopes]
    return json.loads(latchkey.command("key", "issue", "ada@example.org", "--json", "--name", "reader", *scopes))


def test_a_key_with_the_scope_passes(service, latchkey):
    key, client = issue(latchkey, SCOPE, "other:write")["key"], Client(service.port)
    for credential in [("Token", key), ("token", key), ("Authorization", f"Bearer {key}"), ("Authorization", f"bearer {key}")]:
        service.passes(client, credential)


def test_an_unauthenticated_request_is_rejected_as_by_latchkey(service, latchkey):
    client, unauthenticated = Client(service.port), UNAUTHENTICATED[latchkey.profile]
    for headers, status, error in [
        ((), unauthenticated, ""),
        ([("Token", BAD_TOKEN)], unauthenticated, ', error="invalid_token"'),
        ([("Authorization", f"Bearer {BAD_TOKEN}")], 401, ', error="invalid_token"'),
        ([("Token", BAD_TOKEN), ("Authorization", "Bearer another")], 400, ', error="invalid_request"'),
    ]:
        answer = service.rejects(client, ("Remote-User", "1"), ("Remote-Scopes", SCOPE), *headers)
        assert (answer.status, answer.headers.get_all("WWW-Authenticate")) == (status, [CHALLENGE + error])
        assert "Retry-After" not in answer.headers


def test_a_credential_without_the_scope_is_rejected(service, latchkey):
    client = Client(service.port)
    for key in [issue(latchkey, "notes:write")["key"], issue(latchkey)["key"], latchkey.key("pages:read")["key"]]:
        answer = service.rejects(client, ("Token", key), ("Remote-Scopes", SCOPE))
        challenge = f'{CHALLENGE}, error="insufficient_scope", scope="{SCOPE}"'
        assert (answer.status, answer.headers.get_all("WWW-Authenticate")) == (403, [challenge])


def test_a_key_that_another_process_revoked_a_second_ago_is_rejected(service, latchkey):
    key, client = issue(latchkey, SCOPE), Client(service.port)
    service.passes(client, ("Token", key["key"]))
    latchkey.command("key", "revoke", str(key["id"]))
    time.sleep(1)
    assert service.rejects(client, ("Token", key["key"])).status == UNAUTHENTICATED[latchkey.profile]


def test_limits_apply_to_each_client(service, latchkey):
    key, client = issue(latchkey, SCOPE)["key"], Client(service.port)
    for count in range(BAD_TOKENS):
        forged = ("X-Forwarded-For", f"192.0.2.{count}")
        assert service.rejects(client, ("Authorization", f"Bearer {BAD_TOKEN}"), forged).status == 401
    answer = service.rejects(client, ("Authorization", f"Bearer {BAD_TOKEN}"), ("X-Forwarded-For", "192.0.2.9"))
    assert (answer.status, 0 < int(answer.headers["Retry-After"]) <= 60) == (429, True)
    other = Client(service.port)
    assert service.rejects(other, ("Authorization", f"Bearer {BAD_TOKEN}")).status == 401
    service.passes(client, ("Token", key))


def test_no_request_passes_while_latchkey_is_down(service, latchkey):
    key, client = issue(latchkey, SCOPE)["key"], Client(service.port)
    service.passes(client, ("Token", key))
    latchkey.stop()
    try:
        for headers in [(), [("Token", key)], [("Token", key), ("Remote-User", "1")]]:
            started = time.monotonic()
            answer = service.rejects(client, *headers)
            assert (answer.status, answer.headers.get_all("Retry-After")) == (503, ["1"])
            assert time.monotonic() - started < MAX_WAIT
    finally:
        latchkey.start()
    service.passes(client, ("Token", key))


class Stub:
    """A server in the place of Latchkey, which gives every request the same response, and records them."""

    def __init__(self):
        self.seen, self.connections = [], 0
        self.answer(200)
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                stub.connections += 1

            def answer(self):
                stub.seen.append((self.path, self.headers.items()))
                status, headers, delay = stub.response
                # Ends early when the test ends.
                stub.ended.wait(delay)
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                # Latchkey describes a refusal in the body.
                body = b"" if status == 200 else b'{"detail": "refused"}'
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_GET = do_HEAD = answer

            def log_message(self, *_):
                pass

        self.ended = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, status, *headers, delay=0):
        """Sets the response, and forgets the requests."""
        self.response = (status, headers, delay)
        self.seen.clear()

    def stop(self):
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module", params=SERVICES)
def stubbed(request, tmp_path_factory):
    """Each example with a stub in the place of Latchkey."""
    stub = Stub()
    service = Service(request.param, tmp_path_factory.mktemp(request.param), stub.address)
    service.stub = stub
    yield service
    end(service.process)
    stub.stop()


def test_busy_answers_are_passed_on(stubbed):
    client = Client(stubbed.port)
    for status, seconds in [(429, "30"), (503, "7")]:
        stubbed.stub.answer(status, ("Retry-After", seconds))
        answer = stubbed.rejects(client, ("Token", "x"))
        assert (answer.status, answer.headers.get_all("Retry-After")) == (status, [seconds])


def test_a_slow_answer_is_not_awaited(stubbed):
    stubbed.stub.answer(200, delay=3 * MAX_WAIT)
    started = time.monotonic()
    answer = stubbed.rejects(Client(stubbed.port), ("Token", "x"))
    assert (answer.status, answer.headers.get_all("Retry-After")) == (503, ["1"])
    assert time.monotonic() - started < MAX_WAIT


def test_an_unexpected_answer_never_passes(stubbed):
    client = Client(stubbed.port)
    for status, headers in [
        (302, [("Location", f"http://{stubbed.stub.address}/elsewhere")]),
        (404, []),
        (422, []),
        (500, []),
    ]:
        stubbed.stub.answer(status, *headers)
        answer = stubbed.rejects(client, ("Token", "x"))
        assert answer.status == 500
        assert [unquote(path) for path, _ in stubbed.stub.seen] == [f"/authz?scope={SCOPE}"]


def test_latchkey_gets_the_credential_and_the_address_of_the_client_and_nothing_else(stubbed):
    client = Client(stubbed.port)
    stubbed.stub.answer(200)
    stubbed.passes(
        client,
        ("Token", "a"),
        ("Authorization", "Bearer b"),
        ("X-Request-Id", "c"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Original-URI", "/public"),
        ("Remote-User", "1"),
        ("Cookie", "secret=1"),
        ("User-Agent", "secret"),
        ("X-Secret", "1"),
    )
    [(path, headers)] = stubbed.stub.seen
    assert unquote(path) == f"/authz?scope={SCOPE}"
    own = {"host", "accept", "accept-encoding", "accept-language", "connection", "sec-fetch-mode", "user-agent"}
    sent = sorted((name.lower(), value) for name, value in headers if name.lower() not in own)
    request_id = dict(sent)["x-request-id"]
    assert sent == [("authorization", "Bearer b"), ("token", "a"), ("x-forwarded-for", client.address), ("x-request-id", request_id)]
    # nginx gives each request an id of its own.
    assert stubbed.name == "nginx" or request_id == "c"
    assert "secret" not in str(headers)


# A static site does not use the identity.
@pytest.mark.parametrize("stubbed", [name for name in SERVICES if name != "nginx"], indirect=True)
def test_the_identity_comes_from_latchkey_and_not_from_the_client(stubbed):
    client = Client(stubbed.port)
    stubbed.stub.answer(200, ("Remote-User", "7"))
    assert stubbed.passes(client, ("Token", "x"), ("Remote-User", "1"))["user"] == "7"
    stubbed.stub.answer(200)
    assert not stubbed.passes(client, ("Token", "x"), ("Remote-User", "1"))["user"]


# Only files have a time of modification, from which caches derive a lifetime.
@pytest.mark.parametrize("stubbed", ["nginx"], indirect=True)
def test_guarded_files_are_not_shared_by_caches(stubbed):
    stubbed.stub.answer(200)
    answer = Client(stubbed.port).ask("GET", "/notes", ("Token", "x"))
    assert answer.headers.get_all("Cache-Control") == ["private, no-cache"]
    stubbed.stub.answer(403)
    validators = [("If-None-Match", answer.headers["ETag"]), ("If-Modified-Since", answer.headers["Last-Modified"])]
    assert stubbed.rejects(Client(stubbed.port), *validators).status == 403


def test_malformed_credentials_and_other_methods_never_pass_and_do_no_harm(stubbed):
    stubbed.stub.answer(403, ("WWW-Authenticate", CHALLENGE))
    for headers in [
        [("Token", b"caf\xe9\xff")],
        [("Token", "a" * 6000)],
        [("Token", "a"), ("Token", "b")],
        [("Token", "")],
        [("Token", "a\tb")],
        [("Authorization", "")],
        [("X-Request-Id", b"\xff")],
    ]:
        assert stubbed.rejects(Client(stubbed.port), *headers).status in (400, 403, 503), headers
    for method in ["HEAD", "OPTIONS", "POST", "PUT", "DELETE", "get"]:
        answer = Client(stubbed.port).ask(method, "/notes")
        assert b"milk" not in answer.body, method
    stubbed.stub.answer(200)
    stubbed.passes(Client(stubbed.port), ("Token", "x"))


@pytest.mark.parametrize("status", [200, 403])
def test_connections_to_latchkey_are_used_again(stubbed, status):
    stubbed.stub.answer(status)
    client = Client(stubbed.port)
    client.ask("GET", "/notes", ("Token", "x"))
    before = stubbed.stub.connections
    for _ in range(20):
        assert client.ask("GET", "/notes", ("Token", "x")).status == status
    assert stubbed.stub.connections - before <= 1


def test_the_manifest_for_npm_names_the_tested_version():
    tested, copied = (json.loads((folder / "package.json").read_text()) for folder in [ROOT / "tests/clients", EXAMPLES / "express"])
    assert copied["dependencies"] == {"express": tested["dependencies"]["express"]}
