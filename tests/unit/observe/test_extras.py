"""lhttp_tx.observe.extras: the command that is shown installs from any index."""

import configparser
import re
from pathlib import Path

import pytest

from lhttp_tx.observe.extras import install_command

EXTRAS = ("nats", "jwt", "manhole", "cli")


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_names_the_libraries_of_the_extra(extra: str) -> None:
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parent.parent.parent.parent / "setup.cfg")
    wanted = setup["options.extras_require"][extra].split("\n")
    names = re.findall(r"'(.+?)'", install_command(extra))
    assert sorted(names) == sorted(filter(None, (line.strip() for line in wanted)))


def test_an_extra_that_is_not_known_is_named_itself() -> None:
    assert install_command("other") == "pip install 'lhttp_tx[other]'"
