"""Makes a plan's steps runnable: each becomes a function from value to value, with everything looked up beforehand.

The functions are total. What a technique does not fit comes out redacted, and so does a step whose parameters this
version does not know: nothing here answers with the clear value but CLEAR. Null stays null under every technique
but where the plan's `Redaction.nulls` says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from gharial.crypto.coarse import band, band_of_years, bucket, find_number, month, postcode, round_to, year
from gharial.crypto.dates import blank_date, find_date, shift_days
from gharial.crypto.encoding import find_utf8, to_base64url
from gharial.crypto.envelope import sealer
from gharial.crypto.fpe import Format, Fpe
from gharial.crypto.keyset import Keyset, Purpose, Random
from gharial.crypto.mask import HIDDEN, KEEP_DOMAIN, mask, truncate
from gharial.crypto.pseudonym import hex_masker, pseudonymiser, shift_of, substituter
from gharial.crypto.seal import get_siv, header
from gharial.crypto.subject import Subject, SubjectEncrypter, SubjectSealer
from gharial.crypto.token import KIND_BYTE, PREFIX, Binding, Recipient, TokenScope, find_binding
from gharial.crypto.vault import EntryMaker, Tokens, write_token
from gharial.model.finding import Kind, Transform
from gharial.model.plan import HEX, SAME_LENGTH, Op, Plan, Redaction, Step

_NULL = (Kind.NULL, "")
_DATE, _NUMBER, _BOOLEAN = "date", "number", "boolean"


@dataclass(frozen=True, slots=True)
class _Maker:
    """What steps are made runnable with; `redact` is what the step does to a value that it does not fit."""

    plan: Plan
    keyset: Keyset
    recipient: Recipient
    random: Random
    step: Step
    redact: Transform

    def knows(self, *names: str) -> bool:
        """True if the step has no parameters but these. The tag's type may stand in every step."""
        return all(name in names or name == "type" for name, _ in self.step.args)

    def number(self, name: str) -> int:
        """Return a parameter that is a whole number from 0 on; -1 for anything else. Missing is 0."""
        value = self.step.arg(name, 0)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else -1

    def text(self, name: str) -> str:
        """Return a parameter that is a text; "" for anything else."""
        value = self.step.arg(name, "")
        return value if isinstance(value, str) else ""

    @property
    def type(self) -> str:
        """The type of the tag's values, "" if the policy does not say."""
        return self.text("type")

    @property
    def binding(self) -> Binding | None:
        """What the step's results belong to for this recipient; None if there is no such thing."""
        return find_binding(self.recipient, self.step.tag, str(self.step.arg("scope", TokenScope.CLIENT)))


class PersonalTransform:
    """A step whose result depends on the person. As it is, a Transform for nobody: it redacts."""

    __slots__ = ("_of", "_redact")

    def __init__(self, redact: Transform, of: Callable[[str], Transform]) -> None:
        self._redact = redact
        self._of = of

    def __call__(self, kind: Kind, text: str) -> tuple[Kind, str]:
        """Redact."""
        return self._redact(kind, text)

    def of(self, person: str) -> Transform:
        """Return the step for a person, given by anything that stands for that person alone; "" is nobody."""
        return self._of(person) if person else self._redact


class VaultTransform:
    """A step whose results come from the vault. As it is, a Transform without a vault: it redacts."""

    __slots__ = ("_maker", "_redact")

    def __init__(self, redact: Transform, maker: EntryMaker) -> None:
        self._redact = redact
        self._maker = maker

    def __call__(self, kind: Kind, text: str) -> tuple[Kind, str]:
        """Redact."""
        return self._redact(kind, text)

    def through(self, tokens: Tokens) -> Transform:
        """Return the step for one exchange."""
        redact, maker, token_of = self._redact, self._maker, tokens.token_of

        def run(kind: Kind, text: str) -> tuple[Kind, str]:
            data = find_utf8(text)
            if kind is Kind.NULL or data is None:
                return redact(kind, text)
            return Kind.STRING, write_token(token_of(maker, KIND_BYTE[kind] + data))

        return run


class SubjectTransform:
    """A step under a key of the person's own. As it is, a Transform for nobody: it redacts."""

    __slots__ = ("_redact", "_write")

    def __init__(self, redact: Transform, write: Callable[[Subject, Kind, bytes], str]) -> None:
        """`write` makes the result of a value's type and UTF-8."""
        self._redact = redact
        self._write = write

    def __call__(self, kind: Kind, text: str) -> tuple[Kind, str]:
        """Redact."""
        return self._redact(kind, text)

    def through(self, tokens: Tokens) -> Transform:
        """Return the step for one exchange; whoever was erased comes out redacted."""
        redact, write, subject_of = self._redact, self._write, tokens.subject_of

        def of(person: str) -> Transform:
            def run(kind: Kind, text: str) -> tuple[Kind, str]:
                data = find_utf8(text)
                if kind is Kind.NULL or data is None:
                    return redact(kind, text)
                subject = subject_of(person)
                return redact(kind, text) if subject is None else (Kind.STRING, write(subject, kind, data))

            return run

        return PersonalTransform(redact, of)


def transforms_with_vault(transforms: Sequence[Transform], tokens: Tokens) -> Sequence[Transform]:
    """Return the transforms, bound to one exchange's tokens and keys of people; the same where none needs these."""
    if not any(isinstance(transform, VaultTransform | SubjectTransform) for transform in transforms):
        return transforms
    return tuple(t.through(tokens) if isinstance(t, VaultTransform | SubjectTransform) else t for t in transforms)


def transforms_for(plan: Plan, keyset: Keyset, recipient: Recipient, random: Random) -> tuple[Transform, ...]:
    """Return one function per step of the plan, in the same order, for this recipient.

    `random` gives the nonces of `encrypt`, one for each value. The functions may be kept as long as plan, keyset and
    recipient stay the same. Raises KeyUnknown if a key can't be had.
    """
    # A large plan has thousands of steps, and few ways to redact: one function each serves them all.
    redactions: dict[str, Transform] = {}
    made: list[Transform] = []
    for step in plan.steps:
        declared = str(step.arg("type", ""))
        if declared not in redactions:
            redactions[declared] = _redaction_of(plan.redaction, declared)
        made.append(_compile(plan, step, keyset, recipient, random, redactions[declared]))
    return tuple(made)


def transforms_by_scope(
    transforms: Sequence[Transform], people: Sequence[str]
) -> tuple[Sequence[Transform], ...] | None:
    """Return the transforms of each scope, where a step depends on the person; None where none does.

    `people[i]` stands for the person of scope i and for nobody else; "" where nobody is named.
    """
    if not any(isinstance(transform, PersonalTransform) for transform in transforms):
        return None
    made: dict[str, tuple[Transform, ...]] = {}
    for person in people:
        if person not in made:
            made[person] = tuple(t.of(person) if isinstance(t, PersonalTransform) else t for t in transforms)
    return tuple(made[person] for person in people)


def _compile(
    plan: Plan, step: Step, keyset: Keyset, recipient: Recipient, random: Random, redact: Transform
) -> Transform:
    make = _MAKERS.get(step.op)
    # Without one: REDACT; DROP, which readers carry out and never ask for; whatever a later plan format may add.
    return make(_Maker(plan, keyset, recipient, random, step, redact)) if make else redact


# --- redact -----------------------------------------------------------------------------------------------------


def _redaction_of(redaction: Redaction, declared: str) -> Transform:
    """Redact by the JSON type; a text that is of the declared type stays a text of that type.

    A date becomes the first of January of the year 1 in its own format, the text of a number the number that stands for
    numbers, of a boolean likewise.
    """
    redacted = {
        Kind.STRING: (Kind.STRING, redaction.string),
        Kind.NUMBER: (Kind.NUMBER, redaction.number),
        Kind.BOOLEAN: (Kind.BOOLEAN, redaction.boolean),
        Kind.NULL: (Kind.STRING, redaction.string) if redaction.nulls else _NULL,
    }
    blanks: dict[str, Callable[[str], str | None]] = {
        _DATE: blank_date,
        _NUMBER: lambda text: None if find_number(text) is None else redaction.number,
        _BOOLEAN: lambda text: redaction.boolean if text in ("true", "false") else None,
    }
    typed = blanks.get(declared)
    if redaction.same_length:
        repeated = redaction.string or HIDDEN

        def run_as_long(kind: Kind, text: str) -> tuple[Kind, str]:
            if kind is not Kind.STRING:
                return redacted[kind]
            nothing = typed(text) if typed else None
            long = repeated * (len(text) // len(repeated) + 1)
            return Kind.STRING, long[: len(text)] if nothing is None else nothing

        return run_as_long

    def run(kind: Kind, text: str) -> tuple[Kind, str]:  # noqa: ARG001 - the shape of a Transform
        return redacted[kind]

    def run_typed(kind: Kind, text: str) -> tuple[Kind, str]:
        nothing = typed(text) if typed and kind is Kind.STRING else None
        return redacted[kind] if nothing is None else (Kind.STRING, nothing)

    return run_typed if typed else run


# --- views and coarser forms ------------------------------------------------------------------------------------


def _clear(_: _Maker) -> Transform:
    return lambda kind, text: (kind, text)


def _null(_: _Maker) -> Transform:
    return lambda kind, text: _NULL  # noqa: ARG005 - the shape of a Transform


def _mask(maker: _Maker) -> Transform:
    if maker.step.arg("form", "") == HEX:
        return _hex_mask(maker)
    first, last, keep = maker.number("first"), maker.number("last"), maker.step.arg("keep", "")
    if not maker.knows("first", "last", "keep") or keep not in ("", KEEP_DOMAIN) or first < 0 or last < 0:
        return maker.redact
    redact, kept = maker.redact, str(keep)
    hides_all = (Kind.STRING, HIDDEN)

    def run(kind: Kind, text: str) -> tuple[Kind, str]:
        if kind is Kind.STRING or kind is Kind.NUMBER:
            return Kind.STRING, mask(text, first, last, kept)
        return redact(kind, text)

    def run_hiding_all(kind: Kind, text: str) -> tuple[Kind, str]:
        return hides_all if kind is Kind.STRING or kind is Kind.NUMBER else redact(kind, text)

    return run if first or last or kept else run_hiding_all


def _hex_mask(maker: _Maker) -> Transform:
    binding, length = maker.binding, maker.step.arg("length", "")
    if not maker.knows("form", "length") or binding is None or length not in ("", SAME_LENGTH):
        return maker.redact
    return _keyed(maker, hex_masker(maker.keyset, binding, same_length=bool(length)))


def _coarser(
    maker: _Maker, coarsen: Callable[[str], str | None], *, numbers: bool, stays_number: bool = False
) -> Transform:
    """Wrap a function that gives None where it does not fit. A JSON number is a quantity, never a date."""
    redact = maker.redact
    number_becomes = Kind.NUMBER if stays_number else Kind.STRING

    def run(kind: Kind, text: str) -> tuple[Kind, str]:
        if kind is Kind.STRING or (numbers and kind is Kind.NUMBER):
            result = coarsen(text)
            if result is not None:
                return (number_becomes if kind is Kind.NUMBER else Kind.STRING), result
        return redact(kind, text)

    return run


def _month(maker: _Maker) -> Transform:
    as_date = maker.type == _DATE
    return _coarser(maker, lambda text: month(text, as_date=as_date), numbers=False) if maker.knows() else maker.redact


def _year(maker: _Maker) -> Transform:
    as_date = maker.type == _DATE
    return _coarser(maker, lambda text: year(text, as_date=as_date), numbers=False) if maker.knows() else maker.redact


def _band(maker: _Maker) -> Transform:
    width, unit = maker.number("width"), maker.step.arg("unit", "")
    if not maker.knows("width", "unit") or width < 1 or unit not in ("", "y"):
        return maker.redact
    if unit:
        as_date = maker.type == _DATE
        return _coarser(maker, lambda text: band_of_years(text, width, as_date=as_date), numbers=False)
    as_number = maker.type == _NUMBER
    return _coarser(maker, lambda text: band(text, width, as_number=as_number), numbers=True, stays_number=as_number)


def _bucket(maker: _Maker) -> Transform:
    try:
        bounds = tuple(int(text) for text in maker.text("bounds").split(","))
    except ValueError:
        bounds = ()
    if not maker.knows("bounds") or not bounds or list(bounds) != sorted(set(bounds)):
        return maker.redact
    as_number = maker.type == _NUMBER
    return _coarser(maker, lambda text: bucket(text, bounds, as_number=as_number), numbers=True, stays_number=as_number)


def _round(maker: _Maker) -> Transform:
    try:
        to = Decimal(maker.step.arg("to", 0))
    except (InvalidOperation, ValueError):
        to = Decimal(0)
    if not maker.knows("to") or not to.is_finite() or to <= 0:
        return maker.redact
    return _coarser(maker, lambda text: round_to(text, to), numbers=True, stays_number=True)


def _cut(cut: Callable[[str, int], str | None]) -> Callable[[_Maker], Transform]:
    def make(maker: _Maker) -> Transform:
        chars = maker.number("chars")
        if not maker.knows("chars") or chars < 1:
            return maker.redact
        return _coarser(maker, lambda text: cut(text, chars), numbers=True)

    return make


def _date_shift(maker: _Maker) -> Transform:
    days, binding, redact = maker.number("days"), maker.binding, maker.redact
    if not maker.knows("days", "scope") or days < 1 or binding is None:
        return redact
    keyset = maker.keyset

    def of(person: str) -> Transform:
        by = shift_of(keyset, binding, person, days)

        def run(kind: Kind, text: str) -> tuple[Kind, str]:
            moved = _shift(text, by) if kind is Kind.STRING else None
            return redact(kind, text) if moved is None else (Kind.STRING, moved)

        return run

    return PersonalTransform(redact, of)


def _shift(text: str, by_days: int) -> str | None:
    found = find_date(text.strip())
    if found is None or not found.month:
        return None
    moved = shift_days(found.year, found.month, found.day, by_days)
    return None if moved is None else found.write(*moved)


# --- keyed ------------------------------------------------------------------------------------------------------


def _token(maker: _Maker) -> Transform:
    binding, redact = maker.binding, maker.redact
    source, per = maker.step.arg("from", ""), maker.step.arg("per", "")
    if not maker.knows("from", "per", "scope") or binding is None:
        return redact
    if (source, per) not in (("", ""), ("vault", ""), ("", "subject")):
        return redact
    if per:
        return SubjectTransform(redact, SubjectSealer(maker.keyset, binding).token)
    if source:
        return VaultTransform(redact, EntryMaker(maker.keyset, binding))
    key_id = maker.keyset.primary_id
    encrypt = get_siv(maker.keyset, Purpose.TOKEN, binding.tenant, binding.tag, key_id).encrypt
    aad, head = [binding.aad()], header(key_id)
    kind_byte, prefix, null = KIND_BYTE, PREFIX, Kind.NULL

    def run(kind: Kind, text: str) -> tuple[Kind, str]:
        data = find_utf8(text)
        # A lone surrogate has no UTF-8, so such a text has no token.
        if kind is null or data is None:
            return redact(kind, text)
        return Kind.STRING, prefix + to_base64url(head + encrypt(kind_byte[kind] + data, aad))

    return run


def _fpe(maker: _Maker) -> Transform:
    binding, redact = maker.binding, maker.redact
    form = Format(str(maker.step.arg("alphabet", "digits")), str(maker.step.arg("check", "")), maker.number("length"))
    if not maker.knows("alphabet", "check", "length", "scope") or binding is None or not form.sound:
        return redact
    fpe = Fpe(maker.keyset, binding, form)
    stays_number = maker.type == _NUMBER

    def run(kind: Kind, text: str) -> tuple[Kind, str]:
        if kind is Kind.NUMBER and stays_number:
            sealed = fpe.seal_number(text)
            return redact(kind, text) if sealed is None else (Kind.NUMBER, sealed)
        sealed = fpe.seal(text) if kind is Kind.STRING or (kind is Kind.NUMBER and text.isdigit()) else None
        return redact(kind, text) if sealed is None else (Kind.STRING, sealed)

    return run


def _encrypt(maker: _Maker) -> Transform:
    per = maker.step.arg("per", "")
    if not maker.knows("per") or per not in ("", "subject"):
        return maker.redact
    if per:
        encrypter = SubjectEncrypter(maker.keyset, maker.recipient.tenant, maker.step.tag, maker.random)
        return SubjectTransform(maker.redact, encrypter.envelope)
    return _keyed(maker, sealer(maker.keyset, maker.recipient.tenant, maker.step.tag, maker.random))


def _pseudonym(maker: _Maker) -> Transform:
    binding = maker.binding
    if not maker.knows("scope") or binding is None:
        return maker.redact
    return _keyed(maker, pseudonymiser(maker.keyset, binding))


def _substitute(maker: _Maker) -> Transform:
    binding, choices = maker.binding, maker.plan.lists.get(maker.text("list"), ())
    if not maker.knows("list", "scope") or binding is None or len(choices) < 2:
        return maker.redact
    return _keyed(maker, substituter(maker.keyset, binding, choices))


def _keyed(maker: _Maker, keyed: Callable[[Kind, str], str | None]) -> Transform:
    redact = maker.redact

    def run(kind: Kind, text: str) -> tuple[Kind, str]:
        result = keyed(kind, text) if kind is not Kind.NULL else None
        return redact(kind, text) if result is None else (Kind.STRING, result)

    return run


_MAKERS: dict[Op, Callable[[_Maker], Transform]] = {
    Op.CLEAR: _clear,
    Op.MASK: _mask,
    Op.MONTH: _month,
    Op.YEAR: _year,
    Op.BAND: _band,
    Op.BUCKET: _bucket,
    Op.ROUND: _round,
    Op.TRUNCATE: _cut(truncate),
    Op.POSTCODE: _cut(postcode),
    Op.DATE_SHIFT: _date_shift,
    Op.TOKEN: _token,
    Op.FPE: _fpe,
    Op.ENCRYPT: _encrypt,
    Op.PSEUDONYM: _pseudonym,
    Op.SUBSTITUTE: _substitute,
    Op.NULL: _null,
}
