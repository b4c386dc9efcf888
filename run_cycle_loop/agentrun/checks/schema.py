"""What an API server refuses: fields that are missing, unknown or of the wrong form, and the definitions' own rules."""

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from run_cycle_loop.agentrun.checks.crds import crds
from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.checks.schema_metadata import metadata_findings
from run_cycle_loop.agentrun.manifests.field_paths import child, path_of
from run_cycle_loop.agentrun.names import API_VERSION, GROUP
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.model.errors import ConfigError

_RANGES = {"int32": 1 << 31, "int64": 1 << 63}
_REASONS = {
    "required": "FieldValueRequired",
    "enum": "FieldValueNotSupported",
    "maxLength": "FieldValueTooLong",
    "maxItems": "FieldValueTooMany",
    "maxProperties": "FieldValueTooMany",
    "type": "FieldValueTypeInvalid",
    "anyOf": "FieldValueTypeInvalid",
}
_MOST = 50  #: findings of one object: more tell nothing new
_SHOWN = 60  #: characters of a wrong value
_ADMITTED = ("apiVersion", "kind", "metadata", "spec")  #: an API server drops a status at creation


def schema_findings(body: Mapping[str, Any], profile: Profile) -> tuple[Finding, ...]:
    """What an API server refuses of one object of our kinds; nothing for objects of another group.

    Raises:
        ConfigError: a library that this takes is not installed.
    """
    return tuple(found for found, _ in zip(_Check(body, profile).findings(), range(_MOST), strict=False))


def is_ours(body: Mapping[str, Any]) -> bool:
    """Whether an object claims to be of the group that AgentRuns are in."""
    return str(body.get("apiVersion") or "").partition("/")[0] == GROUP


class _Check:
    """One object against the definition of its kind."""

    def __init__(self, body: Mapping[str, Any], profile: Profile) -> None:
        self._body = {key: body[key] for key in body if key != "status"}
        self._profile = profile
        self._kind = str(body.get("kind") or "")
        metadata = body.get("metadata")
        name = metadata.get("name") if isinstance(metadata, Mapping) else ""
        self._where = f"{self._kind}/{name}" if isinstance(name, str) and name else self._kind

    def findings(self) -> Iterator[Finding]:
        schemas = _schemas(self._profile)
        if not is_ours(self._body):
            return
        if self._body.get("apiVersion") != API_VERSION or self._kind not in schemas:
            known = ", ".join(sorted(schemas))
            yield self._finding(
                "NoKindMatch",
                "kind" if self._body.get("apiVersion") == API_VERSION else "apiVersion",
                f"there is no kind {self._kind!r} in {self._body.get('apiVersion')!r:.60}",
                f"write apiVersion: {API_VERSION} and one of {known}{_nearest(self._kind, schemas)}",
            )
            return
        schema = schemas[self._kind]
        yield from metadata_findings(self._body, self._where)
        yield from self._unknown(schema, self._body, "", schema)
        formed = list(self._form(schema))
        yield from formed
        if not formed:
            yield from self._rules(schema, self._body, "")

    # The form.

    def _form(self, schema: Mapping[str, Any]) -> Iterator[Finding]:
        seen = set()
        for error in _errors(schema, self._body):
            steps = list(error.absolute_path)
            if steps[:1] == ["metadata"]:
                continue
            for found in self._of_error(error, path_of(steps)):
                if (found.reason, found.path) not in seen:
                    seen.add((found.reason, found.path))
                    yield found

    def _of_error(self, error: Any, path: str) -> Iterator[Finding]:
        keyword, wanted, value = str(error.validator), error.validator_value, error.instance
        reason = _REASONS.get(keyword, "FieldValueInvalid")
        if keyword == "required":
            for missing in wanted:
                if missing not in value:
                    at = child(path, missing)
                    yield self._finding(reason, at, f"{at} is missing", f"add {missing}{_how(error.schema, missing)}")
            return
        yield self._finding(reason, path, *_words(keyword, wanted, value, path))

    # Fields that the definition does not know, as strict field validation finds them.

    def _unknown(self, schema: Mapping[str, Any], value: Any, path: str, root: Mapping[str, Any]) -> Iterator[Finding]:
        if isinstance(value, list) and isinstance(items := schema.get("items"), Mapping):
            for number, item in enumerate(value):
                yield from self._unknown(items, item, child(path, number), root)
        if not isinstance(value, Mapping) or path == "metadata":
            return
        known = schema.get("properties") or {}
        rest = schema.get("additionalProperties")
        for key, item in value.items():
            at = child(path, key)
            if key in known:
                yield from self._unknown(known[key], item, at, root)
            elif isinstance(rest, Mapping):
                yield from self._unknown(rest, item, at, root)
            elif not rest and not schema.get("x-kubernetes-preserve-unknown-fields") and _is_closed(schema):
                yield self._finding(
                    "UnknownField", at, f"there is no field {at}", f"remove it{_meant(key, path, known, root)}"
                )

    # The definition's own rules, in CEL.

    def _rules(self, schema: Mapping[str, Any], value: Any, path: str) -> Iterator[Finding]:
        for rule in schema.get("x-kubernetes-validations") or ():
            if _is_broken(rule["rule"], value):
                at = _culprit(rule["rule"], value, path)
                cure = "choose one of the two" if "Only one" in rule["message"] else _cure_of_rule(rule["message"])
                yield self._finding("FieldValueInvalid", at, rule["message"], cure)
        if isinstance(value, list) and isinstance(items := schema.get("items"), Mapping):
            for number, item in enumerate(value):
                yield from self._rules(items, item, child(path, number))
        if isinstance(value, Mapping):
            for key, inner in (schema.get("properties") or {}).items():
                if key in value and (path or key in _ADMITTED):
                    yield from self._rules(inner, value[key], child(path, key))

    def _finding(self, reason: str, path: str, message: str, cure: str) -> Finding:
        return Finding(
            severity=Severity.ERROR,
            source=Source.API_SERVER,
            reason=reason,
            where=self._where,
            path=path,
            message=message,
            cure=cure,
        )


@cache
def _schemas(profile: Profile) -> Mapping[str, Mapping[str, Any]]:
    definitions = (definition["spec"] for definition in crds(str(profile)))
    return {one["names"]["kind"]: one["versions"][0]["schema"]["openAPIV3Schema"] for one in definitions}


def _errors(schema: Mapping[str, Any], value: Any) -> Iterator[Any]:
    try:
        import jsonschema  # noqa: PLC0415 - an extra, and 60 ms that only those pay who look at manifests
    except ImportError:
        raise _not_installed() from None
    checker = jsonschema.FormatChecker(formats=())
    for name, limit in _RANGES.items():
        checker.checks(name)(lambda number, limit=limit: not isinstance(number, int) or -limit <= number < limit)
    validator = jsonschema.Draft202012Validator(dict(schema), format_checker=checker)
    yield from validator.iter_errors(value)


def _is_broken(rule: str, value: Any) -> bool:
    """Whether a rule says no; a rule that cannot be evaluated is no reason to refuse here."""
    try:
        result = _program(rule).eval(data={"self": value})
        return bool(result.value() is False)
    except ConfigError:
        raise
    except Exception:  # noqa: BLE001 - the library knows but one kind
        return False


@cache
def _program(rule: str) -> Any:
    try:
        from cel_expr_python import cel  # noqa: PLC0415 - an extra: only who checks manifests needs it
    except ImportError:
        raise _not_installed() from None
    return cel.NewEnv(variables={"self": cel.Type.DYN}).compile(rule, disable_check=True)


def _not_installed() -> ConfigError:
    return ConfigError(
        "checking AgentRun manifests needs the extra 'agentrun', which is not installed; in the checkout, "
        "pip install '.[agentrun]'"
    )


def _culprit(rule: str, value: Any, path: str) -> str:
    """The field that a rule is about: the deepest one that it names and that is there."""
    if not isinstance(value, Mapping):
        return path
    for key, holder in re.findall(r'"(\w+)" in self(?:\.(\w+))?', rule):
        inside = value.get(holder) if holder else value
        if isinstance(inside, Mapping) and key in inside:
            return child(child(path, holder), key) if holder else child(path, key)
    named = [name for name in re.findall(r"self\.(\w+)", rule) if name in value]
    missing = re.match(r"has\(self\.(\w+)\) \|\|", rule)
    if named or missing is None:
        return child(path, named[-1]) if named else path
    return child(path, missing[1])


def _cure_of_rule(message: str) -> str:
    if "is required" in message:
        return "add implementationSpecRef with the name of an ImplementationSpec, or implementation.inline with a text"
    return "remove it; put what the run is told into the ImplementationSpec, and how into the Agent's defaults"


def _words(keyword: str, wanted: Any, value: Any, path: str) -> tuple[str, str]:
    """What is wrong with a value, and the next step."""
    shown = f"{value!r:.{_SHOWN}}" + ("..." if len(repr(value)) > _SHOWN else "")
    if keyword == "type":
        return _wrong_type(wanted, value, shown, path)
    if keyword == "enum":
        near = _nearest(value, wanted) if isinstance(value, str) else ""
        return f"{path} is {shown}", f"write one of {', '.join(map(str, wanted))}{near}"
    if keyword in ("maxLength", "maxItems", "maxProperties"):
        what = "characters" if keyword == "maxLength" else "entries"
        return f"{path} has {len(value)} {what}, more than {wanted}", "shorten it"
    told = {
        "minLength": (f"{path} is empty", "write something, or remove the field"),
        "minimum": (f"{path} is {shown}, less than {wanted}", f"write {wanted} or more"),
        "maximum": (f"{path} is {shown}, more than {wanted}", f"write {wanted} or less"),
        "format": (f"{path} is {shown}, which does not fit {wanted}", "write a smaller number"),
        "pattern": (f"{path} is {shown}, which does not match {wanted}", "write it in that form"),
        "anyOf": (f"{path} is {shown}, neither a number nor a text", "write an amount as 500m or 1Gi"),
    }
    return told.get(keyword, (f"{path} is {shown}, which is not of the right form", "write it as the definition says"))


def _wrong_type(wanted: Any, value: Any, shown: str, path: str) -> tuple[str, str]:
    if value is None:
        return f"{path} has no value, not {_an(wanted)}", "give it one, or remove the field"
    if wanted == "string" and isinstance(value, bool | int | float):
        kind = "a boolean" if isinstance(value, bool) else "a number"
        written = str(value).lower() if isinstance(value, bool) else str(value)
        also = " (yes, no, on, off, y and n are booleans in YAML)" if isinstance(value, bool) else ""
        return f"{path} is {kind}{also}, not a text", f'put what you wrote into quotes: "{written:.40}"'
    return f"{path} is {shown}, not {_an(wanted)}", f"write {_an(wanted)}"


def _an(kind: Any) -> str:
    words = {"string": "a text", "integer": "a whole number", "boolean": "true or false", "array": "a list"}
    return words.get(str(kind), "a mapping" if kind == "object" else f"a {kind}")


def _how(schema: Mapping[str, Any], field: str) -> str:
    choices = (schema.get("properties") or {}).get(field, {}).get("enum")
    return f": one of {', '.join(choices)}" if choices else ""


def _is_closed(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object" and bool(schema.get("properties"))


def _meant(key: str, path: str, known: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """A field that may have been meant: one of these with nearly the same name, or the same name in another place."""
    near = _nearest(key, known)
    if near:
        return near
    places = [
        place for place in _places(root, "") if place.rpartition(".")[2] == key and not place.startswith("status")
    ]
    return f"; {key} belongs into {places[0].rpartition('.')[0]}" if places and path != "status" else ""


def _nearest(word: str, known: Any) -> str:
    lowered = {one.lower(): one for one in map(str, known)}
    found = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.75)
    return f"; did you mean {lowered[found[0]]}?" if found else ""


def _places(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, inner in (schema.get("properties") or {}).items():
        yield child(path, key)
        yield from _places(inner, child(path, key))
    if isinstance(items := schema.get("items"), Mapping):
        yield from _places(items, f"{path}[]")
