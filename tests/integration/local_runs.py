"""Runs of this machine as a command of the tests': what the product's command line does, and no more.

``python -m tests.integration.local_runs run|resume|cancel STATE MANIFEST.json|NAME [options]``
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from run_cycle_loop.agentrun.flags import LOCAL
from run_cycle_loop.agentrun.lifecycle.status import RunStatus
from run_cycle_loop.agentrun.local.machine import AttemptPlan, Machine, Transition
from run_cycle_loop.agentrun.local.runs import request_cancel, resume, run_locally
from run_cycle_loop.agentrun.model import read_run
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.resources import Resources
from run_cycle_loop.controls.signals import SignalInbox
from run_cycle_loop.controls.stop import StopControl
from run_cycle_loop.controls.stop_file import StopFile
from run_cycle_loop.kit.clock import SystemClock
from run_cycle_loop.model.errors import RunCycleLoopError
from run_cycle_loop.stores.runs import FILE_NAME, SqliteRunStore

NAMESPACE = "agents"
PATIENCE = 30.0


def launch(plan: AttemptPlan) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "run_cycle_loop.start_attempt", str(plan.spec))


def machine_at(state: Path, **changes: Any) -> Machine:
    known: dict[str, Any] = {
        "state": state,
        "launch": launch,
        "clock": SystemClock(),
        "environ": {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        "grace": 2.0,
    }
    return Machine(**known | changes)


def manifest(
    script: str,
    name: str = "demo",
    *,
    loop: dict[str, Any] | None = None,
    step: dict[str, Any] | None = None,
    provider: dict[str, Any] | None = None,
    run: dict[str, Any] | None = None,
    more: list[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """A bundle whose one step runs a shell script, with the claim ``work`` mounted at ``/workspace``."""
    known = {"name": "implement", **({"loop": loop} if loop else {}), **(step or {})}
    volume = {"name": "workspace", "type": "pvc", "claimName": "work", "mountPath": "/workspace"}
    return [
        document("AgentProvider", "sh", {"binary": "/bin/sh", "argsTemplate": ["-c", script], **(provider or {})}),
        document("Agent", "agent", {"providerRef": {"name": "sh"}}),
        document(
            "AgentRun",
            name,
            {
                "agentRef": {"name": "agent"},
                "implementation": {"inline": {"text": "Do it."}},
                "runtime": {"type": "workflow"},
                "workload": {"volumes": [volume]},
                "workflow": {"steps": [known]},
                **(run or {}),
            },
        ),
        *(more or []),
    ]


def document(kind: str, name: str, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "agents.proompteng.ai/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec, **more}


def conditional(maximum: int = 5, expression: str = "iteration.last.control.continue == true", **source: str) -> Any:
    """A loop with a condition over the control file at its default path."""
    condition = {"type": "cel", "expression": expression, "source": {"type": "file", **source}}
    return {"maxIterations": maximum, "condition": condition}


def run_documents(documents: list[dict[str, Any]], machine: Machine, *, strict: bool, profile: Profile) -> RunStatus:
    body = next(one for one in documents if one["kind"] == "AgentRun")
    return run_locally(
        read_run(body),
        Resources.of([one for one in documents if one is not body]),
        profile=profile,
        flags=LOCAL,
        strict_cluster=strict,
        machine=machine,
    )


def _tell(transition: Transition) -> None:
    print(json.dumps({"kind": transition.kind, **transition.facts}), flush=True)


def _carried_out(options: argparse.Namespace) -> str:
    with SqliteRunStore(options.state / FILE_NAME) as store, SignalInbox() as inbox:
        stop = StopControl(inbox, StopFile(options.state / "stop"), SystemClock(), watch=False)
        machine = machine_at(options.state, store=store, stop=stop, report=_tell, isolate=options.isolate)
        if options.what == "run":
            documents = json.loads(Path(options.subject).read_text())
            return run_documents(documents, machine, strict=options.strict, profile=Profile(options.profile)).phase
        if options.what == "resume":
            return resume(NAMESPACE, options.subject, flags=LOCAL, machine=machine).phase
        return request_cancel(NAMESPACE, options.subject, "by hand", flags=LOCAL, machine=machine).phase


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("run", "resume", "cancel"))
    parser.add_argument("state", type=Path)
    parser.add_argument("subject")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--isolate", default="auto")
    parser.add_argument("--profile", default="guide")
    options = parser.parse_args()
    try:
        phase = _carried_out(options)
    except RunCycleLoopError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps({"kind": "phase", "phase": phase}), flush=True)
    return 0 if phase == "Succeeded" else 1


if __name__ == "__main__":
    sys.exit(main())
