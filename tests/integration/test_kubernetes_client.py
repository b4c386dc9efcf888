"""The real client against a server on loopback that refuses, hangs, cuts and lies."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.clients.kubernetes import errors
from run_cycle_loop.clients.kubernetes.api import QUIET, Cluster, Timeouts
from run_cycle_loop.clients.kubernetes.connecting import connect
from run_cycle_loop.clients.kubernetes.errors import (
    Expired,
    Invalid,
    KubernetesError,
    ServerFault,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from run_cycle_loop.clients.kubernetes.following import follow
from run_cycle_loop.clients.kubernetes.kinds import AGENT_RUN, CONFIG_MAP, JOB, SECRET
from run_cycle_loop.clients.kubernetes.patient import PatientCluster
from run_cycle_loop.model.errors import ConfigError
from tests.faults.lab import wait_until
from tests.integration import kubernetes_answers as say
from tests.integration.kubernetes_answers import Answer, Answers

CANARY = "eyJhbGciOiJub25lIn0.canary-of-a-token.c2lnbmF0dXJl"
QUICK = Timeouts(connect=2.0, read=0.5, call=1.0)
OBJECT = {"kind": "ConfigMap", "metadata": {"name": "one", "uid": "uid-one", "resourceVersion": "7"}}
LIST = {"kind": "ConfigMapList", "metadata": {"resourceVersion": "5"}, "items": []}

Connect = Callable[..., Cluster]


@pytest.fixture
def server() -> Iterator[Answers]:
    with Answers() as answers:
        yield answers


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Connect]:
    """Connects to a server, and closes at the end; nothing may be left open then."""
    opened: list[tuple[Answers, Cluster]] = []
    threads = threading.active_count()

    def to(
        answers: Answers,
        user: Mapping[str, Any] | None = None,
        cluster: Mapping[str, Any] | None = None,
        timeouts: Timeouts = QUICK,
        **how: Any,
    ) -> Cluster:
        path = write_kubeconfig(tmp_path / "kubeconfig", answers.url, user or {"token": CANARY}, cluster or {})
        joined = connect(kubeconfig=path, context=None, namespace="night", timeouts=timeouts, **how)
        opened.append((answers, joined))
        return joined

    yield to
    for _, joined in opened:
        joined.close()
    for answers, _ in opened:
        assert answers.becomes_idle(), "a connection was left open"
    wait_until(lambda: threading.active_count() <= threads + 1, "the threads of the server to end")


def write_kubeconfig(path: Path, url: str, user: Mapping[str, Any], cluster: Mapping[str, Any] | None = None) -> Path:
    document = {
        "current-context": "dev",
        "contexts": [{"name": "dev", "context": {"cluster": "c", "user": "u", "namespace": "team-a"}}],
        "clusters": [{"name": "c", "cluster": {"server": url, **(cluster or {})}}],
        "users": [{"name": "u", "user": dict(user)}],
    }
    path.write_text(json.dumps(document))
    return path


REFUSALS: list[tuple[Answer, type[KubernetesError], str]] = [
    (say.refused(401, "Unauthorized"), Unauthorized, "log in again"),
    (say.refused(403, "Forbidden"), errors.Forbidden, 'allow the verb "create" on "jobs.batch" in namespace night'),
    (say.refused(404, "NotFound", 'namespaces "night" not found'), errors.NotFound, 'namespaces "night" not found'),
    (say.plain(404, "404 page not found\n"), errors.KindNotServed, "install the CustomResourceDefinition jobs.batch"),
    (say.refused(409, "AlreadyExists"), errors.AlreadyExists, "take another name"),
    (say.refused(409, "Conflict"), errors.Conflict, "read it again"),
    (say.refused(410, "Expired"), Expired, "list it again"),
    (say.refused(422, "Invalid"), Invalid, "correct what the server names"),
    (say.refused(400, "BadRequest"), Invalid, "correct what the server names"),
    (say.refused(429, "TooManyRequests"), TooManyRequests, "ask again later"),
    (say.refused(500, "InternalError"), ServerFault, "the log of the API server"),
    (say.plain(503, "<h1>down</h1>", "text/html"), ServerFault, r"the server answers 503; ask again later"),
    (say.plain(302, "go away"), KubernetesError, "check the server's address"),
    (say.plain(200, "hello"), ServerFault, "5 bytes that are no JSON object"),
    (say.plain(200, "[1]"), ServerFault, "no JSON object"),
    (say.plain(200, "[" * 100_000), ServerFault, "no JSON object"),
    (say.cut_off, Unreachable, "the connection was cut"),
    (say.cut_short, Unreachable, "the connection was cut"),
    (say.no_http, Unreachable, "what came is no HTTP"),
    (say.hang, Unreachable, "it took too long"),
    (say.dribble, Unreachable, "it took too long"),
]


@pytest.mark.parametrize(
    ("answer", "kind", "words"), REFUSALS, ids=[f"{n}-{row[1].__name__}" for n, row in enumerate(REFUSALS)]
)
def test_every_refusal_says_what_was_asked_and_what_to_do(
    server: Answers, join: Connect, answer: Answer, kind: type[KubernetesError], words: str
) -> None:
    server.then(answer)
    with pytest.raises(kind, match="cannot create Job night/one: .*" + words.replace(".", r"\.")) as raised:
        join(server).create(JOB, {"metadata": {"name": "one"}})
    assert type(raised.value) is kind
    assert CANARY not in repr([raised.value, raised.value.__cause__, raised.value.__context__])


@pytest.mark.parametrize(
    ("answer", "may_have_happened"),
    [
        (say.hang, True),
        (say.cut_off, True),
        (say.plain(200, "half an ob"), True),
        (say.refused(503, "Down"), True),
        (say.refused(429, "TooManyRequests"), False),
        (say.refused(422, "Invalid"), False),
    ],
)
def test_an_error_tells_whether_it_may_have_been_done(
    server: Answers, join: Connect, answer: Answer, may_have_happened: bool
) -> None:
    server.then(answer)
    with pytest.raises(KubernetesError) as raised:
        join(server).create(CONFIG_MAP, OBJECT)
    assert raised.value.may_have_happened is may_have_happened


def test_a_call_takes_no_longer_than_it_may(server: Answers, join: Connect) -> None:
    cluster = join(server)
    for answer, seconds in ((say.hang, 0.5), (say.dribble, 1.0)):
        server.then(answer)
        began = time.monotonic()
        with pytest.raises(Unreachable):
            cluster.list(CONFIG_MAP)
        assert seconds <= time.monotonic() - began < seconds + 1.5


def test_a_server_that_is_not_there_did_not_do_it(join: Connect) -> None:
    with Answers() as gone:
        pass
    with pytest.raises(Unreachable, match="connection refused; check that the cluster runs") as raised:
        join(gone).create(CONFIG_MAP, OBJECT)
    assert not raised.value.may_have_happened


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (say.given(say.status(429, "TooManyRequests"), 429, Retry_After="12"), 12),
        (say.refused(429, "TooManyRequests", retryAfterSeconds=3), 3),
        (say.given(say.status(503, "Down"), 503, Retry_After="999999"), 3600),
        (say.given(say.status(429, "TooManyRequests"), 429, Retry_After="Fri, 31 Dec 1999 23:59:59 GMT"), None),
    ],
)
def test_the_server_may_say_when_to_come_again(
    server: Answers, join: Connect, answer: Answer, seconds: float | None
) -> None:
    server.then(answer)
    with pytest.raises(KubernetesError) as raised:
        join(server).get(CONFIG_MAP, "one")
    assert raised.value.retry_after == seconds


def test_what_is_wrong_with_an_object_is_told_by_field(server: Answers, join: Connect) -> None:
    causes = [{"field": "spec.goal", "message": "Required\x1b[31m value", "reason": "FieldValueRequired"}, "nonsense"]
    server.then(say.refused(422, "Invalid", "is invalid", causes=causes))
    with pytest.raises(Invalid) as raised:
        join(server).create(AGENT_RUN, {"metadata": {"name": "one"}})
    first, second = raised.value.causes
    assert (first.field, first.message, first.reason) == ("spec.goal", "Required value", "FieldValueRequired")
    assert second.field == ""


def test_what_is_sent_is_what_the_api_wants(server: Answers, join: Connect) -> None:
    cluster = join(server)
    server.then(*[say.given(OBJECT)] * 6)
    cluster.create(CONFIG_MAP, {"metadata": {"name": "one"}}, dry_run=True)
    cluster.patch(AGENT_RUN, "one", {"status": {}}, subresource="status")
    cluster.apply(CONFIG_MAP, {"metadata": {"name": "one", "namespace": "other"}})
    cluster.delete(CONFIG_MAP, "one", uid="u-1")
    cluster.list(CONFIG_MAP, labels={"a/b": "c", "d": ""}, name="one")
    cluster.allowed("create", JOB, subresource="status")
    created, patched, applied, deleted, listed, reviewed = server.asked
    assert (created.method, created.path) == ("POST", "/api/v1/namespaces/night/configmaps")
    assert created.query == {"fieldManager": ["run-cycle-loop"], "dryRun": ["All"]}
    assert json.loads(created.body)["metadata"] == {"name": "one", "namespace": "night"}
    assert created.token == CANARY
    assert patched.path == "/apis/agents.proompteng.ai/v1alpha1/namespaces/night/agentruns/one/status"
    assert patched.headers["Content-Type"] == "application/merge-patch+json"
    assert applied.path == "/api/v1/namespaces/other/configmaps/one"
    assert applied.headers["Content-Type"] == "application/apply-patch+yaml"
    assert "force" not in applied.query
    assert json.loads(deleted.body)["preconditions"] == {"uid": "u-1"}
    assert json.loads(deleted.body)["propagationPolicy"] == "Background"
    assert listed.query["labelSelector"] == ["a/b=c,d="]
    assert listed.query["fieldSelector"] == ["metadata.name=one"]
    attributes = {"verb": "create", "group": "batch", "resource": "jobs", "namespace": "night", "subresource": "status"}
    assert json.loads(reviewed.body)["spec"]["resourceAttributes"] == attributes


def test_a_long_listing_comes_in_pages(server: Answers, join: Connect) -> None:
    first = {"metadata": {"continue": "more", "resourceVersion": "5"}, "items": [OBJECT]}
    server.then(say.given(first), say.given(LIST | {"items": [OBJECT]}))
    found = join(server).list(CONFIG_MAP)
    assert (len(found.items), found.resource_version) == (2, "5")
    assert [asked.query.get("continue") for asked in server.asked] == [None, ["more"]]


def test_a_listing_that_expires_between_pages_is_begun_again(server: Answers, join: Connect) -> None:
    first = {"metadata": {"continue": "more", "resourceVersion": "5"}, "items": [OBJECT]}
    server.then(say.given(first), say.refused(410, "Expired"), say.given(LIST))
    assert join(server).list(CONFIG_MAP).items == ()


@pytest.mark.parametrize(
    ("answer", "allowed"),
    [
        (say.given({"status": {"allowed": True}}), True),
        (say.given({"status": {"allowed": False}}), False),
        (say.given({"status": {"allowed": False, "evaluationError": "webhook down"}}), None),
        (say.given({"status": {}}), None),
        (say.refused(403, "Forbidden"), None),
        (say.plain(404, "404 page not found"), None),
    ],
)
def test_access_that_cannot_be_asked_for_is_unknown(
    server: Answers, join: Connect, answer: Answer, allowed: bool | None
) -> None:
    server.then(answer)
    assert join(server).allowed("get", CONFIG_MAP) is allowed


def test_a_watch_gives_events_in_whatever_pieces_they_come(server: Answers, join: Connect) -> None:
    one, two = say.event("ADDED", "one", 6), say.event("DELETED", "two", 9)
    server.then(say.stream(one[:20], one[20:] + two[:5], two[5:], say.event("BOOKMARK", "", 12)))
    watch = join(server).watch(CONFIG_MAP, resource_version="5", seconds=5)
    assert [(event.type, event.object["metadata"]["name"]) for event in watch] == [("ADDED", "one"), ("DELETED", "two")]
    assert watch.resource_version == "12"
    query = server.asked[0].query
    assert (query["resourceVersion"], query["timeoutSeconds"], query["allowWatchBookmarks"]) == (["5"], ["5"], ["true"])


@pytest.mark.parametrize("then", ["cut", "end"])
def test_a_watch_that_loses_its_connection_ends_and_keeps_its_version(
    server: Answers, join: Connect, then: str
) -> None:
    whole, half = say.event("ADDED", "one", 6), say.event("ADDED", "two", 7)[:30]
    server.then(say.stream(whole + half, then=then))
    watch = join(server).watch(CONFIG_MAP, resource_version="5", seconds=5)
    assert [event.object["metadata"]["name"] for event in watch] == ["one"]
    assert watch.resource_version == "6"


def test_a_silent_watch_beats_and_ends_in_its_time(server: Answers, join: Connect) -> None:
    server.then(say.stream(say.event("ADDED", "one", 6), then="hang"))
    began = time.monotonic()
    events = list(join(server).watch(CONFIG_MAP, resource_version="5", seconds=2.0, beat=0.2))
    assert 1.9 < time.monotonic() - began < 4
    assert [event.type for event in events[:2]] == ["ADDED", QUIET]
    assert 5 <= len(events) <= 11


def test_a_watch_that_is_closed_or_dropped_lets_its_connection_go(server: Answers, join: Connect) -> None:
    cluster = join(server)
    for let_go in (lambda watch: watch.close(), lambda _: None):
        server.then(say.stream(say.event("ADDED", "one", 6), then="hang"))
        watch = cluster.watch(CONFIG_MAP, resource_version="5", seconds=60)
        next(watch)
        let_go(watch)
        del watch
        assert server.becomes_idle()


def test_other_calls_go_on_while_a_watch_is_open(server: Answers, join: Connect) -> None:
    cluster = join(server)
    server.then(say.stream(say.event("ADDED", "one", 6), then="hang"), say.given(OBJECT))
    watch = cluster.watch(CONFIG_MAP, resource_version="5", seconds=60, beat=0.05)
    next(watch)
    assert cluster.get(CONFIG_MAP, "one") is not None
    assert next(watch).type == QUIET


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (say.refused(410, "Expired"), Expired),
        (say.stream(json.dumps({"type": "ERROR", "object": say.status(410, "Expired")}).encode() + b"\n"), Expired),
        (
            say.stream(json.dumps({"type": "ERROR", "object": say.status(500, "InternalError")}).encode() + b"\n"),
            ServerFault,
        ),
        (say.stream(b"nonsense\n"), ServerFault),
        (say.stream(b'{"type": "ADDED"}\n'), ServerFault),
        (say.stream(b'{"type": "ADDED", "object": {"metadata": {}}}\n'), ServerFault),
        (say.plain(404, "404 page not found"), errors.KindNotServed),
        (say.refused(403, "Forbidden"), errors.Forbidden),
        (say.cut_off, Unreachable),
        (say.hang, Unreachable),
        (say.dribble, Unreachable),
    ],
)
def test_a_watch_that_fails_says_so(
    server: Answers, join: Connect, answer: Answer, kind: type[KubernetesError]
) -> None:
    server.then(answer)
    with pytest.raises(kind, match="cannot watch ConfigMap night"):
        list(join(server).watch(CONFIG_MAP, resource_version="5", seconds=30))


def test_following_goes_on_from_the_last_version_and_lists_again_when_that_is_forgotten(
    server: Answers, join: Connect
) -> None:
    listed = LIST | {"items": [OBJECT]}
    later = LIST | {"metadata": {"resourceVersion": "20"}, "items": []}
    server.then(
        say.given(listed),
        say.stream(say.event("ADDED", "two", 8), then="cut"),
        say.stream(say.event("MODIFIED", "two", 9), then="cut"),
        say.refused(410, "Expired"),
        say.given(later),
        say.stream(then="hang"),
    )
    changes = follow(join(server), CONFIG_MAP, wait=lambda _: False, beat=0.1, chance=lambda: 0.0)
    told = list(islice((change for change in changes if change is not None), 5))
    assert [(change.type, change.object["metadata"]["name"]) for change in told] == [
        ("ADDED", "one"),
        ("ADDED", "two"),
        ("MODIFIED", "two"),
        ("DELETED", "one"),
        ("DELETED", "two"),
    ]
    changes.close()
    versions = [asked.query.get("resourceVersion") for asked in server.asked]
    assert versions[:5] == [None, ["5"], ["8"], ["9"], None]


def test_a_log_comes_as_it_is_printed_and_beats_meanwhile(server: Answers, join: Connect) -> None:
    server.then(say.stream(b"one\n", b"two\n", then="hang"))
    pieces = join(server).log("p", container="main", follow=True, tail=5, timestamps=True, beat=0.1)
    assert b"".join(islice(pieces, 2)).startswith(b"one\n")
    assert b"" in list(islice(pieces, 3))
    pieces.close()
    asked = server.asked[0]
    assert asked.path == "/api/v1/namespaces/night/pods/p/log"
    assert asked.query == {"container": ["main"], "follow": ["true"], "tailLines": ["5"], "timestamps": ["true"]}


def test_a_log_that_is_cut_is_no_end(server: Answers, join: Connect) -> None:
    server.then(say.stream(b"one\n", then="cut"), say.stream(b"one\n"))
    cluster = join(server)
    with pytest.raises(Unreachable):
        list(cluster.log("p", follow=True))
    assert b"".join(cluster.log("p", follow=True)) == b"one\n"


def test_a_container_that_prints_nothing_for_long_is_no_fault(server: Answers, join: Connect) -> None:
    server.then(say.hang)
    pieces = join(server).log("p", follow=True, beat=0.2)
    assert list(islice(pieces, 5)) == [b""] * 5, "although even the head of the answer is late"
    pieces.close()
    assert server.becomes_idle()


def test_a_command_leaves_its_output_and_its_code(server: Answers, join: Connect) -> None:
    failed = say.status(500, "NonZeroExitCode", causes=[{"reason": "ExitCode", "message": "3"}])
    success = json.dumps({"status": "Success"}).encode()
    server.then(
        say.executed((1, b"out"), (2, b"said"), (1, b"put"), (3, success)),
        say.executed((1, b"x" * 300), (3, json.dumps(failed).encode())),
    )
    cluster = join(server)
    done = cluster.exec("p", ["cat", "a b"], container="main")
    assert (done.stdout, done.stderr, done.code) == (b"output", b"said", 0)
    assert cluster.exec("p", ["false"]).code == 3
    assert server.asked[0].query["command"] == ["cat", "a b"]
    assert server.asked[0].query["container"] == ["main"]
    assert server.asked[0].token == CANARY


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (say.executed((1, b"begun"), then="hang"), Unreachable),
        (say.executed((1, b"begun")), Unreachable),
        (say.executed((3, json.dumps(say.status(500, "InternalError", "no such command")).encode())), ServerFault),
        (say.executed((3, b"nonsense")), KubernetesError),
        (say.refused(403, "Forbidden"), errors.Forbidden),
        (say.refused(404, "NotFound"), errors.NotFound),
        (say.hang, Unreachable),
        (say.cut_off, Unreachable),
    ],
)
def test_a_command_that_cannot_be_run_says_so(
    server: Answers, join: Connect, answer: Answer, kind: type[KubernetesError]
) -> None:
    server.then(answer)
    began = time.monotonic()
    with pytest.raises(kind, match="cannot create Pod/exec night/p"):
        join(server).exec("p", ["true"], seconds=0.5)
    assert time.monotonic() - began < 5


def test_a_patient_client_gets_through(server: Answers, join: Connect) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return False

    patient = PatientCluster(join(server), wait=wait)
    server.then(
        say.refused(503, "Down"),
        say.cut_off,
        say.given(say.status(429, "TooManyRequests"), 429, Retry_After="2"),
        say.given(OBJECT),
    )
    assert patient.get(CONFIG_MAP, "one") == OBJECT
    assert waits[2] >= 2


# Certificates and credentials.


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Answers]:
    with Answers(say.certificate(tmp_path)) as answers:
        answers.otherwise = say.given(OBJECT)
        yield answers


def test_a_certificate_is_trusted_where_the_kubeconfig_says_so(tls: Answers, join: Connect) -> None:
    assert join(tls, cluster={"certificate-authority": "server.crt"}).get(CONFIG_MAP, "one") == OBJECT


@pytest.mark.parametrize("trusted", ["another", "nobody"])
def test_a_wrong_certificate_is_not_trusted(tls: Answers, join: Connect, tmp_path: Path, trusted: str) -> None:
    authority = {"certificate-authority": str(say.certificate(tmp_path, "another"))} if trusted == "another" else {}
    with pytest.raises(Unreachable, match=r"x509: .*check certificate-authority") as raised:
        join(tls, cluster=authority).create(CONFIG_MAP, OBJECT)
    assert not raised.value.may_have_happened
    assert tls.asked == []


def test_a_certificate_for_another_name_is_trusted_by_that_name_only(join: Connect, tmp_path: Path) -> None:
    with Answers(say.certificate(tmp_path, host="DNS:kubernetes.example")) as answers:
        answers.otherwise = say.given(OBJECT)
        authority = {"certificate-authority": "server.crt"}
        with pytest.raises(Unreachable, match="x509"):
            join(answers, cluster=authority).get(CONFIG_MAP, "one")
        named = authority | {"tls-server-name": "kubernetes.example"}
        assert join(answers, cluster=named).get(CONFIG_MAP, "one") == OBJECT


PLUGIN = """\
import json, os, sys
count = len(open({count!r}).read()) if os.path.exists({count!r}) else 0
open({count!r}, "a").write("x")
token = {tokens!r}[min(count, len({tokens!r}) - 1)]
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert info["spec"]["interactive"] is False and not sys.stdin.read()
print(json.dumps({{"apiVersion": info["apiVersion"], "kind": "ExecCredential",
    "status": {{"token": token, "expirationTimestamp": {until!r}}}}}))
"""


def _plugin(folder: Path, *tokens: str, until: str | None = None, source: str | None = None) -> dict[str, Any]:
    path = folder / "plugin.py"
    path.write_text(source or PLUGIN.format(count=str(folder / "count"), tokens=tokens, until=until))
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(path)],
            "env": [{"name": "MODE", "value": "test"}],
            "interactiveMode": "Never",
            "installHint": "install the plugin",
        }
    }


def test_an_exec_plugin_is_asked_once_and_again_after_a_401(server: Answers, join: Connect, tmp_path: Path) -> None:
    server.then(say.given(OBJECT), say.given(OBJECT), say.refused(401, "Unauthorized"), say.given(OBJECT))
    cluster = join(server, _plugin(tmp_path, "first-token", "second-token"))
    for _ in range(3):
        assert cluster.get(CONFIG_MAP, "one") == OBJECT
    assert [asked.token for asked in server.asked] == ["first-token"] * 3 + ["second-token"]


def test_an_expired_token_is_not_even_tried(server: Answers, join: Connect, tmp_path: Path) -> None:
    server.otherwise = say.given(OBJECT)
    soon = (datetime.now(UTC) + timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    cluster = join(server, _plugin(tmp_path, "first-token", "second-token", until=soon))
    for _ in range(2):
        cluster.get(CONFIG_MAP, "one")
    assert [asked.token for asked in server.asked] == ["first-token", "second-token"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (f"import sys; sys.exit('login expired, token {CANARY}')", r"failed: login expired, token \[withheld\]"),
        ("import sys; sys.exit(3)", "failed: exit code 3"),
        (f"print('{CANARY}')", "printed something else than an ExecCredential"),
        ("print('{}')", "gave no token"),
        ('print(\'{"status": {"clientCertificateData": "x"}}\')', "client certificates are not supported"),
        (f'print(\'{{"status": {{"token": "{CANARY}", "expirationTimestamp": "soon"}}}}\')', "expirationTimestamp"),
        ("print('x' * 2_000_000)", "something else"),
    ],
)
def test_a_plugin_that_fails_is_no_secret_but_its_token_is(
    server: Answers, join: Connect, tmp_path: Path, source: str, words: str
) -> None:
    cluster = join(server, _plugin(tmp_path, source=source), timeouts=Timeouts())
    with pytest.raises(
        Unauthorized, match=f"cannot get ConfigMap night/one: the exec plugin .*{words}.*log in again"
    ) as raised:
        cluster.get(CONFIG_MAP, "one")
    assert CANARY not in str(raised.value)
    assert server.asked == []


def test_a_plugin_that_is_not_installed_says_how(server: Answers, join: Connect, tmp_path: Path) -> None:
    user = _plugin(tmp_path, "t")
    user["exec"]["command"] = "./no-such-plugin"
    with pytest.raises(Unauthorized, match="install the plugin"):
        join(server, user).get(CONFIG_MAP, "one")


def test_a_token_that_cannot_be_sent_is_not_shown(server: Answers, join: Connect) -> None:
    with pytest.raises(Unreachable, match="check that the token is one line") as raised:
        join(server, {"token": f"{CANARY}\n{CANARY}"}).get(CONFIG_MAP, "one")
    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert not raised.value.may_have_happened


def test_a_pod_uses_its_own_account_and_notices_a_new_token(tls: Answers, tmp_path: Path) -> None:
    account = tmp_path / "account"
    account.mkdir()
    (account / "ca.crt").write_bytes((tmp_path / "server.crt").read_bytes())
    (account / "namespace").write_text("team-b\n")
    (account / "token").write_text("first-token\n")
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(tls.server_port)}
    with connect(kubeconfig=None, context=None, namespace=None, environ=environ, service_account=account) as cluster:
        assert cluster.namespace == "team-b"
        cluster.get(CONFIG_MAP, "one")
        (account / "token").write_text("second-token\n")
        tls.then(say.refused(401, "Unauthorized"))
        assert cluster.get(CONFIG_MAP, "one") == OBJECT
    assert [asked.token for asked in tls.asked] == ["first-token", "first-token", "second-token"]


def test_a_new_kubeconfig_is_read_after_a_401(server: Answers, tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "kubeconfig", server.url, {"token": "first-token"})
    server.then(say.refused(401, "Unauthorized"), say.given(OBJECT), say.refused(401, "Unauthorized"))
    with PatientCluster(connect(kubeconfig=path, context=None, namespace=None), wait=lambda _: True) as cluster:
        write_kubeconfig(path, server.url, {"token": "second-token"})
        assert cluster.get(CONFIG_MAP, "one") == OBJECT
        path.write_text("")
        with pytest.raises(ConfigError, match="is empty"):
            cluster.get(CONFIG_MAP, "one")
    assert [asked.token for asked in server.asked] == ["first-token", "second-token", "second-token"]


def test_a_secret_is_quoted_in_no_error(server: Answers, join: Connect) -> None:
    causes = [{"field": "data.x", "message": f"Invalid value: {CANARY}", "reason": "FieldValueInvalid"}]
    server.then(say.refused(422, "Invalid", f"Invalid value: {CANARY}", causes=causes))
    with pytest.raises(Invalid) as raised:
        join(server).create(SECRET, {"metadata": {"name": "one"}, "stringData": {"x": CANARY}})
    assert CANARY not in repr([raised.value, raised.value.causes])


def test_nothing_is_connected_to_before_something_is_asked(join: Connect) -> None:
    with Answers() as answers:
        join(answers)
        assert answers.open == 0


def test_without_lightkube_the_extra_is_named_and_nothing_heavy_is_imported_before(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from run_cycle_loop.clients.kubernetes.connecting import connect
        from run_cycle_loop.clients.kubernetes import api, errors, following, kinds, patient
        print(sorted(sys.modules.keys() & {"lightkube", "httpx2", "yaml", "tenacity", "asyncio"}))
        sys.modules["lightkube"] = None
        try:
            connect(kubeconfig=Path("none"), context=None, namespace=None)
        except Exception as error:
            print(type(error).__name__, error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    loaded, said = done.stdout.splitlines()
    assert loaded == "[]"
    assert said.startswith("ConfigError Kubernetes needs lightkube")
    assert said.endswith("pip install 'run-cycle-loop[kubernetes]'")


def test_bookmarks_without_an_end_leave_whoever_listens_his_turn(server: Answers, join: Connect) -> None:
    def marks(handler: say.Handler) -> None:
        handler.begin()
        while not server.released.wait(0.02):
            handler.piece(say.event("BOOKMARK", "", 12))

    server.then(marks)
    watch = join(server).watch(CONFIG_MAP, resource_version="5", seconds=5.0, beat=0.2)
    began = time.monotonic()
    assert next(watch).type == QUIET
    assert time.monotonic() - began < 2.0
    watch.close()


def test_a_signal_is_heard_in_the_middle_of_a_call(server: Answers, join: Connect) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server.then(say.hang)
        began = time.monotonic()
        threading.Timer(0.2, theirs.send, [b"x"]).start()
        with pytest.raises(Unreachable, match="a signal came before it") as raised:
            join(server, timeouts=Timeouts(), alarm=ours.fileno()).create(CONFIG_MAP, OBJECT)
        assert raised.value.may_have_happened
        assert time.monotonic() - began < 5


def test_patience_ends_with_its_budget_even_in_a_call_that_hangs(server: Answers, join: Connect) -> None:
    server.then(say.hang)
    began = time.monotonic()
    with pytest.raises(Unreachable, match="it took too long"):
        PatientCluster(join(server, timeouts=Timeouts()), wait=lambda _: False, budget=0.6).get(CONFIG_MAP, "one")
    assert time.monotonic() - began < 5
