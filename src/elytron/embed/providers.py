"""
Providers: which embedder a name means, and whether its settings make sense.

Nothing is imported, opened or asked here: making an embedder costs nothing and cannot fail for
want of a library or a network. That comes with the first text.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from elytron.config_values import nearest, number, shown
from elytron.embed.embedder import (
    TEXTS_MAX,
    CheckedEmbedder,
    Embedder,
    EmbedderSettings,
    EmbedFunction,
)
from elytron.embed.http import Endpoint
from elytron.embed.local import (
    WORDLLAMA_DIM,
    WORDLLAMA_MODEL,
    Local,
    from_function,
    load_fastembed,
    load_sentence_transformers,
    load_wordllama,
)
from elytron.embed.remote import Ollama, OpenAI, without_latest
from elytron.errors import InvalidSetting
from elytron.text import unprintable_at

MODELS = {
    "ollama": "nomic-embed-text",
    "openai": "text-embedding-3-small",
    "fastembed": "BAAI/bge-small-en-v1.5",
    "sentence-transformers": "sentence-transformers/all-MiniLM-L6-v2",
    "wordllama": WORDLLAMA_MODEL,
}
"""Each provider's name, and the model that is meant where none is named."""
OLLAMA_URL = "http://127.0.0.1:11434"
OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY_ENV = "OPENAI_API_KEY"
TIMEOUT_RANGE_S = (0.05, 600)
_NAME_MAX = 200  # characters, of a model and of a function
_URL_MAX = 2_000  # characters
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)
_LOADERS = {"fastembed": load_fastembed, "sentence-transformers": load_sentence_transformers}


def make_embedder(spec: str | EmbedFunction, *, settings: EmbedderSettings) -> Embedder:
    """
    The embedder that *spec* names.

    Args:
        spec: "ollama", "openai", "fastembed", "sentence-transformers" or "wordllama", with the
            model after a colon where it is not the usual one ("ollama:mxbai-embed-large",
            "sentence-transformers:/path/of/a/model"). Or a function of (texts, kind) that returns
            one row of numbers for each text; its `.name`, if it has one, is stored with the data.

    Raises:
        InvalidSetting: an unknown name (the nearest known one is given), or a setting that is out
            of range or that this embedder does not have.

    Imports no library and opens no socket.
    """
    settings = _in_range(settings)
    if callable(spec):
        return _of_function(spec, settings)
    if not isinstance(spec, str):
        raise InvalidSetting(
            f"`embedder` must be one of {', '.join(MODELS)}, or a function; got {shown(spec)}"
        )
    provider, colon, named = spec.strip().partition(":")
    if provider not in MODELS:
        raise InvalidSetting(
            f"`embedder` must be one of {', '.join(MODELS)}, or a function; got {shown(provider)}"
            f"{nearest(provider, MODELS)}"
        )
    if colon and settings.model is not None and settings.model != named:
        raise InvalidSetting(
            f"the model is given twice, as {shown(named)} and as {shown(settings.model)}; give one"
        )
    model = named if colon else settings.model
    model = MODELS[provider] if model is None else _name_checked("the model's name", model)
    if provider == "ollama":
        return _ollama(without_latest(model), settings)
    if provider == "openai":
        return _openai(model, settings)
    _no_endpoint(provider, settings)
    return (
        _wordllama(model, settings)
        if provider == "wordllama"
        else _local(provider, model, settings)
    )


def _ollama(model: str, settings: EmbedderSettings) -> Embedder:
    name = f"ollama:{model}"
    endpoint = Endpoint(
        _url_checked("url", settings.url or OLLAMA_URL) + "/api/embed",
        source=name,
        timeout_s=settings.timeout_s,
        api_key_env=settings.api_key_env,
        proxy_url=settings.proxy_url,
        hints={
            404: f"run `ollama pull {model}`, and check `embedding_url`",
            **_key_hints(settings.api_key_env),
        },
        unreachable="start it with `ollama serve`, or set `embedding_url`",
    )
    return CheckedEmbedder(
        Ollama(model, endpoint=endpoint), name=name, batch_max=settings.batch_max
    )


def _openai(model: str, settings: EmbedderSettings) -> Embedder:
    name = f"openai:{model}"
    url = _url_checked("url", settings.url or OPENAI_URL)
    key_env = settings.api_key_env
    if key_env is None and url == OPENAI_URL:
        key_env = OPENAI_KEY_ENV  # only there: another server must not be sent OpenAI's key
    endpoint = Endpoint(
        url + "/embeddings",
        source=name,
        timeout_s=settings.timeout_s,
        api_key_env=key_env,
        proxy_url=settings.proxy_url,
        hints=_key_hints(key_env),
        unreachable="check `embedding_url` and the network",
    )
    return CheckedEmbedder(
        OpenAI(model, endpoint=endpoint), name=name, batch_max=settings.batch_max
    )


def _key_hints(key_env: str | None) -> dict[int, str]:
    if key_env is None:
        told = "it wants a key: set `embedding_key_env` to the name of the variable that holds it"
    else:
        told = f"check the key in the environment variable {key_env}"
    return {401: told, 403: told}


def _local(provider: str, model: str, settings: EmbedderSettings) -> Embedder:
    name = f"{provider}:{model}"
    load = partial(_LOADERS[provider], model)
    return CheckedEmbedder(
        Local(name, load, timeout_s=settings.timeout_s), name=name, batch_max=settings.batch_max
    )


def _wordllama(model: str, settings: EmbedderSettings) -> Embedder:
    if model != WORDLLAMA_MODEL:
        raise InvalidSetting(
            f"wordllama has one model in its wheel, {WORDLLAMA_MODEL}; got {shown(model)}:"
            " leave the model out"
        )
    name = f"wordllama:{model}"
    return CheckedEmbedder(
        Local(name, load_wordllama, timeout_s=settings.timeout_s),
        name=name,
        batch_max=settings.batch_max,
        dim=WORDLLAMA_DIM,
    )


def _of_function(function: EmbedFunction, settings: EmbedderSettings) -> Embedder:
    _no_endpoint("a function", settings)
    if settings.model is not None:
        raise InvalidSetting(
            f"`embedding_model` is {shown(settings.model)}, which a function cannot be told;"
            " leave it out, and give the function a `.name`"
        )
    own = getattr(function, "name", None)
    if own is None:
        own = getattr(function, "__qualname__", None) or type(function).__qualname__
    name = f"callable:{_name_checked('the name of the `embedder` function', own)}"
    load: Callable[[], Callable[[list[str], str], object]] = partial(from_function, function)
    return CheckedEmbedder(
        Local(name, load, timeout_s=settings.timeout_s), name=name, batch_max=settings.batch_max
    )


def _in_range(settings: EmbedderSettings) -> EmbedderSettings:
    low, high = TIMEOUT_RANGE_S
    if settings.api_key_env is not None and not _is_env_name(settings.api_key_env):
        # Not shown: people put the key itself here.
        raise InvalidSetting(
            "`embedding_key_env` must be the name of an environment variable, 1 to 100 letters,"
            f" digits and _, as {OPENAI_KEY_ENV}; put the key into that variable"
        )
    if settings.proxy_url is not None:
        _url_checked("proxy_url", settings.proxy_url, secret=True)
    return replace(
        settings,
        timeout_s=float(number("`embed_timeout_s`", settings.timeout_s, low=low, high=high)),
        batch_max=int(
            number("`embed_batch_max`", settings.batch_max, low=1, high=TEXTS_MAX, whole=True)
        ),
    )


def _is_env_name(name: object) -> bool:
    return isinstance(name, str) and _ENV_NAME.fullmatch(name) is not None


def _no_endpoint(what: str, settings: EmbedderSettings) -> None:
    for name in ("url", "api_key_env", "proxy_url"):
        if getattr(settings, name) is not None:
            raise InvalidSetting(f"`{name}` is for ollama and openai, not for {what}; leave it out")


def _name_checked(title: str, name: object) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= _NAME_MAX or name != name.strip():
        raise InvalidSetting(
            f"{title} must be 1 to {_NAME_MAX} characters without space around them;"
            f" got {shown(name)}"
        )
    at = unprintable_at(name)
    if at is not None:
        raise InvalidSetting(f"{title} has a character at {at} that does not print; remove it")
    return name


def _url_checked(title: str, url: object, *, secret: bool = False) -> str:
    """
    A URL without a slash at its end.

    Args:
        secret: whether a name and a password may stand in it. It is not shown then.

    Raises:
        InvalidSetting: no http or https, no host, or something else in it than host, port and path.
    """
    try:
        if not isinstance(url, str) or len(url) > _URL_MAX or not url.isprintable() or " " in url:
            raise ValueError
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        if not fine or parts.query or parts.fragment or ("@" in parts.netloc and not secret):
            raise ValueError
    except ValueError:
        # Never shown: what is wrong with it may be that a key stands in it.
        raise InvalidSetting(
            f"`{title}` must be http:// or https://, a host, and perhaps a port and a path, at most"
            f" {_URL_MAX:,} characters; a key goes into the variable that `embedding_key_env` names"
        ) from None
    return url.rstrip("/")
