"""Names of any script in pictures: by a font that has them, else in words that can be drawn."""

from __future__ import annotations

import warnings

import pytest
from matplotlib.figure import Figure

from delineate.core.labels import LabelSet
from delineate.reporting import fonts

LABELS = LabelSet.from_names({1: "肝脏", 2: "左腎", 3: "기타"})


def texts_of(*words):
    """The texts of a picture with ``words``, which is drawn without a warning, and their fonts."""
    figure = Figure()
    for text in words:
        figure.text(0.1, 0.1, text)
    fonts.make_legible(figure, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a character without a glyph is a warning
        figure.canvas.draw()
    return [(one.get_text(), one.get_fontfamily()) for one in figure.texts]


@pytest.fixture
def no_other_font(monkeypatch):
    monkeypatch.setattr(fonts, "_family_with", lambda characters: "")


def test_without_a_font_names_are_english_or_numbers_and_a_line_states_it(no_other_font):
    known = fonts.structure_of("肝脏")
    first = "structure 1" if not known.isascii() else f"{known} (1)"
    found = [text for text, _ in texts_of("liver", "肝脏", "기타", "病例 7: Dice 0.9")]
    assert found[:4] == ["liver", first, "structure 3", "?? 7: Dice 0.9"]
    assert found[4] == (
        f"no font of this computer has all characters of: {first}, structure 3, ?? 7: Dice 0.9"
    )


def test_a_font_of_the_computer_that_has_the_characters_is_used():
    """Matplotlib does not draw this letter by default, and brings a font that has it."""
    ((text, family),) = texts_of("\u1d84 7")
    assert text == "\u1d84 7" and family[0] == "sans-serif" and len(family) == 2


def test_a_font_of_boxes_is_no_font():
    assert fonts._family_with(frozenset("\ue999")) == ""
