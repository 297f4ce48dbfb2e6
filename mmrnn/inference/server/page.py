"""Chat page: gradio's `ChatInterface`, answered as `/v1/chat/completions` is."""

import asyncio
import html
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from mmrnn.inference.server.completions import Completions
from mmrnn.inference.server.errors import APIError, message_of
from mmrnn.inference.server.gate import PAGE_PATH, reserve
from mmrnn.inference.server.page_messages import to_messages
from mmrnn.inference.server.schema import ChatCompletionRequest

CSS = ".message-row img { max-height: 14rem; width: auto } [aria-label=Share] { display: none }"
"""Style: images of moderate size, and no button that sends an image to another host."""

OFF = {"run_history": False, "ssr_mode": False, "mcp_server": False, "pwa": False}
"""Other parts of gradio, some of which variables of the environment would turn on."""

MAX_SESSIONS = 256
"""Visitors whose dialogues are kept; those who have been away for the longest time leave first."""


def mount_page(app: FastAPI, completions: Completions, uploads: Path) -> None:
    """Mount the page on an application.

    Args:
        app: of the server.
        completions: that answer.
        uploads: folder for the images of the page, of this server alone.
    """

    async def answer(
        message: Mapping[str, Any], history: Sequence[Mapping[str, Any]], system: str | None, *options: float | None
    ) -> AsyncIterator[str]:
        """Yield the reply as far as it has come."""
        try:
            with reserve(completions.engine) as place:
                most, text = completions.limits.max_body_bytes, ""
                messages = await asyncio.to_thread(to_messages, message, history, system, most)
                given = dict(zip(("max_tokens", "temperature", "top_p"), options, strict=True))
                body = ChatCompletionRequest(model=completions.name, messages=messages, **given)
                async for chunk in completions.chunks(body, place):
                    if added := chunk["choices"][0]["delta"].get("content"):
                        yield (text := text + added)
        except (APIError, ValueError) as error:
            gr.Warning(html.escape(message_of(error)))  # an error would hide the dialogue

    os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # the only way to tell gradio
    defaults = completions.defaults
    page = gr.ChatInterface(
        answer,
        multimodal=True,
        chatbot=gr.Chatbot(show_label=False, scale=1, buttons=["copy"]),
        textbox=gr.MultimodalTextbox(
            file_types=["image"], file_count="multiple", placeholder="Ask, with or without images", stop_btn=True
        ),
        additional_inputs=[
            gr.Textbox(label="System message"),
            gr.Number(completions.limits.max_new_tokens, label="Max tokens", precision=0),
            gr.Number(defaults.temperature, label="Temperature"),
            gr.Number(defaults.top_p, label="Top p"),
        ],
        additional_inputs_accordion=gr.Accordion("Options", open=False),
        title=completions.name,
        analytics_enabled=False,
        concurrency_limit=None,
        api_visibility="private",
    ).queue(api_open=False, max_size=completions.engine.max_requests)
    page.state_session_capacity = MAX_SESSIONS
    gr.mount_gradio_app(app, page, PAGE_PATH, root_path=PAGE_PATH, footer_links=[], css=CSS, **OFF)
    app.routes[-1].app.stop_event = app.state.ending
