"""Chat messages to token ids, by one road for exploring and for training.

What a message says is text. Where it spells a control token (``<|im_end|>`` in an observation), the characters are
tokenised and not the control token, so that nothing an environment or a model writes can end a message or open one.
Every other prompt is tokenised exactly as `apply_chat_template` does it.
"""

import contextlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from typing import Any

from ..errors import ConfigError, PromptError

DATE = date(2024, 7, 26)
"""What a chat template is told when it asks for today's date: the same rows give the same ids on any day.

It is the date that Llama 3.1's template falls back to."""


class ChatTokenizer:
    """A Hugging Face tokenizer with a chat template, and its control tokens by their text.

    Control tokens are the added tokens that the tokenizer calls special. Markers of older formats that are plain text
    to the tokenizer itself (Llama 2's ``[INST]``) are none.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        controls = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._controls = controls
        self.controls = frozenset(controls)
        unknown = {tokenizer.unk_token_id} - {tokenizer.eos_token_id}  # any text can hold what a tokenizer knows not
        self.control_ids = frozenset(controls.values()) - unknown
        names = "|".join(re.escape(name) for name in sorted(controls, key=len, reverse=True)) or r"(?!)"
        self._control = re.compile(names)
        self._spelled = re.compile(rf"(?={names})(.)", re.DOTALL)
        # Strings that nobody can have written: one breaks what content spells, the others name the control tokens.
        secret = secrets.token_hex(8)
        self._mark = f"\U0010fff0{secret}"
        self._names = {name: f"\U0010fff1{secret}:{i}\U0010fff1" for name, i in controls.items()}

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """The chat as the template writes it, in the form that `encode` takes; ``tools`` in OpenAI's form.

        A template that refuses a system message (Gemma's) gets it in front of the first user message, an empty line
        between them.

        Raises:
            PromptError: the template refuses what a message says, such as nothing at all.
            ConfigError: it refuses the roles, or fails, whatever the messages say.
        """
        told, known = [self.plain(message) for message in messages], self.plain(tools)
        try:
            return self._folded(told, generation_prompt, known)
        except Exception as error:  # templates are programs of others'
            refusal = f"the chat template refuses these messages: {error}"
            others = [told if told["role"] == "system" else {"role": told["role"], "content": "x"} for told in told]
            try:
                self._folded(others, generation_prompt, known)
            except Exception:
                raise ConfigError(refusal) from error
            raise PromptError(refusal) from error

    def _folded(self, told: list[Any], generation_prompt: bool, tools: list[Any]) -> str:
        """What the template writes; the system message is folded into the first user's if it must be."""
        from jinja2 import TemplateError

        try:
            return self._apply(told, generation_prompt, tools)
        except TemplateError:
            if [message["role"] for message in told[:2]] != ["system", "user"]:
                raise
            system, user, *rest = told
            with contextlib.suppress(TemplateError):
                folded = {**user, "content": f"{system['content']}\n\n{user['content']}"}
                return self._apply([folded, *rest], generation_prompt, tools)
            raise

    def encode(self, chats: Sequence[str]) -> list[list[int]]:
        """Token ids of rendered chats; in one call for all, which is many times faster."""
        if not chats:
            return []
        found: list[list[int]] = self.tokenizer([*chats], add_special_tokens=False)["input_ids"]
        return [
            ids if self._mark not in chat and self._as_rendered(chat, ids) else self._encode_renamed(chat)
            for chat, ids in zip(chats, found, strict=True)
        ]

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text by itself, without control tokens."""
        return self.encode([self.plain(text)])[0]

    def without_controls(self, chat: str) -> str:
        """A rendered chat's text without the control tokens that the template wrote."""
        return self._control.sub("", chat).replace(self._mark, "")

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of token ids, as it stands."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
            )
        )

    def _apply(self, messages: list[Any], generation_prompt: bool, tools: list[Any]) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                tools=tools or None,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                strftime_now=DATE.strftime,
            )
        )

    def plain(self, value: Any) -> Any:
        """The same with a mark inside every control token that a text in it spells, as rendered chats have it."""
        if isinstance(value, str):
            return self._spelled.sub(lambda match: match[0] + self._mark, value)
        if isinstance(value, Mapping):
            return {self.plain(key): self.plain(held) for key, held in value.items()}
        return [self.plain(held) for held in value] if isinstance(value, list | tuple) else value

    @property
    def name(self) -> str:
        """What errors call the tokenizer: its folder, or its name on the hub."""
        return str(self.tokenizer.name_or_path or type(self.tokenizer).__name__)

    def _as_rendered(self, chat: str, ids: Sequence[int]) -> bool:
        """Whether the control tokens among the ids are those that the template wrote, and no more."""
        written = [self._controls[name] for name in self._control.findall(chat)]
        return [i for i in ids if i in self.control_ids] == [i for i in written if i in self.control_ids]

    def _encode_renamed(self, chat: str) -> list[int]:
        """By a tokenizer in which the control tokens have other names, so that what is spelled is plain text."""
        renamed = self._control.sub(lambda match: self._names[match[0]], chat).replace(self._mark, "")
        ids: list[int] = self._renamed.encode(renamed, add_special_tokens=False).ids
        if not self._as_rendered(chat, ids):
            raise PromptError("the text spells a control token, and this tokenizer cannot tell the two apart")
        return ids

    @cached_property
    def _renamed(self) -> Any:
        from tokenizers import Tokenizer

        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise PromptError(
                "the text spells a control token, and only a fast tokenizer (tokenizer.json) can tell the two apart"
            )
        held, names = json.loads(backend.to_str()), self._names
        for token in held["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        model = held["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(piece, piece): i for piece, i in model["vocab"].items()}
        else:  # unigram: pieces and scores
            model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
        if "merges" in model:  # pairs, in older files as one text
            pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
            model["merges"] = [pair for pair in pairs if "".join(pair) not in names]
        if model.get("unk_token") in names:
            model["unk_token"] = names[model["unk_token"]]
        return Tokenizer.from_str(json.dumps(held | {"post_processor": None, "truncation": None, "padding": None}))
