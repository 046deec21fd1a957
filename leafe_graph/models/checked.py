"""Whether something can be asked as a chat model is: messages in, one message out."""

from langchain_core.language_models import BaseChatModel, BaseLanguageModel, LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.prompts import BasePromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableSequence, RunnableWithFallbacks
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from ..errors import ConfigError

EXPECTED = (
    "expected a chat model: an object such as ChatOpenAI(model=…), also with tools or settings bound to it, or a text "
    'such as "openai:NAME"'
)


def checked_model(model: object, role: str = "model") -> Runnable[LanguageModelInput, AIMessage]:
    """The chat model, which it is as far as can be told before it has answered.

    Args:
        model: what was given.
        role: what the caller calls it.

    Raises:
        ConfigError: it is something else, such as a graph, a chain with a prompt or a parser, a function or a class.
    """
    seen = _something_else(model)
    if seen is None and isinstance(model, Runnable):
        return model
    raise ConfigError(f"{role} is {seen}; {EXPECTED}")


def checked_answer(answer: object) -> AIMessage:
    """What a chat model answers with.

    Raises:
        ConfigError: it is something else, so it was no chat model that was asked.
    """
    if isinstance(answer, AIMessage):
        return answer
    raise ConfigError(f"the model answered {answer!r:.80}, which is no AIMessage; {EXPECTED}")


def _something_else(model: object) -> str | None:
    """What it is, if that is no chat model."""
    name = type(model).__name__
    if model is None:
        return "None"
    if isinstance(model, type):
        return f"the class {model.__name__}, not an instance: {model.__name__}(…)"
    if isinstance(model, Pregel | StateGraph):
        return (
            f"a graph ({name}), which takes a state and no messages: an agent that exists already learns by a "
            "LeafeMiddleware among its own middleware, or as a whole by explore_agent"
        )
    if isinstance(model, BaseLanguageModel) and not isinstance(model, BaseChatModel):
        return f"a language model that continues texts ({name})"
    if isinstance(model, RunnableSequence):
        if isinstance(model.first, BasePromptTemplate) and not _takes_messages(model.first):
            return "a chain that begins with a prompt template, where the texts are prompts=Prompts(…)"
        if isinstance(model.last, BaseOutputParser):
            return "a chain that ends with an output parser, as with_structured_output makes it"
        return None
    if isinstance(model, RunnableWithFallbacks):
        return next(filter(None, map(_something_else, model.runnables)), None)
    if not isinstance(model, Runnable):
        return f"{model!r:.80} ({name})"
    bound = getattr(model, "bound", None)
    return None if bound is None else _something_else(bound)


def _takes_messages(prompt: BasePromptTemplate) -> bool:  # type: ignore[type-arg]
    """Whether its only field is a place for messages."""
    places = [m.variable_name for m in getattr(prompt, "messages", ()) if isinstance(m, MessagesPlaceholder)]
    return prompt.input_variables == places and len(places) == 1
