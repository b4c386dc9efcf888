"""A bundle in which nothing is to be found, and how to change it."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from run_cycle_loop.agentrun.checks.findings import Finding
from run_cycle_loop.agentrun.checks.validation import validate
from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.manifests.documents import Bundle, read_bundle
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.resources import Resources

GOOD = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: prompts, namespace: agents}
data:
  system-prompt.md: be good
---
apiVersion: v1
kind: Secret
metadata: {name: github-token, namespace: agents}
stringData: {token: canary}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: claim, namespace: agents}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
---
apiVersion: agents.proompteng.ai/v1alpha1
kind: AgentProvider
metadata: {name: codex, namespace: agents}
spec:
  binary: /usr/local/bin/agent-runner
---
apiVersion: agents.proompteng.ai/v1alpha1
kind: VersionControlProvider
metadata: {name: github, namespace: agents}
spec:
  provider: github
  auth: {method: token, token: {secretRef: {name: github-token, key: token}}}
---
apiVersion: agents.proompteng.ai/v1alpha1
kind: Agent
metadata: {name: demo, namespace: agents}
spec:
  providerRef: {name: codex}
  defaults:
    systemPromptRef: {kind: ConfigMap, name: prompts, key: system-prompt.md}
---
apiVersion: agents.proompteng.ai/v1alpha1
kind: ImplementationSpec
metadata: {name: task, namespace: agents}
spec:
  text: Do the work. Say in /workspace/.agentrun/loop-control.json whether more is left.
---
apiVersion: agents.proompteng.ai/v1alpha1
kind: AgentRun
metadata:
  name: run
  namespace: agents
  annotations: {run-cycle-loop/loop-control-writer: the agent}
spec:
  agentRef: {name: demo}
  implementationSpecRef: {name: task}
  runtime: {type: workflow}
  workflow:
    steps:
      - name: implement
        timeoutSeconds: 5400
        loop:
          maxIterations: 5
          condition:
            type: cel
            expression: has(iteration.last.control.more) && iteration.last.control.more == true
            source: {type: file, path: /workspace/.agentrun/loop-control.json}
          state: {required: true, volumeNames: [workspace]}
  vcsRef: {name: github}
  vcsPolicy: {required: true, mode: read-write}
  secrets: [github-token]
  parameters: {repository: acme/app, base: main, head: codex/run}
  workload:
    volumes:
      - {name: workspace, type: pvc, claimName: claim, mountPath: /workspace}
"""
FLAGS = ControllerFlags(known=True, loops_enabled=True, runner_image="registry.test/runner:1")
ALL = (Profile.GUIDE, Profile.CURRENT)
STEP = "spec.workflow.steps[0]"
LOOP = f"{STEP}.loop"
CONDITION = f"{LOOP}.condition"
GONE = object()  #: takes a field away


@dataclass(frozen=True, kw_only=True)
class Case:
    """A change, and all that is found then: severity, reason, path; a path in another object has that before it."""

    changes: Mapping[str, Any]  #: by path, ``Kind path`` in another object than the run
    found: tuple[str, ...]
    profiles: tuple[Profile, ...] = ALL
    flags: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()  #: kinds that are left out of the bundle
    complete: bool = False

    def __str__(self) -> str:
        words = ",".join((*(f"{key}={value!r:.30}" for key, value in self.changes.items()), *self.without, *self.flags))
        return f"{words}->{self.found[0] if self.found else 'nothing'}"

    def validated(self, profile: Profile) -> tuple[Finding, ...]:
        given = bundle(GOOD)
        documents = []
        for document in given.documents:
            if document.kind in self.without:
                continue
            own = {_path(key): value for key, value in self.changes.items() if _kind(key) == document.kind}
            body: Any = copy.deepcopy(document.body)
            for path, value in own.items():
                put(body, path, value)
            name = body.get("metadata", {}).get("name") if isinstance(body.get("metadata"), dict) else ""
            name, kind = (one if isinstance(one, str) else "" for one in (name, body.get("kind")))
            documents.append(replace(document, body=body, kind=kind, name=name))
        resources = Resources(complete=True) if self.complete else None
        flags = replace(FLAGS, **self.flags)
        return validate(Bundle(documents=tuple(documents)), profile=profile, flags=flags, resources=resources)


def bundle(text: str) -> Bundle:
    return read_bundle(["-"], stdin=text.encode)


def briefly(findings: tuple[Finding, ...]) -> list[str]:
    """Each as ``severity Reason path``."""
    return [
        f"{one.severity} {one.reason} {'' if one.where.startswith('AgentRun') else one.where + ' '}{one.path}".rstrip()
        for one in findings
    ]


def put(body: Any, path: str, value: Any) -> None:
    """Set a field; what leads to it is made."""
    steps = [int(number) if number else key for number, key in re.findall(r"\[(\d+)\]|([^.\[\]]+)", path)]
    for step, following in pairwise(steps):
        if isinstance(body, dict) and not isinstance(body.get(step), dict | list):
            body[step] = [] if isinstance(following, int) else {}
        if isinstance(body, list) and isinstance(step, int) and step == len(body):
            body.append({})
        body = body[step]
    last = steps[-1]
    if value is GONE:
        del body[last]
    elif isinstance(body, list) and last == len(body):
        body.append(value)
    else:
        body[last] = value


def _kind(key: str) -> str:
    return key.partition(" ")[0] if " " in key else "AgentRun"


def _path(key: str) -> str:
    return key.rpartition(" ")[2]
