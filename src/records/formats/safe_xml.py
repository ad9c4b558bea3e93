"""Safe parsing of XML from anywhere: no entities, no external files, limits on size and depth.

Exports of electrocardiographs often name an external document type definition (DTD). It is allowed
and never opened.
"""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from src.records.formats.errors import read_whole
from src.records.record import RecordError

_MAX_BYTES = 2**26
_MAX_ELEMENTS = 200_000
_MAX_DEPTH = 100


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
        handler.parser.Parse(content, True)
        return handler.builder.close()
    except RecordError:
        raise
    # LookupError: an encoding of an unknown name.
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise RecordError(path, f"is not well-formed XML ({error})") from None


class _Handler:
    """Handler of a parser's events, which builds the tree and refuses entities and excess."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.depth = 0
        self.n_elements = 0
        self.builder = TreeBuilder()
        # expat puts the separator between a namespace and a name.
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.builder.data
        # Entities can expand to gigabytes, or to the content of any file.
        for name in (
            "EntityDeclHandler",
            "UnparsedEntityDeclHandler",
            "ExternalEntityRefHandler",
            "SkippedEntityHandler",
        ):
            setattr(self.parser, name, self.refuse)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        self.n_elements += 1
        if self.depth > _MAX_DEPTH or self.n_elements > _MAX_ELEMENTS:
            raise RecordError(
                self.path, f"is nested over {_MAX_DEPTH} deep or has over {_MAX_ELEMENTS} elements"
            )
        local_attributes = {_local_name(key): value for key, value in attributes.items()}
        self.builder.start(_local_name(name), local_attributes)

    def end(self, name: str) -> None:
        self.depth -= 1
        self.builder.end(_local_name(name))

    def refuse(self, *_: object) -> None:
        raise RecordError(
            self.path, "declares or uses an XML entity: refused, as recordings need none"
        )


def _local_name(name: str) -> str:
    return name.rpartition(" ")[2]


def text_of(element: Element | None, path: str = "") -> str:
    """Return the text of an element without spaces around it, empty if there is no such element.

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
    return (element.text or "").strip()


def number_of(text: str) -> float | None:
    """Return a text as a finite number, or None if it is not one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
