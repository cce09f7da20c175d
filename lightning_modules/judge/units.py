"""Units of measured and counted things: which name the same unit, and the factors between them."""

import re
from dataclasses import dataclass
from fractions import Fraction

# One line for each unit: its dimension, its size in the dimension's first unit, its names. Plurals with s are known.
_TABLE = """
length 1/1000 mm millimeter millimetre
length 1/100 cm centimeter centimetre
length 1/10 dm decimeter decimetre
length 1 m meter metre
length 1000 km kilometer kilometre
length 127/5000 in inch inches
length 381/1250 ft foot feet
length 1143/1250 yd yard
length 201168/125 mi mile
mass 1/1000000 mg milligram
mass 1/1000 g gram gramme
mass 1 kg kilogram kilo
mass 1000 tonne
mass 45359237/100000000 lb lbs
mass 45359237/1600000000 oz ounce
time 1/1000 ms millisecond
time 1 s sec second
time 60 min minute
time 3600 h hr hour
time 86400 day
time 604800 week
months 1 month
months 12 year yr
volume 1/1000 ml mL milliliter millilitre
volume 1 l L liter litre
gallons 1 gallon gal
dollars 1 $ dollar usd USD
dollars 1/100 ¢ cent penny pennies
euros 1 € euro eur EUR
pounds 1 £ gbp GBP
yen 1 ¥ yen yuan rmb
rupees 1 ₹ rupee rs
degrees 1 ° degree deg
celsius 1 °C celsius
fahrenheit 1 °F fahrenheit
radians 1 rad radian
hertz 1 Hz hertz
hertz 1000 kHz
newton 1 N newton
joule 1 J joule
joule 1000 kJ
watt 1 W watt
watt 1000 kW
volt 1 V volt
ampere 1 A amp ampere
kelvin 1 K kelvin
mol 1 mol mole
bits 1 bit
bits 8 byte
count 12 dozen
"""
_UNITS = {
    name: (line.split()[0], Fraction(line.split()[1]))
    for line in _TABLE.strip().splitlines()
    for name in line.split()[2:]
}
_TEMPERATURE = re.compile(r"\bdegrees? (celsius|fahrenheit|c|f)\b", re.IGNORECASE)
CURRENCY = "$€£¥₹"
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cubed": 3}
# Words that say nothing about the kind of the things counted
_EMPTY_WORDS = frozenset(
    """left remaining in total altogether old of the a an each only long tall away wide high deep per all apart now then
    still exactly there different distinct possible way ways""".split()
)
_NO_UNIT = frozenset(
    """is are was were and or not to than but if because since so have has had does do be equals equal with from by for
    at on out""".split()
)


@dataclass(frozen=True)
class Unit:
    """What stands beside a number. A known unit has powers of dimensions and a factor, any other thing has words."""

    powers: frozenset[tuple[str, int]] = frozenset()
    factor: Fraction = Fraction(1)
    words: frozenset[str] = frozenset()


def find_unit(text: str) -> Unit | None:
    """Return the unit that a text after a number names; None if the text is no unit, but a sentence that goes on."""
    text = re.sub(r"\s+per\s+", "/", text.strip().rstrip("."))
    text = re.sub(r"\bmph\b", "mi/h", re.sub(r"\b(?:kph|kmh)\b", "km/h", text))
    text = re.sub(r"°\s*([CF])\b", r"°\1", _TEMPERATURE.sub(lambda found: "°" + found[1][0].upper(), text))
    words = [word for word in text.split() if word.casefold() not in _EMPTY_WORDS or word in _UNITS]
    if known := _product(" ".join(words)):
        return known
    plain_words = [word.strip(",()").casefold() for word in text.split()]
    if len(plain_words) > 6 or not all(re.fullmatch(r"[^\W\d_]+(?:[-'][^\W\d_]+)*", word) for word in plain_words):
        return None
    if _NO_UNIT & set(plain_words) or any(len(word) == 1 and word != "a" for word in plain_words):
        return None
    return Unit(words=frozenset(_singular(word) for word in plain_words if word not in _EMPTY_WORDS))


def _product(text: str) -> Unit | None:
    """Return a unit like `km/h`, `square feet` or `m^2`; None if a part is not known."""
    powers: dict[str, int] = {}
    factor = Fraction(1)
    for sign, part in zip((1, -1), text.split("/", 1), strict=False):
        power = sign
        words = part.replace("^", " ^").split()
        for word in list(words):
            if word.casefold() in _POWERS or re.fullmatch(r"\^\(?[23]\)?", word):
                power *= _POWERS.get(word.casefold()) or int(re.sub(r"\D", "", word))
                words.remove(word)
        name = re.fullmatch(r"([a-zA-Z]+)([23])", words[0]) if len(words) == 1 else None
        if name and name[1] in _UNITS:
            words, power = [name[1]], power * int(name[2])
        if len(words) != 1 or (unit := _known(words[0])) is None:
            return None
        dimension, size = unit
        powers[dimension] = powers.get(dimension, 0) + power
        factor *= size**power
    return Unit(frozenset(powers.items()), factor)


def _known(word: str) -> tuple[str, Fraction] | None:
    if word.casefold() in ("pound", "pounds"):
        return "pound", Fraction(1)  # of money or of mass
    for name in (word, word.casefold(), _singular(word.casefold())):
        if name in _UNITS:
            return _UNITS[name]
    return None


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


_LOOSE = ({"degrees", "celsius"}, {"degrees", "fahrenheit"}, {"pound", "pounds"})


def common_factors(one: Unit, other: Unit) -> tuple[Fraction, Fraction] | None:
    """Return the factors that bring numbers of two units to one unit; None for different kinds of things."""
    if not one.powers and not other.powers:
        return (Fraction(1), Fraction(1)) if one.words <= other.words or other.words <= one.words else None
    if not one.powers or not other.powers:
        return None
    if one.powers == other.powers:
        return one.factor, other.factor
    names = {name for unit in (one, other) for name, _ in unit.powers}
    if len(one.powers) == len(other.powers) == 1 and names in _LOOSE:
        return Fraction(1), Fraction(1)
    pound = Fraction(45359237, 100000000)
    if names == {"pound", "mass"}:
        return (pound, other.factor) if ("pound", 1) in one.powers else (one.factor, pound)
    return None
