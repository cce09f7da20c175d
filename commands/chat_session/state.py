"""A chat: its turns, its settings, and how a question is answered."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace

from commands.chat_session.speaker import Answered, Speaker
from commands.chat_session.view import View
from datamodules.layouts.conversation import Message
from lightning_modules.evaluation.votes import same_answer, vote
from lightning_modules.generation.decoding import DecodingSettings

SAMPLED = 0.7  # temperature of /again and /vote if it is 0: at 0 each answer would be the same


@dataclass
class Turn:
    """A question and the last answer to it by each model; the first one is continued."""

    question: str
    answers: list[Answered] = field(default_factory=list)


@dataclass
class Chat:
    """The state that the commands change.

    load_base: loads the model before its training
    several:   the model was trained with several turns; else each question stands alone
    """

    tuned: Speaker
    view: View
    settings: DecodingSettings
    load_base: Callable[[], Speaker]
    several: bool
    seed: int = 1
    base: Speaker | None = None
    beside_base: bool = False
    system: str | None = None
    turns: list[Turn] = field(default_factory=list)
    ended: bool = False

    def __post_init__(self) -> None:
        self.first_settings = replace(self.settings)  # those of the command line

    def messages(self, question: str, before: int | None = None) -> list[Message]:
        """Return the messages that ask a question, with the first `before` turns if the model knows several."""
        messages = [Message("system", self.system)] if self.system is not None else []
        for turn in self.turns[:before] if self.several else []:
            if turn.answers and turn.answers[0].finished:  # what was stopped or cut off is no answer to go on from
                messages += [Message("user", turn.question), Message("assistant", turn.answers[0].text)]
        return [*messages, Message("user", question)]

    def ask(self, question: str) -> None:
        """Answer a question. KeyboardInterrupt stops the answer, which stays as far as it was written."""
        messages = self.messages(question)
        self.tuned.request(messages, self.settings, self.seed)  # raises for what cannot be asked, which is no turn
        self.turns.append(Turn(question))
        self._answer(messages, self.settings)

    def again(self) -> None:
        """Answer the last question once more, with another seed."""
        turn = self.turns[-1]
        turn.answers.clear()
        self._answer(self.messages(turn.question, -1), self.sampled())

    def vote(self, count: int) -> None:
        """Answer the last question several times, and show the answer that most of them give."""
        turn, settings = self.turns[-1], self.sampled()
        messages = self.messages(turn.question, -1)
        turn.answers.clear()
        answers: list[Answered] = []
        for number in range(1, count + 1):
            self.seed += 1
            request = self.tuned.request(messages, settings, self.seed)
            answers.append(Answered(self.tuned.name))
            with closing(self.tuned.answer(request, answers[-1])) as pieces:
                for _ in pieces:
                    pass
            self.view.say(f"{number}. {' '.join(answers[-1].answer.split()) or '(no answer)'}")
        result = vote([one.answer if one.finished and one.answer else None for one in answers], same_answer)
        if result.place is None:
            self.view.say("no answer came to its end, so there is no vote")
            return
        winner = answers[result.place]
        turn.answers.append(winner)
        self.view.say(f"{result.share:.0%} of {count:,} answers:")
        self.view.show(winner)

    def sampled(self) -> DecodingSettings:
        """Return the settings with a temperature above 0; it is said if that is another one."""
        if self.settings.temperature > 0:
            return self.settings
        self.view.say(f"(sampled at temperature {SAMPLED}: at 0 each answer would be the same)")
        return replace(self.settings, temperature=SAMPLED)

    def _answer(self, messages: list[Message], settings: DecodingSettings) -> None:
        self.seed += 1
        speakers = [self.tuned, self.base] if self.beside_base and self.base is not None else [self.tuned]
        for speaker in speakers:
            if len(speakers) > 1:
                self.view.say(f"{speaker.name}:")
            request = speaker.request(messages, settings, self.seed)
            answered = Answered(speaker.name)
            self.turns[-1].answers.append(answered)
            with closing(speaker.answer(request, answered)) as pieces:
                self.view.stream(pieces, answered)
