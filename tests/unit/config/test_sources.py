"""What the sources come to together: settings that replace each other, the file itself, files that must be there."""

import os
from pathlib import Path
from typing import ClassVar

import pytest

from run_cycle_loop.config.files import read_goal
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.config.sources import Raw, Resolved, Source, require_cycle, resolve, unknown_variables
from run_cycle_loop.model.errors import ConfigError


def with_file(cwd: Path, toml: str, name: str = "run-cycle-loop.toml") -> Path:
    (cwd / name).write_text(toml)
    return cwd


class TestContinuous:
    def test_it_means_no_bound_on_the_iterations(self, tmp_path: Path) -> None:
        resolved = resolve({"continuous": True}, {}, tmp_path)
        assert resolved.settings.iterations == 0
        assert resolved.sources["iterations"].text == "flag --continuous"

    def test_a_number_of_a_higher_source_wins(self, tmp_path: Path) -> None:
        env = {"RUN_CYCLE_CONTINUOUS": "1"}
        resolved = resolve({"iterations": "4"}, env, with_file(tmp_path, "continuous = true"))
        assert resolved.settings.iterations == 4
        assert resolved.sources["iterations"].source is Source.FLAG

    def test_it_wins_over_a_number_of_a_lower_source(self, tmp_path: Path) -> None:
        resolved = resolve({}, {"RUN_CYCLE_CONTINUOUS": "yes"}, with_file(tmp_path, "iterations = 4"))
        assert resolved.settings.iterations == 0

    def test_its_negation_masks_a_lower_source(self, tmp_path: Path) -> None:
        resolved = resolve({"continuous": False}, {}, with_file(tmp_path, "continuous = true"))
        assert resolved.settings.iterations == 1

    def test_with_a_number_of_the_same_source_it_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"^--iterations: '3' contradicts --continuous; give one of the two$"):
            resolve({"iterations": "3", "continuous": True}, {}, tmp_path)

    def test_in_one_file_it_is_refused_as_well(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"^iterations in run-cycle-loop.toml: 3 contradicts continuous in run"):
            resolve({}, {}, with_file(tmp_path, "iterations = 3\ncontinuous = true"))

    def test_with_a_zero_it_agrees(self, tmp_path: Path) -> None:
        assert resolve({"iterations": "0", "continuous": True}, {}, tmp_path).settings.iterations == 0

    def test_it_is_no_row_of_its_own(self, tmp_path: Path) -> None:
        assert "continuous" not in resolve({}, {}, tmp_path).sources


class TestCommand:
    def test_it_is_kept_as_it_stands(self, tmp_path: Path) -> None:
        words = ["sh", "-c", "echo $HOME, ; true", ""]
        resolved = resolve({}, {}, tmp_path, words)
        assert resolved.settings.command == tuple(words)
        assert resolved.sources["command"].text == "the command after --"

    def test_it_switches_the_archive_check_off(self, tmp_path: Path) -> None:
        assert resolve({}, {}, tmp_path, ["true"]).settings.archive_glob is None

    def test_an_archive_glob_that_is_given_stays_on(self, tmp_path: Path) -> None:
        assert resolve({"archive_glob": "out/*"}, {}, tmp_path, ["true"]).settings.archive_glob == "out/*"

    def test_the_file_may_hold_it(self, tmp_path: Path) -> None:
        resolved = resolve({}, {}, with_file(tmp_path, 'command = ["make", "a,b"]'))
        assert resolved.settings.command == ("make", "a,b")

    def test_that_of_the_command_line_wins_over_that_of_the_file(self, tmp_path: Path) -> None:
        assert resolve({}, {}, with_file(tmp_path, 'command = ["make"]'), ["true"]).settings.command == ("true",)

    def test_a_cycle_script_of_a_higher_source_replaces_it(self, tmp_path: Path) -> None:
        (tmp_path / "mine.sh").touch()
        resolved = resolve({"cycle_script": "mine.sh"}, {}, with_file(tmp_path, 'command = ["make"]'))
        assert resolved.settings.command == ()
        assert resolved.settings.archive_glob is not None

    def test_it_replaces_a_cycle_script_of_its_own_source(self, tmp_path: Path) -> None:
        (tmp_path / "mine.sh").touch()
        assert resolve({"cycle_script": "mine.sh"}, {}, tmp_path, ["true"]).settings.command == ("true",)

    def test_it_has_no_variable(self, tmp_path: Path) -> None:
        assert resolve({}, {"RUN_CYCLE_COMMAND": "rm -rf ."}, tmp_path).settings.command == ()


class TestWhatACycleNeeds:
    def test_without_script_and_command_there_is_no_cycle(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="pass `--agent NAME`, `-- COMMAND` or `--cycle-script PATH`"):
            require_cycle(Settings.of(cycle_script=tmp_path / "missing.sh"))

    def test_a_command_is_enough(self, tmp_path: Path) -> None:
        require_cycle(Settings.of(cycle_script=tmp_path / "missing.sh", command=("true",)))

    def test_a_command_without_a_name_is_none(self) -> None:
        for word in ("", "  "):
            with pytest.raises(ConfigError, match=f"first word is '{word}'; name a program"):
                require_cycle(Settings.of(command=(word, "x")))

    def test_a_script_is_enough(self, tmp_path: Path) -> None:
        (tmp_path / "here.sh").touch()
        require_cycle(Settings.of(cycle_script=tmp_path / "here.sh"))

    @pytest.mark.parametrize("name", ["cycle_script", "prereq_script", "goal_file"])
    def test_a_file_that_is_named_must_be_there(self, name: str, tmp_path: Path) -> None:
        flag = f"--{name.replace('_', '-')}"
        with pytest.raises(ConfigError, match=f"^{flag}: 'gone' does not exist; create it, or name another$"):
            resolve({name: "gone"}, {}, tmp_path)

    @pytest.mark.parametrize("name", ["cycle_script", "prereq_script", "goal_file"])
    def test_those_who_only_look_do_not_need_it(self, name: str, tmp_path: Path) -> None:
        assert getattr(resolve({name: "gone"}, {}, tmp_path, cycle_files=False).settings, name) == Path("gone")

    @pytest.mark.parametrize("name", ["cycle_script", "prereq_script", "goal_file", "config"])
    def test_it_must_be_a_regular_file_and_a_fifo_makes_nobody_wait(self, name: str, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        for bad in ("fifo", "."):
            with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}: .*is no regular file; name one$"):
                resolve({name: bad}, {}, tmp_path)

    def test_a_program_need_not_be_readable(self, tmp_path: Path) -> None:
        (tmp_path / "run").touch(mode=0o111)
        assert resolve({"cycle_script": "run"}, {}, tmp_path).settings.cycle_script == Path("run")

    def test_the_check_script_is_on_where_its_default_exists(self, tmp_path: Path) -> None:
        (tmp_path / "scripts").mkdir()
        (tmp_path / "scripts/check_run_cycle_prereqs.py").touch()
        on = resolve({}, {}, tmp_path)
        assert on.settings.prereq_script == Path("scripts/check_run_cycle_prereqs.py")
        assert on.sources["prereq_script"].source is Source.DEFAULT
        for off in ("", "none", "off"):
            assert resolve({}, {"RUN_CYCLE_PREREQ_SCRIPT": off}, tmp_path).settings.prereq_script is None


class TestSandbox:
    @pytest.mark.parametrize("sandbox", ["/", ".", "..", "state", "state/..", "logs", "link"])
    def test_one_whose_reset_would_remove_what_is_ours_is_refused(self, sandbox: str, tmp_path: Path) -> None:
        (tmp_path / "state").mkdir()
        (tmp_path / "link").symlink_to("state")
        flags: dict[str, Raw] = {"sandbox_dir": sandbox, "sandbox_reset": True}
        with pytest.raises(
            ConfigError, match=r"^sandbox-dir: '.*' holds '.*', which --sandbox-reset would remove; name"
        ):
            resolve(flags, {}, tmp_path)
        assert resolve(flags, {}, tmp_path, cycle_files=False).settings.sandbox_dir == Path(sandbox)
        assert resolve({"sandbox_dir": sandbox}, {}, tmp_path, ["true"]).settings.sandbox_dir == Path(sandbox)

    def test_a_folder_of_its_own_is_fine(self, tmp_path: Path) -> None:
        flags: dict[str, Raw] = {"sandbox_dir": "state/sandbox", "sandbox_reset": True}
        assert resolve(flags, {}, tmp_path).settings.sandbox_reset


class TestGoalFile:
    def test_it_wins_over_a_goal_of_its_own_source(self, tmp_path: Path) -> None:
        (tmp_path / "goal.md").write_text("- explore\n")
        resolved = resolve({"goal": "x", "goal_file": "goal.md"}, {}, tmp_path)
        assert resolved.settings.goal_file == Path("goal.md")

    def test_a_goal_of_a_higher_source_switches_it_off(self, tmp_path: Path) -> None:
        resolved = resolve({"goal": "x"}, {"RUN_CYCLE_GOAL_FILE": "gone.md"}, tmp_path)
        assert (resolved.settings.goal, resolved.settings.goal_file) == ("x", None)
        assert resolved.sources["goal_file"].source is Source.DEFAULT

    def test_its_text_is_read_without_the_space_around_it(self, tmp_path: Path) -> None:
        (tmp_path / "goal.md").write_text("\n- explore\n- plan é\n\n")
        assert read_goal(tmp_path / "goal.md") == "- explore\n- plan é"

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "is blank"),
            (b" \n\t\n", "is blank"),
            (b"x" * (1024**2 + 1), "is larger than 1 MiB"),
            (b"x" * (200 * 1024), "a process can be given at most"),
            (b"a\0b", "has a NUL byte"),
            (b"caf\xe9", "is not valid UTF-8 at byte 3"),
        ],
    )
    def test_what_no_cycle_can_be_given_is_refused(self, content: bytes, reason: str, tmp_path: Path) -> None:
        (tmp_path / "goal.md").write_bytes(content)
        with pytest.raises(ConfigError, match=f"^the goal file '.*goal.md' .*{reason}"):
            read_goal(tmp_path / "goal.md")
        with pytest.raises(ConfigError, match=f"^RUN_CYCLE_GOAL_FILE: 'goal.md' .*{reason}"):
            resolve({}, {"RUN_CYCLE_GOAL_FILE": "goal.md"}, tmp_path)


class TestFile:
    def test_the_flag_names_it_before_the_variable(self, tmp_path: Path) -> None:
        with_file(tmp_path, "sleep = 1", "run-cycle-loop.toml")
        with_file(tmp_path, "sleep = 2", "variable.toml")
        with_file(tmp_path, "sleep = 3", "flag.toml")
        env = {"RUN_CYCLE_CONFIG": "variable.toml"}
        by_flag = resolve({"config": "flag.toml"}, env, tmp_path)
        assert (by_flag.settings.sleep, by_flag.sources["sleep"].text) == (3, "file flag.toml")
        assert (by_flag.settings.config, by_flag.sources["config"].text) == (Path("flag.toml"), "flag --config")
        assert resolve({}, env, tmp_path).settings.sleep == 2
        by_default = resolve({}, {}, tmp_path)
        assert (by_default.settings.sleep, by_default.settings.config) == (1, Path("run-cycle-loop.toml"))

    def test_none_reads_no_file(self, tmp_path: Path) -> None:
        resolved = resolve({"config": "none"}, {}, with_file(tmp_path, "sleep = 1"))
        assert (resolved.settings.sleep, resolved.settings.config) == (300, None)

    @pytest.mark.parametrize(
        ("toml", "sentence"),
        [
            ("sleeep = 5", "run-cycle-loop.toml has the unknown key 'sleeep': did you mean sleep?"),
            ("max_failure = 5", "run-cycle-loop.toml has the unknown key 'max_failure': did you mean max-failures?"),
            (
                "zzz = 'canary'",
                "run-cycle-loop.toml has the unknown key 'zzz': `run-cycle-loop config show` lists all the keys",
            ),
            ("[run]\nsleep = 5", "run-cycle-loop.toml has the unknown key 'run': write the settings at the top level"),
            ("config = 'x'", "run-cycle-loop.toml has the unknown key 'config'"),
            ("stop-file='a'\nstop_file='b'", "run-cycle-loop.toml has stop-file twice, with - and with _"),
            ("sleep = ", "run-cycle-loop.toml is no valid TOML: Invalid value (at end of document); correct that line"),
            ("sleep = 1\nsleep = 2", "run-cycle-loop.toml is no valid TOML"),
            ("a = " + "[" * 50_000, "run-cycle-loop.toml is nested too deeply"),
            ("a = 1" + "0" * 5000, "run-cycle-loop.toml "),
            ("#" * (1024**2 + 1), "run-cycle-loop.toml is larger than 1 MiB"),
        ],
    )
    def test_what_is_wrong_with_it_is_one_sentence(self, toml: str, sentence: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            resolve({}, {}, with_file(tmp_path, toml))
        assert str(caught.value).startswith(sentence)
        assert "canary" not in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_an_explicit_one_is_named_with_who_named_it(self, tmp_path: Path) -> None:
        with pytest.raises(
            ConfigError, match=r"^RUN_CYCLE_CONFIG: gone.toml does not exist; create it, or name another$"
        ):
            resolve({}, {"RUN_CYCLE_CONFIG": "gone.toml"}, tmp_path)

    def test_one_that_cannot_be_opened_or_read_says_why(self, tmp_path: Path) -> None:
        (tmp_path / "loop.toml").symlink_to("loop.toml")
        with pytest.raises(
            ConfigError, match=r"^--config: loop.toml cannot be read \(Too many levels of symbolic links"
        ):
            resolve({"config": "loop.toml"}, {}, tmp_path)
        with pytest.raises(
            ConfigError, match=r"^--config: /proc/self/mem cannot be read \(Input/output error\); name a"
        ):
            resolve({"config": "/proc/self/mem"}, {}, tmp_path)

    def test_a_byte_order_mark_is_no_part_of_it(self, tmp_path: Path) -> None:
        (tmp_path / "run-cycle-loop.toml").write_bytes(b"\xef\xbb\xbfsleep = 7\n")
        assert resolve({}, {}, tmp_path).settings.sleep == 7

    def test_bytes_that_are_no_text_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "run-cycle-loop.toml").write_bytes(b"mode = '\xff'")
        with pytest.raises(ConfigError, match=r"^run-cycle-loop.toml is not valid UTF-8 at byte 8; save it as UTF-8$"):
            resolve({}, {}, tmp_path)

    def test_whatever_lies_under_the_default_name_is_meant(self, tmp_path: Path) -> None:
        (tmp_path / "run-cycle-loop.toml").symlink_to("gone")
        with pytest.raises(ConfigError, match=r"^run-cycle-loop.toml does not exist"):
            resolve({}, {}, tmp_path)


class TestUnknownVariables:
    def test_each_comes_with_what_was_probably_meant(self) -> None:
        env = {"RUN_CYCLE_SLEEEP": "1", "RUN_CYCLE_QQQQQ": "1", "RUN_CYCLE_MODE": "x", "SLEEP": "1", "PATH": ""}
        assert unknown_variables(env) == [("RUN_CYCLE_QQQQQ", None), ("RUN_CYCLE_SLEEEP", "RUN_CYCLE_SLEEP")]

    def test_what_a_cycle_is_told_is_not_strange(self, tmp_path: Path) -> None:
        env = {"RUN_CYCLE_ID": "a", "RUN_CYCLE_NUMBER": "3", "RUN_CYCLE_CONTROL_FILE": "/c"}
        assert unknown_variables(env) == []
        assert resolve({}, env, tmp_path) == resolve({}, {}, tmp_path)


class TestRows:
    def rows(self, resolved: Resolved) -> dict[str, tuple[str, str]]:
        return {key: (value, origin) for key, value, origin in resolved.rows(redact=str)}

    def test_each_setting_has_one_with_value_and_origin(self, tmp_path: Path) -> None:
        env = {"RUN_CYCLE_SLEEP": "90"}
        rows = self.rows(resolve({"max_log_bytes": "2048", "while_": "true"}, env, tmp_path, ["echo", "a b"]))
        assert rows["sleep"] == ("1m30s", "variable RUN_CYCLE_SLEEP")
        assert rows["max-log-bytes"] == ("2KiB", "flag --max-log-bytes")
        assert rows["while"] == ("true", "flag --while")
        assert rows["command"] == ("echo 'a b'", "the command after --")
        assert (rows["env-allow"], rows["idle-timeout"]) == (("all", "default"), ("off", "default"))
        assert (rows["dry-run"], rows["require-module"]) == (("false", "default"), ("none", "default"))
        assert len(rows) == len(resolve({}, {}, tmp_path).sources)

    def test_values_pass_through_the_redactor(self, tmp_path: Path) -> None:
        resolved = resolve({"goal": "use canary-1"}, {}, tmp_path, ["curl", "-H", "canary-1"])
        text = str(resolved.rows(redact=lambda value: value.replace("canary-1", "***")))
        assert "canary-1" not in text
        assert "use ***" in text

    def test_a_value_cannot_leave_its_line_or_colour_the_screen(self, tmp_path: Path) -> None:
        rows = self.rows(resolve({"goal": "a\nb\x1b[31m\u202e"}, {}, tmp_path, ["echo", "\x1b]0;x\x07y"]))
        assert rows["goal"][0] == r"a\nb\u202e"
        assert rows["command"][0] == "echo 'y'"


def test_a_flag_that_does_not_exist_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="sleeep"):
        resolve({"sleeep": "1"}, {}, tmp_path)


def test_a_state_directory_with_wildcards_in_its_name_is_taken_literally(tmp_path: Path) -> None:
    settings = resolve({"state_dir": "loop[1]"}, {}, tmp_path).settings
    assert settings.archive_glob == "loop[[]1]/planner_digest_archives/planner_digests_*.jsonl.gz"


class TestALoopInsideOfACycle:
    OUTER: ClassVar[dict[str, str]] = {
        "RUN_CYCLE_ID": "abc",
        "RUN_CYCLE_STATE_DIR": "/outer",
        "RUN_CYCLE_HISTORY_PATH": "/outer/run_cycle_history.jsonl",
    }

    def test_it_sees_the_outer_loop(self, tmp_path: Path) -> None:
        settings = resolve({}, self.OUTER, tmp_path).settings
        assert (settings.state_dir, settings.history_path) == (Path("/outer"), Path("/outer/run_cycle_history.jsonl"))

    def test_with_a_state_of_its_own_it_has_a_history_of_its_own(self, tmp_path: Path) -> None:
        settings = resolve({"state_dir": "inner"}, self.OUTER, tmp_path).settings
        assert settings.history_path == Path("inner/run_cycle_history.jsonl")

    def test_a_history_that_it_is_given_stays(self, tmp_path: Path) -> None:
        settings = resolve({"state_dir": "inner", "history_path": "mine"}, self.OUTER, tmp_path).settings
        assert settings.history_path == Path("mine")

    def test_outside_of_a_cycle_the_variable_counts(self, tmp_path: Path) -> None:
        env = {name: value for name, value in self.OUTER.items() if name != "RUN_CYCLE_ID"}
        assert resolve({"state_dir": "inner"}, env, tmp_path).settings.history_path == Path(
            "/outer/run_cycle_history.jsonl"
        )


@pytest.mark.parametrize(("flags", "iterations"), [({}, 0), ({"iterations": "3"}, 3)])
def test_a_condition_alone_is_the_only_limit(flags: dict[str, str], iterations: int, tmp_path: Path) -> None:
    resolved = resolve({"while_": "true", **flags}, {}, tmp_path, ("true",))
    assert resolved.settings.iterations == iterations


@pytest.mark.parametrize(("sandbox", "ours"), [("state", "state-dir"), ("./x/../logs/run_cycle", "log-dir")])
def test_a_sandbox_that_is_a_folder_of_the_loop_itself_is_no_workdir(sandbox: str, ours: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^sandbox-dir .* is the {ours} .*; name another$"):
        resolve({"sandbox_dir": sandbox}, {}, tmp_path)
    resolve({"sandbox_dir": sandbox}, {}, tmp_path, ["true"])
    resolve({"sandbox_dir": f"{sandbox}/inner"}, {}, tmp_path)
