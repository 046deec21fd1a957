"""A chat model from a string: local, any OpenAI-compatible server, or whatever LangChain knows."""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from ..errors import ConfigError, MissingDependency
from ..importing import attribute
from .connection import checked_url, direct, told_setup
from .spec import EMBEDDED, ModelSpec

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

KNOWN = (
    f'"local:{EMBEDDED}" (embedded), "local:FOLDER" (Hugging Face folder, adapter=FOLDER), '
    '"vllm:NAME@http://HOST:PORT/v1" (any OpenAI-compatible server, or several, after commas; or "vllm:NAME" with '
    'base_url=…), "openai:NAME", '
    'and, with the package langchain installed, what init_chat_model knows ("PROVIDER:NAME" or "NAME")'
)


def load_model(spec: "str | BaseChatModel", **kwargs: Any) -> "BaseChatModel":
    """A chat model from a spec; ``kwargs`` are its settings (``temperature``, ``max_tokens``, ``adapter``, …).

    ===============================  =================================================================================
    ``local:smollm2-135m``           SmolLM2-135M-Instruct in this process, fetched once and cached
    ``local:FOLDER``                 a Hugging Face folder in this process, with ``adapter=`` merged in
    ``vllm:NAME@URL``                a model behind an OpenAI-compatible address; ``vllm:NAME`` with ``base_url=``
    ``vllm:NAME@URL,URL``            the same model on several servers, see `leafe_graph.models.balanced`
    ``openai:NAME``                  the same for OpenAI itself, or another ``base_url=``
    ``PROVIDER:NAME``, ``NAME``      anything else goes to ``langchain.chat_models.init_chat_model``
    ===============================  =================================================================================

    ``vllm:`` models record token ids where the server gives them, see `leafe_graph.models.vllm_chat`.
    Models behind an address do not retry by themselves unless ``max_retries=`` says so: the agent does, and counts.
    A chat model object is given back as it is, or as a copy with ``kwargs`` changed; a bound or wrapped one as it is.

    Raises:
        ConfigError: a spec that nothing understands, a setting the model does not have, an address without http://,
            or no key.
        MissingDependency: the packages behind the spec are not installed.
    """
    from langchain_core.language_models import BaseChatModel

    from .checked import checked_model

    if isinstance(spec, BaseChatModel):
        if unknown := sorted(kwargs.keys() - type(spec).model_fields.keys()):
            raise ConfigError(f"{type(spec).__name__} has no settings {unknown}")
        return spec.model_copy(update=kwargs) if kwargs else spec
    if not isinstance(spec, str):
        other: Any = checked_model(spec, "the model")
        if kwargs:
            raise ConfigError(f"{sorted(kwargs)} cannot be set on a {type(other).__name__}: set it on the model inside")
        return cast("BaseChatModel", other)
    said = ModelSpec.parse(spec)
    if not said.name:
        raise ConfigError(f"unknown model {spec!r}; expected one of {KNOWN}")
    if said.kind is None and said.folder is not None:
        raise ConfigError(f'the model {spec!r} is a folder; write "local:{spec}"')
    if said.kind == "local":
        from .local.chat_model import LocalChatModel

        if unknown := sorted(kwargs.keys() - LocalChatModel.model_fields.keys()):
            raise ConfigError(f"a local model has no settings {unknown}")
        if not said.embedded:
            return LocalChatModel(path=said.name, **kwargs)
        from .embedded import embedded_model_path

        return LocalChatModel(path=str(embedded_model_path()), **kwargs)
    if "adapter" in kwargs:
        raise ConfigError(
            f"model {spec!r} takes no adapter={str(kwargs['adapter'])!r}; expected a model of this process, "
            "local:FOLDER. A server has each adapter under a name of its own, vllm:NAME@URL: see leafe serve --help"
        )
    if said.kind in ("vllm", "openai"):
        return _openai(said, kwargs)
    return _langchains(said, kwargs)


def _langchains(said: ModelSpec, kwargs: dict[str, Any]) -> "BaseChatModel":
    """What ``init_chat_model`` makes of it."""
    spec = said.text
    if find_spec("langchain") is None:
        if said.kind is None:
            raise ConfigError(f"unknown model {spec!r}; expected one of {KNOWN}")
        raise MissingDependency(
            f"model {spec!r} needs langchain's init_chat_model: pip install langchain and the provider's package. "
            f"Known without it: {KNOWN}",
            needed_for=spec,
        )
    try:
        model: BaseChatModel = import_module("langchain.chat_models").init_chat_model(spec, **kwargs)
    except ImportError as error:  # it says what to install
        raise MissingDependency(f"model {spec!r}: {error}", needed_for=spec) from error
    except Exception as error:  # an unknown provider, no key, a setting that it does not have: each in its own class
        told = " ".join(str(error).split())
        raise ConfigError(f"model {spec!r} cannot be made: {told}; expected one of {KNOWN}") from error
    if type(model).__name__ == "ChatOpenAI":  # as "openai:NAME": the agent retries, and counts
        return _openai(ModelSpec(text=spec, kind="openai", name=said.name), kwargs)
    return model


def _openai(spec: ModelSpec, kwargs: dict[str, Any]) -> "BaseChatModel":
    try:
        from langchain_openai import ChatOpenAI
    except ImportError as error:
        raise MissingDependency(extra="openai", needed_for=f"model {spec.text}") from error
    if spec.kind == "vllm":
        kwargs = {"api_key": "EMPTY"} | kwargs | ({"base_url": spec.url} if spec.url else {})
        if not kwargs.get("base_url"):
            raise ConfigError(
                f'model "vllm:{spec.name}" has no address: write "vllm:{spec.name}@http://HOST:PORT/v1" or give '
                "base_url="
            )
    # A connection that stays open belongs to the event loop that opened it, and langchain_openai shares connections:
    # in the next asyncio.run (another explore in this process) the first call would fail, "Event loop is closed".
    kwargs["default_headers"] = {"Connection": "close"} | dict(kwargs.get("default_headers") or {})
    kwargs = {"max_retries": 0} | kwargs  # the agent retries, and counts
    given = kwargs.get("base_url") or os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE") or ""
    urls = [checked_url(url.strip()) for url in str(given).split(",") if given]
    with told_setup(spec.text):
        if len(urls) > 1:
            from .balanced import BalancedChatModel

            kwargs.pop("base_url", None)
            kwargs = {"return_token_ids": spec.kind == "vllm"} | kwargs
            return BalancedChatModel(model=spec.name, base_urls=urls, **kwargs)
        kwargs = (direct(urls[0]) if urls else {}) | kwargs
        if spec.kind == "vllm":
            from .vllm_chat import VllmChatModel

            return VllmChatModel(model=spec.name, **kwargs)
        model: BaseChatModel = ChatOpenAI(model=spec.name, **kwargs)
    return model


def chat_model(spec: str, **settings: Any) -> "BaseChatModel":
    """A model from a command line's spec: what `load_model` knows, or ``python:MODULE:ATTRIBUTE``."""
    from langchain_core.runnables import Runnable

    settings = {name: value for name, value in settings.items() if value is not None}
    said = ModelSpec.parse(spec)
    if said.kind != "python":
        return load_model(spec, **settings)
    found = attribute(said.name, "model")
    return load_model(found() if callable(found) and not isinstance(found, Runnable) else found, **settings)
