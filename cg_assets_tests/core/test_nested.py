"""Values of JSON and YAML within each other."""

from cg_assets.core.nested import fields_of, listed, rebuilt


def test_sections_and_lists_of_what_is_none():
    assert fields_of({"a": 1}) == {"a": 1}
    assert fields_of([1]) == fields_of(None) == {}
    assert listed([1]) == [1]
    assert listed({"a": 1}) == listed("ab") == []


def test_entries_are_changed_and_kinds_kept():
    assert rebuilt({"a": 1, "b": 2}, str) == {"a": "1", "b": "2"}
    assert rebuilt([1, 2], str) == ["1", "2"]
    assert rebuilt((1, 2), str) == ("1", "2")
    assert rebuilt("ab", str.upper) == "ab"
