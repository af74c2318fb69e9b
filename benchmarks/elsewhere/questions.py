"""Makes elsewhere.json from questions.txt:  python questions.py   (run beside the two)."""

import json
import re
from collections import Counter
from pathlib import Path

ONE_WORD = "Answer the question using a single word or phrase."


def main() -> None:
    here = Path(__file__).parent
    blocks = re.sub(r"(?m)^#.*\n", "", (here / "questions.txt").read_text("utf-8")).strip().split("\n\n")
    records = [record(*block.strip().split("\n")) for block in blocks]
    lines = ",\n".join(json.dumps(r, ensure_ascii=False) for r in records)
    (here / "elsewhere.json").write_text(f"[\n{lines}\n]\n", "utf-8")
    missing = [r["image"] for r in records if not (here / str(r["image"])).is_file()]
    kinds = Counter(kind for r in records for kind in r["kinds"])
    print(len(records), "pictures,", sum(kinds.values()), "questions:", dict(kinds), "missing:", missing)
    yes = [a for r in records for a, kind in zip(r["answers"], r["kinds"], strict=True) if kind == "existence"]
    print("existence:", dict(Counter(yes)))


def record(image: str, *lines: str) -> dict:
    """One picture and its rounds."""
    turns, kinds, answers = [], [], []
    for line in lines:
        kind, question, short, _, sentence = re.fullmatch(r"(\w+): (.+) = ([^|]+?)( \| (.+))?", line).groups()
        human = question if sentence else f"{question}\n{ONE_WORD}"
        said = sentence or short[0].upper() + short[1:]
        turns += [{"from": "human", "value": human if kinds else f"<image>\n{human}"}, {"from": "gpt", "value": said}]
        kinds.append(kind)
        answers.append(short.split(" + ") if " + " in short else short)
    name = Path(image).stem
    return {"id": name, "image": f"pictures/{image}", "program": name.rsplit("-", 1)[0], "conversations": turns,
            "kinds": kinds, "answers": answers}  # fmt: skip


if __name__ == "__main__":
    main()
