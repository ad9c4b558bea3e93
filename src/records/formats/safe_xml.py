"""Safe parsing of XML from anywhere: no entities, no external files, limits on size and depth.

Exports of electrocardiographs often name an external document type definition (DTD). It is allowed
and never opened.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import math
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from src.records.formats.errors import read_whole
from src.records.record import RecordError
from src.utils import Float64Array

MAX_LEADS = 1000
"""Most leads of a recording."""

MAX_NUMBERS = 6_000_000
"""Most samples of all leads of a file: a quarter of an hour of twelve leads at 500 Hz."""

_MAX_BYTES = 2**26
_MAX_ELEMENTS = 200_000
_MAX_DEPTH = 100
# Characters that the parser is given at a time, and bytes of a tag, a comment or a declaration. It
# takes seconds for a tag of millions of attributes before it tells of any.
_PIECE = 2**18
_MAX_TAG = 2**19
# Attributes of an element, and characters of its name with its namespace, which is written out for
# each element.
_MAX_ATTRIBUTES = 1000
_MAX_NAME = 1000
# Characters of a text that is no list of samples.
_MAX_TEXT = 10_000

# Characters of numbers that are converted at a time.
_NUMBERS_PIECE = 2**20
_BETWEEN = re.compile(r"[\s,]")

# Byte order marks; that of UTF-32 comes first, as that of UTF-16 is its beginning.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
# The first character of a file without a mark.
_BEGINNINGS = (
    (b"<\0\0\0", "utf-32-le"),
    (b"\0\0\0<", "utf-32-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]{0,200}?\bencoding\s*=\s*["']([\w.:-]{1,40})["']""")
# Encodings that exporters declare and Python knows, all of which ASCII text is valid in. Those that
# extend a standard are read by the extension, as exporters use its characters.
_ASCII_LIKE = re.compile(
    r"gb\w*|big5\w*|cp\d+|shift_jis\w*|euc_\w+|johab|iso2022_\w+|iso8859_\d+"
    r"|koi8_\w|mac_\w+|hz|utf_8|ascii|latin_1|tis_620|kz1048|ptcp154"
)
_EXTENSIONS = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949"}
# What stands before a root element: the declaration, comments and a document type.
_BEFORE_ROOT = re.compile(r"<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>\[]*(?:\[.*?\]\s*)?>|\s+", re.DOTALL)
_ROOT = re.compile(r"<(?:[\w.-]+:)?([A-Za-z_][\w.-]*)[\s/>]")


def parse_xml(path: Path) -> Element:
    """Parse a file and return its root element.

    Names of elements and attributes are without their namespace.

    Raises
    ------
    RecordError
        If the file is too large, not well-formed XML, or declares or uses an entity.
    """
    content = read_whole(path, _MAX_BYTES, "the XML of one recording")
    handler = _Handler(path)
    try:
        handler.feed(decode_xml(content))
        return handler.builder.close()
    except RecordError:
        raise
    # LookupError: an encoding of an unknown name.
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise RecordError(path, f"is not well-formed XML ({error})") from None


def decode_xml(content: bytes) -> str:
    """Decode XML by its byte order mark, its first character or its declaration, else as UTF-8.

    Characters that are wrong in the encoding become question marks. They are in names and remarks,
    which are not worth a recording.

    Raises
    ------
    LookupError
        If the declared encoding is unknown.
    """
    for beginning, encoding in (*_MARKS, *_BEGINNINGS):
        if content.startswith(beginning):
            return content.decode(encoding, "replace")
    declared = _DECLARED.match(content[:400])
    name = codecs.lookup(declared[1].decode("ascii")).name.replace("-", "_") if declared else ""
    # The declaration was read as ASCII, so that one of UTF-16 is wrong.
    if name.startswith(("utf_16", "utf_32")) or not name:
        name = "utf_8"
    if not _ASCII_LIKE.fullmatch(name):
        raise LookupError(f"its encoding {name} is not one of XML")
    return content.decode(_EXTENSIONS.get(name, name), "replace")


def root_name(head: bytes) -> str:
    """Return the name of the root element of a file without its prefix, empty if it is no XML.

    Parameters
    ----------
    head
        The first bytes of the file; a root element beyond them is not found.
    """
    # Most files are no XML, and need no decoding.
    if b"<" not in head[:16]:
        return ""
    try:
        text = decode_xml(head).lstrip("\ufeff")
    except LookupError:
        text = head.decode("latin-1")
    at = 0
    while skipped := _BEFORE_ROOT.match(text, at):
        at = skipped.end()
    root = _ROOT.match(text, at)
    return root[1] if root else ""


class _Handler:
    """Handler of a parser's events, which builds the tree and refuses entities and excess."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.depth = 0
        self.n_elements = 0
        self.builder = TreeBuilder()
        # expat puts the separator between a namespace and a name.
        self.parser = expat.ParserCreate("utf-8", " ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.builder.data
        self.parser.StartNamespaceDeclHandler = self.check_namespace
        # Entities can expand to gigabytes, or to the content of any file. An attribute of a
        # declared default is added to each element.
        for name in (
            "AttlistDeclHandler",
            "EntityDeclHandler",
            "UnparsedEntityDeclHandler",
            "ExternalEntityRefHandler",
            "SkippedEntityHandler",
        ):
            setattr(self.parser, name, self.refuse)

    def feed(self, text: str) -> None:
        """Parse a text, whatever encoding it declares."""
        n_given = 0
        for at in range(0, len(text), _PIECE):
            piece = text[at : at + _PIECE].encode("utf-8", "replace")
            self.parser.Parse(piece, False)
            n_given += len(piece)
            # Samples are told as they come, and other things when they are complete.
            if n_given - self.parser.CurrentByteIndex > _MAX_TAG + len(piece):
                raise RecordError(
                    self.path, f"has a tag or comment of over {_MAX_TAG} bytes: expected short ones"
                )
        self.parser.Parse(b"", True)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        self.n_elements += 1
        if self.depth > _MAX_DEPTH or self.n_elements > _MAX_ELEMENTS:
            raise RecordError(
                self.path, f"is nested over {_MAX_DEPTH} deep or has over {_MAX_ELEMENTS} elements"
            )
        if len(attributes) > _MAX_ATTRIBUTES or len(name) > _MAX_NAME:
            raise RecordError(
                self.path,
                f"has an element of {len(attributes)} attributes and a name of {len(name)} "
                f"characters: expected {_MAX_ATTRIBUTES} and {_MAX_NAME} at most",
            )
        local_attributes = {_local_name(key): value for key, value in attributes.items()}
        self.builder.start(_local_name(name), local_attributes)

    def end(self, name: str) -> None:
        self.depth -= 1
        self.builder.end(_local_name(name))

    def check_namespace(self, prefix: str | None, uri: str | None) -> None:
        if len(uri or "") > _MAX_NAME:
            raise RecordError(
                self.path, f"has a namespace of {len(uri or '')} characters: expected an address"
            )

    def refuse(self, *_: object) -> None:
        raise RecordError(
            self.path,
            "declares or uses an XML entity, or declares attributes: refused, as recordings need "
            "none",
        )


def _local_name(name: str) -> str:
    return name.rpartition(" ")[2]


def text_of(element: Element | None, path: str = "") -> str:
    """Return the text of an element without spaces around it, empty if there is no such element.

    A text that is absurdly long is cut, so that neither a pattern nor a name has any length.

    Parameters
    ----------
    element
        An element, or None.
    path
        Path of the element below it, or empty for itself.
    """
    if element is not None and path:
        element = element.find(path)
    if element is None:
        return ""
    return (element.text or "")[:_MAX_TEXT].strip()


def samples_of(element: Element, path: str) -> str:
    """Return the text of an element in whole, such as the samples of a lead; empty if none."""
    found = element.find(path)
    return (found.text if found is not None else "") or ""


def number_of(text: str) -> float | None:
    """Return a text as a finite number, or None if it is not one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@dataclass
class NumberBudget:
    """The numbers that may still be read of a file."""

    n_left: int


def numbers_of(path: Path, what: str, text: str, budget: NumberBudget) -> Float64Array:
    """Return the numbers in a text, shape (n,); white space or commas separate them.

    They are converted a piece at a time, as their texts take many times the memory of numbers.

    Parameters
    ----------
    path, what
        The file and the part of it, for error messages.
    text
        The numbers.
    budget
        Lessened by their number.

    Raises
    ------
    RecordError
        If there are more than the budget, or something else is among them.
    """
    parts = [np.empty(0)]
    at = 0
    while at < len(text):
        gap = _BETWEEN.search(text, at + _NUMBERS_PIECE)
        end = gap.start() if gap else len(text)
        texts = text[at:end].replace(",", " ").split()
        at = end
        budget.n_left -= len(texts)
        if budget.n_left < 0:
            raise RecordError(path, f"holds over {MAX_NUMBERS} digits: expected one recording")
        try:
            parts.append(np.array(texts, np.float64))
        except ValueError as error:
            problem = f"{what} has digits that are not numbers ({error})"
            raise RecordError(path, problem) from None
    return np.concatenate(parts)


def bytes_of(path: Path, what: str, text: str) -> bytes:
    """Return the bytes that a text in base64 stands for.

    Raises
    ------
    RecordError
        If it is no base64.
    """
    try:
        coded = text.encode("ascii").translate(None, b" \t\r\n")
        return base64.b64decode(coded, validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise RecordError(path, f"{what} is not valid base64 ({error})") from None
