"""
Chosen: the embedder that a store's settings name, ready to be asked.
"""

import importlib.util
import inspect

from elytron.config import Config
from elytron.embed.calls import Calls
from elytron.embed.embedder import EmbedderSettings, EmbedFunction, missing
from elytron.errors import InvalidArgument

FUNCTION = "function"  # the name that stands in the settings for a function
_NEEDED = {
    "ollama": (("urllib3", '"elytron[vectors]"'),),
    "openai": (("urllib3", '"elytron[vectors]"'),),
    "fastembed": (("fastembed", "fastembed"),),
    "sentence-transformers": (("sentence_transformers", "sentence-transformers"),),
    "wordllama": (("wordllama", '"elytron[wordllama]"'),),
}


def check_function(function: object) -> None:
    """
    Raises:
        InvalidArgument: no function of texts, or one that has to be awaited.
    """
    awaited = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - of an object that can be called
    )
    if not callable(function) or isinstance(function, type) or awaited:
        raise InvalidArgument(
            "embedder must be a name, or a function of (texts, kind) that returns rows of numbers,"
            f" not a class and not async; got {function!r:.50}"
        )


def calls_of(config: Config, function: EmbedFunction | None) -> Calls:
    """
    What asks the embedder of these settings, or a function.

    Raises:
        InvalidSetting: an unknown name, or a setting that it does not have.
        EmbedderUnavailable: a library that it needs is not installed.

    Looks for libraries, and imports none.
    """
    from elytron.embed.providers import make_embedder

    settings = EmbedderSettings(
        model=config.embedding_model,
        url=config.embedding_url,
        timeout_s=config.embed_timeout_s,
        api_key_env=config.embedding_key_env,
        batch_max=config.embed_batch_max,
    )
    embedder = make_embedder(function or config.embedder, settings=settings)
    kind = FUNCTION if function else config.embedder.partition(":")[0]
    for module, install in (("numpy", '"elytron[vectors]"'), *_NEEDED.get(kind, ())):
        if importlib.util.find_spec(module) is None:
            raise missing(module, install)
    return Calls(embedder, threads_max=config.embed_threads)
