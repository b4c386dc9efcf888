"""The container's paths, and where they are on this machine."""

import pytest

from run_cycle_loop.agentrun.local.mounts import (
    Mount,
    bwrap_mounts,
    bwrap_root,
    read_mounts,
    translate,
    translated_payload,
    write_mounts,
)

MOUNTS = (
    Mount(path="/workspace", folder="/state/claim"),
    Mount(path="/workspace/.agent", folder="/state/attempt/.agent"),
    Mount(path="/workspace/run.json", folder="/state/attempt/run.json", read_only=True),
    Mount(path="/login", folder="/state/attempt/secrets/login", read_only=True, is_secret=True),
)


@pytest.mark.parametrize(
    ("path", "here"),
    [
        ("/workspace", "/state/claim"),
        ("/workspace/", "/state/claim"),
        ("/workspace/a/b", "/state/claim/a/b"),
        ("/workspace/.agent/status.json", "/state/attempt/.agent/status.json"),
        ("/workspace/.agentrun/loop-control.json", "/state/claim/.agentrun/loop-control.json"),
        ("/workspace/run.json", "/state/attempt/run.json"),
        ("/workspace/x/../run.json", "/state/attempt/run.json"),
        ("/workspaces/a", None),
        ("/workspace/../etc/passwd", None),
        ("/etc", None),
        ("relative", None),
    ],
)
def test_a_path_is_where_its_deepest_mount_is(path: str, here: str | None) -> None:
    assert translate(path, MOUNTS) == here


def test_mounts_are_read_as_they_were_written() -> None:
    assert read_mounts(write_mounts(MOUNTS)) == MOUNTS
    assert read_mounts("") == ()


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"path": 1, "folder": "/x"}]'])
def test_what_is_no_list_of_mounts_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no list|no mount|Expecting"):
        read_mounts(text)


def test_outer_mounts_come_before_those_in_them() -> None:
    switches = bwrap_mounts(MOUNTS)
    order = switches[2::3]
    assert sorted(order) == sorted(one.path for one in MOUNTS)
    assert order.index("/workspace") < min(order.index("/workspace/.agent"), order.index("/workspace/run.json"))
    at = order.index("/workspace/run.json") * 3
    assert switches[at : at + 3] == ["--ro-bind", "/state/attempt/run.json", "/workspace/run.json"]


def test_a_root_has_everything_but_what_is_mounted_anew() -> None:
    entries = [("usr", None), ("bin", "usr/bin"), ("proc", None), ("dev", None), ("workspace", None)]
    assert bwrap_root(entries, MOUNTS, read_only=True) == [
        *("--symlink", "usr/bin", "/bin"),
        *("--ro-bind-try", "/usr", "/usr"),
    ]


def test_a_payload_s_paths_are_translated_and_nothing_else() -> None:
    payload = {
        "inputs": {"logPath": "/workspace/x"},
        "payloads": {"eventFilePath": "/workspace/run.json"},
        "artifacts": {"statusPath": "/workspace/.agent/status.json", "logPath": 5},
        "adapter": {"type": "codex-app-server", "codex": {"cwd": "/srv/elsewhere", "prompt": "/workspace"}},
    }
    assert translated_payload(payload, MOUNTS) == {
        "inputs": {"logPath": "/workspace/x"},
        "payloads": {"eventFilePath": "/state/attempt/run.json"},
        "artifacts": {"statusPath": "/state/attempt/.agent/status.json", "logPath": 5},
        "adapter": {"type": "codex-app-server", "codex": {"cwd": "/srv/elsewhere", "prompt": "/workspace"}},
    }
