"""Volumes, mounts, amounts and images: workloads that a cluster refuses at the Job, long after the run was accepted."""

import json
import posixpath
import re
from collections.abc import Iterator

from run_cycle_loop.agentrun.checks.findings import Finding
from run_cycle_loop.agentrun.checks.schema_metadata import is_quantity
from run_cycle_loop.agentrun.checks.subject import Subject, items, mapping, shown, step_path, step_words, text
from run_cycle_loop.agentrun.manifests.field_paths import child
from run_cycle_loop.agentrun.model import Step, Volume, Workload

_RESERVED = (
    "/workspace/run.json",
    "/workspace/agent-runner.json",
    "/workspace/.codex",
    "/workspace/.agent/status.json",
)
_VOLUME_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def workload_lints(subject: Subject) -> Iterator[Finding]:
    """Of the run's workload and of its steps'."""
    run = subject.run
    holders = [("spec.workload", run.workload)]
    holders += [(step_path(step, "workload"), step.workload) for step in run.steps]
    for path, workload in holders:
        if workload is not None:
            yield from _volumes(subject, workload, f"{path}.volumes")
            yield from _amounts(subject, workload, path)
    if run.runtime == "workflow":
        for step in run.steps:
            yield from _dropped(subject, step)
    if run.workload is not None and run.workload.image:
        message = f"the image {shown(run.workload.image)} is pinned: the controller's own is not used"
        cure = "leave it out unless this very image is meant"
        yield subject.note("ImagePinned", "spec.workload.image", message, cure)
    yield from _elsewhere(subject)


def _volumes(subject: Subject, workload: Workload, path: str) -> Iterator[Finding]:
    seen: set[str] = set()
    mounts: dict[str, str] = {}
    for number, volume in enumerate(workload.volumes):
        at = child(path, number)
        yield from _volume(subject, volume, at)
        if volume.name in seen:
            message = f"two volumes are named {shown(volume.name)}: the Job is never made, and the run hangs"
            yield subject.error("VolumeDuplicate", f"{at}.name", message, "rename one of them")
        elif volume.name and not _VOLUME_NAME.fullmatch(volume.name):
            message = f"{shown(volume.name)} is no name of a volume: the Job is never made, and the run hangs"
            cure = "use small letters, digits and dashes, at most 63"
            yield subject.error("VolumeNameInvalid", f"{at}.name", message, cure)
        seen.add(volume.name)
        mount = _normal(volume.mount_path)
        if mount and mount in mounts:
            message = f"the volumes {mounts[mount]} and {volume.name} are both mounted at {mount}"
            yield subject.error("MountPathDuplicate", f"{at}.mountPath", message, "mount one of them elsewhere")
        mounts.setdefault(mount, volume.name)


def _volume(subject: Subject, volume: Volume, path: str) -> Iterator[Finding]:
    hangs = "the Job is never made, and the run hangs"
    if volume.type == "pvc" and not volume.claim_name:
        message = f"the volume {volume.name} is a pvc without claimName: {hangs}"
        yield subject.error("VolumeWithoutClaim", f"{path}.claimName", message, "add claimName with the claim's name")
    if volume.type == "secret" and not volume.secret_name:
        message = f"the volume {volume.name} is a secret without secretName: {hangs}"
        yield subject.error(
            "VolumeWithoutSecret", f"{path}.secretName", message, "add secretName with the Secret's name"
        )
    mount = volume.mount_path
    if mount and (not mount.startswith("/") or ":" in mount):
        message = f"the volume {volume.name} is mounted at {shown(mount)}, which is no whole path"
        yield subject.error(
            "MountPathInvalid", f"{path}.mountPath", message, "write a path that begins with /, without colons"
        )
    for reserved in (*_RESERVED, subject.flags.auth_secret_mount_path, *_input_files(subject)):
        if mount and (_normal(mount) == _normal(reserved) or _is_below(mount, reserved)):
            message = f"the volume {volume.name} is mounted at {mount}, where the controller mounts {reserved}"
            yield subject.error(
                "MountPathClash", f"{path}.mountPath", message, "mount it elsewhere, or on a folder above"
            )
            break
    if volume.size_limit and not is_quantity(volume.size_limit):
        message = f"the size limit {shown(volume.size_limit)} is no amount"
        yield subject.error("InvalidQuantity", f"{path}.sizeLimit", message, "write an amount as 1Gi")


def _input_files(subject: Subject) -> Iterator[str]:
    for one in items(subject.provider.get("inputFiles")):
        path = text(mapping(one).get("path"))
        if path.startswith("/"):
            yield path


def _amounts(subject: Subject, workload: Workload, path: str) -> Iterator[Finding]:
    for field in ("requests", "limits"):
        for name, value in mapping(workload.resources.get(field)).items():
            if isinstance(value, str | int | float) and not is_quantity(value):
                at = child(f"{path}.resources.{field}", name)
                message = f"{at} is {shown(value)}, no amount: the Job is never made, and the run hangs"
                yield subject.error("InvalidQuantity", at, message, "write an amount as 500m or 1Gi")


def _dropped(subject: Subject, step: Step) -> Iterator[Finding]:
    """A step's workload replaces the run's as a whole, although the controller's check looks at the run's volumes."""
    own, base = step.workload, subject.run.workload
    if own is None or base is None:
        return
    volumes = base.volumes if not own.volumes else ()
    image = base.image if not own.image else ""
    if not volumes and not image:
        return
    lost = [f"the volume {volume.name}" for volume in volumes] + ([f"the image {image}"] if image else [])
    message = f"{step_words(step)} has a workload of its own, which drops {' and '.join(lost)} of the run's"
    cure = f"write it whole: workload: {_merged(subject, step)}"
    path = step_path(step, "workload")
    if any(volume.type == "pvc" for volume in volumes):
        yield subject.error("StepWorkloadDropsClaim", path, message, cure)
    else:
        yield subject.warning("StepWorkloadReplacesRun", path, message, cure)


def _merged(subject: Subject, step: Step) -> str:
    """The two workloads as one, in YAML on one line: JSON is that."""
    written = items(mapping(subject.run.spec.get("workflow")).get("steps"))
    own = mapping(mapping(written[step.index - 1]).get("workload"))
    base = mapping(subject.run.spec.get("workload"))
    return json.dumps({**base, **{key: value for key, value in own.items() if value}}, ensure_ascii=False)


def _elsewhere(subject: Subject) -> Iterator[Finding]:
    """Secrets and claims that a pod waits for, for ever."""
    run = subject.run
    missing = {at: name for at, name in enumerate(run.secrets) if subject.resources.get("Secret", name) is None}
    if missing and not subject.resources.complete:
        message = (
            f"the secrets {', '.join(missing.values())} are not among the files: whether they exist was not checked"
        )
        cure = "check on the cluster; a pod waits for a missing one for ever"
        yield subject.note("SecretNotInBundle", "spec.secrets", message, cure)
    for number, name in missing.items() if subject.resources.complete else ():
        message = f"the secret {shown(name)} does not exist: the pod waits for it for ever, without an error"
        cure = f"make it in namespace {run.namespace}, or leave it out"
        yield subject.error("MissingSecret", child("spec.secrets", number), message, cure)
    seen: set[str] = set()
    for path, workload in [
        ("spec.workload", run.workload),
        *((step_path(one, "workload"), one.workload) for one in run.steps),
    ]:
        for number, volume in enumerate(workload.volumes if workload else ()):
            if volume.is_persistent and volume.claim_name not in seen:
                seen.add(volume.claim_name)
                yield from _claim(subject, volume.claim_name, f"{child(f'{path}.volumes', number)}.claimName")


def _claim(subject: Subject, name: str, path: str) -> Iterator[Finding]:
    if subject.resources.get("PersistentVolumeClaim", name) is not None:
        return
    if subject.resources.complete:
        message = f"the claim {shown(name)} does not exist: the pod waits for it for ever"
        yield subject.error(
            "MissingPersistentVolumeClaim", path, message, "apply the PersistentVolumeClaim before the run"
        )
    else:
        message = f"the claim {shown(name)} is not among the files: whether it exists was not checked"
        yield subject.note("ClaimNotInBundle", path, message, "give its file as well, or check on the cluster")


def _normal(path: str) -> str:
    return posixpath.normpath(path) if path else ""


def _is_below(path: str, folder: str) -> bool:
    return _normal(path).startswith(f"{_normal(folder)}/")
