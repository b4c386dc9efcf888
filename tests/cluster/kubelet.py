"""A small stand-in for a node, so that the pods of Jobs run: as processes of this machine, with their mounts, in order.

It registers a Node whose kubelet is an HTTPS server of its own, so that ``GET pods/{name}/log`` through the API server
works. One of them serves one namespace. ``/exec`` has no stand-in. Paths are real: bubblewrap mounts every volume where
the manifest wants it, without a trace on the machine.
"""

import os
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.cluster.apiserver import ApiServer
from tests.cluster.client import Watch
from tests.cluster.job_controller import JobController
from tests.cluster.pod import Pod, now

_AWAITED = ("secrets", "configmaps", "persistentvolumeclaims")


class Kubelet:
    """The node of one namespace while the ``with`` block lasts.

    Args:
        api: the server.
        namespace: whose pods and Jobs it serves.
        scratch: below it stand ``claims/NAME`` and what pods are made of.
        grace: seconds between the TERM and the KILL of a pod that is deleted, whatever its spec wants.
    """

    def __init__(self, api: ApiServer, namespace: str, scratch: Path, *, grace: float = 1.0) -> None:
        self.node = f"node-{namespace}"
        self._namespace, self._scratch, self._grace = namespace, scratch, grace
        self._client = api.client()
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/root",
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(api.port),
        }
        self._lock = threading.Lock()
        self._pods: dict[str, Pod] = {}  # by uid
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.find = self._find
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(api.certificate, api.key)
        # The handshake is left to the first read, in the thread of the connection.
        self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        self._register()
        base = f"/api/v1/namespaces/{self._namespace}"
        self._watches = [Watch(self._client, f"{base}/{kind}", self._something_changed) for kind in _AWAITED]
        self._watches.append(Watch(self._client, f"{base}/pods", self._pod_changed))
        self._jobs = JobController(self._client, self._namespace, self.node)
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.close()
        for watch in self._watches:
            watch.close()
        with self._lock:
            pods = list(self._pods.values())
        for pod in pods:
            pod.kill()
        self._http.shutdown()
        self._http.server_close()
        self._client.delete(f"/api/v1/nodes/{self.node}")

    def claim(self, name: str) -> Path:
        """The folder behind a PersistentVolumeClaim."""
        folder = self._scratch / "claims" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _register(self) -> None:
        self._client.create("/api/v1/nodes", {"metadata": {"name": self.node}})
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._http.server_address[1]}},
            "conditions": [
                {"type": "Ready", "status": "True", "lastHeartbeatTime": now(), "lastTransitionTime": now()}
            ],
        }
        self._client.patch(f"/api/v1/nodes/{self.node}/status", {"status": status})

    def _something_changed(self, _kind: str, _what: dict[str, Any]) -> None:
        with self._lock:
            pods = list(self._pods.values())
        for pod in pods:
            pod.changed()

    def _pod_changed(self, kind: str, seen: dict[str, Any]) -> None:
        if seen["spec"].get("nodeName") != self.node:
            return
        with self._lock:
            known = self._pods.get(seen["metadata"]["uid"])
            if known is None and kind != "DELETED" and seen["status"]["phase"] == "Pending":
                known = Pod(self._client, seen, self._scratch, self._environment, self._grace)
                self._pods[seen["metadata"]["uid"]] = known
        if known is not None and (kind == "DELETED" or "deletionTimestamp" in seen["metadata"]):
            known.end()

    def _find(self, name: str) -> Pod | None:
        with self._lock:
            return next((pod for pod in reversed(self._pods.values()) if pod.name == name), None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    find: Callable[[str], Pod | None]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever reads a log may go away in the middle of it."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        words = parts.path.strip("/").split("/")
        if len(words) != 4 or words[0] != "containerLogs":
            self.send_error(404, "there are logs here, and nothing else")
            return
        pod = self.server.find(words[2])
        if pod is None:
            self._say(404, f'pod "{words[2]}" not found')
        elif pod.waiting is not None:
            self._say(400, f'container "{words[3]}" in pod "{pod.name}" is waiting to start: {pod.waiting}')
        else:
            query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
            tail = int(query["tailLines"]) if "tailLines" in query else None
            self._head(200)
            for piece in pod.log.read(follow=query.get("follow") == "true", tail=tail):
                self.wfile.write(piece)
                self.wfile.flush()

    def _say(self, code: int, text: str) -> None:
        self._head(code)
        self.wfile.write(text.encode())

    def _head(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""
