"""The table of units of measure: definition in other units, symbols with prefixes, and words.

Factors are exact by definition: the SI brochure (9th edition), the yard and pound of 1959, US gallons. A month has no fixed
number of days, and a currency no fixed value in another one: they are separate quantities.
"""

from __future__ import annotations

PREFIXES = {"p": "1e-12", "n": "1e-9", "u": "1e-6", "m": "1e-3", "c": "1e-2", "d": "1e-1"}
PREFIXES |= {"h": "1e2", "k": "1e3", "K": "1e3", "M": "1e6", "G": "1e9", "T": "1e12"}
PREFIX_WORDS = {"": "", "p": "pico", "n": "nano", "u": "micro", "m": "milli", "c": "centi", "d": "deci"}
PREFIX_WORDS |= {"h": "hecto", "k": "kilo", "K": "kilo", "M": "mega", "G": "giga", "T": "tera"}

ROWS = """
m     | length         | M n u m c d k | m               | metre meter
g     | mass           | M n u m k     | g               | gram gramme gm
s     | time           | n u m         | s               | second sec
A     | current        | n u m k       | A               | ampere amp
K     | temperature    | M m           | K               | kelvin
mol   | amount         | u m k         | mol             | mole
cd    | luminosity     |               | cd              | candela
rad   | angle          | m             | rad             | radian
bit   | data           | k M G T       |                 | bit
level | level          |               | dB              | decibel
usd   | dollar         |               | USD             | dollar
euro  | euro           |               | EUR             | euro
gbp   | sterling       |               | GBP             | pound_sterling sterling
yen   | yen            |               | JPY ¥           | yen
yuan  | yuan           |               | CNY RMB         | yuan renminbi
rupee | rupee          |               | INR             | rupee
won   | won            |               | KRW             | won
month | month          |               |                 | month
am    | morning        |               | am              |
pm    | evening        |               | pm              |
cent  | 1/100 usd      |               |                 | cent
pence | 1/100 gbp      |               |                 | pence penny
year  | 12 month       |               | yr              | year
decade | 120 month     |               |                 | decade
century | 1200 month   |               |                 | century
min   | 60 s           |               | min             | minute
h     | 3600 s         |               | h hr            | hour
day   | 86400 s        |               | d               | day
week  | 7 day          |               | wk              | week
deg   | 1/180 rad      |               | deg °           | degree
turn  | 2 rad          |               | rev             | revolution turn
rpm   | 1 turn min^-1  |               | rpm             |
C     | 1 K            |               | °C              | celsius degree_celsius degree_centigrade degree_C
F     | 5/9 K          |               | °F              | fahrenheit degree_fahrenheit degree_F
L     | 1/1000 m^3     | u m c d h k M | L l             | litre liter
ha    | 10000 m^2      |               | ha              | hectare
tonne | 1000000 g      | k M           | t               | tonne metric_ton
N     | 1000 g m s^-2  | m k M         | N               | newton
J     | 1 N m          | M m k G       | J               | joule
W     | 1 J s^-1       | M n u m k G T | W               | watt
Wh    | 3600 J         | k M G T       | Wh              | watthour
Pa    | 1 N m^-2       | h k M G       | Pa              | pascal
Hz    | 1 s^-1         | k M G T m     | Hz              | hertz
Cb    | 1 A s          | n u m         | C               | coulomb
V     | 1 J Cb^-1      | M u m k       | V               | volt
farad | 1 Cb V^-1      | p n u m       | F               | farad
ohm   | 1 V A^-1       | M m k         | Ω ohm           | ohm
S     | 1 A V^-1       | m             | S               | siemens
Wb    | 1 V s          | m             | Wb              | weber
T     | 1 Wb m^-2      | n u m         | T               | tesla
H     | 1 Wb A^-1      | u m           | H               | henry henries
lm    | 1 cd           |               | lm              | lumen
lx    | 1 cd m^-2      |               | lx              | lux
Bq    | 1 s^-1         | k M           | Bq              | becquerel
Gy    | 1/1000 J g^-1 | m             | Gy              | gray
Sv    | 1/1000 J g^-1 | u m           | Sv              | sievert
kat   | 1 mol s^-1     |               | kat             | katal
Ah    | 3600 Cb        | m             | Ah              |
eV    | 1602176634e-28 J | k M G       | eV              | electronvolt electron_volt
cal   | 4184/1000 J    | k             | cal             | calorie
btu   | 105505585262e-8 J |            | BTU Btu         |
hp    | 74569987158227022e-14 W |      | hp              | horsepower
erg   | 1e-7 J         |               | erg             | erg
dyn   | 1e-5 N         |               | dyn             | dyne
bar   | 100000 Pa      | m k           | bar             | bar
atm   | 101325 Pa      |               | atm             | atmosphere
torr  | 101325/760 Pa  |               | Torr mmHg       | torr
angstrom | 1e-10 m     |               | Å               | angstrom
au    | 149597870700 m |               |                 | astronomical_unit
ly    | 9460730472580800 m |           | ly              | lightyear light_year
nmi   | 1852 m         |               | nmi             | nautical_mile
knot  | 1852/3600 m s^-1 |             |                 | knot
inch  | 254/10000 m    |               | in              | inch inches
foot  | 12 inch        |               | ft              | foot feet
yard  | 3 foot         |               | yd              | yard
mile  | 5280 foot      |               | mi              | mile
acre  | 4840 yard^2    |               |                 | acre
lb    | 45359237/100000 g |            | lb              | pound
oz    | 1/16 lb        |               | oz              | ounce
stone | 14 lb          |               |                 | stone
ton   | 2000 lb        |               |                 | ton
lbf   | 44482216152605e-13 N |         | lbf             | pound_force
ftlb  | 1 foot lbf     |               |                 | foot_pound
psi   | 1 lbf inch^-2  |               | psi             |
gal   | 231 inch^3     |               | gal             | gallon
qt    | 1/4 gal        |               | qt              | quart
pint  | 1/8 gal        |               |                 | pint
cup   | 1/16 gal       |               |                 | cup
floz  | 1/128 gal      |               |                 | fluid_ounce fl_oz
tbsp  | 1/256 gal      |               | tbsp            | tablespoon
tsp   | 1/768 gal      |               | tsp             | teaspoon
byte  | 8 bit          | k K M G T     | B               | byte
kib   | 8192 bit       |               | KiB             | kibibyte
mib   | 8388608 bit    |               | MiB             | mebibyte
gib   | 8589934592 bit |               | GiB             | gibibyte
""".strip().splitlines()
"""Name, definition, prefixes of the symbols (in other letter case, the first of two is meant), symbols, words without plural."""

TURNS = {"deg", "turn"}
"""Units whose factor includes pi."""

ZEROS = {"C": "27315/100", "F": "45967/180"}
"""Kelvin at the zero of a temperature scale."""

ALSO = {
    "°": "C F",
    "deg": "C F",
    "degree": "C F",
    "degrees": "C F",
    "C": "C",
    "F": "F",
    "pound": "gbp",
    "pounds": "gbp",
    "¥": "yuan",
}
"""Signs and words used for several units: their other meanings, by the names of the rows."""

AMOUNTS = frozenset({"dollar", "euro", "sterling", "yen", "yuan", "rupee", "won"})
"""Quantities per which an amount is given: a price, a wage."""

ALIASES = {
    "mph": "mi/h",
    "kmh": "km/h",
    "kmph": "km/h",
    "kph": "km/h",
    "kmh^-1": "km/h",
    "ms^-1": "m/s",  # of textbooks, and not of milliseconds
    "ms^-2": "m/s^2",
    "mpg": "mi/gal",
    "bps": "bit/s",
    "kbps": "kbit/s",
    "Mbps": "Mbit/s",
    "Gbps": "Gbit/s",
    "fps": "ft/s",
    "sqft": "ft^2",
    "cc": "cm^3",
    "Nm": "N m",
    "Ns": "N s",
    "Js": "J s",
    "pounds per square inch": "psi",
    "pound per square inch": "psi",
}
