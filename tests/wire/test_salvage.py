"""`salvage`: what can be read of an object that cannot be read as a whole, however it is cut."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.wire.salvage import MAX_TEXT, Salvage, Salvaged, salvage

FACTS = frozenset({"exit_code", "error"})


def in_pieces(data: bytes, size: int) -> Salvaged | None:
    reader = Salvage(FACTS)
    for at in range(0, len(data), size):
        reader.feed(data[at : at + size])
    return reader.result()


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ('{"exit_code":3}', {"exit_code": 3}),
        (' \t\r\n{ "exit_code" : 3 , "a" : [ 1 , "b" , null ] } \n', {"exit_code": 3, "a": [1, "b", None]}),
        ('{"cpu":NaN,"exit_code":3,"x":-Infinity}', {"cpu": None, "exit_code": 3, "x": None}),
        ('{"exit_code":3,"x":1e999}', {"exit_code": 3, "x": None}),
        ('{"exit_code":3,"x":' + "9" * 5000 + "}", {"exit_code": 3, "x": None}),
        ('{"exit_code":3.0,"x":true,"y":false}', {"exit_code": 3.0, "x": True, "y": False}),
        ('{"exit_code":1,"exit_code":3}', {"exit_code": 3}),
        ('{"x":"\\ud800","exit_code":3}', {"x": "\ud800", "exit_code": 3}),
        ('{"x":"\\q\\u12","exit_code":3}', {"x": "\\q\\u12", "exit_code": 3}),
        ('{"x":"a\tb\nc","exit_code":3}', {"x": "a\tb\nc", "exit_code": 3}),
        ('{"x":"}\\"{[","exit_code":3}', {"x": '}"{[', "exit_code": 3}),
        ('{"x":{"exit_code":7},"exit_code":3}', {"x": {"exit_code": 7}, "exit_code": 3}),
        ('{"x":[{"y":[{"z":["}]{["]}]}],"exit_code":3}', {"x": [{"y": []}], "exit_code": 3}),
        ('{"x":[1,2,3,4,5,6],"exit_code":3}', {"x": [1, 2, 3, 4], "exit_code": 3}),
        ('{"error":{"code":"a","details":[{"b":{}}]}}', {"error": {"code": "a", "details": [{}]}}),
        ("{'a':1,\"exit_code\":3,}", {"exit_code": 3}),
        ('{"a","exit_code":3, 5 6 ,"b"}', {"exit_code": 3}),
        ("{}", {}),
    ],
)  # fmt: skip
def test_facts_are_read_whatever_stands_beside_them(text: str, body: dict[str, Any]) -> None:
    """Values that JSON lacks are none, and deep ones are cut. A cut in the bytes makes no difference."""
    data = text.encode()

    assert salvage(text, FACTS) == Salvaged(body, True)
    assert all(in_pieces(data, size) == Salvaged(body, True) for size in (1, 2, 3, 7))


@pytest.mark.parametrize("text", ["", " ", "null", "[1]", '"x"', "3", "]", "[DONE]", "words {", "x{}"])
def test_anything_else_is_no_object(text: str) -> None:
    """Text stays text."""
    assert salvage(text, FACTS) is None


@pytest.mark.parametrize(
    "text", ['{"a":1', '{"a":1,"b', '{"a":1,"b":"', '{"a":1}x', '{"a":1} {}', '{"a":1}}', '{"a":1,"b":{']
)
def test_an_object_that_ends_elsewhere_is_not_whole(text: str) -> None:
    """What was read of it is there."""
    found = salvage(text, FACTS)

    assert found is not None
    assert not found.is_whole
    assert found.body["a"] == 1


def test_deep_nesting_is_skipped() -> None:
    """However deep, and however the brackets are cut."""
    deep = b"[" * 20_000 + b'"]", {"x": "\\"" }' + b"]" * 20_000
    data = b'{"x":' + deep + b',"exit_code":3}'

    for size in (1, 1000, len(data)):
        found = in_pieces(data, size)
        assert found is not None
        assert (found.body["exit_code"], found.is_whole) == (3, True)


def test_a_long_text_is_cut_between_two_characters() -> None:
    """Between two escapes, too."""
    for unit in ("é", "\\u00e9", "\\\\", '\\"', "x"):
        for lead in range(7):
            found = salvage('{"x":"' + "b" * lead + unit * (MAX_TEXT + 1) + '","exit_code":3}', FACTS)
            text = json.loads(f'"{unit}"')
            assert found is not None
            assert found.body["exit_code"] == 3
            assert found.body["x"].lstrip("b").removesuffix("…").replace(text, "") == ""
            assert found.body["x"].endswith("…")


@pytest.mark.parametrize(
    "filler",
    [
        b'"k%d":"' + b"x" * 900 + b'",',
        b'"k%d":%d,',
        b'"k%d":{"a":[1,{"b":"c"}]},',
        b'"exit_code":%d,',
        b'"k%d":[' + b"[]," * 50 + b"0],",
        b'"error":{"k%d":"' + b"x" * 900 + b'","a":"' + b"y" * 900 + b'"},',
    ],
)
def test_memory_is_bounded_and_a_fact_is_found_behind_all_of_it(filler: bytes) -> None:
    """Wherever in the object it stands."""
    reader = Salvage(FACTS)
    reader.feed(b"{")
    tracemalloc.start()
    for number in range(3_000):
        reader.feed(filler.replace(b"%d", b"%d" % number))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reader.feed(b'"exit_code":3}')

    found = reader.result()
    assert found is not None
    assert (found.body["exit_code"], found.is_whole) == (3, True)
    assert peak < 300_000


@pytest.mark.parametrize("size", [997, 10**7])
@pytest.mark.parametrize(
    "filler",
    [b'"k%d":%d,', b'"k%d":"' + b"x" * 900 + b'",', b'"error":{"k%d":"' + b"x" * 900 + b'"},', b'"errors":[[],[%d]],'],
)
@pytest.mark.parametrize(
    ("member", "kept"),
    [
        (b'"error":{"code":"A","message":"m"}', {"code": "A", "message": "m"}),
        (b'"error":{"code":"A","details":[{"x":{}}]}', {"code": "A", "details": [{}]}),
        (b'"error":[{"message":"m"}]', [{"message": "m"}]),
        (b'"error":{}', {}),
        (b'"errors":[{"message":"m"}]', [{"message": "m"}]),
        (b'"errors":{"name":["is missing"]}', {"name": ["is missing"]}),
        (b'"errors":["m"]', ["m"]),
    ],
)
def test_an_error_is_found_behind_all_that_is_kept(member: bytes, kept: object, filler: bytes, size: int) -> None:
    """The kind of fault: members in front use up the memory, and the object that tells of a failure is lost."""
    before = b"".join(filler.replace(b"%d", b"%d" % number) for number in range(400))
    found = in_pieces(b"{" + before + member + b',"k":[{}],"exit_code":3}', size)

    assert found is not None
    assert found.body[member.partition(b'"')[2].partition(b'"')[0].decode()] == kept
    assert (found.body["exit_code"], found.is_whole) == (3, True)


def test_an_error_in_another_object_has_no_memory_of_its_own() -> None:
    """Nor has an error much."""
    before = b"".join(b'"k%d":%d,' % (number, number) for number in range(400))
    found = in_pieces(b"{" + before + b'"a":{"error":{"b":1}},"error":{' + before + b'"z":1}}', 10**7)

    assert found is not None
    assert "a" not in found.body
    assert 10 < len(found.body["error"]) < 100


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=5), values, max_size=4)


@given(objects, st.integers(-(2**40), 2**40), st.integers(1, 50), st.booleans(), st.randoms())
def test_an_exit_code_survives_any_object_and_any_cut(
    members: dict[str, Any], code: int, size: int, ascii_only: bool, random: Any
) -> None:
    """Its place, its neighbours and the cuts make no difference; nor does what is written in other objects."""
    pairs = [*members.items(), ("exit_code", code)]
    random.shuffle(pairs)
    written = dict(pairs)
    written["exit_code"] = code
    text = json.dumps(written, ensure_ascii=ascii_only)

    found = in_pieces(text.encode("utf-8", "replace"), size)

    assert found is not None
    assert found.is_whole
    assert found.body["exit_code"] == code
    assert found == salvage(text, FACTS)
    assert {key: value for key, value in found.body.items() if isinstance(value, bool | int)} == {
        key: value for key, value in written.items() if isinstance(value, bool | int)
    }


@given(
    st.lists(st.sampled_from(['{"', '"}', "{", "}", "[", "]", '"', "\\", ":", ",", "1", "é", "\ud800", " ", "\n", "x"]))
)
def test_any_text_is_read_alike_in_any_pieces(parts: list[str]) -> None:
    """Nothing raises."""
    text = "".join(parts)

    assert salvage(text, FACTS) == in_pieces(text.encode("utf-8", "replace"), 1)
