"""promtool checks the metrics."""

import shutil
import subprocess

import requests

from conftest import free_port, wait_for

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def test_promtool_accepts_the_metrics(start):
    port = free_port()
    latchkey = start(f'[metrics]\nlisten = "127.0.0.1:{port}"\n')
    wait_for(port, latchkey.process)

    def check():
        """Checks the current metrics with promtool and returns them."""
        response = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10)
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        promtool = shutil.which("promtool")
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=response.text, text=True, capture_output=True, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
        return response.text

    at_the_start = check()
    for sample in [
        'latchkey_sign_ins_total{outcome="failure"} 0',
        'latchkey_throttled_total{limit="failed_sign_ins"} 0',
        'latchkey_audit_entries_total{outcome="denied"} 0',
        'latchkey_cache_total{outcome="miss"} 0',
        'latchkey_not_ready{reason="disk_full"} 0',
        "# TYPE process_cpu_seconds_total counter",
        "# TYPE process_resident_memory_bytes gauge",
        "# TYPE process_virtual_memory_bytes gauge",
        "# TYPE process_open_fds gauge",
        "# TYPE process_max_fds gauge",
        "# TYPE process_start_time_seconds gauge",
    ]:
        assert sample in at_the_start.splitlines(), at_the_start
    requests.get(f"{latchkey.url}/me", headers={"Token": latchkey.sign_in()}, timeout=10)
    assert 'latchkey_sign_ins_total{outcome="success"} 1' in check().splitlines()

    modern = requests.get(f"http://127.0.0.1:{port}/metrics", headers={"Accept": OPENMETRICS}, timeout=10)
    assert modern.headers["Content-Type"].startswith(OPENMETRICS)
    assert modern.text.endswith("# EOF\n")
