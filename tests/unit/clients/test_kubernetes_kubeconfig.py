"""What a kubeconfig may say, and what is refused of it, without a word of what is secret in it."""

import json
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.clients.kubernetes.connecting import connect
from run_cycle_loop.clients.kubernetes.kubeconfig import Access, from_files, in_cluster
from run_cycle_loop.model.errors import ConfigError

CANARY = "canary-of-a-token"
PLUGIN = {"apiVersion": "client.authentication.k8s.io/v1", "command": "login"}


def _document(user: Any = None, cluster: Any = None, context: Any = None) -> dict[str, Any]:
    return {
        "current-context": "dev",
        "contexts": [{"name": "dev", "context": {"cluster": "c", "user": "u", **(context or {})}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443"} if cluster is None else cluster}],
        "users": [{"name": "u", "user": {"token": CANARY} if user is None else user}],
    }


def _written(folder: Path, document: Any, name: str = "config") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def _read(folder: Path, document: Any, context: str | None = None) -> Access:
    return from_files([_written(folder, document)], context)


def test_the_current_context_counts_unless_one_is_named(tmp_path: Path) -> None:
    document = _document(context={"namespace": "team-a"})
    document["contexts"].append({"name": "prod", "context": {"cluster": "c", "user": "u"}})
    assert (_read(tmp_path, document).context, _read(tmp_path, document).namespace) == ("dev", "team-a")
    assert (_read(tmp_path, document, "prod").context, _read(tmp_path, document, "prod").namespace) == (
        "prod",
        "default",
    )


def test_paths_are_relative_to_their_own_file(tmp_path: Path) -> None:
    user = {"client-certificate": "me.crt", "client-key": "/keys/me.key", "tokenFile": "sub/token"}
    access = _read(tmp_path, _document(user, {"server": "https://x", "certificate-authority": "ca.crt"}))
    assert access.cluster["certificate-authority"] == f"{tmp_path}/ca.crt"
    assert access.user == {
        "client-certificate": f"{tmp_path}/me.crt",
        "client-key": "/keys/me.key",
        "tokenFile": f"{tmp_path}/sub/token",
    }


@pytest.mark.parametrize(
    ("command", "found"), [("login", "login"), ("bin/login", "{}/bin/login"), ("/login", "/login")]
)
def test_a_plugin_is_on_the_path_or_beside_the_file(tmp_path: Path, command: str, found: str) -> None:
    access = _read(tmp_path, _document({"exec": PLUGIN | {"command": command}}))
    assert access.user["exec"]["command"] == found.format(tmp_path)


def test_of_several_files_the_first_word_counts(tmp_path: Path) -> None:
    first = _written(tmp_path, {"contexts": [{"name": "dev", "context": {"cluster": "c2"}}]}, "first")
    second = _document()
    second["clusters"].append({"name": "c2", "cluster": {"server": "https://second"}})
    access = from_files([first, _written(tmp_path, second, "second")], None)
    assert (access.cluster["server"], access.user) == ("https://second", {})


def test_a_link_to_a_kubeconfig_is_a_kubeconfig(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(_written(tmp_path, _document()))
    assert from_files([link], None).context == "dev"


BROKEN: list[tuple[Any, str]] = [
    ("", "is empty or no mapping"),
    ("- a\n- b\n", "is empty or no mapping"),
    (f"users:\n  - token: {CANARY}: {CANARY}\n", r"is no YAML \(line 2\)"),
    (f"token: '{CANARY}", "is no YAML"),
    ({"contexts": []}, "has no current-context"),
    (_document() | {"current-context": "other"}, "has no context 'other'; it has: dev"),
    (_document() | {"contexts": None}, "has no context 'dev'; it has: none"),
    (_document() | {"clusters": []}, "names the cluster 'c', which is not there"),
    (_document() | {"users": []}, "names the user 'u', which is not there"),
    (_document() | {"users": CANARY}, "entry 1 of users is no named user"),
    (_document() | {"users": [{"name": "u", "user": CANARY}]}, "entry 1 of users is no named user"),
    (_document() | {"users": [{"user": {"token": CANARY}}]}, "entry 1 of users is no named user"),
    (_document(cluster={}), "has no server address"),
    (_document(cluster={"server": "10.0.0.1:6443"}), "has no server address"),
    (_document({"token": CANARY, "as": "somebody"}), "asks for impersonation: not supported"),
    (_document({"auth-provider": {"name": "gcp"}}), "asks for auth providers"),
    (_document({"exec": {"command": "x"}}), "has apiVersion None; it must be one of"),
    (_document({"exec": PLUGIN | {"apiVersion": "v9"}}), "has apiVersion 'v9'"),
    (_document({"exec": PLUGIN | {"command": ""}}), "has no command"),
    (_document({"exec": PLUGIN | {"interactiveMode": "Always"}}), "needs a terminal"),
    (_document({"exec": PLUGIN | {"args": ["a", 1]}}), "no list of texts"),
    (_document({"exec": PLUGIN | {"env": [{"name": "A"}]}}), "no list of names and values"),
    (_document({"exec": CANARY}), "has no command"),
    (_document({"token": [CANARY]}), "cannot be used: Expected `str | null`, got `array`"),
    (_document({"client-certificate-data": CANARY, "client-key-data": CANARY}), "client-certificate-data is no base64"),
    (_document({"client-certificate-data": "Y2FuYXJ5", "client-key-data": "Y2FuYXJ5"}), "cannot be read"),
    (
        _document({"client-certificate": "none.crt", "client-key": "none.key"}),
        "client-certificate .*none.crt cannot be read",
    ),
    (
        _document(cluster={"server": "https://x", "certificate-authority": "/no/ca"}),
        "certificate-authority /no/ca cannot be read .No such file",
    ),
    (_document(cluster={"server": "https://x", "certificate-authority-data": "Y2FuYXJ5"}), "cannot be read"),
    (_document(cluster={"server": "https://x:port"}), "cannot be read"),
]


@pytest.mark.parametrize(("document", "words"), BROKEN, ids=[str(number) for number in range(len(BROKEN))])
def test_what_is_broken_is_refused_in_one_sentence(tmp_path: Path, document: Any, words: str) -> None:
    path = _written(tmp_path, document)
    with pytest.raises(ConfigError, match=words) as raised:
        connect(kubeconfig=path, context=None, namespace=None)
    said = str(raised.value)
    assert str(path) in said or "context 'dev'" in said
    assert CANARY not in said
    assert "\n" not in said


@pytest.mark.parametrize("kind", ["missing", "folder", "binary", "large"])
def test_what_is_no_file_of_text_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"\xff\xfe\x00" if kind == "binary" else b"#" * (5 << 20))
    with pytest.raises(ConfigError, match=f"the kubeconfig {path} "):
        connect(kubeconfig=path, context=None, namespace=None)


def test_without_a_name_the_usual_places_are_looked_at(tmp_path: Path) -> None:
    home, account = tmp_path / "home", tmp_path / "account"
    (home / ".kube").mkdir(parents=True)
    account.mkdir()
    pod = {"KUBERNETES_SERVICE_HOST": "::1", "KUBERNETES_SERVICE_PORT": "443", "HOME": str(home)}

    def namespace(**environ: str) -> str:
        with connect(
            kubeconfig=None, context=None, namespace=None, environ=pod | environ, service_account=account
        ) as cluster:
            return cluster.namespace

    with pytest.raises(ConfigError, match=f"no kubeconfig and no service account .*{home}/.kube/config and {account}"):
        namespace()
    (account / "token").write_text(CANARY)
    with pytest.raises(ConfigError, match=r"the service account in .* cannot be read"):
        namespace()
    (account / "namespace").write_text("of-the-pod")
    with pytest.raises(ConfigError, match=f"certificate-authority {account}/ca.crt cannot be read"):
        namespace()
    _written(home / ".kube", _document(context={"namespace": "of-the-home"}))
    assert namespace() == "of-the-home"
    named = _written(tmp_path, _document(context={"namespace": "named"}))
    assert namespace(KUBECONFIG=f"{tmp_path}/none:{named}") == "named"
    with pytest.raises(ConfigError, match="/none"):
        namespace(KUBECONFIG=f"{tmp_path}/none")


def test_a_pod_knows_its_server_by_two_variables(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(CANARY)
    (tmp_path / "namespace").write_text("\n")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    access = in_cluster(environ, tmp_path)
    assert access is not None
    assert (access.cluster["server"], access.namespace) == ("https://[fd00::1]:6443", "default")
    assert access.user == {"tokenFile": f"{tmp_path}/token"}
    assert in_cluster({}, tmp_path) is None
    assert in_cluster(environ, tmp_path / "none") is None


def test_a_namespace_that_is_named_counts_before_that_of_the_context(tmp_path: Path) -> None:
    path = _written(tmp_path, _document(context={"namespace": "of-the-context"}))
    for named, expected in ((None, "of-the-context"), ("mine", "mine")):
        with connect(kubeconfig=path, context="dev", namespace=named) as cluster:
            assert cluster.namespace == expected
