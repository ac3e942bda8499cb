"""All kinds of TIFF, BMP, PNG and GIF, and of EXIF blocks, as small files: valid, rare and broken ones.

pillow.py gives them to the Go test together with what Pillow makes of them. They are the same in every run.
"""

from __future__ import annotations

import itertools
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

REVERSED = bytes(int(f"{b:08b}"[::-1], 2) for b in range(256))


def lzw(data: bytes, code_size: int, tiff: bool) -> bytes:
    """Data as LZW codes: those of TIFF come highest bit first and grow one code early."""
    clear, end = 1 << code_size, (1 << code_size) + 1
    bits: list[tuple[int, int]] = []
    table: dict[bytes, int] = {}
    width = code_size + 1
    current = b""

    def reset() -> None:
        nonlocal table, width
        table = {bytes([i]): i for i in range(clear)}
        width = code_size + 1

    bits.append((clear, width))
    reset()
    following = end + 1
    for value in data:
        longer = current + bytes([value])
        if longer in table:
            current = longer
            continue
        bits.append((table[current], width))
        table[longer] = following
        following += 1
        if following + (1 if tiff else 0) > 1 << width:
            width += 1
        if following >= 4094:
            bits.append((clear, min(width, 12)))
            reset()
            following = end + 1
        current = bytes([value])
    if current:
        bits.append((table[current], min(width, 12)))
        following += 1
        if following + (1 if tiff else 0) > 1 << width:
            width += 1
    bits.append((end, min(width, 12)))
    if tiff:
        text = "".join(f"{code:0{size}b}" for code, size in bits)
        text += "0" * (-len(text) % 8)
        return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    out, buffer, held = bytearray(), 0, 0
    for code, size in bits:
        buffer |= code << held
        held += size
        while held >= 8:
            out.append(buffer & 255)
            buffer >>= 8
            held -= 8
    if held:
        out.append(buffer & 255)
    return bytes(out)


def packbits(data: bytes, rng: random.Random) -> bytes:
    out, i = bytearray(), 0
    while i < len(data):
        run = 1
        while run < 128 and i + run < len(data) and data[i + run] == data[i]:
            run += 1
        if rng.random() < 0.1:
            out.append(128)
        if run > 1:
            out += bytes([257 - run, data[i]])
            i += run
        else:
            n = min(rng.randint(1, 128), len(data) - i)
            out += bytes([n - 1]) + data[i : i + n]
            i += n
    return bytes(out)


TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q"}


def values(order: str, kind: int, numbers: tuple[float, ...]) -> bytes:
    """Values of a directory entry; a rational is the number over 1."""
    if kind in (5, 10):
        return b"".join(struct.pack(order + ("II" if kind == 5 else "ii"), int(n), 1) for n in numbers)
    return struct.pack(
        order + str(len(numbers)) + TYPES[kind], *(n if kind in (11, 12) else int(n) for n in numbers)
    )


def directory(order: str, entries: list[tuple[int, int, bytes, int]], at: int, big: bool = False) -> bytes:
    """A directory at a place in the file, of tag, type, values and count; long values follow it."""
    word = "Q" if big else "I"
    count, size = ("Q", 20) if big else ("H", 12)
    inside = 8 if big else 4
    head = struct.pack(order + count, len(entries))
    rest = b""
    after = at + len(head) + size * len(entries) + inside
    for tag, kind, data, number in entries:
        head += struct.pack(order + "HH" + word, tag, kind, number)
        if len(data) <= inside:
            head += data.ljust(inside, b"\0")
        else:
            head += struct.pack(order + word, after + len(rest))
            rest += data + b"\0" * (len(data) % 2)
    return head + struct.pack(order + word, 0) + rest


@dataclass
class Tiff:
    order: str = "<"
    size: tuple[int, int] = (13, 9)
    bits: int = 8
    photometric: int | None = 2
    samples: int = 3
    extra: tuple[int, ...] = ()
    fill_order: int = 1
    planar: int = 1
    compression: int = 1
    predictor: int = 1
    rows: int = 0  # of a strip, 0 for all
    tile: tuple[int, int] | None = None
    sample_format: int = 1
    big: bool = False
    seed: int = 1
    change: dict[int, tuple[int, tuple[float, ...]] | None] = field(default_factory=dict)
    long_counts: bool = True

    def encode(self) -> bytes:
        rng = random.Random(self.seed)
        width, height = self.size
        per_block = 1 if self.planar == 2 else self.samples
        planes = self.samples if self.planar == 2 else 1
        if self.tile:
            block_width, block_height = self.tile
        else:
            block_width, block_height = width, self.rows or height
        across, down = -(-width // block_width), -(-height // block_height)
        blocks = []
        for _ in range(planes):
            for row in range(down):
                lines = block_height if self.tile else min(block_height, height - row * block_height)
                for _ in range(across):
                    stride = (block_width * per_block * self.bits + 7) // 8
                    blocks.append(self.pack([self.line(rng, stride) for _ in range(lines)], per_block, rng))
        o = self.order
        head = 16 if self.big else 8
        body, offsets = b"", []
        for block in blocks:
            offsets.append(head + len(body))
            body += block + b"\0" * (len(block) % 2)
        wide = 16 if self.big else 4
        tags: dict[int, tuple[int, tuple[float, ...]]] = {
            0x100: (3, (width,)), 0x101: (4, (height,)), 0x102: (3, (self.bits,) * self.samples),
            0x103: (3, (self.compression,)), 0x115: (3, (self.samples,)), 0x11C: (3, (self.planar,)),
        }  # fmt: skip
        if self.photometric is not None:
            tags[0x106] = (3, (self.photometric,))
        if self.fill_order != 1:
            tags[0x10A] = (3, (self.fill_order,))
        if self.predictor != 1:
            tags[0x13D] = (3, (self.predictor,))
        if self.extra:
            tags[0x152] = (3, self.extra)
        if self.sample_format != 1:
            tags[0x153] = (3, (self.sample_format,) * self.samples)
        if self.photometric == 3:
            tags[0x140] = (3, tuple(rng.randrange(65536) for _ in range(3 << min(self.bits, 8))))
        counts = tuple(len(block) for block in blocks)
        if self.tile:
            tags |= {0x142: (3, (block_width,)), 0x143: (3, (block_height,))}
            tags |= {0x144: (wide, tuple(offsets)), 0x145: (4 if self.long_counts else 3, counts)}
        else:
            tags |= {0x116: (4, (block_height,))}
            tags |= {0x111: (wide, tuple(offsets)), 0x117: (4 if self.long_counts else 3, counts)}
        for tag, value in self.change.items():
            if value is None:
                tags.pop(tag, None)
            else:
                tags[tag] = value
        entries = [(tag, kind, values(o, kind, v), len(v)) for tag, (kind, v) in sorted(tags.items())]
        start = head + len(body)
        if self.big:
            header = (b"II" if o == "<" else b"MM") + struct.pack(o + "HHHQ", 43, 8, 0, start)
        else:
            header = (b"II" if o == "<" else b"MM") + struct.pack(o + "HI", 42, start)
        return header + body + directory(o, entries, start, self.big)

    @staticmethod
    def line(rng: random.Random, stride: int) -> bytes:
        if rng.random() < 0.3:
            return bytes([rng.randrange(256)]) * stride
        return rng.randbytes(stride)

    def pack(self, lines: list[bytes], per_pixel: int, rng: random.Random) -> bytes:
        if self.predictor == 2 and self.bits in (8, 16):
            size = self.bits // 8
            code = self.order + ("B" if size == 1 else "H")
            for i, line in enumerate(lines):
                n = len(line) // size
                samples = struct.unpack(code[0] + str(n) + code[1], line[: n * size])
                delta = [
                    (v - (samples[j - per_pixel] if j >= per_pixel else 0)) % (1 << self.bits)
                    for j, v in enumerate(samples)
                ]
                lines[i] = struct.pack(code[0] + str(n) + code[1], *delta)
        data = b"".join(lines)
        if self.compression == 5:
            data = lzw(data, 8, tiff=True)
        elif self.compression in (8, 32946):
            data = zlib.compress(data)
        elif self.compression == 32773:
            data = b"".join(packbits(line, rng) for line in lines)
        return data.translate(REVERSED) if self.fill_order == 2 else data


def tiffs() -> Iterator[tuple[str, bytes]]:
    rng = random.Random(13)
    kinds = [
        (photometric, bits, samples, extra)
        for photometric, bits, samples in itertools.product(
            (0, 1, 2, 3, 5, 6, 8), (1, 2, 4, 8, 12, 16, 32), range(1, 7)
        )
        for extra in ((), (0,), (1,), (2,), (0, 0), (2, 0), (1, 0), (0, 0, 0), (999,), (3,))
        if samples - len(extra) == {2: 3, 5: 4, 6: 3, 8: 3}.get(photometric, 1) or rng.random() < 0.02
    ]
    for number, (photometric, bits, samples, extra) in enumerate(kinds):
        base = Tiff(photometric=photometric, bits=bits, samples=samples, extra=extra, seed=number)
        plausible = (
            photometric < 6
            and bits in (1, 2, 4, 8, 16)
            and samples - len(extra) == {2: 3, 5: 4}.get(photometric, 1)
        )
        for copy in range(14 if plausible else 1):
            one = base
            if copy:
                one = replace(
                    base,
                    order=rng.choice("<>"),
                    size=rng.choice([(13, 9), (1, 1), (33, 17), (8, 40), (64, 16)]),
                    fill_order=rng.choice([1, 1, 1, 2]),
                    planar=rng.choice([1, 1, 2]),
                    compression=rng.choice([1, 1, 5, 8, 32946, 32773]),
                    predictor=rng.choice([1, 1, 2]),
                    rows=rng.choice([0, 0, 1, 3, 5]),
                    tile=rng.choice([None, None, None, (16, 16), (32, 16)]),
                    sample_format=rng.choice([1] * 12 + [2, 3]),
                    big=rng.random() < 0.1,
                    long_counts=rng.random() < 0.5,
                )
            name = " ".join(
                f"{key}={getattr(one, key)}"
                for key in one.__dataclass_fields__
                if getattr(one, key) != getattr(Tiff, key, None)
            )
            yield f"TIFF {name}", one.encode()
    for compression in (2, 3, 4, 6, 7, 34925, 50000, 99):
        yield f"TIFF compression {compression}", Tiff(compression=compression).encode()
    for tag in (0x100, 0x101, 0x102, 0x103, 0x106, 0x111, 0x115, 0x116, 0x117, 0x11C):
        for photometric, bits, samples in ((2, 8, 3), (1, 8, 1), (1, 1, 1)):
            base = Tiff(photometric=photometric, bits=bits, samples=samples)
            yield (
                f"TIFF of {samples} × {bits} bits without {tag:#x}",
                replace(base, change={tag: None}).encode(),
            )
            for value in (0, 2, 7, 65535):
                changed = replace(base, change={tag: (3, (value,))})
                yield f"TIFF of {samples} × {bits} bits with {value} as {tag:#x}", changed.encode()
    yield "TIFF of one depth for three samples", Tiff(change={0x102: (3, (8,))}).encode()
    yield "TIFF of depths 5, 6, 5", Tiff(change={0x102: (3, (5, 6, 5))}).encode()
    yield "TIFF with short palette", Tiff(photometric=3, samples=1, change={0x140: (3, (7,) * 30)}).encode()
    yield "TIFF without palette", Tiff(photometric=3, samples=1, change={0x140: None}).encode()
    yield "TIFF with strips and tiles", Tiff(tile=(16, 16), change={0x111: (4, (8,))}).encode()
    yield "TIFF of tiles of 8×8", Tiff(tile=(8, 8)).encode()
    yield "TIFF with too many strips", Tiff(rows=3, change={0x111: (4, (8,) * 9)}).encode()
    yield "TIFF of grey where 0 is white and 16 bits", Tiff(photometric=0, samples=1, bits=16).encode()
    one = Tiff().encode()
    for cut in (9, 40, 100, len(one) // 2, len(one) - 30, len(one) - 1):
        yield f"TIFF of {cut} bytes", one[:cut]


def exif(numbers: tuple[float, ...], kind: int = 3, order: str = "<", before: bytes = b"") -> bytes:
    entries = [(0x112, kind, values(order, kind, numbers), len(numbers))]
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return header + directory(order, entries, 8)


def exif_blocks() -> Iterator[tuple[str, bytes]]:
    for kind in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16):
        for order in "<>":
            for numbers in ((6,), (8,), (6, 3), (3, 6), (0,), (9,)):
                yield f"orientation {numbers} of type {kind} {order}", exif(numbers, kind, order)
    for text in (b"6", b"8\0"):
        head = b"II" + struct.pack("<HI", 42, 8)
        yield f"orientation {text!r}", head + directory("<", [(0x112, 2, text, len(text))], 8)
    head = b"II" + struct.pack("<HI", 42, 8)
    six, three = struct.pack("<H", 6), struct.pack("<H", 3)
    yield "two orientations", head + directory("<", [(0x112, 3, six, 1), (0x112, 3, three, 1)], 8)
    yield "an empty and an orientation", head + directory("<", [(0x112, 3, b"", 0), (0x112, 3, six, 1)], 8)
    yield (
        "unknown type and an orientation",
        head + directory("<", [(0x112, 99, six, 1), (0x112, 3, six, 1)], 8),
    )
    far = directory("<", [(0x10F, 2, b"a long text" * 3, 33), (0x112, 3, six, 1)], 8)
    yield "a text and an orientation", head + far
    at = far.index(struct.pack("<I", 33)) + 4
    yield "a text beyond the end, then an orientation", head + far[:at] + b"\xff\xff\0\0" + far[at + 4 :]
    yield "a text too long, then an orientation", head + far[: at - 4] + b"\xff\xff\xff\0" + far[at:]
    yield "a directory cut off", (head + far)[:20]
    yield "floats with fractions", head + directory("<", [(0x112, 11, struct.pack("<f", 6.5), 1)], 8)
    yield "a rational 12/2", head + directory("<", [(0x112, 5, struct.pack("<II", 12, 2), 1)], 8)
    yield "a rational 6/0", head + directory("<", [(0x112, 5, struct.pack("<II", 6, 0), 1)], 8)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def carriers(jpeg: bytes, webp: bytes) -> Iterator[tuple[str, bytes]]:
    """EXIF blocks and XMP in each format that has them."""

    def segment(kind: bytes, data: bytes) -> bytes:
        return b"\xff\xe1" + struct.pack(">H", 2 + len(kind + data)) + kind + data

    def riff(kind: bytes, data: bytes) -> bytes:
        return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    def in_jpeg(*segments: bytes) -> bytes:
        return jpeg[:2] + b"".join(segments) + jpeg[2:]

    def in_webp(*chunks: bytes) -> bytes:
        frame = webp[12:]
        width, height = (v & 0x3FFF for v in struct.unpack("<HH", webp[26:30]))
        flags = (8 if any(c[:4] == b"EXIF" for c in chunks) else 0) | (
            4 if any(c[:4] == b"XMP " for c in chunks) else 0
        )
        header = (
            bytes([flags, 0, 0, 0]) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        )
        body = b"WEBP" + riff(b"VP8X", header) + frame + b"".join(chunks)
        return b"RIFF" + struct.pack("<I", len(body)) + body

    adobe = b"http://ns.adobe.com/xap/1.0/\0"
    for name, block in exif_blocks():
        yield f"JPEG with {name}", in_jpeg(segment(b"Exif\0\0", block))
        yield f"PNG with {name}", Png(before=[(b"eXIf", block)]).encode()
        yield f"WebP with {name}", in_webp(riff(b"EXIF", block))
        yield f"WebP with a prefix and {name}", in_webp(riff(b"EXIF", b"Exif\0\0" + block))
        digits = f"\nexif\n{len(block):8}\n".encode() + b"Exif\0\0".hex().encode() + block.hex().encode()
        yield (
            f"PNG with a raw profile and {name}",
            Png(before=[(b"tEXt", b"Raw profile type exif\0" + digits)]).encode(),
        )
    for number in range(10):
        for kind in (3, 4, 5, 8, 9, 11, 16):
            yield (
                f"TIFF with orientation {number} of type {kind}",
                Tiff(change={0x112: (kind, (number,))}).encode(),
            )
    six, three = exif((6,)), exif((3,))
    packed = b"Raw profile type exif\0\0" + zlib.compress(f"\nexif\n{len(six):8}\n{six.hex()}\n".encode())
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP
    yield "JPEG with XMP", in_jpeg(segment(adobe, XMP))
    yield "JPEG with XMP and EXIF", in_jpeg(segment(adobe, XMP), segment(b"Exif\0\0", three))
    yield "JPEG with two blocks", in_jpeg(segment(b"Exif\0\0", six), segment(b"Exif\0\0", three))
    yield (
        "JPEG with a block in two segments",
        in_jpeg(segment(b"Exif\0\0", six[:12]), segment(b"Exif\0\0", six[12:])),
    )
    yield "JPEG with two prefixes", in_jpeg(segment(b"Exif\0\0Exif\0\0", six))
    yield "WebP with XMP", in_webp(riff(b"XMP ", XMP))
    yield "WebP with XMP and EXIF", in_webp(riff(b"EXIF", three), riff(b"XMP ", XMP))
    yield "PNG with XMP", Png(before=[(b"iTXt", text)]).encode()
    yield "PNG with XMP behind the pixels", Png(after=[(b"iTXt", text)]).encode()
    yield (
        "PNG with packed XMP",
        Png(before=[(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))]).encode(),
    )
    yield "PNG with XMP and EXIF", Png(before=[(b"iTXt", text), (b"eXIf", three)]).encode()
    yield "PNG with a packed raw profile", Png(before=[(b"zTXt", packed)]).encode()
    yield "PNG with EXIF behind the pixels", Png(after=[(b"eXIf", six)]).encode()
    yield "PNG with two EXIF blocks", Png(before=[(b"eXIf", six), (b"eXIf", three)]).encode()
    yield (
        "PNG with an EXIF block on each side",
        Png(before=[(b"eXIf", six)], after=[(b"eXIf", three)]).encode(),
    )
    xmp = {700: (1, tuple(XMP))}
    yield "TIFF with XMP", Tiff(change=xmp).encode()
    yield "TIFF with XMP and orientation", Tiff(change=xmp | {0x112: (3, (3,))}).encode()


@dataclass
class Png:
    size: tuple[int, int] = (13, 9)
    bits: int = 8
    colour_type: int = 2
    interlaced: bool = False
    before: list[tuple[bytes, bytes]] = field(default_factory=list)
    after: list[tuple[bytes, bytes]] = field(default_factory=list)
    palette: int | None = None  # entries
    surplus: bytes = b""  # behind the pixels, inflated
    behind: bytes = b""  # behind the zlib stream
    missing: int = 0  # bytes of pixels
    chunks: int = 1
    end: bool = True
    filters: tuple[int, ...] = (0, 1, 2, 3, 4)
    wrong: bytes = b""  # the chunk with a wrong checksum
    wrong_adler: bool = False
    seed: int = 1

    def encode(self) -> bytes:
        rng = random.Random(self.seed)
        width, height = self.size
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(self.colour_type, 1)
        passes = [(width, height)]
        if self.interlaced:
            starts, steps = ((0, 0), (4, 0), (0, 4), (2, 0), (0, 2), (1, 0), (0, 1)), (8, 8, 4, 4, 2, 2, 1)
            passes = [
                (-(-max(0, width - x) // across), -(-max(0, height - y) // down))
                for (x, y), across, down in zip(starts, steps, (8, 8, 8, 4, 4, 2, 2), strict=True)
            ]
        rows = b"".join(
            bytes([rng.choice(self.filters)]) + rng.randbytes((w * channels * self.bits + 7) // 8)
            for w, h in passes
            if w
            for _ in range(h)
        )
        rows = rows[: len(rows) - self.missing] + self.surplus
        pixels = zlib.compress(rows)
        if self.wrong_adler:
            pixels = pixels[:-1] + bytes([pixels[-1] ^ 1])
        pixels += self.behind
        out = b"\x89PNG\r\n\x1a\n" + self.chunk(
            b"IHDR",
            struct.pack(">IIBBBBB", width, height, self.bits, self.colour_type, 0, 0, self.interlaced),
        )
        out += b"".join(self.chunk(*c) for c in self.before)
        if self.palette is not None:
            out += self.chunk(b"PLTE", rng.randbytes(3 * self.palette))
        step = -(-len(pixels) // self.chunks)
        for i in range(0, len(pixels), step):
            out += self.chunk(b"IDAT", pixels[i : i + step])
        out += b"".join(self.chunk(*c) for c in self.after)
        return out + (self.chunk(b"IEND", b"") if self.end else b"")

    def chunk(self, kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data) ^ (1 if kind == self.wrong else 0)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def pngs() -> Iterator[tuple[str, bytes]]:
    number = 0
    for colour_type, bits, interlaced in itertools.product(
        (0, 2, 3, 4, 6, 7), (1, 2, 4, 8, 16, 3), (False, True)
    ):
        for size in ((13, 9), (1, 1), (3, 2), (33, 17)):
            number += 1
            palette = 1 << min(bits, 8) if colour_type == 3 else None
            one = Png(size, bits, colour_type, interlaced, palette=palette, seed=number)
            name = f"PNG of type {colour_type} with {bits} bits, {size}{', interlaced' * interlaced}"
            yield name, one.encode()
            yield f"{name}, surplus", replace(one, surplus=b"\0").encode()
            yield f"{name}, cut", replace(one, missing=1).encode()
    for palette in (1, 2, 15, 100, 255, 256, 257, 0):
        for transparency in (None, b"\0", bytes(range(10))):
            before = [] if transparency is None else [(b"tRNS", transparency)]
            one = Png(colour_type=3, palette=palette, after=[], seed=palette)
            yield f"PNG of {palette} colours, {transparency!r}", one.encode()
            yield f"PNG of {palette} colours, {transparency!r} ahead", replace(one, before=before).encode()
    for colour_type, data in ((0, b"\0\7"), (2, b"\0\7\0\7\0\7"), (0, b"\7"), (4, b"\0\7"), (6, b"")):
        yield (
            f"PNG of type {colour_type} with tRNS {data!r}",
            Png(colour_type=colour_type, before=[(b"tRNS", data)]).encode(),
        )
    yield "PNG of colours with palette", Png(palette=8).encode()
    yield "PNG without palette", Png(colour_type=3).encode()
    gamma = [(b"gAMA", struct.pack(">I", 100000))]
    profile = [(b"iCCP", b"name\0\0" + zlib.compress(b"no profile"))]
    for name, ahead in (
        ("gAMA", gamma),
        ("iCCP", profile),
        ("tEXt", [(b"tEXt", b"Comment\0x")]),
        ("own", [(b"prVt", b"x")]),
    ):
        kind = ahead[0][0]
        yield f"PNG with {name}", Png(before=ahead).encode()
        yield f"PNG with {name} behind", Png(after=ahead).encode()
        yield f"PNG with {name}, wrong checksum", Png(before=ahead, wrong=kind).encode()
        yield f"PNG with {name} behind, wrong checksum", Png(after=ahead, wrong=kind).encode()
    for kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
        yield f"PNG with a wrong checksum of {kind!r}", Png(colour_type=3, palette=256, wrong=kind).encode()
    yield "PNG with a wrong checksum of zlib", Png(wrong_adler=True).encode()
    yield "PNG without IEND", Png(end=False).encode()
    for chunks in (2, 5, 100):
        yield f"PNG of {chunks} chunks", Png(chunks=chunks).encode()
        yield f"PNG of {chunks} chunks, surplus", Png(chunks=chunks, surplus=bytes(50)).encode()
    yield "PNG with bytes behind zlib", Png(behind=b"abcd").encode()
    yield "PNG with an empty chunk", Png().encode().replace(b"IDAT", b"IDAT", 1)
    yield "PNG of filter 5", Png(filters=(5,)).encode()
    for filter_type in range(5):
        for bits, colour_type in ((8, 2), (16, 6), (1, 0), (16, 0), (8, 4)):
            yield (
                f"PNG of filter {filter_type}, {colour_type}",
                Png(bits=bits, colour_type=colour_type, filters=(filter_type,)).encode(),
            )
    one = Png(chunks=2).encode()
    for cut in range(8, len(one), 11):
        yield f"PNG of {cut} bytes", one[:cut]
    second = one.index(b"IDAT", one.index(b"IDAT") + 1) - 4
    yield "PNG with a chunk between", one[:second] + Png().chunk(b"tEXt", b"a\0b") + one[second:]
    yield "PNG with a chunk without letters", one[:33] + b"\0\0\0\0\1\2\3\4\0\0\0\0" + one[33:]


@dataclass
class Bmp:
    header: int = 40
    size: tuple[int, int] = (13, 9)
    bits: int = 24
    compression: int = 0
    top_down: bool = False
    masks: tuple[int, ...] = ()
    colours: int = 0
    palette: str = "random"
    gap: int = 0
    offset: int | None = None
    runs: bytes | None = None
    cut: int = 0
    seed: int = 1

    def encode(self) -> bytes:
        rng = random.Random(self.seed)
        width, height = self.size
        if self.header == 12:
            head = struct.pack("<IHHHH", 12, width, height, 1, self.bits)
        else:
            head = struct.pack(
                "<IiiHHIIiiII",
                40,
                width,
                -height if self.top_down else height,
                1,
                self.bits,
                self.compression,
                0,
                0,
                0,
                self.colours,
                0,
            )
            masks = b"".join(struct.pack("<I", m) for m in self.masks)
            head = struct.pack("<I", self.header) + head[4:]
            head += masks if self.header == 40 else masks.ljust(self.header - 40, b"\0")[: self.header - 40]
        if self.bits <= 8:
            n, size = self.colours or 1 << self.bits, 3 if self.header == 12 else 4
            if self.palette == "grey":
                steps = (0, 255) if n == 2 else range(n)
                head += b"".join(bytes([v & 255] * 3 + [0] * (size - 3)) for v in steps)
            else:
                head += rng.randbytes(size * n)
        head += b"\0" * self.gap
        stride = (width * self.bits + 31) // 32 * 4
        rows = self.runs if self.runs is not None else rng.randbytes(stride * height)
        offset = 14 + len(head) if self.offset is None else self.offset
        data = b"BM" + struct.pack("<IHHI", 14 + len(head) + len(rows), 0, 0, offset) + head + rows
        return data[: len(data) - self.cut]


def run_lengths(rng: random.Random, size: tuple[int, int], four: bool, wild: bool) -> bytes:
    """Runs, literal pixels and skips that fill a bitmap, or anything."""
    out = bytearray(b"\0" if wild and rng.random() < 0.1 else b"")
    width, height = size
    for y in range(height):
        x = 0
        while x < width:
            n = rng.randint(1, min(255, width - x + (5 if wild else 0)))
            kind = rng.random()
            if kind < 0.5 or n < 3:
                out += bytes([n, rng.randrange(256)])
            elif kind < 0.9:
                literal = rng.randbytes((n + 1) // 2 if four else n)
                out += bytes([0, n]) + literal + b"\0" * (len(literal) % 2)
            elif wild:
                out += bytes([0, 2, rng.randint(0, 9), rng.randint(0, 2)])
            else:
                out += bytes([0, 2, n, 0]) if x + n < width else bytes([n, 0])
            x += n
        if y < height - 1 or rng.random() < 0.5:
            out += b"\0\0"
    return bytes(out) + b"\0\1"


def bmps() -> Iterator[tuple[str, bytes]]:
    masks = {
        16: [(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F), (0xF00, 0xF0, 0xF)],
        24: [(0xFF0000, 0xFF00, 0xFF), (0xFF, 0xFF00, 0xFF0000)],
        32: [
            (0xFF0000, 0xFF00, 0xFF), (0xFF000000, 0xFF0000, 0xFF00), (0xFF000000, 0xFF00, 0xFF),
            (0xFF, 0xFF00, 0xFF0000), (0, 0, 0), (0x3FF00000, 0xFFC00, 0x3FF), (0xFF00, 0xFF0000, 0xFF000000),
        ],
    }  # fmt: skip
    number = 0
    for header, bits, top_down in itertools.product(
        (12, 40, 52, 56, 64, 108, 124, 16), (1, 2, 4, 8, 16, 24, 32), (False, True)
    ):
        if header == 12 and top_down:
            continue
        for size in ((13, 9), (1, 1), (33, 5)):
            number += 1
            one = Bmp(header, size, bits, top_down=top_down, seed=number)
            name = f"BMP of {bits} bits, header {header}, {size}{', top-down' * top_down}"
            yield name, one.encode()
            if header == 12:
                continue
            for mask in masks.get(bits, [(1, 2, 4)]):
                for alpha in (0, 0xFF, 0xFF0000, 0xFF000000):
                    yield (
                        f"{name}, masks {mask} {alpha:#x}",
                        replace(
                            one, compression=3, masks=(*mask, alpha)[: 3 if header == 40 else 4]
                        ).encode(),
                    )
    for bits in (1, 4, 8):
        for palette in ("random", "grey"):
            for colours in (0, 1, 2, 3, 16, 100, 256, 300, 70000):
                one = Bmp(bits=bits, palette=palette, colours=colours, seed=colours)
                yield f"BMP of {bits} bits and {colours} colours ({palette})", one.encode()
                yield (
                    f"BMP of {bits} bits and {colours} colours ({palette}), no offset",
                    replace(one, offset=0).encode(),
                )
                yield (
                    f"BMP of {bits} bits and {colours} colours ({palette}), offset 54",
                    replace(one, offset=54).encode(),
                )
    rng = random.Random(3)
    for number in range(60):
        four, wild = number % 2 == 0, number % 3 == 0
        size = rng.choice([(13, 9), (1, 1), (40, 3), (300, 2)])
        runs = run_lengths(rng, size, four, wild)
        one = Bmp(
            size=size,
            bits=4 if four else 8,
            compression=2 if four else 1,
            runs=runs,
            seed=number,
            top_down=number % 5 == 0,
        )
        yield f"BMP with runs {number}", one.encode()
        yield f"BMP with runs {number}, grey", replace(one, palette="grey").encode()
        yield f"BMP with runs {number}, cut", replace(one, cut=rng.randint(1, len(runs))).encode()
    for bits, compression in itertools.product((1, 4, 8, 24, 32), (1, 2, 4, 5, 6, 11)):
        yield (
            f"BMP of {bits} bits and compression {compression}",
            Bmp(bits=bits, compression=compression).encode(),
        )
    for gap in (2, 100):
        yield f"BMP with {gap} bytes ahead of its rows", Bmp(gap=gap).encode()
    for cut in (1, 2, 3, 4, 40, 400):
        yield f"BMP without {cut} bytes", Bmp(cut=cut, size=(13, 5)).encode()


@dataclass
class Gif:
    screen: tuple[int, int] = (13, 9)
    at: tuple[int, int] = (0, 0)
    size: tuple[int, int] = (13, 9)
    palette: int = 8  # entries, 0 for none
    local: int = 0
    grey: bool = False
    code_size: int = 3
    transparent: int | None = None
    interlaced: bool = False
    background: int = 0
    missing: int = 0  # pixels
    more: int = 0  # pixels
    surplus: bytes = b""  # in the blocks, behind the codes
    junk: bytes = b""  # ahead of the frame
    after: bytes = b";"
    version: bytes = b"GIF89a"
    indices: int = 8
    end: bool = True
    seed: int = 1

    def encode(self) -> bytes:
        rng = random.Random(self.seed)
        width, height = self.size

        def table(n: int) -> bytes:
            return bytes(i // 3 for i in range(3 * n)) if self.grey else rng.randbytes(3 * n)

        def flags(n: int) -> int:
            return 0x80 | (n.bit_length() - 2) if n else 0

        out = (
            self.version
            + struct.pack("<HHBBB", *self.screen, flags(self.palette), self.background, 0)
            + table(self.palette)
        )
        out += self.junk
        if self.transparent is not None:
            out += b"!\xf9\x04\x01\0\0" + bytes([self.transparent, 0])
        out += b"," + struct.pack(
            "<HHHHB", *self.at, width, height, flags(self.local) | (64 if self.interlaced else 0)
        )
        out += table(self.local)
        pixels = bytes(rng.randrange(self.indices) for _ in range(width * height - self.missing + self.more))
        data = lzw(pixels, self.code_size, tiff=False) if 2 <= self.code_size <= 8 else rng.randbytes(20)
        if not self.end:
            data = data[:-2]
        data += self.surplus
        out += bytes([self.code_size])
        for i in range(0, len(data), 100):
            piece = data[i : i + 100]
            out += bytes([len(piece)]) + piece
        return out + b"\0" + self.after


def gifs() -> Iterator[tuple[str, bytes]]:
    combinations = itertools.product(
        (b"GIF87a", b"GIF89a"),
        (False, True),
        (None, 0, 5, 200),
        [
            ((13, 9), (0, 0), (13, 9)), ((20, 20), (3, 5), (13, 9)), ((4, 4), (1, 1), (6, 5)),
            ((1, 1), (0, 0), (1, 1)), ((0, 0), (0, 0), (5, 5)), ((5, 5), (2, 2), (1, 3)),
            ((9, 9), (0, 0), (0, 4)),
        ],
    )  # fmt: skip
    for number, (version, interlaced, transparent, (screen, at, size)) in enumerate(combinations):
        one = Gif(
            screen,
            at,
            size,
            transparent=transparent,
            interlaced=interlaced,
            version=version,
            seed=number,
            background=3,
        )
        name = f"GIF {version!r} {screen} {at} {size} transparent {transparent}{', interlaced' * interlaced}"
        yield name, one.encode()
        yield f"{name}, local palette", replace(one, local=16).encode()
        yield f"{name}, no palette", replace(one, palette=0).encode()
        yield f"{name}, grey", replace(one, grey=True).encode()
        yield f"{name}, surplus", replace(one, surplus=b"more than that").encode()
    for code_size in range(1, 13):
        yield (
            f"GIF of code size {code_size}",
            Gif(code_size=code_size, palette=256, indices=min(4, 1 << code_size)).encode(),
        )
    for size in ((100, 90), (300, 300)):
        for code_size, indices in ((2, 4), (8, 256), (7, 90)):
            yield (
                f"GIF of {size} with {indices} colours",
                Gif(size, (0, 0), size, 256, code_size=code_size, indices=indices).encode(),
            )
    for more, missing, surplus, end in itertools.product(
        (0, 1, 50), (0, 1, 50), (b"", b"\0", b"abc" * 100), (True, False)
    ):
        yield (
            f"GIF with {more} more, {missing} less, {surplus!r:.9}, {end}",
            Gif(more=more, missing=missing, surplus=surplus, end=end).encode(),
        )
    for after in (b"", b";;;", b"\0\0\0", b"!\xfe\3abc\0;", b"garbage", b"," * 30):
        yield f"GIF with {after!r} behind", Gif(after=after).encode()
    for junk in (
        b"\0",
        b"\0\0\0",
        b"x",
        b"!\xfe\3abc\0",
        b"!\xfe\3abc\2de\0",
        b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0",
        b"!\xf9\4\1\0\0\3\0",
        b";",
    ):
        yield f"GIF with {junk!r} ahead", Gif(junk=junk, transparent=2, screen=(20, 20)).encode()
    one = Gif().encode()
    for cut in range(10, len(one)):
        yield f"GIF of {cut} bytes", one[:cut]


def kinds() -> Iterator[tuple[str, bytes]]:
    yield from tiffs()
    yield from bmps()
    yield from pngs()
    yield from gifs()
