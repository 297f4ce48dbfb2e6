"""Keys in vision-tower checkpoints that belong to other modules, with the reason they are ignored."""

LANGUAGE = "belongs to the language model"
CONNECTOR = "belongs to the connector"
ENCODER = "belongs to the encoder"
VISION = "belongs to the encoder or the connector"
HOOK = "belongs to the hook"
TEXT = "belongs to the text encoder"
HEAD = "belongs to the head, which no encoder here has"
LOSS = "belongs to a training loss"
PRETRAINING = "used in masked pre-training only"
COMPUTED = "computed, not loaded"

LLAMA = dict.fromkeys(("model.layers.*", "model.embed_tokens.*", "model.norm.*", "lm_head.*"), LANGUAGE)
HF = {
    **dict.fromkeys(("text_model.*", "text_projection.*"), TEXT),
    **dict.fromkeys(("visual_projection.*", "logit_scale", "logit_bias"), HEAD),
    **dict.fromkeys(("language_model.*", "model.language_model.*"), LANGUAGE),
    **dict.fromkeys(("multi_modal_projector.*", "model.multi_modal_projector.*", "model.mm_projector.*"), CONNECTOR),
    **dict.fromkeys(("image_newline", "model.image_newline"), CONNECTOR),
    **LLAMA,
}
OPEN_CLIP = {
    **dict.fromkeys(("text.*", "token_embedding.*", "positional_embedding", "transformer.*"), TEXT),
    **dict.fromkeys(("ln_final.*", "text_projection", "text_projection.*", "context_length", "vocab_size"), TEXT),
    **dict.fromkeys(("logit_scale", "logit_bias", "input_resolution"), HEAD),
}
LAVIS = {
    **dict.fromkeys(("Qformer.*", "query_tokens"), CONNECTOR),
    **dict.fromkeys(("llama_proj.*", "opt_proj.*", "t5_proj.*", "llm_proj.*"), CONNECTOR),
    **dict.fromkeys(("llama_model.*", "opt_model.*", "t5_model.*", "llm_model.*"), LANGUAGE),
    **dict.fromkeys(("vision_proj.*", "text_proj.*", "itm_head.*", "temp"), LOSS),
}
BLIP2 = {
    **dict.fromkeys(("qformer.*", "query_tokens", "language_projection.*"), CONNECTOR),
    **dict.fromkeys(("embeddings.word_embeddings.*", "embeddings.position_embeddings.*"), TEXT),
    **dict.fromkeys(("vision_projection.*", "text_projection.*", "itm_head.*"), LOSS),
    "language_model.*": LANGUAGE,
}
SAT = {
    **dict.fromkeys(("mixins.eva.linear_proj.*", "mixins.eva.boi", "mixins.eva.eoi"), CONNECTOR),
    **dict.fromkeys(("mixins.eva.model.qformer.*", "mixins.eva.model.glm_proj.*"), CONNECTOR),
    **dict.fromkeys(("image_encoder.qformer.*", "image_encoder.glm_proj.*"), CONNECTOR),
    **dict.fromkeys(("transformer.*", "lm_head.*", "mixins.mlp.*", "mixins.rotary.*", "mixins.lm.*"), LANGUAGE),
    **dict.fromkeys(("mixins.chatglm-final.*", "mixins.chatglm-layernorm.*"), LANGUAGE),
}
SAM = dict.fromkeys(("prompt_encoder.*", "mask_decoder.*", "pixel_mean", "pixel_std"), "belongs to the mask decoder")
QWEN = dict.fromkeys(("transformer.h.*", "transformer.wte.*", "transformer.ln_f.*", "lm_head.*"), LANGUAGE)
FLAMINGO = {"perceiver.*": CONNECTOR, "lang_encoder.*": LANGUAGE}
