"""The imitated machines: what a process on one of them is given."""

from __future__ import annotations

import pytest

from lipkit.book import machines


def printed(capsys, *words: str) -> str:
    machines.main(list(words))
    return capsys.readouterr().out


def test_it_prints_what_env_takes(capsys):
    for number in machines.NUMBERS:
        words = printed(capsys, str(number)).split()
        assert dict(word.split("=") for word in words) == machines.variables(number)
    assert printed(capsys) == "1 2 4\n", "what `make test-machines` goes through"


def test_no_two_machines_are_alike():
    own = [machines.variables(number) | {"LIPKIT_PERTURB": ""} for number in machines.NUMBERS]
    assert all(own.count(one) == 1 for one in own)


@pytest.mark.parametrize("words", [["0"], ["9"], ["two"], ["1", "2"]])
def test_a_machine_that_is_none_is_refused(words):
    with pytest.raises(SystemExit, match="^lipkit: error: "):
        machines.main(words)
