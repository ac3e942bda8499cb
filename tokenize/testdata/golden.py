"""Writes golden.json.gz: what Hugging Face's fast tokenizers make of phrases, of random strings and of every
Unicode character.

    python tokenize/testdata/golden.py        # from the repository root, about 20 s
"""

import gzip
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import tokenizers
import transformers
from transformers import BertTokenizerFast, CLIPTokenizerFast

from refersam.tokenizer import read_bert_vocab, read_clip_vocab

PHRASES = """
the duck on the left
Second-to-last woman's red UMBRELLA, 3rd from right!
man in blue shirt w/ glasses, not the one w/o
left-most zebra's rear end
top right corner (the small one)
person #23 @ 1st base... maybe?
50% off sign; $9.99 + tax = ~$10
the "stop" sign & the 'yield' sign
C++ / C# books on the 2nd shelf
a\\b|c^d`e{f}g[h]i<j>k_l*m
????!!!! ... --- ___ ***
!<|x ''' ''s 's's 'll'd
it's you're we've i'm they'll she'd can't o'clock 'tis rock'n'roll
IT'S YOU'RE WE'VE I'M THEY'LL SHE'D CAN'T
it’s the dog‘s bowl “quoted” ‹angle› «guillemets»
'ſ 'S 'ſ it'ſ
2024-11-05 12:34:56.789 +1 (555) 010-0199 0x1F 1e-9 ١٢٣ १२३ ½ ² Ⅳ ⑦ 四
café crème – naïve façade — Ångström Åse øre Łódź Đorđe
CAFÉ CRÈME NAÏVE ÅNGSTRÖM ÇA VA ÑANDÚ ŽIŽEK
straße STRASSE ẞ ﬁne ﬂower oﬃce ﬆ Ǆ ǅ ǆ Ǳ ĳ Œuvre æon
İstanbul ISTANBUL ıstanbul İ I ı i̇ İİ iİi
ΟΔΟΣ ΣΑΣ ὈΔΥΣΣΕΎΣ ὀδυσσεύς σ ς Σ ΑΣ. Α.Σ
ΑΒΓ Ωμέγα ᾳ ᾼ ῼ Ώ Ω ΐ ΰ
Москва Ёлка ёж Йод й Київ Ґанок їжак Ђ
左边的鸭子 鸭子在左边 the 左 duck 鸭
ネコが左にいます ﾈｺ ガギグ ガ が カ゛ ｶﾞ 々〆ヶ
한국어 왼쪽 오리 한글 ㅎㅏㄴ ᄒᆞᆫ 각
ไทย น้ำ ภาษาไทย เป็ดทางซ้าย
हिन्दी बत्तख क़ ख़ ज्ञ বাংলা তামিল தமிழ் తెలుగు ಕನ್ನಡ മലയാളം සිංහල
العربية البطة على اليسار ﷺ ﻻ لا مُحَمَّد ـــ ٪ ؟ ۔
עברית הברווז משמאל שָׁלוֹם שׂ שׁ ׳ ״
አማርኛ ქართული ᲥᲐᲠᲗᲣᲚᲘ Հայերեն և ᏣᎳᎩ ꮳꮃꭹ
བོད་སྐད ဗမာစာ ខ្មែរ ລາວ ᠮᠣᠩᠭᠣᠯ ᤕᤠᤰᤌᤢᤱ
Tiếng Việt: con vịt ở bên trái, Ữ ữ ự ỡ ế
😀 😂🤣 👍🏽 👩‍👩‍👧‍👦 👨🏿‍🚀 🏳️‍🌈 🇨🇦🇺🇸 1️⃣ #️⃣ ❤️ ❤ ☺︎ ☺️ 🫠 🪿
the 🍕 is below the 🐱, next to 🦆
the🍕is🐱🦆🦆🦆🦆🦆🦆🦆🦆🦆
𝒟𝓊𝒸𝓀 𝔡𝔲𝔠𝔨 𝕕𝕦𝕔𝕜 ｄｕｃｋ ＤＵＣＫ ⓓⓤⓒⓚ 🄳🅄🄲🄺 ᴅᴜᴄᴋ
zero​width‌joiner‍word⁠joiner﻿bom soft­hyphen
rtl‮override‬ lrm‎ rlm‏ isolate⁦x⁩
nbsp nnbsp thin en em ideographic　mvs᠎ogham figure
[CLS] [SEP] [MASK] [PAD] [UNK] [unused1] [cls] [Sep]
a[SEP]b [[SEP]] [SEP][SEP] [SE[SEP]P] é[MASK]́
<|startoftext|> <|endoftext|> a<|endoftext|>b <|endoftext|><|endoftext|> <<|endoftext|>>
<|ENDOFTEXT|> <|StartOfText|> x<|ENDOFTEXT|>y !<|ENDOFTEXT|> <|endoftext <|end|> é<|endoftext|>́
##ing ## # #duck ##duck ##
</w> a</w> Ġ Ġthe ĠĠ â Ã© Â
pneumonoultramicroscopicsilicovolcanoconiosis antidisestablishmentarianism honorificabilitudinitatibus
asdfghjkl qwertyuiop zxcvbnm xqzjkv bcdfg hjklm
http://example.com/a/b?c=d&e=f#g user@example.org /usr/local/bin C:\\Windows\\System32
ᾴ ᾷ ǰ ŉ ΐ և ẖ ẗ ẘ ẙ ẚ ﬓ ﬔ
ÀÁÂÃÄÅ àáâãäå ÀÁÂ q̣̇ q̣̇ q̣̇ ḍ̇ ḍ̇
Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞
Å Å Å Ω Ω K K ; ; · · ≠ ≠ ≮
ꞌ Ꞌ Ɪ ɪ Ꟶ ꟶ Ɤ Ꟛ Ᲊ ᲊ Ꟁ Ꮿ ᏸ 𞤀 𞤢 𐐀 𐐨 𐒰 𐲀 𑢠 𖹀
𑤸 𑤸 𑂚 𑂚 𝅗𝅥 𝅘𝅥𝅮 𝅘𝅥𝅮 ྲཱྀ ཱི ཱུ ༹ྂ 〪〮〯〫
𐵐 𐵰 𖵀 𖵱 𞗐 𞗱 𮯰 𑎀 𖄀 𜳰 𞋀 𞋐 𞋰 𞓰
""".strip("\n").split("\n")

PIECES = [
    *"abcABC  019'",
    *"éÉßſİıΣσςǅ",
    *"\u0300\u0301\u0316\u0323\u0345\u05b0\u3099\u1dfa\u08d3\U0001e130",
    *"\t\n\r\v\f\u0085\u00a0\u2028\u3000\x00\ufffd\u200b\u200d\ufe0f\xad",
    *"!#'-.<>[]_|“’।、",
    *"左鸭カﾞ한각ᄀ\u1161\u11a8ไ\u0e49शकنلב",
    *"🦆👍🏽❤½²Ⅳ٣𝟗",
    *["'s", "'ll", "'T", "the", "duck", "[SEP]", "[MASK]", "<|endoftext|>", "<|STARTOFTEXT|>", "##", "</w>"],
]

# Code points that are encoded one by one. What lies between these ranges is unassigned.
PLANES = [range(0x40000), range(0xE0000, 0xE1000), range(0x10F000, 0x110000)]
BLOCK = 0x1000


def phrases() -> list[str]:
    long = [
        "",
        " ",
        " \t\r\n ",
        "\x00\ufffd\u200b",
        "a\u0085b\u000bc\u000cd\u001ce\u2028f\u2029g\x7fh",
        *("x" * n for n in (99, 100, 101, 300)),
        *("é" * n for n in (100, 101)),
        *("e\u0301" * n for n in (100, 101)),
        *("鸭" * n for n in (100, 101)),
        *("duck" * n for n in (25, 26)),
        *("a" + "\u0301\u0316" * n for n in (14, 15, 16, 40)),
        "o" + "\u0327" * 31 + "\u0308",
        *("dog " * n for n in (1, 74, 75, 76, 510, 511)),
        "!" * 300,
        "0" * 90,
        "🦆" * 80,
        "'s" * 50,
        "ababab" * 60,
        "the" * 111 + "rest",
    ]
    rng = random.Random(1)
    mixed = ["".join(rng.choices(PIECES, k=rng.randint(1, 24))) for _ in range(400)]
    return PHRASES + long + mixed


def text_around(code: int) -> str:
    """A character inside a word, alone, and under an accent. Twin of textAround in the Go test."""
    return f"a{chr(code)}a {chr(code)} {chr(code)}\u0301"


def fingerprint(rows: list[list[int]]) -> str:
    """Of ids one row after the other, each row behind its length, as little-endian int32."""
    flat = np.array([x for row in rows for x in (len(row), *row)], dtype="<i4")
    return hashlib.sha256(flat.tobytes()).hexdigest()[:12]


def main() -> None:
    clip_vocab, clip_merges = read_clip_vocab()
    peers = {
        "bert-base-uncased": BertTokenizerFast(vocab=read_bert_vocab()),
        "clip-vit-large-patch14": CLIPTokenizerFast(vocab=clip_vocab, merges=clip_merges),
    }
    out: dict = {"versions": f"tokenizers {tokenizers.__version__}, transformers {transformers.__version__}"}
    for name, peer in peers.items():
        texts = phrases()
        whole = peer(texts)["input_ids"]
        cut = [
            {"max_tokens": n, "ids": row["input_ids"], "mask": row["attention_mask"], "text": text}
            for n in (3, 20, 77)
            for text in texts[:8]
            for row in [peer(text, max_length=n, truncation=True, padding="max_length")]
        ]
        blocks = {}
        for plane in PLANES:
            for start in range(plane.start, plane.stop, BLOCK):
                codes = [c for c in range(start, start + BLOCK) if not 0xD800 <= c < 0xE000]
                if codes:
                    blocks[f"{start:x}"] = fingerprint(peer([text_around(c) for c in codes])["input_ids"])
        out[name] = {
            "phrases": [{"text": t, "ids": ids} for t, ids in zip(texts, whole, strict=True)],
            "cut": cut,
            "blocks": blocks,
        }
    target = Path(__file__).with_name("golden.json.gz")
    data = json.dumps(out, ensure_ascii=True, separators=(",", ":")).encode()
    target.write_bytes(gzip.compress(data, 9, mtime=0))


if __name__ == "__main__":
    main()
