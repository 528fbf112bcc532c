"""Names of classes in letters that the usual font has, that another has, and that none has."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry
from matplotlib.ft2font import FT2Font

from lowshot_kedro import fonts
from lowshot_kedro.fonts import drawable, font_families, font_file

DEJAVU = Path(fonts._USUAL_FILE)


def has(path, letter):
    return ord(letter) in FT2Font(str(path)).get_charmap()


@pytest.fixture
def installed(monkeypatch):
    """Which fonts there are besides the usual one."""

    def only(*entries):
        monkeypatch.setattr(fonts, "_installed", lambda: iter(entries))
        fonts._others.cache_clear()

    yield only
    fonts._others.cache_clear()


def test_usual_letters_have_the_usual_font(installed):
    installed()
    assert font_families(["cat", "Hündin", "γάτα", "кошка"]) == ["DejaVu Sans"]
    assert font_file("кошка") == DEJAVU
    assert drawable("γάτα 0.93") == "γάτα 0.93"


def test_another_font_has_what_is_missing(installed, monkeypatch):
    other = DEJAVU.with_name("STIXGeneral.ttf")
    private = next(
        chr(code)
        for code in sorted(FT2Font(str(other)).get_charmap())
        if not has(DEJAVU, chr(code)) and not chr(code).isspace()
    )
    installed(FontEntry(fname=str(other), name="STIXGeneral"))
    assert font_families([f"a{private}"]) == ["DejaVu Sans", "STIXGeneral"]
    assert font_file(private) == other
    assert drawable(f"a{private}") == f"a{private}"


def test_letters_of_no_font_are_squares_and_said_once(installed, caplog):
    installed()
    with caplog.at_level("INFO"):
        assert drawable("三角 0.93") == "□□ 0.93"
        assert drawable("三角 0.93") == "□□ 0.93"
        assert font_families(["三角 0.93"]) == ["DejaVu Sans"]
    (message,) = {record.message for record in caplog.records}
    assert message.startswith("no installed font has 三角, drawn as □; ")


@pytest.mark.filterwarnings("error")
def test_squares_are_drawn_without_a_warning(installed):
    installed()
    figure = Figure()
    figure.suptitle(drawable("三角 $5"), family=font_families(["三角"]), parse_math=False)
    figure.canvas.draw()


def test_a_font_that_cannot_be_read_has_no_letters(installed, tmp_path):
    path = tmp_path / "broken.ttf"
    path.write_bytes(b"no font")
    installed(FontEntry(fname=str(path), name="broken"))
    assert font_families(["三"]) == ["DejaVu Sans"]
