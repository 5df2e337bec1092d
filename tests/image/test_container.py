"""The image in podman: read-only, without capabilities, with 64 MB."""

import json
import re
import time
from pathlib import Path

import pytest

from conftest import (
    HOME, IMAGE, IS_RELEASE, PROGRAM, ROOT, container, podman, request, run, sign_in,
)

CARGO = (ROOT / "Cargo.toml").read_text()


@pytest.fixture(scope="module")
def server():
    """A running container. A test that stops a server starts one of its own."""
    with container("latchkey") as started:
        yield started


def status(server, name):
    """A field of /proc/PID/status."""
    return re.search(rf"^{name}:\s*(.*)$", server.proc("status"), re.MULTILINE)[1].split()


def owner_and_mode(path):
    """The user, the group and the mode of a file."""
    stat = path.stat()
    return stat.st_uid, stat.st_gid, stat.st_mode & 0o7777


def mount_options(server, path):
    """The options of the mount at a path, inside the container."""
    line = next(line for line in server.proc("mountinfo").splitlines() if line.split()[4] == path)
    return set(line.split()[5].split(","))


@pytest.mark.skipif(not IS_RELEASE, reason="a debug program is larger")
def test_the_image_has_at_most_30_mb():
    assert int(podman("image", "inspect", IMAGE, "--format", "{{.Size}}")) <= 30_000_000


def test_labels_describe_the_image():
    labels = json.loads(podman("image", "inspect", IMAGE, "--format", "{{json .Labels}}"))
    field = lambda name: re.search(rf'^{name} = "(.*)"$', CARGO, re.MULTILINE)[1]
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}title"] == "Latchkey"
    assert labels[f"{prefix}version"] == field("version") == run(PROGRAM.resolve(), "--version").split()[1]
    assert labels[f"{prefix}licenses"] == field("license")
    assert labels[f"{prefix}base.name"] == "localhost/base"
    assert re.fullmatch("[0-9a-f]{40}", labels[f"{prefix}revision"])


def test_the_image_has_a_health_check_and_runs_as_user_65532():
    config = json.loads(podman("image", "inspect", IMAGE, "--format", "{{json .Config}}"))
    assert config["User"] == "65532:65532"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["/latchkey"]
    check = json.loads(podman("image", "inspect", IMAGE, "--format", "{{json .HealthCheck}}"))
    assert check["Test"] == ["CMD", "/latchkey", "health"]


def test_the_data_folder_belongs_to_the_user_alone_and_the_program_to_root():
    name = podman("create", IMAGE)
    root = Path(podman("mount", name))
    assert owner_and_mode(root / "data") == (65532, 65532, 0o700)
    assert owner_and_mode(root / "latchkey") == (0, 0, 0o755)
    assert root.stat().st_uid == 0
    podman("umount", name)
    podman("rm", "--volumes", name)


def test_the_first_admin_is_created_with_the_password_on_standard_input(server):
    assert server.created == "created admin 1 ada@example.org"
    status, body = request(server.port, "GET", "/protected-route", Token=sign_in(server.port))
    assert (status, json.loads(body)) == (200, {"hello": "Augusta"})


def test_the_process_has_no_privileges(server):
    assert status(server, "Uid") == ["65532"] * 4
    assert status(server, "Gid") == ["65532"] * 4
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]:
        assert int(status(server, capabilities)[0], 16) == 0, capabilities
    assert status(server, "NoNewPrivs") == ["1"]
    # 2: a filter of system calls is in force.
    assert status(server, "Seccomp") == ["2"]


def test_only_the_volume_is_writable(server):
    assert "ro" in mount_options(server, "/")
    assert {"rw", "nosuid", "nodev"} <= mount_options(server, "/data")


def test_the_memory_limit_is_in_force_and_suffices(server):
    assert server.inspect("{{.HostConfig.Memory}}") == str(64 << 20)
    assert server.inspect("{{.State.OOMKilled}}") == "false"
    assert int(status(server, "VmRSS")[0]) < 64 << 10


def test_the_server_is_ready_within_a_second(server):
    assert server.seconds_to_ready <= (1 if IS_RELEASE else 5)


def test_the_health_command_succeeds_inside_the_container(server):
    assert podman("exec", server.name, "/latchkey", "health") == "ready"


def test_the_database_is_readable_for_the_user_alone(server):
    folder = Path(podman("volume", "inspect", server.volume, "--format", "{{.Mountpoint}}"))
    assert owner_and_mode(folder) == (65532, 65532, 0o700)
    assert owner_and_mode(folder / "latchkey.db") == (65532, 65532, 0o600)
    assert owner_and_mode(folder / "latchkey.db-wal") == (65532, 65532, 0o600)


def test_hashing_threads_have_the_lowest_priority(server):
    priorities = server.priorities()
    assert priorities and set(priorities) == {19}
    assert "priority" not in server.log()


def test_a_warning_names_the_cause_where_hashing_threads_cannot_lower_their_priority():
    forbidden = {"names": ["setpriority", "sched_setscheduler"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    profile = HOME / "seccomp.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [forbidden]}))
    with container("latchkey-priority", "--security-opt", f"seccomp={profile}") as server:
        warnings = [line for line in server.log().splitlines() if "WARN" in line]
        assert len(warnings) == 1
        assert "hashing threads" in warnings[0] and "setpriority" in warnings[0]


def test_the_server_stops_within_two_seconds_with_exit_code_0():
    with container("latchkey-stop") as server:
        started = time.monotonic()
        podman("stop", "--time", "10", server.name)
        assert time.monotonic() - started <= 2
        assert server.inspect("{{.State.ExitCode}}") == "0"
        log = server.log().splitlines()
        assert log[-1].endswith("stopped")
        assert [line for line in log if "WARN" in line] == []
