"""Reader of questions in LLaVA's lines and conversations."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmrnn.data.readers.dialogue import file_name
from mmrnn.evaluation.tasks.question import Question, QuestionReader
from mmrnn.evaluation.tasks.readers.records import at, existing, get, get_id, images_in, make_question, records
from mmrnn.evaluation.tasks.readers.references import References
from mmrnn.io.errors import RecordError
from mmrnn.types import TAG, Prompt


class QuestionLines(QuestionReader):
    """Questions of a `.jsonl` or `.json` file: records of `question_id`, `image` and `text`, or of `id`, `image` and
    `conversations` of a question and its reply. `image` may be left out, or a list; `category` is the kind.

    Args:
        file: of the questions.
        image_folder: in which `image` names a file.
        references: of the questions; None: there are none on disk.
        shared_ids: several questions may have one id, as those about an image in MME and TextVQA; the n-th of them is
            then `ID#n`, and keeps its id in the record.
        left_out: beginning of lines that are left out of the questions; "": none.
    """

    def __init__(
        self,
        *,
        file: str,
        image_folder: str,
        references: References | None = None,
        shared_ids: bool = False,
        left_out: str = "",
    ) -> None:
        self.file, self.image_folder, self.references = file, image_folder, references
        self.shared_ids, self.left_out = shared_ids, left_out

    def questions(self, root: Path, *, suffix: str, prompt: Prompt) -> Iterator[Question]:
        """Yield the questions. See `QuestionReader`."""
        path, images = existing(root, self.file), images_in(root, self.image_folder)
        lookup = self.references.open(root) if self.references else None
        seen: Counter[str] = Counter()
        for place, record in records(path):
            with at(place):
                given = get_id(record, "question_id", "id")
                id = str(given)
                if self.shared_ids:
                    seen[id] += 1
                    id = f"{id}#{seen[id]}"
                text = self._text(record)
                names = record.get("image") or []
                names = names if isinstance(names, list) else [names]
                found = [images.image(file_name(name, "image"), {}, id) for name in names]
                reference = lookup(record, text) if lookup else None
                kind = get(record, "category", str) if "category" in record else ""
                yield make_question(
                    place,
                    text,
                    found,
                    suffix,
                    id=id,
                    image=", ".join(image.key for image in found),
                    kind=(reference.kind if reference else "") or ("" if kind == "default" else kind),
                    truths=reference.truths if reference else (),
                    options=reference.options if reference else (),
                    record={"question_id": given, **(reference.record if reference else {})},
                )

    def _text(self, record: Mapping[str, Any]) -> str:
        if "conversations" not in record:
            text = get(record, "text", str)
        else:
            turns = get(record, "conversations", list)
            if not 1 <= len(turns) <= 2:
                raise RecordError("a conversation must be a question and its reply", f"{len(turns)} turns")
            text = get(turns[0], "value", str)
            if not isinstance(record.get("image"), list):
                words = text.replace(TAG, "").strip()
                text = f"{TAG}\n{words}" if record.get("image") else words
        lines = text.split("\n")
        return "\n".join(line for line in lines if not self.left_out or not line.startswith(self.left_out))
