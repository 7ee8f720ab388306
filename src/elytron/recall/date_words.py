"""
The words for days, weeks, months and years, in English and in French: tables and rules. Pure.

A rule is a pattern and the name of what `dates.py` makes of it. All rules become one pattern,
which reads a text once from left to right, and at each place takes the first rule that fits. No
rule repeats anything without a bound, so that reading takes time in proportion to the text,
whatever stands in it. Texts come without case and accents, with single spaces.

The two languages are read together, as a text does not say which it is in. They clash seldom:
"mars" is a month only beside en, fin, debut, a day or a year; "ete" is also "been", so the summer
needs its article; "an" counts as a year only after a French number or "l'"; "le mois passe" is
taken for last month; "il y a trois jours" is taken for a time even where it only says that there
are three days of something.
"""

import re
from collections.abc import Collection
from functools import cache
from typing import NamedTuple

_EN_MONTHS = "january february march april may june july august september october november december"
_FR_MONTHS = "janvier fevrier mars avril mai juin juillet aout septembre octobre novembre decembre"
_SHORT_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
_SHORT_MONTHS_FR = {"sept": 9, "janv": 1, "fevr": 2, "avr": 4, "juil": 7}
MONTHS = _SHORT_MONTHS_FR | {
    name: number
    for names in (_EN_MONTHS, _FR_MONTHS, _SHORT_MONTHS)
    for number, name in enumerate(names.split(), 1)
}
# Also verbs, names, planets and abbreviations of other things: not without a word beside them.
_SHY_MONTHS = {
    *_SHORT_MONTHS.split(), *_SHORT_MONTHS_FR, *"march mars april june august".split(),
}  # fmt: skip

_EN_DAYS = "monday tuesday wednesday thursday friday saturday sunday"
_FR_DAYS = "lundi mardi mercredi jeudi vendredi samedi dimanche"
_SHORT_DAYS = {
    "mon": 0, "tue": 1, "tues": 1, "wed": 2, "weds": 2, "thu": 3, "thur": 3, "thurs": 3,
    "fri": 4, "sat": 5, "sun": 6,
}  # fmt: skip
WEEKDAYS = _SHORT_DAYS | {
    name: number for names in (_EN_DAYS, _FR_DAYS) for number, name in enumerate(names.split())
}
# The month in which each begins; all last three. Northern half of the Earth.
SEASONS = {
    "spring": 3, "printemps": 3, "summer": 6, "ete": 6, "autumn": 9, "fall": 9, "automne": 9,
    "winter": 12, "hiver": 12,
}  # fmt: skip
UNITS = {
    name: unit
    for unit, names in {
        "hour": "hour hours heure heures",
        "day": "day days jour jours",
        "week": "week weeks semaine semaines",
        "weekend": "weekend weekends week-end week-ends",
        "month": "month months mois",
        "year": "year years an ans annee annees",
    }.items()
    for name in names.split()
}
# Feasts on fixed days, spelt without what is not a letter: month, day.
HOLIDAYS = {
    "newyearseve": (12, 31), "newyearsday": (1, 1), "newyears": (1, 1), "christmaseve": (12, 24),
    "christmasday": (12, 25), "christmas": (12, 25), "xmas": (12, 25), "boxingday": (12, 26),
    "halloween": (10, 31), "valentinesday": (2, 14), "valentines": (2, 14),
    "stpatricksday": (3, 17), "aprilfoolsday": (4, 1), "independenceday": (7, 4),
    "bastilleday": (7, 14), "noel": (12, 25), "reveillondenoel": (12, 24), "nouvelan": (1, 1),
    "jourdelan": (1, 1), "saintvalentin": (2, 14), "saintsylvestre": (12, 31),
    "toussaint": (11, 1), "fetenationale": (7, 14),
}  # fmt: skip
_SPELT_HOLIDAYS = (
    r"new year'?s eve|new year'?s day|new year'?s|christmas eve|christmas day|christmas|xmas"
    r"|boxing day|halloween|valentine'?s day|valentine'?s|st\.? patrick'?s day"
    r"|april fools'? day|independence day|bastille day|reveillon de noel|nouvel an"
    r"|jour de l'an|saint[- ]valentin|saint[- ]sylvestre|toussaint|fete nationale"
)
# How many a word means, from and to.
COUNTS = {"couple": (2, 3), "few": (2, 5), "several": (3, 7), "quelques": (2, 5),
          "plusieurs": (3, 7), "dozen": (11, 13), "huitaine": (7, 9), "dizaine": (9, 11),
          "quinzaine": (14, 16), "vingtaine": (18, 22), "trentaine": (27, 33),
          "a": (1, 1), "an": (1, 1), "un": (1, 1), "une": (1, 1)}  # fmt: skip
for _names in (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty",
    "un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize "
    "dix-sept dix-huit dix-neuf vingt",
):
    COUNTS |= {name: (number, number) for number, name in enumerate(_names.split(), 1)}
ORDINALS = {
    name: number
    for names in (
        "first second third fourth fifth sixth seventh eighth ninth tenth",
        "premier deuxieme troisieme quatrieme cinquieme",
        "premiere seconde",
    )
    for number, name in enumerate(names.split(), 1)
}
# Days from the day of the text, from and to.
FIXED_DAYS = {
    "the day before yesterday": (-2, -2), "avant-hier": (-2, -2), "avant hier": (-2, -2),
    "day after tomorrow": (2, 2), "apres-demain": (2, 2), "apres demain": (2, 2),
    "today": (0, 0), "tonight": (0, 0), "this morning": (0, 0), "this afternoon": (0, 0),
    "this evening": (0, 0), "aujourd'hui": (0, 0), "ce matin": (0, 0), "ce soir": (0, 0),
    "ce midi": (0, 0), "cet apres-midi": (0, 0), "cette apres-midi": (0, 0), "cette nuit": (0, 0),
    "yesterday": (-1, -1), "last night": (-1, -1), "last evening": (-1, -1), "hier": (-1, -1),
    "la nuit derniere": (-1, -1), "tomorrow": (1, 1), "demain": (1, 1),
    "the other day": (-7, -1), "the other night": (-7, -1), "l'autre jour": (-7, -1),
}  # fmt: skip


def _any(words: Collection[str]) -> str:
    """A pattern for any of these words, the longer ones first."""
    return "(?:" + "|".join(re.escape(w) for w in sorted(words, key=lambda w: (-len(w), w))) + ")"


def _behind(words: str, *, begins: str) -> str:
    """One of these words must stand before (_ is a space); *begins* with a letter of those."""
    seen = "|".join(rf"(?<=\b{re.escape(word.replace('_', ' '))} )" for word in words.split())
    return f"(?=[{begins}])(?:{seen})"  # the letter is looked at first, as that is fast


NUMBER = (
    r"(?:[0-9]{1,3}|(?:(?:an?|the) )?(?:couple|few|dozen)(?: of)?"
    r"|(?:une )?(?:huitaine|dizaine|quinzaine|vingtaine|trentaine)(?: de)?|"
    + _any({w for w in COUNTS if not w.endswith("aine")})
    + ")"
)
UNIT = r"(?:week-?ends?|" + _any(UNITS) + ")"
WEEKDAY = _any({*_EN_DAYS.split(), *_FR_DAYS.split()})
_WEEKDAYS = _any({f"{day}s" for day in (_EN_DAYS + " " + _FR_DAYS).split()})
# "may" before a verb is none, even behind a number: "option 7 may help".
_NO_VERB = (
    r"(?! (?:be|have|not|also|need|help|cause|only|just|still|take|seem|look|say|come|go|get)\b)"
)
# What else is numbered: "on the 3rd floor", "on the 2nd try".
_NO_STEP = r"(?! (?:floor|day|of|street|avenue|try|time|attempt|round|page|place|hole|lap|mile)\b)"
_MONTH = rf"(?P<m>{_any(MONTHS)})\.?"
_YEAR = r"(?:19|20)[0-9]{2}(?![0-9]|[:.,][0-9])"
_RELATIVE_YEAR = (
    r"(?:of )?(?:last|this|next) year|(?:de )?l'(?:an|annee) (?:derniere?|passee?|prochaine?)"
    r"|(?:de )?cette annee"
)
_OF_YEAR = rf"(?:,? (?:of |de )?(?P<y>{_YEAR})|,? (?P<r>{_RELATIVE_YEAR}))"
_OF_ANY_YEAR = rf"(?:,? (?:of |de )?(?P<y>[0-9]{{4}}(?![0-9:]))|,? (?P<r>{_RELATIVE_YEAR}))?"
_DAY = r"[0-3]?[0-9]"
_NAMED_DAY = rf"(?:{WEEKDAY},? (?:the |le )?)?"
_UP_TO = r"(?: ?- ?| (?:to|until|and|or|au|a|et|ou) (?:le )?)"
_ANY_MONTH = rf"{_any(MONTHS)}\.?"
_LENT_YEAR = rf",? (?P<y>{_YEAR})"  # of the second month: "between March and May 2022"
_ENDING = r"(?:st|nd|rd|th|er|eme|e)?"
_PART = (
    r"(?P<p>early|mid|late|(?:beginning|start|middle|end) of"
    r"|(?:(?:au )?(?:debut|milieu)|(?:a la )?fin)(?: de| du)?|mi|courant)"
    r"[ -](?:in )?(?:mois d[e'] ?)?"
)
_SEASON_EN = "(?:spring|summer|autumn|fall|winter)"
_SEASON_FR = "(?:printemps|ete|automne|hiver)"
_WHOLE_EN = rf"week-?end|week|month|year|{_SEASON_EN}"
_WHOLE_FR = (
    r"semaine|week-?end|mois|annee|printemps|automne|hiver|(?:(?<=l')|(?<=cet ))ete|"
    + _any(_FR_DAYS.split())
)
_BACK_FR = r"(?P<b>derniere?|passee?|prochaine?|d'avant|suivante?)(?! (?:vite|bien|mal|par)\b)"
_ABOUT_FR = r"(?:environ |presque |plus de |plus d'|moins de |moins d'|a peine )?"
# What makes a month of a word that could be something else.
_BESIDE_MONTH = _behind(
    "in on since until till during before after of from through throughout between by around"
    " en de depuis avant apres jusqu'en mois_de courant",
    begins="ajfmdons",
)
_BESIDE_SEASON = _behind("in_the during_the over_the since_the before_the after_the", begins="sawf")
_BESIDE_WEEKEND = _behind(
    "over_the on_the at_the during_the for_the pendant_le durant_le", begins="w"
)
_BESIDE_YEAR = _behind(
    "in since until till during before after year en depuis avant apres annee", begins="12"
)
_BESIDE_NOEL = _behind("a de pour pendant depuis avant apres d'ici jusqu'a last", begins="n")
_REGULAR = (
    rf"(?:{UNIT}|{WEEKDAY}s?|{_any(MONTHS)}|{_SEASON_EN}|{_SEASON_FR}|{_SPELT_HOLIDAYS}"
    r"|morning|evening|night|matins?|soirs?)"
)

# In this order at each place: the longer way to say a thing before the shorter.
_RULES: tuple[tuple[str, str], ...] = (
    ("habit", rf"(?:every|each|chaque|tou(?:te)?s les) (?:other |single |deux )?{_REGULAR}"),
    ("iso", r"(?P<y>[0-9]{4})[-/.](?P<m>[0-9]{1,2})[-/.](?P<d>[0-9]{1,2})(?![0-9])(?:t[0-9]{2})?"),
    ("slashed", r"(?P<a>[0-9]{1,2})[-/.](?P<b>[0-9]{1,2})[-/.](?P<y>[0-9]{4})(?![-/.]?[0-9])"),
    ("slashed", r"(?P<a>[0-9]{1,2})/(?P<b>[0-9]{1,2})/(?P<y>[0-9]{2})(?![-/.]?[0-9])"),
    ("fixed", rf"(?P<w>{_any(FIXED_DAYS)})"),
    ("ago", rf"(?P<n>{NUMBER}) (?P<u>{UNIT}|{_WEEKDAYS}) (?:ago|back)"),
    ("ago", rf"(?:il )?y a {_ABOUT_FR}(?P<n>{NUMBER}) (?P<u>{UNIT})"),
    ("ahead", rf"(?:in|within|dans) {_ABOUT_FR}(?P<n>{NUMBER}) (?P<u>{UNIT})"),
    ("ahead", rf"(?P<n>{NUMBER}) (?P<u>{UNIT}) from (?:now|today)"),
    ("trailing", rf"(?:in|over|during|within|for|throughout) the (?:last|past) (?P<u>{UNIT})"),
    ("trailing", rf"(?:last|past) (?P<n>{NUMBER}) (?P<u>{UNIT})"),
    ("trailing", r"(?:this|the) past (?P<u>day|week|month|year)"),
    ("trailing", rf"(?:ces|les|des) (?:(?P<n>{NUMBER}) )?derni(?:ers|eres) (?P<u>{UNIT})"),
    ("trailing", rf"depuis {_ABOUT_FR}(?P<n>{NUMBER}) (?P<u>{UNIT})"),
    ("trailing", rf"for (?:about |almost |over )?(?P<n>{NUMBER}) (?P<u>{UNIT}) now"),
    ("leading", rf"next (?P<n>{NUMBER}) (?P<u>{UNIT})"),
    ("before_last", r"(?P<u>week|weekend|month|year) before last"),
    (
        "nth",
        rf"(?P<n>[1-5](?:st|nd|rd|th|e|ere|eme)|last|{_any(ORDINALS)})"
        rf" (?P<u>{UNIT}|{WEEKDAY}) (?:of|in|de|d') ?(?:the month of )?{_MONTH}{_OF_ANY_YEAR}",
    ),
    ("part", rf"{_PART}{_MONTH}{_OF_ANY_YEAR}"),
    ("part", rf"{_PART}(?P<y>{_YEAR})"),
    (
        "date",
        rf"(?P<d0>{_DAY}){_ENDING}{_UP_TO}(?P<d>{_DAY}){_ENDING}(?: of| de)? {_MONTH}"
        rf"{_OF_ANY_YEAR}",
    ),
    ("date", rf"{_MONTH} (?P<d0>{_DAY}){_ENDING}{_UP_TO}(?P<d>{_DAY}){_ENDING}{_OF_ANY_YEAR}"),
    (
        "date",
        rf"{_MONTH} (?P<d>{_DAY}){_ENDING}(?={_UP_TO}{_ANY_MONTH} {_DAY}{_ENDING}{_LENT_YEAR})",
    ),
    ("date", rf"{_NAMED_DAY}(?P<d>{_DAY}){_ENDING}(?: of| de)? {_MONTH}{_NO_VERB}{_OF_ANY_YEAR}"),
    ("date", rf"{_NAMED_DAY}(?P<d>premier(?: de)?|{_any(ORDINALS)} of) {_MONTH}{_OF_ANY_YEAR}"),
    (
        "date",
        rf"{_NAMED_DAY}{_MONTH} (?:the )?(?P<d>{_DAY}){_ENDING}(?![0-9]|[:.%/][0-9]"
        rf"| (?:miles|km|people|hours|minutes|times|days|weeks|months|years)\b){_OF_ANY_YEAR}",
    ),
    ("monthly", rf"{_behind('on_the', begins='0-9')}(?P<d>{_DAY})(?:st|nd|rd|th){_NO_STEP}"),
    ("month", rf"{_MONTH}{_OF_YEAR}"),
    ("month", rf"{_MONTH}(?={_UP_TO}{_ANY_MONTH}{_LENT_YEAR})"),
    ("holiday", rf"(?P<w>{_SPELT_HOLIDAYS}) {_BACK_FR}"),
    ("holiday", rf"(?:(?P<b>last|this|next) )?(?P<w>{_SPELT_HOLIDAYS}){_OF_YEAR}?"),
    ("holiday", rf"(?P<w>noel)(?:{_OF_YEAR}| {_BACK_FR})"),
    ("holiday", rf"{_BESIDE_NOEL}(?P<w>noel)"),
    (
        "relative",
        r"(?P<b>last|this past|this coming|this|next|past|coming|upcoming) "
        rf"(?P<w>{_WHOLE_EN}|{WEEKDAY}|(?<!this )(?:{_any(_SHORT_DAYS)}|{_any(MONTHS)})\.?"
        rf"|{_any(set(_EN_MONTHS.split()) - {'may', 'march'})})",
    ),
    (
        "relative",
        rf"(?:(?:le|la|en|au) |l')?(?P<w>{_WHOLE_FR}|an|{_any(_FR_MONTHS.split())}) {_BACK_FR}",
    ),
    ("relative", rf"(?P<b>cet|cette|ce) (?P<w>{_WHOLE_FR})(?:-ci)?"),
    ("season", rf"(?P<w>{_SEASON_EN}|{_SEASON_FR}){_OF_YEAR}"),
    ("season", rf"{_BESIDE_SEASON}(?P<w>{_SEASON_EN})"),
    ("season", r"(?:au (?P<w>printemps)|(?<!a )l'(?P<w2>ete|automne|hiver))"),
    ("quarter", rf"q(?P<q>[1-4]),? (?P<y>{_YEAR})"),
    ("month", rf"(?P<m>{_any(MONTHS.keys() - _SHY_MONTHS)})"),
    ("month", rf"{_BESIDE_MONTH}(?P<m>{_any(_SHY_MONTHS)}){_NO_VERB}\.?"),
    ("habit", rf"les? {_any(_FR_DAYS.split())}(?! [0-9])"),
    ("weekday", rf"(?P<w>{WEEKDAY})"),
    ("weekday", _behind("on", begins="mtwfs") + rf"(?P<w>{_any(_SHORT_DAYS)})\.?"),
    ("weekend", rf"{_BESIDE_WEEKEND}week-?end"),
    ("year", rf"{_BESIDE_YEAR}(?P<y>{_YEAR})(?! (?:people|dollars|euros|steps|km|miles|words)\b)"),
    ("year", rf"l'(?:an|annee) (?P<y>{_YEAR})"),
)  # fmt: skip


class Grammar(NamedTuple):
    """All rules as one pattern, and the names of the groups of each."""

    pattern: re.Pattern[str]
    groups: dict[str, tuple[tuple[str, str], ...]]  # by rule: (its own name, the pattern's name)


@cache
def grammar() -> Grammar:
    """
    The rules as one pattern, in which each rule ends with an empty group of its name.

    Made on first use and kept: it takes some tens of milliseconds.
    """
    parts, groups = [], {}
    for number, (name, rule) in enumerate(_RULES):
        key = f"{name}{number}"
        groups[key] = tuple((own, f"{key}_{own}") for own in re.findall(r"\(\?P<(\w+)>", rule))
        unique = re.sub(r"\(\?P<(\w+)>", rf"(?P<{key}_\1>", rule)
        parts.append(f"(?:{unique})(?P<{key}>)")
    # After a point or a comma behind a digit stands the rest of a number, no day and no count.
    return Grammar(re.compile(rf"(?<!\w)(?<![0-9][.,])(?:{'|'.join(parts)})(?!\w)"), groups)


# What stands right before a day and makes another of it. Searched in a few words, up to their end.
LINKING = frozenset(
    "before after prior following of du since until till starting depuis avant apres jusqu'a "
    "jusqu'au jusqu'en partir veille lendemain".split()
)
_ARTICLE = r"(?:(?:the|le|la|on|de|du) |[ld]')?$"


@cache
def beside() -> re.Pattern[str]:
    """The week before, two days after, the weekend of, la veille de: just before a day."""
    unit = rf"{UNIT}|{WEEKDAY}|{_WEEKDAYS}|{_any(_SHORT_DAYS)}"
    return re.compile(
        rf"\b(?:(?:(?P<n>{NUMBER}) )?(?P<u>{unit}) "
        r"(?P<way>before|after|prior to|following|avant|apres|(?<=week )of|(?<=weekend )of"
        r"|(?<=semaine )du|(?<=week-end )du) "
        rf"|(?P<eve>veille|lendemain) ){_ARTICLE}"
    )


@cache
def since() -> re.Pattern[str]:
    """Since, after, before, until: just before a day."""
    return re.compile(
        r"\b(?P<way>since|after|before|until|till|starting|depuis|avant|apres|jusqu'(?:au|a|en)"
        rf"|a partir) (?:(?:in|en|early|late) )?{_ARTICLE}"
    )


# The first look at a text: without one of these words, and without a number that may be a date or
# a year, no rule fits. A set of words is several times as fast as a pattern of them all.
WORD = re.compile("[a-z]+")
DIGITS = re.compile("[0-9](?:[-/.][0-9]|[0-9]{3})")
TELLING = frozenset(
    {*MONTHS, *WEEKDAYS, *SEASONS, *UNITS} - {"an", "ete"}
    | {f"{day}s" for day in (_EN_DAYS + " " + _FR_DAYS).split()}
) | frozenset(
    """
    today tonight yesterday tomorrow morning afternoon evening night aujourd matin soir midi hier
    demain nuit dernier derniere prochain prochaine passe passee eve christmas xmas boxing
    st nd rd th halloween valentine valentines patrick patricks fools independence bastille noel
    nouvel valentin sylvestre toussaint nationale
    """.split()
)
PAIRS = ("un an", "l'ete", "l’ete", "cet ete")  # their second word alone is met everywhere
SIGNS = str.maketrans({"’": "'", "‘": "'", "‐": "-", "‑": "-", "–": "-", "—": " "})


@cache
def questions() -> re.Pattern[str]:
    """What asks for a time, without case and accents."""
    times = "dates?|days?|months?|years?|times?|weeks?|weekends?|weekdays?|seasons?|decades?"
    does = (
        "did|do|does|was|were|is|are|am|has|have|had|will|would|can|could|should|shall|might|must"
    )
    return re.compile(
        "|".join(
            (
                rf"\bwhen(?:'s| (?:exactly |precisely |about |roughly )?(?:{does}))\b",
                r"\b(?:know|recall|(?:you|i|they) remember|tell me|find out|since|until|by|from)"
                r" when\b",
                r"\b(?:when|quand)(?: exactly| precisely| exactement)? ?\?",
                rf"\b(?:what|which)(?: exact)? (?:{times})\b(?![- ](?:zones?|to-day|slots?)\b)",
                r"\bwhat(?:'s| is| was| were| are| will be)(?: the)?(?: exact| approximate)?"
                rf" (?:{times})\b",
                r"\bhow (?:long (?:ago|has|have|since)|recently|many [a-z]{1,10} ago)\b",
                r"\bquand (?:est|etait|a-t|ont|sera|seront|va-t)\b",
                r"(?:^|[.!?;:-] ?)(?:et |mais |alors |donc )?quand (?!meme\b)[^,.;!?]{0,200}"
                r"(?:\?|$)",
                r"\b(?:depuis|jusqu'a|pour|de|c'est|c'etait|sais|sait|savez|souviens|rappelles?|dis-moi"
                r"|dites-moi) quand\b(?! meme)",
                r"\bquel(?:le)?s? (?:dates?|jours?|mois|annees?|heures?|epoques?|semaines?|saisons?"
                r"|moment|an)\b",
                r"\bquel(?:le)? (?:est|etait|sera|fut) "
                r"(?:la date|le jour|le mois|l'(?:annee|heure|epoque))\b",
                r"\b(?:y a|depuis|fait) combien d",
            )
        )
    )
