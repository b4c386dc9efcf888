"""The adapter ``exec``: the provider's command, with its input files written and its output in the log."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from run_cycle_loop.agentrun.local import mounts as places
from run_cycle_loop.agentrun.local.mounts import Mount
from run_cycle_loop.agentrun.local.processes import WORKLOAD
from run_cycle_loop.kit import files, process_table, processes
from run_cycle_loop.kit.processes import EndedBy, Launched, LaunchError, Limits, Pulse
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.start_attempt import outcome, view
from run_cycle_loop.start_attempt.filling import fill, names_environment
from run_cycle_loop.start_attempt.outcome import Outcome
from run_cycle_loop.start_attempt.spec import Spec
from run_cycle_loop.stores.cycle_logs import CycleLogFile

_LARGEST = 4 << 20  #: bytes of a command line; the kernel takes less


def run(
    spec: Spec, environ: Mapping[str, str], log: CycleLogFile, pulse: Pulse, *, grace: float, scratch: Path
) -> Outcome:
    """Run the command to its end and to the end of everything it started.

    Args:
        spec: the attempt.
        environ: of this process.
        log: takes the output.
        pulse: what demands an end from outside.
        grace: seconds between TERM and KILL.
        scratch: the attempt's own folder, where input files outside of every mount are kept.

    Raises:
        ConfigError: the spec names no command, or its input files cannot be placed.
    """
    argv, texts = _asked(spec, environ, log)
    env = view.workload_environment(environ) | texts
    told = {"binary": argv[0], "args": argv[1:]}
    mounts = _with_input_files(spec, environ, log, scratch)
    try:
        env_of_launch = env | ({view.BUBBLEWRAP: environ[view.BUBBLEWRAP]} if environ.get(view.BUBBLEWRAP) else {})
        line = view.wrapped(argv, environ=env_of_launch, mounts=mounts, folder=places.WORKSPACE)
        done = processes.supervise(
            line,
            env,
            limits=Limits(grace=grace),
            output=log.write,
            pulse=pulse,
            launched=lambda one: _note(one, scratch),
        )
    except LaunchError as error:
        log.note(str(error))
        return outcome.ended(error.exit_code, str(error), **told)
    if done.leftovers:
        log.note(f"the command left {done.leftovers} processes behind, which were ended")
    if done.ended_by is EndedBy.DEMAND:
        return outcome.cancelled("the command was ended from outside", **told)
    if done.signal is not None:
        return outcome.ended(128 + done.signal, f"signal {done.signal} ended the command", signal=done.signal, **told)
    code = done.exit_code or 0
    return outcome.ended(code, f"the command ended with exit code {code}" if code else "", **told)


def _note(launched: Launched, scratch: Path) -> None:
    """Leave the command's process to who finds neither us nor it: it may have cleared the variables that mark it."""
    if launched.start_ticks is None:
        return
    told = {"pid": launched.pid, "startTicks": launched.start_ticks, "bootId": process_table.boot_id()}
    with contextlib.suppress(OSError):
        files.replace_file(scratch / WORKLOAD, json.dumps(told).encode())


def _asked(spec: Spec, environ: Mapping[str, str], log: CycleLogFile) -> tuple[list[str], dict[str, str]]:
    """The command line, and variables beside those of this process.

    Where a pod would start the provider's command itself, that command is taken as the controller has filled it in.
    """
    if environ.get(view.COMMAND):
        return _own_command(environ[view.COMMAND]), {}
    settings, context = spec.settings, spec.context
    binary = settings.get("binary")
    if not isinstance(binary, str) or not binary.strip():
        raise ConfigError("adapter.exec.binary is missing; name the AgentProvider's binary")
    words = [word for word in _list(settings.get("argsTemplate")) if isinstance(word, str)]
    texts = {name: text for name, text in _map(settings.get("envTemplate")).items() if isinstance(text, str)}
    for text in (*words, *texts.values()):
        if names_environment(text):
            log.note(f"{text!r:.120} names the environment, which is not filled in here: it stays as it is")
    argv = [binary.strip(), *(fill(word, context) for word in words)]
    return argv, {name: fill(text, context) for name, text in texts.items()}


def _own_command(path: str) -> list[str]:
    try:
        words = json.loads(files.read_bounded(path, _LARGEST))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the command in {path} cannot be read: {error}; leave it to the engine") from error
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise ConfigError(f"{path} holds no list of words; leave it to the engine")
    return words


def _with_input_files(spec: Spec, environ: Mapping[str, str], log: CycleLogFile, scratch: Path) -> tuple[Mount, ...]:
    """Write the provider's input files; returns the mounts, with those among them that lie outside of all others."""
    mounts = list(spec.mounts)
    for number, one in enumerate(_list(spec.settings.get("inputFiles")), 1):
        path, content = _map(one).get("path"), _map(one).get("content")
        if not isinstance(path, str) or not isinstance(content, str) or not path.strip():
            continue
        if not environ.get(view.COMMAND):  # a runner fills them in; a pod mounts them as they are
            content = fill(content, spec.context)
        # The engine has mounted the file as it is written; this one takes its place.
        mounts = [mount for mount in mounts if mount.path != path.strip()]
        data = content.encode("utf-8", "surrogateescape")
        target = None if environ.get(view.BUBBLEWRAP) else places.translate(path.strip(), mounts)
        if target is None and environ.get(view.BUBBLEWRAP):
            target = os.fspath(scratch / "inputs" / str(number))
            mounts.append(Mount(path=path.strip(), folder=target))
        if target is None:
            log.note(
                f"the input file {path} lies in no mount and was not written; install bubblewrap, or mount a volume"
            )
            continue
        _write(Path(target), data)
    return tuple(mounts)


def _write(path: Path, data: bytes) -> None:
    try:
        files.make_folder(path.parent)
        files.replace_file(path, data)
    except OSError as error:
        raise ConfigError(
            f"the input file {path} cannot be written: {error.strerror or error}; free its place"
        ) from error


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
