"""What is said of a scene, and what a prompt says."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pavdm_jax.data.shapes_world.sampling import Split, sample_scene
from pavdm_jax.data.shapes_world.scene import COLORS, DIRECTIONS, KINDS, Scene, Shape
from pavdm_jax.data.shapes_world.world import SIMPLE, World
from pavdm_jax.errors import ConfigError

_SIZE_WORDS = {"small": "small", "little": "small", "large": "large", "big": "large"}
_VERBS = {"moves": "move", "glides": "glide", "bounces": "bounce"}
_ADJECTIVES = {"slow": "slow", "fast": "fast"}
_ADVERBS = {"slowly": "slow", "fast": "fast", "quickly": "fast"}
_JOINTS = ("a", "an", "and", ",")
_ANY_KIND = "shape"
SIZE_NAMED, SPEED_NAMED, DIRECTION_NAMED, VERB_SHARED = 0.9, 0.9, 0.5, 0.6  # probabilities, where there is a choice


@dataclass(frozen=True)
class Description:
    """What a caption says of one shape; None where it says nothing. `direction` is the initial one."""

    kind: str | None
    color: str | None
    size: str | None = None
    speed: str | None = None
    direction: str | None = None


def caption(scene: Scene, rng: np.random.Generator, complete: bool = False, world: World = SIMPLE) -> str:
    """A random caption of the scene, such as "a small blue square moves slowly left"; at most 25 words.

    Sizes and speeds are mostly named, directions half of the time; kinds and colours as often as the world says, at
    least one of the two. `complete` names all but directions, as evaluation prompts need. Several shapes share a verb
    more often than not: with an adverb if their speeds agree ("... and ... bounce slowly"), otherwise with adjectives
    ("a slow ... and a fast ... bounce"); a shared direction is named only if it is everyone's.
    """
    shapes = scene.shapes
    named = {name for name, p in (("size", SIZE_NAMED), ("speed", SPEED_NAMED)) if complete or rng.random() < p}
    named |= {"kind", "color"}
    if not complete and world.kinds_unnamed + world.colors_unnamed > 0:
        drawn = rng.random()
        if drawn < world.kinds_unnamed:
            named.remove("kind")
        elif drawn < world.kinds_unnamed + world.colors_unnamed:
            named.remove("color")
    if len(shapes) == 1 or rng.random() >= VERB_SHARED:
        return _join([_clause((shape,), rng, named) for shape in shapes])
    return _clause(shapes, rng, named)


def _clause(shapes: tuple[Shape, ...], rng: np.random.Generator, named: set[str]) -> str:
    """One verb with its subjects: "a red circle bounces fast"."""
    speeds, directions = ({getattr(shape, name) for shape in shapes} for name in ("speed", "direction"))
    as_adjective = "speed" in named and (len(speeds) > 1 or rng.random() < 0.25)
    subjects = [_subject(shape, rng, named, as_adjective) for shape in shapes]
    verb = str(rng.choice(list(_VERBS)))
    manner = []
    if "speed" in named and not as_adjective:
        manner.append(_one_word_for(shapes[0].speed, _ADVERBS, rng))
    if len(directions) == 1 and rng.random() < DIRECTION_NAMED:
        manner.insert(int(rng.integers(len(manner) + 1)), shapes[0].direction)
    return " ".join([_join(subjects), verb if len(shapes) == 1 else _VERBS[verb], *manner])


def _subject(shape: Shape, rng: np.random.Generator, named: set[str], with_speed: bool) -> str:
    words = [shape.kind if "kind" in named else _ANY_KIND]
    if "color" in named:
        words.insert(0, shape.color)
    if "size" in named:
        words.insert(0, _one_word_for(shape.size, _SIZE_WORDS, rng))
    if with_speed:
        words.insert(0, _one_word_for(shape.speed, _ADJECTIVES, rng))
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def _one_word_for(meaning: str, words: dict[str, str], rng: np.random.Generator) -> str:
    return str(rng.choice([word for word, means in words.items() if means == meaning]))


def _join(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def sample_captions(
    rng: np.random.Generator, count: int, split: Split | None = None, world: World = SIMPLE
) -> Iterator[str]:
    """`count` captions of random scenes, for training a tokenizer."""
    for _ in range(count):
        yield caption(sample_scene(rng, split=split, world=world), rng, world=world)


def parse_caption(text: str) -> list[Description]:
    """What a prompt says of each shape, in its order: the inverse of `caption`.

    Capital letters and full stops do not matter. A verb's speed and direction hold for all subjects that share it.

    Raises:
      ConfigError: a word outside the grammar, a verb without a shape, adjectives without a noun, or two values of one
        attribute.
    """
    done: list[dict[str, str]] = []
    subjects: list[dict[str, str]] = [{}]  # of the clause being read
    after_verb = False
    for word in re.findall(r"(?:up|down) (?:left|right)\b|[^\s,.]+|,", text.lower()):
        if word in _JOINTS:
            if after_verb:
                done, subjects, after_verb = done + subjects, [{}], False
            elif subjects[-1]:
                subjects.append({})
        elif word in _VERBS or word in _VERBS.values():
            subjects = [subject for subject in subjects if subject]
            if not subjects or after_verb:
                raise ConfigError(f"prompt {text!r}: the verb {word!r} has no shape of its own")
            after_verb = True
        else:
            name, value = _meaning(word, after_verb, text)
            for subject in subjects if after_verb else subjects[-1:]:
                known = subject.setdefault(name, value)
                if known != value:
                    raise ConfigError(f"prompt {text!r}: a shape has two values of {name}, {known} and {value}")
    found = [subject for subject in done + subjects if subject]
    if not found:
        raise ConfigError(f"prompt {text!r} names no shape; write for example: a small blue square moves slowly left")
    for subject in found:
        if "kind" not in subject:
            known = ", ".join((*KINDS, _ANY_KIND))
            raise ConfigError(f"prompt {text!r}: a shape has no kind; every shape needs one of the nouns {known}")
    return [_description(**subject) for subject in found]


def _description(kind: str, color: str | None = None, **others: str) -> Description:
    return Description(None if kind == _ANY_KIND else kind, color, **others)


def _meaning(word: str, after_verb: bool, text: str) -> tuple[str, str]:
    """The attribute that a word gives a value to, and the value."""
    before = (("kind", (*KINDS, _ANY_KIND)), ("color", COLORS), ("size", _SIZE_WORDS), ("speed", _ADJECTIVES))
    after = (("speed", _ADVERBS), ("direction", DIRECTIONS))
    for name, words in after if after_verb else before:
        if word in words:
            return name, str(words[word]) if words in (_SIZE_WORDS, _ADJECTIVES, _ADVERBS) else word
    place = "after a verb" if after_verb else "before a verb"
    known = ", ".join(word for _, words in (after if after_verb else before) for word in words)
    raise ConfigError(f"prompt {text!r}: cannot read {word!r} {place}; the words known there are {known}")
