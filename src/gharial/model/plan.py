"""Plan: what a policy becomes for one route and one class of caller. Pure data: a trie from place to step.

A plan holds no callable, no regular expression and no expression; it can be printed, compared, stored, sent to another
process and run by another executor. Its shape is versioned by `PLAN_FORMAT`.

How an executor reads it:

* `nodes[0]` is the root of the body. A value at a node is looked up further by `names` (folded names, `fold_name`) and
  `indexes`, else by `other_name` / `other_index`. The `..` of JSONPath is already resolved: nodes may form cycles.
* `NOWHERE` as a next node means that no path leads on: a cell around covers the whole subtree, else it is unlisted.
* `cell` (an index of `cells`, or `NONE`) says what is done with the value *and every leaf below it*. A node below
  whose cell differs (a narrower tag) already carries the combined result, so an executor only looks at the deepest.
* A cell holds one step per variant. Which variant holds is decided per person (`Variant`): 0 is the normal one.
* `xml_nodes` are a trie of their own for bodies in XML, with the same cells. Its `names` are those of elements: a
  folded local name, or `{uri}` and local name, which comes first; those of attributes have `@` in front. `other_name`
  is for other elements, `other_index` for other attributes, `indexes` is empty. Node 0 is what is around the root.
* `row_nodes` is the trie for each row of a body that is a sequence of documents, or a table: a row is met as the whole
  document (`$`) and as an element of a list of them (`$[*]`). Empty: the same as `nodes`. None: there is no such trie,
  and a body of rows can't be read.
* What no cell covers is unlisted, and `unlisted` says what happens to it.
"""

from __future__ import annotations

import enum

import msgspec

from gharial.model.place import Carrier

PLAN_FORMAT = 2
NONE = -1
NOWHERE = -1
HEX = "hex"
SAME_LENGTH = "same"


class Op(enum.StrEnum):
    """The closed set of operation codes, from the most open to the strictest. Adding one is a new PLAN_FORMAT."""

    CLEAR = "clear"
    MASK = "mask"
    MONTH = "month"
    YEAR = "year"
    BAND = "band"
    BUCKET = "bucket"
    ROUND = "round"
    TRUNCATE = "truncate"
    POSTCODE = "postcode"
    DATE_SHIFT = "date_shift"
    TOKEN = "token"  # noqa: S105 - a technique, not a secret
    FPE = "fpe"
    ENCRYPT = "encrypt"
    PSEUDONYM = "pseudonym"
    SUBSTITUTE = "substitute"
    REDACT = "redact"
    NULL = "null"
    DROP = "drop"


class Unlisted(enum.StrEnum):
    """What happens to a field that no tag names. `detect`: what a detector recognises is redacted, the rest passes."""

    DROP = "drop"
    REDACT = "redact"
    DETECT = "detect"
    PASS = "pass"  # noqa: S105 - a disposition, not a secret


class Mode(enum.StrEnum):
    """`shadow` decides, counts and records, and changes nothing on the wire."""

    ENFORCE = "enforce"
    SHADOW = "shadow"


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One operation with literal parameters.

    `args` are pairs in the order of their names: mask: `keep` ("domain"), `first`, `last` (counts of characters), or
    `form` ("hex": keyed text of the digits of base 16) with `length` ("same": as long as the value);
    band: `width` (int), `unit` ("" or "y"); bucket: `bounds` ("18,65"); round: `to` (int, or a decimal as text);
    truncate, postcode: `chars`; date_shift: `days`, `scope`; token: `from` ("vault"), `per` ("subject"), `scope`
    ("client", "team", "all"); encrypt: `per`; pseudonym: `scope`; fpe: `alphabet`, `check`, `length`, `scope`;
    substitute: `list` (of `Plan.lists`), `scope`; any: `type` (the tag's).
    `tag` is the leaf tag that the result is bound to; `rule` names what decided ("grant:support-view",
    "never:eu-stays", "default", "unlisted"). `rank` orders the steps of one plan by strictness, the stricter the
    higher: where several cells meet one value at run time (`Extra`), the step of the highest rank holds.
    """

    op: Op
    tag: str
    rule: str
    args: tuple[tuple[str, str | int], ...] = ()
    rank: int = 0

    def arg(self, name: str, default: str | int) -> str | int:
        """Return the parameter `name`, or `default`."""
        return next((value for key, value in self.args if key == name), default)


class Cell(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is done at a place: one step (an index of `Plan.steps`) per variant.

    `charges[v]` lists the budgets (indexes of `Plan.budgets`) of the grants that allowed clear in variant v: a person
    whose value is shown there is charged to each. `subject` is the id space if the value names a person, else "".
    `fact` names the fact about the person of its scope that the value tells ("residency"), else "". `report` says that
    pass one hands the value to the gate (facts, and what `Condition.cells` group by).
    """

    tag: str
    steps: tuple[int, ...]
    charges: tuple[tuple[int, ...], ...] = ()
    subject: str = ""
    fact: str = ""
    report: bool = False


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """One state of the trie. See the module's text."""

    names: dict[str, int] = {}
    indexes: dict[int, int] = {}
    other_name: int = NOWHERE
    other_index: int = NOWHERE
    cell: int = NONE


class Budget(msgspec.Struct, frozen=True):
    """How many people one grant may show to one principal within a rolling window."""

    grant: str
    people: int
    window_s: int


class Condition(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something about one person that decides, and is known only when a body is read.

    `fact` is "residency" or another fact of a tag, "consent" (asked of the resolver), or "group". It holds if a value
    of the fact is one of `values` (`negated`: none of them); where the fact is missing, `if_missing` says so. A
    "residency" that is no country's code counts as missing, else "Germany" would pass for "not in the EU". Where a
    scope tells a fact more than once, a condition with `if_missing` False must hold for all values, one with True for
    any. "group" holds if at least `people` people of the same answer have the same results in all of `cells`.
    """

    fact: str
    values: tuple[str, ...] = ()
    negated: bool = False
    if_missing: bool = False
    people: int = 0
    cells: tuple[int, ...] = ()


class Variant(msgspec.Struct, frozen=True, omit_defaults=True):
    """One way in which a person may be treated.

    `crossed` are the budgets that are crossed (indexes of `Plan.budgets`), `holds` the conditions that hold (indexes of
    `Plan.conditions`). A plan has every combination once; variant 0 is none crossed and none holding.
    """

    crossed: tuple[int, ...] = ()
    holds: tuple[int, ...] = ()


class Extra(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place that the trie can't express; only the reference executor finds it.

    `path` is a JSONPath: of the regular subset (names folded, as in the trie), or, if `general`, any of RFC 9535 (names
    verbatim). `where` are (member, values): the object that holds the found member must have one of these texts there.
    With `keys` the names of the found object's members are the values. With `detector` there is no path: every string
    leaf that this detector recognises is found, where no path finds it.
    """

    cell: int
    path: str = ""
    general: bool = False
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    keys: bool = False
    detector: str = ""


class Param(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tagged part of a request: its tags (leaf names), and the id space if it names a person.

    `carrier` is what holds it. Of a path parameter, `cell` says what is shown of it in a `Location`; of the others
    nothing is ever shown, and it is NONE. `name` is compared as it is; that of a header is in lower case.
    `reidentify`: a token of this caller becomes the real value before the upstream sees it, unless it is a token of a
    tag in `closed`. `only_tokens`: everything else that comes here is refused. `step` is what is done with the value on
    its way to the upstream (an index of `Plan.steps`), or NONE: it goes as it came.
    """

    name: str
    tags: tuple[str, ...]
    cell: int
    subject: str = ""
    reidentify: bool = False
    carrier: Carrier = Carrier.PATH
    closed: tuple[str, ...] = ()
    only_tokens: bool = False
    step: int = NONE

    @property
    def place(self) -> str:
        """The place as policies write it."""
        return f"{self.carrier}:{self.name}"

    @property
    def key(self) -> str:
        """The name by which recordings know it: a path parameter's own, else the place."""
        return self.name if self.carrier is Carrier.PATH else self.place


class Redaction(msgspec.Struct, frozen=True):
    """What redact puts in place of a value, by its type; number and boolean as JSON literals.

    With `nulls` a null becomes what a string does, under every step but CLEAR and NULL. With `same_length` what stands
    for a string is cut or repeated to the string's length.
    """

    string: str = "[redacted]"
    number: str = "0"
    boolean: str = "false"
    nulls: bool = False
    same_length: bool = False


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """See the module's text. `grants` are the names of the grants that apply, sorted; `digest` is set by the compiler.

    `lists` are what `substitute` chooses from, by name.

    `params` are those of the path in the order of the route's template, then the others. `guardrails` are the names of
    those that may act for this class of caller, sorted. `probes` are folded field names by which this caller may not
    filter or sort. `json_in_strings` is how many levels of JSON text inside strings are opened. `needs_reference` is
    empty, or the reason why only the reference executor can run this plan. `same` are classes of id spaces that mean
    the same people: a record that names one id of each is about one person (the gate's matter, not an executor's).

    `incoming` is how the bodies of this caller's requests are read, or None: they go to the upstream unread. In that
    plan what no cell covers passes. Steps whose rule is `request:opened` or `request:only_tokens` are TOKEN, and mean
    the reverse: a string that is a token of one of the tags in `tags` (separated by spaces) becomes the real value;
    with the second rule anything else is refused, because of the tags in `demanded`. All other steps are what they are
    in an answer: so the value goes to the upstream.
    """

    format: int
    policy: str
    version: int
    route: str
    mode: Mode
    grants: tuple[str, ...]
    unlisted: Unlisted
    nodes: tuple[Node, ...]
    cells: tuple[Cell, ...]
    steps: tuple[Step, ...]
    budgets: tuple[Budget, ...] = ()
    variants: tuple[Variant, ...] = (Variant(),)
    params: tuple[Param, ...] = ()
    redaction: Redaction = Redaction()
    guardrails: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    extras: tuple[Extra, ...] = ()
    probes: tuple[str, ...] = ()
    json_in_strings: int = 0
    lists: dict[str, tuple[str, ...]] = {}
    xml_nodes: tuple[Node, ...] = ()
    needs_reference: str = ""
    row_nodes: tuple[Node, ...] | None = ()
    same: tuple[tuple[str, ...], ...] = ()
    digest: str = ""
    incoming: Plan | None = None


def reads_json(plan: Plan) -> bool:
    """False if the plan has places in XML alone: then no JSON leaves, whatever `unlisted` says of fields."""
    return not plan.xml_nodes or plan.nodes != (Node(),) or any(extra.path for extra in plan.extras)


def reads_xml(plan: Plan) -> bool:
    """False if the plan has no place in XML: then no XML leaves, whatever `unlisted` says of fields."""
    return bool(plan.xml_nodes)


def dump_plan(plan: Plan) -> bytes:
    """Return the plan as JSON; the same plan gives the same bytes."""
    # Sorting wants text keys; `Node.indexes` has numbers, which become texts in JSON in any case.
    return msgspec.json.encode(msgspec.to_builtins(plan, str_keys=True), order="deterministic")


def load_plan(data: bytes) -> Plan:
    """Read what `dump_plan` wrote. Raises ValueError on anything else, or on another PLAN_FORMAT."""
    plan = msgspec.json.decode(data, type=Plan)
    if plan.format != PLAN_FORMAT:
        raise ValueError(f"plan format {plan.format} is not {PLAN_FORMAT}")
    return plan
