"""Homes for agents' command lines: an empty HOME each, with settings that lead to a model server on this machine.

The keys are no keys. Every function makes its files below the folder it is given, which must not exist, and returns
the whole environment to run the program with.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

NO_KEY = "dummy-key-of-a-test"
PROVIDER = "local"
MODELS = {
    "codex": "local-model",
    "pi": "local-model",
    "opencode": "local-model",
    "claude": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-pro",
}


def codex_home(folder: Path, url: str) -> dict[str, str]:
    """With one provider of its own, by ``CODEX_HOME/config.toml``."""
    env = _home(folder)
    place = folder / ".codex"
    _write(
        place / "config.toml",
        f'model = "{MODELS["codex"]}"\nmodel_provider = "{PROVIDER}"\n'
        "[analytics]\nenabled = false\n[features]\nplugins = false\n"
        f'[model_providers.{PROVIDER}]\nname = "{PROVIDER}"\nbase_url = "{url}/v1"\nwire_api = "responses"\n'
        'env_key = "LOCAL_MODEL_KEY"\nrequires_openai_auth = false\nsupports_websockets = false\n',
    )
    return env | {"CODEX_HOME": str(place), "LOCAL_MODEL_KEY": NO_KEY}


def pi_home(folder: Path, url: str) -> dict[str, str]:
    """With one provider of its own, by ``models.json``, which ``settings.json`` makes the default."""
    env = _home(folder)
    place = folder / ".pi" / "agent"
    price = {"input": 1.0, "output": 2.0, "cacheRead": 0.1, "cacheWrite": 0}  # US dollars for a million tokens
    limits = {"contextWindow": 400_000, "maxTokens": 32_000}
    model = {"id": MODELS["pi"], "name": MODELS["pi"], "input": ["text"], "cost": price, **limits}
    provider = {"baseUrl": f"{url}/v1", "api": "openai-completions", "apiKey": NO_KEY, "models": [model]}
    _write_json(place / "models.json", {"providers": {PROVIDER: provider}})
    _write_json(place / "settings.json", {"defaultProvider": PROVIDER, "defaultModel": MODELS["pi"]})
    return env | {"PI_CODING_AGENT_DIR": str(place), "PI_OFFLINE": "1"}


def claude_home(folder: Path, url: str) -> dict[str, str]:
    """By variables alone."""
    return _home(folder) | {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": NO_KEY,
        "ANTHROPIC_MODEL": MODELS["claude"],
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }


def opencode_home(folder: Path, url: str) -> dict[str, str]:
    """With one provider of its own, by ``opencode.json``."""
    env = _home(folder)
    places = {
        "XDG_CONFIG_HOME": ".config",
        "XDG_DATA_HOME": ".local/share",
        "XDG_STATE_HOME": ".local/state",
        "XDG_CACHE_HOME": ".cache",
    }
    model = f"{PROVIDER}/{MODELS['opencode']}"
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": PROVIDER,
        "options": {"baseURL": f"{url}/v1", "apiKey": NO_KEY},
        "models": {MODELS["opencode"]: {"name": MODELS["opencode"]}},
    }
    settings = {
        "model": model,
        "small_model": model,
        "autoupdate": False,
        "share": "disabled",
        "enabled_providers": [PROVIDER],
        "provider": {PROVIDER: provider},
    }
    _write_json(folder / ".config" / "opencode" / "opencode.json", settings)
    switches = ("MODELS_FETCH", "AUTOUPDATE", "LSP_DOWNLOAD")
    return (
        env
        | {name: str(folder / place) for name, place in places.items()}
        | {f"OPENCODE_DISABLE_{name}": "1" for name in switches}
    )


def gemini_home(folder: Path, url: str) -> dict[str, str]:
    """By ``settings.json`` and the variable that names the server."""
    env = _home(folder)
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "privacy": {"usageStatisticsEnabled": False},
        "general": {"enableAutoUpdate": False},
        "model": {"name": MODELS["gemini"]},
    }
    _write_json(folder / ".gemini" / "settings.json", settings)
    return env | {"GOOGLE_GEMINI_BASE_URL": url, "GEMINI_API_KEY": NO_KEY}


HOMES: Mapping[str, Callable[[Path, str], dict[str, str]]] = {
    "codex": codex_home,
    "pi": pi_home,
    "claude": claude_home,
    "opencode": opencode_home,
    "gemini": gemini_home,
}


def _home(folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True)
    # codex runs no command with a home below the temporary folder, which is where tests have theirs.
    temporary = folder.with_name(f"{folder.name}-tmp")
    temporary.mkdir()
    env = {"HOME": str(folder), "TMPDIR": str(temporary), "LANG": "C.UTF-8", "TERM": "dumb"}
    return env | {"PATH": os.environ.get("PATH", os.defpath)}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    _write(path, json.dumps(value, indent=1))
