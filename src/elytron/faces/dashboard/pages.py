"""Pages: all that there are. Importing this registers them with NiceGUI."""

from elytron.faces.dashboard import (
    cleanup,
    concepts,
    conversations,
    growth,
    health,
    overview,
    recalling,
)

PATHS = tuple(
    module.PATH
    for module in (overview, growth, recalling, conversations, concepts, cleanup, health)
)
