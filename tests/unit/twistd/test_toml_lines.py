"""lhttp_tx.twistd.toml_lines: where keys and tables of a document stand."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given, strategies as st

from lhttp_tx.twistd.toml_lines import find_lines, line_of


def test_tables_within_a_table_of_an_array_have_lines() -> None:
    text = "[[a]]\n[a.b]\nc = 1\n[[a]]\n[a.b]\nc = 2\n[[a.d]]\n[[a.d]]\ne = 3\n"
    tomllib.loads(text)
    found = find_lines(text)
    assert (found["a", 0, "b", "c"], found["a", 1, "b"], found["a", 1, "b", "c"]) == (3, 5, 6)
    assert (found["a", 1, "d", 1], found["a", 1, "d", 1, "e"]) == (8, 9)


values = st.sampled_from(
    [
        "1",
        "'[x] # = '",
        '"a = \\" [b] #"',
        '"""one\n[two]\nk0 = 3 \\""" " ""\n"""',
        "'''one\n''' # '''",
        "'''\n[[x]]'''''",
        '""',
        '""""""',
        "[\n1, # ]\n[2, '''\n]''']\n]",
        "{a = 1, b = [\n1], c = {}}",
        "2024-01-01 10:00:00",
        "[]",
    ]
)
statements = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["", "  # [x]", "\t"]), st.none()),
        st.tuples(st.sampled_from(["k{} = ", "\t'k{}'=", ' "k{}" = ', "k{}.a.'b.c' = "]), values),
        st.tuples(
            st.sampled_from(["[t{}]", "[ 't{}' ] # [[x]]", "[[many]] # {}", " [[ many ]]", "[t{}.'a.b'.c]"]), st.none()
        ),
    ),
    max_size=12,
)


@given(statements)
def test_the_line_of_each_key_is_found(parts: list[tuple[str, str | None]]) -> None:
    text, prefix, many, expected = "", (), 0, {}
    for number, (start, value) in enumerate(parts):
        line = text.count("\n") + 1
        start = start.format(number)
        place: Any = ()
        if value is not None:
            place = (*prefix, f"k{number}")
            if ".a." in start:
                expected[(*place, "a", "b.c")] = line
        elif "[[" in start.partition("#")[0]:
            expected.setdefault(("many",), line)
            place = prefix = ("many", many)
            many += 1
        elif "[" in start.partition("#")[0]:
            place = prefix = (f"t{number}", "a.b", "c") if "a.b" in start else (f"t{number}",)
        if place:
            expected[place] = line
        text += f"{start}{value or ''}\n"
    tomllib.loads(text)
    found = find_lines(text)
    assert {place: found.get(place) for place in expected} == expected


def test_what_is_within_a_value_has_the_line_of_its_key() -> None:
    lines = find_lines("\na = [\n{b = 1},\n]\n")
    assert line_of(lines, ("a", 0, "b")) == 2
    assert line_of(lines, ("nowhere",)) == 1
