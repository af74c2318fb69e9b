"""A template as Jinja, the language in which transformers and the servers built on it write a conversation down.

Jinja gives one string, so here words that spell a special token are taken for it. All else is written as
`processing` writes it, token for token: where a SentencePiece tokenizer puts its space only before the first text,
the spaces that our processor puts before the first word and behind a picture are spelt out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from llavakit.processing import Template


@dataclass(frozen=True)
class Words:
    """The special tokens a template writes, as the tokenizer spells them; `bos` may be empty.

    `lead` is what the tokenizer does not put by itself before a text that opens: behind `bos`, and behind a picture.
    With `spares_lead`, nothing is put before a text that begins so anyway. `in_text` are the first and the last
    characters of what a program writes into a text for a picture, where it gives no parts.
    """

    bos: str
    eos: str
    image: str
    lead: str = ""
    spares_lead: bool = False
    in_text: tuple[str, str] | None = None


def chat_template(template: Template, words: Words) -> str:
    """The whole of a template. Texts may come as strings or in parts; pictures as parts of type image or image_url."""
    return "".join(f"{line}\n" for line in _lines(template, words))


def _lines(template: Template, words: Words) -> Iterator[str]:
    said = "message['content'] if message['content'] is string else message['content'] | map(attribute='text') | join"
    yield f"{{%- set ns = namespace(system={_quoted(template.system or '')}, turn=0) -%}}"
    yield "{%- for message in messages if message['role'] == 'system' -%}"
    yield f"{{%- set ns.system = {said} -%}}"
    yield "{%- endfor -%}"
    if template.system is None:
        yield _refuse("ns.system", "This template has no place for a system prompt.")
    if template.max_messages is not None:
        too_many = f"messages | rejectattr('role', 'equalto', 'system') | list | length > {template.max_messages}"
        yield _refuse(too_many, f"This template holds {template.max_messages} messages.")
    prefix, suffix = (_spelt(text, words) for text in (template.system_prefix, template.system_suffix))
    yield f"{{%- set ns.opening = {_quoted(prefix)} + ns.system + {_quoted(suffix)} if ns.system else '' -%}}"
    if words.bos:
        yield f"{{{{- {_quoted(words.bos)} -}}}}"
        if words.lead and (template.user or template.system is not None):
            spared = f"'' if ns.opening[:1] == {_quoted(words.lead)} else " if words.spares_lead else ""
            yield f"{{{{- {spared}{_quoted(words.lead)} -}}}}"
    if not template.system_in_turn:
        yield "{{- ns.opening -}}"
    for question, answer in template.examples:
        turn = _spelt(template.user, words) + question + _spelt(template.assistant, words)
        yield f"{{{{- {_quoted(turn + template.answer_prefix + answer + _end(template, words))} -}}}}"
    yield "{%- for message in messages if message['role'] != 'system' -%}"
    yield "{%- if message['role'] == 'user' -%}"
    yield from _user(template, words)
    yield "{%- else -%}"
    yield f"{{%- set said = {said} -%}}"
    yield f"{{{{- {_quoted(_spelt(template.assistant, words))} -}}}}"
    # Where nothing stands between, an answer is the text behind a picture.
    lead = "" if template.user_text or template.picture_suffix or template.assistant else words.lead
    yield f"{{{{- {_quoted(lead + template.answer_prefix)} + said if said else '' -}}}}"
    yield f"{{{{- {_quoted(_end(template, words) + _spelt(template.after_answer, words))} -}}}}"
    yield "{%- endif -%}"
    yield "{%- set ns.turn = ns.turn + 1 -%}"
    yield "{%- endfor -%}"
    yield f"{{%- if add_generation_prompt -%}}{{{{- {_quoted(_spelt(template.assistant, words))} -}}}}{{%- endif -%}}"


def _user(template: Template, words: Words) -> Iterator[str]:
    if template.between:
        yield f"{{%- if ns.turn -%}}{{{{- {_quoted(_spelt(template.between, words))} -}}}}{{%- endif -%}}"
    yield f"{{{{- {_quoted(_spelt(template.user, words))} -}}}}"
    if template.system_in_turn:
        yield "{{- ns.opening -}}{%- set ns.opening = '' -%}"
    text = "{{- %s -}}" if template.user_text else ""
    before, behind = (_spelt(part, words) for part in (template.picture_prefix, template.picture_suffix))
    picture = before + words.image + (words.lead if behind else "") + behind
    whole = "message['content']"
    if words.in_text:
        first, last = words.in_text
        whole += f" | replace({_quoted(first)}, {_quoted(before + first)})" if before else ""
        whole += f" | replace({_quoted(last)}, {_quoted(last + behind)})" if behind else ""
    yield "{%- if message['content'] is string -%}" + text.replace("%s", whole) + "{%- else -%}"
    yield "{%- for part in message['content'] -%}"
    yield f"{{%- if part['type'] in ('image', 'image_url') -%}}{{{{- {_quoted(picture)} -}}}}"
    yield "{%- elif part['type'] == 'text' -%}" + text.replace("%s", "part['text']") + "{%- endif -%}"
    yield "{%- endfor -%}"
    yield "{%- endif -%}"


def _end(template: Template, words: Words) -> str:
    """What ends an answer."""
    return _spelt(template.answer_suffix, words) + (words.eos if template.answer_eos else "")


def _spelt(text: str, words: Words) -> str:
    """What a template writes, with the begin and end token as this tokenizer spells them; markers are as they are."""
    return re.sub("<s>|</s>", lambda found: words.bos if found[0] == "<s>" else words.eos, text)


def _refuse(condition: str, sentence: str) -> str:
    return f"{{%- if {condition} -%}}{{{{- raise_exception({_quoted(sentence)}) -}}}}{{%- endif -%}}"


def _quoted(text: str) -> str:
    """A string in Jinja, whose escapes are Python's."""
    return json.dumps(text, ensure_ascii=False)
