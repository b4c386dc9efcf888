"""What is read from files, folders and standard input, with its lines, and what is refused before it can do harm."""

import os
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.agentrun.manifests.documents import LARGEST, MOST, Bundle, read_bundle
from run_cycle_loop.agentrun.manifests.field_paths import child, parent
from run_cycle_loop.model.errors import ConfigError
from tests.unit.agentrun.bundles import GOOD, LOOP, bundle

PLAIN = "kind: ConfigMap\nmetadata: {name: a}\n"


def nothing() -> bytes:
    raise AssertionError("nobody asked for standard input")


def read(text: str | bytes) -> Bundle:
    data = text.encode() if isinstance(text, str) else text
    return read_bundle(["-"], stdin=lambda: data)


def body(text: str) -> Any:
    (document,) = read(f"kind: x\n{text}").documents
    return {key: value for key, value in document.body.items() if key != "kind"}


def test_several_documents_know_their_file_and_their_lines() -> None:
    given = bundle(GOOD)
    run = given.runs[0]

    assert [one.where for one in given.documents][:3] == [
        "ConfigMap/prompts",
        "Secret/github-token",
        "PersistentVolumeClaim/claim",
    ]
    assert (run.file, run.where, run.namespace) == ("-", "AgentRun/run", "agents")
    lines = GOOD.split("\n")
    for path, words in [
        ("kind", "kind: AgentRun"),
        ("spec.agentRef.name", "agentRef: {name: demo}"),
        (f"{LOOP}.maxIterations", "maxIterations: 5"),
        (f"{LOOP}.condition.source.path", "source:"),
        ("spec.workload.volumes[0]", "- {name: workspace"),
        (f"{LOOP}.state.volumeNames[0]", "state:"),
    ]:
        assert words in lines[run.line_of(path) - 1], path


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("spec.workflow.steps[0].loop.nothing.there", "loop:"),
        ("spec.workflow.steps[7].name", "steps:"),
        ('metadata.annotations["a.b/c"]', "annotations:"),
        ("spec.secrets[3]", "secrets:"),
        ("", "apiVersion: agents.proompteng.ai/v1alpha1"),
    ],
)
def test_what_is_missing_has_the_line_of_what_is_around_it(path: str, nearest: str) -> None:
    line = bundle(GOOD).runs[0].line_of(path)

    assert nearest in GOOD.split("\n")[line - 1]


def test_a_list_is_unpacked_and_its_items_keep_their_lines() -> None:
    given = read(
        "kind: List\nitems:\n- kind: ConfigMap\n  metadata: {name: a}\n- kind: Secret\n  metadata:\n    name: b\n"
    )

    assert [(one.where, one.line, one.line_of("metadata.name")) for one in given.documents] == [
        ("ConfigMap/a", 3, 4),
        ("Secret/b", 5, 7),
    ]


def test_empty_documents_are_passed_over() -> None:
    assert len(read(f"---\n---\n{PLAIN}---\n# nothing\n---\n{PLAIN}").documents) == 2


def test_an_object_without_namespace_is_in_that_of_runs() -> None:
    given = read(f"{PLAIN}---\nkind: ConfigMap\nmetadata: {{name: b, namespace: other}}\n")

    assert [one.namespace for one in given.documents] == ["agents", "other"]
    assert given.resources("agents").get("ConfigMap", "a") is not None
    assert given.resources("agents").get("ConfigMap", "b") is None
    assert not given.resources("agents").complete


def test_an_agent_of_another_group_is_no_agent_of_ours() -> None:
    given = read("apiVersion: other.test/v1\nkind: Agent\nmetadata: {name: demo}\n")

    assert given.resources("agents").get("Agent", "demo") is None
    assert given.runs == ()


def test_files_and_folders_are_read_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    (folder / "deeper").mkdir(parents=True)
    for name in ("b.yaml", "a.yml", "c.json", "notes.txt", ".hidden.yaml", "deeper/d.yaml"):
        text = PLAIN.replace("name: a", f"name: {Path(name).stem.strip('.')}")
        (folder / name).write_text('{"kind": "ConfigMap", "metadata": {"name": "c"}}' if name == "c.json" else text)
    single = tmp_path / "z.yaml"
    single.write_text(PLAIN.replace("name: a", "name: z"))

    given = read_bundle([str(single), str(folder)], stdin=nothing)

    assert [(one.name, os.path.basename(one.file)) for one in given.documents] == [  # noqa: PTH119 - names as given
        ("z", "z.yaml"),
        ("a", "a.yml"),
        ("b", "b.yaml"),
        ("c", "c.json"),
    ]


def test_a_link_is_followed_for_the_operator_named_it(tmp_path: Path) -> None:
    (tmp_path / "real.yaml").write_text(PLAIN)
    (tmp_path / "link.yaml").symlink_to(tmp_path / "real.yaml")

    assert read_bundle([str(tmp_path / "link.yaml")], stdin=nothing).documents[0].name == "a"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2026-03-01", "2026-03-01"),
        ("2026-03-01T10:00:00Z", "2026-03-01T10:00:00Z"),
        ("1:30", "1:30"),
        ("yes", True),
        ("n", False),
        ("Off", False),
        ("'yes'", "yes"),
        ("~", None),
        ("", None),
        ("7", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 15),
        ("08", 8.0),
        ("1_000", 1000),
        ("5e3", 5000.0),
        (".5", 0.5),
        ("1.2.3", "1.2.3"),
        ("500m", "500m"),
        ("18446744073709551616", 18446744073709551616.0),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("!!timestamp 2026-03-01", "2026-03-01"),
        ('"\\u00e9\\ttab"', "é\ttab"),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("0b_", "0b_"),
        ("+", "+"),
    ],
)
def test_a_scalar_is_what_kubectl_makes_of_it(written: str, value: Any) -> None:
    found = body(f"x: {written}\n")["x"]
    assert (found, type(found)) == (value, type(value))


def test_anchors_merge_keys_and_json_are_read() -> None:
    assert body("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\nc: [*x, *x]\nd: {<<: [{p: 4}, *x]}\n") == {
        "a": {"p": 1, "q": 2},
        "b": {"p": 1, "q": 3},
        "c": [{"p": 1, "q": 2}, {"p": 1, "q": 2}],
        "d": {"p": 4, "q": 2},
    }
    assert read('{"kind": "x",\t"a": "\\ud83d\\ude00 \\/"}').documents[0].body["a"] == "😀 /"
    assert read('{"kind": "x",\n\t"a": [1, 2]}').documents[0].line_of("a[1]") == 2


def test_marks_of_windows_and_of_byte_order_are_no_part_of_the_text() -> None:
    given = read("\ufeffkind: x\r\nmetadata:\r\n  name: a\r\n")

    assert (given.documents[0].where, given.documents[0].line_of("metadata.name")) == ("x/a", 3)


def long_paths() -> str:
    """Ninety keys of a thousand characters, one in the other, and values at the bottom: 350 KB that name 5 GB."""
    keys = "".join(f"{' ' * depth}{'k' * 1000}:\n" for depth in range(90))
    return f"{keys}{' ' * 90}[{','.join('0' * 60_000)}]\n"


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (long_paths(), "-:91:836 has too many values below keys that are too long; shorten the keys, or split it"),
        (bomb(), "-:6:10 holds more than 200000 values, each use of an alias counted; split it"),
        (f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1000)}]", "holds more than 200000 values"),
        ("a: b\n\tc: d\n", "-:2:1 is no YAML"),
        (
            "a:\n\tb: 1\n",
            "-:2:1 is no YAML: found character that cannot start any token; indent with blanks, not with tabs",
        ),
        ("a: \0b\n", "-:1:4 holds the control character '\\x00'; remove it"),
        ("a: 1\nb: \x1b[0m\n", "-:2:4 holds the control character '\\x1b'"),
        (b"a: 1\nb: \xff\xfe\n", "-:2:4 holds the byte 0xff, which is no UTF-8; save it as UTF-8"),
        ("kind: x\n".encode("utf-16"), "-:1:1 holds the byte 0xff"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "-:1:1 holds the control character"),
        ("[" * 50_000, "is no YAML: exceeded maximum nesting depth"),
        ("{" * 50_000, "is no YAML"),
        ("- " * 200 + "a", "-:1:201 nests deeper than 100 levels; flatten it"),
        ('{"a":' * 150 + "1" + "}" * 150, "nests deeper than 100 levels"),
        ('{"b":"\\ud83d\\ude00","a":' + '{"a":' * 150 + "1" + "}" * 151, "is no YAML"),
        ("a: 1\nb: 2\na: 3\n", "-:3:1 has the key a twice; keep one"),
        ("1: a\n'1': b\n", "-:2:1 has the key 1 twice"),
        ("a: {{ env.X }}\n", "write `key: value`, and quote what holds `{{`"),
        ("? [1]\n: 2\n", "has a key that is no plain word"),
        ("a: @b\n", "quote what begins with @"),
        ("a: .nan\n", "-:1:4 has .nan, a number that JSON has not; quote it"),
        ("a: 1e999\n", "has the number 1e999, which is too large; quote it"),
        (f"a: {'9' * 5000}\n", "which is too large"),
        ("a: *b\n", "-:1:4 has the alias *b before its anchor; define that first"),
        ("a: &a [*a]\n", "has the alias *a before its anchor"),
        ("a: !!python/object/apply:os.system [x]\n", "has the tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("a: !!binary aGk=\n", "has the tag tag:yaml.org,2002:binary that does not fit"),
        ("a: !!int x\n", "has the tag tag:yaml.org,2002:int that does not fit"),
        ("a: {<<: 5}\n", "merges with << what is no mapping; name the anchor of a mapping"),
        ("a: 'b\n", "-:2:1 is no YAML: found unexpected end of stream; mend it"),
        ("%FOO\n---\na: 1\n", "-:1:5 is no YAML"),
        ("- a\n- b\n", "-:1:1 is a list, no object; begin it with apiVersion and kind"),
        ("hello\n", "-:1:1 is the value 'hello', no object"),
        ("kind: List\nitems:\n- 5\n", "-:3:1 has no object as item 1 of its list"),
        ("", "- holds no object; give a file with an AgentRun"),
        ("# nothing\n---\n", "- holds no object"),
        ("a" * (LARGEST + 1), "standard input is larger than 4 MiB; split it"),
        ("---\nkind: x\n" * (MOST + 1), "brings the manifests to more than 2000 objects"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_with_its_place(text: str | bytes, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(text)

    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "does not exist; check the name"),  # noqa: ARG005 - nothing is made
        (lambda path: path.mkdir(), "holds no *.yaml, *.yml or *.json"),
        (os.mkfifo, "cannot be read (not a regular file); give an ordinary file, or pipe it in"),
        (lambda path: path.write_bytes(b"a" * (LARGEST + 1)), "is larger than 4 MiB; split it"),
        (lambda path: path.symlink_to(path), "cannot be read"),
        (lambda path: path.symlink_to("/dev/zero"), "cannot be read (not a regular file)"),
    ],
)
def test_what_is_no_file_is_one_sentence_with_its_name(tmp_path: Path, make: Any, words: str) -> None:
    path = tmp_path / "manifest.yaml"
    make(path)

    with pytest.raises(ConfigError) as raised:
        read_bundle([str(path)], stdin=nothing)

    assert str(raised.value).startswith(f"{path} ")
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (["-", "-"], "given twice"),
        (["a\0b"], "no name of a file"),
        ([""], "no name of a file"),
        ([], "holds no object"),
    ],
)
def test_what_is_no_name_is_refused(sources: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_bundle(sources, stdin=PLAIN.encode)


@pytest.mark.parametrize(
    ("steps", "path"),
    [
        (["spec", "workflow", "steps", 0, "loop"], "spec.workflow.steps[0].loop"),
        (["metadata", "annotations", "a.b/c"], 'metadata.annotations["a.b/c"]'),
        ([0, "a"], "[0].a"),
        (["a b"], '["a b"]'),
        (['q"'], '["q\\""]'),
    ],
)
def test_a_path_leads_in_and_out_again(steps: list[str | int], path: str) -> None:
    built = [""]
    for step in steps:
        built.append(child(built[-1], step))

    assert built[-1] == path
    assert [parent(one) for one in built[1:]] == built[:-1]
