"""Strings that try a tokenizer: written ones, and any number of generated ones over all of Unicode.

Shared by golden.py and proof.py. The same seed gives the same strings, with one version of Python.
"""

import random
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pydoc_data.topics import topics

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

LONG = [
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

ENGLISH = " ".join(topics.values()).split()
PLANES = [range(0xD800), range(0xE000, 0x10000), *(range(p << 16, (p + 1) << 16) for p in range(1, 17))]
MARKS = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.combining(c)]
# Marks that Unicode got after version 9.0, which to Hugging Face are none, are among them.
COMPOSITE = [c for c in map(chr, range(0x30000)) if unicodedata.normalize("NFD", c) != c]
EMOJI = [*map(chr, range(0x1F300, 0x1FB00)), *map(chr, range(0x2600, 0x27C0))]
JOINTS = ["\u200d", "\ufe0f", "\ufe0e", "\u20e3", *map(chr, range(0x1F3FB, 0x1F400))]
FLAGS = [*map(chr, range(0x1F1E6, 0x1F200)), "\U000e0067", "\U000e007f"]
INVISIBLE = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA1)),
    *map(chr, range(0x2000, 0x2010)),
    *map(chr, range(0x2028, 0x2030)),
    *map(chr, range(0x205F, 0x2070)),
    *"\u00ad\u034f\u061c\u115f\u1680\u17b4\u180e\u3000\u3164\ufeff\ufff9\ufffc\ufffd\U000e0001",
]


def _words(rng: random.Random, most: int = 14) -> str:
    """A phrase of English, cut out of prose, as it is or with another case."""
    start = rng.randrange(len(ENGLISH))
    text = " ".join(ENGLISH[start : start + rng.randint(1, most)])
    return rng.choice([str, str, str.lower, str.upper, str.title])(text)


def _piece_mix(rng: random.Random) -> str:
    return "".join(rng.choices(PIECES, k=rng.randint(1, 24)))


def _any_plane(rng: random.Random) -> str:
    return "".join(chr(rng.choice(rng.choice(PLANES))) for _ in range(rng.randint(1, 12)))


def _one_script(rng: random.Random) -> str:
    """Characters that lie close together, mostly of one script, in words."""
    first = rng.choice(PLANES[: 3 if rng.random() < 0.8 else None])
    start = rng.randrange(first.start, first.stop, 64)
    codes = [chr(c) for c in range(start, min(start + 128, first.stop))]
    return "".join(rng.choices([*codes, *" " * 16], k=rng.randint(2, 24)))


def _marks(rng: random.Random) -> str:
    """Letters under heaps of marks, composed and decomposed."""
    out = []
    for _ in range(rng.randint(1, 4)):
        out.append(
            rng.choice(COMPOSITE) if rng.random() < 0.5 else rng.choice("aeiouAEOUnsΑωИ カ각ᄒ\u1161\u11ab")
        )
        out += rng.choices(MARKS, k=rng.choice([0, 1, 1, 2, 2, 3, 5]))
    if rng.random() < 0.05:
        out += rng.choices(MARKS, k=rng.randint(25, 70))
    return "".join(out) + rng.choice(["", " on the left"])


def _emoji(rng: random.Random) -> str:
    pools = [EMOJI, EMOJI, JOINTS, FLAGS, ["the", " ", " ", "#", "1", "left"]]
    return "".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, 14)))


def _long_word(rng: random.Random) -> str:
    """Words around and above the 100 characters at which BERT gives up."""
    unit = rng.choice(
        ["a", "ing", "é", "e\u0301", "鸭", "0", "-", "🦆", "xqz", "İ", rng.choice(ENGLISH), _any_plane(rng)]
    )
    word = (unit * 160)[: rng.randint(95, 160)]
    return rng.choice(["", "the "]) + word + rng.choice(["", " left", "!"])


def _sprinkled(rng: random.Random) -> str:
    """English with what does not show in it."""
    chars = list(_words(rng, 8))
    for _ in range(rng.randint(1, 6)):
        chars.insert(rng.randint(0, len(chars)), rng.choice(INVISIBLE))
    return "".join(chars)


def _altered(rng: random.Random) -> str:
    """English in which some characters are others."""
    chars = list(_words(rng, 8))
    for _ in range(rng.randint(1, 4)):
        chars[rng.randrange(len(chars))] = rng.choice([*MARKS[:200], *COMPOSITE[:600], *EMOJI[:200], *PIECES])
    return "".join(chars)


def _ascii(rng: random.Random) -> str:
    return "".join(map(chr, rng.choices(range(0x80), k=rng.randint(1, 40))))


def _special(rng: random.Random) -> str:
    """Special tokens, whole, broken and in another case."""
    tokens = ["[CLS]", "[SEP]", "[MASK]", "[UNK]", "[PAD]", "<|startoftext|>", "<|endoftext|>"]
    parts = []
    for _ in range(rng.randint(1, 4)):
        token = rng.choice(tokens)
        parts += [
            rng.choice([token, token.lower(), token.upper(), token[:-1], token[1:]]),
            rng.choice(PIECES),
        ]
    return "".join(parts)


KINDS: dict[Callable[[random.Random], str], int] = {
    _words: 26,
    _sprinkled: 8,
    _altered: 12,
    _piece_mix: 12,
    _any_plane: 9,
    _one_script: 14,
    _marks: 7,
    _emoji: 5,
    _long_word: 1,
    _ascii: 4,
    _special: 2,
}


def generate(seed: int) -> Iterator[str]:
    """Strings without end."""
    rng = random.Random(seed)
    kinds, weights = list(KINDS), list(KINDS.values())
    while True:
        for kind in rng.choices(kinds, weights, k=1000):
            yield kind(rng)
