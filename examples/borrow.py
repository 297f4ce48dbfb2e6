"""Parts of mmrnn in a program of one's own: no configuration, nothing but torch behind them.

The queries of a Q-Former read features of images; what they answer is the prefix from which a small RWKV-6
learns to write captions. Then it writes them: an image is read once, and every word after it costs the same.
"""

import torch
from torch.nn import functional as F

from mmrnn.backbones import RWKV6
from mmrnn.connectors import QFormer
from mmrnn.types import SLOT, Sequence

torch.manual_seed(0)
features = torch.randn(4, 49, 512)  # of any encoder: four images, 7 x 7 tokens of width 512
captions = torch.randint(256, (4, 12))  # of any tokenizer

qformer = QFormer(512, 64, queries=8, width=64, depth=2, heads=4, ffn=128, dropout=0.0)
rwkv = RWKV6(vocab=256, width=64, depth=2, head_size=32)
optimizer = torch.optim.AdamW([*qformer.parameters(), *rwkv.parameters()], lr=3e-3)
slots = torch.full((4, 8), SLOT)  # positions that are no words

for _ in range(40):
    ids = torch.cat([slots, captions], dim=1)
    embeds = torch.cat([qformer(features), rwkv.embed(captions)], dim=1)
    hidden, _ = rwkv(Sequence(ids, embeds=embeds))
    logits = rwkv.head(hidden[:, 7:-1])  # the last query foretells the first word
    loss = F.cross_entropy(logits.flatten(0, 1), captions.flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()

with torch.no_grad():
    hidden, state = rwkv(Sequence(slots, embeds=qformer(features)))
    words = [rwkv.head(hidden[:, -1:]).argmax(-1)]
    while len(words) < 12:
        hidden, state = rwkv(Sequence(words[-1]), state)
        words.append(rwkv.head(hidden).argmax(-1))

right = (torch.cat(words, dim=1) == captions).float().mean()
print(f"loss {loss:.3f}, {right:.0%} of the words right, state of {state.nbytes // 1024} KiB")
