"""A full durable cycle of ``true`` beside one bare spawn of it, beside its own effects by hand, and beside a shell."""

import json
import shutil

import pytest

from tests.benchmarks.conftest import Bench
from tests.benchmarks.figures import Target
from tests.benchmarks.processes import Loop

pytestmark = pytest.mark.benchmark

ROUNDS = 5
FEW, MANY = 20, 420  #: cycles; the difference leaves start-up out
SPAWNS = 300
SHELL_CYCLES = 100
TRUE = shutil.which("true") or "/bin/true"  #: by its path, for shells that have their own

#: One process after the other and nothing else: COUNT ARGV...
BARE_SPAWN = """
import os, shutil, sys, time
count, argv = int(sys.argv[1]), sys.argv[2:]
path = shutil.which(argv[0])
began = time.perf_counter()
for _ in range(count):
    os.waitpid(os.posix_spawn(path, argv, os.environ), 0)
print((time.perf_counter() - began) / count)
"""

#: The system calls that a durable cycle cannot do without, and no supervision at all: COUNT PATH.
BARE_EFFECTS = """
import os, sys, time
count, path = int(sys.argv[1]), sys.argv[2]
flags = os.O_WRONLY | os.O_CREAT
flight, history = os.open("flight", flags), os.open("history", flags | os.O_APPEND)
began = time.perf_counter()
for number in range(count):
    log = os.open(f"{number}.log", flags | os.O_EXCL)
    os.write(log, b"l" * 300)
    os.pwrite(flight, b"f" * 400, 0)
    os.fdatasync(flight)
    out, err = os.pipe(), os.pipe()
    child = os.posix_spawn(path, [path], os.environ)
    os.waitpid(child, 0)
    for end in (*out, *err, log):
        os.close(end)
    os.write(history, b"h" * 889 + b"\\n")
    os.fdatasync(history)
    latest = os.open("latest.tmp", flags)
    os.write(latest, b"s" * 900)
    os.close(latest)
    os.replace("latest.tmp", "latest.json")
print((time.perf_counter() - began) / count)
"""

BASH_LOOP = 'for ((n = 0; n < $1; n++)); do "$2"; done'

#: What one would write without a supervisor: a time limit, a log for each run, a synced record, one file to look at.
CAREFUL_BASH_LOOP = """
mkdir -p logs
for ((n = 0; n < $1; n++)); do
    began=$EPOCHREALTIME
    timeout 300 "$2" >"logs/$n.log" 2>&1
    line="{\\"number\\":$n,\\"return_code\\":$?,\\"started_at\\":$began,\\"finished_at\\":$EPOCHREALTIME}"
    echo "$line" >>history.jsonl
    sync -d history.jsonl
    echo "$line" >latest.tmp
    mv latest.tmp latest.json
done
"""


def cycle(loop: Loop) -> float:
    """Milliseconds for one more cycle."""
    few, many = (
        loop.seconds("run", "--iterations", str(count), "--sleep", "0", "--log-level", "error", "--", "true")
        for count in (FEW, MANY)
    )
    return (many - few) / (MANY - FEW) * 1000


def test_a_durable_cycle(bench: Bench) -> None:
    loop = bench.loop()
    ours, spawn, timeout, effects, bash, careful = bench.alternate(
        ROUNDS,
        lambda: cycle(loop),
        lambda: bench.python(BARE_SPAWN, str(SPAWNS), "true") * 1000,
        lambda: bench.python(BARE_SPAWN, str(SPAWNS), "timeout", "10", "true") * 1000,
        lambda: bare_effects(bench) * 1000,
        lambda: bench.seconds("bash", "-c", BASH_LOOP, "bash", str(SPAWNS), TRUE) / SPAWNS * 1000,
        lambda: bench.seconds("bash", "-c", CAREFUL_BASH_LOOP, "bash", str(SHELL_CYCLES), TRUE) / SHELL_CYCLES * 1000,
    )
    what = "durable cycle of true"
    bench.compare(what, "ms", ours, "bare spawn", spawn, Target(of="ratio", most=4))
    bench.compare(what, "ms", ours, "its system calls by hand", effects)
    bench.compare(what, "ms", ours, "timeout 10 true", timeout)
    bench.compare(what, "ms", ours, "bash loop", bash)
    bench.compare(what, "ms", ours, "bash loop with timeout, log, synced record", careful)

    assert loop.outcomes() == ["success"] * ROUNDS * (FEW + MANY)
    assert loop.latest["seq"] == ROUNDS * (FEW + MANY)
    assert json.loads((bench.folder / "latest.json").read_text())["return_code"] == 0


def bare_effects(bench: Bench) -> float:
    shutil.rmtree(bench.folder / "effects", ignore_errors=True)
    (bench.folder / "effects").mkdir()
    return bench.python(f"import os\nos.chdir('effects')\n{BARE_EFFECTS}", str(SPAWNS), TRUE)
