"""Large JSON files an element at a time: wherever the window ends, and the same bytes found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pixelbert_fast.data import json_stream
from pixelbert_fast.data.json_stream import JsonArray, bytes_at, read_element, value_of
from pixelbert_fast.errors import UserError

VALUES = [{"a": i, "t": 'é漢\U0001f600\u2028"]},' * i, "n": [{}, []]} for i in range(20)]
VALUES += [1, 2.5, [3], "x", None, True, 12345678901234567890]


@pytest.mark.parametrize("chunk", [4, 7, 64, 1 << 20])
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("indent", [None, 1])
def test_every_element_and_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, ascii_only: bool, indent: int | None
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    options = {"ensure_ascii": ascii_only, "indent": indent}
    top, member = tmp_path / "top.json", tmp_path / "member.json"
    top.write_bytes(b"\xef\xbb\xbf" + json.dumps(VALUES, **options).encode())
    whole = {"dataset": "x", "before": [[1]], "deep": {"images": [0]}, "images": VALUES, "after": 7}
    member.write_text(json.dumps(whole, **options))
    for array in (JsonArray(top), JsonArray(member, "images")):
        elements = list(array)
        assert [element.value for element in elements] == VALUES
        with open(array.path, "rb") as file:
            assert [read_element(file, one.start, one.length) for one in elements] == VALUES
        assert [value_of(bytes_at(array.path, one.place)) for one in elements] == VALUES
    assert array.beside == {"dataset": "x", "after": 7}


def test_empty_arrays(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for text, key in (("[]", None), (" [ ] \n", None), ('{"a": []}', "a"), ('{"b": {}, "a" : [ ] }', "a")):
        file.write_text(text)
        assert list(JsonArray(file, key)) == []


@pytest.mark.parametrize(
    ("content", "key", "said"),
    [
        (b"", None, "is empty"),
        (b" \n\xef", None, "not the annotation file expected: it holds no list"),
        (b"{}", None, "it holds no list"),
        (b"[1]", "a", "it has no list 'a'"),
        (b"{}", "a", "it has no list 'a'"),
        (b'{"a": 3}', "a", "it has no list 'a'"),
        (b'{"a": [], "a": []}', "a", "it has no list 'a'"),
        (b'{"a": [],}', "a", "not valid JSON at byte 9"),
        (b'{"a" []}', "a", "not valid JSON at byte 5"),
        (b"{a: []}", "a", "not valid JSON at byte 1"),
        (b"[1, 2", None, "not valid JSON at byte 5"),
        (b"[1 2]", None, "not valid JSON at byte 3"),
        (b"[1, 2,]", None, "not valid JSON at byte 6"),
        (b"[1] x", None, "not valid JSON at byte 4"),
        (b'["\xff"]', None, "not valid JSON at byte 1"),
        (b'["a\nb"]', None, "not valid JSON at byte 1"),
        (b"[" * 100_000, None, "not valid JSON at byte 1"),
        (b"[" + b"1" * 5000 + b"]", None, "not valid JSON at byte 1"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    tmp_path: Path, content: bytes, key: str | None, said: str
) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=said):
        list(JsonArray(file, key))


def test_an_element_too_large_for_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "MAX_ELEMENT", 1000)
    monkeypatch.setattr(json_stream, "CHUNK", 100)
    file = tmp_path / "a.json"
    file.write_text(json.dumps(["x" * 900]))
    assert len(list(JsonArray(file))) == 1
    for content in (json.dumps(["x" * 1100]), '["' + "x" * 100_000):
        file.write_text(content)
        with pytest.raises(UserError, match="not valid JSON at byte 1"):
            list(JsonArray(file))
