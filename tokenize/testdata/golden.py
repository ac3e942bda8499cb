"""Writes golden.json.gz: what Hugging Face's fast tokenizers make of 20,000 strings and of every Unicode
character.

    python tokenize/testdata/golden.py        # from the repository root, about 30 s
"""

import gzip
import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import tokenizers
import transformers
from phrases import LONG, PHRASES, generate
from transformers import BertTokenizerFast, CLIPTokenizerFast

from refersam.tokenizer import read_bert_vocab, read_clip_vocab

COUNT = 20_000
# Code points that are encoded one by one. What lies between these ranges is unassigned.
PLANES = [range(0x40000), range(0xE0000, 0xE1000), range(0x10F000, 0x110000)]
BLOCK = 0x1000


def peers() -> dict[str, BertTokenizerFast | CLIPTokenizerFast]:
    clip_vocab, clip_merges = read_clip_vocab()
    return {
        "bert-base-uncased": BertTokenizerFast(vocab=read_bert_vocab()),
        "clip-vit-large-patch14": CLIPTokenizerFast(vocab=clip_vocab, merges=clip_merges),
    }


def text_around(code: int) -> str:
    """A character inside a word, alone, and under an accent. Twin of textAround in the Go test."""
    return f"a{chr(code)}a {chr(code)} {chr(code)}\u0301"


def fingerprint(rows: list[list[int]]) -> str:
    """Of ids one row after the other, each row behind its length, as little-endian int32."""
    flat = np.array([x for row in rows for x in (len(row), *row)], dtype="<i4")
    return hashlib.sha256(flat.tobytes()).hexdigest()[:12]


def main() -> None:
    written = PHRASES + LONG
    texts = written + list(itertools.islice(generate(1), COUNT - len(written)))
    out: dict = {
        "versions": f"tokenizers {tokenizers.__version__}, transformers {transformers.__version__}",
        "texts": texts,
        "tokenizers": {},
    }
    for name, peer in peers().items():
        cut = [
            {"max_tokens": n, "ids": row["input_ids"], "mask": row["attention_mask"], "text": text}
            for n in (3, 20, 77)
            for text in texts[:60]
            for row in [peer(text, max_length=n, truncation=True, padding="max_length")]
        ]
        blocks = {}
        for plane in PLANES:
            for start in range(plane.start, plane.stop, BLOCK):
                codes = [c for c in range(start, start + BLOCK) if not 0xD800 <= c < 0xE000]
                if codes:
                    blocks[f"{start:x}"] = fingerprint(peer([text_around(c) for c in codes])["input_ids"])
        out["tokenizers"][name] = {"ids": peer(texts)["input_ids"], "cut": cut, "blocks": blocks}
    target = Path(__file__).with_name("golden.json.gz")
    data = json.dumps(out, ensure_ascii=False, separators=(",", ":")).encode()
    target.write_bytes(gzip.compress(data, 9, mtime=0))


if __name__ == "__main__":
    main()
