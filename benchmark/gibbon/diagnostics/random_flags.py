"""Flags of models that answer the same inputs differently each time.

Source: A. Athalye, N. Carlini and D. Wagner, "Obfuscated gradients give a false sense of security",
ICML 2018, section 4.2: the gradient of one draw is not that of the expectation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from gibbon.records.flags import Flag

KIND = "random-answers"
RANDOM = "answers the same inputs differently each time"
ELSEWHERE = (
    "; the differences come from random numbers elsewhere than in torch, numpy and random, or from "
    "a state out of reach, so that results are never taken from an earlier run"
)
CHANGING = (
    "answers the same inputs differently from call to call, by state that each call changes, so "
    "that results depend on the order of the calls and are never taken from an earlier run"
)


def changing_flag(dataset: str, model: str) -> Flag:
    """Returns the flag of a model whose answers depend on the calls before, not on chance."""
    return Flag(kind="stateful-answers", dataset=dataset, model=model, sentence=CHANGING)


def random_flags(
    dataset: str,
    model: str,
    *,
    draws: int,
    repeatable: bool,
    eot: Mapping[str, int | None],
    searches: Collection[str] = (),
) -> Iterator[Flag]:
    """Yields the flags of a model that answers at random.

    Its errors are mean shares over draws, so that they are what they say: a note.  It is serious if
    there is one draw only, and for an attack that follows the gradient of one draw.

    Args:
        dataset: the dataset's name.
        model: the model's name.
        draws: number of times that it was evaluated on each input.
        repeatable: whether its random numbers can be seeded.
        eot: by the label of each attack, the number of draws that its gradient is averaged over;
            None for an attack without gradients.
        searches: labels of the attacks that search the nearest adversarial example.
    """
    several = draws > 1
    means = f"an error is the mean share of {draws} answers"
    sentence = f"{RANDOM}: {means if several else 'its numbers are one draw of many'}"
    yield Flag(
        kind=KIND,
        severity="note" if several else "serious",
        dataset=dataset,
        model=model,
        figure=f"draws {draws}",
        sentence=sentence + ("" if repeatable else ELSEWHERE),
        advice="" if several else "Evaluate it on several draws: draws = 20.",
    )
    for attack, averaged in eot.items():
        if averaged == 1:
            yield Flag(
                kind=KIND,
                dataset=dataset,
                model=model,
                attack=attack,
                figure="eot 1",
                sentence="each step follows the gradient of one draw of the model's random numbers",
                suite="eot = 20",
            )
        elif attack in searches:
            yield Flag(
                kind=KIND,
                severity="warning",
                dataset=dataset,
                model=model,
                attack=attack,
                figure="about half of the draws",
                sentence="a search of the nearest adversarial example ends where about half of the "
                "draws are wrong, however large epsilon is: its error is a lower bound",
                advice="Add an attack that uses its whole budget, such as pgd with eot = 20.",
            )
