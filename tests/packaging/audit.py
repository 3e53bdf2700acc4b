"""
What `tox -e audit` does: ask which of the packages that an installation brings have known vulnerabilities.

    python tests/packaging/audit.py [OPTION OF pip-audit...]

It looks at the installed versions of what lhttp_tx and its extras for servers require, and of what these require. The
exit status is 0 only if every one of them was looked up and has none; 1 if one has; 2 if the question was not answered.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NoReturn

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ROOT = "lhttp_tx[cli,nats]"

_TIME_LIMIT = 300
"""Seconds for all questions together."""


def installed(root: str) -> dict[str, str]:
    """Return name and version of every installed package that *root* requires, without itself."""
    found: dict[str, str] = {}
    waiting, seen = [Requirement(root)], set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                package = distribution(name)
            except PackageNotFoundError:
                raise SystemExit(f"{wanted} is required and not installed: run this with tox -e audit") from None
            found[name] = package.version
            requirements = [Requirement(line) for line in package.requires or ()]
            waiting += [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": extra})]
    del found[canonicalize_name(Requirement(root).name)]
    return found


def ask(pinned: dict[str, str], arguments: list[str]) -> list[dict[str, Any]]:
    """Return what pip-audit has to say about each of *pinned*; exit if it has no answer."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "requirements.txt")
        file.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pinned.items())), encoding="ascii")
        options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off", *arguments]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pip_audit", "--requirement", str(file), *options],
                capture_output=True,
                timeout=_TIME_LIMIT,
                encoding="utf-8",
                check=False,
            )
        except subprocess.TimeoutExpired:
            _not_answered(f"no answer in {_TIME_LIMIT} seconds")
    try:
        answers: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        _not_answered((done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1])
    return answers


def _not_answered(why: str) -> NoReturn:
    print(f"NOT AUDITED: {why}", file=sys.stderr)
    print("This says nothing about the packages; the records are at https://pypi.org.", file=sys.stderr)
    sys.exit(2)


def main() -> int:
    """Ask, print the answers, and return the exit status."""
    pinned = installed(_ROOT)
    answers = ask(pinned, sys.argv[1:])
    known = {canonicalize_name(answer["name"]): answer for answer in answers}
    unknown = sorted(name for name in pinned if "vulns" not in known.get(name, {}))
    bad = [(name, found) for name in sorted(known) for found in known[name].get("vulns", ())]
    for name, found in bad:
        fixed = ", ".join(found["fix_versions"]) or "no version yet"
        print(f"VULNERABLE: {name} {pinned.get(name)}: {found['id']}, fixed in {fixed}")
        print(f"    {found['description'][:300]}")
    print(f"{len(pinned)} packages: {len(pinned) - len(unknown)} looked up, {len(bad)} known vulnerabilities")
    if bad:
        return 1
    if unknown:
        _not_answered(f"no record of {', '.join(unknown)}; an index that mirrors PyPI may have no such records")
    return 0


if __name__ == "__main__":
    sys.exit(main())
