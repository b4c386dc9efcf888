"""A real API server for the tests: an etcd and a kube-apiserver of their own on free ports of 127.0.0.1.

Neither a scheduler nor a controller manager nor a node runs: what those would do for the Jobs of a test is the part of
``tests.cluster.kubelet``. Both processes die with the test run, however it dies.
"""

import json
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Self

from run_cycle_loop.agentrun.checks.crds import crds
from tests.cluster.client import ApiError, Client

ROOT = Path(__file__).resolve().parents[2]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
AGENTS = "/apis/agents.proompteng.ai/v1alpha1/namespaces"

_NEEDED = {"etcd": "etcd-server", "openssl": "openssl", "setpriv": "util-linux", "bwrap": "bubblewrap"}
_BUILDING = 3600.0  #: seconds, where the server was never built
_STARTING = 120.0  #: seconds
_STEP = 0.05  #: seconds between two looks at what cannot be watched
_LABEL = "run-cycle-loop"


class ApiServer:
    """The server while the ``with`` block lasts; its files stand below ``folder``."""

    def __init__(self, folder: Path, binary: Path) -> None:
        self._folder, self._binary = folder, binary
        self._names = count(1)
        self._profile: str | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self.port, etcd, peer = free_ports(3)
        self._etcd = (f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}")
        self.url = f"https://127.0.0.1:{self.port}"
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self._tokens = {user: secrets.token_hex(16) for user in ("admin", "weak")}
        #: By user: ``admin`` may do everything, ``weak`` what it was granted, ``wrong`` has a token nobody knows.
        self.kubeconfigs: Mapping[str, Path] = {
            user: folder / f"{user}.kubeconfig" for user in ("admin", "weak", "wrong")
        }

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_certificate()
        self._write_users()
        try:
            self._start_etcd()
            self._start_server()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.kill()  # nothing of theirs is kept, so that a farewell would only take time
            process.wait()

    def client(self, user: str = "admin") -> Client:
        return Client(self.url, self.certificate, self._tokens.get(user, "nobody-knows-this-token"))

    def install(self, profile: str) -> None:
        """Have the kinds of one profile in force: accepted, established, and their rules applied to what comes in."""
        if profile == self._profile:
            return
        self._profile = None
        admin = self.client()
        for definition in crds(profile):
            path = f"{CRDS}/{definition['metadata']['name']}"
            try:
                present = admin.get(path)
            except ApiError as error:
                if error.code != 404:
                    raise
                admin.create(CRDS, definition, fieldValidation="Strict")
            else:
                admin.patch(path, {"spec": definition["spec"] | {"conversion": present["spec"]["conversion"]}})
        for definition in crds(profile):
            until(
                lambda name=definition["metadata"]["name"]: _is_established(admin, name),
                f"{definition['metadata']['name']} is not established",
            )
        until(lambda: self._allows_prompt() is (profile == "guide"), f"the rules of {profile} are not in force")
        self._profile = profile

    def namespace(self) -> str:
        """A fresh one, with what a controller manager would put into it."""
        name = f"test-{next(self._names)}"
        admin = self.client()
        admin.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": {_LABEL: "test"}}})
        admin.create(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        root = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": self.certificate.read_text()}}
        admin.create(f"/api/v1/namespaces/{name}/configmaps", root)
        return name

    def grant(
        self, namespace: str, rules: Sequence[Mapping[str, Any]], *, subject: Mapping[str, str] | None = None
    ) -> None:
        """Let the weak user, or another subject, do what these RBAC rules say in one namespace."""
        base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        name = f"granted-{next(self._names)}"
        group = "rbac.authorization.k8s.io"
        self.client().create(f"{base}/roles", {"metadata": {"name": name}, "rules": list(rules)})
        self.client().create(
            f"{base}/rolebindings",
            {
                "metadata": {"name": name},
                "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
                "subjects": [subject or {"apiGroup": group, "kind": "User", "name": "weak"}],
            },
        )

    def _allows_prompt(self) -> bool:
        """Whether a run with ``parameters.prompt`` comes in, which is where the profiles part; it is not kept."""
        spec = {
            "agentRef": {"name": "a"},
            "runtime": {"type": "job"},
            "implementation": {},
            "parameters": {"prompt": "p"},
        }
        run = {
            "apiVersion": "agents.proompteng.ai/v1alpha1",
            "kind": "AgentRun",
            "metadata": {"name": "probe"},
            "spec": spec,
        }
        try:
            self.client().create(f"{AGENTS}/default/agentruns", run, dryRun="All")
        except ApiError as error:
            if error.code == 422:
                return False
            raise
        return True

    def _make_certificate(self) -> None:
        """One self-signed pair, for the server, for the node, and for the tokens of service accounts."""
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", str(self.key), "-out", str(self.certificate), "-days", "2", "-subj", "/CN=tests"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        command += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def _write_users(self) -> None:
        admin, weak = self._tokens["admin"], self._tokens["weak"]
        (self._folder / "tokens.csv").write_text(f'{admin},admin,1,"system:masters"\n{weak},weak,2\n')
        for user, path in self.kubeconfigs.items():
            cluster = {"server": self.url, "certificate-authority": str(self.certificate)}
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "tests", "cluster": cluster}],
                "users": [{"name": user, "user": {"token": self.client(user).token}}],
                "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user, "namespace": "default"}}],
                "current-context": "tests",
            }
            path.write_text(json.dumps(config))  # which is YAML, too

    def _start_etcd(self) -> None:
        client, peer = self._etcd
        self._start(
            "etcd",
            [
                "etcd",
                f"--data-dir={self._folder / 'etcd'}",
                "--unsafe-no-fsync",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
            ],
        )

    def _start_server(self) -> None:
        process = self._start(
            "kube-apiserver",
            [
                str(self._binary),
                f"--etcd-servers={self._etcd[0]}",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                f"--secure-port={self.port}",
                f"--tls-cert-file={self.certificate}",
                f"--tls-private-key-file={self.key}",
                f"--token-auth-file={self._folder / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={self.certificate}",
                f"--service-account-signing-key-file={self.key}",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--endpoint-reconciler-type=none",
                "--enable-priority-and-fairness=false",
            ],
        )
        until(lambda: self._is_ready(process), f"kube-apiserver is not ready: see {self._folder}/kube-apiserver.log")

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        log = self._folder / "kube-apiserver.log"
        assert process.poll() is None, f"kube-apiserver ended with {process.returncode}: {log.read_text()[-2000:]}"
        try:
            return self.client().text("/readyz") == "ok"
        except (OSError, ApiError):
            return False

    def _start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process


def find_binary() -> Path:
    """The kube-apiserver, built where it never was.

    Raises:
        LookupError: something that these tests need is missing; the message says how to get it.
    """
    missing = [package for program, package in _NEEDED.items() if shutil.which(program) is None]
    if missing:
        raise LookupError(
            f"the tests of a cluster need Debian's {', '.join(missing)}: apt-get install {' '.join(missing)}"
        )
    script = ROOT / "scripts" / "kube_apiserver.sh"
    done = subprocess.run([script], capture_output=True, text=True, check=False, timeout=_BUILDING)
    if done.returncode:
        raise LookupError(f"the tests of a cluster need a kube-apiserver: {done.stderr.strip()}")
    return Path(done.stdout.strip())


def free_ports(number: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [bound.getsockname()[1] for bound in sockets]
    for bound in sockets:
        bound.close()
    return ports


def until(holds: Any, otherwise: str, *, within: float = _STARTING) -> None:
    """Look again and again until it holds.

    Raises:
        AssertionError: it did not within that many seconds; ``otherwise`` says what was waited for.
    """
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, f"{otherwise}, after {within:g} seconds"
        time.sleep(_STEP)


def _is_established(client: Client, name: str) -> bool:
    conditions = client.get(f"{CRDS}/{name}").get("status", {}).get("conditions", [])
    return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions)
