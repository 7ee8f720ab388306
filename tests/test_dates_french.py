"""The dates that a French text speaks of. Expected days are written as "first..last"."""

import pytest

from elytron.recall import dates
from elytron.text import fold
from test_dates import days_of

FRENCH = {
    # Autour du jour
    "aujourd'hui": "2023-07-12",
    "Aujourd’hui": "2023-07-12",
    "ce matin": "2023-07-12",
    "cet après-midi": "2023-07-12",
    "ce soir": "2023-07-12",
    "hier": "2023-07-11",
    "hier soir": "2023-07-11",
    "avant-hier": "2023-07-10",
    "demain": "2023-07-13",
    "après-demain": "2023-07-14",
    "l'autre jour": "2023-07-05..2023-07-11",
    # Compté
    "il y a deux jours": "2023-07-10",
    "Il y a 3 jours": "2023-07-09",
    "y a trois semaines": "2023-06-18..2023-06-24",
    "il y a quelques semaines": "2023-06-04..2023-07-01",
    "il y a environ trois mois": "2023-03-28..2023-04-27",
    "il y a un an": "2022-01-10..2023-01-11",
    "il y a plus de dix-sept jours": "2023-06-25",
    "il y a une dizaine de jours": "2023-07-01..2023-07-03",
    "il y a une quinzaine de jours": "2023-06-26..2023-06-28",
    "dans deux jours": "2023-07-14",
    "dans une semaine": "2023-07-16..2023-07-22",
    "depuis trois mois": "2023-04-12..2023-07-12",
    "ces derniers jours": "2023-07-07..2023-07-12",
    "depuis 3 heures": "2023-07-12",
    "ces dernières heures": "2023-07-12",
    "les 24 dernières heures": "2023-07-11..2023-07-12",
    "les 3 derniers mois": "2023-04-12..2023-07-12",
    # Dernier, ce, prochain
    "la semaine dernière": "2023-07-03..2023-07-09",
    "la semaine passée": "2023-07-03..2023-07-09",
    "la semaine prochaine": "2023-07-17..2023-07-23",
    "cette semaine": "2023-07-10..2023-07-16",
    "le mois dernier": "2023-06-01..2023-06-30",
    "le mois passé": "2023-06-01..2023-06-30",
    "ce mois-ci": "2023-07-01..2023-07-31",
    "le mois prochain": "2023-08-01..2023-08-31",
    "l'an dernier": "2022-01-01..2022-12-31",
    "l’année dernière": "2022-01-01..2022-12-31",
    "cette année": "2023-01-01..2023-12-31",
    "l'an prochain": "2024-01-01..2024-12-31",
    "l'été dernier": "2022-06-01..2022-08-31",
    "cet été": "2023-06-01..2023-08-31",
    "pendant l'été": "2023-06-01..2023-08-31",
    "l'hiver prochain": "2023-12-01..2024-02-29",
    "à l'automne 2021": "2021-09-01..2021-11-30",
    "au printemps": "2023-03-01..2023-05-31",
    "le week-end dernier": "2023-07-08..2023-07-09",
    "le weekend prochain": "2023-07-22..2023-07-23",
    "ce week-end": "2023-07-15..2023-07-16",
    # Jours de la semaine
    "lundi": "2023-07-10",
    "lundi dernier": "2023-07-10",
    "mercredi dernier": "2023-07-05",
    "vendredi prochain": "2023-07-14",
    "je l'ai vu jeudi": "2023-07-06",
    # Mois
    "en mars": "2023-03-01..2023-03-31",
    "en mars 2022": "2022-03-01..2022-03-31",
    "mars 2022": "2022-03-01..2022-03-31",
    "en août": "2022-08-01..2022-08-31",
    "au mois de mars": "2023-03-01..2023-03-31",
    "en février de l'année dernière": "2022-02-01..2022-02-28",
    "mars dernier": "2023-03-01..2023-03-31",
    "mai prochain": "2024-05-01..2024-05-31",
    "début mars": "2023-03-01..2023-03-10",
    "mi-mars": "2023-03-11..2023-03-20",
    "fin mars 2022": "2022-03-21..2022-03-31",
    "à la fin de juin": "2023-06-21..2023-06-30",
    "la première semaine de mars 2022": "2022-03-01..2022-03-07",
    # Jours d'un mois
    "le 4 juillet": "2023-07-04",
    "le 4 juillet 2022": "2022-07-04",
    "le 1er mai": "2023-05-01",
    "le premier mai 2020": "2020-05-01",
    "lundi 3 juillet": "2023-07-03",
    "le lundi 3 juillet 2023": "2023-07-03",
    "le 14 juillet": "2022-07-14",
    "du 3 au 7 mai 2023": "2023-05-03..2023-05-07",
    "24.12.2022": "2022-12-24",
    # Années, fêtes, bornes
    "en 2022": "2022-01-01..2022-12-31",
    "l'année 2021": "2021-01-01..2021-12-31",
    "fin 2022": "2022-09-01..2022-12-31",
    "courant 2022": "2022-01-01..2022-12-31",
    "courant mars 2022": "2022-03-01..2022-03-31",
    "à Noël": "2022-12-25",
    "Noël dernier": "2022-12-25",
    "Noël 2021": "2021-12-25",
    "la veille de Noël": "2022-12-24",
    "le lendemain du 4 juillet 2022": "2022-07-05",
    "la Saint-Valentin": "2023-02-14",
    "la semaine du 3 mai 2023": "2023-05-01..2023-05-07",
    "la semaine avant le 9 juin 2023": "2023-05-29..2023-06-04",
    "depuis mars": "2023-03-01..2023-07-12",
    "depuis 2020": "2020-01-01..2023-07-12",
    "après le 4 juillet 2022": "2022-07-05..2023-07-12",
    "avant le 4 juillet 2022": "2012-07-04..2022-07-03",
    "jusqu'en mars 2022": "2012-04-01..2022-03-31",
}


@pytest.mark.parametrize(("text", "expected"), FRENCH.items())
def test_a_french_text_says_which_days(text, expected):
    assert days_of(text) == [expected]


@pytest.mark.parametrize("text", FRENCH)
def test_capitals_and_accents_make_no_difference(text):
    assert days_of(text.upper()) == days_of(fold(text)) == days_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "il marche",
        "la planète Mars est rouge",
        "j'ai été content",
        "il a été passé au crible",
        "le lundi je cours",
        "tous les lundis",
        "tous les deux jours",
        "chaque été",
        "le mois passe vite",
        "elle a un an de plus",
        "un seconde fois",
        "Noël chante",
        "en quelle année",
        "le 30 février 2023",
    ],
)
def test_french_words_that_only_look_like_a_date_give_nothing(text):
    assert days_of(text) == []


def test_two_french_months_share_the_year_of_the_second():
    assert days_of("entre mars et mai 2022") == ["2022-03-01..2022-03-31", "2022-05-01..2022-05-31"]


def test_a_french_date_in_figures_is_read_with_the_day_first():
    assert days_of("le 04/07/2023") == ["2023-07-04", "2023-04-07"]


@pytest.mark.parametrize(
    "question",
    [
        "Quand Alice est-elle née ?",
        "Quand est-ce que Bob est parti ?",
        "C'était quand ?",
        "Tu pars quand ?",
        "Depuis quand habite-t-elle à Lyon ?",
        "Tu sais quand elle arrive ?",
        "À quelle date a-t-il signé ?",
        "En quelle année se sont-ils mariés ?",
        "Quel jour est le match ?",
        "Quelle était la date du voyage ?",
        "Il y a combien de temps ?",
        "Depuis combien de temps joue-t-elle ?",
    ],
)
def test_a_french_question_asks_for_a_time(question):
    assert dates.asks_when(question)
    assert dates.asks_when(fold(question))


@pytest.mark.parametrize(
    "question",
    [
        "Quand j'étais petit, où habitais-je ?",
        "Que fait-il quand il pleut ?",
        "Où habite Alice ?",
        "Il vient quand même ?",
        "Quand même, pourquoi ?",
        "Quel est son nom ?",
    ],
)
def test_a_french_question_asks_for_something_else(question):
    assert not dates.asks_when(question)
