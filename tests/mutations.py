"""Seeded mutations of files, for the tests that fuzz: of any bytes, of JSON, of what is in a weight file."""

import copy
import io
import json
import random
import zipfile
from typing import Any

INTERESTING = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0",
    b"\xff\xff",
    b"\xff\x7f",
    b"\1\0\0\0",
)


def mutate(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """One to eight edits: bits, lengths, cuts, repeats, and pieces of another file."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        place = chance.randrange(len(made) + 1)
        place = min(place, chance.randrange(300)) if chance.random() < 0.6 else place  # headers hold what decides
        length = chance.randrange(1, 40)
        kind = chance.randrange(7)
        if kind == 0 and made:
            made[place % len(made)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            value = chance.choice(INTERESTING)
            made[place : place + len(value)] = value
        elif kind == 2:
            del made[place : place + length]
        elif kind == 3:
            made[place:place] = made[place : place + length] * chance.choice((1, 2, 50, 2000))
        elif kind == 4:
            start = chance.randrange(len(other))
            made[place:place] = other[start : start + length * 4]
        elif kind == 5:
            made[place:place] = chance.randbytes(length)
        elif chance.random() < 0.3:
            del made[place:]
    return bytes(made)


ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 3, 10**6, 10**9, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "../x",
    "/etc/passwd", "a" * 10_000, "\ud800", [], [[]], {}, {"a": 1}, [None], [10**9], [-1, 2**63],
)  # fmt: skip
"""What a value of JSON may be replaced by."""


def mutate_json(content: bytes, chance: random.Random) -> bytes:
    """One to three values replaced, keys dropped, doubled or exchanged, or nested without end."""
    values = json.loads(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = list(_places(values))
        if not places:
            break
        holder, key = chance.choice(places)
        kind = chance.randrange(8)
        if kind <= 4:
            holder[key] = copy.deepcopy(chance.choice(ODD))
        elif kind == 5:
            del holder[key]
        elif kind == 6:
            other, name = chance.choice(places)
            if name in (other if isinstance(other, dict) else range(len(other))):
                holder[key] = json.loads(json.dumps(other[name]))
        elif isinstance(holder, dict):
            holder[f"{key}{chance.choice(('', ' ', '.weight', '../'))}x"] = holder[key]
    text = json.dumps(values)
    return (text.replace("null", "[" * 5000 + "]" * 5000, 1) if chance.random() < 0.02 else text).encode()


def mutate_safetensors(content: bytes, chance: random.Random) -> bytes:
    """The header as JSON, its length put right."""
    length = int.from_bytes(content[:8], "little")
    header = mutate_json(content[8 : 8 + length], chance)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def mutate_torch_zip(content: bytes, chance: random.Random) -> bytes:
    """The pickle, or a number behind an opcode of it, in an archive that is whole."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                data = mutate(data, data, chance)
            elif chance.random() < 0.05:
                name = chance.choice((name + "x", f"archive/../{name}", f"{name[:-1]}99"))
            new.writestr(name, data)
    return made.getvalue()


TEMPLATES = (
    "{{ 'a' * 10**10 }}",
    "{{ [0] * 10**10 }}",
    "{{ 10**10**10 }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '{:>10000000000}'.format(1) }}",
    "{{ 'a' | center(10**10) }}",
    "{{ lipsum(n=10**7) }}",
    "{{ 'a'.replace('', 'a' * 9999999).replace('', 'a' * 99999) }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for a in range(10**9) %}x{% endfor %}",
    "{{ messages.__class__.__mro__ }}",
    "{{ messages.append(1) }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ raise_exception('no') }}",
    "{{ nothing.of.it }}",
    "{% if %}",
    "{% include 'x' %}",
    "{% extends '/etc/passwd' %}",
    "{{ messages[9].content }}",
    "{{ 1 / 0 }}",
)


def mutate_template(content: bytes, chance: random.Random) -> bytes:
    """A hostile piece somewhere in it."""
    text = content.decode()
    places = [0, len(text), *(at for at in range(len(text)) if text.startswith(("{%", "{{"), at))]
    at = chance.choice(places)
    return (text[:at] + chance.choice(TEMPLATES) + text[at:]).encode()


def _places(values: Any):
    """(holder, key) of every value inside."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield values, key
        yield from _places(value)
