"""What `gharial init` writes: files that work at once, with names of a sample and none of its values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.adapters.scaffold import config_text, policy_text, sample_fields
from gharial.model.plan import Mode
from gharial.policy.document import parse_policy
from gharial.settings import parse_settings

SAMPLE = {
    "id": 7,
    "rows": [{"email": "ann@ex.org", "x": None}, {"email": True}],
    "odd name'": 1,
    "jo@x.org": {"a": 1},
    "": 2,
}


def test_every_field_is_listed_once_with_its_types():
    """Items of arrays are one place, and types of all occurrences are told."""
    found = {str(f.path): sorted(f.types) for f in sample_fields(SAMPLE)}
    assert found == {
        "$.id": ["number"],
        "$.rows[*].email": ["boolean", "string"],
        "$.rows[*].x": ["null"],
        "$[*]": ["number"],
        "$[*].a": ["number"],
    }


def test_no_value_and_no_name_that_looks_like_data_is_written():
    """The policy holds names only; `jo@x.org` as a key may be a person, so it becomes a star."""
    text = policy_text("first", sample_fields(SAMPLE))
    assert "ann@ex.org" not in text
    assert "jo@x.org" not in text


json_documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_documents)
def test_the_written_policy_is_one_that_loads(document):
    """Whatever the sample, the policy file has no mistake and is in shadow mode."""
    document = json.loads(json.dumps(document))
    policy = parse_policy(policy_text("first", sample_fields(document)), "p.yaml")
    assert policy.mode is Mode.SHADOW


def test_the_written_configuration_is_one_that_loads():
    """gharial.yaml as written has no mistake, listens on loopback, and leads to the upstream."""
    settings = parse_settings(config_text("https://api.example:8443/", "first", 8080), "g.yaml")
    assert settings.upstreams["api"].url == "https://api.example:8443"
    assert settings.listen.address == "127.0.0.1"


def test_a_sample_beyond_the_bounds_is_refused():
    """A sample of ten thousand fields, or one that nests without end, is an error and not a policy."""
    with pytest.raises(ValueError, match="more than"):
        sample_fields({f"f{n}": 1 for n in range(10_000)})
    deep: object = 1
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ValueError, match="deeper"):
        sample_fields(deep)
