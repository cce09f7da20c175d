"""The words that turn a thought: its writer doubts or checks the last statement, or tries another way."""

import re
from functools import lru_cache

from datamodules.text.protected import CJK

# The first list is R1's. A word that also starts ordinary sentences is in none of them
MARKERS: tuple[str, ...] = (
    "Wait", "But wait", "Oh wait", "No, wait", "Hmm", "Hold on", "But hold on", "Actually", "But no", "But maybe",
    "On second thought", "Alternatively", "Another way", "Another approach", "Let me check", "Let me double-check",
    "Let me verify", "Let me confirm", "Let me see if", "Let me think again", "Let me recalculate", "Let me recheck",
    "Let me re-examine", "Let me reconsider", "Let me rethink", "Let's check", "Let's verify", "Let's double-check",
    "To double-check", "Just to make sure", "Just to be sure", "But just to", "But let me", "But let's check",
    # Chinese
    "等等", "等一下", "等下", "等会", "且慢", "慢着", "但是等等", "但等等", "但是等一下", "不过等等", "不，等等",
    "哦，等等", "嗯，等等", "不对", "不，不对", "哦，不对", "嗯，不对", "其实", "实际上", "事实上", "或者", "另一种",
    "另外一种", "还有一种方法", "换一种", "换个", "再想想", "再检查", "再验证", "再算", "再确认", "再仔细",
    "重新", "让我再", "让我重新", "让我检查", "让我验证", "让我确认", "让我们验证", "让我们检查", "让我们再", "我再",
    "我需要再", "我们再", "验证一下", "检查一下", "为了确认", "为了验证", "仔细想想", "会不会", "但也许", "但或许",
    "也许我", "或许我",
    # Japanese
    "待って", "ちょっと待", "待てよ", "でも待って", "しかし待って", "いや、", "いや待", "いえ、", "うーん", "ううん",
    "実は", "実際に", "実際は", "あるいは", "または、", "別の方法", "別の見方", "別の考え方", "別のアプローチ",
    "別の解", "他の方法", "もう一度", "もう一回", "念のため", "確認し", "確認のため", "検算", "再確認", "再計算",
    "再度", "見直", "考え直", "よく考え", "よく見", "ひょっとして", "もしかし", "もしかす", "あれ、", "別のやり方",
    # German
    "Warte", "Warten Sie", "Aber warte", "Doch warte", "Oh, warte", "Nein, warte", "Moment,", "Moment mal",
    "Einen Moment", "Halt,", "Stopp", "Hm,", "Eigentlich", "Alternativ", "Andererseits", "Ein anderer Weg",
    "Ein anderer Ansatz", "Eine andere Möglichkeit", "Eine andere Methode", "Eine andere Art", "Anders betrachtet",
    "Oder anders", "Lass mich", "Lassen Sie mich", "Lass uns das", "Prüfen wir", "Überprüfen wir", "Ich prüfe",
    "Ich überprüfe", "Ich sollte das", "Zur Kontrolle", "Zur Probe", "Zur Sicherheit", "Zur Überprüfung",
    "Machen wir die Probe", "Um sicherzugehen", "Noch einmal", "Aber vielleicht", "Bei genauerem", "Stimmt das",
    # French
    "Attends", "Attendez", "Mais attends", "Mais attendez", "Non, attends", "Oh, attends", "Un instant", "Minute,",
    "Euh", "En fait", "En réalité", "Alternativement", "Autrement", "Une autre façon", "Une autre manière",
    "Une autre méthode", "Une autre approche", "Autre méthode", "Autre approche", "Ou bien", "Vérifions",
    "Revérifions", "Je vérifie", "Je vais vérifier", "Laisse-moi", "Laissez-moi", "Pour vérifier", "Pour être sûr",
    "Reprenons", "Recalculons", "À la réflexion", "Mais peut-être",
    # Spanish
    "Espera", "Espere", "Pero espera", "No, espera", "Oh, espera", "Un momento", "Mmm", "En realidad", "De hecho",
    "Alternativamente", "Otra forma", "Otra manera", "Otro enfoque", "Otro método", "Otra opción", "O bien",
    "Verifiquemos", "Comprobemos", "Revisemos", "Voy a verificar", "Voy a comprobar", "Voy a revisar", "Déjame",
    "Permíteme", "Para verificar", "Para comprobar", "Para estar seguro", "Pensándolo bien", "Mejor dicho",
    "Pero quizás",
    # Vietnamese
    "Khoan", "Nhưng khoan", "Không, khoan", "Chờ đã", "Chờ một chút", "Nhưng chờ", "Đợi đã", "Đợi một chút",
    "Nhưng đợi", "Thực ra", "Thật ra", "Hoặc là", "Cách khác", "Một cách khác", "Theo cách khác", "Hãy kiểm tra",
    "Kiểm tra lại", "Để tôi kiểm tra", "Tôi sẽ kiểm tra", "Tôi cần kiểm tra", "Hãy xem lại", "Xem lại", "Thử lại",
    "Tính lại", "Để chắc chắn", "Nghĩ lại", "Nhưng có lẽ",
    # Arabic
    "لحظة", "ولكن لحظة", "لكن لحظة", "انتظر", "لكن انتظر", "ولكن انتظر", "مهلا", "مهلًا", "في الواقع", "في الحقيقة",
    "طريقة أخرى", "بطريقة أخرى", "بدلا من ذلك", "بدلًا من ذلك", "من زاوية أخرى", "دعني", "لكن ماذا عن",
    "ولكن ماذا عن", "دعنا نتحقق", "لنتحقق",
    "للتأكد", "للتحقق", "لأتأكد",
)  # fmt: skip
NO_SPACES = re.compile(rf"[{CJK}]\Z")


@lru_cache
def turning(markers: tuple[str, ...]) -> dict[str, re.Pattern[str]]:
    """Return the pattern of the markers that begin with a character, by that character.

    A marker ends at the end of a word. In Chinese and Japanese the next word follows without a space.
    """
    by_first: dict[str, list[str]] = {}
    for marker in markers:
        end = "" if NO_SPACES.search(marker) else r"(?!\w)"
        by_first.setdefault(marker[0], []).append(re.escape(marker) + end)
    return {first: re.compile("|".join(words)) for first, words in by_first.items()}
