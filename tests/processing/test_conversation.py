"""Conversations grow without changing, and refuse what no template could write."""

from __future__ import annotations

import pytest
from PIL import Image

from llavakit.processing import Conversation, Message, Picture, Text, assistant, user


def test_a_conversation_grows_and_its_earlier_states_stay() -> None:
    first, second = Image.new("RGB", (2, 3)), Image.new("RGB", (4, 5))
    empty = Conversation()
    asked = empty.ask(first, "What is it?")
    answered = asked.answer("A dot.").ask("And", second, "this?")
    assert empty.messages == ()
    assert len(asked.messages) == 1
    assert answered.messages[0] is asked.messages[0]
    assert [message.role for message in answered.messages] == ["user", "assistant", "user"]
    assert answered.pictures == (first, second)
    assert answered.messages[2].parts == (Text("And"), Picture(second), Text("this?"))


def test_helpers_take_parts_as_they_are() -> None:
    picture = Picture(Image.new("RGB", (1, 1)))
    assert user(Text("a"), picture, "b").parts == (Text("a"), picture, Text("b"))
    assert assistant("yes") == Message("assistant", (Text("yes"),))


def test_the_system_prompt_stays_while_the_conversation_grows() -> None:
    assert Conversation(system="Be brief.").ask("Hi").answer("Hi").system == "Be brief."


@pytest.mark.parametrize(
    "messages",
    [(assistant("hello"),), (user("a"), user("b")), (user("a"), assistant("b"), assistant("c"))],
    ids=["assistant first", "user twice", "assistant twice"],
)
def test_turns_must_alternate(messages: tuple[Message, ...]) -> None:
    with pytest.raises(ValueError, match=r"turn: user and assistant alternate and the user begins\.$"):
        Conversation(messages)


def test_wrong_parts_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="not of bytes; see open_image"):
        user(b"\x89PNG")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="answers in words"):
        Message("assistant", (Picture(Image.new("RGB", (1, 1))),))
    with pytest.raises(ValueError, match="not from 'human'"):
        Message("human", ())  # type: ignore[arg-type]
