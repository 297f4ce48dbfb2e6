"""Small random models of transformers, each with ours of the same form, whose weights are not loaded yet."""

import pytest
import torch

from mmrnn.backbones import HFDecoder, HFEncoderDecoder, Transformer
from mmrnn.connectors import MLP, Linear, QFormer, RowSeparators
from mmrnn.encoders import Patchify, TimmViT
from mmrnn.model.vlm import VLM, Modality

transformers = pytest.importorskip("transformers")

VISION = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
ARCH = {"patch_size": 8, "embed_dim": 24, "num_heads": 2, "mlp_ratio": 2.0}
QUERIES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4}
QUERIES |= {"encoder_hidden_size": 24, "vocab_size": 30, "cross_attention_frequency": 2, "max_position_embeddings": 20}
QFORMER = {"queries": 4, "width": 16, "depth": 4, "heads": 4, "ffn": 24}
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
OPT = {"num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32}
OPT |= {"max_position_embeddings": 128, "dropout": 0.0}
T5 = {"num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 48, "feed_forward_proj": "gated-gelu"}
T5 |= {"dropout_rate": 0.0, "tie_word_embeddings": False}
PERSIMMON = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
PERSIMMON |= {"max_position_embeddings": 256, "hidden_dropout": 0.0, "attention_dropout": 0.0}


def randomised(model):
    """Every parameter counts: none is left at zero or one. No reply ends early."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    if model.can_generate():
        model.generation_config.eos_token_id = model.config.eos_token_id = None
    return model.eval()


def llava(vocab, slot):
    text = transformers.LlamaConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_theta=10000.0,
    )
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION, image_size=32, patch_size=8),
        text_config=text,
        image_token_index=slot,
        image_seq_length=16,
    )
    tower = TimmViT(name="vit_large_patch14_clip_quickgelu_336", size=32, depth=3, layer=-2, arch=ARCH, resize="crop")
    backbone = Transformer(vocab=vocab, width=32, depth=2, heads=4, kv_heads=2, ffn=48, eps=text.rms_norm_eps)
    ours = VLM(backbone, {"image": Modality(tower, MLP(24, 32))}).eval()
    return randomised(transformers.LlavaForConditionalGeneration(config)), ours


def opt(vocab):
    text = transformers.OPTConfig(vocab_size=vocab, hidden_size=32, **OPT)
    return text, HFDecoder(name="opt", vocab=vocab, width=32, arch=OPT).eval()


def t5(vocab):
    text = transformers.T5Config(vocab_size=vocab, d_model=32, decoder_start_token_id=0, pad_token_id=0, **T5)
    return text, HFEncoderDecoder(vocab=vocab, width=32, arch=T5).eval()


def blip2(text, backbone, slot):
    """BLIP-2 around a language model: its configuration in transformers, and ours."""
    config = transformers.Blip2Config(
        vision_config=transformers.Blip2VisionConfig(**{**VISION, "num_hidden_layers": 2}, image_size=32, patch_size=8),
        qformer_config=transformers.Blip2QFormerConfig(**QUERIES),
        text_config=text,
        num_query_tokens=4,
        image_token_index=slot,
    )
    peer = randomised(transformers.Blip2ForConditionalGeneration(config))
    peer.language_model.generation_config.eos_token_id = peer.language_model.config.eos_token_id = None
    eva = {"name": "eva_giant_patch14_clip_224", "layer": -1, "cls": "first", "extra_norm": 1e-6, "resize": "squash"}
    tower = TimmViT(size=32, depth=2, arch=ARCH, **eva, **CLIP)
    return peer, VLM(backbone, {"image": Modality(tower, QFormer(24, 32, **QFORMER))}).eval()


def fuyu(vocab, slot, *, patch, size):
    text = transformers.PersimmonConfig(vocab_size=vocab, hidden_size=32, **PERSIMMON)
    config = transformers.FuyuConfig(text_config=text, image_token_id=slot, patch_size=patch)
    backbone = HFDecoder(name="persimmon", vocab=vocab, width=32, arch=PERSIMMON)
    connector = RowSeparators(3 * patch**2, 32, part=Linear)
    ours = VLM(backbone, {"image": Modality(Patchify(patch=patch, size=size, resize="within"), connector)}).eval()
    return randomised(transformers.FuyuForCausalLM(config)), ours
