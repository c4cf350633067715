"""Bodies of requests as they were meant: inflated, and never beyond a bound.  No I/O."""

from __future__ import annotations

import zlib

_GZIP = 31
# The window of zlib that stands for the gzip format, with its header.


class BodyTooLargeError(ValueError):
    """The body is longer than is taken."""


def inflate(body: bytes, encoding: str, most: int) -> bytes:
    """A body by its ``content-encoding``.

    Raises:
        BodyTooLargeError: it holds more than ``most`` bytes.
        LookupError: the encoding is not known.
        ValueError: the body is not in this encoding.
    """
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise LookupError(encoding)
    inflater = zlib.decompressobj(_GZIP)
    try:
        whole = inflater.decompress(body, most)
    except zlib.error as error:
        raise ValueError(f"the body is no gzip: {error}") from None
    if inflater.unconsumed_tail:
        raise BodyTooLargeError
    if not inflater.eof:
        raise ValueError("the body is no gzip: it ends too early")
    return whole
