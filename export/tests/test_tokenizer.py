import numpy as np
import pytest
from transformers import BertTokenizerFast, CLIPTokenizerFast

from refersam import tokenizer

PHRASES = [
    "",
    "the duck on the left",
    "Second-to-last woman's red UMBRELLA, 3rd from right!",
    "café crème – naïve façade",
    "cafe\u0301 I\u0307 İstanbul ΟΔΟΣ ὈΔΥΣΣΕΎΣ straße ﬁne",
    "左边的鸭子 と ネコ 한국어 ไทย हिन्दी العربية עברית",
    "👩‍👩‍👧‍👦 ❤️ 🇨🇦 the 🍕 is below the 🐱",
    "it's you're we've i'm they'll she'd CAN'T ''s 'S",
    "a\u200bb\u00adc\ufeffd\u2028e\u0085f\tg\x00h\ufffdi",
    "[CLS] [SEP] [MASK] [pad] <|startoftext|> <|endoftext|> <|ENDOFTEXT|>",
    "x" * 100 + " " + "y" * 101,
    "dog " * 200,
]
SIZES = {"bert-base-uncased": [3, 17, 512], "clip-vit-large-patch14": [3, 17, 77]}


def hugging_face(name: str):
    if name == "bert-base-uncased":
        return BertTokenizerFast(vocab=tokenizer.read_bert_vocab())
    vocab, merges = tokenizer.read_clip_vocab()
    return CLIPTokenizerFast(vocab=vocab, merges=merges)


@pytest.mark.parametrize(("name", "max_tokens"), [(n, size) for n, sizes in SIZES.items() for size in sizes])
def test_equals_transformers(name: str, max_tokens: int):
    want = hugging_face(name)(
        PHRASES, max_length=max_tokens, truncation=True, padding="max_length", return_tensors="np"
    )
    input_ids, attention_mask = tokenizer.load(name).encode(PHRASES, max_tokens)
    assert input_ids.dtype == attention_mask.dtype == np.int64
    np.testing.assert_array_equal(input_ids, want["input_ids"])
    np.testing.assert_array_equal(attention_mask, want["attention_mask"])


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        (
            "bert-base-uncased",
            {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "the": 1996, "duck": 9457},
        ),
        (
            "clip-vit-large-patch14",
            {"!": 0, "the</w>": 518, "duck</w>": 6910, "<|startoftext|>": 49406, "<|endoftext|>": 49407},
        ),
    ],
)
def test_published_ids(name: str, tokens: dict[str, int]):
    loaded = tokenizer.load(name)
    assert loaded.vocab_size == loaded.backend.get_vocab_size()
    assert loaded.vocab_size == {"bert-base-uncased": 30522, "clip-vit-large-patch14": 49408}[name]
    assert {token: loaded.backend.token_to_id(token) for token in tokens} == tokens


def test_no_texts():
    input_ids, attention_mask = tokenizer.load("bert-base-uncased").encode([], 20)
    assert input_ids.shape == attention_mask.shape == (0, 20)


@pytest.mark.parametrize("name", tokenizer.NAMES)
def test_refuses_lengths(name: str):
    loaded = tokenizer.load(name)
    for max_tokens in (2, loaded.limit + 1):
        with pytest.raises(ValueError, match=f"from 3 to {loaded.limit}"):
            loaded.encode(["a duck"], max_tokens)


def test_unknown_name():
    with pytest.raises(ValueError, match="bert-base-uncased, clip-vit-large-patch14"):
        tokenizer.load("gpt2")


def test_missing_vocabulary(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(tokenizer, "VOCAB_DIR", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"bert-base-uncased\.txt\.gz is missing"):
        tokenizer.load("bert-base-uncased")
