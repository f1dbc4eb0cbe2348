"""The few facts of an ELF file that decide whether something can be preloaded into it (elf(5)).

Anybody may have made the file, and its headers may say anything: sizes of 2^60, no size at all, offsets past its end.
So the size of each table is checked before the table is read, and the table is read in one piece. Libraries for ELF
trust the headers and read entry by entry: a malicious file keeps them busy for hours.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

EM_NAMES = {
    3: "386",
    8: "MIPS",
    20: "PPC",
    21: "PPC64",
    22: "S390",
    40: "ARM",
    62: "X86_64",
    183: "AARCH64",
    243: "RISCV",
    258: "LOONGARCH",
}
PT_INTERP, SHT_SYMTAB, SHT_DYNAMIC, SHT_DYNSYM, SHN_UNDEF, DT_NEEDED = 3, 2, 6, 11, 0, 1
PATH_MAX, NAME_MAX = 4096, 256
MOST_BYTES = 32 << 20  # the largest table that we read: a browser's symbols take a tenth of that


class NotElf(Exception):
    """The file is no ELF file, or not a whole one."""


@dataclass(frozen=True)
class _Layout:
    """The fields that we need of each ELF structure, as format strings of struct; other fields are padding."""

    header: str  # e_machine, e_phoff, e_shoff, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
    segment: str  # p_type, p_offset, p_filesz
    section: str  # sh_name, sh_type, sh_offset, sh_size, sh_link
    dynamic: str  # d_tag, d_un
    symbol: str  # st_name, st_shndx


LAYOUTS = {
    1: _Layout("18xH8xII6xHHHHH", "II8xI12x", "II8xIII12x", "iI", "I10xH"),
    2: _Layout("18xH12xQQ6xHHHHH", "I4xQ16xQ16x", "II16xQQI20x", "qQ", "I2xH16x"),
}


@dataclass(frozen=True)
class _Section:
    name: int
    kind: int
    offset: int
    size: int
    link: int


class Elf:
    """An open ELF file. All members raise NotElf where the file is not whole, and OSError where it cannot be read."""

    def __init__(self, file: BinaryIO):
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        start = self._read(0, 64)
        if start[:4] != b"\x7fELF" or start[4] not in LAYOUTS or start[5] not in (1, 2):
            raise NotElf("it does not begin as one")
        self.bits, self.little_endian = 32 * start[4], start[5] == 1
        self._layout, self._order = LAYOUTS[start[4]], "<" if self.little_endian else ">"
        header = struct.unpack_from(self._order + self._layout.header, start)
        (
            self._machine,
            self._segments_at,
            self._sections_at,
            self._segment_size,
            self._segment_count,
            self._section_size,
            self._section_count,
            self._names,
        ) = header

    @property
    def machine(self) -> str:
        return EM_NAMES.get(self._machine, f"machine {self._machine}")

    def _read(self, offset: int, size: int) -> bytes:
        if size > MOST_BYTES:
            raise NotElf("a table in it is larger than any")
        if offset + size > self._size:
            raise NotElf("it ends too early")
        self._file.seek(offset)
        content = self._file.read(size) or b""
        if len(content) < size:
            raise NotElf("it has been cut")
        return content

    def _table(self, offset: int, count: int, entry_size: int, layout: str) -> Iterator[tuple[int, ...]]:
        form = struct.Struct(self._order + layout)
        if count and entry_size != form.size:
            raise NotElf("its tables have entries of another size")
        return form.iter_unpack(self._read(offset, count * form.size))

    @cached_property
    def _segments(self) -> list[tuple[int, ...]]:
        if not self._segment_count:
            raise NotElf("it is no program")
        return list(self._table(self._segments_at, self._segment_count, self._segment_size, self._layout.segment))

    @property
    def loader(self) -> str:
        """The dynamic loader that the program asks for; empty for a static program."""
        for kind, offset, size in self._segments:
            if kind == PT_INTERP:
                if not 2 <= size <= PATH_MAX:  # the kernel's own limits: load_elf_binary() in fs/binfmt_elf.c
                    raise NotElf("its loader has no name")
                return _text(self._read(offset, size))
        return ""

    @cached_property
    def _sections(self) -> list[_Section]:
        """The section headers; an empty list where they were stripped."""
        count = self._section_count if self._sections_at else 0
        return [
            _Section(*found)
            for found in self._table(self._sections_at, count, self._section_size, self._layout.section)
        ]

    @property
    def section_names(self) -> set[str]:
        if self._names >= len(self._sections):
            return set()
        names = self._content(self._sections[self._names])
        return {_text(names[section.name : section.name + NAME_MAX]) for section in self._sections}

    def _content(self, section: _Section) -> bytes:
        return self._read(section.offset, section.size)

    def _entries(self, kind: int, layout: str) -> tuple[Iterator[tuple[int, ...]], bytes]:
        """The entries of the first section of a kind, and the string table with their names.

        Later sections of that kind are left out, because a loader uses the first section alone.
        """
        form, section = struct.Struct(self._order + layout), self._first(kind)
        if section is None:
            return iter(()), b""
        content = self._content(section)
        return form.iter_unpack(content[: len(content) // form.size * form.size]), self._names_of(section)

    def _first(self, kind: int) -> _Section | None:
        return next((section for section in self._sections if section.kind == kind), None)

    def _names_of(self, section: _Section) -> bytes:
        if section.link >= len(self._sections):
            raise NotElf("its names are nowhere")
        return self._content(self._sections[section.link])

    @property
    def imports(self) -> set[str]:
        """The names of the symbols that the file takes from libraries."""
        symbols, names = self._entries(SHT_DYNSYM, self._layout.symbol)
        return {_text(names[name : name + NAME_MAX]) for name, place in symbols if place == SHN_UNDEF}

    @property
    def needed(self) -> list[str]:
        """The names of the libraries that the file itself asks for (DT_NEEDED)."""
        entries, names = self._entries(SHT_DYNAMIC, self._layout.dynamic)
        return [_text(names[value : value + PATH_MAX]) for tag, value in entries if tag == DT_NEEDED]

    @property
    def symbol_names(self) -> bytes:
        """The names of all symbols, separated by NUL bytes. A stripped file has only those that a loader needs."""
        tables = [self._first(kind) for kind in (SHT_DYNSYM, SHT_SYMTAB)]
        return b"".join(self._names_of(table) for table in tables if table and self._is_readable(table))

    def _is_readable(self, table: _Section) -> bool:
        """Whether the names of a symbol table are few enough to read: those of a browser can exceed MOST_BYTES."""
        return table.link < len(self._sections) and self._sections[table.link].size <= MOST_BYTES


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="surrogateescape")
