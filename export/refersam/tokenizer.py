"""Phrases to token ids with the vocabularies that the gateway embeds (`tokenize/vocab/`).

The twin of the Go package `tokenize`: both read the same files and give the same ids, those of
`transformers.BertTokenizerFast` and `transformers.CLIPTokenizerFast` with default settings.
A special token written out in a phrase ("[SEP]", "<|endoftext|>") becomes that token, as it does there.
"""

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece

VOCAB_DIR = Path(__file__).resolve().parents[2] / "tokenize" / "vocab"

_CLIP_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class PhraseTokenizer:
    """One vocabulary with its rules."""

    name: str
    backend: Tokenizer
    vocab_size: int
    pad_id: int
    limit: int
    """The most tokens the text encoder of this name has positions for."""

    def encode(self, texts: Sequence[str], max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and attention mask, both int64 [len(texts), max_tokens].

        Special tokens are included. A phrase that is too long loses its end but keeps the closing special
        token; a short one is padded with `pad_id`, where the mask is 0. Raises ValueError unless
        3 <= max_tokens <= limit.
        """
        if not 3 <= max_tokens <= self.limit:
            raise ValueError(f"max_tokens of {self.name} must be from 3 to {self.limit}, got {max_tokens}")
        input_ids = np.full((len(texts), max_tokens), self.pad_id, dtype=np.int64)
        attention_mask = np.zeros((len(texts), max_tokens), dtype=np.int64)
        for row, text in enumerate(texts):
            ids = self.backend.encode(text).ids
            if len(ids) > max_tokens:
                ids = [*ids[: max_tokens - 1], ids[-1]]
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
        return input_ids, attention_mask


def read_bert_vocab() -> dict[str, int]:
    """Token to id of bert-base-uncased; the id is the line number."""
    return {token: i for i, token in enumerate(_read_lines("bert-base-uncased"))}


def read_clip_vocab() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Token to id of CLIP, and its merges in order of rank."""
    merges = []
    for line in _read_lines("clip-vit-large-patch14")[1:]:
        left, right = line.split(" ")
        merges.append((left, right))
    symbols = _byte_symbols()
    tokens = symbols + [s + "</w>" for s in symbols] + [a + b for a, b in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}, merges


def load(name: str) -> PhraseTokenizer:
    """The tokenizer called `name`, one of NAMES.

    Raises ValueError for another name and FileNotFoundError when the vocabulary is not in the checkout.
    """
    if name not in _BUILDERS:
        raise ValueError(f"unknown tokenizer {name!r}; known: {', '.join(NAMES)}")
    return _BUILDERS[name]()


def _load_bert() -> PhraseTokenizer:
    vocab = read_bert_vocab()
    backend = Tokenizer(WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    return PhraseTokenizer("bert-base-uncased", backend, len(vocab), vocab["[PAD]"], limit=512)


def _load_clip() -> PhraseTokenizer:
    vocab, merges = read_clip_vocab()
    bos, eos = "<|startoftext|>", "<|endoftext|>"
    backend = Tokenizer(BPE(vocab, merges, unk_token=eos, end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_PATTERN), behavior="removed", invert=True),
            # With its own pattern, which cuts what the first one keeps whole: a lower-cased "<|ENDOFTEXT|>".
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in (bos, eos)])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}", special_tokens=[(bos, vocab[bos]), (eos, vocab[eos])]
    )
    return PhraseTokenizer("clip-vit-large-patch14", backend, len(vocab), vocab[eos], limit=77)


_BUILDERS: dict[str, Callable[[], PhraseTokenizer]] = {
    "bert-base-uncased": _load_bert,
    "clip-vit-large-patch14": _load_clip,
}
NAMES = tuple(_BUILDERS)


def _read_lines(name: str) -> list[str]:
    path = VOCAB_DIR / f"{name}.txt.gz"
    if not path.is_file():
        raise FileNotFoundError(
            f"vocabulary {path} is missing: refersam must run from a checkout (pip install -e export)"
        )
    # Not splitlines(): tokens may hold characters that it would take for line ends.
    return gzip.decompress(path.read_bytes()).decode("utf-8").removesuffix("\n").split("\n")


def _byte_symbols() -> list[str]:
    """The 256 characters that stand for bytes, in CLIP's order of ids: bytes that Latin-1 prints stand for
    themselves and come first, the others follow as U+0100, U+0101, …"""
    printable = [b for b in range(256) if chr(b).isprintable() and b != 0x20]
    others = 256 - len(printable)
    return [chr(b) for b in printable] + [chr(0x100 + i) for i in range(others)]
