"""A small random InfiniteVL composed of transformers' parts: Qwen2.5-VL whose delta layers call Qwen3.5's recurrence.

No package has InfiniteVL; its delta layer is written here again from its equations, and all else is transformers' own.
"""

import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers.models.qwen3_5.modeling_qwen3_5 import torch_recurrent_gated_delta_rule

WIDTH, HEADS, KEY, VALUE = 32, 2, 16, 32
IMAGE, START, END = 1000, 1001, 1002


class Delta(nn.Module):
    """Gated DeltaNet of InfiniteVL, under its names: three convolutions, decay, rate, a norm before the gate."""

    def __init__(self):
        super().__init__()
        for name, size in (("q", KEY), ("k", KEY), ("v", VALUE)):
            setattr(self, f"{name}_proj", nn.Linear(WIDTH, HEADS * size, bias=False))
            convolution = nn.Conv1d(HEADS * size, HEADS * size, 4, groups=HEADS * size, padding=3, bias=False)
            setattr(self, f"{name}_conv1d", convolution)
        self.a_proj, self.b_proj = (nn.Linear(WIDTH, HEADS, bias=False) for _ in range(2))
        self.g_proj = nn.Linear(WIDTH, HEADS * VALUE, bias=False)
        self.A_log, self.dt_bias = nn.Parameter(torch.rand(HEADS)), nn.Parameter(torch.rand(HEADS))
        self.o_norm = nn.RMSNorm(VALUE, eps=1e-5)
        self.o_proj = nn.Linear(HEADS * VALUE, WIDTH, bias=False)

    def forward(self, hidden_states, **_):
        x = hidden_states
        q, k, v = (
            F.silu(getattr(self, f"{name}_conv1d")(getattr(self, f"{name}_proj")(x).mT)[..., : x.shape[1]]).mT
            for name in "qkv"
        )
        q, k, v = (part.unflatten(-1, (HEADS, -1)) for part in (q, k, v))
        decay = -self.A_log.exp() * F.softplus(self.a_proj(x) + self.dt_bias)
        rate = self.b_proj(x).sigmoid()
        y, _ = torch_recurrent_gated_delta_rule(q, k, v, decay, rate, use_qk_l2norm_in_kernel=True)
        y = self.o_norm(y) * F.silu(self.g_proj(x).unflatten(-1, (HEADS, -1)))
        return self.o_proj(y.flatten(2)), None


torch.manual_seed(2)
config = transformers.Qwen2_5_VLConfig(
    text_config={
        "vocab_size": 1024,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        "use_sliding_window": True,
        "sliding_window": 8,
        "layer_types": ["sliding_attention"] + ["full_attention"] * 3,
        "tie_word_embeddings": True,
    },
    vision_config={
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 48,
        "patch_size": 4,
        "window_size": 16,
        "fullatt_block_indexes": [1],
        "out_hidden_size": WIDTH,
    },
    tie_word_embeddings=True,
    image_token_id=IMAGE,
    vision_start_token_id=START,
    vision_end_token_id=END,
)
model = transformers.Qwen2_5_VLForConditionalGeneration(config)
for layer in model.model.language_model.layers[1:]:
    layer.self_attn = Delta()
model.eval()
rows, cols = 6, 8
pixels = torch.randn(3, 4 * rows, 4 * cols)
blocks = pixels.view(3, rows // 2, 2, 4, cols // 2, 2, 4).permute(1, 4, 2, 5, 0, 3, 6)
patches = blocks[..., None, :, :].expand(*blocks.shape[:5], 2, 4, 4).reshape(rows * cols, -1)
count = rows * cols // 4
ids = torch.tensor([[5, 6, START, *[IMAGE] * count, END, *torch.randint(900, (9,)).tolist()]])
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    logits = model(
        input_ids=ids,
        pixel_values=patches,
        image_grid_thw=torch.tensor([[1, rows, cols]]),
        mm_token_type_ids=(ids == IMAGE).int(),
    ).logits
tensors = {"pixels": pixels, "ids": ids, "logits": logits}
tensors |= {f"model/{name}": value for name, value in model.state_dict().items() if name != "lm_head.weight"}
save_file({name: value.clone().contiguous() for name, value in tensors.items()}, Path(sys.argv[1]))
