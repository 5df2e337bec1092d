"""promtool checks the metrics, and the alerts of docs/operations.md."""

import re
import shutil
import subprocess
from pathlib import Path

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


# Failures of one replica, and a mail that waits for longer than the alert allows.
ALERTS_OF_MAILS = """
rule_files: [alerts.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'latchkey_mails_waiting{instance="a"}'
        values: "0x9 1x30"
      - series: 'latchkey_mails_total{instance="a", outcome="failed"}'
        values: "0x9 1x30"
      - series: 'latchkey_mails_total{instance="a", outcome="dropped"}'
        values: "0+9x40"
    alert_rule_test:
      - {eval_time: 9m, alertname: LatchkeyMailsFail}
      - {eval_time: 12m, alertname: LatchkeyMailsFail, exp_alerts: [{exp_labels: {instance: a}}]}
      - {eval_time: 39m, alertname: LatchkeyMailsFail}
      - {eval_time: 20m, alertname: LatchkeyMailsWait}
      - {eval_time: 26m, alertname: LatchkeyMailsWait, exp_alerts: [{}]}
"""


def test_promtool_accepts_the_alerts_and_their_metrics_exist(start, tmp_path):
    document = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    alerts = document.split("### Alerts\n\n```yaml\n")[1].split("```")[0]
    (tmp_path / "alerts.yml").write_text(alerts)
    (tmp_path / "tests.yml").write_text(ALERTS_OF_MAILS)
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "tests.yml"]]:
        checked = subprocess.run(
            [shutil.which("promtool"), *arguments], cwd=tmp_path, text=True, capture_output=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr

    port = free_port()
    latchkey = start(f'[metrics]\nlisten = "127.0.0.1:{port}"\n')
    wait_for(port, latchkey.process)
    requests.get(f"{latchkey.url}/health/live", timeout=10)
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    names = set(re.findall(r"\b(?:latchkey|process)_\w+", alerts))
    assert len(names) > 7, names
    for name in names:
        assert f"\n{name}" in text, name
