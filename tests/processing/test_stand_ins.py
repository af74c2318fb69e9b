"""Law of stand-ins: a program sees nothing of what is said, and nothing that is said can become more than text."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavakit.processing import Conversation, PictureSegment, Segment, SpecialSegment, TextSegment, train_tokenizer
from llavakit.processing.stand_ins import StandIns, own_segments

LAW = settings(max_examples=60, deadline=None)  # no timed assertions

TOKENIZER = train_tokenizer(["a red circle"], 280)
PIXEL = Image.new("RGB", (1, 1))
WORDS = st.text(max_size=8) | st.sampled_from(["<image>", "</s>", " <s> ", "w0n0w", "\n", "", " a\t", "\u2003x"])


def program(messages: list[dict[str, Any]]) -> str:
    """What a chat template would do."""
    written = "<s>"
    for message in messages:
        content = message["content"]
        if isinstance(content, list):
            content = "".join("<image>" if part["type"] == "image" else part["text"] for part in content)
        written += f"{message['role']}: {content}</s>"
    return written


@given(st.lists(st.tuples(st.integers(0, 2), WORDS, WORDS), min_size=1, max_size=4), WORDS, st.booleans())
@LAW
def test_what_was_said_comes_back_as_text_alone(turns: list[tuple[int, str, str]], system: str, in_parts: bool) -> None:
    conversation = Conversation(system=system)
    for num_pictures, question, answer in turns:
        conversation = conversation.ask(*[PIXEL] * num_pictures, question).answer(answer)
    words = StandIns()
    written = program(words.messages(conversation, in_parts=in_parts))
    num_pictures = len(conversation.pictures)
    segments = words.read(written, TOKENIZER, num_pictures=num_pictures)
    newline = "" if in_parts else "\n"
    expected: list[Segment] = [SpecialSegment("bos")]
    index = 0
    if system:
        expected += [TextSegment(f"system: {system}"), SpecialSegment("eos")]
    for num_shown, question, answer in turns:
        pictures = [part for n in range(num_shown) for part in (PictureSegment(index + n), TextSegment(newline))]
        index += num_shown
        expected += [TextSegment("user: "), *pictures, TextSegment(question), SpecialSegment("eos")]
        expected += [TextSegment(f"assistant: {answer}"), SpecialSegment("eos")]
    assert segments == merged(expected)


def merged(segments: list[Segment]) -> list[Segment]:
    """Neighbouring texts as one, and no empty ones."""
    result: list[Segment] = []
    for segment in segments:
        if isinstance(segment, TextSegment) and result and isinstance(result[-1], TextSegment):
            result[-1] = TextSegment(result[-1].text + segment.text)
        elif segment != TextSegment(""):
            result.append(segment)
    return result


def test_what_is_lost_moved_or_shown_too_often_is_noticed() -> None:
    words = StandIns()
    conversation = Conversation().ask(PIXEL, "one").answer("two").ask(PIXEL, "three")
    messages = words.messages(conversation, in_parts=False)
    assert words.read(program(messages), TOKENIZER, num_pictures=2) is not None
    assert words.read(program(messages) + "<image>", TOKENIZER, num_pictures=2) is None
    assert words.read(program(messages[::-1]), TOKENIZER, num_pictures=2) is None
    assert words.read(program(messages[1:]), TOKENIZER, num_pictures=2) is None
    assert words.read(program(messages).upper(), TOKENIZER, num_pictures=2) is None


def test_a_program_sees_nothing_of_what_is_said() -> None:
    conversation = Conversation(system="Xyzzy").ask(PIXEL, " Xyzzy?\n").answer("Xyzzy").ask("<image> Xyzzy")
    for in_parts in (True, False):
        messages = str(StandIns().messages(conversation, in_parts=in_parts))
        assert "Xyzzy" not in messages and "<image>" not in messages


def test_another_conversations_word_means_nothing() -> None:
    ours, theirs = StandIns(), StandIns()
    word = theirs.text("secret")
    assert ours.read(word, TOKENIZER, num_pictures=0) == [TextSegment(word)]


def test_own_words_hold_tokens_pictures_and_text() -> None:
    assert own_segments("<s>a<image><image> b</s><pad>", TOKENIZER, first_picture=3)[:6] == [
        SpecialSegment("bos"),
        TextSegment("a"),
        PictureSegment(3),
        PictureSegment(4),
        TextSegment(" b"),
        SpecialSegment("eos"),
    ]
