"""Conditional changes behind proxies that compress responses and therefore change entity tags."""

import os
import subprocess

import pytest
import requests

from conftest import end, free_port, wait_for


def nginx(folder, listen, latchkey):
    (folder / "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {folder}/pid; error_log stderr crit;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
            gzip on; gzip_types application/json; gzip_proxied any; gzip_min_length 1;
            server {{ listen 127.0.0.1:{listen}; location / {{ proxy_pass {latchkey}; }} }}
        }}
    """)
    return ["nginx", "-c", folder / "nginx.conf"]


def caddy(folder, listen, latchkey):
    (folder / "Caddyfile").write_text(f"""
{{
    admin off
    log {{
        level ERROR
    }}
}}
http://127.0.0.1:{listen} {{
    encode {{
        gzip
        minimum_length 1
        match {{
            header Content-Type application/json*
        }}
    }}
    reverse_proxy {latchkey}
}}
""")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile"]


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def compressing(request, latchkey, tmp_path):
    """The URL of a proxy that compresses the responses of Latchkey."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"] + ":/usr/sbin", "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)
    }
    process = subprocess.Popen(request.param(tmp_path, port, latchkey.url), env=environment, cwd=tmp_path)
    wait_for(port, process)
    yield f"http://127.0.0.1:{port}"
    end(process)


def test_a_version_in_the_body_protects_a_change_behind_a_compressing_proxy(compressing, latchkey):
    session = requests.Session()
    session.headers["Token"] = latchkey.sign_in()
    session.post(f"{compressing}/page/", json={"title": "One", "body": "x" * 2000}, timeout=10)
    page = f"{compressing}/page/1"
    read = session.get(page, timeout=10)
    assert read.headers["Content-Encoding"] == "gzip"

    tag, version = read.headers["ETag"], read.json()["version"]
    if tag.startswith("W/"):
        refused = session.patch(page, json={"title": "Two"}, headers={"If-Match": tag}, timeout=10)
        assert (refused.status_code, refused.json()["code"]) == (412, "weak_if_match")
        assert "`version`" in refused.json()["detail"]
    edited = session.patch(page, json={"title": "Two", "version": version}, timeout=10)
    assert (edited.status_code, edited.json()["version"]) == (200, version + 1)
    stale = session.put(page, json={"title": "Three", "body": "", "version": version}, timeout=10)
    assert (stale.status_code, stale.json()["code"]) == (412, "stale")
    assert session.delete(f"{page}?version={version}", timeout=10).status_code == 412
    assert session.delete(f"{page}?version={version + 1}", timeout=10).status_code == 204
