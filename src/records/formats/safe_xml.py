"""XML of unknown origin, parsed without following it anywhere: no entities, no external files, and
bounds on size and depth.

Exports of electrocardiographs often name a document type in a file of its own. It is allowed and
never opened.
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
    """Parse a file to its root element; names of elements and attributes come without their
    namespace.

    Raises
    ------
    RecordError
        If the file is too large, no well-formed XML, or declares or uses an entity.
    """
    content = read_whole(path, _MAX_BYTES, "the XML of one recording")
    handler = _Handler(path)
    try:
        handler.parser.Parse(content, True)
        return handler.builder.close()
    except RecordError:
        raise
    except (
        expat.ExpatError,
        LookupError,
        ValueError,
    ) as error:  # LookupError: an encoding of no such name
        raise RecordError(path, f"is not well-formed XML ({error})") from None


class _Handler:
    """Builds the tree and refuses what a hostile file may do."""

    def __init__(self, path: Path) -> None:
        self.path, self.depth, self.count = path, 0, 0
        self.builder = TreeBuilder()
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.builder.data
        for name in (
            "EntityDeclHandler",
            "UnparsedEntityDeclHandler",
            "ExternalEntityRefHandler",
            "SkippedEntityHandler",
        ):
            setattr(self.parser, name, self.refuse)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        self.count += 1
        if self.depth > _MAX_DEPTH or self.count > _MAX_ELEMENTS:
            raise RecordError(
                self.path, f"is nested over {_MAX_DEPTH} deep or has over {_MAX_ELEMENTS} elements"
            )
        self.builder.start(_local(name), {_local(key): value for key, value in attributes.items()})

    def end(self, name: str) -> None:
        self.depth -= 1
        self.builder.end(_local(name))

    def refuse(self, *_: object) -> None:
        raise RecordError(
            self.path, "declares or uses an XML entity, which recordings have no need of: refused"
        )


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


def text_of(element: Element | None, path: str = "") -> str:
    """Return the stripped text of an element or of what `path` finds below it, empty where there is
    none.
    """
    found = element.find(path) if element is not None and path else element
    return (found.text or "").strip() if found is not None else ""


def number_of(text: str) -> float | None:
    """Return a finite number, or None where the text is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
