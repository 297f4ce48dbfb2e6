"""Parts of mmrnn in your own program: no configuration, only torch.

A Q-Former turns image features into visual tokens, the prefix from which a small RWKV-6 learns to generate captions.
Then it generates them: the image is processed once, and every token after it has the same cost.
"""

import torch
from torch.nn import functional as F

from mmrnn.backbones import RWKV6
from mmrnn.connectors import QFormer
from mmrnn.types import SLOT, Sequence

torch.manual_seed(0)
features = torch.randn(4, 49, 512)  # from any encoder: four images, 7 x 7 tokens of width 512
captions = torch.randint(256, (4, 12))  # from any tokenizer

qformer = QFormer(512, 64, queries=8, width=64, depth=2, heads=4, ffn=128, dropout=0.0)
rwkv = RWKV6(vocab=256, width=64, depth=2, head_size=32)
optimizer = torch.optim.AdamW([*qformer.parameters(), *rwkv.parameters()], lr=3e-3)
slots = torch.full((4, 8), SLOT)  # positions of visual tokens

for _ in range(40):
    ids = torch.cat([slots, captions], dim=1)
    embeds = torch.cat([qformer(features), rwkv.embed(captions)], dim=1)
    hidden, _ = rwkv(Sequence(ids, embeds=embeds))
    logits = rwkv.head(hidden[:, 7:-1])  # the last query predicts the first token
    loss = F.cross_entropy(logits.flatten(0, 1), captions.flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()

with torch.no_grad():
    hidden, state = rwkv(Sequence(slots, embeds=qformer(features)))
    tokens = [rwkv.head(hidden[:, -1:]).argmax(-1)]
    while len(tokens) < 12:
        hidden, state = rwkv(Sequence(tokens[-1]), state)
        tokens.append(rwkv.head(hidden).argmax(-1))

correct = (torch.cat(tokens, dim=1) == captions).float().mean()
print(f"loss {loss:.3f}, {correct:.0%} of the tokens correct, state of {state.nbytes // 1024} KiB")
