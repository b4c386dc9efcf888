"""A record as a JSON object of its own fields."""

from typing import Any


def flat(record: Any) -> dict[str, Any]:
    """The fields by their names, each as it stands."""
    return {name: getattr(record, name) for name in record.__slots__}
