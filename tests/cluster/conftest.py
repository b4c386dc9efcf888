"""One API server for the whole run of the tests, and a namespace of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.apiserver import ApiServer, find_binary
from tests.cluster.kubelet import Kubelet


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The server; a test says by ``api.install(profile)`` which kinds it needs."""
    try:
        binary = find_binary()
    except LookupError as error:
        pytest.fail(str(error))
    with ApiServer(tmp_path_factory.mktemp("apiserver"), binary) as server:
        yield server


@pytest.fixture
def namespace(api: ApiServer) -> str:
    return api.namespace()


@pytest.fixture
def kubelet(api: ApiServer, namespace: str, tmp_path: Path) -> Iterator[Kubelet]:
    """The node of this test's namespace: its Jobs run."""
    with Kubelet(api, namespace, tmp_path / "node") as node:
        yield node
