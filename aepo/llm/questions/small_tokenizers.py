"""Real fast tokenizers built on the spot, with no hub: bytes for any text, whole words for a closed set."""

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, EOS = "<pad>", "<eos>"
SPECIAL = {PAD: 0, EOS: 1}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per UTF-8 byte, plus <pad> (0) and <eos> (1): byte b is token b + 2, and no text is lost.

    A text that spells "<eos>" is five bytes, not the end token: a question cannot end a response.

    >>> tokenizer = byte_tokenizer()
    >>> tokenizer.encode("A"), tokenizer.eos_token_id, len(tokenizer)
    ([67], 1, 258)
    >>> tokenizer.decode(tokenizer.encode("1 + 1 = 2 ✓ <eos>"))
    '1 + 1 = 2 ✓ <eos>'
    """
    tokens = SPECIAL | {character: byte + len(SPECIAL) for byte, character in enumerate(_byte_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _wrapped(tokenizer)


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token per whitespace-separated word, plus <pad> (0) and <eos> (1): words[i] is token i + 2.

    There is no unknown token. On a word outside the vocabulary `encode_words` raises a ValueError that names
    it; the tokenizer's own `encode` raises an Exception that does not.

    Args:
        words: distinct, not empty, without white space, neither of the two special tokens.

    Raises:
        ValueError: words that are none of that.

    >>> tokenizer = word_tokenizer(["+1", "-1"])
    >>> tokenizer.encode("-1 +1"), tokenizer.decode([2, 3, 1])
    ([3, 2], '+1 -1 <eos>')
    """
    if not words:
        raise ValueError("words must hold at least one word, got none")
    for at, word in enumerate(words):
        if word.split() != [word]:
            raise ValueError(f"words must be single words without white space, got {word!r} at {at}")
        if word in SPECIAL:
            raise ValueError(f"words must leave {word!r} to the tokenizer, got it at {at}")
        if word in words[:at]:
            raise ValueError(f"words must be distinct, got {word!r} twice, the second at {at}")
    tokens = SPECIAL | {word: at + len(SPECIAL) for at, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocab=tokens))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _wrapped(tokenizer)


def encode_words(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The tokens of a text of known words; "<eos>" and "<pad>" are words too.

    Raises:
        ValueError: a word that the vocabulary lacks.

    >>> encode_words(word_tokenizer(["+1", "-1"]), "+1 +1 <eos>")
    [2, 2, 1]
    """
    known = tokenizer.get_vocab()
    words = text.split()
    unknown = [word for word in words if word not in known]
    if unknown:
        raise ValueError(f"text must consist of the vocabulary's {len(known)} words, got {unknown[0]!r} in {text!r}")
    return [known[word] for word in words]


def _byte_characters() -> list[str]:
    """The printable character that ByteLevel writes for each byte, by byte (GPT-2's table)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    stand_in = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(stand_in)) for byte in range(0x100)]


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",  # prompts of a causal LM end together
    )
