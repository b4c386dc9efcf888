"""What takes secrets out of everything we write or show."""

from collections.abc import Mapping

from run_cycle_loop.config.settings import OPTIONS, Settings
from run_cycle_loop.kit.redact import Redactor


def redactor_for(settings: Settings, environ: Mapping[str, str]) -> Redactor:
    """The values of variables with telling names, and of those that the operator lists."""
    # The name of the setting that lists patterns looks like a secret itself; what it lists are words of everyday.
    listing = OPTIONS["secret_env"].variable
    secrets = {name: value for name, value in environ.items() if name != listing}
    return Redactor.from_environment(secrets, settings.secret_env)
