"""The commands, settings and code of docs/guard-your-api.md, and the page of the FastAPI example in a browser."""

import gzip
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from conftest import LATCHKEY, PASSWORD, Latchkey, end, free_port, wait_for
from test_examples import EXAMPLES, ROOT, SCOPE, SERVICES, Service, Stub
from test_proxies import Client

TEXT = (ROOT / "docs/guard-your-api.md").read_text()
BLOCKS = {}
for section in re.split("^## ", TEXT, flags=re.MULTILINE):
    for indent, language, code in re.findall(r"^( *)```(\w+)\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL):
        code = re.sub(f"^{indent}", "", code, flags=re.MULTILINE)
        BLOCKS.setdefault((section.splitlines()[0], language), []).append(code)
QUICK_START = "Quick start with FastAPI"
HOST = "notes.example.com"


@pytest.fixture
def started(tmp_path):
    """Starts a server with these settings, and stops it after the test."""
    servers = []

    def start(settings):
        servers.append(Latchkey(f"sqlite://{tmp_path}/latchkey.db", "fastapi", tmp_path, settings))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def shell(commands, latchkey, port=None, **variables):
    """Runs commands of the page with these ports, and returns their output."""
    commands = commands.replace("127.0.0.1:8080", f"127.0.0.1:{latchkey.port}").replace("127.0.0.1:8001", f"127.0.0.1:{port}")
    environment = {**latchkey.environment, **variables, "PATH": f"{Path(LATCHKEY).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=latchkey.folder, env=environment, text=True, capture_output=True, check=False, timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def issued(latchkey, scope):
    """The secret that the last line of `latchkey key issue` shows."""
    return latchkey.command("key", "issue", "ada@example.org", "--name", "test", "--scope", scope).splitlines()[-1]


def test_every_block_is_tested():
    assert {key: len(code) for key, code in BLOCKS.items()} == {
        ("# Guard your API", "python"): 1,
        (QUICK_START, "toml"): 1,
        # The second one starts the service: the fixture `service` does the same.
        (QUICK_START, "sh"): 5,
        ("Introspection", "sh"): 2,
        ("CORS preflights", "python"): 1,
        ("Latchkey with rules", "toml"): 1,
    }
    assert BLOCKS["# Guard your API", "python"][0] in (EXAMPLES / "fastapi/main.py").read_text()
    assert BLOCKS[QUICK_START, "sh"][0] == "latchkey --config latchkey.toml\n"
    assert ".venv/bin/uvicorn main:app --port 8001\n" in BLOCKS[QUICK_START, "sh"][1]


def test_the_introspection_of_a_key_by_a_service(started):
    latchkey = started("")
    create, introspect = BLOCKS["Introspection", "sh"]
    service = shell(create, latchkey).splitlines()[-1]
    key = issued(latchkey, SCOPE)
    response = shell(introspect, latchkey, SERVICE=service, KEY=key)
    assert response.startswith("HTTP/1.1 200 ")
    body = json.loads(response.splitlines()[-1])
    assert (body["active"], body["scope"]) == (True, SCOPE)
    assert shell(introspect, latchkey, SERVICE=service, KEY="unknown").endswith('{"active":false}')
    refused = shell(introspect, latchkey, SERVICE=key, KEY=key)
    assert refused.startswith("HTTP/1.1 401 ") and '"error":"invalid_client"' in refused


def test_a_preflight_is_answered_without_latchkey(tmp_path, monkeypatch):
    def with_cors(folder, port, latchkey):
        command = fastapi(folder, port, latchkey)
        with (folder / "main.py").open("a") as code:
            code.write(BLOCKS["CORS preflights", "python"][0])
        return command

    fastapi = SERVICES["fastapi"]
    monkeypatch.setitem(SERVICES, "fastapi", with_cors)
    stub = Stub()
    stub.answer(403)
    service = Service("fastapi", tmp_path, stub.address)
    try:
        url, origin = f"http://127.0.0.1:{service.port}/notes", "https://app.example.com"
        asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        for header in ["Token", "Authorization"]:
            preflight = requests.options(url, headers={**asked, "Access-Control-Request-Headers": header.lower()}, timeout=10)
            assert (preflight.status_code, preflight.headers["Access-Control-Allow-Origin"]) == (200, origin)
            assert header in preflight.headers["Access-Control-Allow-Headers"]
        assert stub.seen == []
        # The page can read the refusal, too.
        refused = requests.get(url, headers={"Origin": origin}, timeout=10)
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (403, origin)
    finally:
        end(service.process)
        stub.stop()


def test_a_service_describes_its_request_if_latchkey_has_rules(started):
    latchkey = started('[http]\ntrusted_proxies = ["127.0.0.1"]\n' + BLOCKS["Latchkey with rules", "toml"][0])
    described = {"X-Original-Method": "GET", "X-Original-URI": "/notes?page=1", "X-Original-Host": HOST}
    for scope, headers, expected in [
        (SCOPE, described, 200),
        ("other:read", described, "insufficient_scope"),
        (SCOPE, {}, "missing_original_request"),
        (SCOPE, {**described, "X-Original-Host": "other.example.com"}, "no_rule"),
    ]:
        headers = {**headers, "Token": issued(latchkey, scope)}
        answer = requests.get(f"{latchkey.url}/authz", params={"scope": SCOPE}, headers=headers, timeout=10)
        assert expected in (answer.status_code, answer.text and answer.json()["code"]), answer.text


@pytest.fixture
def quick_start(started, tmp_path):
    """Latchkey and the service as after step 3 of the quick start, on other ports."""
    port = free_port()
    settings = BLOCKS[QUICK_START, "toml"][0]
    assert settings.count("127.0.0.1:8001") == 1
    latchkey = started(settings.replace(":8001", f":{port}"))
    (tmp_path / "service").mkdir()
    service = Service("fastapi", tmp_path / "service", f"127.0.0.1:{latchkey.port}", port)
    yield latchkey, service
    end(service.process)


def test_the_commands_of_the_quick_start(quick_start):
    latchkey, service = quick_start
    output = shell(BLOCKS[QUICK_START, "sh"][2], latchkey, service.port)
    assert re.findall(r"HTTP/1.1 (\d+)", output) == ["200", "403"]
    assert '{"user":"2","notes":["Buy milk"]}' in output
    issue, revoke = BLOCKS[QUICK_START, "sh"][3:]
    output = shell(issue + revoke, latchkey, service.port)
    assert output.startswith("HTTP/1.1 200 ") and '{"user":null,"notes":["Buy milk"]}' in output
    assert "\nHTTP/1.1 403 " in output and 'error="invalid_token"' in output


@contextmanager
def cdn(folder):
    """Serves the files of Swagger UI, which FastAPI's page loads from a CDN. Yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            file = ROOT / "assets/swagger-ui" / (self.path.rsplit("/", 1)[-1] + ".gz")
            body = gzip.decompress(file.read_bytes()) if file.is_file() else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/css" if self.path.endswith(".css") else "text/javascript")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=cdn", "-days", "2"]
        + ["-keyout", folder / "key.pem", "-out", folder / "certificate.pem"],
        check=True, capture_output=True, timeout=60,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Browser:
    """Chromium, driven with the WebDriver protocol."""

    def __init__(self, folder, *arguments):
        port = free_port()
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(port, self.driver)
        self.session = f"http://127.0.0.1:{port}/session"
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1400,2000",
            f"--user-data-dir={folder}", *arguments,
        ]
        capabilities = {"alwaysMatch": {"goog:chromeOptions": {"args": options}}}
        self.session += "/" + self.send("", capabilities=capabilities)["sessionId"]

    def send(self, command, **body):
        """Sends a command and returns its result."""
        answer = requests.post(self.session + command, json=body, timeout=60).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(answer["message"])
        return answer

    def when_ready(self, css, action, **body):
        """Sends a command about an element as soon as the element accepts it, within 20 seconds."""
        deadline = time.monotonic() + 20
        while True:
            try:
                [element] = self.send("/element", using="css selector", value=css).values()
                return self.send(f"/element/{element}/{action}", **body)
            except RuntimeError as error:
                assert time.monotonic() < deadline, f"{css}: {error}\n{self.text()}"
                time.sleep(0.1)

    def click(self, css):
        self.when_ready(css, "click")

    def fill(self, css, text):
        self.when_ready(css, "value", text=text)

    def text(self, css="body"):
        """Returns the text of the first such element, or an empty text."""
        script = "return document.querySelector(arguments[0])?.innerText ?? ''"
        return self.send("/execute/sync", script=script, args=[css])

    def close(self):
        requests.delete(self.session, timeout=60)
        end(self.driver)


def test_the_page_of_the_fastapi_example_signs_in_at_latchkey(quick_start, tmp_path):
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        assert os.environ.get("REQUIRE_BROWSER") != "1", "chromium or chromedriver is not installed"
        pytest.skip("chromium or chromedriver is not installed")
    _, service = quick_start
    operation = "[id^='operations-default-notes']"
    with cdn(tmp_path) as address:
        hosts = f"MAP cdn.jsdelivr.net:443 {address}, MAP fastapi.tiangolo.com:443 {address}"
        browser = Browser(tmp_path / "browser", f"--host-resolver-rules={hosts}", "--ignore-certificate-errors")
        try:
            browser.send("/url", url=f"http://127.0.0.1:{service.port}/docs")
            browser.click(f"{operation} .authorization__btn")
            browser.fill("#oauth_username", "grace@example.org")
            browser.fill("#oauth_password", PASSWORD)
            browser.click(".auth-container:has(#oauth_username) .authorize")
            browser.click(".auth-container:has(button[aria-label='Remove authorization']) .btn-done")
            browser.click(f"{operation} .opblock-summary-control")
            browser.click(f"{operation} .try-out__btn")
            browser.click(f"{operation} .execute")
            answer = f"{operation} .live-responses-table .response"
            deadline = time.monotonic() + 20
            while not (shown := browser.text(f"{answer} .response-col_status")):
                assert time.monotonic() < deadline, browser.text()
                time.sleep(0.1)
            assert (shown.strip(), '"user": "2"' in browser.text(answer)) == ("200", True), browser.text()
        finally:
            browser.close()


def test_the_page_declares_the_sign_in_of_latchkey(tmp_path):
    stub = Stub()
    service = Service("fastapi", tmp_path, stub.address)
    try:
        document = requests.get(f"http://127.0.0.1:{service.port}/openapi.json", timeout=10).json()
        schemes = document["components"]["securitySchemes"]
        assert schemes["OAuth2PasswordBearer"]["flows"]["password"]["tokenUrl"] == f"http://{stub.address}/token"
        assert schemes["APIKeyHeader"] == {"type": "apiKey", "in": "header", "name": "Token"}
        assert document["paths"]["/notes"]["get"]["security"] == [{"OAuth2PasswordBearer": []}, {"APIKeyHeader": []}]
    finally:
        end(service.process)
        stub.stop()
