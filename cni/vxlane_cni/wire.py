# SPDX-License-Identifier: Apache-2.0
"""JSON without the start-up time of the json module.

`import json` imports re and enum, which doubles the time from exec to the first line of this
plugin, and every pod waits for that. The scanner and the encoder in C beneath json need neither.
They are internal to CPython: where they differ from CPython 3.10 to 3.14, json itself is used.
Imports no other module of vxlane.
"""

from __future__ import annotations

JsonObject = dict[str, object]

_INFINITY = float("inf")


def _refuse(text: str) -> object:
    """NaN and Infinity are no JSON."""
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    """A number that a double can hold; others could be read, but not written again."""
    number = float(text)
    if number in (_INFINITY, -_INFINITY):
        raise ValueError(f"{text} is too large")
    return number


def _unknown(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no JSON form")


class _Decoding:
    """The attributes that the scanner reads of a json.JSONDecoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = staticmethod(_finite)
    parse_int = int
    parse_constant = staticmethod(_refuse)


try:
    import _json

    _ascii = _json.encode_basestring_ascii
    _options = (False, False, False)  # sort keys, skip odd keys, allow NaN
    _encode = _json.make_encoder(None, _unknown, _ascii, None, ":", ",", *_options)
    _scan = _json.make_scanner(_Decoding())  # type: ignore[arg-type]  # typeshed names itself
except (AttributeError, ImportError, TypeError):
    import json

    _encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).iterencode  # type: ignore[assignment]
    _scan = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse).raw_decode  # type: ignore[assignment]


def loads(data: bytes) -> object:
    """The value in `data`. ValueError: there is none, or more than one, or it nests too deep."""
    text = data.decode().strip(" \t\r\n")
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("a value is missing") from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    except SystemError:
        # The scanner makes its error messages with json.decoder, if that has been imported.
        raise ValueError(
            "a delimiter is missing, or a string is cut or holds control characters"
        ) from None
    if end != len(text):
        raise ValueError("something follows the value")
    return value


def dumps(value: object) -> bytes:
    """Compact JSON in ASCII."""
    return "".join(_encode(value, 0)).encode()
