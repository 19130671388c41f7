"""Turns the docstrings' reStructuredText into markdown for the site, with formulas as MathML."""

from __future__ import annotations

import re
import textwrap

_BLOCK = re.compile(
    r"^(?P<indent> *)\.\. math::(?P<first>[^\n]*)\n(?P<rest>(?:\n|(?P=indent) +[^\n]*\n?)*)",
    re.MULTILINE,
)
_LINES = r"\\\\(?:\[[\w. ]+\])?"  # the ends of lines, perhaps with a distance
_INLINE = re.compile(r":math:`([^`]+)`", re.DOTALL)
_CODE = re.compile(r"``([^`]+)``")
_ADDRESS = re.compile(r"(?<![(<\w\"])(https?://[^\s<>`]*[^\s<>`.,;)])")


def to_markdown(text: str) -> str:
    """Returns a docstring as markdown: formulas as MathML, addresses as links.

    >>> to_markdown("Of ``x``, see https://example.org.")
    'Of `x`, see <https://example.org>.'
    """
    text = _BLOCK.sub(_formula, text)
    text = _INLINE.sub(lambda found: mathml(found[1], block=False), text)
    text = _CODE.sub(r"`\1`", text)
    return _ADDRESS.sub(r"<\1>", text)


def _formula(found: re.Match[str]) -> str:
    body = textwrap.dedent(f"{found['first'].strip()}\n{textwrap.dedent(found['rest'])}").strip()
    parts = re.split(_LINES, body) if r"\begin" not in body else re.split(r"\n\s*\n", body)
    lines = [mathml(part, block=True) for part in parts if part.strip()]
    indent = found["indent"]
    return "\n" + "".join(f"{indent}{line}\n\n" for line in lines)


def mathml(latex: str, *, block: bool) -> str:
    """Returns a formula as MathML, which browsers draw themselves."""
    from latex2mathml.converter import convert

    if r"\begin" not in latex:  # signs of alignment; in an environment they divide its columns
        latex = latex.replace("&&", r"\qquad").replace("&", "")
    plain = re.sub(r"\s+", " ", latex).strip()
    plain = plain.replace(r"\bigl", "").replace(r"\bigr", "").replace(r"\tfrac", r"\frac")
    return str(convert(plain, display="block" if block else "inline")).replace("\n", "")
