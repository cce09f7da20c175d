"""Full stops that end no sentence: those of abbreviations, initials, ordinals and list markers.

A capital after "Dr." says nothing, and German writes all nouns with one, so the words around the stop decide.
"""

import re

from datamodules.text.protected import CJK

# Lower-case words, without their last full stop. A sentence never ends with one of these.
ABBREVIATIONS = frozenset(
    "e.g i.e cf vs viz approx resp dr mr mrs ms prof st jr sr inc ltd dept al a.m p.m u.s u.k "
    "z.b z.t d.h d.i u.a u.u i.d.r i.a o.b.d.a m.e s.o s.u o.g o.ä u.ä bzw vgl evtl ggf inkl sog bspw hrsg "
    "p.ex c.-à-d j.-c sra srta dra sres sras p.ej aprox núm dott "
    "т.е т.к т.д т.п напр أ.د د डॉ प्रो".split()
)
# Abbreviations that mean another word in lower case: "MM." and "mm."
ABBREVIATIONS_AS_WRITTEN = frozenset(
    "ca av env geb phil Ste Sig Mt MM Mme Mlle Mgr Hr Hrn Fr Abb Aufg Ing Lic Ud Uds EE TP GS TS ThS PGS".split()
)
# A sentence ends with one of these only if a word of STARTERS follows. Also "Ph.D." and "Mio."
RARELY_LAST = frozenset("ph.d m.d b.a m.sc b.sc mio mrd tsd uu chr std".split())
PRONOUNS = frozenset(["He", "She"])  # "J. He" is a name, so STARTERS does not have them
# "No. 5", but "no."
BEFORE_A_NUMBER = frozenset(
    "no nos fig figs eq eqs sec ch vol pp thm def prop lem cor ex "
    "nr nrn abb tab kap bd aufg bsp abs art str pág págs núm chap éq réf cap рис стр гл ص ج".split()
)
BEFORE_A_NUMBER_AS_WRITTEN = frozenset(["S", "max"])  # German: "S. 17" is a page
# "z. B. Zahlen", "p. ej. Juan": abbreviations with a space inside, up to their last stop
SPACED = re.compile(
    r"(?<![^\s(\[„“\"«»])(?:[zZ]\.\s?[BTZ]|[dD]\.\s?[hi]|[uU]\.\s?[aUÄ]|[sS]\.\s?[ou]|[mM]\.\s?E|[iI]\.\s?(?:d\.\s?R|A)"
    r"|[oO]\.\s?B\.\s?d\.\s?A|[nv]\.\s?Chr|p\.\s?(?:ej|ex)|EE\.\s?UU|a\.\s?C|т\.\s?[ектдп]|أ\.\s?د)\.\Z"
)
# The beginning of such an abbreviation: "z." before "B."
BEGUN = re.compile(
    r"[zZ]\.\s[BTZ]\.|[dD]\.\s[hi]\.|[uU]\.\s[aUÄ]\.|[sS]\.\s[ou]\.|[mM]\.\s(?:E|a)\.|[iI]\.\s(?:d|A)\.|[oO]\.\s(?:B|g|ä)\."
    r"|B\.\sd\.|d\.\s[AR]\.|[qQ]\.\se\.|e\.\s[dg]\.|[nv]\.\sChr|p\.\se[jx]\.|EE\.\sUU|a\.\sC\.|т\.\s[ектдп]\.|أ\.\sد\."
)
LONGEST_SPACED = 16  # characters
# "der 3. Fall", "am 3. Mai". Any other capital after a number begins a sentence
BEFORE_AN_ORDINAL = frozenset(
    "am im vom zum zur beim der die das dem den des dieser diese dieses diesem diesen jeder jede jedes jedem jeden "
    "ein eine einen einem einer mein meine sein seine ihr ihre unser unsere".split()
)
LAST_LETTERS = frozenset(word[-1] for word in BEFORE_AN_ORDINAL)  # most numbers follow "="
CALENDAR = re.compile(  # in English "5. August" may be two sentences
    r"(?:Januar|Jänner|Februar|März|Mai|Juni|Juli|Oktober|Dezember|Jahrhundert)\b"
    r"|(?:April|August|September|November) \d{4}\b"
)

NEXT_WORD = re.compile(r"[^\W\d_]*")
# The words that start a sentence after "option D." or "(colour?)". Any other capitalised word continues the sentence:
# "J. Smith".
STARTERS = frozenset(
    "a actually additionally after again all also alternatively an and another are as at because both but by each "
    "either first finally for from given hence here hmm how however i if in is it its let looking maybe my next no "
    "not now of oh ok okay on only or other our perhaps second similarly since so some that the their then there "
    "therefore these they third this those thus to wait we what when where which while who why with yes you aber "
    "alle allerdings alternativ auch damit dann daher darum das deshalb die dies diese dieser dieses doch ein eine "
    "er es folglich für hier ich ihr jetzt kann lass man mit nach nein nun oder sie somit und warte warum was weil "
    "wenn wer wie wir wo zuerst zur alors ainsi attends ce cela cette ces comme donc elle elles en est et il ils je "
    "mais maintenant non nous on or ou oui pour puis quand que qui si vérifions ahora así como cuando ella ellos "
    "entonces es esta este esto luego otra para pero por primero pues qué sea si sí también tenemos vamos y".split()
)
# Letters of the scripts whose lists have lettered items
LETTER = r"[A-Za-zÀ-ÖØ-öø-ÿΑ-ωА-яء-يא-תऄ-हァ-ヺᄀ-ᄒ가-하]"
LIST_MARKER = re.compile(
    rf"\s*(?:[-*•–+]|#{{1,6}}|[(（]?(?:\d{{1,3}}|{LETTER}|[ivxIVX]{{1,4}}|[一二三四五六七八九十]{{1,3}})[.)．）])(?:\s|$)"
)
LONGEST_LIST_MARKER = 60  # characters, with the white space before it
OPENERS = "([\"'“‘„«»*_"
WORD_BEFORE = re.compile(rf"[^{CJK}]*\Z")  # the last word: "参见e.g" has one, too
# Arabic: a quotation or "م." (of a year) goes on if "and", "so" or a preposition follows
ARABIC_JOINS = re.compile(r"[وف]|(?:من|إلى|على|عن|ثم|سأل|أجاب|رد|هتف|همس)\b")
ARABIC_ERAS = frozenset("م هـ ه ق.م".split())
KNOWN = frozenset(
    word.lower()
    for words in (
        ABBREVIATIONS, ABBREVIATIONS_AS_WRITTEN, RARELY_LAST, BEFORE_A_NUMBER, BEFORE_A_NUMBER_AS_WRITTEN, ARABIC_ERAS
    )
    for word in words
)  # fmt: skip


def starts_sentence(text: str, at: int) -> bool:
    """Whether the word at `at` starts sentences only."""
    return NEXT_WORD.match(text, at)[0].lower() in STARTERS  # type: ignore[index]


def is_list_marker(text: str, start: int, end: int) -> bool:
    """Whether the text from the beginning of its line (or from `start`) to `end` is a list marker."""
    near = max(start, end - 1 - LONGEST_LIST_MARKER)
    line = text.rfind("\n", near, end - 1) + 1 or (start if start == near else -1)
    return line >= 0 and bool(LIST_MARKER.fullmatch(text[max(line, start) : end]))


def belongs_to_word(text: str, start: int, at: int, after: int) -> bool:
    """Whether the full stop at `at` belongs to the abbreviation, initial, ordinal or list marker before it.

    The sentence began at `start`. The next text begins at `after`.
    """
    words = text[max(start, at - 40) : at].rsplit(None, 1)
    raw = words[-1] if words else ""
    word = raw.lstrip(OPENERS)
    if not word.isascii():
        word = WORD_BEFORE.search(word)[0]  # type: ignore[index]
    lower = word.lower()
    following = text[after : after + 1]
    if lower in KNOWN:
        if lower in ABBREVIATIONS or word in ABBREVIATIONS_AS_WRITTEN:
            return True
        if (lower in BEFORE_A_NUMBER or word in BEFORE_A_NUMBER_AS_WRITTEN) and following.isdigit():
            return True
        if lower in RARELY_LAST:
            return not (starts_sentence(text, after) or NEXT_WORD.match(text, after)[0] in PRONOUNS)  # type: ignore[index]
        if lower in ARABIC_ERAS and ARABIC_JOINS.match(text, after):
            return True
    length = len(word)
    if length > 4:
        return lower.endswith("str") and following.isdigit()
    if word.isdigit():
        if following.isupper() and (CALENDAR.match(text, after) or _is_ordinal(text, start, at - length, after)):
            return True
    elif length == 1 and word.isupper() and following.isupper() and not BEGUN.match(text, at - 1):
        return not starts_sentence(text, after)
    elif length <= 3:
        if BEGUN.match(text, at - length):
            return True
        if SPACED.search(text, max(start, at - LONGEST_SPACED), at + 1):
            return not (following.isupper() and starts_sentence(text, after))
    gap = at - len(raw) - 1
    if gap > start and text[gap] == " " and not text[gap - 1].isspace():
        return False  # within a line: nearly always
    return is_list_marker(text, start, at + 1)


def _is_ordinal(text: str, start: int, at: int, after: int) -> bool:
    """Whether the number at `at` is an ordinal after a German article. A capitalised word begins at `after`."""
    if text[at - 2 : at - 1] not in LAST_LETTERS:
        return False
    words = text[max(start, at - 20) : at].rsplit(None, 2)
    before = words[-1].lower() if words and words[-2:] != ["I", "am"] else ""
    return before in BEFORE_AN_ORDINAL and not starts_sentence(text, after)
