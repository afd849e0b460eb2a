"""Files of energax taken apart, changed, and put together again with the right checksum, as who tampers would."""

import json
import random
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save as to_bytes

from energax.saving.container import checksum


def take_apart(file: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """What a file says, and its tensors."""
    with safe_open(file, "numpy") as opened:
        names = opened.keys()  # which is no mapping that could be gone through
        return json.loads(opened.metadata()["energax"]), {name: opened.get_tensor(name) for name in names}


def put_together(file: Path, content: dict, tensors: dict[str, np.ndarray]) -> None:
    """Write a file with the right checksum, whatever it says."""
    content = {name: value for name, value in content.items() if name != "sha256"}
    text = json.dumps(content)
    seal = checksum(text, tensors)
    file.write_bytes(to_bytes(tensors, {"energax": f'{{"sha256": "{seal}", {text[1:]}'}))


ODD = (None, True, -1, 0, 2**70, 1.5, "", "x", [], {}, [[]], {"tuple": []}, {"array": "x"}, {"known": "jax.numpy.tanh"})
ODD += (
    {"float": "nan"},
    {"class": "energax.layers.Linear", "fields": {}},
    {"known": "energax.graph.Graph"},
    {"dict": [1]},
)


def find_places(node, kinds: tuple[type, ...] = (object,)) -> list[tuple]:
    """Every container of a JSON tree with a key of it, where what is there is of one of the kinds."""
    places = []

    def walk(at):
        for key in at if isinstance(at, dict) else range(len(at)):
            if isinstance(at[key], kinds):
                places.append((at, key))
            if isinstance(at[key], (dict, list)):
                walk(at[key])

    walk(node)
    return places


def change_tree(node, chance: random.Random) -> None:
    """One place in a JSON tree changed: replaced, dropped, doubled, or exchanged for another part of the tree."""
    places = find_places(node)
    if not places:
        return
    at, key = chance.choice(places)
    action = chance.randrange(4)
    if action == 0:
        at[key] = json.loads(json.dumps(chance.choice(ODD)))
    elif action == 1:
        del at[key]
    elif action == 2:
        other, place = chance.choice(places)
        at[key] = json.loads(json.dumps(other[place]))
    elif isinstance(at, list):
        at.insert(key, json.loads(json.dumps(at[key])))
    else:
        at[f"{key}x"] = at.pop(key)
