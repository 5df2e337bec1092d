"""The systemd unit and the Kubernetes manifests."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import PROGRAM, ROOT, run

UNIT = ROOT / "deploy/latchkey.service"
# server.shutdown_timeout of the default settings, in seconds.
SHUTDOWN_TIMEOUT = int(re.search(r"^shutdown_timeout = (\d+)", (ROOT / "config/default.toml").read_text(), re.MULTILINE)[1])


@pytest.fixture
def unit(tmp_path):
    """The unit with the built program, because systemd-analyze looks for it."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/usr/local/bin/latchkey", str(PROGRAM.resolve())))
    return path


def test_systemd_accepts_the_unit_without_a_warning(unit):
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_exposure_of_the_unit_is_at_most_1_5(unit):
    # The threshold is in tenths.
    output = run("systemd-analyze", "security", "--offline=yes", "--threshold=15", "--no-pager", unit)
    assert "Overall exposure level" in output


def test_the_unit_allows_the_system_calls_that_lower_a_priority_and_waits_for_the_shutdown():
    settings = re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE)
    filters = [value for name, value in settings if name == "SystemCallFilter"]
    assert filters == ["@system-service", "~@privileged"]
    contained = run("systemd-analyze", "syscall-filter", "@resources")
    assert "setpriority" in contained and "sched_setscheduler" in contained
    assert "@resources" in run("systemd-analyze", "syscall-filter", "@system-service")
    assert int(dict(settings)["TimeoutStopSec"]) > SHUTDOWN_TIMEOUT


def test_kubernetes_accepts_the_manifests():
    run(Path(sys.executable).with_name("kubernetes-validate"), "--strict", *(ROOT / "deploy/kubernetes").glob("*.yaml"))


def documents(name):
    """The objects of a manifest, by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((ROOT / f"deploy/kubernetes/{name}.yaml").read_text())}


@pytest.mark.parametrize("name", ["sqlite", "postgres"])
def test_every_pod_has_no_privileges_and_time_to_stop(name):
    for one in documents(name).values():
        if "template" not in one["spec"]:
            continue
        pod = one["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }
        if one["kind"] == "Deployment":
            assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
            assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
            variables = {variable["name"]: variable["value"] for variable in container.get("env", [])}
            timeout = int(variables.get("LATCHKEY__SERVER__SHUTDOWN_TIMEOUT", SHUTDOWN_TIMEOUT))
            assert pod["terminationGracePeriodSeconds"] > timeout > int(variables.get("LATCHKEY__SERVER__SHUTDOWN_DELAY", 1))


def test_one_process_uses_the_sqlite_file_and_two_replicas_use_postgresql():
    sqlite, postgres = documents("sqlite"), documents("postgres")
    assert sqlite["Deployment"]["spec"]["replicas"] == 1
    assert sqlite["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    assert sqlite["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert postgres["Deployment"]["spec"]["replicas"] == 2
    assert postgres["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert postgres["PodDisruptionBudget"]["spec"]["minAvailable"] == 1
    assert postgres["Job"]["spec"]["template"]["spec"]["containers"][0]["args"] == ["migrate", "up"]
    environment = postgres["Deployment"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "LATCHKEY__DATABASE__MIGRATE_ON_START", "value": "false"} in environment
