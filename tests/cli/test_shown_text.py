"""What a data set can make a terminal do: nothing. Names from files are shown, and never obeyed."""

import logging

import pytest

from sniper.cli.display import LogLines, complain, say, show_skipped, show_table

EVIL = "a\x1b]0;title\x07\x1b[31mred\x9b2J\rb\u202egpj.exe\udcff"
SHOWN = r"a\x1b]0;title\x07\x1b[31mred\x9b2J\rb\u202egpj.exe\udcff"


def test_control_characters_are_shown_and_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"{EVIL}\nsecond line")
    show_table(f"of {EVIL}", ["name", EVIL], [[EVIL, "1"]])
    complain("error:", f"{EVIL} is not there")
    show_skipped([(EVIL, f"cannot read {EVIL}")])
    LogLines().emit(logging.LogRecord("sniper", logging.WARNING, "", 0, f"skipped {EVIL}\nand more", None, None))
    out, err = capsys.readouterr()
    assert out.startswith(f"{SHOWN}\nsecond line\n")
    assert out.count(SHOWN) >= 3, "line, cell and column; a narrow title is cut"
    assert f"error: {SHOWN} is not there\n" in err
    assert f"  cannot read {SHOWN}\n" in err
    assert f"warning: skipped {SHOWN}\\nand more\n" in err, "a record is one line"
    for character in "\x1b\x07\x9b\r\u202e\udcff":
        assert character not in out + err


def test_letters_of_all_scripts_stay(capsys: pytest.CaptureFixture[str]) -> None:
    name = "Kräuter, 樹木, שלום, כן\u200cלא, 👩\u200d🌾 [bold]x[/]"
    say(name)
    complain("error:", name)
    assert capsys.readouterr() == (f"{name}\n", f"error: {name}\n")
