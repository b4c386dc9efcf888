"""The objects that a run refers to, wherever they were found: in the same bundle, or on a cluster."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Object = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """Objects by kind and name, all of one namespace.

    ``complete`` says whether what is not here does not exist (looked up on a cluster), or may be elsewhere (a bundle).
    """

    objects: Mapping[tuple[str, str], Object] = field(default_factory=dict)
    complete: bool = False

    @classmethod
    def of(cls, objects: Iterable[Object], *, complete: bool = False) -> "Resources":
        """From plain objects; the last of two with the same kind and name stands."""
        return cls(
            objects={(str(one.get("kind")), str(_name(one))): one for one in objects},
            complete=complete,
        )

    def get(self, kind: str, name: str | None) -> Object | None:
        """The object, or None where it is not here."""
        return None if not name else self.objects.get((kind, name))

    def spec(self, kind: str, name: str | None) -> Object:
        """Its ``spec``, or an empty one."""
        found = (self.get(kind, name) or {}).get("spec")
        return found if isinstance(found, Mapping) else {}

    def all(self, kind: str) -> tuple[Object, ...]:
        """All objects of one kind."""
        return tuple(one for (which, _), one in self.objects.items() if which == kind)


def _name(one: Object) -> object:
    metadata = one.get("metadata")
    return metadata.get("name") if isinstance(metadata, Mapping) else None
