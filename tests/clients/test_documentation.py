"""Runs the code blocks of docs/clients.md."""

import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import LATCHKEY, TOOLS, end

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs/clients.md").read_text()
BLOCKS = {}
for section in re.split("^## ", TEXT, flags=re.MULTILINE):
    for language, code in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        BLOCKS.setdefault((section.splitlines()[0], language), []).append(code)


def block(heading, language, number, latchkey):
    """Returns a block of code with the URL of this server."""
    code = BLOCKS[heading, language][number]
    assert "http://127.0.0.1:8080" in code
    return code.replace("http://127.0.0.1:8080", latchkey.url)


def output_of(command, folder, **environment):
    """Runs a program that must succeed, and returns its output."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, text=True, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_created_and_revoked(latchkey, count):
    """Checks that this number of keys was created, and that all of them were revoked."""
    trail = [json.loads(line) for line in latchkey.command("audit", "list", "--json", "--limit", "100").splitlines()]
    actions = [entry["action"] for entry in trail]
    assert (actions.count("key.create"), actions.count("key.revoke")) == (count, count), actions


def test_every_block_is_tested():
    assert {key: len(code) for key, code in BLOCKS.items()} == {
        ("curl", "sh"): 1,
        ("Python", "python"): 2,
        ("Python", "sh"): 1,
        ("TypeScript", "sh"): 2,
        ("TypeScript", "ts"): 1,
        ("Rust", "rust"): 1,
        # In test_openapi_generator.py.
        ("openapi-generator: TypeScript, Go, Java and others", "sh"): 1,
        ("A web page", "js"): 1,
    }


def test_curl(latchkey, tmp_path):
    output = output_of(["bash", "-euc", block("curl", "sh", 0, latchkey)], tmp_path)
    assert re.findall(r"HTTP/1.1 (\d+)", output) == ["200", "200", "200", "401"]
    assert '{"hello":"Grace"}' in output
    assert_created_and_revoked(latchkey, 1)


def test_python(latchkey, profile, tmp_path):
    hello, pages, refused = output_of([sys.executable, "-c", block("Python", "python", 0, latchkey)], tmp_path).splitlines()
    assert hello == "{'hello': 'Grace'}"
    assert "'size': 10" in pages
    assert refused == {"fastapi": "403 invalid_token", "rfc": "401 invalid_token"}[profile]
    assert_created_and_revoked(latchkey, 1)


def test_requests_oauthlib(latchkey, tmp_path):
    code = block("Python", "python", 1, latchkey)
    hello, pages, refused = output_of([sys.executable, "-c", code], tmp_path).splitlines()
    assert hello == "{'hello': 'Grace'}"
    assert "'size': 10" in pages
    assert refused == "401"
    wrong = subprocess.run(
        [sys.executable, "-c", code.replace("correct horse", "wrong horse")], text=True, capture_output=True, check=False
    )
    assert (wrong.returncode, wrong.stderr) == (1, "wrong e-mail or password\n")


def test_openapi_python_client(latchkey, tmp_path):
    tools = Path(sys.executable).parent
    output_of(["bash", "-euc", block("Python", "sh", 0, latchkey)], tmp_path, PATH=f"{tools}:{os.environ['PATH']}")
    assert (tmp_path / "latchkey-client/latchkey_client/api/sign_in/sign_in.py").exists()


def test_typescript(latchkey, profile, tmp_path):
    packages = json.loads((ROOT / "tests/clients/package.json").read_text())["devDependencies"]
    assert set(BLOCKS["TypeScript", "sh"][0].split()) == {"npm", "install", *packages}
    (tmp_path / "node_modules").symlink_to(TOOLS / "node_modules")
    (tmp_path / "package.json").write_text('{ "type": "module" }')
    shutil.copy(ROOT / "tests/clients/generated/tsconfig.json", tmp_path)
    output_of(["bash", "-euc", block("TypeScript", "sh", 1, latchkey)], tmp_path)
    (tmp_path / "client.ts").write_text(block("TypeScript", "ts", 0, latchkey))
    # The types for browsers declare `console`, which Node.js has, too.
    output_of([TOOLS / "node_modules/.bin/tsc", "--project", "."], tmp_path)
    output = output_of(["node", "client.js"], tmp_path)
    assert "{ hello: 'Grace' }" in output
    assert "size: 10" in output
    assert output.splitlines()[-1] == {"fastapi": "403 invalid_token", "rfc": "401 invalid_token"}[profile]
    assert_created_and_revoked(latchkey, 1)


def test_rust(latchkey, tmp_path):
    assert BLOCKS["Rust", "rust"][0] == (ROOT / "examples/client.rs").read_text()
    output = output_of([Path(LATCHKEY).parent / "examples/client"], tmp_path, LATCHKEY_URL=latchkey.url)
    hello, pages = map(json.loads, output.splitlines())
    assert hello == {"hello": "Grace"}
    assert pages["size"] == 10
    assert_created_and_revoked(latchkey, 1)


class Site:
    """A web page with its own origin. It reports its text or its error."""

    def __init__(self):
        self.reports = queue.Queue()
        self.page = ""
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(200, site.page)

            def do_POST(self):
                site.reports.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.answer(200, "")

            def answer(self, status, body):
                self.send_response(status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                """Logs nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def visit(self, script, folder):
        """Opens the page with this script in a browser and returns its text."""
        self.page = f"""<!doctype html><title>Site</title><body><script>
            const report = (text) => fetch("/report", {{ method: "POST", body: text }});
            addEventListener("unhandledrejection", (event) => report(`${{event.reason}}`));
            addEventListener("error", (event) => report(`${{event.error}}`));
            </script><script type="module">{script}
            report(document.body.innerText);
            </script>"""
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
        ]
        browser = subprocess.Popen(
            ["chromium", *options, f"--user-data-dir={folder}", self.origin],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        try:
            return self.reports.get(timeout=60)
        finally:
            end(browser)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site():
    if not shutil.which("chromium"):
        assert os.environ.get("REQUIRE_BROWSER") != "1", "chromium is not installed"
        pytest.skip("chromium is not installed")
    opened = Site()
    yield opened
    opened.close()


def test_a_web_page(start, site, tmp_path):
    latchkey = start(f'[http]\ncors_origins = ["{site.origin}"]\n')
    script = block("A web page", "js", 0, latchkey)
    assert site.visit(script, tmp_path / "browser").strip() == "Hello Grace. Then 401."


def test_a_web_page_of_an_unlisted_origin_cannot_read_responses(start, site, tmp_path):
    latchkey = start('[http]\ncors_origins = ["https://app.example.com"]\n')
    script = block("A web page", "js", 0, latchkey)
    assert site.visit(script, tmp_path / "browser") == "TypeError: Failed to fetch"
