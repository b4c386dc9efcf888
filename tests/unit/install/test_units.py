from pathlib import Path

import pytest

from run_cycle_loop.config.settings import OPTIONS
from run_cycle_loop.install.units import (
    UnitSettings,
    environment_file,
    render_environment_file,
    render_unit,
    unit_file,
    unit_name,
)
from run_cycle_loop.model.errors import ConfigError

SHIPPED = Path(__file__).parents[3] / "systemd"


def values(text: str, key: str) -> list[str]:
    """What a unit assigns to a key, in order."""
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]


@pytest.mark.parametrize("template", [False, True])
def test_the_units_in_the_repository_are_the_rendered_defaults(template: bool) -> None:
    assert (SHIPPED / unit_file(template=template)).read_text() == render_unit(template=template)


def test_the_environment_file_in_the_repository_is_the_rendered_one() -> None:
    assert (SHIPPED / "run-cycle-loop.env").read_text() == render_environment_file()


def test_the_environment_file_decides_nothing_and_names_real_variables() -> None:
    lines = [line for line in render_environment_file().splitlines() if line]
    assert all(line.startswith("#") for line in lines)
    known = {option.variable for option in OPTIONS.values()}
    named = {line[1:].partition("=")[0] for line in lines if line.startswith("#RUN_CYCLE_")}
    assert named
    assert named <= known


def test_every_exit_code_of_ours_that_means_stay_down_stays_down() -> None:
    unit = render_unit()
    assert values(unit, "Restart") == ["always"]
    assert values(unit, "RestartPreventExitStatus") == ["2 10 11 12 13"]
    assert values(unit, "SuccessExitStatus") == ["10 12 13"]
    assert values(unit, "StartLimitIntervalSec") == ["0"]


def test_a_template_keeps_its_instances_apart() -> None:
    unit = render_unit(template=True)
    assert values(unit, "StateDirectory") == values(unit, "LogsDirectory") == ["run-cycle-loop-%i"]
    assert values(unit, "Environment") == [
        "HOME=%S/run-cycle-loop-%i RUN_CYCLE_SANDBOX_DIR=%S/run-cycle-loop-%i/sandbox"
    ]
    assert values(unit, "EnvironmentFile") == [
        "-/etc/run-cycle-loop/run-cycle-loop.env",
        "-/etc/run-cycle-loop/%i.env",
    ]


def test_a_named_user_takes_the_place_of_the_made_up_one() -> None:
    unit = render_unit(UnitSettings(user="planner"))
    assert values(unit, "User") == ["planner"]
    assert values(unit, "DynamicUser") == []


def test_outside_of_homes_no_home_is_seen() -> None:
    unit = render_unit()
    assert values(unit, "ProtectHome") == ["yes"]
    assert values(unit, "BindReadOnlyPaths") == []


def test_a_checkout_below_a_home_is_all_that_is_seen_of_it() -> None:
    home = Path("/home/ada/loop")
    unit = render_unit(
        UnitSettings(
            python=home / ".venv/bin/python",
            workdir=home,
            visible=(Path("/home/ada/.pyenv/versions/3.12"), Path("/usr"), Path("/home/ada/loop/.venv")),
        )
    )
    assert values(unit, "ProtectHome") == ["tmpfs"]
    assert values(unit, "BindReadOnlyPaths") == ["/home/ada/.pyenv/versions/3.12", "/home/ada/loop"]


def test_only_the_interpreter_below_a_home_is_enough_to_show_it() -> None:
    unit = render_unit(UnitSettings(visible=(Path("/root/interpreters/3.12"),)))
    assert values(unit, "BindReadOnlyPaths") == ["/root/interpreters/3.12"]


def test_odd_characters_of_a_path_mean_themselves() -> None:
    odd = Path('/home/ada/50% "off": $HOME')
    unit = render_unit(UnitSettings(python=odd / ".venv/bin/python", workdir=odd))
    assert values(unit, "WorkingDirectory") == ['/home/ada/50%% "off": $HOME']
    assert values(unit, "ExecStart") == [
        '"/home/ada/50%% \\"off\\": $$HOME/.venv/bin/python" -m run_cycle_loop run --continuous'
    ]
    assert values(unit, "BindReadOnlyPaths") == ['"/home/ada/50%% \\"off\\"\\: $HOME"']


@pytest.mark.parametrize("path", ["loop", "/opt/two\nlines", "/opt/\x1b[0m", "/opt/goes on\\"])
def test_a_path_that_a_unit_cannot_hold_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="absolute, printable path"):
        UnitSettings(workdir=Path(path))


def test_a_checkout_below_tmp_is_refused_because_the_service_has_its_own() -> None:
    with pytest.raises(ConfigError, match="/tmp/loop"):
        UnitSettings(workdir=Path("/tmp/loop"))


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "x@y", "a\n", "%i"])
def test_a_name_that_a_unit_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="user name"):
        UnitSettings(user=name)


def test_an_instance_without_a_name_is_not_the_loop_without_instance() -> None:
    for name_of in (unit_name, environment_file):
        with pytest.raises(ConfigError, match="instance name"):
            name_of("")


def test_an_instance_has_its_unit_and_its_environment_file() -> None:
    assert (unit_name(), environment_file()) == ("run-cycle-loop.service", "run-cycle-loop.env")
    assert (unit_name("night"), environment_file("night")) == ("run-cycle-loop@night.service", "night.env")
    with pytest.raises(ConfigError, match="instance name"):
        unit_name("two nights")
