"""lhttp_tx.twistd.settings: the configuration file and the environment, for whatever options there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.python import usage
from twisted.python.usage import UsageError

from lhttp_tx.twistd.options import Options
from lhttp_tx.twistd.settings import SettingsError, SettingsFile, settings_of
from lhttp_tx.twistd.sources import Sources


def _even(value: str) -> int:
    number = int(value)
    if number % 2:
        raise ValueError(f"{value} is odd")
    return number


_even.coerceDoc = "An even number."  # type: ignore[attr-defined]


class Base(usage.Options):
    optFlags = [["loud", "l", "Make a noise."]]
    optParameters = [["size", "s", 2, "Size of it", _even], ["ratio", None, 0.5, "Part of it", float]]


class Sample(Base):
    """Options of every kind, some of them inherited."""

    optParameters = [
        ["config", None, None, "File with options"],
        ["name", "n", None, "Name of it"],
        ["secret-file", None, None, "File with a secret"],
        ["even", None, None, "Even one", _even],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.guests: list[str] = []

    def opt_guest(self, name: str) -> None:
        """Somebody to let in (repeatable)"""
        if name == "nobody":
            raise UsageError(f"--guest {name!r}: name somebody")
        self.guests.append(name)

    def opt_version(self) -> None:
        """Print something"""

    def opt_help_guest(self, _: str) -> None:
        """Explain something"""

    def postOptions(self) -> None:
        if self["size"] == 100:
            raise UsageError("--size is larger than --ratio; lower it")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "my.toml"


def parse(file: Path | None, text: str = "", *arguments: str, **environment: str) -> Sample:
    options = Sample()
    sources = Sources(options, secrets={"secret-file": "LHTTP_SECRET"})
    if file is not None:
        file.write_text(text, "utf-8")
        arguments = ("--config", str(file), *arguments)
    sources.apply(arguments, environment)
    try:
        options.parseOptions(list(arguments))
    except UsageError as error:
        raise UsageError(sources.located(str(error))) from None
    return options


def problems(file: Path, text: str, **environment: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(file, text, **environment)
    return [problem.replace(str(file), "my.toml") for problem in caught.value.problems]


# What there is to set


def test_every_option_with_a_value_and_every_flag_can_be_set() -> None:
    kinds = {setting.name: setting.kind for setting in settings_of(Sample).values()}
    assert kinds == {
        "loud": "flag",
        "size": "number",
        "ratio": "number",
        "name": "text",
        "secret-file": "text",
        "even": "text",
        "guest": "list",
    }


def test_a_setting_knows_its_variable_and_its_bounds() -> None:
    setting = settings_of(Sample())["size"]
    assert (setting.variable, setting.bounds, setting.default) == ("LHTTP_SIZE", "An even number.", 2)
    assert settings_of(Sample)["secret-file"].variable == "LHTTP_SECRET_FILE"


def test_no_option_of_the_server_is_left_out() -> None:
    options = Options()
    every = {name.rstrip("=") for name in options.longOpt}
    questions = {"config", "help", "help-auth", "help-auth-type", "version"}
    assert every - set(settings_of(Options)) == questions


# The file


def test_the_file_sets_options_of_every_kind(file: Path) -> None:
    options = parse(file, 'loud = true\nsize = 4\nratio = 1\nname = "x"\neven = "6"\nguest = ["a", "b"]\n')
    assert options["loud"]
    assert (options["size"], options["ratio"], options["name"], options["even"]) == (4, 1.0, "x", 6)
    assert options.guests == ["a", "b"]


def test_a_text_may_be_written_as_a_number(file: Path) -> None:
    assert parse(file, "name = 8081")["name"] == "8081"


def test_a_list_of_one_may_be_a_string(file: Path) -> None:
    assert parse(file, 'guest = "a"').guests == ["a"]


def test_a_flag_may_be_off(file: Path) -> None:
    assert not parse(file, "loud = false")["loud"]


def test_the_mark_of_utf_8_and_line_ends_of_other_systems_do_no_harm(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbfsize = 4\r\nname = "\xc3\xa9"\r\n')
    loaded = SettingsFile.load(str(file), settings_of(Sample))
    assert loaded.values == {"size": ["4"], "name": ["é"]}
    assert loaded.where("name").endswith("my.toml:2")


def test_a_file_is_read_again_from_where_it_was(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("size = 4", "utf-8")
    monkeypatch.chdir(tmp_path)
    loaded = SettingsFile.load("my.toml", settings_of(Sample))
    monkeypatch.chdir("/")
    file.write_text("size = 6", "utf-8")
    again = loaded.load_again()
    assert (again.path, again.values) == ("my.toml", {"size": ["6"]})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("sise = 1", "there is no option sise; did you mean size?"),
        ('secret_file = "x"', "there is no option secret_file; did you mean secret-file?"),
        ("frobnicate = 1", "there is no option frobnicate; twistd lhttp --help lists them all"),
        ("version = 1", "there is no option version; twistd lhttp --help lists them all"),
        ("n = 1", "there is no option n; twistd lhttp --help lists them all"),
        ('config = "x"', "config is for the command line and the environment alone"),
        (
            "[elsewhere]",
            "there is no option elsewhere; options stand at the beginning of the file, before the first [[channel]]",
        ),
        ('loud = "yes"', "loud is true or false, not a string"),
        ("loud = 1", "loud is true or false, not a number"),
        ('size = "4"', "size is a number, not a string; write size = 4, without quotes"),
        ('size = "four"', "size is a number, not a string"),
        ("size = true", "size is a number, not true or false"),
        ("size = 2024-01-01", "size is a number, not a date"),
        ("size = []", "size is a number, not an array"),
        ("size = {}", "size is a number, not a table"),
        ("name = true", "name is a string or a whole number, not true or false"),
        ("name = 1.5", "name is a string or a whole number, not a number"),
        ("guest = 1", "guest is an array of strings, not a number"),
        ('guest = ["a", 1]', "guest is an array of strings, not one with a number"),
        ("size = 3", "size: 3 is odd"),
        ("size = 1.5", "size: invalid literal for int() with base 10: '1.5'"),
        ('guest = ["a", "nobody"]', "--guest 'nobody': name somebody"),
        ("channel = 1", "channel is an array of tables: write [[channel]] above each rule"),
        ("[channel]", "channel is an array of tables: write [[channel]] above each rule"),
        ('[[channel]]\nmatch = "a..b"', "match 'a..b': no channel has such a name: channel 'a..b' has an empty token"),
    ],
)
def test_a_mistake_is_told_with_its_line(file: Path, line: str, problem: str) -> None:
    number = 3 + line.count("\n")
    assert problems(file, f"# a comment\n\n{line}\n") == [f"my.toml:{number}: {problem}"]


def test_all_mistakes_are_told_in_order(file: Path) -> None:
    text = 'sise = 1\n[[channel]]\nmatch = "a"\necho = 1\n[loud]\n'
    assert [problem.partition(": ")[0] for problem in problems(file, text)] == ["my.toml:1", "my.toml:4", "my.toml:5"]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"size = 4\nname =\n", "my.toml:2: not TOML: Invalid value"),
        (b"size = 4\nsize = 6\n", "my.toml:2: not TOML: Cannot overwrite a value"),
        (b'size = 4\nname = """x', "my.toml:2: not TOML: Unterminated string"),
        (b"size = 4\n\nname = '\xff'", "my.toml:3: not UTF-8; save the file as UTF-8"),
        (b"#" * 1_048_577, "my.toml is larger than 1048576 bytes"),
        (b"size = " + b"9" * 5_000, "my.toml: a number has too many digits, or something is nested too deeply"),
        (b"size = " + b"[" * 50_000, "my.toml: a number has too many digits, or something is nested too deeply"),
    ],
)
def test_a_file_that_is_no_toml_is_refused(file: Path, data: bytes, problem: str) -> None:
    file.write_bytes(data)
    with pytest.raises(SettingsError) as caught:
        SettingsFile.load(str(file), settings_of(Sample))
    assert [text.replace(str(file), "my.toml") for text in caught.value.problems] == [problem]


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere.toml: No such file or directory"):
        SettingsFile.load(str(tmp_path / "nowhere.toml"), {})


# Which of them wins


def test_the_environment_wins_over_the_file(file: Path) -> None:
    options = parse(file, 'size = 4\nname = "file"\n', LHTTP_SIZE="6")
    assert (options["size"], options["name"]) == (6, "file")


def test_the_command_line_wins_over_both(file: Path) -> None:
    options = parse(file, "size = 4\n", "-s", "8", LHTTP_SIZE="6")
    assert options["size"] == 8


def test_a_list_is_replaced_and_not_added_to(file: Path) -> None:
    text = 'guest = ["a", "b"]'
    assert parse(file, text, LHTTP_GUEST="c  d").guests == ["c", "d"]
    assert parse(file, text, "--guest", "e", LHTTP_GUEST="c d").guests == ["e"]


def test_what_is_replaced_is_not_looked_at(file: Path) -> None:
    assert parse(file, "size = 3\n", LHTTP_SIZE="6")["size"] == 6
    assert parse(file, "", "--size=8", LHTTP_SIZE="odd")["size"] == 8


@pytest.mark.parametrize(("value", "flag"), [("1", 1), ("TRUE", 1), ("no", 0), ("off", 0)])
def test_a_flag_of_the_environment_is_on_or_off(file: Path, value: str, flag: int) -> None:
    assert parse(file, f"loud = {'false' if flag else 'true'}", LHTTP_LOUD=value)["loud"] == flag


def test_an_empty_variable_is_as_none(file: Path) -> None:
    assert parse(file, "size = 4", LHTTP_SIZE="")["size"] == 4


def test_a_variable_may_name_the_file(file: Path) -> None:
    file.write_text("size = 4", "utf-8")
    assert parse(None, LHTTP_CONFIG=str(file))["size"] == 4


def test_the_command_line_names_the_file_before_the_variable(file: Path) -> None:
    assert parse(file, "size = 4", LHTTP_CONFIG="/no/such/file")["size"] == 4


def test_a_secret_in_the_environment_wins_over_a_file_that_the_file_names(file: Path) -> None:
    assert parse(file, 'secret-file = "x"', LHTTP_SECRET="s")["secret-file"] is None
    assert parse(file, 'secret-file = "x"', "--secret-file=y", LHTTP_SECRET="s")["secret-file"] == "y"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("LHTTP_SIZE", "3", "$LHTTP_SIZE: size: 3 is odd"),
        ("LHTTP_LOUD", "perhaps", "$LHTTP_LOUD: 'perhaps' is neither true nor false"),
        ("LHTTP_GUEST", "nobody", "$LHTTP_GUEST: --guest 'nobody': name somebody"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(name: str, value: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(None, **{name: value})
    assert caught.value.problems == (problem,)


def test_options_that_do_not_fit_together_are_told_with_the_line_of_the_first(file: Path) -> None:
    with pytest.raises(UsageError, match=r"my.toml:2: --size is larger than --ratio; lower it"):
        parse(file, "\nsize = 100\n")


def test_options_of_the_command_line_that_do_not_fit_have_no_line(file: Path) -> None:
    with pytest.raises(UsageError, match=r"^--size is larger"):
        parse(file, "size = 4\n", "--size=100")


def test_a_mistake_on_the_command_line_comes_before_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--colour not recognized"):
        parse(None, "", "--config", str(tmp_path / "nowhere"), "--colour")


def test_help_is_given_whatever_is_in_the_file(file: Path) -> None:
    options = Sample()
    Sources(options).apply(["--config", "/no/such/file", "--help"], {})
    Sources(options).apply(["--config", "/no/such/file", "--version"], {})


def test_tables_for_plugins_are_kept_as_they_are(file: Path) -> None:
    file.write_text('size = 4\n[plugin.rooms]\ndatabase = "rooms.db"\n[plugin.rooms.pool]\nsize = 3\n[plugin.b]\n')
    plugins = SettingsFile.load(str(file), settings_of(Sample)).plugins
    assert plugins == {"rooms": {"database": "rooms.db", "pool": {"size": 3}}, "b": {}}
    file.write_text("size = 4\n")
    assert SettingsFile.load(str(file), settings_of(Sample)).plugins == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("\nplugin = 3\n", ":2: plugin is a table of tables, not a number; write [plugin.NAME]"),
        ("[plugin]\nrooms = true\n", ":2: plugin.rooms is a table, not true or false; write [plugin.NAME]"),
        ("[[plugin]]\n", ":1: plugin is a table of tables, not an array; write [plugin.NAME]"),
    ],
)
def test_what_is_no_table_for_a_plugin_is_told_with_its_line(file: Path, text: str, problem: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError) as raised:
        SettingsFile.load(str(file), settings_of(Sample))
    assert raised.value.problems == (f"{file}{problem}",)


def test_endpoints_of_the_admin_side_are_found_in_its_table(tmp_path: Path) -> None:
    path = tmp_path / "lhttp.toml"
    path.write_text('[admin]\nlisten = "9081"\n# comment\ngrpc = "9082"\n', "utf-8")
    file = SettingsFile.load(str(path), settings_of(Options()))
    assert (file.values["admin"], file.values["grpc"]) == (["9081"], ["9082"])
    assert (file.where("admin"), file.where("grpc")) == (f"{path}:2", f"{path}:4")
