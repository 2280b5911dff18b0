"""The tokenizers lose no text, know no silent unknown, and come back from a model's checkpoint."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, Qwen3Config

from aepo.llm.questions.small_tokenizers import byte_tokenizer, encode_words, word_tokenizer

BYTES = byte_tokenizer()
WORDS = [str(n) for n in range(30)] + [f"{n:+d}" for n in range(-9, 10) if n]
WORD = word_tokenizer(WORDS)


@settings(deadline=None)
@given(st.text())
def test_bytes_give_back_any_text(text):
    assert BYTES.decode(BYTES.encode(text)) == text


@settings(deadline=None)
@given(st.text())
def test_a_byte_tokens_id_is_its_utf8_byte_plus_two(text):
    assert BYTES.encode(text) == [byte + 2 for byte in text.encode()]


@settings(deadline=None)
@given(st.lists(st.integers(0, 257)))
def test_any_sampled_tokens_decode_to_the_text_of_their_bytes(tokens):
    expected = bytes(token - 2 for token in tokens if token > 1).decode(errors="replace")
    assert BYTES.decode(tokens, skip_special_tokens=True) == expected


@pytest.mark.parametrize("text", ["<eos>", "a<pad>b", "<|im_start|>system\n", "  two  blanks , .", "\r\n\t\0"])
def test_no_text_spells_a_special_token(text):
    tokens = BYTES.encode(text)
    assert min(tokens) > 1 and BYTES.decode(tokens) == text


def test_both_tokenizers_have_their_special_tokens_first():
    for tokenizer in (BYTES, WORD):
        assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<pad>", 0)
        assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<eos>", 1)
        assert tokenizer.unk_token is None
    assert (len(BYTES), len(WORD)) == (258, 50)


def test_batches_are_padded_on_the_left():
    batch = BYTES(["a", "abc"], padding=True)
    assert batch["input_ids"] == [[0, 0, 99], [99, 100, 101]]
    assert batch["attention_mask"] == [[0, 0, 1], [1, 1, 1]]


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1))
def test_words_are_one_token_each_and_come_back(words):
    text = " ".join(words)
    assert WORD.encode(text) == encode_words(WORD, text) == [WORDS.index(word) + 2 for word in words]
    assert WORD.decode(WORD.encode(text)) == text


def test_special_tokens_are_words_of_a_word_text():
    assert encode_words(WORD, "3 +4 <eos>") == WORD.encode("3 +4 <eos>") == [5, 2 + WORDS.index("+4"), 1]
    assert WORD.decode([5, 1, 0], skip_special_tokens=True) == "3"


@pytest.mark.parametrize("unknown", ["30", "4-5", "-0", "+", "three", "<unk>"])
def test_an_unknown_word_is_named(unknown):
    with pytest.raises(ValueError, match=r"got '.*' in") as error:
        encode_words(WORD, f"3 {unknown} 4")
    assert repr(unknown) in str(error.value)
    with pytest.raises(Exception, match="UNK"):
        WORD.encode(f"3 {unknown} 4")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "none"),
        (["a", "b", "a"], "'a' twice"),
        (["a b"], "'a b'"),
        ([""], "''"),
        (["a", "<eos>"], "'<eos>'"),
    ],
)
def test_words_that_make_no_vocabulary_are_named(words, named):
    with pytest.raises(ValueError, match=named):
        word_tokenizer(words)


@pytest.mark.parametrize("beside_a_model", [False, True])
@pytest.mark.parametrize(
    ("tokenizer", "text"), [(BYTES, "Né <eos> , 1 .\n\U0001f600"), (WORD, "3 +4 -9")], ids=["bytes", "words"]
)
def test_a_saved_tokenizer_comes_back_the_same(tokenizer, text, beside_a_model, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    if beside_a_model:  # its config names Qwen's tokenizer class, which must not win
        Qwen3Config(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.encode(text) == tokenizer.encode(text)
    assert again.decode(again.encode(text)) == text
    assert (again.pad_token_id, again.eos_token_id, again.padding_side) == (0, 1, "left")
    if tokenizer is WORD:
        with pytest.raises(ValueError, match="'thirty'"):
            encode_words(again, "3 thirty")
