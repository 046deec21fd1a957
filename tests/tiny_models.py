"""Random Llamas of two layers with a token a word, as ordinary Hugging Face folders."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any


def tiny_llama(folder: Path, words: Iterable[str], template: str, **config: Any) -> Path:
    """Written to ``folder``: ``words`` are its tokens, ``template`` its chat template; ``config``: what differs."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocab = {word: i for i, word in enumerate(dict.fromkeys(["<pad>", "<s>", "</s>", "<unk>", *words]))}
    held = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    held.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=held, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
    }
    ids = {"vocab_size": len(vocab), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    LlamaForCausalLM(LlamaConfig(**ids, **small | config)).save_pretrained(folder)
    return folder
