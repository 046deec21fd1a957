"""Small real tokenizers with the control tokens and chat templates of public model families (see templates/)."""

import json
from functools import cache
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).with_name("templates")
_CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_SENTENCEPIECE = ["<unk>", "<s>", "</s>"]
_LLAMA3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
_GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]

CONTROLS = {
    "smollm2": _CHATML,
    "qwen2_5": _CHATML,
    "qwen3": _CHATML,
    "llama3": _LLAMA3,
    "llama2": _SENTENCEPIECE,
    "mistral": [*_SENTENCEPIECE, "[INST]", "[/INST]"],
    "gemma2": _GEMMA,
    "gemma3": _GEMMA,
    "deepseek_r1": ["<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>"],
    "no_generation_prompt": _CHATML,
    "qwen_tools": _CHATML,
    "qwen3_tools": _CHATML,
    "hermes_tools": _CHATML,
    "llama_tools": _LLAMA3,
}
"""Special tokens of each family."""
TOOL_FAMILIES = [name for name in CONTROLS if name.endswith("_tools")]
"""Those whose templates take tools."""
FAMILIES = [name for name in CONTROLS if name not in ("no_generation_prompt", *TOOL_FAMILIES)]
"""Those whose templates can be generated from, by texts alone."""
ENDS = {
    "llama3": "<|eot_id|>",
    "llama_tools": "<|eot_id|>",
    "gemma2": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "deepseek_r1": "<|end|>",
}
"""What ends a message; "</s>" where that exists, else "<|im_end|>"."""
_NAMES = {
    "<|endoftext|>": ["unk_token"],  # as in SmolLM2
    "<|im_end|>": ["eos_token", "pad_token"],
    "<s>": ["bos_token"],
    "</s>": ["eos_token"],
    "<unk>": ["unk_token"],
    "<|begin_of_text|>": ["bos_token"],
    "<|eot_id|>": ["eos_token"],
    "<bos>": ["bos_token"],
    "<eos>": ["eos_token"],
    "<pad>": ["pad_token"],
    "<|begin|>": ["bos_token"],
    "<|end|>": ["eos_token"],
}
_CORPUS = [
    "Go up, down, left or right. You see a wall and a box.\n\nsystem user assistant model think </s> <s>",
    "Today Date: 26 Jul 2024 [INST] up [/INST] down <<SYS>> end of turn start im",
] * 3


def end(family: str) -> str:
    """The token that ends a message."""
    return ENDS.get(family) or ("</s>" if "</s>" in CONTROLS[family] else "<|im_end|>")


@cache
def tokenizer(family: str) -> Any:
    """Byte-level BPE, or BPE over text with its spaces marked and bytes to fall back to, as SentencePiece has it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    controls, spaced = CONTROLS[family], "<unk>" in CONTROLS[family]
    learned = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=[] if spaced else pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    learned.pre_tokenizer = pre_tokenizers.Metaspace() if spaced else pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.train_from_iterator(_CORPUS, trainer)
    merges = [tuple(pair) for pair in json.loads(learned.to_str())["model"]["merges"]]
    pieces = sorted(learned.get_vocab(), key=learned.get_vocab().__getitem__)
    if spaced:
        pieces = [*controls, *(f"<0x{i:02X}>" for i in range(256)), *pieces]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    if spaced:
        held = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
        strip = []
        if "<bos>" in controls:  # Gemma puts no space in front
            held.normalizer = normalizers.Replace(" ", "▁")
        else:
            held.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
            strip = [decoders.Strip(" ", 1, 0)]
        held.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    else:
        held = Tokenizer(models.BPE(vocab, merges))
        held.pre_tokenizer, held.decoder = learned.pre_tokenizer, decoders.ByteLevel()
    held.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in controls])
    if family.startswith("qwen") or family == "deepseek_r1":  # added, but text: a model writes them into its replies
        held.add_tokens([AddedToken(name, normalized=False, special=False) for name in ("<think>", "</think>")])
    names = {kind: name for name in controls for kind in _NAMES.get(name, [])}
    made = PreTrainedTokenizerFast(tokenizer_object=held, **names)
    made.chat_template = (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")
    return made
