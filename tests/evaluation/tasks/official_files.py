"""Small files in the layout of every benchmark, as it is published: one function a card of `conf/task/`."""

import json
from pathlib import Path

from PIL import Image

SINGLE = "Answer the question using a single word or phrase."


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def write_lines(path: Path, records) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def write_images(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + number, 30), (number % 256, 80, 120)).save(folder / name)


def files(root: Path) -> None:
    write_images(root / "images", "a.png", "b.png")
    write_lines(
        root / "questions.jsonl",
        [
            {"question_id": 1, "image": "a.png", "text": "What is it?", "answer": "a kite", "category": "what"},
            {
                "question_id": "2",
                "image": "b.png",
                "text": "Which?",
                "answers": ["red", "dark red"],
                "category": "which",
            },
            {"question_id": 3, "text": "Two and two?", "answer": "4", "options": ["3", "4"]},
            {
                "id": "dialogue",
                "image": ["a.png", "b.png"],
                "conversations": [
                    {"from": "human", "value": "First <image>, second <image>: which is wider?"},
                    {"from": "gpt", "value": "the second"},
                ],
            },
        ],
    )


def gqa(root: Path) -> None:
    write_images(root / "gqa/data/images", "n1.jpg", "n2.jpg")
    asked = [
        ("201307251", "n1", "Is it overcast?", "no"),
        ("2", "n1", "Who is it?", "boy"),
        ("3", "n2", "Where?", "sea"),
    ]
    write_lines(
        root / "gqa/llava_gqa_testdev_balanced.jsonl",
        [
            {"question_id": id, "image": f"{image}.jpg", "text": f"{text}\n{SINGLE}", "category": "default"}
            for id, image, text, _ in asked
        ],
    )
    truths = {
        id: {"imageId": image, "question": text, "answer": answer, "fullAnswer": f"It is {answer}.", "isBalanced": True}
        for id, image, text, answer in asked
    }
    write_json(root / "gqa/data/testdev_balanced_questions.json", truths)


def pope(root: Path) -> None:
    """The lines of the questions are in another order than those of the labels, and one label is not asked for."""
    write_images(root / "pope/val2014", *(f"COCO_val2014_{n:012d}.jpg" for n in range(2)))
    lines, number = [], 0
    for category in ("adversarial", "popular", "random"):
        labels = [
            {
                "question_id": n + 1,
                "image": f"COCO_val2014_{n // 2:012d}.jpg",
                "text": f"Is there a {thing} in the image?",
                "label": label,
            }
            for n, (thing, label) in enumerate(
                [("dog", "yes"), (f"{category} cup", "no"), ("car", "yes"), ("tree", "no"), ("sky", "yes")]
            )
        ]
        write_images(root / "pope/val2014", f"COCO_val2014_{2:012d}.jpg")
        write_lines(root / f"pope/coco/coco_pope_{category}.json", labels)
        for label in reversed(labels[:4]):
            text = f"{label['text']}\n{SINGLE}"
            lines.append({"question_id": number, "image": label["image"], "text": text, "category": category})
            number += 1
    write_lines(root / "pope/llava_pope_test.jsonl", lines)
