"""Bounds: what one dashboard lets those have who look at it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """
    Attributes:
        pages_max: pages open at once, those just closed included.
        sessions_max: logged in at once; beyond, the one unused for longest is logged out.
        session_max_s, session_idle_s: how long a session lasts, at most and without any use.
        failures_max, failures_window_s: wrong tokens of one address, in so many seconds.
        addresses_max: of which wrong tokens are counted.
        look_interval_s: how old the figures shown may be; one look serves all open pages.
        agents_looked_at: agents of which all figures are kept fresh; of more, only those shown.
        survey_max_age_s: how old figures may be where all agents had to be looked at.
        sessions_step: conversations listed at once. messages_step: messages of one.
        concepts_max: concepts listed. related_max: concepts around the chosen one.
        neighbours_asked: of these, so many of whose own neighbours are asked for too.
        leaving_max: messages of a plan that are listed.
        growth_messages_max, growth_max_mb: newest messages that the picture of growth is made of.
    """

    pages_max: int = 64
    sessions_max: int = 1000
    session_max_s: float = 12 * 3600
    session_idle_s: float = 2 * 3600
    failures_max: int = 10
    failures_window_s: float = 60
    addresses_max: int = 1000
    look_interval_s: float = 5
    agents_looked_at: int = 40
    survey_max_age_s: float = 60
    sessions_step: int = 50
    messages_step: int = 30
    concepts_max: int = 60
    related_max: int = 24
    neighbours_asked: int = 8
    leaving_max: int = 100
    growth_messages_max: int = 5000
    growth_max_mb: float = 16
