"""Detection of answers that refuse to answer."""

from __future__ import annotations

import re
import unicodedata

MAX_OPENING = 400  # characters considered: a refusal begins with what it declines

_SAME = str.maketrans(
    {"’": "'", "‘": "'", "ʼ": "'", "＇": "'", "´": "'", "`": "'", "′": "'", "\u00a0": " ", "\u202f": " "}
)
_MARKS = re.compile(r"[*_#>~\"“”„«»\u200b\u200c\u200d\u2060\ufeff]")


def _any(*words: str) -> str:
    """A pattern for any of some words."""
    return f"(?:{'|'.join(words)})"


# All patterns below are matched in lower case with single spaces, from a given position on.
_I = r"(?:(?:i|we)\b(?: (?:simply|just|really|also|regretfully|personally|do|must|respectfully))*\s?)"
_UNABLE = _any(
    r"can't|cant|can ?not|could not|couldn't|won't|will not|wouldn't",
    r"(?:won't|will not) be able to",
    r"(?:am|'m|are|'re)? ?(?:not able|unable|not allowed|not permitted|not authori[sz]ed|not designed|not programmed) to",
    r"(?:am|'m|are|'re)? ?(?:not going|not willing|not in a position) to",
    r"do(?:n't| not) (?:think|believe) (?:that )?i (?:can|should)",
)
_QUALIFIED = r" ?(?:really|actually|directly|possibly|simply|ethically|legally|,? ?(?:and|or) (?:will not|won't),?| )*"
_DEED = _any(
    "help|assist|support|serve|do|act|carry|perform|proceed|continue|complete|take|be|make|have",
    "provide|give|offer|share|show|create|write|generate|produce|translate|solve|process|access|open|view|browse",
    "answer|reply|respond|say|tell|talk|explain|describe|teach|discuss|engage|participate",
    "comply|ful ?fill?|fill|grant|honou?r|accept|judge|score|evaluate|rate|assess",
    "recommend|advise|encourage|promote|condone|in good conscience",
)
_OBJECT = r"(?= to (?!believe|think|accept|see)| (?:this|that|your|the|such|all|any)\b|\W*$)"
_DECLINES = _any(
    rf"(?:decline|refuse)\b{_OBJECT}",
    rf"(?:(?:will |'ll )?have|need|am going|'m going|am going to have|'m going to have) to (?:decline|refuse)\b{_OBJECT}",
    "(?:'d|would) (?:rather not|prefer not to)|prefer not to",
)
_MINE = (
    r"(?:my|our|the|safety|content|usage|community|ethical|company|openai's) (?:\w+ )?"
    r"(?:policy|policies|guidelines|rules|terms|standards|principles|programming)"
)
_REQUEST = r"(?:requests?|questions?|prompts?|query|queries|contents?|topics?|tasks?|instructions?|messages?)"
_UNEASY = _any("am not", "'m not", "do not feel", "don't feel", "would not feel", "wouldn't feel") + " comfortable"
_UNFIT = r"(?:is|would be|are) (?:inappropriate|harmful|unethical|illegal)"
_WE_HAVE = (
    r"we(?: \w+)? (?:cannot|can't|can not|could not) (?:have|be|make|take|do|solve|write|act|show)\b"  # of a proof
)
_REFUSES = re.compile(
    rf"(?!{_WE_HAVE})"
    + _any(
        rf"(?:{_I})?{_UNABLE}{_QUALIFIED}(?:{_DEED}\b|(?:that|this|so)?\W*$)",
        rf"{_I}{_any(_DECLINES, _UNEASY)}",
        rf"(?:this|that|your|the|such)(?: \w+){{0,2}}? {_REQUEST} {_UNFIT}\b",
        rf"(?:this|that|your|the|such|it)(?: \w+){{0,3}}? violates? {_MINE}\b",
        rf"(?:{_I}) ?(?:shouldn't|should not) (?:help|assist|answer|provide|do)\b",
        rf"(?:this |that |it )?{_UNFIT},? (?:so|and|therefore) i (?:can't|cannot|won't|will not)\b",
        rf"it(?:'s| is|'d be| would be) (?:not appropriate|inappropriate|unethical)(?: for me)? to {_DEED}\b",
        rf"(?:(?:this|that|it|your|the)(?: \w+){{0,2}}? ?)?(?:'?s |is |goes )?against {_MINE}\b",
        rf"{_MINE} (?:do not|don't|does not|doesn't|prohibits?|forbids?|prevents?) (?:allow|permit|let|me|us|that|this)\b",
        r"(?:this|that|it)? ?(?:'?s|is) (?:(?:not something|something) (?:that )?i (?:can|can't|cannot)|beyond my) "
        r"(?:help|do|assist|answer|provide|discuss|abilit|capabilit|scope)",
        r"i (?:do not|don't) have (?:the (?:ability|capability) to|access to (?:real|the internet|current|your|personal)|"
        r"(?:any )?personal (?:opinions|feelings|experiences|beliefs))",
        r"request denied\b",
    )
)
_LACKS = re.compile(
    rf"(?:i|we) ?{_any('do not|don.t|have no|can.t|can ?not|lack|am not|.m not|won.t|will not|am unable|must decline')}\b"
)

_APOLOGY = _any(
    r"(?:(?:i|we)(?:'m| am|'re| are) )?(?:(?:very|so|really|truly|deeply|terribly) )*sorry(?: to say)?",
    r"(?:my |our )?(?:sincere |deepest )?apologies|(?:i|we) (?:sincerely |must |do )?apologi[sz]e",
    r"i regret(?: to (?:say|inform you))?|(?:i'm|i am) afraid",
)
_CONCEDES = (
    r"(?:(?:while|although|though) (?:i|we) (?:understand|appreciate|know|see|would like|want)"
    r"|i (?:understand|appreciate))[^.!?,]{0,100},?"
    r"(?: but)?"
)
_REASONS = r"(?:for|due to) (?:\w+ ){0,2}(?:reasons|concerns|policies|guidelines)"
_KIND = _any("ai", "artificial intelligence", "(?:large )?language model", "assistant", "chatbot")
_MACHINE = _any(
    "as your assistant", rf"as an? [^.!?\n,]{{0,60}}?\b{_KIND}", rf"(?:i'm|i am) (?:just |only )*an? {_KIND}"
) + (r"\b(?: (?:language )?(?:model|assistant|system))?(?: (?:developed|trained|made|created|built) by \w+)?")
_POLITE = _any(
    "hello|hi|hey|well|oh|no|nope|but|however|and|that|so|please (?:note|understand|know) that",
    f"unfortunately|regrettably|regretfully|sadly|{_CONCEDES}|{_REASONS}",
    "assistant|answer|response",
    "thanks?(?: you)?(?: for (?:asking|reaching out|your (?:question|request|message)))?",
)
_OPENERS = re.compile(rf"[\s,;:.!\-–—()']+|(?:{_POLITE}|(?P<sorry>{_APOLOGY})|(?P<machine>{_MACHINE}))\b")

_CANNOT_BUT = re.compile(  # "I can't help but notice", "I can't say enough"
    _any(
        r"\bhelp (?:but|noticing|thinking|wondering|laughing|feeling)\b",
        r"\b(?:say|tell you|give|do|have|make|be|take|recommend|offer) (?:this |it |that )?"
        r"(?:enough|how much|better|too|more|less|sure|anything (?:simpler|better))\b",
        r"\brecommend [^.!?]{0,30}\b(?:enough|more)\b",
    )
)
_ANSWERS = re.compile(  # "..., but the answer is 5"
    r"(?<!what )(?<!what's )\b(?:the|my|final|correct) (?:final |correct |right )?(?:answer|result|solution|value)(?: is|:| =) ?"
    r"(?!not |no\b|that i )[\w\\$(-]|\\boxed"
)
_OTHERS = re.compile(
    "(?:lo siento|perdón)\\W{0,3}(?:pero )?no (?:puedo|podemos)|(?:je suis )?désolée?s?\\W{0,3}(?:mais )?je ne (?:peux|suis) pas"
    "|(?:es )?tut mir leid\\W{0,3}(?:aber )?(?:ich kann|das kann ich|dabei kann ich)[^.!?]{0,60}\\b(?:nicht|keine?n?)\\b"
    "|mi dispiace\\W{0,3}(?:ma )?non (?:posso|possiamo)|(?:desculpe|lamento|sinto muito)\\W{0,3}(?:mas )?não (?:posso|consigo)"
    "|(?:извините|простите|к сожалению)\\W{0,3}(?:но )?(?:я |мы )?не (?:могу|можем|буду)"
    "|(?:申し訳(?:ありません|ございません)|すみません)[^。]{0,30}(?:できません|出来ません|お答えできません)"
    "|(?:죄송하지만|죄송합니다)[^.]{0,30}수 없"
)
"""An apology and "I cannot" in other languages."""

_CHINESE = re.compile(
    r"(?:您好|你好|[，,。！!\s])*(?:(?:非常|很|十分|真的)*(?:抱歉|对不起|不好意思|遗憾)[，,。！!\s]*)?(?:但(?:是)?)?"
    r"(?:作为(?:一个|一名|一款)?[^，,。]{0,20}(?:AI|人工智能|语言模型|助手|模型)[，,\s]*)?我(?:们)?(?:实在|暂时|目前)?"
    r"(?:无法|不能|没有办法|没办法|不可以|不会|拒绝)(?!相信|忽视|忽略|否认|忘记|同意更多|不)"
    r"|(?:您好|你好|[，,。！!\s])*(?:非常|很|十分)*(?:抱歉|对不起|不好意思)[，,。！!\s]*(?:(?:这个|该|您的)(?:问题|请求|要求)我(?:无法|不能|不会)|我(?:做不到|办不到))"
    r"|作为(?:一个|一名|一款)?[^，,。]{0,20}(?:AI|人工智能|语言模型|助手|模型)[，,\s]*我没有(?:个人|自己的)",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """Whether a text begins like a refusal, in English or Chinese, and does not go on to give an answer.

    Apologies, greetings and "as an AI" are skipped; what follows must decline a request.

    Example:
        >>> is_refusal("I’m sorry, but I can’t help with that."), is_refusal("I can’t believe it’s 5, but the answer is 5.")
        (True, False)
    """
    opening = unicodedata.normalize("NFKC", text.lstrip()[:MAX_OPENING]).translate(_SAME)
    if _CHINESE.match(opening):
        return "答案是" not in opening and "答案为" not in opening
    if _OTHERS.match(opening.lstrip().casefold()):
        return True
    said = " ".join(_MARKS.sub("", opening).casefold().split())
    place, apology, machine = 0, False, False
    while match := _OPENERS.match(said, place):
        place = match.end()
        apology = apology or match["sorry"] is not None
        machine = machine or match["machine"] is not None
    rest = said[place:]
    if not rest:
        return apology
    declines = _REFUSES.match(rest) is not None or (machine and _LACKS.match(rest) is not None)
    return declines and not _CANNOT_BUT.search(rest[:60]) and not _ANSWERS.search(rest)
