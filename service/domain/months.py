"""Names of months in languages other than English, as spreadsheets and machines write dates."""

import calendar
import re

_NAMES = """
januar jänner jän janvier janv enero ene gennaio gen januari janeiro
februar feber février févr fév febrero febbraio februari fevereiro fev
märz mär mrz mars marzo maart mrt março
april avril avr abril abr aprile
mai mayo maggio mag mei maio
juni juin junio giugno giu junho
juli juillet juil julio luglio lug julho
august août agosto ago augustus
september sept septembre septiembre settembre set setembro
oktober okt octobre octubre ottobre ott outubro out
november novembre noviembre novembro
dezember dez décembre déc diciembre dic dicembre december dezembro
"""
_MONTHS = {
    name: number
    for number, names in enumerate(_NAMES.strip().splitlines(), 1)
    for name in names.split()
}
_WORD = re.compile(r"[^\W\d_]+")


def in_english(text: str, form: str) -> str:
    """Return a date with its month in English, as the format `form` of strptime reads it.

    >>> in_english("01. Mär 2026", "%d. %b %Y"), in_english("3 mai 2026", "%d %B %Y")
    ('01. Mar 2026', '3 May 2026')
    """
    names = calendar.month_name if "%B" in form else calendar.month_abbr

    def english(word: re.Match[str]) -> str:
        number = _MONTHS.get(word[0].lower())
        return names[number] if number else word[0]

    return _WORD.sub(english, text) if "%b" in form or "%B" in form else text
