"""How does an author's MJML or HTML become HTML that mail programs show as meant, with its Liquid unharmed?

MJML is compiled with each piece of Liquid replaced by a name, and refused if a name is lost. CSS is worked out on a
copy that holds nothing but tags; of the result, only `style` attributes are written into the author's own text.
"""

import re
from bisect import bisect_right
from itertools import count

import css_inline
import mjml

from marketing.markup import (
    RAW_TEXT,
    TAG,
    VOID,
    ContentError,
    Token,
    has_liquid,
    line_of,
    liquid_pieces,
    masked,
    tokens,
)

# Both compilers are recursive: 20,000 nested <div> end the process. Real mails nest 60 deep.
DEEPEST = 150
TOO_DEEP = f"more than {DEEPEST} elements are open inside each other"
# Some components cost as much as there are: 3,000 pictures in a carousel took 1.4 s.
MOST_MJML = 3_000
# Selectors × tags: the most takes about a second.
MOST_MATCHES = 5_000_000

# What a browser's parser treats in ways of its own. None of it is ever styled.
_UNSTYLED = RAW_TEXT | frozenset(
    ("base", "frame", "frameset", "link", "math", "meta", "noscript", "select", "svg", "template")
)
_CLOSED_BY = {
    name: frozenset(closed.split())
    for names, closed in {
        "p": "p",
        "li": "li",
        "dt dd": "dt dd",
        "td th": "td th",
        "tr": "td th tr",
        "tbody thead tfoot": "td th tr tbody thead tfoot",
    }.items()
    for name in names.split()
}
_MJML_NAME = r"[^\s<>/=\"']++"
_MJML_TOKEN = re.compile(
    r"<!--\[if[^>\]]*+\]>|<!\[endif\]-->|<!--.*?-->"
    rf"|<(/?)({_MJML_NAME})(?:\s++{_MJML_NAME}(?:\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'))?+)*+\s*+(/?)>",
    re.DOTALL,
)
_SELECTORS = re.compile(r"[^{}]*+\{")
_CONDITIONAL = re.compile(f"{TAG}.*{TAG}", re.DOTALL)
_ATTRIBUTE_NAME = re.compile(r"(?!data-carillon)[a-z_:][-a-z0-9_:.]*")


def mjml_to_html(source: str) -> str:
    """Compile MJML. Liquid tags may stand between components, as in `<mj-column>{% for … %}<mj-text>`.

    Raises:
        ContentError: the MJML doesn't compile, or loses some Liquid where it stands.
    """
    pieces = liquid_pieces(source, "mjml")
    mask = masked(source, pieces)
    if mask.count("<") > MOST_MJML:
        raise ContentError(f"MJML may have {MOST_MJML:,} tags", part="mjml")
    _check_depth(source, mask)
    markup = list(tokens(mask))
    name = next(name for name in (f"lq{n}x" for n in count()) if name not in source)
    starts = [token.start for token in markup]
    parts = []
    end = 0
    for number, piece in enumerate(pieces):
        at = bisect_right(starts, piece.start) - 1
        # As a comment it passes between components, where MJML has no place for text.
        between = (
            piece.mask == TAG and markup[at].kind == "text" and markup[at - 1].name not in ("mj-preview", "mj-title")
        )
        parts += [source[end : piece.start], f"<!--{name}{number}x-->" if between else f"{name}{number}x"]
        end = piece.end
    try:
        compiled = mjml.mjml2html("".join([*parts, source[end:]]))
    except ValueError as error:
        raise ContentError(f"this is not MJML: {error}", part="mjml") from error
    stand_in = re.compile(rf"<!--{name}(\d+)x-->|{name}(\d+)x")
    kept = {int(found[0] or found[1]) for found in stand_in.findall(compiled)}
    for number, piece in enumerate(pieces):
        if number not in kept:
            message = f"MJML has no place for “{source[piece.start : piece.end]}” here: put it inside <mj-raw>"
            raise ContentError(message, part="mjml", line=line_of(source, piece.start))

    def original(found: re.Match[str]) -> str:
        piece = pieces[int(found[1] or found[2])]
        return source[piece.start : piece.end]

    return stand_in.sub(original, compiled)


def _check_depth(source: str, mask: str) -> None:
    """Refuse what would make the compiler, which reads this strictly, go too deep."""
    # Whether tags in a comment for Outlook count depends on where it stands: count with and without them.
    with_hidden: list[str] = []
    without: list[str] = []
    hidden = False
    at = -1
    while (at := mask.find("<", at + 1)) != -1:
        found = _MJML_TOKEN.match(mask, at)
        if found is None:
            message = 'this is not MJML: close each tag and quote each value, as in <name attribute="value">'
            raise ContentError(message, part="mjml", line=line_of(source, at))
        closing, name, empty = found.groups()
        if name is None:
            hidden = found[0].endswith("]>") or (hidden and not found[0].startswith("<!["))
        for open_tags in [with_hidden] if hidden else [with_hidden, without]:
            if closing and open_tags[-1:] == [name]:
                open_tags.pop()
            elif name and not closing and not empty and name not in VOID:
                open_tags.append(name)
        if max(len(with_hidden), len(without)) > DEEPEST:
            raise ContentError(TOO_DEEP, part="mjml", line=line_of(source, at))
        at = found.end() - 1


def inline_css(source: str) -> str:
    """Write into `style` attributes what the `<style>` blocks say, for mail programs that ignore these.

    The blocks stay, for media queries and `:hover`. Blocks that hold Liquid aren't inlined, and a class that an
    element has only under a condition counts as absent.
    """
    mask = masked(source, liquid_pieces(source))
    markup = [token for token in tokens(mask) if not token.hidden]
    styles = [mask[token.start : token.end] for token in markup if token.kind == "raw" and token.name == "style"]
    selectors = sum(one.count(",") + 1 for style in styles for one in _SELECTORS.findall(style))
    if not selectors:
        return source
    if selectors * len(markup) > MOST_MATCHES:
        raise ContentError(f"{selectors:,} CSS selectors for {len(markup):,} tags are too many")
    try:
        inlined = css_inline.inline(_tags_alone(source, mask, markup), load_remote_stylesheets=False)
    except ValueError as error:
        raise ContentError(f"the CSS can't be inlined: {error}") from error
    changes: dict[
        int, tuple[int, int, str]
    ] = {}  # by the tag's number: from where, to where, and what stands there now
    for styled in tokens(inlined):
        if not {"style", "data-carillon"} <= styled.attributes.keys():
            continue
        number = int(styled.attributes["data-carillon"].value)
        token = markup[number]
        style = styled.attributes["style"].value.rstrip(" ;").replace("'", "&#39;")
        own = token.attributes.get("style")
        if own is None or own.start == own.end:
            start = token.start + 1 + len(token.name)
            changes[number] = start, start, f' style="{style}"'
        elif (quote := source[own.start]) in "'\"":
            # The copy went without it. What comes last wins, as an attribute does over a block.
            changes[number] = own.start, own.end, f"{quote}{style}; {own.of(source)}{quote}"
    parts = []
    end = 0
    for _, (start, stop, written) in sorted(changes.items()):  # a parser moves what has no place in a table before it
        parts += [source[end:start], written]
        end = stop
    return "".join([*parts, source[end:]])


def _tags_alone(source: str, mask: str, markup: list[Token]) -> str:
    """The document's tags, well nested and numbered, with their attributes and the style blocks, and no text."""
    parts: list[str] = []
    open_tags: list[str] = []
    for number, token in enumerate(markup):
        if token.kind == "raw" and token.name == "style":
            style = mask[token.start : token.end]
            parts.append("" if has_liquid(style) else f"<style{_attributes(markup[number - 1])}>{style}</style>")
        elif token.kind == "end" and token.name in open_tags:
            closed = ""
            while closed != token.name:
                parts.append(f"</{(closed := open_tags.pop())}>")
        elif token.kind == "start" and token.name not in _UNSTYLED and token.name.isalnum():
            while open_tags and open_tags[-1] in _CLOSED_BY.get(token.name, ()):
                parts.append(f"</{open_tags.pop()}>")
            parts.append(f'<{token.name} data-carillon="{number}"{_attributes(token)}>')
            if token.name not in VOID:
                open_tags.append(token.name)
            if len(open_tags) > DEEPEST:
                raise ContentError(TOO_DEEP, line=line_of(source, token.start))
    return "".join(parts)


def _attributes(token: Token) -> str:
    written = []
    for name, attribute in token.attributes.items():
        if name == "style" or not _ATTRIBUTE_NAME.fullmatch(name):
            continue
        value = _CONDITIONAL.sub("", attribute.value).replace('"', "&quot;")
        written.append(f' {name}="{value}"')
    return "".join(written)
