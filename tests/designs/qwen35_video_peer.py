"""A small random Qwen3.5 of transformers and its processor, given the frames of a video; writes what they compute."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.video_utils import VideoMetadata

folder = Path(sys.argv[1])
config = json.loads((folder / "config.json").read_text())
frames = np.load(folder / "frames.npy")

SPECIAL = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|endoftext|>"]
core = Tokenizer(models.BPE())
core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
core.decoder = decoders.ByteLevel()
letters = pre_tokenizers.ByteLevel.alphabet()
core.train_from_iterator(
    ["what?"], trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=letters)
)
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<|endoftext|>")

half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "patch_size": config["patch"], "merge_size": config["merge"]}
video = transformers.Qwen3VLVideoProcessor(
    **half,
    size={"shortest_edge": config["video_min_pixels"], "longest_edge": config["video_max_pixels"]},
    cap_pixels_per_frame=False,
    do_sample_frames=False,
)
image = transformers.Qwen2VLImageProcessor(**half)
processor = Qwen3VLProcessor(image, tokenizer, video)
metadata = VideoMetadata(total_num_frames=len(frames), fps=config["fps"], frames_indices=[*range(len(frames))])
# A pad alone, which becomes marks, times and pads: transformers 5 would leave marks around it where they are, twice.
text = "<|video_pad|>what?"
given = processor(text=[text], videos=[frames], video_metadata=[metadata], return_tensors="pt")

language = {"vocab": 320, "width": 64, "layers": 4, "ffn": 96, "heads": 4, "kv_heads": 2, "head_dim": 16, "theta": 1e4}
language |= {"partial": 0.5, "mrope": [2, 1, 1], "k_heads": 2, "v_heads": 4, "k_dim": 16, "tied": True}
language["layer_types"] = ["linear_attention"] * 3 + ["full_attention"]
rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
torch.manual_seed(1)
whole = transformers.Qwen3_5Config(
    text_config={
        "vocab_size": language["vocab"],
        "hidden_size": language["width"],
        "intermediate_size": language["ffn"],
        "num_hidden_layers": language["layers"],
        "num_attention_heads": language["heads"],
        "num_key_value_heads": language["kv_heads"],
        "head_dim": language["head_dim"],
        "linear_num_key_heads": language["k_heads"],
        "linear_num_value_heads": language["v_heads"],
        "linear_key_head_dim": language["k_dim"],
        "linear_value_head_dim": language["k_dim"],
        "layer_types": language["layer_types"],
        "rope_parameters": rope | {"mrope_section": language["mrope"], "mrope_interleaved": True},
        "tie_word_embeddings": True,
    },
    vision_config={
        "depth": config["depth"],
        "hidden_size": config["width"],
        "num_heads": config["heads"],
        "intermediate_size": config["ffn"],
        "patch_size": config["patch"],
        "spatial_merge_size": config["merge"],
        "out_hidden_size": language["width"],
        "num_position_embeddings": config["table"] ** 2,
    },
    tie_word_embeddings=True,
    **{f"{name}_token_id": core.token_to_id(f"<|{name}_pad|>") for name in ("image", "video")},
    **{f"vision_{name}_token_id": core.token_to_id(f"<|vision_{name}|>") for name in ("start", "end")},
)
model = transformers.Qwen3_5ForConditionalGeneration(whole).eval()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    # The tests give the tower of mmrnn these very pixels.
    logits = model(**given).logits
positions, _ = model.model.get_rope_index(
    given["input_ids"], given["mm_token_type_ids"], None, given["video_grid_thw"], given["attention_mask"]
)
facts = {
    "grid": given["video_grid_thw"][0].tolist(),
    "text": tokenizer.decode(given["input_ids"][0]),
    "video_id": core.token_to_id("<|video_pad|>"),
    "language": language,
}
(folder / "facts.json").write_text(json.dumps(facts))
weights = {f"model/{name}": value.clone() for name, value in model.state_dict().items() if name != "lm_head.weight"}
tensors = {"pixels": given["pixel_values_videos"], "ids": given["input_ids"], "logits": logits, "positions": positions}
save_file({name: value.contiguous() for name, value in (tensors | weights).items()}, folder / "tensors.safetensors")
