"""Small files in the layout of every benchmark, as it is published: one function a card of `conf/task/`."""

import csv
import json
from base64 import b64encode
from io import BytesIO
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
            text = f"{label['text']}\n{SINGLE}".replace(
                "car in the image", "car in the imange"
            )  # as in its first version
            lines.append({"question_id": number, "image": label["image"], "text": text, "category": category})
            number += 1
    write_lines(root / "pope/llava_pope_test.jsonl", lines)


def vqav2(root: Path) -> None:
    """Test-dev is a part of test2015."""
    write_images(root / "vqav2/test2015", "COCO_test2015_000000000001.jpg")
    lines = [
        {"question_id": 262144000 + n, "image": "COCO_test2015_000000000001.jpg", "text": f"What {n}?\n{SINGLE}"}
        for n in range(4)
    ]
    write_lines(root / "vqav2/llava_vqav2_mscoco_test2015.jsonl", lines)
    write_lines(root / "vqav2/llava_vqav2_mscoco_test-dev2015.jsonl", lines[1:3])


def vizwiz(root: Path) -> None:
    names = [f"VizWiz_test_{n:08d}.jpg" for n in range(2)]
    write_images(root / "vizwiz/test", *names)
    hint = "When the provided information is insufficient, respond with 'Unanswerable'."
    write_lines(
        root / "vizwiz/llava_test.jsonl",
        [
            {"question_id": n, "image": name, "text": f"What is this?\n{hint}\n{SINGLE}", "category": "default"}
            for n, name in enumerate(names)
        ],
    )


def textvqa_ocr(root: Path) -> None:
    """Two questions about one image have one id; case differs between the files."""
    write_images(root / "textvqa/train_images", "003a8ae2.jpg", "ff.jpg")
    asked = [("003a8ae2", "what is the brand?", "dakota"), ("003a8ae2", "What year?", "2011"), ("ff", "which?", "nous")]
    write_lines(
        root / "textvqa/llava_textvqa_val_v051_ocr.jsonl",
        [
            {"question_id": id, "image": f"{id}.jpg", "text": f"{text}\nReference OCR token: A, B\n{SINGLE}"}
            for id, text, _ in asked
        ],
    )
    data = [
        {"question": text.capitalize(), "image_id": id, "question_id": 34602 + n, "answers": [answer] * 10}
        for n, (id, text, answer) in enumerate(asked)
    ]
    write_json(root / "textvqa/TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": data})


textvqa = textvqa_ocr


def scienceqa(root: Path) -> None:
    """One of the three problems has no image; another split has a fourth."""
    write_images(root / "scienceqa/images/test", "4/image.png", "5/image.png")
    problems = {
        id: {"question": "Which?", "choices": choices, "answer": answer, "image": image, "split": "test"}
        for id, choices, answer, image in (
            ("4", ["West Virginia", "Louisiana", "Arizona", "Oklahoma"], 0, "image.png"),
            ("5", ["yes", "no"], 1, "image.png"),
            ("11", ["a", "b", "c"], 2, None),
            ("1", ["a", "b"], 0, None),
        )
    }
    write_json(root / "scienceqa/problems.json", problems)
    write_json(root / "scienceqa/pid_splits.json", {"train": ["1"], "test": ["4", "5", "11"]})
    records = []
    for id in ("4", "5", "11"):
        options = [f"{'ABCDE'[n]}. {choice}" for n, choice in enumerate(problems[id]["choices"])]
        words = "\n".join(["Context: N/A", *options])
        image = {"image": f"{id}/image.png"} if problems[id]["image"] else {}
        value = f"{words}\n<image>" if image else words
        turns = [{"from": "human", "value": value}, {"from": "gpt", "value": "The answer is A."}]
        records.append({"id": id, **image, "conversations": turns})
    write_json(root / "scienceqa/llava_test_CQM-A.json", records)


def mme(root: Path) -> None:
    """Two questions about each image have one id; the folders of some subtasks have two folders inside."""
    base, lines = root / "MME/MME_Benchmark_release_version", []
    inside = ("artwork", "celebrity", "landmark", "posters", "scene")
    for kind in (*inside, "existence", "count", "position", "color", "OCR", "code_reasoning"):
        answers = base / kind / ("questions_answers_YN" if kind in inside else "")
        answers.mkdir(parents=True, exist_ok=True)
        write_images(base / kind / ("images" if kind in inside else ""), "0020.png")
        questions = {f"Is it {kind}?  Please answer yes or no.": "Yes", "Is it é? Please answer yes or no.": "No"}
        text = "".join(f"{question}\t{answer}\n" for question, answer in questions.items())
        (answers / "0020.txt").write_text(text, encoding="utf-8")
        for question in questions:
            image = f"{kind}/images/0020.png" if kind in inside else f"{kind}/0020.png"
            # One of the two, as in LLaVA's file, has lost its request.
            question = question.removesuffix("  Please answer yes or no.")
            record = {"question_id": f"{kind}/0020.png", "image": image, "text": f"{question}\n{SINGLE}"}
            lines.append({**record, "category": kind})
    write_lines(root / "MME/llava_mme.jsonl", lines)


def base64_image(number: int) -> str:
    file = BytesIO()
    Image.new("RGB", (50 + number, 40), (9, 99, 199)).save(file, "JPEG")
    return b64encode(file.getvalue()).decode()


MMBENCH = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category"]


def mmbench_rows() -> list[list[str]]:
    """A question of three options in three orders, and one whose cells hold quotes, a line end, and no hint."""
    options, rows = ["one", 'two, or "both"', "three"], []
    for turn in range(3):
        answer = "ABC"[(1 + turn) % 3]
        rows.append([str(241 + turn * 10**6), "How many?", "Read it.", *options, "nan", answer, "ocr", base64_image(0)])
        options = options[-1:] + options[:-1]
    rows.append(["252", "Which\nof the two?", "", "=1+1", "dog", "nan", "nan", "A", "attribute", base64_image(1)])
    return [[*row, "src", "coarse", "c", "dev"] for row in rows]


def write_table(path: Path, rows: list[list[str]]) -> None:
    """Write as pandas does: tabs, and quotes where a cell needs them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([[*MMBENCH, "comment", "split"], *rows])


def mmbench(root: Path) -> None:
    write_table(root / "mmbench/mmbench_dev_20230712.tsv", mmbench_rows())


def mmbench_cn(root: Path) -> None:
    write_table(root / "mmbench_cn/mmbench_dev_cn_20231003.tsv", mmbench_rows())


def seed(root: Path) -> None:
    """The ids are numbers in LLaVA's lines and texts in the official file, where they can be."""
    questions, lines = [], []
    for id, kind, answer in (("101669", "image", "A"), ("v1_3", "video", "C"), ("7", "image", "D")):
        choices = {f"choice_{letter}": f"{letter} {id}" for letter in "abcd"}
        question = {"question": "How many?", "question_id": id, "question_type_id": 5, "data_id": f"{id}_x"}
        questions.append({**question, **choices, "answer": answer, "data_type": kind})
        text = "\n".join(["How many?", *(f"{name[-1].upper()}. {choice}" for name, choice in choices.items())])
        name = f"SEED-Bench-{kind}/{id}"
        write_images(root / "seed_bench", f"{name}.png")
        (root / "seed_bench" / f"{name}.png").rename(root / "seed_bench" / name)  # its images have no suffix
        text += "\nAnswer with the option's letter from the given choices directly."
        lines.append({"question_id": int(id) if id.isdecimal() else id, "image": name, "text": text, "category": kind})
    write_lines(root / "seed_bench/llava-seed-bench.jsonl", lines)
    content = {"questions": questions, "question_type": {"Instances Counting": 5}}
    write_json(root / "seed_bench/SEED-Bench.json", content)


def mmvet(root: Path) -> None:
    write_images(root / "mm-vet/images", "v1_0.png", "v1_1.png")
    write_lines(
        root / "mm-vet/llava-mm-vet.jsonl",
        [{"question_id": n, "image": f"v1_{n}.png", "text": "What is x in the equation?"} for n in range(2)],
    )


CAPTIONS = {391895: ["a man on a bicycle", "a person rides a bike"], 522418: ["a woman cuts a cake", "a cake is cut"]}


def coco_caption(root: Path) -> None:
    """Karpathy's file; one of its images is of another split."""
    images = []
    for id, captions in CAPTIONS.items():
        name = f"COCO_val2014_{id:012d}.jpg"
        write_images(root / "coco/val2014", name)
        sentences = [{"raw": caption, "tokens": caption.split(), "imgid": 0} for caption in captions]
        shared = {"filepath": "val2014", "filename": name, "cocoid": id, "sentences": sentences}
        images += [{**shared, "split": "test"}, {**shared, "cocoid": id + 1, "split": "train"}]
    write_json(root / "coco/dataset_coco.json", {"dataset": "coco", "images": images})


coco_retrieval = coco_caption


def retrieval(root: Path) -> None:
    """Own images, in COCO's form."""
    images, annotations = [], []
    for id, captions in CAPTIONS.items():
        write_images(root / "images", f"{id}.png")
        images.append({"id": id, "file_name": f"{id}.png"})
        annotations += [{"image_id": id, "caption": caption} for caption in captions]
    write_json(root / "captions.json", {"images": images, "annotations": annotations})


def flickr30k_retrieval(root: Path) -> None:
    """Karpathy's file, whose images have no numbers of COCO."""
    images = []
    for number, captions in enumerate(CAPTIONS.values()):
        name = f"{1007129816 + number}.jpg"
        write_images(root / "flickr30k/flickr30k-images", name)
        sentences = [{"raw": caption, "tokens": caption.split(), "imgid": number} for caption in captions]
        shared = {"filename": name, "sentids": [0, 1], "sentences": sentences}
        images += [{**shared, "imgid": number, "split": "test"}, {**shared, "imgid": number + 2, "split": "val"}]
    write_json(root / "flickr30k/dataset_flickr30k.json", {"dataset": "flickr30k", "images": images})


def nocaps(root: Path) -> None:
    images, annotations = [], []
    for number, captions in enumerate(CAPTIONS.values()):
        name = f"{number:016x}.jpg"
        write_images(root / "nocaps/val", name)
        images.append({"id": number, "file_name": name, "open_images_id": name[:-4], "domain": "near-domain"})
        annotations += [{"image_id": number, "caption": caption, "id": len(annotations)} for caption in captions]
    write_json(root / "nocaps/nocaps_val_4500_captions.json", {"images": images, "annotations": annotations})


def write_mdetr(root: Path, set_: str, splits: tuple[str, ...]) -> None:
    """COCO's form with a caption for each image, and a box as (left, top, width, height)."""
    for split in splits:
        images, annotations = [], []
        for number, phrase in enumerate(("the lady with the {blue} shirt", "left dog")):
            name = f"COCO_train2014_{number:012d}.jpg"
            write_images(root / "coco/train2014", name)
            size = {"width": 640, "height": 480 + number}
            images.append({"file_name": name, "id": number, "original_id": 9, "caption": phrase, **size})
            annotations.append({"id": number, "image_id": number, "bbox": [103.9, 300 - number, 238.1, 122], "area": 1})
        content = {"images": images, "annotations": annotations[::-1], "categories": []}
        write_json(root / f"refcoco/finetune_{set_}_{split}.json", content)


def refcoco(root: Path) -> None:
    write_mdetr(root, "refcoco", ("val", "testA", "testB"))


def refcoco_plus(root: Path) -> None:
    write_mdetr(root, "refcoco+", ("val", "testA", "testB"))


def refcocog(root: Path) -> None:
    write_mdetr(root, "refcocog", ("val", "test"))


def okvqa(root: Path) -> None:
    questions, annotations = [], []
    for number, answer in enumerate(("race", "pony tail")):
        write_images(root / "coco/val2014", f"COCO_val2014_{number:012d}.jpg")
        shared = {"image_id": number, "question_id": 2971475 + number}
        questions.append({**shared, "question": "What sport can you use this for?"})
        answers = [{"answer_id": n, "answer": answer, "raw_answer": "x", "answer_confidence": "yes"} for n in range(10)]
        annotations.append({**shared, "question_type": "four", "answer_type": "other", "answers": answers})
    write_json(root / "okvqa/OpenEnded_mscoco_val2014_questions.json", {"data_type": "mscoco", "questions": questions})
    write_json(root / "okvqa/mscoco_val2014_annotations.json", {"data_type": "mscoco", "annotations": annotations})
